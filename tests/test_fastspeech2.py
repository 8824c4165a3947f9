"""Voices of FastSpeech2_HS: as ESPnet speaks them, found in a checkout, and used as any other voice."""
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from published_voice import make_voice

from vaani_lib.choices import list_voices
from vaani_lib.export import export
from vaani_lib.places import find_runs
from vaani_lib.run_row import voice_of
from vaani_lib.sweep import sweep
from vaani_lib.takes import own_settings, speak
from vaani_lib.voice import Voice

RECORDED = Path(__file__).parent / "data" / "fastspeech2_espnet.npz"  # tests/parity.py --record


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("FastSpeech2_HS")
    make_voice(folder)
    shutil.copytree(folder / "gujarati/female", folder / "gujarati/male")
    shutil.copytree(folder / "vocoder/female", folder / "vocoder/male")
    return folder


@pytest.fixture(scope="module")
def voice(checkout) -> Voice:
    return Voice.load(checkout / "gujarati/female/model")


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_it_makes_the_mel_and_the_sound_that_espnet_made(voice):
    recorded = np.load(RECORDED, allow_pickle=False)
    ids = recorded["ids"].tolist()
    line = next(iter(voice._lines("કેમ છો")))
    assert line.ids == ids, "other tokens than ESPnet's"
    with torch.no_grad():
        mel, frames = voice.model.acoustic(torch.tensor(ids), torch.ones(len(ids)))
        wav, _ = voice.model(ids, np.ones(len(ids)))
    assert frames.tolist() == recorded["frames"].tolist()
    assert np.abs(mel.numpy() - recorded["mel"]).max() < 1e-4
    assert np.abs(wav[: len(recorded["sound"])].numpy() - recorded["sound"]).max() < 1e-5
    assert np.abs(recorded["mel"]).max() > 1 and np.abs(recorded["sound"]).max() > 0.01, "silence proves nothing"


def test_a_voice_of_48_khz(tmp_path):
    wav, rate = Voice.load(make_voice(tmp_path, 48000)).say("કેમ છો, આજે?")
    assert rate == 48000 and len(wav) % 1024 == 0 and np.abs(wav).max() > 0.01


def test_all_voices_of_a_checkout_are_listed_and_nothing_is_written_there(checkout):
    before = contents(checkout)
    choices = list_voices(checkout)
    assert [choice.label for choice in choices] == ["gujarati female", "gujarati male"]
    assert all(not choice.keeps and choice.home is None for choice in choices)
    for choice in choices:
        choice.load().say("કેમ છો")
    with pytest.raises(ValueError, match="2 voices") as told:
        Voice.load(checkout)
    assert str(checkout / "gujarati/male/model") in str(told.value)
    with pytest.raises(ValueError, match="a voice of FastSpeech2_HS: vaani speaks and serves it"):
        export(checkout / "gujarati/male", checkout.parent / "exported")
    assert contents(checkout) == before and not (checkout.parent / "exported").exists()


def test_what_git_lfs_has_not_fetched_is_said_with_the_remedy(checkout, tmp_path):
    shutil.copytree(checkout, tmp_path / "copy")
    weights = tmp_path / "copy/gujarati/female/model/model.pth"
    weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 148688073\n")
    with pytest.raises(FileNotFoundError, match="git lfs pull"):
        Voice.load(weights.parent)
    shutil.copy(checkout / "gujarati/female/model/model.pth", weights)
    (tmp_path / "copy/vocoder/female/aryan/hifigan/generator").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(FileNotFoundError, match="generator is a Git LFS pointer"):
        Voice.load(weights.parent)


def test_statistics_that_would_run_code_are_refused(checkout, tmp_path):
    shutil.copytree(checkout, tmp_path / "copy")
    folder = tmp_path / "copy/gujarati/female/model"
    np.savez(folder / "feats_stats.npz", count=np.array([print], dtype=object), sum=np.ones(20), sum_square=np.ones(20))
    with pytest.raises(ValueError, match="feats_stats.npz"):
        Voice.load(folder)


def test_alpha_and_speaking_rate_are_one_thing(voice):
    """They become ESPnet's alpha, which tests/parity.py compares: frames times it, rounded, token by token."""
    plain, tagged, rated = (voice.say(text, speaking_rate=rate)[0] for text, rate in (
        ("કેમ છો", None), ("<alpha=0.8>કેમ છો", None), ("કેમ છો", 1.25)))
    assert np.array_equal(tagged, rated) and len(tagged) < len(plain)


def test_numbers_are_words_before_a_point_can_be_a_pause(voice):
    (said,) = voice.sentences("12.5 અને 1,234")
    assert said.text.split()[:3] == ["બાર", "પોઇન્ટ", "પાંચ"] and "હજાર" in said.text and not voice.unread("12.5 અને 1,234")


def test_both_engines_in_what_the_notebooks_use(voice, checkout):
    settings = own_settings(voice, "કેમ છો? આજે <sil=300ms> સવારે.")
    take = speak(voice, replace(settings, level=-6.0, seed=7))
    assert [word.text for word in take.words] == ["કેમ", "છો", "આજે", "સવારે"] and take.note == ""
    assert take.words[-1].end <= len(take.wav) / take.sample_rate and json.dumps(asdict(take.words[0]))
    grid = sweep(voice, settings, {"speaking_rate": [0.8, 1.2], "noise_scale": [0.0, 1.0]})
    slow, fast = (len(grid.takes[rate, 0.0].wav) for rate in (0.8, 1.2))
    assert slow > fast and np.array_equal(grid.takes[0.8, 0.0].wav, grid.takes[0.8, 1.0].wav)
    runs = find_runs([checkout, checkout / "gujarati/female/model"])
    assert {run.name for run in runs} == {"gujarati female", "gujarati male"}
    assert voice_of(runs[0], "best").load().speakers == (runs[0].name,)
