"""Parts that are frozen: no gradient, no dropout, not a bit changed, and the rest learns."""
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_voice import narrow_discriminators

from vaani_lib import batches, recipes
from vaani_lib.base import compact_base
from vaani_lib.batches import Clip, collate
from vaani_lib.config import FREEZABLE, TrainSettings
from vaani_lib.corpus import prepare
from vaani_lib.layouts import read_corpus
from vaani_lib.recipes import VitsData, VitsTask
from vaani_lib.state import load_tree, save_tree
from vaani_lib.trainer import Trainer
from vaani_lib.vits import training_pass


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    narrow_discriminators(monkeypatch.setattr)


def clips_of(*lengths):
    """Noise and random text of so many (frames, tokens)."""
    random = np.random.default_rng(0)
    clips = []
    for frames, tokens in lengths:
        wav = random.normal(0, 2000, frames * 256).astype(np.int16)
        clips.append(Clip(random.integers(2, 40, tokens).tolist(), lambda wav=wav: wav, frames, len(clips) % 2))
    return tuple(clips)


def batch_of(*lengths):
    return collate(clips_of(*lengths), shortest=32)


def make_trainer(*freeze: str, speakers=("asha",)) -> Trainer:
    settings = TrainSettings(base="scratch", freeze=freeze, learning_rate=1e-3)
    trainer = Trainer(VitsTask(compact_base(speakers, seed=0), settings), settings)
    trainer.task.train(True)
    return trainer


@pytest.mark.parametrize("part", FREEZABLE)
def test_a_frozen_part_evaluates_and_stays_as_it_is(part):
    trainer = make_trainer(part, speakers=("asha", "dev"))
    model, calls = trainer.task.model, []
    at_work = model.text_encoder.encoder.layers[0] if part == "text_encoder" else getattr(model, part)
    at_work.register_forward_pre_hook(lambda module, _: calls.append(any(m.training for m in module.modules())))
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
    parts = ("text_encoder.encoder.layers.0", "posterior_encoder.wavenet", "flow", "duration_predictor", "decoder")
    for part in parts:
        def note(module, inputs, output, part=part):
            first = output if torch.is_tensor(output) else output[0]
            graphs[part] = first.requires_grad
        model.get_submodule(part).register_forward_hook(note)
    out = training_pass(model, batch_of((40, 9)), 32)
    aligned = out.aligned()
    assert graphs == dict(zip(parts, (False, False, False, True, True)))
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


LENGTHS = (40, 9), (20, 4), (33, 7), (90, 12), (61, 10)
ENCODERS = ("text_encoder", "posterior_encoder")


@pytest.mark.parametrize("speakers", [("asha",), ("asha", "dev")])
def test_what_a_frozen_encoder_makes_of_a_clip_is_made_once(speakers):
    """Of a recording only where no speaker's embedding, which learns, has a part in it."""
    trainer, made = make_trainer(*ENCODERS, speakers=speakers), []
    model, clips = trainer.task.model, clips_of(*LENGTHS)
    for part in ("text_encoder.encoder.layers.0", "posterior_encoder.wavenet"):
        model.get_submodule(part).register_forward_hook(lambda *_, part=part: made.append(part.split(".")[0]))
    trainer.step([collate(clips[:2], 32), collate(clips[2:], 32)])
    first = made.copy()
    made.clear()
    trainer.step([collate(clips[:4], 32), collate(clips[4:], 32)])
    several = len(speakers) > 1
    assert first.count("text_encoder") == 5 and first.count("posterior_encoder") == (2 if several else 5)
    assert made == ["posterior_encoder"] * 2 * several


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_with_what_was_kept_is_the_step_that_makes_it(precision):
    """The same losses and gradients, for clips of several lengths, one shorter than a segment."""
    kept, trainer, found = clips_of(*LENGTHS), make_trainer(*ENCODERS), []
    trainer.stepper.settings = replace(trainer.settings, precision=precision)
    for clips in (kept, kept, [replace(clip, once=None) for clip in kept]):
        losses = trainer.stepper.gradients([collate(clips, 32)], 0, 0)
        found.append((trainer.stepper.as_floats(losses), [p.grad for p in trainer.task.model.parameters() if p.grad is not None]))
    (first, by_first), (again, by_again), (anew, by_anew) = found
    assert first == again and all(map(torch.equal, by_first, by_again))
    tolerance = {"fp32": 1e-5, "bf16": 0.02}[precision]
    assert anew == pytest.approx(first, rel=tolerance)
    distance = torch.cat([(a - b).flatten() for a, b in zip(by_first, by_anew, strict=True)]).norm()
    assert distance < 3 * tolerance * torch.cat([a.flatten() for a in by_first]).norm()


def test_a_run_goes_on_bit_for_bit_from_what_was_kept(tmp_path, monkeypatch):
    """The session that goes on has kept nothing, and meets each clip first in other company than the first session did."""
    monkeypatch.setattr(batches, "POOL", 1)  # clips of a length are not looked for
    settings = TrainSettings(base="scratch", freeze=ENCODERS, batch_size=2, grad_accum=1, epochs=2)
    data = lambda: VitsData(clips_of(*LENGTHS), (), (), settings, ())
    assert {*map(frozenset, data().epoch(0))} != {*map(frozenset, data().epoch(1))}
    whole, first, second = (Trainer(VitsTask(compact_base(("asha",), seed), settings), settings) for seed in (0, 0, 1))
    whole.fit(data())
    first.settings = replace(settings, epochs=1)
    first.fit(data())
    save_tree(tmp_path, "state", first.state_dict())
    second.load_state_dict(load_tree(tmp_path, "state"))
    second.fit(data())
    weights, ours = (trainer.task.model.state_dict() for trainer in (whole, second))
    assert second.progress.step == whole.progress.step == 6 and all(ours[name].equal(weights[name]) for name in weights)


def test_of_a_set_that_is_too_large_nothing_is_kept(monkeypatch, corpus, tmp_path):
    prepared = prepare(read_corpus(corpus), tmp_path / "prepared")
    settings, base = TrainSettings(base="scratch", freeze=("text_encoder",)), compact_base(("asha",), 0)
    for most, keeps in ((recipes.KEPT, True), (1000, False)):
        monkeypatch.setattr(recipes, "KEPT", most)
        data = recipes.vits_data(prepared, base, dict.fromkeys(prepared.speakers, 0), settings)
        assert {clip.once is not None for clip in data.clips + data.valid_clips} == {keeps}
        assert recipes.training_pass(VitsTask(base, settings).model, data.load([0, 1])[0], 32).generated.isfinite().all()
