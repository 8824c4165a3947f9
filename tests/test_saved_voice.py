"""A voice that was saved speaks the same samples in a process that has only transformers: through VitsModel and through
pipeline, whether it was in training (weight norm split) or not, and with the names that Meta's own files use."""
import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import VitsModel

from vaani_lib.base import Base, compact_base, compact_tokenizer, load_voice, save_voice, with_speakers
from vaani_lib.config import TrainSettings
from vaani_lib.recipes import VitsTask
from vaani_lib.vits import compact_config, initialise

TEXT = "આજે સવારે પવન ઠંડો છે."
OUTSIDER = """
import json, sys, torch
from transformers import VitsModel, VitsTokenizer, pipeline
spoken = {}
for folder in sys.argv[2:]:
    model, tokenizer = VitsModel.from_pretrained(folder), VitsTokenizer.from_pretrained(folder)
    speaker = {"speaker_id": 1} if model.config.num_speakers > 1 else {}
    torch.manual_seed(4)
    with torch.no_grad(): direct = model(**tokenizer(sys.argv[1], return_tensors="pt"), **speaker).waveform[0]
    speaks = pipeline("text-to-speech", model=folder)
    torch.manual_seed(4)
    piped = speaks(sys.argv[1], forward_params=speaker)
    assert piped["sampling_rate"] == 16000
    spoken[folder] = direct.tolist(), piped["audio"].flatten().tolist()
assert not any(name.startswith("vaani") for name in sys.modules)
print(json.dumps(spoken))
"""


def make_voice(speakers: tuple[str, ...], stochastic: bool) -> Base:
    """A compact voice in which every part does something: a fresh one is silent and its durations are all alike."""
    tokenizer = compact_tokenizer()
    config = compact_config(len(tokenizer), len(speakers))
    config.use_stochastic_duration_prediction = stochastic
    torch.manual_seed(0)
    model = VitsModel(config)
    initialise(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return Base(model.eval(), tokenizer, speakers)


def speak(base: Base, number: int = 1) -> np.ndarray:
    speaker = {"speaker_id": number} if len(base.speakers) > 1 else {}
    torch.manual_seed(4)
    with torch.no_grad():
        return base.model.eval()(**base.tokenizer(TEXT, return_tensors="pt"), **speaker).waveform[0].numpy()


def with_old_names(folder) -> None:
    """weight_g and weight_v, as in facebook/mms-tts-*."""
    weights = load_file(folder / "model.safetensors")
    old = lambda n: n.replace("parametrizations.weight.original0", "weight_g").replace("parametrizations.weight.original1", "weight_v")
    assert any(old(name) != name for name in weights)
    save_file({old(name): t for name, t in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def test_the_same_samples_in_a_fresh_process(tmp_path):
    expected = {}
    for speakers, stochastic in ((("asha",), True), (("asha", "dev"), False)):
        base = make_voice(speakers, stochastic)
        before, name = speak(base), f"{len(speakers)}"
        assert np.abs(before).max() > 1e-3 and len(before) > 3000
        save_voice(base.model, base.tokenizer, base.speakers, tmp_path / f"{name}-folded")
        base.model.save_pretrained(tmp_path / f"{name}-by-transformers")
        base.tokenizer.save_pretrained(tmp_path / f"{name}-by-transformers")
        VitsTask(base, TrainSettings(base="scratch", freeze=()))
        assert "decoder.upsampler.0.parametrizations.weight.original0" in base.model.state_dict(), "as it is in training"
        assert np.allclose(speak(base), before, atol=1e-6)
        save_voice(base.model, base.tokenizer, base.speakers, tmp_path / f"{name}-split")
        save_voice(base.model, base.tokenizer, base.speakers, tmp_path / f"{name}-old-names")
        with_old_names(tmp_path / f"{name}-old-names")
        for kind in ("folded", "by-transformers", "split", "old-names"):
            expected[str(tmp_path / f"{name}-{kind}")] = before
            assert np.allclose(speak(load_voice(tmp_path / f"{name}-{kind}")), before, atol=1e-6), kind
    done = subprocess.run([sys.executable, "-c", OUTSIDER, TEXT, *expected], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for folder, (direct, piped) in json.loads(done.stdout.splitlines()[-1]).items():
        for wav in (direct, piped):
            assert len(wav) == len(expected[folder]) and np.allclose(wav, expected[folder], atol=1e-6), folder


@pytest.mark.parametrize("stochastic", [False, True], ids=["plain durations", "stochastic durations"])
def test_speakers_that_are_new_to_a_voice(stochastic):
    """A new row starts as the mean of the old ones, and is who speaks unasked; a voice of one speaker speaks as before, and can learn the difference."""
    several = make_voice(("asha", "dev"), stochastic)
    old, before = several.model.embed_speaker.weight.detach().clone(), speak(several)
    grown, ids = with_speakers(copy.deepcopy(several), ("mira", "dev", "ravi"))
    rows = grown.model.embed_speaker.weight
    assert grown.speakers == ("mira", "ravi", "asha", "dev") and ids == {"mira": 0, "dev": 3, "ravi": 1}
    assert rows[2:].equal(old) and all(torch.allclose(row, old.mean(0)) for row in rows[:2])
    assert np.allclose(speak(grown, ids["dev"]), before, atol=1e-6)

    single = make_voice(("one",), stochastic)
    alone = speak(single)
    torch.manual_seed(0)
    grown, _ = with_speakers(copy.deepcopy(single), ("asha", "dev"))
    assert np.allclose(speak(grown), alone, atol=1e-6)
    # rows as far apart as VITS's own: with transformers' 0.02 a learning rate of 2e-5 would hardly tell two voices apart
    assert 0.8 < grown.model.embed_speaker.weight.std() < 1.2
    silent = [n for n, p in grown.model.named_parameters() if "cond" in n and not p.any()]
    assert len(silent) >= 6, "what listens to the speaker says nothing yet"


def test_the_compact_base_starts_as_the_authors_do():
    model = compact_base(("asha", "dev"), seed=0).model
    assert 0.8 < model.embed_speaker.weight.std() < 1.2
    assert all(not flow.conv_post.weight.any() and not flow.conv_post.bias.any() for flow in model.flow.flows)
    assert abs(model.decoder.upsampler[0].weight.std() - 0.01) < 0.001
