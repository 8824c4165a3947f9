"""Where a GPU's memory runs out the run goes on with smaller micro-batches, as if it had had them from that step on."""
import json
import shutil
import threading

import pytest
import tiny_voice
import torch
from safetensors.torch import load_file

from drive_sync.publisher import Publisher
from vaani_lib import trainer, training
from vaani_lib.config import WhisperSettings
from vaani_lib.run_folder import RunFolder
from vaani_lib.runs import read_curves
from vaani_lib.state import copied, save_tensors
from vaani_lib.stepper import Stepper
from vaani_lib.whisper import tiny_whisper

SIMULATED = torch.OutOfMemoryError("simulated")

EPOCHS = 3  # of 2 steps: 4 clips, and 3


def differences(run, expected, tolerance=None) -> list[str]:
    """Weights and points of curves, but the clock's, in which two runs are not the same, bit for bit; or only losses, within a
    relative `tolerance`, where a GPU does not add up in the same order each time."""
    ours, theirs = (load_file(folder / "last" / "model.safetensors") for folder in (run, expected))
    found = [] if tolerance else [name for name in theirs if not ours[name].equal(theirs[name])]
    points = []
    for folder in (run, expected):
        curves, problems = read_curves(folder)
        assert not problems, problems
        points.append({(tag, step): value for tag, curve in curves.items() if not tag.endswith(("_time", "_share"))
                       for step, value in zip(curve.steps.tolist(), curve.values.tolist())})
    assert len(points[0]) > 40
    if tolerance:
        points = [{key: value for key, value in of.items() if key[0].startswith(("Loss/", "Valid/", "Training/"))} for of in points]
        assert points[0].keys() == points[1].keys()
        return [str(key) for key, value in points[1].items() if points[0][key] != pytest.approx(value, rel=tolerance)]
    return found + sorted(str(key) for key in points[0].keys() | points[1].keys() if points[0].get(key) != points[1].get(key))


def make_recogniser(folder):
    """A Whisper that hears three seconds, with dropout: each micro-batch draws its own random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whisper = tiny_whisper(seconds=3, tokens=96)
    whisper.model.config.dropout = 0.1
    whisper.describe(folder)
    save_tensors(copied(whisper.weights()), folder / "model.safetensors", {"format": "pt"})
    return folder


def whisper_settings(base, epochs, **others):
    return WhisperSettings(base=str(base), epochs=epochs, learning_rate=1e-3, warmup_steps=2, seed=7, **others)


BASES = {"voice": (tiny_voice.make_voice, tiny_voice.settings), "whisper": (make_recogniser, whisper_settings)}


@pytest.fixture
def run(request, tmp_path, monkeypatch):
    """run(name, batch_size, max_steps) trains a voice, or what the test names, and returns the run's folder; `run.said` is
    what was said."""
    tiny_voice.narrow_discriminators(monkeypatch.setattr)
    make, choose = BASES[getattr(request, "param", "voice")]
    base, data = make(tmp_path / "base"), tiny_voice.make_recordings(tmp_path)

    def train(name, batch_size=4, max_steps=None):
        others = dict(batch_size=batch_size, grad_accum=4 // batch_size, max_steps=max_steps)
        settings = choose(base, EPOCHS, **others, **train.settings)
        return training.train(settings, data, tmp_path / "runs", name, tmp_path / "drive", say=train.said.append)

    train.said, train.folder, train.settings = [], tmp_path, {}
    return train


of_both = pytest.mark.parametrize("run", BASES, indirect=True)


@pytest.fixture
def fails(monkeypatch):
    """fails(step, size, pass_): memory runs out in that pass of that step (from 1) for micro-batches of more than `size`."""
    def arrange(step, size, number=0, error=SIMULATED):
        real, taken, at, passes = Stepper.phases, trainer.Trainer.step, [0], [0]

        def at_step(self, batches):
            at[0], passes[0] = self.progress.step + 1, 0
            try:
                return taken(self, batches)
            finally:
                at[0] = 0

        def scarce(self, batch, totals):
            passes[0] += 1
            for phase in real(self, batch, totals):  # activations are there when memory runs out
                if at[0] == step and self.settings.batch_size > size and passes[0] == number + 1:
                    raise error
                yield phase

        monkeypatch.setattr(trainer.Trainer, "step", at_step)
        monkeypatch.setattr(Stepper, "phases", scarce)

    return arrange


def reserved(stepper, batches) -> tuple[int, int]:
    """Bytes that these gradients take of a GPU that nothing else is kept on: in use at most, and set aside by PyTorch at most."""
    stepper.free_cache()
    torch.cuda.reset_peak_memory_stats()
    stepper.gradients(batches, 0)
    for optimizer in stepper.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    found = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    stepper.free_cache()
    return found


@pytest.fixture
def limited(monkeypatch):
    """limited(step): while that step (from 1) is made, the first time and again, PyTorch gets a little more of the GPU's memory than
    micro-batches of half the size take."""
    def arrange(step):
        taken, share = trainer.Trainer.step, []

        def at_step(self, batches):
            if self.progress.step + 1 != step:
                return taken(self, batches)
            if not share:
                (needed, _), (_, halves) = (reserved(self.stepper, found) for found in (batches, batches[0].halves()))
                limit = 1.1 * halves
                assert limit < 0.75 * needed, f"{needed} bytes for all clips at a time and {halves} for half of them are too close"
                share.append(limit / torch.cuda.get_device_properties(0).total_memory)
            torch.cuda.set_per_process_memory_fraction(share[0])
            try:
                return taken(self, batches)
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0)

        monkeypatch.setattr(trainer.Trainer, "step", at_step)

    return arrange


CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@of_both
@pytest.mark.parametrize(("asked", "left", "number", "error"), [
    (4, 2, 0, CUBLAS), (4, 1, 0, SIMULATED), (2, 1, 1, SIMULATED)],
    ids=["the first micro-batch, by cuBLAS", "twice over", "a later micro-batch"])
def test_the_step_is_repeated_with_smaller_micro_batches(run, fails, asked, left, number, error):
    repeats_the_third_step(run, asked, left, lambda: fails(3, left, number, error))


def repeats_the_third_step(run, asked, left, arrange, tolerance=None):
    """`arrange` sees to it that in step 3 memory is enough for `left` clips at a time, and not for more."""
    run("expected", asked, max_steps=2)
    expected = run("expected", left)
    arrange()
    run.said.clear()
    found = run("found", asked)
    assert differences(found, expected, tolerance) == []
    halvings = [sentence for sentence in run.said if "Memory ran out" in sentence]
    assert len(halvings) == (2 if asked == 4 * left else 1) and f"{left} × {4 // left} clips" in halvings[-1], run.said
    assert all("at step 3" in sentence for sentence in halvings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, whose memory alone can be limited; the same is simulated above")
def test_the_step_is_repeated_where_a_gpu_s_own_memory_runs_out(run, limited):
    """Also what cannot be simulated: the failed step lets go of its memory, or half of the clips would not fit either."""
    run.settings |= dict(device="cuda", segment_frames=4096)  # clips of a minute, with what fills them up: over 1 GB
    repeats_the_third_step(run, 4, 2, lambda: limited(3), tolerance=0.02)


@of_both
def test_a_resumed_run_keeps_the_smaller_micro_batches(run, fails):
    run("expected", 4, max_steps=2)
    expected = run("expected", 2)
    fails(3, 2)
    run("found", 4, max_steps=4)
    shutil.rmtree(run.folder / "runs" / "found")
    run.said.clear()
    found = run("found", 4)
    assert differences(found, expected) == [] and not any("Memory ran out" in sentence for sentence in run.said)
    assert any("2 × 2 clips a step" in sentence for sentence in run.said), run.said
    record = json.loads((found / "run.json").read_text())
    assert (record["settings"]["batch_size"], record["halved_from"]) == (2, 4)


def test_what_is_asked_for_anew_is_taken(run, fails):
    fails(1, 2)
    run("found", 4, max_steps=2)
    record = json.loads((run("found", 1) / "run.json").read_text())
    assert record["settings"]["batch_size"] == 1 and "halved_from" not in record


@pytest.mark.parametrize("place", ["norm", "discriminator", "generator"])
def test_an_update_that_runs_out_of_memory_is_finished(run, monkeypatch, place):
    """The gradients are there and the activations gone: the one call that failed is made again, the others are not."""
    expected, failed = run("expected"), []
    if place == "norm":
        holder, name, at = torch.nn.utils, "get_total_norm", 5
    else:
        holder, name, at = torch.optim.AdamW, "step", 5 if place == "discriminator" else 6
    real, calls = getattr(holder, name), []

    def scarce(*arguments, **named):
        calls.append(1)
        if len(calls) == at:
            failed.append(1)
            raise torch.OutOfMemoryError("simulated")
        return real(*arguments, **named)

    monkeypatch.setattr(holder, name, scarce)
    assert differences(run("found"), expected) == [] and failed


def test_moments_that_memory_ran_out_over_are_begun_again(run, monkeypatch):
    """The first update makes them: one that was half made would have no second moment."""
    expected, real, failed = run("expected"), torch.optim.AdamW.step, []

    def scarce(optimizer):
        if failed:
            return real(optimizer)
        make, made = torch.zeros_like, []

        def zeros_like(*given, **named):
            made.append(1)
            if len(made) == 6:
                failed.append(1)
                raise SIMULATED
            return make(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(torch, "zeros_like", zeros_like)
            return real(optimizer)

    monkeypatch.setattr(torch.optim.AdamW, "step", scarce)
    assert differences(run("found"), expected) == [] and failed


@of_both
def test_a_validation_that_runs_out_of_memory_goes_on_clip_by_clip(run, monkeypatch):
    """Its batches are the same on every machine, however small the micro-batches. Random numbers are others then, such as
    what a voice is judged by, two tenths of a second: its validation losses are different, and nothing else."""
    expected, real, scarce = run("expected", 1), Stepper.phases, []

    def phases(stepper, batch, totals):
        for phase in real(stepper, batch, totals):
            if not torch.is_grad_enabled() and len(batch) > 1:
                scarce.append(len(batch))
                raise SIMULATED
            yield phase

    monkeypatch.setattr(Stepper, "phases", phases)
    found = run("found", 1)
    assert scarce and not [name for name in differences(found, expected) if "Valid/" not in name]
    ours, theirs = (read_curves(folder)[0] for folder in (found, expected))
    for tag in (tag for tag in theirs if tag.startswith("Valid/")):
        assert ours[tag].values == pytest.approx(theirs[tag].values, rel=0.3, abs=0.1), tag


def test_one_clip_too_many_is_said(run, fails):
    fails(3, 0)
    with pytest.raises(trainer.TooLittleMemory, match="step 3 with one clip at a time.*--freeze"):
        run("found", 2)
    kept = [folder.name for folder in (run.folder / "runs" / "found" / "checkpoints").glob("ckpt-*")]
    assert len(kept) == 1 and "-s000002" in kept[0], "the last checkpoint is that of the step before"


def test_an_error_loses_nothing_of_the_checkpoint_that_is_being_written(run, fails, monkeypatch):
    """The writer has handed over the best voice, not yet the checkpoint, when training ends by an error: whether it waits for
    the writer or for Drive, that one goes on first."""
    handed, writer, drive = (threading.Event() for _ in range(3))
    keep, step, halve = RunFolder._keep_epoch, Publisher._step, trainer.Trainer._halve
    wait, finish = RunFolder.wait, RunFolder.finish

    def held(folder, moment):
        handed.set()
        assert writer.wait(60)
        keep(folder, moment)

    def waiting(folder):
        if folder._writing:
            writer.set()
            drive.set()
        wait(folder)

    def finishing(folder, **named):
        drive.set()
        done = finish(folder, **named)
        writer.set()
        return done

    monkeypatch.setattr(RunFolder, "_keep_epoch", held)
    monkeypatch.setattr(Publisher, "_step", lambda publisher: drive.wait(60) and step(publisher))
    monkeypatch.setattr(trainer.Trainer, "_halve", lambda *given: handed.wait(60) and halve(*given))
    monkeypatch.setattr(RunFolder, "wait", waiting)
    monkeypatch.setattr(RunFolder, "finish", finishing)
    fails(3, 0)
    with pytest.raises(trainer.TooLittleMemory):
        run("found", 2)
    for place in (run.folder / "runs" / "found" / "checkpoints", run.folder / "drive" / "found"):
        assert [folder.name[:18] for folder in place.glob("ckpt-*")] == ["ckpt-e0001-s000002"], place
