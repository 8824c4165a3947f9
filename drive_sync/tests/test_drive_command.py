"""`python -m drive_sync`: what a person sees, and the exit codes that a script sees."""
import errno
import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile_disk import contents

from drive_sync import Lease
from drive_sync.__main__ import CANNOT, NO, OK, main
from drive_sync.manifest import MARKER


@pytest.mark.parametrize("command", [[], ["status"], ["verify"], ["pull"], ["push"]])
def test_help_has_examples_and_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert "python -m drive_sync verify /content/drive" in said and "exit codes" in said


def test_it_runs_as_a_module(filled):
    done = subprocess.run([sys.executable, "-m", "drive_sync", "verify", filled.folder], capture_output=True, text=True,
                          cwd=Path(__file__).parents[2], timeout=60)
    assert done.returncode == OK, done.stderr
    assert "3 snapshots, 0 damaged" in done.stdout


def test_status_and_verify_of_a_damaged_store(filled, capsys):
    assert main(["status", str(filled.folder)]) == OK
    assert "unverified" in capsys.readouterr().out
    newest = filled.snapshots()[-1].path / "model.safetensors"
    newest.write_bytes(b"\0" * newest.stat().st_size)
    assert main(["verify", str(filled.folder)]) == NO
    assert "other content" in capsys.readouterr().out
    newest.write_bytes(b"")
    assert main(["status", str(filled.folder)]) == NO
    assert "has 0 bytes, expected 3000" in capsys.readouterr().out


def test_status_says_in_plain_words_how_the_run_stands(filled, capsys, tmp_path):
    def first_line() -> str:
        main(["status", str(filled.folder)])
        return capsys.readouterr().out.splitlines()[0]

    os.utime(filled.snapshots()[-1].path / MARKER, (time.time() - 3000,) * 2)
    assert first_line() == ("The run can go on from epoch 3, step 300, saved 50 min ago; this folder does not tell whether "
                            "Drive has it. Nobody works on it now.")
    lease = Lease(filled)
    lease.take()
    assert "Session aaa in this same process (another cell or thread) works on it; its last sign was" in first_line()
    lease.release()
    (filled.snapshots()[-1].path / "model.safetensors").write_bytes(b"")
    assert "from epoch 2, step 200, saved" in first_line() and "(1 newer one is not whole)" in first_line()
    for snapshot in filled.snapshots():
        (snapshot.path / MARKER).unlink()
    assert first_line().startswith("There is no whole checkpoint to go on from, though there are some. Nobody")
    assert main(["status", str(tmp_path)]) == NO
    assert capsys.readouterr().out.startswith(f"Nothing is saved in {tmp_path} yet. Nobody works on it now.")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_it_is_and_a_pipe_gets_the_answer_alone(filled, tmp_path, monkeypatch, capsys):
    big = tmp_path / "big"
    big.mkdir()
    (big / "model.safetensors").write_bytes(bytes(9_000_000))
    monkeypatch.setattr("drive_sync.progress.EVERY", 0.0)
    folder = str(tmp_path / "drive2")
    commands = (["push", folder, "--from", str(big), "--label", "ckpt-e1-s1"], ["verify", folder],
                ["pull", folder, "--into", str(tmp_path / "here")])
    for command in commands:
        assert main(command) == OK
        out, err = capsys.readouterr()
        assert err == "" and len(out.splitlines()) <= 2
    shutil.rmtree(tmp_path / "here")
    for command, words in zip(commands, ("publishing ckpt-e1-s1: 46 % of 9 MB", ": 99 % of 9 MB", ": 46 % of 9 MB")):
        monkeypatch.setattr(sys, "stderr", Terminal())
        assert main(command) == OK
        shown = sys.stderr.getvalue()
        assert words in shown and shown.endswith("\r\x1b[K"), shown
        out = capsys.readouterr().out
        assert len(out.splitlines()) <= 3 and "%" not in out


def test_pull_takes_the_newest_whole_one_and_says_what_it_skipped(filled, tmp_path, capsys):
    (filled.snapshots()[-1].path / "model.safetensors").unlink()
    assert main(["pull", str(filled.folder), "--into", str(tmp_path / "here")]) == OK
    out, err = capsys.readouterr()
    assert "e0003-s000300" in err and "was skipped" in err
    assert contents(Path(out.strip())) == contents(tmp_path / "local" / "step-2")
    assert main(["pull", str(filled.folder), "--kind", "best"]) == NO
    assert "no whole snapshot of kind best" in capsys.readouterr().err


def test_push_publishes_and_reads_back(checkpoint, tmp_path, capsys):
    command = ["push", str(tmp_path / "drive"), "--from", str(checkpoint(1)), "--label", "ckpt-e1-s1", "--share",
               "frozen.safetensors"]
    assert main(command) == OK
    assert "ckpt-e1-s1-" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "drive")]) == OK


def test_what_a_person_can_cause_is_one_sentence(tmp_path, filled, monkeypatch, capsys):
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    def dead(*arguments: object) -> None:
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    for command in (["status", str(tmp_path / "nowhere")], ["pull", "/content/drive/MyDrive/x"],
                    ["push", str(tmp_path), "--from", str(tmp_path / "nowhere"), "--label", "ckpt-e1-s1"],
                    ["push", str(tmp_path), "--from", str(tmp_path), "--label", "bad"]):
        assert main(command) == CANNOT
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    for failure, words in ((dead, "What it holds is unknown, not lost"), (interrupted, "Stopped.")):
        monkeypatch.setattr("drive_sync.disk.Disk.names", failure)
        assert main(["verify", str(filled.folder)]) == CANNOT
        assert words in capsys.readouterr().err
