"""What a person hears as speech is kept, and nothing else: in a room that is heard, beside steps, and in no order."""

import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vaani_lib.audio import set_level, speech_bounds, speech_level
from vaani_lib.corpus import prepare
from vaani_lib.data_checks import prepare_checked
from vaani_lib.demo import demo_sentences
from vaani_lib.espeak import say
from vaani_lib.layouts import read_corpus
from vaani_lib.speech import find_speech

BEFORE, AFTER = 0.7, 1.2  # seconds of room around each sentence


@lru_cache
def spoken(number: int) -> tuple[np.ndarray, int]:
    wav, rate = say(demo_sentences()[number], voice=["gu", "gu+f2"][number % 2])
    start, end = speech_bounds(wav, rate)
    return set_level(wav[start:end], rate), rate


def hiss(count, rate, rng):
    return rng.standard_normal(count)


def rumble(count, rate, rng):
    """Pink: as loud in each octave."""
    return np.fft.irfft(np.fft.rfft(rng.standard_normal(count)) / np.sqrt(np.arange(count // 2 + 1).clip(1)), count)


def hum(count, rate, rng):
    return sum(np.sin(2 * np.pi * 50 * k * np.arange(count) / rate) / k for k in (1, 2, 3, 5))


def steps(count, rate, rng):
    """A knock of 0.1 s every 0.4 s, in the first 0.6 s alone."""
    time = np.arange(count) / rate
    return rng.standard_normal(count) * np.exp(-40 * (time % 0.4)) * (time < 0.6)


def music(count, rate, rng):
    time = np.arange(count) / rate
    return sum(np.sin(2 * np.pi * f * time) * np.exp(-3 * (time % 0.5)) for f in (220, 277, 330))


def in_room(wav: np.ndarray, rate: int, room, below: float) -> np.ndarray:
    """`wav` with pauses around it and a noise so many dB below the speech; 60 dB below there is always some."""
    padded, rng = np.pad(wav, (int(BEFORE * rate), int(AFTER * rate))), np.random.default_rng(0)
    loud = 10 ** (speech_level(wav, rate) / 20)
    noise = room(len(padded), rate, rng)
    noise = noise / (np.abs(noise).max() if room is steps else noise.std())
    return padded + loud * (10 ** (-below / 20) * noise + 1e-3 * rng.standard_normal(len(padded)))


def corpus(folder: Path, wavs: list[np.ndarray], rate: int) -> Path:
    (folder / "audio").mkdir(parents=True)
    rows = [f"audio/{number:03d}.wav|{demo_sentences()[number]}|asha\n" for number in range(len(wavs))]
    (folder / "metadata.csv").write_text("".join(rows), encoding="utf-8")
    for number, wav in enumerate(wavs):
        soundfile.write(folder / f"audio/{number:03d}.wav", wav, rate, subtype="PCM_16")
    return folder


@pytest.mark.parametrize("room", [hiss, rumble, hum, steps], ids=lambda room: room.__name__)
def test_speech_is_found_in_a_room_that_is_heard(room):
    for number in range(4):
        wav, rate = spoken(number)
        for below in (40, 30, 20, 10):
            start, end = find_speech(in_room(wav, rate, room, below), rate)
            early, late = BEFORE - start / rate, end / rate - BEFORE - len(wav) / rate
            # prepare keeps another 0.1 s: of speech nothing is lost
            assert -0.1 < early < 0.15 and -0.1 < late < (0.15 if below > 10 else 0.2), (number, below, early, late)


def test_a_quiet_room_is_left_to_the_level():
    for number in range(6):
        wav, rate = spoken(number)
        for clip in (wav, in_room(wav, rate, hiss, 55), np.pad(wav, rate)):
            assert find_speech(clip, rate) == speech_bounds(clip, rate), number


def test_a_recording_without_speech_is_left_out_and_the_others_are_trimmed(tmp_path):
    wavs = [in_room(*spoken(number), hiss, 20) for number in range(4)]
    rate, rng = spoken(0)[1], np.random.default_rng(1)
    wavs += [0.1 * noise(4 * rate, rate, rng) for noise in (hiss, hum, steps, music)]
    wavs += [np.pad(0.1 * hiss(2 * rate, rate, rng), rate), 0.003 * hiss(3 * rate, rate, rng)]
    report, prepared = prepare_checked(corpus(tmp_path / "data", wavs, rate), tmp_path / "set")
    silent = [issue.file for issue in report.issues if issue.code == "silent"]
    assert silent == [f"audio/{number:03d}.wav" for number in range(4, 10)]
    assert all("nobody is heard" in issue.message for issue in report.issues if issue.code == "silent")
    assert {issue.file for issue in report.issues if issue.code == "edge-silence"} == {row.file for row in prepared.all_rows}
    for row in sorted(prepared.all_rows, key=lambda row: row.file):
        expected = len(spoken(int(Path(row.file).stem))[0]) / rate + 0.2
        assert -0.1 < row.length / prepared.sample_rate - expected < 0.2, row


def test_the_same_bytes_with_another_number_of_threads_and_in_another_order(tmp_path):
    wavs = [in_room(*spoken(number), [hiss, hum, rumble][number % 3], 15) for number in range(6)]
    data = corpus(tmp_path / "data", wavs, spoken(0)[1])
    prepare_checked(data, tmp_path / "set")
    program = f"""
import random, torch
from vaani_lib import corpus
from vaani_lib.data_checks import prepare_checked
torch.set_num_threads(2)
map_in_order = corpus.parallel_map
def shuffled(function, items, title):
    order = list(range(len(items)))
    random.Random(0).shuffle(order)
    found = dict(zip(order, map_in_order(function, [items[i] for i in order], title)))
    return iter(found[i] for i in range(len(items)))
corpus.parallel_map = shuffled
prepare_checked({str(data)!r}, {str(tmp_path / "again")!r})
assert torch.get_num_threads() == 2, "listening left fewer threads to what comes after"
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("audio-00000.npy", "files.jsonl", "report.json", "prepared.json"):
        assert (tmp_path / "set" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_what_was_trimmed_by_another_rule_is_not_used_again(tmp_path, monkeypatch):
    data = read_corpus(corpus(tmp_path / "data", [in_room(*spoken(number), hiss, 10) for number in range(2)], spoken(0)[1]))
    with monkeypatch.context() as older:
        older.setattr("vaani_lib.corpus._TRIMMING", 1)
        older.setattr("vaani_lib.corpus.trim_silence", lambda wav, rate, margin: wav)
        before = prepare(data, tmp_path / "set")
    after = prepare(data, tmp_path / "set")
    assert all(new.length < old.length - 16000 for new, old in zip(after.all_rows, before.all_rows, strict=True))
