"""`vaani plan` as a person calls it: every line is there, the figures agree with each other, mistakes end in a sentence."""
import json
from contextlib import redirect_stdout
from io import StringIO

import huggingface_hub.constants
import pytest

from vaani_lib.cli import main
from vaani_lib.plan import start_voice


@pytest.fixture(scope="module")
def planned(corpus, tmp_path_factory):
    """(what it printed, the JSON) for a tiny data set and the compact base; run once."""
    file, out = tmp_path_factory.mktemp("plan") / "plan.json", StringIO()
    with redirect_stdout(out):
        assert main(["plan", "--data-dir", str(corpus), "--base", "scratch", "--profile", "colab-t4", "--epochs", "7",
                     "--json", str(file)]) == 0  # fmt: skip
    return out.getvalue(), json.loads(file.read_text(encoding="utf-8"))


def test_every_line_is_there_and_says_what_is_measured_and_what_is_not(planned):
    out, plan = planned
    lines = {line.split()[0].rstrip(":"): line for line in out.splitlines() if line.strip()}
    assert "18 clips" in lines["Data"] and "7 epochs of 2 steps, 16 clips a step, from scratch" in lines["Data"]
    assert "2 steps" in lines["Measured"] and "validation" in lines["Measured"] and "checkpoint" in lines["Measured"]
    rows = [next(line for line in out.splitlines() if line.startswith(m["name"])) for m in plan["machines"]]
    for row, machine in zip(rows, plan["machines"], strict=True):
        assert f" {machine['basis']} " in row and ("$" in row) == (machine["dollars_an_hour"] is not None)
    assert plan["machines"][0]["profile"] == "colab-t4" and out.index(rows[0]) < out.index(rows[1]), "what was asked for first"
    assert {"colab-t4", "v100", "a100"} <= {machine["profile"] for machine in plan["machines"]}
    assert [machine["basis"] for machine in plan["machines"]].count("measured") == 1
    assert "GB" in lines["Drive"] and "estimates; nothing was measured on one" in out and "NVIDIA publishes" in out


def test_the_figures_agree_with_each_other(planned):
    _, plan = planned
    prices = {"colab-t4": 0.18, "v100": 0.49, "a100": 1.18}
    assert plan["steps"] == plan["epochs"] * plan["steps_an_epoch"] == 14
    for machine in plan["machines"]:
        low, high = machine["epoch_seconds"]
        assert 0 < low < high, "a range, not a number"
        assert machine["hours"] == pytest.approx([low * 7 / 3600, high * 7 / 3600])
        assert machine["sessions"] == [1, 1]
        if machine["basis"] == "estimate":
            assert machine["dollars"] == pytest.approx([hours * prices[machine["profile"]] for hours in machine["hours"]])
    steps = plan["measured"]["step_seconds"]
    here = next(machine for machine in plan["machines"] if machine["basis"] == "measured")
    assert here["epoch_seconds"][0] > 2 * min(steps) and here["epoch_seconds"][1] > 2 * max(steps)


def test_drive_holds_what_a_checkpoint_that_was_written_weighs(planned):
    _, plan = planned
    found = plan["measured"]
    assert found["checkpoint"] > 4 * found["voice"] > 4e6, "weights, discriminators and two moments of each"
    least = 3 * found["checkpoint"] + 2 * found["voice"]
    assert least < plan["drive_bytes"] < 1.1 * least


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--data-dir", "nowhere"], "There is no folder nowhere"),
        (["--profile", "tpu"], "There is no profile 'tpu'; choose from auto, cpu, colab-t4, v100, a100"),
        (["--profile", "gpu"], "There is no knowing how fast an unknown GPU is"),
        (["--epochs", "0"], "epochs is 0; it must be at least 1"),
        (["--base", "./no/voice"], "There is no folder ./no/voice"),
        (["--json", "no/such/folder/plan.json"], "There is no folder no/such/folder for --json"),
    ],
)
def test_a_mistake_ends_in_a_sentence_before_anything_is_measured(corpus, capsys, arguments, words):
    given = ["plan", "--data-dir", str(corpus), "--base", "scratch", *arguments]
    assert main(given) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"vaani: {words}") and err.count("\n") == 1 and out == ""


def test_a_folder_without_recordings_is_no_data(tmp_path, capsys):
    assert main(["plan", "--data-dir", str(tmp_path), "--base", "scratch"]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_without_the_hub_weights_of_the_same_size_are_measured(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    said = []
    base = start_voice("facebook/not-on-this-machine", said.append)
    assert "random weights of the same size" in said[0]
    assert 36e6 < sum(p.numel() for p in base.model.parameters()) < 37e6, "as facebook/mms-tts-*"
