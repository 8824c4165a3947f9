"""The tuning panel without a browser: voices of a real run, here and on Drive; clicks that leave nothing behind."""
import gc
import threading
import tracemalloc

import ipywidgets
import numpy as np
import pytest
from tiny_voice import STEPS, make_recordings, make_voice, narrow_discriminators, settings

from vaani_lib.choices import list_voices
from vaani_lib.panel import Panel
from vaani_lib.training import train

SAID = {"text": "કેમ છો? આજે સવારે.", "seed": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two epochs of a tiny voice, with a Drive folder."""
    folder = tmp_path_factory.mktemp("tuning")
    with pytest.MonkeyPatch.context() as patch:
        narrow_discriminators(patch.setattr)
        base, prepared = make_voice(folder / "base"), make_recordings(folder)
        train(settings(base, epochs=2, device="cpu", precision="fp32"), prepared, folder / "runs", "a", folder / "drive")
    return folder


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    """But for rounding: weight norm is folded in one of them and not in the other."""
    return len(a) == len(b) and np.allclose(a, b, atol=1e-5)


def test_every_voice_of_a_run_can_be_heard_here_and_from_drive(run):
    here, there = (list_voices(run / place / "a") for place in ("runs", "drive"))
    kinds = [choice.label.removeprefix("a: ").split(" ")[0].rstrip(",:") for choice in here]
    assert kinds[:2] == ["best", "last"] and kinds[-1] == "base" and kinds.count("checkpoint") == 2, here
    heard = {choice.label: choice.load().say(**SAID)[0] for choice in here}
    newest = next(choice.label for choice in here if choice.label.startswith(f"a: checkpoint, epoch 2, step {2 * STEPS}"))
    assert alike(heard["a: last"], heard[newest]), "the last voice is that of the newest checkpoint"
    assert not alike(heard["a: last"], heard[here[-1].label]), "and no longer that of the base"
    fetched = {choice.label: choice.load().say(**SAID)[0] for choice in there}
    assert np.array_equal(fetched[newest], heard[newest]) and any(label.startswith("a: best") for label in fetched)
    best = next(wav for label, wav in heard.items() if label.startswith("a: best"))
    assert np.array_equal(best, next(wav for label, wav in fetched.items() if label.startswith("a: best")))


def counts() -> tuple[int, int]:
    gc.collect()
    return threading.active_count(), sum(issubclass(type(thing), ipywidgets.Widget) for thing in gc.get_objects())


def test_fifty_clicks_leave_neither_threads_nor_widgets_nor_memory(run):
    panel = Panel(run / "runs" / "a", text="કેમ છો?", exports=run / "spoken")

    def click(times: int) -> None:
        for number in range(times):
            panel.controls.widgets["seed"].value = number
            panel.buttons["speak"].click()
            if number % 10 == 9:  # the others are overtaken, as when someone is impatient
                assert panel.worker.wait(60)
        assert panel.worker.wait(60) and "s of sound" in panel.stage.status.value, panel.stage.status.value

    click(10)  # caches fill
    before = counts()
    tracemalloc.start()
    click(10)
    gc.collect()
    start = tracemalloc.get_traced_memory()[0]
    click(50)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert counts() == before
    assert grown < 300_000, f"{grown} bytes after 50 clicks, 10 of them spoken; keeping what those showed takes 500 thousand"
