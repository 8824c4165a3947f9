"""The training step that Vaani takes learns the same as the step written plainly."""
import traceback
from collections import Counter

import pytest
import torch
from test_training_math import in_groups, make_task
from torch.utils._python_dispatch import TorchDispatchMode

from vaani_lib import gan
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
    found = Stepper(task, TrainSettings()).gradients([batch], *SEED)
    assert {key: found[key] for key in losses} == pytest.approx(losses, rel=1e-5)
    assert found["total"] == pytest.approx(sum(task.weights.get(k, 1) * v for k, v in losses.items() if k != "discriminator"), rel=1e-5)
    for name, module in task.modules.items():
        for key, parameter in module.named_parameters():
            theirs = expected[f"{name}.{key}"]
            assert (parameter.grad is None) == (theirs is None), f"{name}.{key}"
            if theirs is not None:
                # what adds up to nothing (a bias before a softmax) is rounding alone
                assert (parameter.grad - theirs).norm() <= 1e-4 * theirs.norm() + 1e-5, f"{name}.{key}"


class Waits(TorchDispatchMode):
    """Counts what would wait for a GPU, by the function of Vaani's that asks: numbers that Python reads, and picking by a mask, whose
    size the device knows. (Copies to the CPU for the alignment and of the losses are no operations where all is on the CPU.)"""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = str(func).split(".")[1]
        picks = packet in ("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index") and any(
            i is not None and i.dtype is torch.bool for i in args[1])
        # transformers reads a wavenet's number of channels from a tensor of int32, which is on the CPU anyway
        reads = packet in ("_local_scalar_dense", "is_nonzero") and args[0].dtype is not torch.int32
        if picks or reads or packet in ("nonzero", "masked_select"):
            ours = [frame for frame in traceback.extract_stack() if "vaani_lib" in frame.filename]
            self.found[ours[-1].name] += 1
        return func(*args, **(kwargs or {}))


def test_a_step_does_not_wait_for_the_device(monkeypatch):
    monkeypatch.setattr(gan, "as_picture", lambda wav: False)  # the branches that a GPU takes
    stepper = Stepper(make_task(True), TrainSettings())
    stepper.task.train(True)
    with Waits() as waits:
        losses = stepper.gradients(in_groups(LONG_ENOUGH, 5), *SEED)
        assert stepper.update(1e-4) and losses["duration"] > 0
    # the text's mask, before anything else of the pass, and whether the gradients are finite; the totals are counted before the batch moves
    assert {name: n for name, n in waits.found.items() if n} == {"encode_text": 1, "update": 1, "<genexpr>": 2}, waits.found


@pytest.mark.parametrize("stochastic", [True, False])
def test_a_step_whose_text_is_not_finite_is_skipped(stochastic):
    task = make_task(stochastic)
    trainer = Trainer(task, TrainSettings(base="scratch", freeze=()))
    with torch.no_grad():
        task.model.text_encoder.embed_tokens.weight[:, 0] = float("inf")
    trainer.step(in_groups(LONG_ENOUGH, 5))
    assert trainer.progress.skipped == 1
