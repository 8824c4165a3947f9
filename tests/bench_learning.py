"""`python tests/bench_learning.py FOLDER [STEPS] [SEEDS]`: whether Vaani's step teaches what the step written plainly teaches; 300 and 2.

A compact voice from scratch learns the human clips of LJ Speech (../shared/data, or VAANI_SHARED_DATA) twice for each seed, with
the same batches and random numbers: by Vaani's trainer, and by `plain_step`, whose discriminators learn first and whose
generator then learns from what they have become, whose gradients are cut to a norm of 1, and whose AdamW has PyTorch's epsilon, as
finetune-hf-vits has it. Prints the losses of the clips that were kept aside, six times along the way, and what
share of a step's time Vaani waits for its data. Two seeds of the same step say how large a difference is noise.
Writes FOLDER/bench_learning.json.
"""
import os
import statistics
import sys
import tempfile
from pathlib import Path

from vaani_lib.base import compact_base
from vaani_lib.config import TrainSettings, write_json
from vaani_lib.corpus import PreparedSet, prepare
from vaani_lib.display import Table
from vaani_lib.layouts import read_corpus
from vaani_lib.plain_step import PlainStep, plain_step, precomputed
from vaani_lib.recipes import VitsTask, vits_data
from vaani_lib.stepper import seed_everything
from vaani_lib.trainer import Callback, Trainer

SHARED = Path(os.environ.get("VAANI_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
LOOKS, SHOWN = 6, ("reconstruction", "kl_divergence", "duration", "feature_matching")


class Looks(Callback):
    """The validation losses along the way, and how long each step waited for its data."""

    def __init__(self, valid: list, every: int):
        self.valid, self.every, self.found, self.waited = valid, every, [], []

    def on_step(self, trainer, log):
        self.waited.append(log["Training/loading_share"])
        if trainer.progress.step % self.every == 0:
            self.found.append(trainer.evaluate(self.valid))


def train(prepared: PreparedSet, seed: int, steps: int, plain: bool) -> Looks:
    """One run from scratch; with `plain`, by the plain step."""
    settings = TrainSettings(base="scratch", freeze=(), learning_rate=2e-4, batch_size=4, grad_accum=1, epochs=10**6, max_steps=steps, seed=seed)
    base = compact_base(tuple(prepared.speakers), seed)
    trainer = Trainer(VitsTask(base, settings), settings)
    data = vits_data(prepared, base, {name: i for i, name in enumerate(prepared.speakers)}, settings)
    looks = Looks(data.valid(), steps // LOOKS)
    if not plain:
        trainer.fit(data, [looks])
        return looks
    trainer.task.train(True)
    step, done = PlainStep(trainer.task), trainer.progress
    while not trainer.finished:
        for clips in data.epoch(done.epoch)[: steps - done.step]:
            (batch,) = data.load(clips)
            seed_everything(seed, done.step, 0)
            plain_step(step, batch, precomputed(batch))
            done.step += 1
            if done.step % looks.every == 0:
                looks.found.append(trainer.evaluate(looks.valid))
        done.epoch += 1
    return looks


def main(folder: Path, steps: int = 300, seeds: int = 2) -> None:
    recordings = SHARED / "en_ljspeech32"
    if not recordings.is_dir():
        print(f"Not compared: there are no human recordings at {recordings}; VAANI_SHARED_DATA may name another place.")
        return
    with tempfile.TemporaryDirectory() as place:
        prepared = prepare(read_corpus(recordings), Path(place) / "prepared")
        runs = {f"{name}, seed {seed}": train(prepared, seed, steps, name == "plain") for seed in range(seeds) for name in ("vaani", "plain")}
    for loss in SHOWN:
        print(f"validation {loss}")
        print(Table([{"": name, **{f"step {(i + 1) * run.every}": f"{found[loss]:.3f}" for i, found in enumerate(run.found)}} for name, run in runs.items()]))
    waited = {name: statistics.mean(run.waited) for name, run in runs.items() if run.waited}
    print("waited for data, of the time:", ", ".join(f"{name}: {share:.2%}" for name, share in waited.items()))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "bench_learning.json", {"losses": {name: run.found for name, run in runs.items()}, "waited": waited})


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
