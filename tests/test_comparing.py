"""The panels of experiments without a browser: a real run here and on Drive; clicks that leave nothing behind."""
import gc
import shutil
import threading
import tracemalloc

import ipywidgets
import numpy as np
import pytest
from tiny_voice import make_recordings, make_voice, narrow_discriminators, settings

from vaani_lib.compare import Comparison, diagnoses, figures, overview, tensorboard_folder
from vaani_lib.curve_panel import CurvePanel
from vaani_lib.dashboard import Dashboard
from vaani_lib.notes import NOTES
from vaani_lib.places import find_runs
from vaani_lib.run_row import RunRow
from vaani_lib.run_table import RunTable
from vaani_lib.selection import Selection
from vaani_lib.training import train


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two epochs of a tiny voice, with a Drive folder, and dashboard.html: what training.ipynb shows at the end."""
    folder = tmp_path_factory.mktemp("comparing")
    board = Dashboard(show=lambda page: (folder / "dashboard.html").write_text(page, encoding="utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        narrow_discriminators(patch.setattr)
        base, prepared = make_voice(folder / "base"), make_recordings(folder)
        two = settings(base, epochs=2, device="cpu", precision="fp32")
        train(two, prepared, folder / "runs", "a", folder / "drive", watcher=board)
    return folder


def test_the_dashboard_s_last_word_is_that_drive_has_everything(place):
    page = (place / "dashboard.html").read_text(encoding="utf-8")
    assert "published and read back" in page and "behind" not in page and "is finished" in page, page[-300:]


def test_a_run_on_drive_is_compared_spoken_and_noted_like_one_that_is_here(place):
    content = {file: file.read_bytes() for file in sorted((place / "drive" / "a").rglob("*")) if file.is_file()}
    here, there = (Comparison(find_runs([place / where], place / "copies")) for where in ("runs", "drive"))
    rows = [{**compared_row, "where": ""} for compared in (here, there) for compared_row in overview(compared).rows]
    assert rows[0] == rows[1] and rows[0]["epochs"] == 2 and "cores" in rows[0]["machine"] and rows[0]["hours"] > 0
    assert figures(here).rows == figures(there).rows != []
    assert diagnoses(here).rows == diagnoses(there).rows
    for which in ("best", "last"):
        spoken = []
        for compared in (here, there):
            row = RunRow(compared, Selection(["a"]), "કેમ છો?")
            row.which.value = which
            row.button.click()
            assert row.worker.wait(60)
            spoken.append(row.heard["a"].wav)
        assert len(spoken[0]) == len(spoken[1]) and np.allclose(*spoken, atol=1e-5), which
    table = RunTable(there)
    table.text.value = "from Drive"
    table.button.click()
    assert (place / "drive" / "a" / NOTES).read_text(encoding="utf-8") == "from Drive\n"
    both = Comparison(find_runs([place / "runs", place / "drive"], place / "copies"))
    assert [row["where"] for row in overview(both).rows] == ["here and Drive"] and overview(both).rows[0]["note"] == "from Drive"
    assert content == {file: file.read_bytes() for file in content}, "what is on Drive is as it was"


def test_tensorboard_shows_the_chosen_runs_with_all_their_curves_and_samples(place, tmp_path):
    from tensorboard.backend.event_processing import plugin_event_multiplexer  # what TensorBoard reads with

    for name in ("bold", "left-out"):
        shutil.copytree(place / "runs" / "a", tmp_path / "runs" / name, ignore=shutil.ignore_patterns("checkpoints"))
    compared = Comparison(find_runs([tmp_path / "runs", place / "drive"], tmp_path / "copies"))
    board = tensorboard_folder(compared.runs, tmp_path / "board", ["a", "bold"])
    shown = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(board))
    shown.Reload()
    assert set(shown.Runs()) == {"a", "bold"} and set(compared.curves) == {"a", "bold", "left-out"}
    for name in shown.Runs():
        curves, tags = compared.curves[name], set(shown.Runs()[name]["tensors"])
        samples = {tag for tag in tags if tag.startswith("Audio/")}
        assert tags - samples == set(curves) and len(samples) == 2, tags
        points = shown.Tensors(name, "Loss/reconstruction")
        assert [point.step for point in points] == curves["Loss/reconstruction"].steps.tolist()


def counts() -> tuple[int, int]:
    gc.collect()
    return threading.active_count(), sum(issubclass(type(thing), ipywidgets.Widget) for thing in gc.get_objects())


def test_fifty_moves_and_clicks_leave_neither_threads_nor_widgets_nor_memory(place):
    compared = Comparison(find_runs([place / "runs"]))
    chosen = Selection(["a"])
    curves, row, table = CurvePanel(compared, chosen), RunRow(compared, chosen, "કેમ છો?"), RunTable(compared)

    def use(times: int) -> None:
        for number in range(times):
            curves.smoothing.value = number % 50 / 50
            row.seed.value, table.text.value = number, f"note {number}"
            row.button.click()
            table.button.click()
            if number % 10 == 9:  # the others are overtaken
                assert curves.worker.wait(60) and row.worker.wait(60)
        assert "1 of 1" in row.status.value and curves.picture.value.startswith("<img")

    use(20)  # caches fill
    before = counts()
    tracemalloc.start()
    use(10)
    gc.collect()
    start = tracemalloc.get_traced_memory()[0]
    use(50)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert counts() == before
    # matplotlib keeps the sizes of 4096 texts, 4 kB a picture; the pictures themselves would be 42 kB each
    assert grown < 400_000, f"{grown} bytes after 50 moves and clicks"
