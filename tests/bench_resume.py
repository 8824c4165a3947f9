"""`python tests/bench_resume.py FOLDER`: what keeping a run safe costs, with a model of MMS's full size on this machine.

Trains a voice with random weights for a few steps, a checkpoint each epoch, with a plain folder as Drive; then starts
again in a new process with only that folder left. Prints the figures as a table and writes them to FOLDER/bench_resume.json.
"""
import json
import shutil
import statistics
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np

EPOCHS = 3


def mms_sized_voice(folder: Path) -> Path:
    """A voice of facebook/mms-tts-guj's architecture (36.3M parameters, text encoder 6.3M), with random weights."""
    import torch
    from transformers import VitsConfig, VitsModel

    from vaani_lib.base import compact_tokenizer, save_voice
    from vaani_lib.vits import initialise

    torch.manual_seed(0)
    tokenizer = compact_tokenizer()
    model = VitsModel(VitsConfig(vocab_size=len(tokenizer)))
    initialise(model)
    save_voice(model, tokenizer, ("speaker 0",), folder)
    return folder


def timed_session(folder: Path, epochs: int) -> dict:
    """One session: seconds from its start to its first step, of each step, and that each checkpoint held the loop up."""
    started = time.perf_counter()
    from vaani_lib import session as sessions
    from vaani_lib.config import TrainSettings
    from vaani_lib.trainer import Trainer
    from vaani_lib.training import train

    figures = {"imports": time.perf_counter() - started, "step": [], "copy": [], "blocked": []}

    def timed(function, name):
        def call(*arguments):
            begun = time.perf_counter()
            figures.setdefault("to_first_step", begun - started) if name == "step" else None
            result = function(*arguments)
            figures[name].append(time.perf_counter() - begun)
            return result

        return call

    Trainer.step = timed(Trainer.step, "step")
    sessions.capture = timed(sessions.capture, "copy")
    sessions.Session._checkpoint = timed(sessions.Session._checkpoint, "blocked")
    settings = TrainSettings(base=str(folder / "base"), batch_size=4, grad_accum=1, epochs=epochs)
    train(settings, folder / "recordings", folder / "runs", "run", folder / "drive", say=lambda words: None)
    return figures


def in_a_new_process(folder: Path, epochs: int) -> dict:
    done = subprocess.run([sys.executable, __file__, folder, str(epochs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def compression(file: Path) -> dict[str, float]:
    """Share of a checkpoint's tensors that zlib (level 1) saves, and MB/s; plain, and with the floats' bytes sorted."""
    data, found = np.fromfile(file, np.uint8), {}
    part = data[len(data) // 4 // 4 * 4:][:64 << 20]
    part = part[:len(part) // 4 * 4]
    for name, content in (("plain", part), ("bytes sorted", part.reshape(-1, 4).T)):
        content, begun = content.tobytes(), time.perf_counter()
        found[f"zlib, {name}: saves"] = 1 - len(zlib.compress(content, 1)) / len(part)
        found[f"zlib, {name}: MB/s"] = len(part) / 1e6 / (time.perf_counter() - begun)
    return found


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def bench(folder: Path) -> dict[str, float]:
    """All figures: seconds, GB, shares."""
    from vaani_lib.demo import demo_sentences, make_corpus

    shutil.rmtree(folder, ignore_errors=True)
    make_corpus(folder / "recordings", sentences=demo_sentences()[:8], voices={"asha": "gu+f2"})
    mms_sized_voice(folder / "base")
    first = in_a_new_process(folder, EPOCHS)
    newest = sorted((folder / "drive" / "run").glob(f"ckpt-e{EPOCHS:04d}-*"))[0]
    frozen = next((folder / "runs").glob("run/checkpoints/ckpt-*/frozen.safetensors")).stat().st_size
    shutil.rmtree(folder / "runs")
    again = in_a_new_process(folder, EPOCHS + 1)
    checkpoint = folder_bytes(newest)
    return {
        "checkpoint: held up (s, median)": statistics.median(first["blocked"]),
        "checkpoint: of that, the copy in memory (s, median)": statistics.median(first["copy"]),
        "checkpoint: the first copy, into new memory (s)": first["copy"][0],
        "checkpoint: held up beyond the copy (s, worst)": max(b - c for b, c in zip(first["blocked"], first["copy"])),
        "a step at batch 4 (s, median)": statistics.median(first["step"]),
        "to Drive an epoch, checkpoint (GB)": checkpoint / 1e9,
        "to Drive an epoch, best voice if it is one (GB)": folder_bytes(folder / "runs" / "run" / "best") / 1e9,
        "to Drive once a session, frozen, and a spare copy once (GB)": frozen / 1e9,
        "a plain dump of the whole state (GB)": (checkpoint + frozen) / 1e9,
        "first start: to the first step (s)": first["to_first_step"],
        "resume, only Drive left: to the first step (s)": again["to_first_step"],
        "of that, imports (s)": again["imports"],
        **compression(newest / "state.safetensors"),
    }


if __name__ == "__main__":
    place = Path(sys.argv[1])
    if len(sys.argv) == 3:
        print(json.dumps(timed_session(place, int(sys.argv[2]))))
    else:
        found = bench(place)
        (place / "bench_resume.json").write_text(json.dumps(found, indent=2) + "\n")
        print(*(f"{name:60} {value:8.2f}" for name, value in found.items()), sep="\n")
