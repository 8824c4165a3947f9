"""`python tests/bench_speech.py FOLDER [ROUNDS] [THREADS]`: how soon a voice is heard and how long a sentence takes; 7 and 2.

A voice of MMS's full size with random weights says 60 characters, about 4.1 s; transformers' VitsModel, Vaani whole and in
pieces, ONNX Runtime, and other decoders (bfloat16, int8, compiled) one after another in each round, medians of all rounds.
Then the compact voice. Prints a table, with what each way changes in the sound, and writes FOLDER/bench_speech.json. On a
machine that others use as well, threads wait for each other: one thread and the processor's time, which is what it would take
on a free core, say more there.
"""
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from other_decoders import compiled, in_bfloat16, in_int8, speak
from transformers import VitsConfig, VitsModel

from vaani_lib.base import Base, compact_tokenizer
from vaani_lib.decoder import store_for_speech
from vaani_lib.demo import demo_sentences
from vaani_lib.metrics import mel_cepstral_distortion
from vaani_lib.onnx_file import INPUTS, write_onnx
from vaani_lib.vits import initialise
from vaani_lib.voice import Voice

CHARACTERS, SECONDS = 60, 4.1
TEXT = " ".join(sentence.strip(".?!") for sentence in demo_sentences()[:3])[:CHARACTERS]


def full_size() -> Base:
    """facebook/mms-tts-*'s shape, which is transformers' default, as VITS's authors start it, at a usual speed."""
    tokenizer = compact_tokenizer()
    torch.manual_seed(0)
    model = VitsModel(VitsConfig(vocab_size=len(tokenizer))).eval()
    initialise(model)
    base = Base(model, tokenizer, ("speaker",))
    made = Voice(model, tokenizer, base.speakers).say(TEXT, seed=0)
    model.speaking_rate = model.config.speaking_rate = len(made[0]) / made[1] / SECONDS
    return base


def by_transformers(base: Base) -> np.ndarray:
    """As `VitsModel` alone would say it."""
    torch.manual_seed(0)
    with torch.no_grad():
        return base.model(**base.tokenizer(TEXT, return_tensors="pt")).waveform[0].numpy()


def by_onnxruntime(base: Base, folder: Path) -> Callable[[], np.ndarray]:
    """The exported file, without noise: it draws its own."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(write_onnx(base, folder), options, providers=["CPUExecutionProvider"])
    ids = base.tokenizer(TEXT, return_tensors="np").input_ids
    values = [ids, [ids.shape[1]], [base.model.noise_scale], [1 / base.model.speaking_rate], [base.model.noise_scale_duration]]
    kinds = (np.int64, np.int64, *[np.float32] * 3)
    given = {name: np.array(value, kind) for name, value, kind in zip(INPUTS, values, kinds)}
    return lambda: session.run(None, given)[0].ravel()


def clocks() -> np.ndarray:
    """Seconds of the wall and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def in_pieces(voice: Voice) -> tuple[np.ndarray, np.ndarray]:
    """The sound, and after how many seconds its first piece was there."""
    begun, pieces, first = clocks(), [], None
    for piece in voice.stream(TEXT, seed=0):
        pieces.append(piece)
        first = clocks() - begun if first is None else first
    return np.concatenate(pieces), first


def measure(ways: dict[str, Callable], rounds: int, rate: int, reference: np.ndarray) -> dict[str, dict]:
    """Each way once a round, after a round that does not count."""
    runs, apart = {name: [] for name in ways}, {}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begun = clocks()
            made = way()
            took = clocks() - begun
            wav, first = made if isinstance(made, tuple) else (made, took)
            if number:
                runs[name].append((*first, *took, len(wav) / rate))
            elif wav.shape == reference.shape:
                difference = float(np.abs(wav - reference).max() / np.abs(reference).max())
                apart[name] = {"difference": difference, "distortion (dB)": mel_cepstral_distortion(wav, reference, rate)}
    return {name: row(runs[name]) | apart.get(name, {}) for name in ways}


def row(runs: list[tuple]) -> dict:
    first, first_used, whole, used, sound = (statistics.median(column) for column in zip(*runs))
    return {"first sound (ms)": 1000 * first, "processor (ms)": 1000 * first_used, "whole (s)": whole, "processor (s)": used,
            "sound (s)": sound, "real-time factor": whole / sound, "of the processor": used / sound}


def otherwise(voice: Voice, folder: Path) -> dict[str, Callable]:
    """All before the decoder as ever, and then another's."""
    decoders = {"bfloat16 decoder": in_bfloat16(voice), "int8 decoder, dynamic": in_int8(voice, folder, static=False),
                "int8 decoder, static": in_int8(voice, folder, static=True), "compiled decoder": compiled(voice, TEXT)}
    return {name: partial(speak, voice, decoder, TEXT) for name, decoder in decoders.items() if decoder is not None}


def bench(folder: Path, rounds: int) -> dict[str, dict]:
    base = full_size()
    plain = copy.deepcopy(base)  # weights in memory as transformers has them
    voice = Voice(store_for_speech(base.model), base.tokenizer, base.speakers)
    ways = {"transformers": lambda: by_transformers(plain), "Vaani, whole": lambda: voice.say(TEXT, seed=0)[0],
            "Vaani, in pieces": lambda: in_pieces(voice), "ONNX Runtime": by_onnxruntime(plain, folder), **otherwise(voice, folder)}
    found = measure(ways, rounds, 16000, by_transformers(plain))
    small = Voice.load("compact")
    ways = {"whole": lambda: small.say(TEXT, seed=0)[0], "in pieces": lambda: in_pieces(small), **otherwise(small, folder)}
    found |= measure({f"compact, {name}": way for name, way in ways.items()}, rounds, 16000, small.say(TEXT, seed=0)[0])
    return found | {"load": os.getloadavg()[0], "threads": torch.get_num_threads(), "characters": len(TEXT), "rounds": rounds}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else 2)
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    found = bench(place, int(sys.argv[2]) if len(sys.argv) > 2 else 7)
    (place / "bench_speech.json").write_text(json.dumps(found, indent=2) + "\n")
    rows = {name: value for name, value in found.items() if isinstance(value, dict)}
    columns = list(next(iter(rows.values())))
    print(f"{'':31}", *(f"{column:>17}" for column in columns))
    for name, values in rows.items():
        shown = {c: "" if c not in values else f"{values[c]:.1e}" if c == "difference" else f"{values[c]:.3f}" for c in columns}
        print(f"{name:31}", *(f"{shown[column]:>17}" for column in columns))
    print(*(f"{name}: {value:.3g}" for name, value in found.items() if name not in rows), sep="\n")
