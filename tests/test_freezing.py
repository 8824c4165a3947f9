"""Parts that are frozen: no gradient, no dropout, not a bit changed, and the rest learns."""
import numpy as np
import pytest
import torch

from vaani_lib.base import compact_base
from vaani_lib.batches import Clip, collate
from vaani_lib.config import FREEZABLE, TrainSettings
from vaani_lib.recipes import VitsTask
from vaani_lib.trainer import Trainer
from vaani_lib.vits import training_pass


def batch_of(*lengths):
    """Noise and random text of so many (frames, tokens)."""
    random = np.random.default_rng(0)
    clips = []
    for frames, tokens in lengths:
        wav = random.normal(0, 2000, frames * 256).astype(np.int16)
        clips.append(Clip(random.integers(2, 40, tokens).tolist(), lambda wav=wav: wav, frames, len(clips) % 2))
    return collate(clips, shortest=32)


def make_trainer(*freeze: str, speakers=("asha",)) -> Trainer:
    settings = TrainSettings(base="scratch", freeze=freeze, learning_rate=1e-3)
    trainer = Trainer(VitsTask(compact_base(speakers, seed=0), settings), settings)
    trainer.task.train(True)
    return trainer


@pytest.mark.parametrize("part", FREEZABLE)
def test_a_frozen_part_evaluates_and_stays_as_it_is(part):
    trainer = make_trainer(part, speakers=("asha", "dev"))
    model, calls = trainer.task.model, []
    getattr(model, part).register_forward_pre_hook(lambda module, _: calls.append(any(m.training for m in module.modules())))
    before = {name: p.clone() for name, p in model.named_parameters()}
    for _ in range(2):
        trainer.step([batch_of((40, 9), (20, 4))])
    assert calls and not any(calls), "a frozen part has no dropout"
    moved = {name.split(".")[0] for name, p in model.named_parameters() if not p.equal(before[name])}
    expected = {*FREEZABLE, "embed_speaker"} - {part}
    assert moved == expected and all(p.grad is None for p in getattr(model, part).parameters())
    state = trainer.stepper.optimizers["generator"].state
    assert not any(p in state for p in getattr(model, part).parameters()), "and needs no memory in the optimizer"


def test_what_comes_before_all_that_learns_is_computed_without_a_graph():
    """With one speaker, nothing that learns lies before the text encoder, the posterior encoder or a frozen flow after it."""
    trainer, graphs = make_trainer("text_encoder", "posterior_encoder", "flow"), {}
    model = trainer.task.model
    for part in ("text_encoder", "posterior_encoder", "flow", "duration_predictor", "decoder"):
        def note(module, inputs, output, part=part):
            first = output if torch.is_tensor(output) else output[0]
            graphs[part] = first.requires_grad
        getattr(model, part).register_forward_hook(note)
    out = training_pass(model, batch_of((40, 9)), 32)
    aligned = out.aligned()
    assert graphs == {"text_encoder": False, "posterior_encoder": False, "flow": False, "duration_predictor": True, "decoder": True}
    assert not aligned.kl.requires_grad and aligned.duration.requires_grad and out.generated.requires_grad


def test_a_speaker_s_embedding_learns_through_frozen_parts():
    trainer = make_trainer("posterior_encoder", "flow", "decoder", speakers=("asha", "dev"))
    trainer.stepper.gradients([batch_of((40, 9), (33, 5))], 0, 0)
    assert trainer.task.model.embed_speaker.weight.grad.abs().sum(1).min() > 0
    assert trainer.task.model.text_encoder.project.weight.grad.any()


def test_no_layer_of_the_text_encoder_is_left_out():
    """VITS knows no layer drop; transformers' configuration, and so Meta's voices', has a tenth."""
    base = compact_base(("asha",), seed=0)
    base.model.text_encoder.encoder.layerdrop = 0.9
    task, calls = VitsTask(base, TrainSettings(base="scratch", freeze=())), []
    task.train(True)
    for layer in base.model.text_encoder.encoder.layers:
        layer.register_forward_hook(lambda *_: calls.append(1))
    training_pass(base.model, batch_of((40, 9)), 32)
    assert len(calls) == len(base.model.text_encoder.encoder.layers)
