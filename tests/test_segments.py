"""Chapters cut into their lines: each piece must hold its own sentence, and what is prepared must be the same as from clips."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vaani_lib.audio import load_audio
from vaani_lib.cli import main
from vaani_lib.corpus import load_prepared
from vaani_lib.demo import demo_sentences
from vaani_lib.espeak import say
from vaani_lib.segments import cut_chapter, read_chapters
from vaani_lib.speech import trim_silence

HUMAN = Path(os.environ.get("VAANI_SHARED_DATA", Path(__file__).resolve().parents[1] / "../shared/data")) / "en_ljspeech32"


def write_chapter(path: Path, clips: list[tuple[np.ndarray, str]], rate: int, shortest: float = 0.3) -> list[tuple[float, float]]:
    """The clips in one file with pauses of a reader between them, and their lines; (start, end) of each in seconds."""
    rng, parts, places = np.random.default_rng(0), [], []
    room = lambda seconds: 3e-4 * rng.standard_normal(int(seconds * rate)).astype(np.float32)
    parts.append(room(0.5))
    for wav, _ in clips:
        start = sum(map(len, parts))
        parts.append(wav + room(len(wav) / rate + 1)[: len(wav)])
        places.append((start / rate, (start + len(wav)) / rate))
        parts.append(room(rng.uniform(shortest, 0.9)))
    soundfile.write(path, np.concatenate(parts), rate)
    path.with_suffix(".txt").write_text("\n".join(text for _, text in clips), encoding="utf-8")
    return places


def right(folder: Path, places: list[tuple[float, float]]) -> float:
    """Share of the lines whose piece holds all of their sound, and no more than 0.15 s of another's."""
    found = cut_chapter(read_chapters(folder)[0])
    fits = lambda cut, place: cut[0] <= place[0] + 0.05 and cut[1] >= place[1] - 0.05
    alone = [found[i][1] <= places[i + 1][0] + 0.15 for i in range(len(places) - 1)] + [True]
    return np.mean([fits(cut, place) and ok for cut, place, ok in zip(found, places, alone)])


def test_sentences_of_a_chapter_come_out_one_by_one(tmp_path):
    texts = [", ".join(demo_sentences()[i:i + n]).replace(".,", ",") for i, n in zip(range(0, 78, 2), [1, 2, 1, 3] * 10)]
    spoken = [trim_silence(*say(text), margin=0.02) for text in texts]
    places = write_chapter(tmp_path / "chapter.wav", list(zip(spoken, texts)), 22050)
    assert len(places) == 39 and right(tmp_path, places) >= 0.95


def test_a_person_s_chapter_too(tmp_path):
    if not HUMAN.is_dir():
        pytest.skip(f"the human recordings are not here ({HUMAN})")
    rows = [line.split("|") for line in (HUMAN / "metadata.csv").read_text().splitlines()[1:]]
    clips = [(trim_silence(*load_audio(HUMAN / name), margin=0.02), text) for name, text, _ in rows]
    places = write_chapter(tmp_path / "chapter.wav", clips, 22050)
    assert right(tmp_path, places) >= 0.95


def test_prepare_segment_makes_a_set_of_the_lines_and_leaves_the_recording_alone(tmp_path, capsys):
    texts = demo_sentences()[:12]
    (tmp_path / "book").mkdir()
    clips = [(say(text)[0], text) for text in texts]
    write_chapter(tmp_path / "book" / "chapter.wav", clips, 22050, shortest=0.4)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "book").iterdir()}
    arguments = ["prepare", str(tmp_path / "book"), str(tmp_path / "set")]
    assert main([*arguments, "--segment"]) == 0
    prepared = load_prepared(tmp_path / "set")
    assert {row.text for row in prepared.all_rows} == set(texts) and "12 pieces" in capsys.readouterr().out
    for row, (wav, text) in zip(sorted(prepared.all_rows, key=lambda row: row.file), clips, strict=True):
        assert row.text == text and abs(row.length / 16000 - len(wav) / 22050) < 0.3, row
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "book").iterdir()}
    assert main(arguments) == 2 and "no metadata.csv" in capsys.readouterr().err
