"""What a person decided by ear reaches the prepared set, survives everything, and never touches the recordings."""
import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vaani_lib.base import compact_tokenizer
from vaani_lib.cli import main
from vaani_lib.data_checks import prepare_checked
from vaani_lib.decisions import ACCEPTED, REJECTED, Decisions
from vaani_lib.demo import demo_sentences, make_corpus, plant_faults
from vaani_lib.layouts import read_corpus
from vaani_lib.opening import get_prepared
from vaani_lib.prepared import DECISIONS, load_prepared


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Twelve good recordings, ten faulty ones, and one so quiet that a check leaves it out."""
    folder = make_corpus(tmp_path_factory.mktemp("review") / "recordings", sentences=demo_sentences()[:12])
    plant_faults(folder)
    wav, rate = soundfile.read(folder / "train/audio/faulty_digits.wav")
    soundfile.write(folder / "train/audio/faulty_digits.wav", 0.002 * wav, rate, subtype="FLOAT")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*")) if path.is_file()}


def texts(prepared) -> dict[str, str]:
    return {row.file: row.text for row in prepared.all_rows}


def reasons(out: Path) -> dict[str, str]:
    with open(out / "left_out.csv", encoding="utf-8", newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


QUIET, LOUD, EMPTY = (f"train/audio/faulty_{kind}.wav" for kind in ("digits", "clipped", "notext"))


def test_decisions_change_the_prepared_set_and_undoing_them_restores_it_byte_for_byte(recordings, tmp_path):
    before, out = hashes(recordings), tmp_path / "set"
    _, plain = prepare_checked(recordings, out)
    assert "nothing is louder" in reasons(out)[QUIET] and EMPTY in reasons(out) and LOUD in texts(plain)
    files = hashes(out)

    decisions = Decisions(out, read_corpus(recordings))
    first = next(iter(texts(plain)))
    decisions.decide(QUIET, ACCEPTED)
    decisions.decide(LOUD, REJECTED)
    decisions.correct(EMPTY, "હવે લખાણ છે.")
    decisions.correct(first, "બીજું લખાણ.")
    report, prepared = prepare_checked(recordings, out)
    assert texts(prepared) == {
        **{file: text for file, text in texts(plain).items() if file != LOUD},
        first: "બીજું લખાણ.", EMPTY: "હવે લખાણ છે.", QUIET: texts(prepared)[QUIET]}
    assert reasons(out)[LOUD] == "rejected by ear" and "1 rejected, 1 accepted, 2 with another text" in report.text()
    splits = {row.file: row.split for row in plain.all_rows}
    assert all(row.split == splits.get(row.file, "train") for row in prepared.all_rows), "nobody changes sides"
    again, same = prepare_checked(recordings, out)
    assert again == report and same.fingerprint == prepared.fingerprint, "the set is used again"

    reopened = Decisions(out, read_corpus(recordings))  # after a restart
    assert reopened.of(LOUD).verdict == REJECTED and reopened.of(first).text == "બીજું લખાણ."
    for _ in range(4):
        reopened.undo()
    prepare_checked(recordings, out)
    (out / DECISIONS).unlink()
    assert hashes(out) == files and hashes(recordings) == before


def test_vaani_prepare_takes_the_decisions_that_lie_in_its_folder(recordings, tmp_path, capsys):
    out = tmp_path / "set"
    Decisions(out, read_corpus(recordings)).decide(LOUD, REJECTED)  # before there is any set
    assert main(["prepare", str(recordings), str(out)]) == 0
    assert "By ear: 1 rejected." in capsys.readouterr().out
    assert LOUD not in texts(load_prepared(out)) and (out / DECISIONS).is_file()
    other = make_corpus(tmp_path / "other", sentences=demo_sentences()[20:32], voices={"else": "gu+f5"})
    plant_faults(other)
    (other / "train/metadata.csv").write_text((other / "train/metadata.csv").read_text().replace("ફાટે", "તૂટે"))
    assert main(["prepare", str(other), str(out)]) == 2
    said = capsys.readouterr().err
    assert "was decided about other recordings" in said and "Choose another folder" in said and said.count("\n") == 1
    assert LOUD not in texts(load_prepared(out)), "what was there is as it was"


def test_what_nothing_can_be_learned_from_is_left_out_though_it_was_accepted(recordings, tmp_path):
    out, corpus = tmp_path / "set", read_corpus(recordings)
    decisions = Decisions(out, corpus)
    for kind in ("truncated", "empty", "silent", "nan", "missing"):
        with pytest.raises(ValueError, match="cannot be accepted: .*Reject it, or put"):
            decisions.decide(f"train/audio/faulty_{kind}.wav", ACCEPTED)
    assert not (out / DECISIONS).exists()


def test_a_machine_that_goes_while_the_set_is_replaced_takes_no_decision_with_it(recordings, tmp_path, monkeypatch):
    out, corpus = tmp_path / "set", read_corpus(recordings)
    prepare_checked(recordings, out)
    Decisions(out, corpus).decide(LOUD, REJECTED)
    move, moves = os.replace, []

    def dies(source, target):
        if Path(target) == out and moves:
            raise KeyboardInterrupt  # after the old set was moved aside, before the new one is in its place
        moves.append(target)
        move(source, target)

    monkeypatch.setattr("vaani_lib.prepared.os.replace", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare_checked(recordings, out)
    monkeypatch.undo()
    assert not out.exists()
    assert Decisions(out, corpus).of(LOUD).verdict == REJECTED
    _, prepared = prepare_checked(recordings, out)
    assert LOUD not in texts(prepared)


def test_a_recording_made_anew_is_to_be_heard_anew(recordings, tmp_path):
    out, folder = tmp_path / "set", make_corpus(tmp_path / "mine", sentences=demo_sentences()[:12])
    corpus = read_corpus(folder)
    path = corpus.utterances[0].audio
    name = path.relative_to(folder).as_posix()
    Decisions(out, corpus).decide(name, REJECTED)
    wav, rate = soundfile.read(path)
    soundfile.write(path, np.float32(0.9) * wav, rate)
    report, prepared = prepare_checked(folder, out)
    assert name in texts(prepared) and f"hear them again: {name}" in report.text()


def test_training_on_the_recordings_says_that_there_is_a_set_decided_by_ear(tmp_path):
    folder, said = make_corpus(tmp_path / "mine", sentences=demo_sentences()[:12]), []
    get_prepared(folder, tmp_path / "runs", compact_tokenizer(), 16000, said.append)
    assert "by ear" not in "".join(said)
    corpus = read_corpus(folder)
    Decisions(f"{folder}-clean", corpus).decide(corpus.utterances[0].audio.relative_to(folder).as_posix(), REJECTED)
    get_prepared(folder, tmp_path / "runs", compact_tokenizer(), 16000, said.append)
    assert f"NOT used. It is in {folder}-clean" in said[-1]
