"""`vaani bench` and what `make bench` compares, on the smallest step of a full-size voice."""
import json
import subprocess
import sys

import numpy as np
import pytest

from vaani_lib.bench import Case, running, time_frozen
from vaani_lib.cli import main
from vaani_lib.config import FREEZABLE


def test_the_command_measures_a_step_in_a_process_of_its_own(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert main(["bench", "--batch-size", "1", "--frames", "40", "--tokens", "8", "--steps", "1", "--freeze", "text_encoder, flow",
                 "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert 0 < found["step_s"] <= found["median_s"] and 1 < found["peak_rss_gb"] < 8 and found["steps"] == 1
    assert sum(found["parts"].values()) == pytest.approx(found["median_s"])
    assert {"decoder", "discriminators", "optimizers", "alignment"} <= found["parts"].keys() and min(found["parts"].values()) >= 0
    assert "batch 1 (1 s of audio), frozen: text_encoder, flow;" in capsys.readouterr().out


def test_vaani_s_step_and_the_plain_one_in_turn(tmp_path, capsys):
    file = tmp_path / "bench.json"
    assert main(["bench", "--batch-size", "1", "--frames", "40", "--tokens", "8", "--steps", "1", "--compare",
                 "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["plain"]["plain"] and not found["vaani"]["plain"] and found["ratio"]["memory"] < 1
    assert found["plain"]["precision"] == found["vaani"]["precision"] == "fp32"
    assert "memory, of the plain step's" in capsys.readouterr().out


def test_a_process_s_memory_is_its_own():
    program = "from vaani_lib.bench import peak_memory; print(peak_memory())"
    find = lambda: int(subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout)
    before = find()
    held = np.ones(2 * before // 8)  # what started it has more than it will ever have
    assert held.nbytes > 1.9 * before and find() < 1.2 * before


def test_a_process_that_the_system_ends_between_its_turns_is_missed_with_a_sentence():
    """As where memory is short: the system ends the largest process, which may be the one that waits."""
    with running(Case(1, 40, 8)) as (child,):
        child.process.kill()
        child.process.wait()
        with pytest.raises(ChildProcessError, match="exit status -9.*memory ran out. Try a smaller --batch-size"):
            child.step()


def test_a_step_with_parts_frozen_and_without_in_turn():
    frozen, free, ratio = time_frozen(Case(1, 40, 8, freeze=("text_encoder",)), rounds=1)
    assert min(frozen, free) > 0 and ratio == pytest.approx(frozen / free)


@pytest.mark.parametrize("options, words", [
    (["--tokens", "300"], "300 tokens cannot be spoken in 250 frames"), (["--steps", "0"], "steps is 0; it must be at least 1"),
    (["--steps", "0", "--compare"], "steps is 0; it must be at least 1"), (["--freeze", ",".join(FREEZABLE)], "nothing would learn"),
    (["--freeze", "ears"], "text_encoder"), (["--precision", "fp8"], "fp16"), (["--json", "no/such/folder.json"], "no folder no/such for --json"),
    (["--json", "."], ". is a folder, and --json wants the name of a file")])
def test_what_cannot_be_measured_is_said(options, words, capsys):
    assert main(["bench", *options]) == 2
    assert words in capsys.readouterr().err
