"""What a training step computes: micro-batches that add up, a discriminator that only its own phase touches, and each
loss against one written out slowly."""
from collections.abc import Sequence
from contextlib import contextmanager
from itertools import combinations
from types import SimpleNamespace
from unittest.mock import patch

import librosa
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import VitsConfig, VitsModel
from transformers.models.vits.modeling_vits import VitsDurationPredictor, VitsStochasticDurationPredictor

from vaani_lib.audio import HOP_LENGTH, spectrogram
from vaani_lib.base import Base
from vaani_lib.batches import REFLECTED, Clip, collate
from vaani_lib.config import LOSS_WEIGHTS, TrainSettings
from vaani_lib.gan import Discriminators, discriminator_loss, feature_matching_loss, generator_loss
from vaani_lib.recipes import VitsTask
from vaani_lib.stepper import Stepper
from vaani_lib.vits import (
    Totals,
    align,
    compact_config,
    duration_loss,
    initialise,
    kl_divergence,
    length_mask,
    reconstruction_loss,
    stochastic_duration_loss,
)

# (frames, tokens, speaker): from shorter than a segment to three times one
CLIPS = [(12, 3, 0), (70, 21, 1), (33, 9, 2), (32, 5, 0), (90, 30, 1), (20, 20, 2), (41, 7, 0), (64, 11, 1),
         (25, 8, 2), (31, 4, 0), (55, 27, 1), (95, 13, 2), (16, 2, 0), (38, 12, 1), (47, 6, 2), (29, 10, 0)]


def clip(number: int) -> Clip:
    """A hum with some noise, of a pitch and a text of its own."""
    frames, tokens, speaker = CLIPS[number]
    random = np.random.default_rng(number)
    t = np.arange(frames * HOP_LENGTH) / 16000
    wav = 3000 * np.sin(2 * np.pi * (120 + 10 * number) * t) * (1 + np.sin(30 * t)) + random.normal(0, 100, len(t))
    return Clip(random.integers(1, 40, tokens).tolist(), lambda: wav.astype(np.int16), frames, speaker)


def make_task(stochastic: bool, seed: int = 5, speakers: tuple[str, ...] = ("a", "b", "c")) -> VitsTask:
    """A small VITS, as it evaluates: no dropout."""
    config = compact_config(vocab_size=40, num_speakers=len(speakers))
    config.use_stochastic_duration_prediction = stochastic
    config.hidden_size = config.flow_size = 32
    config.upsample_initial_channel, config.num_hidden_layers, config.posterior_encoder_num_wavenet_layers = 32, 2, 3
    torch.manual_seed(seed)
    model = VitsModel(config)
    initialise(model)
    # at the start flows are the identity and durations all alike, which would hide mistakes
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.02 * torch.randn_like(p))
    task = VitsTask(Base(model, None, speakers), TrainSettings(base="scratch", freeze=()))
    task.modules["discriminator"] = Discriminators(divisor=16)
    task.train(False)
    return task


@contextmanager
def without_noise():
    """No posterior noise; every segment from the middle of its clip. Without oneDNN, whose choice of algorithm goes by the
    size of the batch: with it the gradients are up to 7e-6 apart, a margin that another processor might use up; without, 1e-6."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (patch("torch.randn_like", torch.zeros_like), torch.backends.mkldnn.flags(enabled=False),
              patch("vaani_lib.vits.random_segments", lambda frames, segment: (frames - segment).clamp_min(0) // 2)):
            yield
    finally:
        torch.set_num_threads(threads)


def in_groups(numbers: Sequence[int], size: int) -> list:
    return [collate([clip(n) for n in numbers[i:i + size]], shortest=32) for i in range(0, len(numbers), size)]


def gradients_of_each_loss(task: VitsTask, batches: list) -> dict[str, torch.Tensor]:
    """The gradient of every loss by itself, in the parameters of its phase's module."""
    totals, sums = task.totals(batches), {}
    with without_noise():
        for batch in batches:
            for phase in task.phases(batch, totals):
                parameters = list(task.modules[phase.name].parameters())
                for key, loss in phase.losses.items():
                    upstream = None
                    if phase.until:  # from the cut on by the chain rule
                        (upstream,) = torch.autograd.grad(loss, phase.until.after, retain_graph=True)
                        loss = phase.until.before
                    found = torch.autograd.grad(loss, parameters, upstream, retain_graph=True, allow_unused=True)
                    flat = torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(found, parameters)])
                    sums[key] = sums.get(key, 0) + flat
    return sums


def distance(whole: torch.Tensor, parts: torch.Tensor) -> float:
    """Relative to the gradient's length."""
    assert whole.norm() > 0
    return float((whole - parts).norm() / whole.norm())


@pytest.mark.parametrize(("stochastic", "clips"), [(False, 16), (True, 16), (True, 14)],
                         ids=["plain durations", "stochastic durations", "an incomplete last group"])
def test_every_loss_adds_up_over_micro_batches(stochastic, clips):
    # by rounding, a leaky ReLU at zero or an L1 at a tie may take the other side: in one draw of five or so some loss is
    # then 2e-5 off. What adds up wrongly is off in every draw, and by far more
    closest = {}
    for seed in (5, 6, 7):
        tasks = [make_task(stochastic, seed) for _ in range(2)]
        for task in tasks:
            task.weights = task.weights | {"spectrum": 1.0}  # an option, off by itself
        whole, parts = (gradients_of_each_loss(task, in_groups(range(clips), n)) for task, n in zip(tasks, (clips, 4)))
        closest = {key: min(distance(whole[key], parts[key]), closest.get(key, 1)) for key in whole}
        # the spectrum's logarithm magnifies the rounding of bins near zero, in either case
        spectrum = closest.pop("spectrum")
        if max(closest.values()) < 1e-5 and spectrum < 1e-4:
            break
    assert {*closest, "spectrum"} == {"discriminator", *LOSS_WEIGHTS}
    assert max(closest.values()) < 1e-5 and spectrum < 1e-4, (closest, spectrum)


def test_the_trainer_accumulates_that_gradient():
    def accumulated(size, seed):
        stepper = Stepper(make_task(True, seed), TrainSettings())
        with without_noise():
            losses = stepper.as_floats(stepper.gradients(in_groups(range(14), size), 0, 0))
        return losses, {name: torch.cat([p.grad.flatten() for p in ps if p.grad is not None]) for name, ps in stepper.parameters.items()}

    closest = {"discriminator": 1.0, "generator": 1.0}
    for seed in (5, 6, 7):
        (losses, whole), (losses_in_parts, parts) = accumulated(14, seed), accumulated(4, seed)
        assert losses == pytest.approx(losses_in_parts, rel=1e-5)
        closest = {name: min(closest[name], distance(whole[name], parts[name])) for name in closest}
        if max(closest.values()) < 1e-5:
            break
    assert max(closest.values()) < 1e-5, closest


def test_the_generator_s_phase_computes_no_weight_gradient_of_the_discriminators():
    """finetune-hf-vits, defect 6: it computes them, unused, and the features of the real audio a second time."""
    task, seen = make_task(False), []
    discriminators = task.modules["discriminator"]
    discriminators.discriminators[1].register_forward_pre_hook(lambda module, inputs: seen.append([len(wav) for wav in inputs]))
    stepper, counts, backward = Stepper(task, TrainSettings()), [], torch.autograd.backward

    def counting(*args, **kwargs):
        with FlopCounterMode(display=False) as counter:
            backward(*args, **kwargs)
        counts.append(counter.get_total_flops())

    with patch("torch.autograd.backward", counting):
        stepper.gradients(in_groups(range(3), 3), 0, 0)
    # each discriminator's own phase and the generator's behind it, then the generator's last
    own, generator_s = counts[:-1:2], counts[1::2]
    assert len(own) == len(generator_s) == len(discriminators.discriminators) and min(generator_s) > 0
    # its own phase goes back through two halves, to their inputs and to the weights; the generator's to the inputs of one
    # alone. With the weights it would be half, and with the recordings a half as well
    assert all(g < 0.35 * o for o, g in zip(own, generator_s)), (own, generator_s)
    assert seen == [[3, 3]], "each clip is judged once as it was generated and once as it was recorded"


def test_kl_by_loops():
    random = torch.Generator().manual_seed(1)
    frames, tokens, channels = (7, 4), (3, 2), 5
    z, posterior = (torch.randn(2, channels, 7, generator=random) for _ in range(2))
    means, scales = (torch.randn(2, channels, 3, generator=random) for _ in range(2))
    durations = ((2, 4, 1), (3, 1))
    attention = torch.zeros(2, 3, 7)
    expected = 0.0
    for b in range(2):
        f = 0
        for token in range(tokens[b]):
            for _ in range(durations[b][token]):
                attention[b, token, f] = 1
                for c in range(channels):
                    log_posterior, log_prior = posterior[b, c, f].item(), scales[b, c, token].item()
                    distance = z[b, c, f].item() - means[b, c, token].item()
                    expected += log_prior - log_posterior - 0.5 + 0.5 * distance**2 / np.exp(log_prior) ** 2
                f += 1
    mask = length_mask(torch.tensor(frames), 7)
    assert kl_divergence(posterior, z, means, scales, attention, mask).item() == pytest.approx(expected, rel=1e-5)


def paths(tokens: int, frames: int):
    """Every way to speak `tokens` in order in `frames`, each at least one frame: the token of each frame."""
    for cuts in combinations(range(1, frames), tokens - 1):
        bounds = [0, *cuts, frames]
        yield [token for token, (a, b) in enumerate(zip(bounds, bounds[1:])) for _ in range(b - a)]


def test_alignment_against_every_path():
    random = torch.Generator().manual_seed(7)
    tokens, frames = torch.tensor([4, 2, 5, 1, 6]), torch.tensor([9, 8, 5, 3, 7])
    z = torch.randn(5, 3, 9, generator=random)
    means, scales = torch.randn(5, 3, 6, generator=random), 0.5 * torch.randn(5, 3, 6, generator=random)
    found = align(z, means, scales, length_mask(tokens, 6), length_mask(frames, 9))
    for b in range(5):
        normal = [torch.distributions.Normal(means[b, :, i], scales[b, :, i].exp()) for i in range(6)]
        likelihood = [[normal[i].log_prob(z[b, :, f]).sum().item() for f in range(9)] for i in range(6)]
        best = max(paths(int(tokens[b]), int(frames[b])), key=lambda path: sum(likelihood[i][f] for f, i in enumerate(path)))
        assert found[b].sum() == frames[b] and found[b, :, :int(frames[b])].argmax(0).tolist() == best, b


def test_squared_error_of_log_durations_by_loops():
    torch.manual_seed(2)
    config = VitsConfig(hidden_size=8, duration_predictor_filter_channels=8)
    model = SimpleNamespace(config=SimpleNamespace(use_stochastic_duration_prediction=False), duration_predictor=VitsDurationPredictor(config).eval())
    hidden, durations, tokens = torch.randn(2, 8, 4), torch.tensor([[[3.0, 1, 7, 2]], [[5.0, 6, 0, 0]]]), (4, 2)
    mask = length_mask(torch.tensor(tokens), 4)
    said = model.duration_predictor(hidden, mask)
    expected = sum((said[b, 0, i].item() - np.log(durations[b, 0, i].item() + 1e-6)) ** 2 for b in range(2) for i in range(tokens[b]))
    assert duration_loss(model, hidden, mask, durations, None).item() == pytest.approx(expected, rel=1e-5)


def test_stochastic_durations_by_change_of_variables():
    """Equations 7 and 8 of the paper: densities by the determinants of Jacobian matrices, channels as inference has them."""
    torch.manual_seed(3)
    predictor = VitsStochasticDurationPredictor(VitsConfig(hidden_size=8, speaker_embedding_size=4)).double().eval()
    with torch.no_grad():
        for p in predictor.parameters():
            p.add_(0.2 * torch.randn_like(p))
    hidden, speaker, noise = torch.randn(1, 8, 2).double(), torch.randn(1, 4, 1).double(), torch.randn(1, 2, 2).double()
    durations, mask = torch.tensor([[[3.0, 8.0]]]).double(), torch.ones(1, 1, 2).double()
    condition = predictor.conv_proj(predictor.conv_dds(predictor.conv_pre(hidden) + predictor.cond(speaker), mask))
    spoken = predictor.post_conv_proj(predictor.post_conv_dds(predictor.post_conv_pre(durations), mask))

    def flow(flows, x, condition):
        x, _ = flows[0](x, mask)
        for spline in flows[1:]:
            x = spline(x, mask, condition)[0].flip(1)
        return x

    def taken(noise):  # the fraction of a frame that is taken from each duration, and the second channel
        x = flow(predictor.post_flows, noise.view(1, 2, 2), condition + spoken)
        return torch.cat([torch.sigmoid(x[:, :1]), x[:, 1:]], 1).flatten()

    def latent(rest_and_extra):
        x = rest_and_extra.view(1, 2, 2)
        return flow(predictor.flows, torch.cat([x[:, :1].log(), x[:, 1:]], 1), condition).flatten()

    log_volume = lambda function, at: torch.autograd.functional.jacobian(function, at).det().abs().log()
    normal = torch.distributions.Normal(0.0, 1.0)
    fraction, extra = taken(noise.flatten()).chunk(2)
    rest = torch.cat([durations.flatten() - fraction, extra])
    log_q = normal.log_prob(noise).sum() - log_volume(taken, noise.flatten())
    log_p = normal.log_prob(latent(rest)).sum() + log_volume(latent, rest)
    with patch("torch.randn_like", lambda like: noise.expand_as(like)):
        bound = stochastic_duration_loss(predictor, hidden, mask, durations, speaker)
    assert bound.item() == pytest.approx((log_q - log_p).item(), rel=1e-6)

    # what inference does, spline by spline, comes back to the logarithm of the durations in the first channel
    x = latent(rest).view(1, 2, 2)
    for spline in reversed(predictor.flows[1:]):
        x, _ = spline(x.flip(1), mask, condition, reverse=True)
    x, _ = predictor.flows[0](x, mask, reverse=True)
    assert torch.allclose(x[0, 0], rest[:2].log(), atol=1e-6)


def librosa_mel(wav: np.ndarray) -> np.ndarray:
    magnitude = np.abs(librosa.stft(np.pad(wav, 384, mode="reflect"), n_fft=1024, hop_length=256, center=False))
    mel = librosa.feature.melspectrogram(S=np.sqrt(magnitude**2 + 1e-6), sr=16000, n_mels=80)
    return np.log(np.maximum(mel, 1e-5))


def test_mel_loss_of_librosa_s_mels():
    random = np.random.default_rng(0)
    ours, theirs = (np.float32(0.1) * random.standard_normal((3, 4096)).astype(np.float32) for _ in range(2))
    expected = sum(np.abs(librosa_mel(a) - librosa_mel(b)).mean() for a, b in zip(ours, theirs)) / 8
    found = reconstruction_loss(*(torch.from_numpy(x).unsqueeze(1) for x in (ours, theirs)), 16000, total=8)
    assert found.item() == pytest.approx(expected, abs=1e-4)


def test_a_clip_s_spectrogram_does_not_know_its_neighbours():
    batch = collate([clip(0), clip(1), clip(12)], shortest=32)
    spec = spectrogram(batch.waveform.float() / 32768, reflected=True)
    for row, number in enumerate((0, 1, 12)):
        wav = clip(number).samples().astype(np.float32) / 32768
        alone = np.abs(librosa.stft(np.pad(wav, REFLECTED, mode="reflect"), n_fft=1024, hop_length=256, center=False))
        frames = CLIPS[number][0]
        assert alone.shape[1] == frames and np.abs(np.sqrt(alone**2 + 1e-6) - spec[row, :, :frames].numpy()).max() < 1e-4


def test_gan_losses_by_loops():
    random = torch.Generator().manual_seed(4)
    # 2 clips of a batch of 5; three discriminators, whose layers have shapes of their own
    shapes = [[(2, 4, 9), (2, 1, 5)], [(4, 3, 6), (4, 2, 3), (4, 1, 2)], [(6, 1, 7)]]
    real, generated = ([[torch.randn(s, generator=random) for s in layers] for layers in shapes] for _ in range(2))
    judged = fooled = matched = 0.0
    for r, g in zip(real, generated):
        for layer in range(len(r)):
            a, b = r[layer].flatten().tolist(), g[layer].flatten().tolist()
            matched += 2 * sum(abs(x - y) for x, y in zip(a, b)) / len(a) * 2 / 5
        judged += (sum((1 - x) ** 2 for x in a) / len(a) + sum(y**2 for y in b) / len(b)) * 2 / 5
        fooled += sum((1 - y) ** 2 for y in b) / len(b) * 2 / 5
    assert discriminator_loss(real, generated, 2, 5).item() == pytest.approx(judged, rel=1e-5)
    assert generator_loss(generated, 2, 5).item() == pytest.approx(fooled, rel=1e-5)
    assert feature_matching_loss(real, generated, 2, 5).item() == pytest.approx(matched, rel=1e-5)
    held = [[layer.clone().requires_grad_() for layer in layers] for layers in real]
    made = [[layer.clone().requires_grad_() for layer in layers] for layers in generated]
    feature_matching_loss(held, made, 2, 5).backward()
    assert all(layer.grad is None for layers in held for layer in layers), "the recording is a fixed target"
    assert all(layer.grad.any() for layers in made for layer in layers)


def test_the_whole_is_divided_by_what_the_whole_batch_holds():
    task, batches = make_task(False), in_groups(range(14), 4)
    frames, tokens = (sum(CLIPS[n][i] for n in range(14)) for i in (0, 1))
    assert task.totals(batches) == Totals(14, frames, tokens)
