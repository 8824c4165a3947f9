"""The same voice by ESPnet, with Coqui's HiFi-GAN, and by Vaani: run by `make parity`, which installs both; `--record` for the tests."""
import argparse
import json
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import torch
from espnet2.bin.tts_inference import Text2Speech
from published_voice import SOUND, make_voice, weights
from TTS.vocoder.models.hifigan_generator import HifiganGenerator

from vaani_lib.hifigan import MEL_FACTOR
from vaani_lib.script import sentences
from vaani_lib.text import spoken
from vaani_lib.voice import Voice

RECORDED = Path(__file__).parent / "data" / "fastspeech2_espnet.npz"
TEXTS = ("કેમ છો", "આજે સવારે, ખૂબ ઠંડી હતી; પણ અમે ફરવા ગયા.", "12.5 અને 1,234 વચ્ચે ઘણો ફરક છે, તરત ગણો.")
ALPHAS = (1.0, 1.2, 0.8)
CLOSE = 1e-4
SAMPLES = 1000  # of the sound that is recorded


def of_espnet(folder: Path) -> Text2Speech:
    """The voice by the published program's own call; the weights that ESPnet keeps beside ours are made as well."""
    how = {"train_config": str(folder / "config.yaml"), "device": "cpu"}
    state = Text2Speech(**how).model.state_dict()
    own = {name: tensor for name, tensor in state.items() if not name.startswith("tts.")}
    torch.save(own | weights({k: v for k, v in state.items() if k.startswith("tts.")}), folder / "model.pth")
    made = Text2Speech(model_file=str(folder / "model.pth"), **how)
    made.vocoder = None  # Griffin-Lim, which nobody here listens to
    return made


def of_jik876(folder: Path) -> HifiganGenerator:
    """Coqui's generator, which keeps jik876's layers and their names, with the published weights as they are."""
    told = json.loads((folder / "config.json").read_text())
    generator = HifiganGenerator(
        told["num_mels"], 1, told["resblock"], told["resblock_dilation_sizes"], told["resblock_kernel_sizes"],
        told["upsample_kernel_sizes"], told["upsample_initial_channel"], told["upsample_rates"])
    generator.load_state_dict(torch.load(folder / "generator", weights_only=True)["generator"])
    return generator.eval()


def compare(rate: int, thin: bool) -> dict[str, np.ndarray]:
    """Prints the largest differences; what ESPnet made of the first text. AssertionError where it is not the same."""
    checkout = Path(tempfile.mkdtemp())
    folder = make_voice(checkout, rate, thin)
    theirs, voice, recorded, worst = of_espnet(folder), Voice.load(folder), {}, {}
    generator = of_jik876(checkout / "vocoder/female" / ("aryan/hifigan" if rate == 22050 else "gujarati_latest"))
    for text, alpha in product(TEXTS, ALPHAS):
        (cut,) = sentences(text, lambda part: spoken(part, voice.tokenizer))
        ids = voice._line(cut).ids
        written = "".join(" " if i in (1, 2) and rate == 48000 or i == 1 else voice.tokenizer.tokens[i] for i in ids)
        assert theirs.preprocess_fn("", {"text": written})["text"].tolist() == ids, "other tokens"
        made = theirs(written, decode_conf={"alpha": alpha})
        with torch.no_grad():
            mel, frames = voice.model.acoustic(torch.tensor(ids), torch.full((len(ids),), alpha))
        assert len(mel) == len(made["feat_gen"]) == frames.sum(), (len(mel), len(made["feat_gen"]))
        found = {"mel": (mel, made["feat_gen"])}
        if alpha == 1:
            with torch.no_grad():
                wav = voice.model(ids, np.ones(len(ids)))[0]
                found["sound"] = wav, generator(MEL_FACTOR * made["feat_gen_denorm"].T[None])[0, 0]
        worst |= {name: max(worst.get(name, 0.0), difference(*pair)) for name, pair in found.items()}
        if not recorded:
            (_, mel), (_, wav) = found["mel"], found["sound"]
            recorded = {"ids": np.array(ids), "frames": frames.numpy(), "mel": mel.numpy(), "sound": wav[:SAMPLES].numpy()}
    size = sum(p.numel() for p in voice.model.acoustic.parameters())
    said = ", ".join(f"{name} {value:.1e}" for name, value in worst.items())
    print(f"{rate} Hz, {size:,} weights, {len(TEXTS)} texts at {len(ALPHAS)} paces: lengths equal; largest difference {said}")
    assert max(worst.values()) < CLOSE, worst
    return recorded


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return float((ours - theirs).abs().max())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write {RECORDED.name} anew")
    args = parser.parse_args()
    for rate, thin in product(SOUND, (False, True)):
        recorded = compare(rate, thin)
        if args.record and thin and rate == 22050:
            RECORDED.parent.mkdir(exist_ok=True)
            np.savez_compressed(RECORDED, **recorded)
