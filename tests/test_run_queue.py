"""A queue of runs that is interrupted, moved to another machine, and has one run in it that cannot be trained."""
import signal

import pytest
from tiny_voice import STEPS, make_recordings, make_voice, narrow_discriminators, settings

from vaani_lib.places import find_runs, where
from vaani_lib.run_queue import Queue, grid, run_all
from vaani_lib.runs import read_curves
from vaani_lib.training import train
from vaani_lib.watching import Watcher

EPOCHS = 2


class Interrupt(Watcher):
    """Presses interrupt after the step `at`, as a person does in a notebook."""

    def __init__(self, at: int):
        self.at = at

    def on_step(self, progress, steps, log):
        if progress.step == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a base voice and a prepared set."""
    folder = tmp_path_factory.mktemp("queue")
    with pytest.MonkeyPatch.context() as patch:
        narrow_discriminators(patch.setattr)
        make_voice(folder / "base")
        make_recordings(folder)
        yield folder


def points(run) -> dict:
    """The curves that do not depend on the machine's speed."""
    curves = read_curves(run)[0].items()
    return {tag: (c.steps.tolist(), c.values.tolist()) for tag, c in curves if not tag.startswith("Training/")}


def results(run) -> tuple:
    """What a person keeps of a run: its curves and its voices."""
    return points(run), *((run / name / "model.safetensors").read_bytes() for name in ("best", "last"))


def test_an_interrupted_queue_goes_on_on_another_machine_to_the_same_runs(place, monkeypatch):
    said, unmounted = [], []
    monkeypatch.setattr("drive_sync.ending.on_colab", lambda: True)
    monkeypatch.setattr("drive_sync.ending.flush_and_unmount", lambda seconds: unmounted.append(there.left()))
    plan = grid(settings(place / "base", EPOCHS, device="cpu", precision="fp32"), learning_rate=[1e-3, 5e-4])
    first, second = plan
    queue = Queue(place / "a", place / "drive", said.append)
    queue.add(plan)
    assert not run_all(queue, place / "prepared", watcher=lambda: Interrupt(STEPS + 1))
    assert queue.state(first) == "begun" and queue.state(second) == "waiting" and f"Stopped in {first}" in said[-1]
    there = Queue(place / "b", place / "drive", said.append)
    assert there.plan == plan and there.left() == [first, second], "what was begun is known from Drive"
    assert not run_all(there, place / "prepared", watcher=lambda: Interrupt(1)) and there.left() == [second]
    assert unmounted == [], "the first run is finished, and the second one needs Drive"
    assert run_all(there, place / "prepared") and there.left() == []
    assert unmounted == [[]], "Drive goes with the last one"
    assert any("Going on with" in words and f"step {STEPS + 1}" in words for words in said), said
    for name, wanted in plan.items():
        alone = train(wanted, place / "prepared", place / "alone", name, say=said.append)
        assert results(place / "b" / name) == results(alone), name
    runs = find_runs([place / "b", place / "drive"])
    assert {run.name for run in runs} == set(plan) and {where(run) for run in runs} == {"here and Drive"}
    on_drive = find_runs([place / "drive"], place / "copies")
    assert [points(run.folder) for run in on_drive] == [points(run.folder) for run in runs]


def test_a_run_that_cannot_be_trained_is_noted_and_the_next_has_its_turn(place):
    said = []
    good = settings(place / "base", 1, device="cpu", precision="fp32")
    plan = grid(good, base=[str(place / "nowhere"), str(place / "base")])
    bad, fine = plan
    queue = Queue(place / "c", say=said.append)
    queue.add(plan)
    assert not run_all(queue, place / "prepared")
    assert queue.state(bad) == "failed" and queue.state(fine) == "finished" and "nowhere" in queue.failed[bad]
    make_voice(place / "nowhere", seed=1)  # what was missing is there now
    again = Queue(place / "c", say=said.append)
    assert again.left() == [bad] and run_all(again, place / "prepared") and again.failed == {}
