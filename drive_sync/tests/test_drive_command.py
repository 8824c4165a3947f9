"""`python -m drive_sync`: what a person sees, and the exit codes that a script sees."""
import errno
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_disk import contents

from drive_sync.__main__ import CANNOT, NO, OK, main


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
