"""Against a real file system that behaves as Drive's mount does at its worst (see hostile_fuse.py)."""
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_time import FakeTime
from fuse_drive import FuseDrive, why_not
from hostile_disk import contents, make_folder

from drive_sync import DriveUnavailable, Lease, Publisher, Store, check_space, finish
from drive_sync.reach import within
from drive_sync.spool import Spool

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no hostile Drive: {why_not()}")
STUCK = 60.0
SHARE = ("frozen.safetensors",)


@pytest.fixture
def machine(tmp_path: Path):
    """machine(name, **mood) -> a mount of one cloud folder, unmounted at the end."""
    mounts: list[FuseDrive] = []

    def begin(name: str = "first", **mood: object) -> FuseDrive:
        mounts.append(FuseDrive(tmp_path / name, tmp_path / "cloud", **mood))
        return mounts[-1]

    yield begin
    for mount in mounts:
        mount.unmount()


def open_store(drive: FuseDrive, session: str | None = None) -> Store:
    return Store(drive.point / "MyDrive" / "run", session, pause=lambda seconds: None)


def open_publisher(store: Store, spool: Path | None = None,
                   then: Callable[[float], object] = lambda now: None) -> Publisher:
    time = FakeTime(then)
    return Publisher(store, spool, most_waiting=99, clock=time.clock, wait=time.wait)


def label(step: int) -> str:
    return f"ckpt-e{step:04d}-s{step:06d}"


def cloud_store(tmp_path: Path) -> Store:
    """What a new machine would find."""
    return Store(tmp_path / "cloud" / "MyDrive" / "run", "reader")


def test_late_uploads_out_of_order_are_waited_for(machine, checkpoint, tmp_path):
    drive = machine(xattrs=True, upload=0.1, names=0.5)
    publisher, at_confirmation = open_publisher(open_store(drive)), []
    for step in (1, 2):
        publisher.submit(checkpoint(step), label(step), share=SHARE,
                         then=lambda snapshot: at_confirmation.append(cloud_store(tmp_path).latest("ckpt").step))
    assert publisher.drain(STUCK)
    assert at_confirmation == [1, 2]  # when it was called confirmed, the cloud had every byte
    assert publisher.status().sentence() == "Drive has all 2, confirmed."
    fetched = cloud_store(tmp_path).fetch_latest("ckpt", tmp_path / "here")[1]
    assert contents(fetched) == contents(tmp_path / "local" / "step-2")
    publisher.close(STUCK)


def test_a_mount_without_attributes_is_called_unverified(machine, checkpoint):
    drive = machine(xattrs=False)
    publisher = open_publisher(open_store(drive))
    publisher.submit(checkpoint(1), label(1))
    assert publisher.drain(STUCK)
    assert "upload unverified for 1" in publisher.status().sentence()
    publisher.close(STUCK)


@pytest.mark.parametrize("calls", range(20, 320, 50))
def test_a_disconnect_loses_nothing_that_was_handed_over(machine, checkpoint, tmp_path, calls):
    """The client dies at some call, in the midst of a write or of a look; what was not uploaded is gone."""
    drive = machine(xattrs=True, upload=0.3, names=0.7, die_after=calls, seed=calls)
    remounted = []

    def mount_again_at_some_time(now: float) -> None:
        if not remounted and publisher.status().error:
            remounted.append(now)
            drive.remount(die_after=0)

    publisher = open_publisher(open_store(drive), tmp_path / "spool", mount_again_at_some_time)
    for step in (1, 2, 3):
        publisher.submit(checkpoint(step), label(step), share=SHARE)
    assert publisher.drain(STUCK)
    publisher.close(STUCK)
    assert remounted, "the client did not die"
    drive.unmount()  # nothing is uploaded after this
    found = cloud_store(tmp_path).latest("ckpt", lambda words: None)
    assert found is not None and found.step == 3
    assert contents(cloud_store(tmp_path).fetch(found, tmp_path / "here")) == contents(tmp_path / "local" / "step-3")


@pytest.mark.parametrize("seed", range(4))
def test_a_machine_that_vanishes_leaves_only_whole_snapshots_to_find(machine, tmp_path, seed):
    """Machine after machine dies with uploads under way. What was confirmed is always found; half ones never are."""
    confirmed: list[int] = []
    for life in range(3):
        drive = machine(f"machine{life}", xattrs=True, upload=0.25, names=0.8, seed=10 * seed + life)
        store, died = open_store(drive, f"session{life}"), threading.Event()
        found = store.fetch_latest("ckpt", tmp_path / f"local{life}", lambda words: None)
        assert (found[0].step if found else 0) >= max(confirmed, default=0)
        if found:
            assert contents(found[1]) == contents(make_folder(tmp_path / f"expected{life}", found[0].step))
        drive.set_mood(die_after=500 + 45 * seed + 70 * life)
        publisher = open_publisher(store, tmp_path / f"spool{life}",
                                   lambda now, drive=drive, died=died: drive.is_dead() and died.set())
        for step in range(10 * life + 1, 10 * life + 9):
            publisher.submit(make_folder(tmp_path / f"work{life}" / str(step), step), label(step), share=SHARE,
                             then=lambda snapshot, store=store: (confirmed.append(snapshot.step),
                                                                 store.retain("ckpt", 2)))
        assert died.wait(STUCK)
        publisher.close(STUCK)
    assert confirmed


def test_a_file_that_is_appended_to_never_arrives_so_nothing_is(machine, checkpoint, tmp_path):
    """Hours of a run: checkpoints, history, retention, a lease. Every file is written once, in one go."""
    drive, clock = machine(xattrs=True, upload=0.5), FakeTime()
    log = drive.point / "log.txt"
    log.write_text("first line")
    with log.open("a") as again:
        again.write("second line")
    store = open_store(drive, "aaa")
    lease = Lease(store, now=clock.clock)
    lease.take()
    publisher = Publisher(store, tmp_path / "spool", lease=lease, clock=clock.clock, wait=clock.wait)
    for step in range(1, 6):
        clock.now += 1000
        publisher.submit(checkpoint(step), label(step), share=SHARE, then=lambda snapshot: store.retain("ckpt", 2))
        publisher.submit(tmp_path / "local" / f"step-{step}", f"history-e1-s{step}")
        assert publisher.drain(STUCK)
    publisher.close(STUCK)
    lease.release()
    drive.set_mood(upload=1.0)
    for _ in range(99):
        os.listdir(drive.point)  # each call lets one more file through
    cloud = {path.name: path.stat().st_size for path in (tmp_path / "cloud").rglob("*") if path.is_file()}
    assert [name for name, size in cloud.items() if size == 0 and name != "empty.txt"] == ["log.txt"]
    assert len(cloud_store(tmp_path).snapshots()) == 2 + 5


def test_a_drive_that_hangs_blocks_neither_training_nor_the_end(machine, checkpoint, tmp_path):
    drive, clock = machine(), FakeTime()
    store = open_store(drive, "aaa")
    lease = Lease(store, now=clock.clock)
    lease.take()
    publisher = Publisher(store, tmp_path / "spool", lease=lease, clock=clock.clock, wait=clock.wait)
    drive.hang()
    for step in (1, 2):
        publisher.submit(checkpoint(step), label(step))
    while publisher.status().seconds_in_call is None:
        threading.Event().wait(0.001)
    clock.now += 600
    assert "Drive has not answered for 10 min" in publisher.status().sentence()
    assert not finish(publisher, lease=lease, timeout=0.01, say=lambda words: None)
    publisher.close(0.01)
    with pytest.raises(OSError, match="did not answer in time|timed out"):
        within(0.01, lease.release)
    drive.go_on()
    publisher.close(STUCK)
    assert store.snapshots() == [] or len(store.snapshots()) == 1  # it ended after the call it was in
    again = open_publisher(store, tmp_path / "spool")
    assert again.drain(STUCK)
    again.close(STUCK)


EXITING = """
import sys
from drive_sync import Publisher, Store
publisher = Publisher(Store(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
publisher.submit(sys.argv[3], "ckpt-e1-s1")
while publisher.status().seconds_in_call is None:
    pass
publisher.close(0.1)
print(publisher.status().saved, flush=True)
"""


def test_a_drive_that_hangs_does_not_keep_a_program_from_ending(machine, checkpoint, tmp_path):
    drive = machine()
    process = subprocess.Popen([sys.executable, "-c", EXITING, drive.point / "run", tmp_path / "spool", checkpoint(1)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    try:
        assert process.stdout.readline() == "ready\n"
        drive.hang()
        assert process.communicate("\n", STUCK)[0] == "1\n" and process.returncode == 0
    finally:
        drive.go_on()
        process.kill()
        process.communicate()


def test_random_input_output_errors_only_delay(machine, checkpoint, tmp_path):
    drive = machine(xattrs=True, upload=0.5, seed=3)
    store = open_store(drive)
    publisher = open_publisher(store, tmp_path / "spool")
    drive.set_mood(eio=0.03)
    for step in (1, 2, 3):
        publisher.submit(checkpoint(step), label(step), share=SHARE, then=lambda snapshot: store.retain("ckpt", 1))
    assert publisher.drain(STUCK)
    publisher.close(STUCK)
    drive.set_mood(eio=0)
    assert store.latest("ckpt", lambda words: None).step == 3


def test_a_dead_mount_is_never_an_empty_store(machine, checkpoint, tmp_path):
    drive = machine()
    store = open_store(drive)
    snapshot = store.publish(checkpoint(1), label(1))
    drive.disconnect()
    asks = (lambda: store.latest("ckpt"), lambda: store.snapshots(), lambda: store.fetch(snapshot, tmp_path / "here"),
            lambda: store.publish(tmp_path / "local" / "step-1", label(2)), lambda: store.retain("ckpt", 1),
            lambda: Lease(store).take(), lambda: check_space(store.folder, 1), lambda: snapshot.verify())
    for ask in asks:
        with pytest.raises(DriveUnavailable, match="unknown, not lost"):
            ask()
    drive.unmount()
    for ask in asks:
        with pytest.raises(DriveUnavailable, match="nothing is mounted at"):
            ask() if ask is not asks[-2] else Store(store.folder, mountpoint=drive.point)
    assert list(drive.point.iterdir()) == []  # nothing was made in the mountpoint's place


def test_hours_of_enotconn_are_sat_out(machine, checkpoint, tmp_path):
    drive = machine(xattrs=True, errno=errno.ENOTCONN)

    def back_after_three_hours(now: float) -> None:
        if now > 10_000:
            drive.set_mood(errno=0)

    publisher = open_publisher(Store(drive.point / "MyDrive" / "run", pause=lambda seconds: None), tmp_path / "spool",
                               back_after_three_hours)
    for step in (1, 2):
        publisher.submit(checkpoint(step), label(step))
    assert publisher.drain(STUCK) and publisher.status().confirmed == 2
    publisher.close(STUCK)


def test_a_full_drive_goes_on_when_there_is_room_again(machine, checkpoint, tmp_path):
    drive = machine(xattrs=True, quota=13_000)  # one checkpoint is 9 KB

    said = []

    def room_after_two_hours(now: float) -> None:
        said.append(publisher.status().sentence())
        if now > 9_000:
            drive.set_mood(quota=100_000)

    publisher = open_publisher(open_store(drive), tmp_path / "spool", room_after_two_hours)
    for step in (1, 2):
        publisher.submit(checkpoint(step), label(step))
    assert publisher.drain(STUCK) and publisher.status().confirmed == 2
    assert any("no space left" in words for words in said)
    assert not check_space(drive.point / "MyDrive", 10**7).enough
    publisher.close(STUCK)


def test_a_run_much_longer_than_the_quota_fits_because_files_are_emptied(machine, checkpoint):
    """Twelve checkpoints of 9 KB through a Drive of 45 KB whose Trash counts."""
    drive = machine(xattrs=True, quota=45_000)
    store = open_store(drive)
    for step in range(1, 13):
        store.publish(checkpoint(step), label(step), share=SHARE)
        store.retain("ckpt", 2)
    assert [snapshot.step for snapshot in store.snapshots()] == [11, 12]


def test_two_machines_with_stale_listings_never_use_one_name(machine, checkpoint, tmp_path):
    one, two = machine("one", xattrs=True), machine("two", xattrs=True)
    (first, second), source = (open_store(one, "aaa"), open_store(two, "bbb")), checkpoint(1)
    for step in (1, 2, 3):
        for store in (first, second):
            store.publish(source, label(step), share=SHARE)
            store.retain("ckpt", 2)
    for drive in (one, two):
        drive.set_mood(refresh=1, upload=1.0)
        for _ in range(50):
            os.listdir(drive.point)  # each call lets one more file through
    names = [path.name for path in (tmp_path / "cloud").rglob("*")]
    assert not [name for name in names if "(1)" in name]
    found = cloud_store(tmp_path).snapshots("ckpt")
    assert {(snapshot.session, snapshot.step) for snapshot in found} == {(s, n) for s in ("aaa", "bbb") for n in (2, 3)}
    assert all(snapshot.verify() == [] for snapshot in found)


def test_two_sessions_that_cannot_see_each_other_end_as_one(machine):
    one, two = machine("one"), machine("two")
    clock = [1_800_000_000.0]
    leases = []
    for drive, session in ((one, "aaa"), (two, "bbb")):
        leases.append(Lease(open_store(drive, session), now=lambda: clock[0]))
        leases[-1].take()
        clock[0] += 1
    for drive in (one, two):
        for _ in range(20):
            os.listdir(drive.point)
    for drive in (one, two):
        drive.set_mood(refresh=1)
    clock[0] += 61
    leases[0].keep()
    with pytest.raises(RuntimeError, match="session aaa took this run over"):
        leases[1].keep()


def test_the_spool_copies_what_lies_on_another_disk(machine, tmp_path):
    source = make_folder(machine().point / "work", 1)
    entry = Spool(tmp_path / "spool").add(source, label(1), ())
    assert contents(entry.files) == contents(source)


def test_neither_links_nor_locks_are_needed_on_the_mount(machine, checkpoint, tmp_path):
    """It has none (Errno 95): a spool there, which is no good idea, works as well as it can."""
    drive = machine(xattrs=True)
    with pytest.raises(OSError, match="not supported"):
        os.symlink("here", drive.point / "there")
    source = make_folder(drive.point / "work", 1)
    with pytest.raises(OSError, match="not supported"):
        os.link(source / "empty.txt", drive.point / "there")
    publisher = open_publisher(open_store(drive), drive.point / "spool")
    publisher.submit(source, label(1), share=SHARE)
    assert publisher.drain(STUCK)
    publisher.close(STUCK)
    (drive.point / "spool").rmdir()


def test_a_mount_with_spaces_and_gujarati_letters(tmp_path, checkpoint):
    drive = FuseDrive(tmp_path / "મારી ડ્રાઇવ", tmp_path / "cloud", xattrs=True)
    try:
        store = Store(drive.point / "MyDrive" / "પહેલો અવાજ (1)")
        assert store.publish(checkpoint(1), label(1), share=SHARE).verify() == []
        drive.disconnect()
        with pytest.raises(DriveUnavailable, match="unknown, not lost"):
            store.latest("ckpt")
        drive.unmount()
        with pytest.raises(DriveUnavailable, match="nothing is mounted at .*મારી ડ્રાઇવ"):
            store.latest("ckpt")
    finally:
        drive.unmount()
