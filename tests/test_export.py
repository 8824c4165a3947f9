"""A voice leaves the house: others' programs say what Vaani says, and what goes along tells where the voice is from."""
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_voice import make_recordings, make_voice, narrow_discriminators, settings
from transformers import VitsConfig, VitsModel, VitsTokenizer, pipeline

from vaani_lib.base import Base, compact_tokenizer
from vaani_lib.config import read_json, write_json
from vaani_lib.demo import demo_sentences
from vaani_lib.export import export, upload
from vaani_lib.onnx_file import largest_difference, metadata, with_noise_as_inputs, write_onnx
from vaani_lib.retrieval import retrieval
from vaani_lib.takes import own_settings, save_preset
from vaani_lib.training import train
from vaani_lib.vits import initialise
from vaani_lib.voice import Voice

PRESET = dict(speaking_rate=0.8, noise_scale=0.5, noise_scale_duration=0.3)


def small_mms(speakers: int) -> Base:
    """facebook/mms-tts-*'s shape, stochastic durations too, with fewer channels; every weight does something."""
    tokenizer, few = compact_tokenizer(), dict(hidden_size=32, flow_size=32, num_hidden_layers=2, ffn_dim=64)
    torch.manual_seed(0)
    model = VitsModel(VitsConfig(vocab_size=len(tokenizer), upsample_initial_channel=64, num_speakers=speakers,
                                 speaker_embedding_size=8 * (speakers > 1), **few))
    initialise(model)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return Base(model.eval(), tokenizer, tuple(f"speaker {i}" for i in range(speakers)))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """Two steps from a tiny voice, and a preset."""
    folder = tmp_path_factory.mktemp("run")
    patch = pytest.MonkeyPatch()
    narrow_discriminators(patch.setattr)
    train(settings(make_voice(folder / "base"), epochs=1), make_recordings(folder), folder, "first", None, 0, say=lambda line: None)
    patch.undo()
    voice = Voice.load(folder / "first")
    save_preset(folder / "first", own_settings(voice, "").__class__("", **PRESET, level=2.0))
    return folder / "first"


def test_transformers_and_vaani_say_the_same_with_the_preset(run, tmp_path):
    said = []
    out = export(run, tmp_path / "first", consent="Asha P. agreed in writing.", say=said.append)
    text = "આજે સવારે પવન ઠંડો છે"
    model, tokenizer = VitsModel.from_pretrained(out), VitsTokenizer.from_pretrained(out)
    assert (model.speaking_rate, model.noise_scale, model.noise_scale_duration) == tuple(PRESET.values())
    ours = Voice.load(out).say(text, seed=4, level=0)[0]
    assert np.array_equal(ours, Voice.load(run).say(text, seed=4, level=0)[0]) or "half precision" in (out / "README.md").read_text("utf-8")
    torch.manual_seed(4)
    with torch.no_grad():
        theirs = model(**tokenizer(text, return_tensors="pt"), speaker_id=0).waveform[0].numpy()
    speak = pipeline("text-to-speech", model=str(out))
    torch.manual_seed(4)
    piped = speak(text, forward_params={"speaker_id": 0})
    assert np.allclose(ours, theirs, atol=1e-6) and np.allclose(ours, piped["audio"].flatten(), atol=1e-6) and len(ours) > 8000
    assert Voice.load(out).own("level") == 2.0, "what Vaani alone obeys travels along"


def test_the_card_says_where_the_voice_is_from(run, tmp_path):
    said = []
    card = (export(run, tmp_path / "out", say=said.append) / "README.md").read_text("utf-8")
    record = read_json(run / "run.json")
    assert f"in {record['data']['utterances']['train']} recordings" in card and "- after: 2 steps" in card
    assert "**To be written: who speaks" in card and "license: other" in card and "2 line(s) that only you can write" in said[1]
    record["settings"]["base"] = "facebook/mms-tts-guj"
    write_json(run / "run.json", record)
    from vaani_lib.card import Story, head, tail
    base = Base(VitsModel(VitsConfig(hidden_size=8, num_hidden_layers=1, flow_size=8)), compact_tokenizer(), ("asha",))
    mms = head(Story.of(run / "best"), base, "transformers") + tail(Story.of(run / "best"), "")
    assert "license: cc-by-nc-4.0" in mms and "base_model: facebook/mms-tts-guj" in mms and "no commercial use" in mms


@pytest.mark.parametrize("speakers", [1, 2])
def test_onnx_with_stochastic_durations_speaks_as_transformers(speakers, tmp_path):
    """compact's plain durations are compared by every export, in nbs/lib/08_onnx_file.ipynb."""
    base = small_mms(speakers)
    file = write_onnx(base, tmp_path)
    assert len(with_noise_as_inputs(file)[1]) == 2, "of the durations and of the prior"
    assert largest_difference(base, file) < 1e-3
    assert metadata(base)["n_speakers"] == str(speakers)


def test_sherpa_onnx_says_the_same_sentences(tmp_path):
    sherpa = pytest.importorskip("sherpa_onnx")
    out, voice = export("compact", tmp_path / "compact", "onnx", say=lambda line: None), Voice.load("compact")

    def load(noise: float, durations: float, length: float):
        vits = sherpa.OfflineTtsVitsModelConfig(str(out / "model.onnx"), tokens=str(out / "tokens.txt"), noise_scale=noise,
                                                noise_scale_w=durations, length_scale=length)
        config = sherpa.OfflineTtsConfig(model=sherpa.OfflineTtsModelConfig(vits=vits, num_threads=1), silence_scale=1.0)
        assert config.validate()
        return sherpa.OfflineTts(config)

    texts = demo_sentences()[:8]
    still, lively = load(0.0, 0.0, 1 / 0.8), load(0.667, 0.8, 1.0)
    assert (still.sample_rate, still.num_speakers) == (16000, 4)
    for number, speaker in ((0, "asha"), (3, "mira")):
        made = np.array(still.generate(texts[0], sid=number).samples, np.float32)
        ours = voice.say(texts[0], speaker, noise_scale=0, noise_scale_duration=0, speaking_rate=0.8, seed=0)[0]
        assert made.shape == ours.shape and np.abs(made - ours).max() < 1e-3
    quicker = len(still.generate(texts[0], sid=0, speed=1.25).samples)
    assert quicker == len(voice.say(texts[0], "asha", speaking_rate=1.25, noise_scale=0, seed=0)[0])
    theirs = [np.array(lively.generate(text, sid=2).samples, np.float32) for text in texts]
    assert retrieval(theirs, [voice.say(text, "kavi", seed=1)[0] for text in texts], 16000).rate == 1


def test_what_the_hub_lacks_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    with pytest.raises(OSError, match="could not be sent to the Hugging Face Hub .* Check the connection"):
        upload(tmp_path, "asha/first")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match="no token .* hf auth login"):
        upload(tmp_path, "asha/first")


def test_without_the_packages_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else sys)
    with pytest.raises(ValueError, match="pip install onnx$"):
        export("compact", tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()
