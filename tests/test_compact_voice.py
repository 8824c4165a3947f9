"""The voice that comes with Vaani says what it is asked to: sentences and words it was not trained on, high and low."""
import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import VitsModel

from vaani_lib.base import COMPACT, compact_base
from vaani_lib.demo import demo_sentences
from vaani_lib.espeak import say
from vaani_lib.metrics import mel_cepstral_distortion
from vaani_lib.pitch import median_pitch
from vaani_lib.retrieval import WORDS, retrieval
from vaani_lib.voice import Voice

RATE = 16000
ESPEAK = {"asha": "gu+f2", "dev": "gu+m3", "mira": "gu+f4", "kavi": "gu+m8"}  # what each learned from


@pytest.fixture(scope="module")
def voice() -> Voice:
    return Voice.load("compact")


@pytest.fixture(scope="module")
def readings() -> list[np.ndarray]:
    """espeak-ng's own reading of 80 sentences, none of which is among the prompts of OpenSLR 78."""
    return [say(text, ESPEAK["asha"], RATE)[0] for text in demo_sentences()]


def test_it_is_small_and_transformers_alone_can_load_it():
    assert sum(file.stat().st_size for file in COMPACT.iterdir()) < 25e6
    with safe_open(COMPACT / "model.safetensors", "pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}  # noqa: SIM118
    model = VitsModel.from_pretrained(COMPACT)
    assert model.dtype == torch.float32 and 4e6 < sum(p.numel() for p in model.parameters()) < 8e6
    assert model.config.speaker_names == sorted(ESPEAK)
    assert (COMPACT / "README.md").read_text(encoding="utf-8").startswith("---\nlanguage: gu")


def test_sentences_are_told_apart_from_79_others(voice, readings):
    spoken = [voice.say(text, "asha", seed=0)[0] for text in demo_sentences()]
    assert retrieval(spoken, readings, RATE).rate >= 0.99
    distortion = np.mean([mel_cepstral_distortion(*pair, RATE) for pair in zip(spoken[:20], readings)])
    untrained = compact_base(("asha",), seed=0)
    hiss = Voice(untrained.model.eval(), untrained.tokenizer, ("asha",)).say(demo_sentences()[0], seed=0)[0]
    assert distortion < 6 < mel_cepstral_distortion(hiss, readings[0], RATE)


def test_single_words_are_told_apart(voice):
    words = sorted({word.strip(".,?!") for text in demo_sentences()[:20] for word in text.split()})[:40]
    spoken, read = ([speak(f"{word}.") for word in words] for speak in (
        lambda text: voice.say(text, "dev", seed=0)[0], lambda text: say(text, ESPEAK["dev"], RATE)[0]))
    assert len(words) == 40 and retrieval(spoken, read, RATE, WORDS).rate >= 0.9


@pytest.mark.parametrize("speaker", sorted(ESPEAK))
def test_each_speaker_has_the_pitch_it_learned(voice, speaker):
    texts = demo_sentences()[:6]
    own = median_pitch(np.concatenate([voice.say(text, speaker, seed=0)[0] for text in texts]), RATE)
    learned = median_pitch(np.concatenate([say(text, ESPEAK[speaker], RATE)[0] for text in texts]), RATE)
    assert abs(12 * np.log2(own / learned)) < 2.5, "semitones: high and low are not confused"


def test_punctuation_is_a_pause(voice):
    with_comma, without = (voice.say(text, "asha", seed=0)[0] for text in ("તે આવ્યો, પણ હું ગયો.", "તે આવ્યો પણ હું ગયો."))
    assert len(with_comma) > len(without) + 0.05 * RATE
