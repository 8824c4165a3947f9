"""The training step that Vaani takes learns the same as the step written plainly."""
import traceback
from collections import Counter
from dataclasses import replace

import pytest
import torch
from test_training_math import in_groups, make_task
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from vaani_lib import convolutions, vits
from vaani_lib.config import TrainSettings
from vaani_lib.plain_step import PlainStep, plain_pass, precomputed
from vaani_lib.recipes import VitsTask
from vaani_lib.stepper import Stepper, seed_everything
from vaani_lib.trainer import Trainer

SEED = 3, 1
LONG_ENOUGH = (1, 2, 4, 6, 7)  # clips of a segment or more: the plain step knows no shorter ones


def plain_gradients(task: VitsTask, batch) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Losses and gradients of the plain step, both phases at the same parameters, and with the trainer's random numbers."""
    step, found = PlainStep(task), {}
    seed_everything(*SEED, 0)
    out = plain_pass(task.model, batch, precomputed(batch), task.settings.segment_frames)
    losses = step.discriminator_phase(out)
    found |= {f"discriminator.{name}": p.grad for name, p in task.modules["discriminator"].named_parameters()}
    task.modules["discriminator"].zero_grad(set_to_none=True)
    losses |= step.generator_phase(out, batch)
    found |= {f"generator.{name}": p.grad for name, p in task.model.named_parameters()}
    return {key: float(loss) for key, loss in losses.items()}, found


@pytest.mark.parametrize("make", [lambda: make_task(True), lambda: make_task(False, speakers=("a",))], ids=["three speakers", "one speaker"])
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "with dropout"])
def test_losses_and_gradients_are_the_plain_step_s(make, training):
    (batch,) = in_groups(LONG_ENOUGH, 5)
    plain_task, task = make(), make()
    for each in (plain_task, task):
        each.train(training)
    if not task.model.config.num_speakers > 1:
        batch.speaker.zero_()
    losses, expected = plain_gradients(plain_task, batch)
    found = Stepper.as_floats(Stepper(task, TrainSettings()).gradients([batch], *SEED))
    assert {key: found[key] for key in losses} == pytest.approx(losses, rel=1e-5)
    assert found["total"] == pytest.approx(sum(task.weights.get(k, 1) * v for k, v in losses.items() if k != "discriminator"), rel=1e-5)
    for name, module in task.modules.items():
        for key, parameter in module.named_parameters():
            theirs = expected[f"{name}.{key}"]
            assert (parameter.grad is None) == (theirs is None), f"{name}.{key}"
            if theirs is not None:
                # what adds up to nothing (a bias before a softmax) is rounding alone
                assert (parameter.grad - theirs).norm() <= 1e-4 * theirs.norm() + 1e-5, f"{name}.{key}"


def asking() -> str:
    """The function of Vaani's that is at work."""
    return [frame for frame in traceback.extract_stack() if "vaani_lib" in frame.filename][-1].name


class Reads(TorchDispatchMode):
    """Counts what would wait for a GPU, by the function of Vaani's that asks: numbers that Python reads one by one, and picking by a
    mask, whose size the device knows."""

    def __init__(self, found: Counter):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = str(func).split(".")[1]
        picks = packet in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index") and any(
            i is not None and i.dtype is torch.bool for i in args[1])
        # transformers reads a wavenet's number of channels from a tensor of int32, which is on the CPU anyway
        reads = packet in ("_local_scalar_dense", "is_nonzero") and args[0].dtype is not torch.int32
        if picks or reads or packet in ("nonzero", "masked_select"):
            self.found[asking()] += 1
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Counts what would wait for a GPU to copy to the CPU: where all is there already, the dispatcher sees nothing of it."""

    def __init__(self, found: Counter):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        to_cpu = func is torch.Tensor.to and args[1:2] == ("cpu",) and not kwargs.get("non_blocking")  # not the step's own device
        if to_cpu or func in (torch.Tensor.cpu, torch.Tensor.tolist):
            self.found[asking()] += 1
        return func(*args, **kwargs)


def test_a_step_does_not_wait_for_the_device(monkeypatch):
    monkeypatch.setattr(convolutions, "channels_innermost", lambda device: False)  # the branches that a GPU takes
    stepper = Stepper(make_task(True), TrainSettings())
    stepper.task.train(True)
    waits, batches = Counter(), in_groups(LONG_ENOUGH, 5)
    with Reads(waits), Copies(waits):
        losses, finite = stepper.update(1e-4, stepper.gradients(batches, *SEED))
    assert finite and losses["duration"] > 0
    # once, at the step's end, all that is logged, and whether it and the gradients are finite. The totals are counted before the
    # batch moves; what the alignment's search copies is on the CPU already
    assert waits == {"as_floats": 1, "<genexpr>": 2, "path": 2}


def test_what_a_frozen_text_encoder_makes_once_is_waited_for_once(monkeypatch):
    monkeypatch.setattr(convolutions, "channels_innermost", lambda device: False)
    task, batches = make_task(True), in_groups(LONG_ENOUGH, 5)
    task.settings = replace(task.settings, freeze=("text_encoder",))
    task.model.text_encoder.requires_grad_(False)
    task.train(True)
    stepper, waits = Stepper(task, task.settings), (Counter(), Counter())
    for found in waits:
        with Reads(found), Copies(found):
            stepper.update(1e-4, stepper.gradients(batches, *SEED))
    later = {"as_floats": 1, "<genexpr>": 2, "path": 2}
    assert waits == (later | {"made_once": len(LONG_ENOUGH)}, later)


def test_a_gpu_has_all_its_work_while_the_cpu_looks_for_the_alignment(monkeypatch):
    task, order, (batch,) = make_task(True), [], in_groups(LONG_ENOUGH, 5)
    search, backward = vits.maximum_path, torch.autograd.backward
    monkeypatch.setattr(vits, "maximum_path", lambda *given: order.append("search") or search(*given))
    monkeypatch.setattr(torch.autograd, "backward", lambda *given, **named: order.append("backward") or backward(*given, **named))
    Stepper(task, TrainSettings()).gradients([batch], *SEED)
    judged = 2 * len(task.modules["discriminator"].discriminators)  # for itself, and for the generator
    assert order == ["backward"] * judged + ["search", "backward"]


@pytest.mark.parametrize("stochastic", [True, False])
def test_a_step_whose_text_is_not_finite_is_skipped(stochastic):
    task = make_task(stochastic)
    trainer = Trainer(task, TrainSettings(base="scratch", freeze=()))
    with torch.no_grad():
        task.model.text_encoder.embed_tokens.weight[:, 0] = float("inf")
    trainer.step(in_groups(LONG_ENOUGH, 5))
    assert trainer.progress.skipped == 1
