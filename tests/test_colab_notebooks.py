"""The notebooks in a stand-in for Colab: its package, its mount, its shell; no network and no browser."""
import json
import os
import shutil
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import google.protobuf  # so that there is a package google, as there is in Colab
import IPython
import pytest
from forms import fill_in
from IPython.core.inputtransformer2 import TransformerManager
from tiny_voice import make_recordings, make_voice, narrow_discriminators

import drive_sync
import vaani_lib.training  # noqa: F401 - what it needs is loaded before the stand-in stands, for the tests after these
from drive_sync.mounts import mounts
from vaani_lib.compare import overview
from vaani_lib.dashboard import Dashboard
from vaani_lib.decisions import REJECTED
from vaani_lib.demo import demo_sentences, make_corpus
from vaani_lib.places import find_runs
from vaani_lib.watching import Epoch

REPO = Path(__file__).resolve().parents[1]


class Shell:
    """Stands in for a kernel of Colab: shell lines are noted, not run."""

    def __init__(self):
        self.lines: list[str] = []

    def __str__(self) -> str:
        return "<google.colab._shell.Shell object>"

    def system(self, line: str) -> None:
        self.lines.append(line)


class Drive:
    """google.colab.drive over a folder, which is elsewhere while it is not mounted: `refuse` is raised instead of mounting."""

    def __init__(self, point: Path, table: Path):
        self.point, self.table, self.refuse = point, table, None
        self.cloud = point.with_name("cloud")
        (self.cloud / "MyDrive").mkdir(parents=True)

    def mount(self, mountpoint: str, force_remount: bool = False) -> None:
        if self.refuse:
            raise self.refuse
        assert mountpoint == str(self.point)
        self.cloud.rename(self.point)
        self.table.write_text(f"drive {self.point} fuse.drive rw 0 0\n")

    def flush_and_unmount(self, timeout_ms: int = 0) -> None:
        self.point.rename(self.cloud)
        self.table.write_text("")


class Colab:
    """What the cells of a notebook find; `run` runs them, `places` moves Colab's folders into the test's."""

    def __init__(self, content: Path, shell: Shell, drive: Drive):
        self.shell, self.drive, self.names = shell, drive, {"__name__": "__main__"}
        self.places = {"/content": str(content), "/tmp/kept.txt": str(content / "kept.txt")}

    def run(self, notebook: str, until: str | None = None, **form: object) -> None:
        """Runs all cells, or those up to the line that holds `until`, with values in their form fields."""
        cells = json.loads((REPO / f"nbs/{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
        for code in ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]:
            lines = code.splitlines()
            last = next((number for number, line in enumerate(lines) if until and until in line), None)
            code = TransformerManager().transform_cell("\n".join(lines[: None if last is None else last + 1]))
            for old, new in self.places.items():
                code = code.replace(old, new)
            exec(compile(fill_in(code, **form), notebook, "exec"), self.names)
            if last is not None:
                return
        assert until is None, f"{notebook} has no line with {until}"


@pytest.fixture
def colab(tmp_path, monkeypatch) -> Colab:
    content, table, shell = tmp_path / "content", tmp_path / "mounts", Shell()
    content.mkdir()
    table.write_text("/dev/sda1 / ext4 rw 0 0\n")
    drive = Drive(content / "drive", table)
    package = types.ModuleType("google.colab")
    package.__spec__ = ModuleSpec("google.colab", None)
    package.drive, package.output, package.files = drive, types.ModuleType("output"), types.ModuleType("files")
    monkeypatch.setattr(google, "colab", package, raising=False)
    monkeypatch.setitem(sys.modules, "google.colab", package)
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    monkeypatch.setattr(mounts, "__defaults__", (str(table),))
    for module in ("drive_sync.colab", "drive_sync.mounts", "vaani_lib.places"):
        monkeypatch.setattr(f"{module}.COLAB_DRIVE", drive.point)
    monkeypatch.setattr(find_runs, "__defaults__", (tmp_path / "copies", *find_runs.__defaults__[1:]))
    monkeypatch.setattr(drive_sync.mount, "__defaults__", (drive.point, *drive_sync.mount.__defaults__[1:]))
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260801")
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = Colab(content, shell, drive)
    found.names["get_ipython"] = lambda: shell
    return found


def test_training_runs_to_the_mount_and_keeps_to_colab_s_folders(colab, capsys):
    colab.run("training", until="drive = drive_sync.mount(")
    assert colab.names["drive"] == colab.drive.point / "MyDrive"
    assert colab.names["work"] == colab.drive.point.parent / "vaani_work", "on the machine's own disk"
    assert [line.split()[:2] for line in colab.shell.lines] == [["git", "clone"], ["pip", "install"]]
    kept = Path(colab.places["/tmp/kept.txt"])
    assert str(kept) in colab.shell.lines[1] and "numpy==" in kept.read_text(), "what Colab has stays as it is"
    loud = "THERE IS NO GPU HERE" in str(colab.names.get("words"))
    assert loud == (colab.names["runtime"].device == "cpu")


def test_training_says_what_to_do_when_drive_is_refused(colab):
    colab.drive.refuse = type("MessageError", (Exception,), {})("credential propagation was unsuccessful")
    with pytest.raises(drive_sync.DriveUnavailable, match="declined in the dialog. Run this cell again"):
        colab.run("training", until="drive = drive_sync.mount(")


def test_data_checks_keeps_decisions_on_drive_and_says_when_it_has_gone(colab, tmp_path):
    make_corpus(tmp_path / "recordings", sentences=demo_sentences()[:12])
    clean = colab.drive.point / "MyDrive" / "clean"
    # the form field reads as a person writes it; its folder is that of the stand-in
    colab.places["startswith(\"/content/drive\")"] = f"startswith({str(colab.drive.point)!r})"
    colab.run("data_checks", until="review = Review(", DATA_DIR=str(tmp_path / "recordings"), CLEAN_SET=str(clean))
    review = colab.names["review"]
    review.list.value = list(review.lists)[-1]
    first = review.file
    review.buttons["reject"].click()
    assert json.loads((clean / "decisions.json").read_text())["steps"][0] == {
        "file": first, "sha256": review.decisions.sha(first), "row": review.decisions.rows[first], "verdict": REJECTED, "text": None}
    colab.drive.table.write_text("")  # the mount has gone
    before, shown = os.listdir(clean), review.file
    review.buttons["reject"].click()
    assert "This was NOT kept" in review.status.value and "nothing is mounted at" in review.status.value
    assert review.file == shown and os.listdir(clean) == before


class Disconnected(BaseException):
    """Colab takes the machine: no code of Vaani's hears of it."""


def test_a_training_goes_on_from_drive_after_a_disconnect_and_is_compared_and_heard_from_there(colab, tmp_path, monkeypatch, capsys):
    narrow_discriminators(monkeypatch.setattr)
    make_recordings(tmp_path)
    form = {"DATA_DIR": str(tmp_path / "recordings"), "BASE": str(make_voice(tmp_path / "base")), "EPOCHS": 2}
    work, published = colab.drive.point.with_name("vaani_work"), "MyDrive/vaani/first-voice"

    def lose_the_machine(board: Dashboard, epoch: Epoch) -> None:
        board.folder.settle()
        assert board.folder.publisher.drain(60)
        raise Disconnected

    with monkeypatch.context() as first_life:
        first_life.setattr(Dashboard, "on_epoch", lose_the_machine)
        first_life.setattr(drive_sync.Lease, "release", lambda lease: None)
        with pytest.raises(Disconnected):
            colab.run("training", **form)
    assert "Starting first-voice" in capsys.readouterr().out and (work / "runs/first-voice/checkpoints").is_dir()
    shutil.rmtree(work)
    colab.drive.flush_and_unmount()
    colab.names.clear()
    colab.names |= {"__name__": "__main__", "get_ipython": lambda: colab.shell}

    colab.run("training", **form)
    said = capsys.readouterr().out
    assert "Going on with first-voice" in said and "from the checkpoint of epoch 1, step 1 in the Drive folder" in said, said
    assert "Finished after 2 epochs, 2 steps" in said and "was training this run and is told" in said, said
    run = json.loads((colab.names["run"] / "run.json").read_text())
    assert run["progress"]["epoch"] == 2 and colab.names["run"] == work / "runs/first-voice"
    assert not colab.drive.point.exists() and (colab.drive.cloud / published).is_dir(), "a finished run unmounts its Drive"

    shutil.rmtree(work)
    colab.run("experiments", RUNS="everywhere")
    assert list(colab.names["compared"].curves) == ["first-voice"] and "first-voice" in colab.names["row"].page()
    assert [row["where"] for row in overview(colab.names["compared"]).rows] == ["Drive"]
    colab.run("voice_tuning", VOICE=str(colab.drive.point / published), EXPORTS=str(tmp_path / "spoken"))
    panel = colab.names["panel"]
    assert any(label.startswith("first-voice: best, epoch") for label in panel.voices.choices), list(panel.voices.choices)
