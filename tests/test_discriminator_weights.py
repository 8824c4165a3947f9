"""Discriminators from the two layouts they are published in, against HiFi-GAN's 2-d ones written out plainly."""
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_voice
import torch
import torch.nn.functional as F
from hub import running_hub
from safetensors.torch import load_file, save_file

from vaani_lib.base import compact_base, load_voice, save_voice
from vaani_lib.discriminator_weights import in_our_names, load_discriminators
from vaani_lib.gan import Discriminators
from vaani_lib.run_setup import choose_settings
from vaani_lib.training import train

WIDTH = 16  # times narrower than MMS's, so that a test costs nothing
SCALE = [(1, 16, 15, 1, 1), (16, 64, 41, 4, 4), (64, 256, 41, 4, 16), (256, 1024, 41, 4, 64), (1024, 1024, 41, 4, 256), (1024, 1024, 5, 1, 1)]
PERIOD = [(1, 32, 3), (32, 128, 3), (128, 512, 3), (512, 1024, 3), (1024, 1024, 1)]


def original_state(width: int = WIDTH, device="cpu") -> dict[str, torch.Tensor]:
    """A state dict as VITS's `D_*.pth` have it under "model", with random numbers."""
    state, random = {}, torch.Generator().manual_seed(3)

    def add(name: str, *kernel: int):
        numbers = torch.empty(kernel, device="meta") if device == "meta" else torch.randn(kernel, generator=random)
        state[f"{name}.bias"] = numbers.new_full((kernel[0],), 0.1)
        state[f"{name}.weight_g"] = numbers.new_full((kernel[0], *[1] * (len(kernel) - 1)), 1.5)
        state[f"{name}.weight_v"] = numbers

    narrow = lambda n: max(1, n // width)
    for j, (i, o, k, _, groups) in enumerate(SCALE):
        add(f"discriminators.0.convs.{j}", narrow(o), narrow(i) // narrow(groups), k)
    add("discriminators.0.conv_post", 1, narrow(1024), 3)
    for n in range(1, 6):
        for j, (i, o, _) in enumerate(PERIOD):
            add(f"discriminators.{n}.convs.{j}", narrow(o), narrow(i) if i > 1 else 1, 5, 1)
        add(f"discriminators.{n}.conv_post", 1, narrow(1024), 3, 1)
    return state


def plain_outputs(state: dict[str, torch.Tensor], wav: torch.Tensor) -> list[torch.Tensor]:
    """Every layer's output (flattened after the batch), as HiFi-GAN's models.py computes it."""
    def kernel(name: str) -> torch.Tensor:
        v, g = state[f"{name}.weight_v"], state[f"{name}.weight_g"]
        return torch.stack([g[i] * v[i] / v[i].square().sum().sqrt() for i in range(len(v))])

    outputs, x = [], wav
    for j, (_, _, k, stride, groups) in enumerate(SCALE):
        name = f"discriminators.0.convs.{j}"
        x = F.leaky_relu(F.conv1d(x, kernel(name), state[f"{name}.bias"], stride, k // 2, groups=max(1, groups // WIDTH)), 0.1)
        outputs.append(x)
    outputs.append(F.conv1d(x, kernel("discriminators.0.conv_post"), state["discriminators.0.conv_post.bias"], padding=1))
    for n, period in enumerate((2, 3, 5, 7, 11), 1):
        lacking = -wav.shape[-1] % period
        x = (F.pad(wav, (0, lacking), "reflect") if lacking else wav).view(len(wav), 1, -1, period)
        for j, (_, _, stride) in enumerate(PERIOD):
            name = f"discriminators.{n}.convs.{j}"
            x = F.leaky_relu(F.conv2d(x, kernel(name), state[f"{name}.bias"], (stride, 1), (2, 0)), 0.1)
            outputs.append(x)
        name = f"discriminators.{n}.conv_post"
        outputs.append(F.conv2d(x, kernel(name), state[f"{name}.bias"], padding=(1, 0)))
    return outputs


def same_numbers(ours: torch.Tensor, plain: torch.Tensor, items: int) -> bool:
    """Whether a layer's output (T / period, B * period, C) is the plain one. Where the period lies in the shape
    is ours to choose, so the numbers are sorted; had they changed places, the next layer's would be others."""
    ours = ours.unflatten(1, (items, -1)).movedim(1, 0)
    ours, plain = (t.reshape(items, -1).sort().values for t in (ours, plain))
    return ours.shape == plain.shape and torch.allclose(ours, plain, atol=1e-5)


def assert_equal_to_plain(discriminators: Discriminators, state: dict[str, torch.Tensor]) -> None:
    wav = torch.randn(2, 1, 4001, generator=torch.Generator().manual_seed(1))
    recorded = torch.randn(2, 1, 4001, generator=torch.Generator().manual_seed(2))
    generated, real, passed_on = ([layer for layers in kind for layer in layers] for kind in zip(*discriminators(wav, recorded)))
    for ours, heard in ((generated, wav), (real, recorded), (passed_on, wav)):
        plain = plain_outputs(state, heard)
        assert len(ours) == len(plain) and all(same_numbers(a, b, 2) for a, b in zip(ours, plain))


def multiplied_out(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same as finetune-hf-vits writes it into model.safetensors (VitsModelForPreTraining, weight norm removed)."""
    train = {}
    for name, tensor in state.items():
        new = "discriminator." + name.replace("conv_post", "final_conv")
        if name.endswith("weight_g"):
            train[new[:-2]] = torch._weight_norm(state[name[:-1] + "v"], tensor, 0)
        elif name.endswith("bias"):
            train[new] = tensor
    return train


@pytest.fixture
def voice(tmp_path) -> Path:
    base = compact_base(("asha",), seed=1)
    save_voice(base.model, base.tokenizer, base.speakers, tmp_path / "voice")
    return tmp_path / "voice"


@pytest.mark.parametrize("zipped", [True, False], ids=["torch since 1.6", "torch before 1.6"])
def test_the_original_file(voice, zipped):
    state, said = original_state(), []
    optimizer = {"state": {0: {"step": 100_000, "exp_avg": torch.zeros(9)}}, "param_groups": [{"lr": 2e-4, "betas": (0.8, 0.99)}]}
    for step in (9_000, 100_000):
        kept = state if step == 100_000 else {name: 0 * t for name, t in state.items()}
        torch.save({"model": kept, "iteration": 7, "optimizer": optimizer, "learning_rate": 2e-4}, voice / f"D_{step}.pth",
                   _use_new_zipfile_serialization=zipped)
    discriminators = Discriminators(WIDTH)
    assert load_discriminators(discriminators, str(voice), said.append)
    assert_equal_to_plain(discriminators, state)
    assert len(said) == 1 and "D_100000.pth" in said[0]


@pytest.mark.parametrize("layout", ["multiplied out", "weight norm kept"])
def test_a_train_folder_holds_both(voice, layout):
    state, before = original_state(), load_voice(voice).model.state_dict()
    if layout == "multiplied out":
        extra = multiplied_out(state)
    else:
        extra = {"discriminator." + n.replace("conv_post", "final_conv").replace("weight_g", "parametrizations.weight.original0")
                 .replace("weight_v", "parametrizations.weight.original1"): t for n, t in state.items()}
    save_file(load_file(voice / "model.safetensors") | extra, voice / "model.safetensors", {"format": "pt"})
    discriminators, said = Discriminators(WIDTH), []
    assert load_discriminators(discriminators, str(voice), said.append) and "model.safetensors" in said[0]
    assert_equal_to_plain(discriminators, state)
    after = load_voice(voice).model.state_dict()
    assert before.keys() == after.keys() and all(before[n].equal(after[n]) for n in before)


def test_a_run_of_ones_own_has_them_in_its_newest_checkpoint(voice, tmp_path):
    data = tiny_voice.make_recordings(tmp_path)
    settings = tiny_voice.settings(tiny_voice.make_voice(tmp_path / "tiny"), epochs=1)
    run = train(settings, data, tmp_path / "runs", "own", say=lambda words: None)
    expected, discriminators, said = learned(run), Discriminators(4), []
    assert load_discriminators(discriminators, str(run), said.append) and "ckpt-e0001" in said[0]
    assert all(tensor.equal(expected[name]) for name, tensor in discriminators.state_dict().items())
    assert not load_discriminators(Discriminators(4), str(run / "best"), said.append), "its best voice alone begins afresh"


def learned(run: Path) -> dict[str, torch.Tensor]:
    """The discriminators in the newest checkpoint of a run."""
    checkpoint = max((run / "checkpoints").glob("ckpt-*"))
    prefix = "module.discriminator/"
    return {name.removeprefix(prefix): tensor for name, tensor in load_file(checkpoint / "state.safetensors").items()
            if name.startswith(prefix)}


def test_those_of_the_voice_in_a_file_of_their_own(voice):
    ours, loaded, said = Discriminators(WIDTH), Discriminators(WIDTH), []
    half = {f"discriminator.{name}": tensor.half() for name, tensor in ours.state_dict().items()}
    save_file(half, voice / "discriminator.safetensors")
    assert load_discriminators(loaded, str(voice), said.append) and "discriminator.safetensors" in said[0]
    assert all(a.half().equal(b.half()) for a, b in zip(ours.parameters(), loaded.parameters()))


def test_the_names_and_shapes_of_a_full_one_fit():
    with torch.device("meta"):
        expected = Discriminators().state_dict()
    for layout in (original_state(1, "meta"), multiplied_out(original_state(1, "meta"))):
        found = in_our_names(layout)
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in expected.items()}
    assert round(sum(t.numel() for t in found.values()) / 1e6, 1) == 46.7, "MMS's discriminators, in millions"


def test_half_a_file_is_refused_and_another_width_is_said(voice):
    torch.save({"model": original_state(8)}, voice / "D_1.pth")
    discriminators, said = Discriminators(WIDTH), []
    before = [p.clone() for p in discriminators.parameters()]
    assert not load_discriminators(discriminators, str(voice), said.append) and "another shape" in said[0]
    assert all(a.equal(b) for a, b in zip(before, discriminators.parameters()))
    (voice / "D_1.pth").write_bytes((voice / "D_1.pth").read_bytes()[:5000])
    with pytest.raises(ValueError, match="D_1.pth cannot be read .* remove it to train with fresh ones"):
        load_discriminators(discriminators, str(voice), said.append)


OUTSIDER = """
import sys, torch
from vaani_lib.discriminator_weights import in_our_names, load_discriminators
from vaani_lib.gan import Discriminators
from vaani_lib.run_setup import choose_settings
from vaani_lib.training import train
discriminators = Discriminators(16)
for base in sys.argv[2:]:
    print(load_discriminators(discriminators, base))
torch.save(discriminators.state_dict(), sys.argv[1])
"""


def test_those_of_meta_s_voices_come_from_the_hub(tmp_path):
    file = tmp_path / "mms" / "full_models" / "guj" / "D_100000.pth"
    file.parent.mkdir(parents=True)
    torch.save({"model": original_state(), "iteration": 1}, file)

    def load(environment: dict[str, str], *bases: str) -> list[str]:
        done = subprocess.run([sys.executable, "-c", OUTSIDER, str(tmp_path / "ours.pth"), *bases], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    with running_hub({"models/facebook/mms-tts": tmp_path / "mms"}, tmp_path / "hub") as environment:
        said = load(environment, "facebook/mms-tts-guj", "facebook/mms-tts-xyz")
    fetched, origin, first, missing, fresh, second = said
    assert f"({file.stat().st_size:,} bytes)" in fetched and "facebook/mms-tts" in origin and first == "True"
    assert "full_models/xyz/D_100000.pth" in missing and "fresh ones" in fresh and second == "False"
    discriminators = Discriminators(WIDTH)
    discriminators.load_state_dict(torch.load(tmp_path / "ours.pth"))
    assert_equal_to_plain(discriminators, original_state())
    # the second time the cache has it, and for a voice that it does not have a Hub out of reach is no end
    origin, again, unreachable, fresh, without = load(environment, "facebook/mms-tts-guj", "facebook/mms-tts-hin")
    assert again == "True" and "could not be had" in unreachable and "fresh ones" in fresh and without == "False"


def test_a_new_run_takes_them_and_a_resumed_one_keeps_its_own(corpus, tmp_path):
    base = compact_base(("asha", "dev"), seed=1)
    save_voice(base.model, base.tokenizer, base.speakers, tmp_path / "voice")
    torch.save({"model": original_state(4)}, tmp_path / "voice" / "D_100000.pth")
    said, settings = [], {"device": "cpu", "batch_size": 4, "grad_accum": 1}
    for steps in (1, 2):
        train(choose_settings(str(tmp_path / "voice"), max_steps=steps, **settings), corpus, tmp_path / "runs", "a", say=said.append)
    told = [sentence for sentence in said if "discriminators" in sentence]
    assert len(told) == 1 and "D_100000.pth" in told[0], told
