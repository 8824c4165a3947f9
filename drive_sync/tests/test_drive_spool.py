"""The spool: what waits outlives its process, and belongs to one publisher at a time."""
import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fake_time import FakeTime
from hostile_disk import Failing, HostileDisk, contents

from drive_sync import Publisher, SpoolInUse, State, Store
from drive_sync.spool import Spool

STUCK = 30.0
SHARE = ("frozen.safetensors",)


def label(step: int) -> str:
    return f"ckpt-e{step:04d}-s{step:06d}"


@pytest.fixture
def publishing(tmp_path: Path):
    """publishing(disk) -> a publisher to the store "drive" with the folder "spool", closed at the end."""
    made = []

    def make(disk=None, time: FakeTime | None = None) -> Publisher:
        time = time or FakeTime(lambda now: made[-1]._closing.wait(0.01))
        store = Store(tmp_path / "drive", disk=disk, pause=lambda seconds: None)
        made.append(Publisher(store, tmp_path / "spool", clock=time.clock, wait=time.wait))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(STUCK)


def folders(spool: Path) -> list[str]:
    return sorted(path.name for path in spool.iterdir() if path.name != ".lock")


def test_what_waits_outlives_the_process(publishing, checkpoint, tmp_path):
    first = publishing(HostileDisk(Failing(errno.ENOTCONN)))
    for step in (1, 2):
        first.submit(checkpoint(step), label(step), share=SHARE)
    first.close(STUCK)
    (tmp_path / "spool" / "000009-ckpt-e1-s1.part" / "files").mkdir(parents=True)  # killed while handing over
    second = publishing()
    assert second.drain(STUCK)
    assert [snapshot.step for snapshot in Store(tmp_path / "drive").snapshots()] == [1, 2]
    assert folders(tmp_path / "spool") == []


def test_an_entry_that_was_half_discarded_is_gone(checkpoint, tmp_path, monkeypatch):
    spool = Spool(tmp_path / "spool")
    entry = spool.add(checkpoint(1), label(1), ())
    with monkeypatch.context() as killed:
        killed.setattr("drive_sync.spool.shutil.rmtree", lambda *arguments, **settings: None)
        entry.discard()
    spool.release()
    assert list(Spool(tmp_path / "spool").left_over()) == []
    assert folders(tmp_path / "spool") == []


@pytest.mark.parametrize("text", [b"", b'{"label": "ckpt-e', b"[]", b'{"label": 3, "share": []}'])
def test_an_entry_that_a_power_cut_damaged_does_not_stop_the_next_start(publishing, checkpoint, tmp_path, text):
    first = publishing(HostileDisk(Failing(errno.ENOTCONN)))
    for step in (1, 2):
        first.submit(checkpoint(step), label(step))
    first.close(STUCK)
    (tmp_path / "spool" / folders(tmp_path / "spool")[0] / "item.json").write_bytes(text)
    assert publishing().drain(STUCK)
    assert [snapshot.step for snapshot in Store(tmp_path / "drive").snapshots()] == [2]


def test_what_the_local_disk_stumbles_over_is_kept_for_another_day(publishing, checkpoint, tmp_path, monkeypatch):
    first = publishing(HostileDisk(Failing(errno.ENOTCONN)))
    first.submit(checkpoint(1), label(1))
    first.close(STUCK)

    def stumbles(path: Path, **settings) -> str:
        raise OSError(errno.EIO, "EIO")

    with monkeypatch.context() as today:
        today.setattr("drive_sync.spool.Path.read_text", stumbles)
        publishing().close(STUCK)
    assert publishing().drain(STUCK)
    assert len(Store(tmp_path / "drive").snapshots()) == 1


def test_a_persons_own_folders_are_not_touched(tmp_path):
    for name in ("wedding photos", "2024-runs", "ckpt-e0001-s000001-aaa-g1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("mine")
    spool = Spool(tmp_path)
    assert list(spool.left_over()) == []
    spool.release()
    assert sorted(path.name for path in tmp_path.glob("*/file")) == ["file"] * 3


def test_the_spool_outlives_local_retention(checkpoint, tmp_path):
    """Local clean-up deletes files, on Drive it empties them first; the spool's second name must keep its bytes."""
    local = Store(tmp_path / "checkpoints")
    snapshot = local.publish(checkpoint(1), label(1), share=SHARE)
    entry = Spool(tmp_path / "spool").add(snapshot, label(1), SHARE)
    local.publish(checkpoint(2), label(2))
    local.retain("ckpt", 1)
    assert not snapshot.path.exists()
    assert contents(entry.files) == contents(tmp_path / "local" / "step-1")


def test_what_the_local_disk_lost_while_it_waited_is_not_published(publishing, checkpoint, tmp_path):
    """The bytes are one and the same as the saved checkpoint's, through a second name, in the next process too."""
    saved = Store(tmp_path / "checkpoints").publish(checkpoint(1), label(1))
    first = publishing(HostileDisk(Failing(errno.ENOTCONN)))
    first.submit(saved, label(1))
    first.close(STUCK)
    file = saved.path / "model.safetensors"
    file.write_bytes(b"\0" * file.stat().st_size)
    second = publishing()
    assert not second.drain(STUCK)
    assert second.states() == {label(1): State.FAILED}
    assert "is not what was saved there: the local disk lost it" in second.status().sentence()
    assert Store(tmp_path / "drive").snapshots() == []


def test_two_publishers_never_have_one_spool(publishing, checkpoint, tmp_path):
    first = publishing(HostileDisk(Failing(errno.ENOTCONN)))
    first.submit(checkpoint(1), label(1))
    with pytest.raises(SpoolInUse, match="An earlier cell or thread of this program"):
        publishing()
    assert len(folders(tmp_path / "spool")) == 1
    first.close(STUCK)
    assert publishing().drain(STUCK)


def test_a_closed_publisher_leaves_an_empty_folder(publishing, tmp_path):
    publishing().close(STUCK)
    (tmp_path / "spool").rmdir()


HOLDER = """
import os, sys
from drive_sync import Publisher, Store
publisher = Publisher(Store(sys.argv[1] + "/drive"), sys.argv[1] + "/spool")
if sys.argv[2] == "alone":
    print(0, flush=True)
elif os.fork() == 0:
    print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_the_kernel_gives_the_spool_back_when_its_process_is_killed(publishing, tmp_path, how):
    """Also where a worker that it forked, to load data say, lives on."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path), how], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    child = int(process.stdout.readline())
    try:
        with pytest.raises(SpoolInUse, match=rf"Process {process.pid} of this machine .* End it, or wait"):
            publishing()
        process.kill()
        process.wait()
        if child:
            os.kill(child, 0)  # it is there
        publishing()
    finally:
        process.kill()
        if child:
            os.kill(child, signal.SIGKILL)
        process.communicate()


def test_a_lock_on_a_file_that_went_away_is_none(tmp_path, monkeypatch):
    """The one that had the spool deletes its lock file between another one's opening and locking it."""
    real, goes = fcntl.flock, iter([True])

    def late(descriptor: int, how: int) -> None:
        if next(goes, False):
            (tmp_path / "spool" / ".lock").unlink()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    first = Spool(tmp_path / "spool")
    with pytest.raises(SpoolInUse):
        Spool(tmp_path / "spool")
    first.release()
    Spool(tmp_path / "spool").release()


def test_an_entry_is_not_taken_away_from_the_next_publisher(checkpoint, tmp_path):
    spool = Spool(tmp_path / "spool")
    entry = spool.add(checkpoint(1), label(1), SHARE)
    spool.release()
    entry.discard()
    assert list(Spool(tmp_path / "spool").left_over()) == [entry]


def test_where_there_are_no_locks_one_is_trusted_to_be_alone(tmp_path, monkeypatch):
    def unsupported(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as disk:
        disk.setattr(fcntl, "flock", unsupported)
        Spool(tmp_path / "spool")
    assert folders(tmp_path / "spool") == list((tmp_path / "spool").iterdir()) == []
    monkeypatch.setattr("drive_sync.lock.fcntl", None)  # Windows
    for _ in range(2):
        Spool(tmp_path / "spool").release()


def test_a_publisher_that_hangs_is_left_behind_and_touches_nothing_when_it_comes_back(publishing, checkpoint, tmp_path):
    """A notebook's cell was interrupted while a call to Drive hung; the next cell makes a new publisher."""
    hanging, called, followed = threading.Event(), threading.Event(), []

    def hang(call: str, path: Path) -> None:
        if call == "read":  # the reading back
            called.set()
            assert hanging.wait(STUCK)

    first = publishing(HostileDisk(hang))
    first.submit(checkpoint(1), label(1), then=followed.append)
    assert called.wait(STUCK)
    first.close(0.01)
    second = publishing(HostileDisk(Failing(errno.ENOTCONN)))
    hanging.set()
    first.close(STUCK)
    assert not first._thread.is_alive()
    assert len(folders(tmp_path / "spool")) == 1 and followed == []
    second.close(STUCK)
    assert publishing().drain(STUCK)
