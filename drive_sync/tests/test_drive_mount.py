"""mount() and finish(): Colab's documented errors in a person's words; nothing unmounted before all is confirmed."""
import errno
import os
import sys
import threading
import types
from pathlib import Path

import pytest
from fake_time import FakeTime
from hostile_disk import Drive

from drive_sync import DriveUnavailable, Lease, Publisher, Store, check_space, finish, machine_bytes, mount, run_bytes
from drive_sync.mounts import Mount, mount_of, mounts

STUCK = 30.0


class Colab:
    """Stands in for google.colab: `errors` are raised by the next mounts, `log` is what was called."""

    def __init__(self, point: Path, table: Path):
        self.point, self.table, self.errors, self.log = point, table, [], []
        self.fail_to_unmount = False

    def mount(self, mountpoint: str, force_remount: bool = False) -> None:
        self.log.append(("mount", force_remount))
        if self.errors:
            raise self.errors.pop(0)
        (self.point / "MyDrive").mkdir(parents=True, exist_ok=True)
        self.table.write_text(f"drive {self.point} fuse.drive rw 0 0\n")

    def flush_and_unmount(self, timeout_ms: int = 24 * 60 * 60 * 1000) -> None:
        self.log.append("unmount")
        self.patience = timeout_ms / 1000
        if self.fail_to_unmount:
            raise ValueError("flush_and_unmount failed")
        self.table.write_text("")

    def unassign(self) -> None:
        self.log.append("unassign")


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    """Another /proc/mounts, with Colab's mountpoint in this test's folder."""
    path = tmp_path / "mounts"
    path.write_text("/dev/sda1 / ext4 rw 0 0\n")
    monkeypatch.setattr(mounts, "__defaults__", (str(path),))
    for module in ("colab", "mounts"):
        monkeypatch.setattr(f"drive_sync.{module}.COLAB_DRIVE", tmp_path / "content" / "drive")
    monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    return path


@pytest.fixture
def colab(tmp_path, table, monkeypatch) -> Colab:
    """A kernel of Colab with nothing mounted."""
    found = Colab(tmp_path / "content" / "drive", table)
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: "<google.colab._shell.Shell object>"
    google = types.ModuleType("google.colab")
    google.drive = google.runtime = found
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", google)
    return found


def attempt(colab: Colab, **settings) -> Path:
    settings.setdefault("say", lambda words: None)
    return mount(colab.point, wait=lambda seconds: None, **settings)


def test_colab_mounts_and_a_second_call_finds_it(colab):
    assert attempt(colab) == colab.point / "MyDrive"
    assert attempt(colab) == colab.point / "MyDrive"
    assert mount(colab.point / "MyDrive" / "vaani") == colab.point / "MyDrive" / "vaani"
    assert colab.log == [("mount", False)]


class MessageError(Exception):
    """As google.colab._message names it."""


@pytest.mark.parametrize("error, words", [
    (NotImplementedError("google.colab.drive is unsupported in this environment."), "Enterprise"),
    (MessageError("Error: credential propagation was unsuccessful"), "declined in the dialog"),
    (ValueError("Mountpoint must not contain a space."), "must not contain a space"),
    (ValueError("Mountpoint must not be a symlink"), "is a symlink"),
    (ValueError("Mountpoint must not already contain files"), "holds files of this machine"),
    (ValueError("Mountpoint must either be a directory or not exist"), "is a file"),
    (ValueError("Mountpoint must be in a directory that exists"), "folder above the mountpoint is missing"),
    (ValueError("mount failed: invalid oauth code"), "authorization code was not accepted"),
    (ValueError("The domain policy has disabled Drive File Stream: https://…"), "administrator")])
def test_what_a_person_must_change_is_said_at_once(colab, error, words):
    colab.errors = [error]
    with pytest.raises(DriveUnavailable, match=words):
        attempt(colab)
    assert len(colab.log) == 1


@pytest.mark.parametrize("text, words", [
    ("mount failed", "restart the runtime"),
    ("mount failed: timeout during initial read of root folder; for more info: …", "very many files")])
def test_what_may_pass_is_tried_three_times(colab, text, words, monkeypatch, tmp_path):
    said, log = [], tmp_path / "drive_fs.txt"
    log.write_text("".join(f"line {number}\n" for number in range(9)))
    monkeypatch.setattr("drive_sync.colab._LOG", str(log))
    colab.errors = [ValueError(text)]
    assert attempt(colab, say=said.append) == colab.point / "MyDrive"
    assert "try 2 of 3" in said[0] and colab.log == [("mount", False), ("mount", True)]
    colab.table.write_text("")
    colab.errors = [ValueError(text)] * 3
    with pytest.raises(DriveUnavailable, match=rf"(?s){words}.*line 8"):
        attempt(colab)


def test_a_dead_mount_is_mounted_anew(colab):
    """/proc/mounts still has it, but it does not answer."""
    colab.table.write_text(f"drive {colab.point} fuse.drive rw 0 0\n")
    assert attempt(colab) == colab.point / "MyDrive"
    assert colab.log == [("mount", True)]


def test_a_thread_cannot_mount(colab):
    caught = []

    def work() -> None:
        with pytest.raises(DriveUnavailable, match="not from a thread"):
            attempt(colab)
        caught.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(STUCK)
    assert caught and colab.log == []


def test_elsewhere_it_is_the_folder_given(table, tmp_path, monkeypatch):
    said = []
    assert mount(tmp_path / "plain" / "folder") == tmp_path / "plain" / "folder"
    assert (tmp_path / "plain" / "folder").is_dir()
    monkeypatch.chdir(tmp_path)
    assert mount(tmp_path / "content" / "drive", say=said.append) == tmp_path / "drive"
    assert "This is not Colab" in said[0]


def test_any_mounted_folder_works_the_same(table, tmp_path):
    blob = tmp_path / "a blob"
    blob.mkdir()
    table.write_text(f"/dev/sda1 / ext4 rw 0 0\nblobfuse2 {str(blob).replace(' ', chr(92) + '040')} fuse rw 0 0\n")
    assert mount(blob) == blob and mount(blob / "run") == blob / "run"
    assert mount_of(blob / "run") == Mount(blob, "fuse")


def test_nothing_is_made_under_an_unmounted_mountpoint(table, tmp_path, monkeypatch):
    fstab = tmp_path / "fstab"
    fstab.write_text(f"# comment\n//server/share {tmp_path}/share cifs defaults 0 0\nUUID=1 / ext4 defaults 0 1\n")
    monkeypatch.setattr("drive_sync.mounts._FSTAB", str(fstab))
    for folder in (tmp_path / "content" / "drive" / "MyDrive" / "run", tmp_path / "share" / "run"):
        with pytest.raises(DriveUnavailable, match="nothing is mounted at"):
            mount(folder)
        with pytest.raises(DriveUnavailable, match="nothing is mounted at"):
            Store(folder)
        assert not folder.parent.exists()


def test_a_shell_command_on_colab_is_sent_to_a_cell(table, tmp_path, monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab_20260801")
    with pytest.raises(DriveUnavailable, match=r"drive_sync\.mount\(\)` in a cell"):
        mount(tmp_path / "content" / "drive")


def test_a_mount_that_hangs_is_said(table, tmp_path, monkeypatch):
    point, hanging = tmp_path / "hanging", threading.Event()
    point.mkdir()
    table.write_text(f"server {point} nfs rw 0 0\n")
    monkeypatch.setattr("drive_sync.colab.SECONDS_TO_ANSWER", 0.01)
    monkeypatch.setattr("drive_sync.colab.os.listdir", lambda folder: hanging.wait(STUCK))
    with pytest.raises(DriveUnavailable, match="did not answer in time"):
        mount(point)
    hanging.set()


@pytest.fixture
def ending(colab, checkpoint):
    """ending(uploads) -> a publisher with one checkpoint on Colab's Drive, its lease, and what finish said."""
    def begin(disk, uploads=lambda now: None, spool=None) -> tuple[Publisher, Lease, list[str]]:
        store = Store(attempt(colab) / "run", disk=disk, pause=lambda seconds: None)
        lease = Lease(store)
        lease.take()
        time = FakeTime(uploads)
        publisher = Publisher(store, spool, lease=lease, clock=time.clock, wait=time.wait)
        publisher.submit(checkpoint(1), "ckpt-e1-s1")
        return publisher, lease, []

    return begin


def test_finish_confirms_then_unmounts_then_gives_the_machine_back(colab, ending):
    drive = Drive()
    publisher, lease, said = ending(drive, lambda now: drive.upload(colab.point))
    assert finish(publisher, lease=lease, give_back=True, say=said.append)
    assert said == ["Drive has all 1, confirmed."]
    assert colab.log == [("mount", False), "unmount", "unassign"]
    assert any("released" in path.name for path in (colab.point / "MyDrive" / "run" / "lease").iterdir())


def lease_acts(colab: Colab) -> set[str]:
    return {path.stem.split("-")[-1] for path in (colab.point / "MyDrive" / "run" / "lease").iterdir()}


def test_finish_never_unmounts_before_all_is_confirmed(colab, ending):
    looking, stop, drive = threading.Event(), threading.Event(), Drive()

    def never_uploaded(now: float) -> None:
        if list(colab.point.rglob("COMPLETE")):
            looking.set()
        stop.wait(0.005)

    publisher, lease, said = ending(drive, never_uploaded)
    assert looking.wait(STUCK)
    assert not finish(publisher, lease=lease, timeout=0.01, give_back=True, say=said.append)
    assert colab.log == [("mount", False)] and "released" not in lease_acts(colab)
    assert "1 handed to Drive" in said[-1] and "Keep this program running until Drive has all of it" in said[-1]
    drive.upload(colab.point)  # what it says is true: it goes on, and finish can be called again
    assert finish(publisher, lease=lease, timeout=STUCK, say=said.append)
    assert colab.log == [("mount", False), "unmount"] and colab.patience == 60  # it had time left, but not a day
    assert finish(publisher, lease=lease, say=said.append)


def test_what_finish_says_is_kept_goes_to_drive_at_the_next_start(colab, ending, tmp_path):
    """A cell was interrupted and Drive is slow: the session ends, Drive stays mounted, the next cell brings the rest."""
    drive, stop = Drive(), threading.Event()
    publisher, lease, said = ending(drive, lambda now: stop.wait(0.005), tmp_path / "spool")
    assert not finish(publisher, lease=lease, timeout=0.05, unmount=False, say=said.append)
    assert "goes to Drive when this run is started here again" in said[-1]
    publisher.close(STUCK)
    lease.release()
    assert not finish(publisher, lease=lease, unmount=False, say=said.append)  # closed: it neither waits nor promises more
    assert "goes to Drive when this run is started here again" in said[-1]
    time = FakeTime(lambda now: drive.upload(colab.point))
    store = Store(colab.point / "MyDrive" / "run", disk=drive)
    lease = Lease(store)
    lease.take()
    again = Publisher(store, tmp_path / "spool", lease=lease, clock=time.clock, wait=time.wait)
    assert finish(again, lease=lease, unmount=False, say=said.append)
    assert said[-1] == "Drive has all 1, confirmed." and "released" in lease_acts(colab)
    assert colab.log == [("mount", False)]  # still mounted
    assert again.closed and lease.living() == []


def test_finish_after_something_was_given_up_ends_the_session_but_keeps_the_machine(colab, ending, checkpoint, tmp_path):
    drive = Drive()
    publisher, lease, said = ending(drive, lambda now: drive.upload(colab.point))
    saved = Store(tmp_path / "checkpoints").publish(checkpoint(2), "ckpt-e1-s2")
    (saved.path / "model.safetensors").write_bytes(b"\0" * 3000)
    publisher.submit(saved, saved.label)
    for _ in range(2):
        assert not finish(publisher, lease=lease, give_back=True, say=said.append)
        assert "1 could not be published and will not be tried again" in said[-2]
        assert "only here" in said[-1] and "again later" not in "".join(said)
    assert "unassign" not in colab.log and "unmount" in colab.log and "released" in lease_acts(colab)


def test_finish_after_another_session_took_over_promises_nothing(colab, ending):
    stop = threading.Event()
    publisher, lease, said = ending(Drive(), lambda now: stop.wait(0.005))
    later = Lease(Store(colab.point / "MyDrive" / "run"))
    later.take(take_over=True)
    lease._looked = float("-inf")  # a minute later
    assert not finish(publisher, lease=lease, timeout=STUCK, say=said.append)
    assert said[-1].startswith("Nothing more goes to Drive: session") and said[-1].endswith("another run name.")
    assert len(said) == 1
    assert "unmount" not in colab.log
    publisher.close(STUCK)


@pytest.mark.parametrize("hangs", [True, False])
def test_finish_ends_though_drive_does_not_take_the_last_sign(colab, ending, monkeypatch, hangs):
    drive, hanging = Drive(), threading.Event()
    publisher, lease, said = ending(drive, lambda now: drive.upload(colab.point))
    assert publisher.drain(STUCK)

    def broken(call: str, path: Path) -> None:
        if hangs:
            hanging.wait(STUCK)
        raise OSError(errno.ENOTCONN, "gone")

    monkeypatch.setattr("drive_sync.ending.SECONDS_TO_SIGN_OFF", 0.01 if hangs else STUCK)
    drive.before = broken
    assert finish(publisher, lease=lease, say=said.append)
    assert "did not take the sign that this session has ended" in said[-1]
    assert ("did not answer in time" if hangs else "the mount is gone") in said[-1]
    hanging.set()


def test_finish_keeps_the_machine_where_the_mount_does_not_tell(colab, ending):
    publisher, lease, said = ending(None)
    assert not finish(publisher, lease=lease, give_back=True, say=said.append)
    assert colab.log == [("mount", False), "unmount"]
    assert "does not tell whether the uploads arrived" in said[-1]


def test_finish_keeps_the_machine_when_unmounting_fails(colab, ending):
    colab.fail_to_unmount = True
    publisher, lease, said = ending(None)
    assert not finish(publisher, lease=lease, give_back=True, accept_unverified=True, say=said.append)
    assert "unassign" not in colab.log and "could not be unmounted" in said[-1]
    colab.fail_to_unmount = False
    assert finish(publisher, lease=lease, give_back=True, accept_unverified=True, say=said.append)
    assert colab.log[-2:] == ["unmount", "unassign"]


def test_finish_says_how_far_it_is(colab, ending, monkeypatch):
    monkeypatch.setattr("drive_sync.ending.SAY_EVERY", 0.01)
    drive, said_enough = Drive(), threading.Event()
    publisher, lease, said = ending(drive, lambda now: said_enough.wait(STUCK) and drive.upload(colab.point))

    def say(words: str) -> None:
        said.append(words)
        if len(said) == 3:
            said_enough.set()

    assert finish(publisher, lease=lease, say=say)
    assert "Drive is 1 behind" in said[0] and said[-1] == "Drive has all 1, confirmed."


def test_space_is_checked_for_the_whole_run(tmp_path, table):
    free = os.statvfs(tmp_path)
    enough = check_space(tmp_path / "not" / "there" / "yet", 1000)
    assert enough.enough and "GB are free" in enough.sentence()
    much = check_space(tmp_path, free.f_blocks * free.f_frsize * 2)
    assert not much.enough and "keep fewer checkpoints" in much.sentence()
    table.write_text(f"drive {tmp_path} fuse.drive rw 0 0\n")
    assert "Trash" in check_space(tmp_path, 10**18).sentence()
    assert run_bytes(100, 2, shared=10, best=5, history=1) == 331
    with pytest.raises(DriveUnavailable):
        check_space(tmp_path / "content" / "drive" / "MyDrive", 1)


def test_the_machines_own_disk_is_counted_with_what_waits_and_drives_cache(tmp_path):
    need = machine_bytes(100, 2, shared=10, best=5, history=1, most_waiting=3)
    assert need == 110 * (3 + 3 + 2) + 5 * 4 + 2  # kept and one more; three that wait; Drive's cache of one, twice
    assert not check_space(tmp_path, need + 10**18).enough
