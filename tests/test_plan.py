"""`vaani plan` as a person calls it: every line is there, the figures agree with each other, mistakes end in a sentence."""
import json
from contextlib import redirect_stdout
from io import StringIO

import huggingface_hub.constants
import pytest

from vaani_lib import plan as plan_module
from vaani_lib.cli import main
from vaani_lib.measuring import start_voice
from vaani_lib.state import copied, save_tensors
from vaani_lib.whisper import tiny_whisper


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
    assert "a step, " in lines["Measured"] and "validation" in lines["Measured"] and "checkpoint" in lines["Measured"]
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
    assert len(steps) == 1, "of 16 clips: the other step has the two that are left"
    assert here["epoch_seconds"][0] > 18 / 16 * min(steps) / 1.25 and here["epoch_seconds"][1] > 18 / 16 * max(steps)


def test_drive_holds_what_a_checkpoint_that_was_written_weighs(planned):
    _, plan = planned
    found = plan["measured"]
    assert found["checkpoint"] > 4 * found["voice"] > 4e6, "weights, discriminators and two moments of each"
    least = 5 * found["checkpoint"] + 2 * found["voice"]  # two kept, two more where uploads are unsure, one on its way
    least += 9 * found["voice"] / 2  # 8 of epochs and one on its way, in half precision
    assert least < plan["drive_bytes"] < 1.1 * least


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--data-dir", "nowhere"], "There is no folder nowhere"),
        (["--profile", "tpu"], "There is no profile 'tpu'; choose from auto, cpu, colab-t4, v100, a100"),
        (["--profile", "gpu"], "There is no knowing how fast an unknown GPU is"),
        (["--epochs", "0"], "epochs is 0; it must be at least 1"),
        (["--recipe", "asr"], "There is no recipe 'asr'; choose from vits, whisper"),
        (["--optimizer", "adamw_8bit"], "--optimizer is for --recipe whisper alone"),
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


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    """A Whisper that hears eight seconds, as a folder."""
    folder, whisper = tmp_path_factory.mktemp("recogniser") / "tiny", tiny_whisper(seconds=8, tokens=400)
    whisper.describe(folder)
    save_tensors(copied(whisper.weights()), folder / "model.safetensors", {"format": "pt"})
    return folder, sum(p.numel() for p in whisper.model.parameters())


def test_a_recogniser_s_plan_has_its_own_steps_checkpoints_and_memory(recogniser, corpus, tmp_path, monkeypatch, capsys):
    folder, weights = recogniser
    monkeypatch.setitem(plan_module.GPUS, "v100", plan_module.GPUS["v100"]._replace(memory=300_000_000))
    file = tmp_path / "plan.json"
    assert main(["plan", "--recipe", "whisper", "--data-dir", str(corpus), "--base", str(folder), "--profile", "colab-t4",
                 "--epochs", "3", "--json", str(file)]) == 0  # fmt: skip
    out, plan = capsys.readouterr().out, json.loads(file.read_text(encoding="utf-8"))
    assert "18 clips" in out and "3 epochs of 1 steps, 64 clips a step" in out
    machines = {machine["profile"]: machine for machine in plan["machines"]}
    assert list(machines)[0] == "colab-t4" and "v100" not in machines and "V100: it does not fit" in out
    assert machines["colab-t4"]["gpu_memory"].endswith("of 15.8 GB, 8 × 8 clips")
    assert machines["a100"]["gpu_memory"].endswith("of 42.4 GB, 16 × 4 clips") and "planned, not measured" in out
    found, here = plan["measured"], next(m for m in plan["machines"] if m["basis"] == "measured")
    assert len(found["step_seconds"]) == 1 and here["epoch_seconds"][1] > found["step_seconds"][0] > 0 < found["validation_seconds"]
    sines = found["frozen"] // 4  # of the encoder's positions, which never learn
    assert 0 < sines < weights and found["checkpoint"] == 12 * (weights - sines), "weights and two moments of each, in float32"
    least = 5 * found["checkpoint"] + 2 * found["voice"]
    assert least < plan["drive_bytes"] < 1.5 * least and plan["assumed"]["share_of_peak"] == [0.05, 0.2]


def test_a_recogniser_that_this_machine_cannot_hold_is_planned_all_the_same(recogniser, corpus, monkeypatch, capsys):
    monkeypatch.setattr(plan_module, "memory_here", lambda: 300_000_000)
    arguments = ["plan", "--recipe", "whisper", "--data-dir", str(corpus), "--base", str(recogniser[0])]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "Nothing was measured here" in out and "Measured on" not in out and "T4 (fp16)" in out


def test_a_recogniser_that_does_not_fit_where_it_was_planned_for_is_refused_with_a_remedy(recogniser, corpus, monkeypatch, capsys):
    monkeypatch.setitem(plan_module.GPUS, "colab-t4", plan_module.GPUS["colab-t4"]._replace(memory=300_000_000))
    arguments = ["plan", "--recipe", "whisper", "--data-dir", str(corpus), "--base", str(recogniser[0]), "--profile", "colab-t4"]
    assert main(arguments) == 2
    assert "with one clip at a time, and this GPU has 0.3 GB. Use --optimizer adamw_8bit, --freeze encoder" in capsys.readouterr().err
