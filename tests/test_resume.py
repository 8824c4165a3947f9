"""A run whose machine is lost again and again ends as one that nothing happened to."""
import json
import shutil
from pathlib import Path

import pytest
import tiny_voice
import torch
from safetensors.torch import load_file
from whole_run import Whole

from vaani_lib.cli import main
from vaani_lib.runs import read_curves
from vaani_lib.tour import run_training, train_in_child

SETTINGS = ("--base", "scratch", "--batch-size", 4, "--grad-accum", 2, "--epochs", 3, "--device", "cpu", "--seed", 7)


def history(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve but the clock's."""
    curves, problems = read_curves(run)
    assert not problems, problems
    return {tag: list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))
            for tag, curve in curves.items() if tag not in ("Training/step_time", "Training/loading_share")}


def test_killed_three_times_equals_uninterrupted(corpus, tmp_path):
    arguments = ("--data-dir", corpus, "--output-dir", tmp_path / "runs", *SETTINGS)
    run, said = tmp_path / "runs" / "killed", []
    killed = train_in_child(*arguments, "--run", "killed", "--drive-dir", tmp_path / "drive")
    # 18 clips make 3 steps an epoch: killed before there is a checkpoint, in the second epoch with the run folder
    # left, and in the third with only Drive left
    run_training(killed, kill_at=2, say=said.append)
    assert not list((run / "checkpoints").glob("ckpt-*/COMPLETE"))
    run_training(killed, kill_at=5, say=said.append)
    run_training(killed, kill_at=8, say=said.append)
    shutil.rmtree(run)
    run_training(killed, say=said.append)
    run_training(train_in_child(*arguments, "--run", "whole"), say=said.append)

    begun = [line.strip() for line in said if line.strip().startswith(("Starting", "Going on"))]
    assert [line.split()[0] for line in begun] == ["Starting", "Starting", "Going", "Going", "Starting"], begun
    assert "epoch 1, step 3 in the run folder" in begun[2] and "epoch 2, step 6 in the Drive folder" in begun[3], begun
    whole = tmp_path / "runs" / "whole"
    assert history(run) == history(whole)
    assert len(history(run)["Loss/total"]) == 9 and len(history(run)["Valid/reconstruction"]) == 3
    assert len(history(run)["Score/mel_cepstral_distortion"]) == len(history(run)["Score/sentences_found"]) == 3
    for voice in ("best", "last"):
        ours, theirs = (load_file(folder / voice / "model.safetensors") for folder in (run, whole))
        assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours), voice
    samples = {file.name: file.read_bytes() for file in (run / "samples").iterdir()}
    assert samples == {file.name: file.read_bytes() for file in (whole / "samples").iterdir()} and len(samples) == 9


@pytest.fixture(scope="module")
def first(corpus, tmp_path_factory) -> Path:
    """A run of two steps."""
    runs = tmp_path_factory.mktemp("first")
    assert main(["train", "--data-dir", str(corpus), "--output-dir", str(runs), "--run", "first", "--base", "scratch",
                 "--batch-size", "4", "--grad-accum", "1", "--max-steps", "2", "--device", "cpu"]) == 0
    return runs / "first"


def test_a_run_goes_on_without_its_base(corpus, first, tmp_path, capsys):
    base = shutil.copytree(first / "last", tmp_path / "base")
    arguments = ["train", "--data-dir", str(corpus), "--output-dir", str(tmp_path / "runs"), "--run", "tuned", "--base", str(base),
                 "--batch-size", "4", "--grad-accum", "1", "--device", "cpu", "--drive-dir", str(tmp_path / "drive")]
    assert main([*arguments, "--max-steps", "2"]) == 0
    shutil.rmtree(base)
    shutil.rmtree(tmp_path / "runs")
    assert main([*arguments, "--max-steps", "3"]) == 0
    assert "Going on with tuned" in capsys.readouterr().out
    before, after = (load_file(folder / "model.safetensors") for folder in (first / "last", tmp_path / "runs" / "tuned" / "last"))
    moved = {name for name in before if not before[name].equal(after[name])}
    assert moved and not any(name.startswith("text_encoder.") for name in moved), "a voice that can speak keeps its text encoder"


def test_a_notebook_s_interrupt_leaves_a_checkpoint(corpus, tmp_path):
    import signal

    from vaani_lib.run_setup import choose_settings
    from vaani_lib.trainer import Trainer
    from vaani_lib.training import train

    settings, step = choose_settings("scratch", device="cpu", batch_size=4, grad_accum=1, epochs=5), Trainer.step

    def interrupted(trainer, batches):
        log = step(trainer, batches)
        if trainer.progress.step == 2:
            signal.raise_signal(signal.SIGINT)
        return log

    Trainer.step = interrupted
    try:
        run = train(settings, corpus, tmp_path, "stopped")
    finally:
        Trainer.step = step
    assert (run / "last" / "model.safetensors").is_file()
    assert [path.name.split("-s")[1][:6] for path in (run / "checkpoints").glob("ckpt-*")] == ["000002"]


def test_checkpoints_within_an_epoch_by_the_clock(corpus, tmp_path, monkeypatch):
    from functools import partial

    from vaani_lib import opening, run_setup, training

    # every step is due: for a checkpoint, and for the sentences that are spoken once an hour
    monkeypatch.setattr(opening, "Session", partial(opening.Session, sample_minutes=0))
    settings = partial(run_setup.choose_settings, "scratch", device="cpu", batch_size=4, grad_accum=1)
    run = training.train(settings(max_steps=2), corpus, tmp_path, "cut", checkpoint_minutes=0)
    assert {"validation_e0000_s000001_1.wav", "validation_e0000_s000002_1.wav"} <= {f.name for f in (run / "samples").iterdir()}
    training.train(settings(max_steps=3), corpus, tmp_path, "cut")
    whole = training.train(settings(max_steps=3), corpus, tmp_path, "whole")
    ours, theirs = (load_file(folder / "last" / "model.safetensors") for folder in (run, whole))
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert history(run) == history(whole)


def test_a_session_that_is_taken_over_is_told_and_keeps_what_it_made(corpus, tmp_path, monkeypatch):
    from drive_sync import Lease, Store, lease
    from vaani_lib.run_setup import choose_settings
    from vaani_lib.trainer import Trainer
    from vaani_lib.training import train

    monkeypatch.setattr(lease, "LOOK_EVERY", 0.0)
    step, drive, said = Trainer.step, tmp_path / "drive", []

    def taken_over(trainer, batches):
        if trainer.progress.step == 3:  # the first epoch's checkpoint is on its way
            Lease(Store(drive / "run", "other")).take(take_over=True)
        return step(trainer, batches)

    monkeypatch.setattr(Trainer, "step", taken_over)
    settings = choose_settings("scratch", device="cpu", batch_size=4, grad_accum=2, epochs=2)
    run = train(settings, corpus, tmp_path / "runs", "run", drive, say=said.append)
    assert any("session other took this run over" in sentence for sentence in said), said
    assert [s.step for s in Store(run / "checkpoints").snapshots("ckpt")] == [3, 6] and (run / "last" / "config.json").is_file()
    assert not any(s.step == 6 for s in Store(drive / "run").snapshots())


@pytest.fixture
def narrow(monkeypatch):
    tiny_voice.narrow_discriminators(monkeypatch.setattr)


@pytest.mark.parametrize("batch_size, grad_accum", [(2, 2), (1, 4)])
def test_a_run_stopped_after_every_step_equals_uninterrupted(narrow, tmp_path, batch_size, grad_accum):
    """Two speakers; 7 clips make a step of 4 and one of 3; the learning rate falls by a tenth each epoch."""
    whole = Whole(tmp_path, epochs=3, batch_size=batch_size, grad_accum=grad_accum)
    for step in range(1, 6):
        whole.train(tmp_path / "runs", tmp_path / "drive", max_steps=step)
        if step % 2:  # a new machine
            shutil.rmtree(tmp_path / "runs")
    run = whole.train(tmp_path / "runs", tmp_path / "drive")
    assert whole.differences(run) == []
    rates = dict(history(run)["Training/learning_rate"])
    assert rates == {step: pytest.approx(1e-3 * 0.9 ** ((step - 1) // 2)) for step in range(1, 7)}


def without_noise(voice: Path, patch) -> None:
    """No dropout, no posterior noise, every segment from the clip's beginning."""
    config = json.loads((voice / "config.json").read_text())
    (voice / "config.json").write_text(json.dumps({key: 0.0 if "dropout" in key else value for key, value in config.items()}))
    rand = torch.rand
    patch(torch, "randn_like", lambda like, **named: torch.zeros_like(like))
    patch(torch, "rand", lambda *shape, **named: 0 * rand(*shape, **named))


@pytest.fixture
def trained(narrow, tmp_path, monkeypatch):
    """trained(run, clips a micro-batch, micro-batches a step, last step) -> (its curves, the clips of each step, what was said)"""
    from vaani_lib import recipes, training

    voice, data = tiny_voice.make_voice(tmp_path / "voice"), tiny_voice.make_recordings(tmp_path)
    load = recipes.VitsData.load

    def train(run: str, batch_size: int, grad_accum: int, max_steps: int) -> tuple[dict, list, list[str]]:
        order, said = [], []
        monkeypatch.setattr(recipes.VitsData, "load", lambda data, step: order.append(step) or load(data, step))
        settings = tiny_voice.settings(voice, 4, batch_size=batch_size, grad_accum=grad_accum, max_steps=max_steps)
        return history(training.train(settings, data, tmp_path / "runs", run, say=said.append)), order, said

    train.voice = voice
    return train


def test_a_machine_of_another_size_goes_on_with_the_same_steps(trained, monkeypatch):
    """4 clips a step as 2 × 2, then 1 × 4, then 4 × 1. Without noise the losses are those of the machine that stayed."""
    without_noise(trained.voice, monkeypatch.setattr)
    stayed, order, _ = trained("stayed", 2, 2, 6)
    moved_order, said = [], []
    for batch_size, grad_accum, step in ((2, 2, 2), (1, 4, 4), (4, 1, 6)):
        moved, part, words = trained("moved", batch_size, grad_accum, step)
        moved_order, said = moved_order + part, said + words
    assert moved_order == order and len(order) == 6
    assert moved["Training/learning_rate"] == stayed["Training/learning_rate"]
    assert moved.keys() == stayed.keys()
    for tag in moved:
        assert dict(moved[tag]) == {step: pytest.approx(value, rel=1e-4, abs=1e-6) for step, value in stayed[tag]}, tag
    assert any("clips a step were 2 × 2 and are now 1 × 4" in words for words in said), said
    assert any("clips a step were 1 × 4 and are now 4 × 1" in words for words in said), said


def test_the_validation_does_not_depend_on_the_size_of_the_machine(trained):
    """Or the best voice would be chosen by where it was trained. With noise: the same for the same weights."""
    curves = [trained(f"by {size}", size, 4 // size, 2)[0] for size in (1, 4)]
    at_once = [dict(found["Valid/reconstruction"])[2] for found in curves]
    # two steps at 1e-3 have moved the weights apart by their own noise, a little
    assert at_once[0] == pytest.approx(at_once[1], rel=0.01)


@pytest.mark.parametrize("changed, words", [
    ("base", "base was .*/base and is now .*/other"), ("data", r"the data was another set \(9 clips.* and is now 8 clips"),
    ("seed", "seed was 7 and is now 8")])
def test_another_voice_data_set_or_seed_is_refused_and_named(narrow, tmp_path, changed, words):
    from vaani_lib.training import train

    base, data = tiny_voice.make_voice(tmp_path / "base"), tiny_voice.make_recordings(tmp_path)
    train(tiny_voice.settings(base, 1, max_steps=1), data, tmp_path / "runs", "run", tmp_path / "drive")
    other = dict(base=tiny_voice.make_voice(tmp_path / "other", 1) if changed == "base" else base, epochs=1,
                 **dict(seed=8) if changed == "seed" else {})
    if changed == "data":
        data = tiny_voice.make_recordings(tmp_path / "fewer", slice(8))
    for machine in ("runs", "new"):
        before = sorted((tmp_path / "drive").rglob("*"))
        with pytest.raises(ValueError, match=f"{words}.*To go on with it, repeat its settings; to start anew"):
            train(tiny_voice.settings(**other), data, tmp_path / machine, "run", tmp_path / "drive")
        assert sorted((tmp_path / "drive").rglob("*")) == before


def test_texts_that_another_version_reads_differently_are_said(narrow, tmp_path, monkeypatch):
    whole, said = Whole(tmp_path / "whole", epochs=2), []
    whole.train(tmp_path / "runs", None, max_steps=1)
    whole.train(tmp_path / "runs", None, max_steps=2, say=said.append)
    assert not any("read in another way" in words for words in said)
    monkeypatch.setattr("vaani_lib.recipes.spoken", lambda text, tokenizer: text[::-1])
    whole.train(tmp_path / "runs", None, max_steps=3, say=said.append)
    whole.train(tmp_path / "runs", None, max_steps=4, say=said.append)
    assert ["(Vaani was" in words for words in said].count(True) == 1, said
