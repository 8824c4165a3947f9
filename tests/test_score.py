"""`vaani score`: a bad voice scores badly in the figure that should catch it; real voices through the command."""
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_voice import make_voice
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

from vaani_lib.audio import load_audio, write_audio
from vaani_lib.base import compact_tokenizer
from vaani_lib.cli import main
from vaani_lib.config import read_json, write_json
from vaani_lib.corpus import prepare
from vaani_lib.demo import demo_sentences, make_corpus
from vaani_lib.espeak import say
from vaani_lib.layouts import read_corpus
from vaani_lib.metrics import RATE
from vaani_lib.readings import espeak_readings, recorded_readings
from vaani_lib.run_setup import choose_settings
from vaani_lib.runs import read_curves
from vaani_lib.scoring import Scores, add_likeness, score
from vaani_lib.training import train

TEXTS = demo_sentences()[:12]
WRONG = dict(zip(TEXTS, TEXTS[1:] + TEXTS[:1]))


def voice(speak) -> SimpleNamespace:
    """Something that speaks with `speak`, in the shape that scoring asks for."""
    return SimpleNamespace(speakers=("gu",), sample_rate=22050, tokenizer=compact_tokenizer(), unread=lambda text: {}, say=speak)


def robot(**settings) -> SimpleNamespace:
    return voice(lambda text, speaker, seed: say(text, **settings))


def noise(text: str, speaker, seed) -> tuple[np.ndarray, int]:
    wav, rate = say(text)
    return np.random.default_rng(len(text)).normal(0, 0.1, len(wav)).astype(np.float32), rate


BAD = {
    "silence": (voice(lambda text, speaker, seed: (0 * say(text)[0], 22050)), "sentences found", "mel-cepstral distortion"),
    "noise": (voice(noise), "sentences found", "voicing error"),
    "a wrong text": (voice(lambda text, speaker, seed: say(WRONG.get(text, text))), "sentences found", "mel-cepstral distortion"),
    "another speaker": (robot(voice="gu+f2"), "timbre distance", "pitch distance"),
    "half speed": (robot(speed=88), "duration ratio", "duration ratio"),
}


@pytest.fixture(scope="module")
def readings():
    """As if espeak-ng's plain voice had recorded the sentences."""
    return [replace(reading, speaker="gu") for reading in espeak_readings(TEXTS)]


@pytest.fixture(scope="module")
def good(readings) -> Scores:
    return score(robot(speed=185, pitch=52), readings, most=6)


def test_an_honest_reading_scores_well(good):
    assert good["sentences found"].mean == 1 and good["words found"].mean > 0.9
    assert good["mel-cepstral distortion"].mean < 3 and abs(good["duration ratio"].mean - 0.95) < 0.05
    assert good["timbre distance"].mean < 1.2 * good["timbre distance among recordings"].mean
    assert good["pitch distance"].mean < 1 and good["clipped samples"].mean == 0
    low, high = good["mel-cepstral distortion"].interval
    assert low < good["mel-cepstral distortion"].mean < high


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_voice_scores_badly_in_the_figure_that_should_catch_it(fault, readings, good):
    bad, *names = BAD[fault]
    found = score(bad, readings, most=6)
    for name in names:
        figure, before = found[name], good[name]
        if figure.better == "higher":
            assert figure.interval[1] < before.interval[0], (fault, name)
        elif figure.better == "lower":
            assert figure.interval[0] > before.interval[1], (fault, name)
        else:
            assert figure.interval[0] > 1.8, (fault, name)


def test_what_reads_exactly_as_the_reference_scores_perfectly(readings):
    same = score(robot(), readings, most=4)
    for name in ("mel-cepstral distortion", "log-spectral distance", "pitch error", "voicing error"):
        assert (same[name].values == 0).all(), name
    assert (same["duration ratio"].values == 1).all()
    assert all(figure.mean == 1 for figure in same.figures if figure.better == "higher")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """Random weights for two speakers: it makes sounds."""
    return make_voice(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory) -> Path:
    """A Wav2Vec2 that was never trained, as a folder."""
    folder = tmp_path_factory.mktemp("recogniser")
    letters = {letter: i for i, letter in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"કમળછો"])}
    (folder / "vocab.json").write_text(json.dumps(letters), encoding="utf-8")
    features = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    Wav2Vec2Processor(features, Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))).save_pretrained(folder)
    small = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    front = dict(conv_dim=(8, 8), conv_kernel=(10, 3), conv_stride=(160, 2), num_feat_extract_layers=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Wav2Vec2ForCTC(Wav2Vec2Config(vocab_size=len(letters), **small, **front, num_conv_pos_embeddings=4,
                                      num_conv_pos_embedding_groups=2)).save_pretrained(folder)
    return folder


def test_the_command_scores_a_voice_against_recordings_and_their_prepared_set_alike(tiny, recogniser, corpus, tmp_path, capsys):
    prepared = prepare(read_corpus(corpus), tmp_path / "prepared").folder
    found = {}
    for data in (corpus, prepared):
        file = tmp_path / f"{data.name}.json"
        assert main(["score", str(tiny), "--data-dir", str(data), "--asr", str(recogniser), "--json", str(file)]) == 0
        out, found[data] = capsys.readouterr().out, json.loads(file.read_text(encoding="utf-8"))
        assert f"against recordings in {data}: 2 sentence(s)" in out, "those held out"
        for part in ("mel-cepstral distortion", "timbre distance among recordings", "pairs ત/ટ", "character errors",
                     "than to those of 19 others", "Student's t", "no network", "NFC"):
            assert part in out, part
    first, second = (found[data]["figures"]["mel-cepstral distortion"] for data in (corpus, prepared))
    assert len(first["values"]) == 2 and np.allclose(first["values"], second["values"], rtol=0.03)
    assert found[corpus]["figures"]["character errors"]["mean"] > 0.5
    assert first["interval_95"][0] < first["mean"] < first["interval_95"][1]


def test_the_command_needs_no_recordings_and_one_sentence_is_enough(tiny, capsys):
    assert main(["score", str(tiny), "--sentences", "1", "--speaker", "dev"]) == 0
    out = capsys.readouterr().out
    assert "against espeak-ng's readings" in out and "1 sentence(s)" in out and "than to those of 79 others" in out
    assert "timbre" not in out, "espeak-ng is nobody that the voice should be like"


def test_what_cannot_be_scored_is_said_in_a_sentence(tiny, corpus, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    low = tmp_path / "low"
    low.mkdir()
    write_audio(low / "a.wav", say("કેમ છો?", sample_rate=8000)[0], 8000)
    (low / "metadata.csv").write_text("a.wav|કેમ છો?|asha\n", encoding="utf-8")
    telephone = shutil.copytree(tiny, tmp_path / "telephone")
    write_json(telephone / "config.json", read_json(telephone / "config.json") | {"sampling_rate": 8000})
    for arguments, sentence in (
        ([telephone], "This voice has 8000 samples a second; a comparison needs 16000"),
        (["/no/voice"], "There is no folder /no/voice"),
        ([tiny, "--data-dir", tmp_path / "empty"], "no metadata.csv"),
        ([tiny, "--data-dir", low], "a comparison needs 16000"),
        ([tiny, "--sentences", 0], "--sentences is 0"),
        ([tiny, "--speaker", "nobody"], "no speaker 'nobody'"),
        ([tiny, "--asr", "/no/recogniser"], "No speech recogniser"),
        ([tiny, "--json", "/no/folder/f.json"], "no folder /no/folder"),
    ):
        assert main(["score", *map(str, arguments)]) == 2, arguments
        err = capsys.readouterr().err
        assert err.startswith("vaani: ") and sentence in err and "Traceback" not in err, (arguments, err)


def test_human_recordings_are_like_themselves_and_unlike_others(human_recordings):
    clips = recorded_readings(human_recordings, most=12)
    folder = human_recordings.parent / "en_openslr83_5"
    if not folder.is_dir():
        pytest.skip(f"no recordings of other speakers at {folder}")
    others = [load_audio(path, RATE)[0] for path in sorted((folder / "wavs").iterdir())]
    own, strange = Scores("", ""), Scores("", "")
    add_likeness(own, [clip.wav for clip in clips[:5]], clips[:5], clips[5:] + clips[:5])
    add_likeness(strange, others, clips[: len(others)], clips)
    assert own["timbre distance"].interval[1] < strange["timbre distance"].interval[0]
    assert own["pitch distance"].mean < strange["pitch distance"].mean


def test_a_score_may_choose_the_best_voice(tmp_path):
    """Of three epochs by their mel-cepstral distortion, not by the loss: it is what the record, the line and best/ go by."""
    corpus = make_corpus(tmp_path / "recordings", TEXTS, {"tara": "gu+f5"}, valid_share=0.5)
    said, settings = [], choose_settings("compact", epochs=3, best_by="mcd", batch_size=6, grad_accum=1, learning_rate=1e-3)
    run = train(settings, corpus, tmp_path / "runs", "by-score", say=said.append)
    curve, best = read_curves(run)[0]["Score/mel_cepstral_distortion"], read_json(run / "run.json")["best"]
    epoch = int(np.argmin(curve.values))
    assert len(curve.values) == 3 and best["metric"] == pytest.approx(curve.values[epoch])
    assert (best["epoch"], best["step"]) == (epoch + 1, curve.steps[epoch])
    chosen = [line for line in said if "(best so far)" in line]
    assert len(chosen) == sum(value == min(curve.values[: i + 1]) for i, value in enumerate(curve.values))
    assert all(f"mcd {value:.3f}" in line for value, line in zip(curve.values, [line for line in said if line.startswith("epoch ")]))
    assert len(list((run / "samples").glob("*.wav"))) == 3 * 3, "six sentences are judged, three are kept"
    with pytest.raises(ValueError, match="best_by was mcd and is now mel"):
        train(replace(settings, best_by="mel"), corpus, tmp_path / "runs", "by-score", say=said.append)
    with pytest.raises(ValueError, match="choose from mel, mcd, pitch"):
        replace(settings, best_by="luck")
