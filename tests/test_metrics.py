"""Each figure against speech with a known fault: the figure that should catch it gets worse."""
from functools import cache

import numpy as np
import pytest

from vaani_lib.audio import load_audio
from vaani_lib.demo import demo_sentences
from vaani_lib.espeak import say
from vaani_lib.layouts import read_corpus
from vaani_lib.metrics import RATE, Analysis, compare, mel_cepstral_distortion
from vaani_lib.pitch import median_pitch, pitch_track
from vaani_lib.retrieval import retrieval

TEXTS = demo_sentences()[:4]


@cache
def read(text: str, **settings) -> np.ndarray:
    return say(text, sample_rate=RATE, **settings)[0]


def figures(sounds: list[np.ndarray]) -> dict[str, float]:
    """Means over TEXTS, against espeak-ng's plain reading."""
    found = [compare(Analysis.of(wav, RATE), Analysis.of(read(text), RATE)) for wav, text in zip(sounds, TEXTS)]
    return {name: float(np.mean([getattr(one, name) for one in found])) for name in vars(found[0])}


@pytest.fixture(scope="module")
def good() -> dict[str, float]:
    """What an honest reading by nearly the same voice gets."""
    return figures([read(text, speed=185, pitch=53) for text in TEXTS])


def test_a_sound_is_at_no_distance_from_itself_and_near_to_an_honest_reading(good):
    same = figures([read(text) for text in TEXTS])
    assert same == {**dict.fromkeys(same, 0.0), "duration_ratio": 1.0}
    assert 0 < good["mel_cepstral_distortion"] < 3 and good["pitch_error"] < 150
    assert good["voicing_error"] < 0.08 and 0.9 < good["duration_ratio"] < 1


def noise(length: int) -> np.ndarray:
    return np.random.default_rng(length).normal(0, 0.1, length).astype(np.float32)


FAULTS = {
    "silence": (lambda text: np.zeros_like(read(text)), {"mel_cepstral_distortion": 6, "voicing_error": 0.4}),
    "noise": (lambda text: noise(len(read(text))), {"mel_cepstral_distortion": 6, "voicing_error": 0.4}),
    "a wrong text": (lambda text: read(TEXTS[TEXTS.index(text) - 1]), {"mel_cepstral_distortion": 4, "log_spectral_distance": 3}),
    "another speaker": (lambda text: read(text, voice="gu+f2"), {"mel_cepstral_distortion": 3, "pitch_error": 900}),
    "a higher pitch": (lambda text: read(text, pitch=70), {"pitch_error": 150}),
    "half speed": (lambda text: read(text, speed=88), {"duration_ratio": 0.9}),
    "a telephone": (lambda text: telephone(read(text)), {"log_spectral_distance": 1}),
}


def telephone(wav: np.ndarray) -> np.ndarray:
    """Nothing above 3.4 kHz."""
    from scipy import signal

    return signal.sosfilt(signal.butter(8, 3400, fs=RATE, output="sos"), wav).astype(np.float32)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_makes_the_figure_worse_that_should_catch_it(fault, good):
    make, worse_by = FAULTS[fault]
    found = figures([make(text) for text in TEXTS])
    for name, least in worse_by.items():
        assert found[name] > good[name] + least, (fault, name, found[name], good[name])
    if fault == "half speed":  # the same words by the same voice
        assert found["mel_cepstral_distortion"] < good["mel_cepstral_distortion"] + 1, found


def test_level_and_silence_around_it_change_nothing():
    wav = read(TEXTS[0])
    padded = np.concatenate([np.zeros(1600, np.float32), 0.2 * wav, np.zeros(8000, np.float32)])
    assert mel_cepstral_distortion(padded, wav, RATE) < 0.1 * mel_cepstral_distortion(read(TEXTS[1]), wav, RATE)


def test_pitch_agrees_with_librosa_s():
    from librosa import pyin

    wav = read(TEXTS[0], voice="gu+f2")
    theirs = pyin(wav, fmin=60, fmax=500, sr=RATE, frame_length=1024, hop_length=160)[0]
    ours = pitch_track(wav, RATE)
    assert len(ours) == len(theirs)
    both = ~np.isnan(ours) & ~np.isnan(theirs)
    cents = 1200 * np.abs(np.log2(ours[both] / theirs[both]))
    assert np.median(cents) < 15 and (cents > 100).mean() < 0.04  # pyin's grid is 10 cents
    assert (np.isnan(ours) != np.isnan(theirs)).mean() < 0.2


def test_sentences_are_found_across_voices_and_speeds_but_not_in_silence_noise_or_other_words():
    texts = demo_sentences()[:30]
    readings = [read(text) for text in texts]
    assert retrieval([read(text, voice="gu+f4", speed=130) for text in texts[:10]], readings, RATE).rate == 1
    wrong = [read(text, voice="gu+f4") for text in texts[10:20]]
    assert retrieval(wrong, readings, RATE).rate == 0
    for sound in (np.zeros(2 * RATE, np.float32), noise(2 * RATE)):
        assert retrieval([sound] * 10, readings, RATE).rate <= 0.1


# Praat 6.1.38's "To Pitch (ac)" from 60 to 500 Hz, median in Hz
PRAAT = {"LJ001-0001": 214.0, "LJ001-0002": 191.3, "LJ001-0003": 214.2, "LJ001-0005": 234.7}


def test_human_speech_has_praat_s_pitch_and_its_sentences_are_found_by_a_robot_s_readings(human_recordings):
    for name, pitch in PRAAT.items():
        assert abs(median_pitch(*load_audio(human_recordings / "wavs" / f"{name}.wav", RATE)) / pitch - 1) < 0.03, name
    clips = read_corpus(human_recordings).utterances[:16]
    spoken = [load_audio(clip.audio, RATE)[0] for clip in clips]
    assert retrieval(spoken, [read(clip.text, voice="en-us") for clip in clips], RATE).rate >= 15 / 16
