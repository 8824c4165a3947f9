"""A run that nothing happened to, and in what another one differs from it."""
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import tiny_voice
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny_voice import STEPS

from drive_sync import Store
from vaani_lib import training
from vaani_lib.base import folded_weights
from vaani_lib.epoch_voices import EPOCH, gap
from vaani_lib.runs import read_curves
from vaani_lib.trainer import Trainer


class Whole:
    """The run that nothing happened to, and what others are measured by."""

    def __init__(self, folder: Path, epochs: int, **settings):
        self.base, self.data = tiny_voice.make_voice(folder / "base"), tiny_voice.make_recordings(folder)
        self.steps, self.settings = STEPS * epochs, tiny_voice.settings(self.base, epochs, **settings)
        self.voices: dict[int, dict] = {}  # step of each epoch's end -> weights
        with self._keeping_voices():
            self.run = self.train(folder / "whole", None)
        self.curves, self.samples, problems = self._history(self.run)
        assert not problems, problems
        kept = [snapshot.epoch for snapshot in Store(self.run / "checkpoints").snapshots(EPOCH)]
        assert kept == [epoch for epoch in range(1, epochs + 1) if epoch % gap(epochs) == 0], kept
        self.record = json.loads((self.run / "run.json").read_text())

    def train(self, output: Path, drive: Path | None, take_over: bool = False, max_steps: int | None = None,
              say: Callable[[str], object] = print) -> Path:
        """The call that every life makes. On another machine a person knows that the last one is gone."""
        settings = replace(self.settings, max_steps=max_steps)
        return training.train(settings, self.data, output, "run", drive, 0, take_over, say=say)

    @contextmanager
    def _keeping_voices(self) -> Iterator[None]:
        evaluate = Trainer.evaluate

        def keeping(trainer, *arguments):
            weights = folded_weights(trainer.task.model)
            self.voices[trainer.progress.step] = {name: tensor.detach().clone() for name, tensor in weights.items()}
            return evaluate(trainer, *arguments)

        Trainer.evaluate = keeping
        try:
            yield
        finally:
            Trainer.evaluate = evaluate

    @staticmethod
    def _history(run: Path) -> tuple[dict[tuple[str, int], float], dict[str, bytes], list[str]]:
        """Every point of every curve but the clock's, every sample, and what could not be read."""
        curves, problems = read_curves(run)
        points = {(tag, step): value for tag, curve in curves.items() if tag not in ("Training/step_time", "Training/loading_share")
                  for step, value in zip(curve.steps.tolist(), curve.values.tolist())}
        return points, {file.name: file.read_bytes() for file in (run / "samples").glob("*")}, problems

    def differences(self, run: Path, step: int | None = None) -> list[str]:
        """In what a run that has come to `step` (None: to its end) is not this one: voices, curves, samples, record."""
        step = self.steps if step is None else step
        record = json.loads((run / "run.json").read_text())
        ours, theirs = (one["settings"] | {"max_steps": None} for one in (record, self.record))
        found = [f"run.json: {key}" for key in theirs if ours[key] != theirs[key]]
        found += ["run.json: data"] if record["data"] != self.record["data"] else []
        if record["progress"]["step"] != step:
            found.append(f"run.json is of step {record['progress']['step']}")
        if step == self.steps:
            found += [f"run.json: {key}" for key in ("progress", "best") if record[key] != self.record[key]]
            found += self._other_voice(run / "last", [step])
        if record["best"]:
            # or one from the future: of an epoch that ended before the machine did, but did not come to its checkpoint
            found += self._other_voice(run / "best", [record["best"]["step"], *(at for at in self.voices if at > step)])
        for kept in Store(run / "checkpoints").snapshots(EPOCH):  # also one from the future
            found += self._other_voice(kept.path, [kept.step])
        curves, samples, problems = self._history(run)
        found += problems if step == self.steps else []  # while a run goes on, its newest event file has no end
        expected = {point: value for point, value in self.curves.items() if point[1] <= step}
        found += [f"{tag} at step {at}" for tag, at in sorted(expected.keys() | curves.keys())
                  if expected.get((tag, at)) != curves.get((tag, at))]
        # a life that was killed at an epoch's end may have left samples, which are spoken again
        names = self.samples if step == self.steps else [
            name for name in self.samples if int(name.removeprefix("validation_e")[:4]) * STEPS <= step]
        return found + [name for name in names if samples.get(name) != self.samples[name]]

    def _other_voice(self, folder: Path, steps: list[int]) -> list[str]:
        """What keeps a voice's folder, in its precision, from being the voice at one of these steps."""
        try:
            found = load_file(folder / "model.safetensors")
        except (OSError, SafetensorError) as error:
            return [f"{folder.name}/: {error}"]
        if any(found.keys() == self.voices[step].keys() and all(found[name].equal(tensor.to(found[name].dtype)) for
                                                                 name, tensor in self.voices[step].items()) for step in steps):
            return []
        return [f"{folder.name}/ is not the voice of step {steps[0]}"]
