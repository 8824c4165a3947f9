"""The training step that Vaani takes learns the same as the step written plainly."""
import pytest
import torch
from test_training_math import in_groups, make_task

from vaani_lib.config import TrainSettings
from vaani_lib.plain_step import PlainStep, plain_pass, precomputed
from vaani_lib.recipes import VitsTask
from vaani_lib.stepper import Stepper, seed_everything

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

