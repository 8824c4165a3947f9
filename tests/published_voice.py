"""A voice as FastSpeech2_HS publishes it, with weights that follow from their names: the same wherever they are made."""
import json
import zlib
from pathlib import Path

import numpy as np
import torch
import yaml
from transformers import FastSpeech2ConformerHifiGan

from vaani_lib.fastspeech2 import FastSpeech2
from vaani_lib.hifigan import vocoder_config
from vaani_lib.indic_voices import shape_of

# of both branches, from their config.yaml; `tiny` keeps the layers and makes them thin
TTS = dict(adim=384, aheads=2, elayers=4, eunits=1536, dlayers=4, dunits=1536, positionwise_layer_type="conv1d",
           positionwise_conv_kernel_size=3, duration_predictor_layers=2, duration_predictor_chans=256,
           duration_predictor_kernel_size=3, postnet_layers=5, postnet_filts=5, postnet_chans=256, use_masking=True,
           use_scaled_pos_enc=True, encoder_normalize_before=True, decoder_normalize_before=True, reduction_factor=1,
           pitch_predictor_layers=5, pitch_predictor_chans=256, pitch_predictor_kernel_size=5,
           pitch_embed_kernel_size=1, pitch_embed_dropout=0.0, energy_predictor_layers=2, energy_predictor_chans=256,
           energy_predictor_kernel_size=3, energy_embed_kernel_size=1, energy_embed_dropout=0.0)
MELS = 20  # of a thin voice
THIN = dict(adim=16, eunits=24, dunits=24, duration_predictor_chans=8, postnet_chans=12, pitch_predictor_chans=8,
            energy_predictor_chans=8)
TOKENS = ("<blank>", "<unk>", *"aA,ErnIkotmqwspiyuljhटgdb$.शडथCणcUधBखളPषJघठRऐऔढञHऑऍMॠ", "<sos/eos>")
SOUND = {22050: dict(fs=22050, hop_length=256, n_fft=1024, win_length=1024, fmin=0, fmax=8000, n_mels=80),
         48000: dict(fs=48000, hop_length=1024, n_fft=8192, win_length=4096, fmin=0, fmax=24000, n_mels=160)}
UPSAMPLING = {22050: ([8, 8, 2, 2], [16, 16, 4, 4]), 48000: ([8, 8, 8, 2], [16, 16, 8, 4])}


def make_config(rate: int, thin: bool) -> dict:
    """config.yaml of a voice of either branch, as far as it says anything about speaking."""
    tokens = list(TOKENS) if rate == 22050 else [*TOKENS[:2], "<space>", *TOKENS[2:]]
    plain = {name: SOUND[rate][name] for name in ("fs", "n_fft", "hop_length")}
    mels = SOUND[rate] | ({"n_mels": MELS} if thin else {})
    return {
        "token_list": tokens, "token_type": "char", "tts": "fastspeech2", "tts_conf": TTS | (THIN if thin else {}),
        "feats_extract": "fbank", "feats_extract_conf": mels, "normalize": "global_mvn",
        "pitch_extract": "dio", "pitch_extract_conf": plain | {"f0max": 400, "f0min": 80, "reduction_factor": 1},
        "energy_extract": "energy", "energy_extract_conf": plain | {"win_length": SOUND[rate]["win_length"]},
        "pitch_normalize": "global_mvn", "energy_normalize": "global_mvn", "odim": None, "model_conf": {},
        "use_preprocessor": True, "bpemodel": None, "non_linguistic_symbols": None, "cleaner": None, "g2p": None,
    }


def weights(like: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Values for the names and shapes in `like`: of a size that keeps a signal alive, tokens of about four frames."""
    made = {}
    for name, tensor in like.items():
        draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape))
        if tensor.dim() > 1:
            louder = {"tts.encoder.embed.0.weight": 4, "tts.duration_predictor.linear.weight": 0.4}.get(name, 1)
            draw = louder * draw / np.sqrt(np.prod(tensor.shape[1:]))
        elif name.endswith((".weight", ".running_var", ".alpha")):  # of norms
            draw = 1 + 0.1 * np.abs(draw)
        elif tensor.is_floating_point():
            draw = 0.1 * draw + (np.log(6) if name.endswith("duration_predictor.linear.bias") else 0)
        made[name] = torch.from_numpy(np.asarray(draw)).to(tensor.dtype)
    return made


def make_voice(checkout: Path, rate: int = 22050, thin: bool = True) -> Path:
    """A checkout with one Gujarati voice, its vocoder and its dictionary; returns the voice's folder."""
    suffix = "" if rate == 22050 else "_latest"
    folder, config = checkout / f"gujarati{suffix}/female/model", make_config(rate, thin)
    folder.mkdir(parents=True)
    for number, kind in enumerate(("feats", "pitch", "energy")):
        size, random = config["feats_extract_conf"]["n_mels"] if kind == "feats" else 1, np.random.RandomState(number)
        mean, deviation = random.uniform(-3, -1, size), random.uniform(0.3, 0.8, size)
        np.savez(folder / f"{kind}_stats.npz", count=100, sum=100 * mean, sum_square=100 * (mean**2 + deviation**2))
        config[f"{'' if kind == 'feats' else f'{kind}_'}normalize_conf"] = {"stats_file": str(folder / f"{kind}_stats.npz")}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    state = FastSpeech2(shape_of(config)).state_dict()
    torch.save(weights({f"tts.{name}": tensor for name, tensor in state.items()}), folder / "model.pth")
    make_vocoder(checkout / "vocoder/female" / ("aryan/hifigan" if rate == 22050 else "gujarati_latest"), rate, thin)
    (checkout / "phone_dict").mkdir()
    (checkout / "phone_dict/gujarati").write_text("તરત tarat\nકેમ kEm\n", encoding="utf-8")
    return folder


def make_vocoder(folder: Path, rate: int, thin: bool) -> None:
    """config.json and generator as jik876's program writes them, weight norm and all."""
    folder.mkdir(parents=True)
    rates, kernels = UPSAMPLING[rate]
    told = {"resblock": "1", "upsample_rates": rates, "upsample_kernel_sizes": kernels, "sampling_rate": rate,
            "upsample_initial_channel": 32 if thin else 512, "num_mels": MELS if thin else SOUND[rate]["n_mels"],
            "resblock_kernel_sizes": [3, 7, 11], "resblock_dilation_sizes": [[1, 3, 5]] * 3}
    (folder / "config.json").write_text(json.dumps(told))
    state = FastSpeech2ConformerHifiGan(vocoder_config(folder / "config.json")).state_dict()
    named = {}
    for name, tensor in state.items():
        name = name.replace("upsampler.", "ups.")
        if name.endswith("weight"):
            named |= {f"{name}_g": tensor.flatten(1).norm(dim=1)[:, None, None], f"{name}_v": tensor}
        elif name not in ("mean", "scale"):
            named[name] = tensor
    made = weights(named)
    for name in (name for name in made if name.endswith("weight_g")):  # a voice's level, not a square wave
        made[name] = 0.8 + 0.1 * made[name].abs() if name != "conv_post.weight_g" else torch.full_like(made[name], 0.3)
    torch.save({"generator": made}, folder / "generator")
