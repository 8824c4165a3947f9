"""What the demo promises: a speaker whom the voice in the box has not heard, taught in 120 steps. Losing the machine is test_resume's."""
from vaani_lib.data_checks import prepare_checked
from vaani_lib.demo import make_corpus
from vaani_lib.tour import ESPEAK_VOICE, PITCH, SPEAKER, TRAINING, before_and_after, run_training, train_in_child


def test_a_new_speaker_is_nearer_than_any_of_the_base_s_own_voices(tmp_path):
    recordings = make_corpus(tmp_path / "recordings", voices={SPEAKER: ESPEAK_VOICE})
    _, prepared = prepare_checked(recordings, tmp_path / "prepared")
    run_training(train_in_child("--data-dir", tmp_path / "prepared", "--output-dir", tmp_path, "--run", "voice", *TRAINING))
    recorded, base, tuned = before_and_after(tmp_path / "voice", prepared).values()
    distortion, pitch, found = tuned
    assert pitch == PITCH and tuned[distortion] < 0.75 * base[distortion], (tuned, base)
    assert abs(tuned[PITCH] / recorded[PITCH] - 1) < 0.05 and tuned[found] >= base[found], (tuned, base, recorded)
