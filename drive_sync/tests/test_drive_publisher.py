"""The publisher: training hands a folder over and goes on; nothing is called done before it is."""
import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest
from fake_time import FakeTime
from hostile_disk import WRITING, Drive, Failing, HostileDisk, contents

from drive_sync import Lease, Publisher, State, Store
from drive_sync.disk import Disk
from drive_sync.publisher import IN_ORDER
from drive_sync.reach import Reach
from drive_sync.upload import upload_state

STUCK = 30.0  # seconds after which a test that hangs fails instead


@pytest.fixture
def publishing(tmp_path: Path):
    """publishing(disk, time=…) -> a publisher to the store "drive", with a spool, closed at the end."""
    made = []

    def make(disk=None, time: FakeTime | None = None, **settings) -> Publisher:
        time = time or FakeTime()
        store = Store(tmp_path / "drive", disk=disk, pause=lambda seconds: None)
        settings.setdefault("spool", tmp_path / "spool")
        made.append(Publisher(store, clock=time.clock, wait=time.wait, chance=lambda: 0.5, **settings))
        return made[-1]

    yield make
    for publisher in made:
        publisher.close(STUCK)


def label(step: int) -> str:
    return f"ckpt-e{step:04d}-s{step:06d}"


def test_a_local_folder_arrives_and_says_it_is_unverified(publishing, checkpoint, tmp_path):
    publisher, followed = publishing(), []
    publisher.submit(checkpoint(1), label(1), share=("frozen.safetensors",), then=followed.append)
    assert publisher.drain(STUCK)
    store = Store(tmp_path / "drive")
    assert followed == [store.latest("ckpt")]
    assert contents(store.fetch(followed[0], tmp_path / "here")) == contents(tmp_path / "local" / "step-1")
    assert publisher.states() == {label(1): State.UNVERIFIED} and publisher.pending() == set()
    assert "upload unverified for 1, because this folder does not tell" in publisher.status().sentence()
    publisher.close(STUCK)
    assert list((tmp_path / "spool").iterdir()) == []


def test_each_byte_is_read_back_once(publishing, checkpoint, tmp_path):
    """On Drive a reading may be a download: retention trusts what was read back a moment ago."""
    reads = []
    disk = HostileDisk(lambda call, path: reads.append(path.name) if call == "read" else None)
    publisher = publishing(disk)
    for step in (1, 2, 3):
        publisher.submit(checkpoint(step), label(step), then=lambda snapshot: publisher._store.retain("ckpt", 1))
    assert publisher.drain(STUCK)
    assert [snapshot.step for snapshot in Store(tmp_path / "drive").snapshots()] == [3]
    assert reads.count("model.safetensors") == 3


def test_what_a_gigabyte_costs_in_passes_over_its_bytes(publishing, checkpoint, tmp_path, monkeypatch):
    """The local disk is read once, Drive written once and read back once, its MD5 in the same go; what is shared comes
    with the first checkpoint alone."""
    reads, local = [], []

    class Telling(Drive):
        def attribute(self, path: Path, name: str) -> str | None:
            return hashlib.md5(path.read_bytes()).hexdigest() if name == "user.drive.md5" else super().attribute(path, name)

    drive, read = Telling(), Disk.read
    drive.before = lambda call, path: reads.append(path.name.split("-")[0]) if call == "read" else None

    def watched(disk: Disk, path: Path):
        if type(disk) is Disk:
            local.append(path.name)
        yield from read(disk, path)

    monkeypatch.setattr(Disk, "read", watched)
    publisher = publishing(drive, FakeTime(lambda now: drive.upload(tmp_path / "drive")))
    store = Store(tmp_path / "checkpoints")
    for saved in [store.publish(checkpoint(step), label(step), move=True) for step in (1, 2, 3)]:
        local.clear() if saved.step == 1 else None
        publisher.submit(saved, saved.label, share=("frozen.safetensors",),
                         then=lambda snapshot: publisher._store.retain("ckpt", 2))
        assert publisher.drain(STUCK)
    assert publisher.status().confirmed == 3
    frozen = hashlib.sha256(b"frozen" * 1000).hexdigest()
    assert reads.count("model.safetensors") == 3 and reads.count(frozen) == 1
    assert local.count("model.safetensors") == 3
    assert local.count("frozen.safetensors") == 2  # one for each copy


def test_three_states_are_told_apart(publishing, checkpoint, tmp_path):
    drive, seen, followed = Drive(), [], []

    def upload_after_ten_minutes(now: float) -> None:
        seen.append(publisher.status())
        if now > 1600:
            drive.upload(tmp_path / "drive")

    publisher = publishing(drive, FakeTime(upload_after_ten_minutes))
    publisher.submit(checkpoint(1), label(1), then=lambda snapshot: followed.append(len(seen)))
    assert publisher.drain(STUCK)
    assert seen[0].handed == 1 and seen[0].confirmed == 0 and not seen[0].settled
    assert "1 behind (1 handed to Drive" in seen[0].sentence()
    assert publisher.status().confirmed == 1
    assert publisher.status().sentence() == "Drive has all 1, confirmed."
    assert followed == [len(seen)]  # retention ran only after the confirmation


def test_nothing_is_handed_over_before_drive_has_what_came_before_it(publishing, checkpoint, tmp_path):
    """Drive uploads in any order: a checkpoint that overtook its curves would be all that a lost machine leaves."""
    drive, seen = Drive(), []

    def first_after_ten_minutes_second_never(now: float) -> None:
        seen.append((now, len(list((tmp_path / "drive").glob("ckpt-*")))))
        for folder in (tmp_path / "drive").glob("ckpt-*"):
            if (now > 1600 and label(1) in folder.name) or now > 8000:
                drive.upload(folder)

    publisher = publishing(drive, FakeTime(first_after_ten_minutes_second_never), most_waiting=4)
    for step in (1, 2, 3, 4):
        publisher.submit(checkpoint(step), label(step))
    assert publisher.drain(STUCK) and publisher.status().confirmed == 4
    came = [next(now for now, count in seen if count >= number) for number in (1, 2, 3, 4)]
    assert came[1] > 1600  # the second, once the first was there
    assert IN_ORDER < came[2] - came[1] < IN_ORDER + 200  # the third, as the second was never confirmed
    assert came[3] - came[2] < 200  # nor is it waited for again


def test_bytes_that_drive_has_wrong_are_not_confirmed(publishing, checkpoint, tmp_path):
    drive = Drive()

    def uploaded_but_damaged_at_first(now: float) -> None:
        for path in (tmp_path / "drive").rglob("model.safetensors"):
            damaged = b"" if now < 1300 else path.read_bytes()
            drive.checksum[path] = hashlib.md5(damaged).hexdigest()
        drive.upload(tmp_path / "drive")

    time, reads = FakeTime(uploaded_but_damaged_at_first), []
    drive.before = lambda call, path: reads.append(path.name) if call == "read" else None
    publisher = publishing(drive, time)
    publisher.submit(checkpoint(1), label(1))
    assert publisher.drain(STUCK)
    assert time.now >= 1300 and publisher.status().confirmed == 1
    assert reads.count("frozen.safetensors") == 1  # not again at each look


@pytest.mark.parametrize("number, words, first, longest", [
    (errno.ENOTCONN, "the mount is gone", 5, 600), (errno.EIO, "input/output error", 5, 600),
    (errno.ENOSPC, "no space left", 300, 7200), (errno.EDQUOT, "empty the Trash", 300, 7200)])
def test_training_goes_on_while_drive_is_away(publishing, checkpoint, number, words, first, longest):
    failing, said = Failing(number), []

    def back_after_ten_hours(now: float) -> None:
        said.append(publisher.status().sentence())
        if now > 36_000:
            failing.number = None

    time = FakeTime(back_after_ten_hours)
    publisher = publishing(HostileDisk(failing), time)
    publisher.submit(checkpoint(1), label(1))
    publisher.submit(checkpoint(2), label(2))
    assert publisher.drain(STUCK)
    assert publisher.status().unverified == 2 and publisher.status().error is None
    assert any(words in sentence and "training goes on" in sentence and "behind" in sentence for sentence in said)
    backing_off = time.waits[:5]
    assert backing_off == sorted(backing_off) and backing_off[0] == first and max(time.waits) == longest
    assert len(time.waits) < 100  # it does not hammer a Drive that is away


@pytest.mark.parametrize("attributes, state", [
    ({}, "unverified"),
    ({"user.drive.uncommitted": "1", "user.drive.id": "1abc"}, "pending"),
    ({"user.drive.uncommitted": "1"}, "pending"),
    ({"user.drive.uncommitted": "0", "user.drive.id": "local-12"}, "pending"),
    ({"user.drive.id": "local-12"}, "pending"),
    ({"user.drive.uncommitted": "0", "user.drive.id": "1abc"}, "confirmed"),
    ({"user.drive.id": "1abc"}, "confirmed"),
    ({"user.drive.id": "1abc", "user.drive.md5": "0" * 32}, "pending"),
    ({"user.drive.id": "1abc", "user.drive.md5": "in another form"}, "confirmed")])
def test_what_the_mount_tells_is_read_carefully(checkpoint, attributes, state):
    """None of these attributes is documented: each may be missing."""
    disk = Disk()
    disk.attribute = lambda path, name: attributes.get(name)
    folder = checkpoint(1)
    assert upload_state(Reach(folder, disk), [folder / "model.safetensors", folder / "empty.txt"], True) == state


def test_jitter_keeps_machines_apart(checkpoint, tmp_path):
    first_waits = []
    for chance in (0.0, 0.9):
        failing = Failing(errno.EIO)

        def back(now: float, failing=failing) -> None:
            failing.number = None

        time = FakeTime(back)
        publisher = Publisher(Store(tmp_path / f"drive{chance}", disk=HostileDisk(failing), pause=lambda s: None),
                              clock=time.clock, wait=time.wait, chance=lambda chance=chance: chance)
        publisher.submit(checkpoint(int(chance * 10)), label(1))
        assert publisher.drain(STUCK)
        publisher.close(STUCK)
        first_waits.append(time.waits[0])
    assert first_waits == [2.5, 7.0]


def test_what_is_lost_on_the_way_is_published_again(publishing, checkpoint, tmp_path):
    """Drive takes every file, then loses the first snapshot: a 0-byte file where there was a model."""
    drive = Drive()
    lose = iter([True, False])

    def after_a_wait(now: float) -> None:
        if next(lose, False):
            for path in (tmp_path / "drive").rglob("model.safetensors"):
                path.write_bytes(b"")
        drive.upload(tmp_path / "drive")

    publisher = publishing(drive, FakeTime(after_a_wait))
    publisher.submit(checkpoint(1), label(1))
    assert publisher.drain(STUCK)
    newest = Store(tmp_path / "drive").latest("ckpt")
    assert newest.parts.attempt == 2 and contents(newest.path) == contents(tmp_path / "local" / "step-1")


def test_submit_returns_while_drive_hangs(publishing, checkpoint, tmp_path):
    hanging, called = threading.Event(), threading.Event()

    def hang(call: str, path: Path) -> None:
        if call == "write":
            called.set()
            assert hanging.wait(STUCK)

    time = FakeTime()
    publisher = publishing(HostileDisk(hang), time)
    for step in (1, 2):
        publisher.submit(checkpoint(step), label(step))
    assert called.wait(STUCK)
    time.now += 600
    assert not publisher.drain(0.01)
    assert "Drive has not answered for 10 min" in publisher.status().sentence()
    assert publisher.status().saved == 2
    hanging.set()
    assert publisher.drain(STUCK)


def test_a_slow_upload_is_no_silence(publishing, checkpoint, tmp_path):
    """Each block of it is an answer; only what follows the last one is a wait."""
    said, time = [], FakeTime()

    def ten_minutes_a_block(call: str, path: Path) -> None:
        if call == "write_half":
            said.append(publisher.status().sentence())
            time.now += 600

    publisher = publishing(HostileDisk(ten_minutes_a_block), time)
    publisher.submit(checkpoint(1), label(1))
    assert publisher.drain(STUCK)
    assert len(said) > 3 and not any("has not answered" in words for words in said)


def test_a_slow_upload_shows_signs_of_life_and_ends_when_the_run_is_taken_over(checkpoint, tmp_path):
    clock, signs = FakeTime(), []

    def twenty_minutes_a_block(call: str, path: Path) -> None:
        if call == "write_half" and path.parent.name.startswith("ckpt"):
            clock.now += 1200
            signs.append(len(Lease(other, now=clock.clock).living()))
            if len(signs) == 6:
                Lease(other, now=clock.clock).take(take_over=True)

    other = Store(tmp_path / "drive", "bbb")
    store = Store(tmp_path / "drive", "aaa", disk=HostileDisk(twenty_minutes_a_block))
    lease = Lease(store, now=clock.clock)
    lease.take()
    publisher = Publisher(store, lease=lease, clock=clock.clock, wait=clock.wait)
    for step in (1, 2):
        publisher.submit(checkpoint(step), label(step))
    assert not publisher.drain(STUCK)
    assert signs == [1] * len(signs) and len(signs) < 10
    assert "session bbb took this run over" in publisher.status().sentence()
    assert publisher.status().failed == 0 and publisher.status().saved == 1
    assert [snapshot.step for snapshot in other.snapshots()] == [1]
    assert len(other.all_names()) == 1  # the half one was taken away again
    publisher.close(STUCK)


@pytest.mark.parametrize("number, words", [
    (errno.ENAMETOOLONG, "a name is too long for this folder"), (errno.EFBIG, "a file is too large for this folder")])
def test_what_a_folder_can_never_take_stops_nothing_else(publishing, checkpoint, tmp_path, number, words):
    def refuses(call: str, path: Path) -> None:
        if call == "write" and "s000001" in str(path):
            raise OSError(number, os.strerror(number), str(path))

    publisher = publishing(HostileDisk(refuses))
    for step in (1, 2):
        publisher.submit(checkpoint(step), label(step))
    assert not publisher.drain(STUCK)
    assert publisher.states() == {label(1): State.FAILED, label(2): State.UNVERIFIED}
    publisher.close(STUCK)
    again = publishing()  # to another folder, say: it was not thrown away
    assert again.drain(STUCK) and again.states() == {label(1): State.UNVERIFIED}


@pytest.mark.parametrize("number, words", [(errno.EROFS, "mounted read-only"), (errno.EACCES, "permission was refused")])
def test_a_folder_that_cannot_be_written_is_said_and_tried_again(publishing, checkpoint, number, words):
    refusing, said = Failing(number, WRITING), []

    def mounted_for_writing_after_an_hour(now: float) -> None:
        said.append(publisher.status().sentence())
        if now > 3600:
            refusing.number = None

    publisher = publishing(HostileDisk(refusing), FakeTime(mounted_for_writing_after_an_hour))
    publisher.submit(checkpoint(1), label(1))
    assert publisher.drain(STUCK)
    assert any(words in sentence and "training goes on" in sentence for sentence in said)


def test_drives_cache_does_not_fill_the_disk_that_training_writes_to(publishing, checkpoint, tmp_path, monkeypatch):
    """Google's mount keeps on the machine's disk what is on its way: reported to fill it."""
    table, said = tmp_path / "mounts", []
    table.write_text(f"drive {tmp_path / 'drive'} fuse.drive rw 0 0\n")
    monkeypatch.setattr("drive_sync.mounts.mounts.__defaults__", (str(table),))
    monkeypatch.setattr("drive_sync.space.Disk.free", lambda disk, path: free[0])
    free = [17_000]  # one checkpoint is 9 KB

    def room_after_an_hour(now: float) -> None:
        said.append(publisher.status().sentence())
        if now > 3600:
            free[0] = 19_000

    publisher = publishing(time=FakeTime(room_after_an_hour))
    publisher.submit(checkpoint(1), label(1))
    assert publisher.drain(STUCK)
    assert "this machine's disk has 0.0 GB free" in said[0] and "training goes on" in said[0]
    table.write_text("")
    free[0] = 0
    publisher = publishing(spool=None)  # another folder has no cache
    publisher._store = Store(tmp_path / "elsewhere")
    publisher.submit(checkpoint(2), label(2))
    assert publisher.drain(STUCK)


def test_when_drive_is_away_for_long_only_the_newest_wait(publishing, checkpoint, tmp_path):
    failing = Failing(errno.ENOTCONN)
    hold = threading.Event()
    publisher = publishing(HostileDisk(failing), FakeTime(lambda now: hold.wait(STUCK)))
    for step in range(1, 9):
        publisher.submit(checkpoint(step), label(step))
    publisher.submit(checkpoint(9), "history-e0001-s000001")
    assert publisher.status().superseded >= 4
    failing.number = None
    hold.set()
    assert publisher.drain(STUCK)
    steps = [snapshot.step for snapshot in Store(tmp_path / "drive").snapshots("ckpt")]
    assert steps[-3:] == [6, 7, 8] and len(steps) <= 4
    assert len(Store(tmp_path / "drive").snapshots("history")) == 1
    assert "left out because newer ones were waiting" in publisher.status().sentence()


def test_retention_that_fails_is_said_and_does_not_stop_publishing(publishing, checkpoint):
    def broken(snapshot) -> None:
        raise OSError(errno.EIO, "EIO")

    publisher = publishing()
    publisher.submit(checkpoint(1), label(1), then=broken)
    assert publisher.drain(STUCK)
    assert "what was to follow failed" in publisher.status().error
    publisher.submit(checkpoint(2), label(2))
    assert publisher.drain(STUCK) and publisher.status().error is None


def test_an_upload_that_never_arrives_is_said(publishing, checkpoint, tmp_path):
    drive, said = Drive(), []

    def stuck_for_two_hours(now: float) -> None:
        said.append(publisher.status().sentence())
        if now > 8_000:
            drive.upload(tmp_path / "drive")

    publisher = publishing(drive, FakeTime(stuck_for_two_hours))
    publisher.submit(checkpoint(1), label(1))
    assert publisher.drain(STUCK)
    assert "still not confirmed" not in said[0]
    assert "unmount Drive and mount it again" in said[-1]
    assert publisher.status().sentence() == "Drive has all 1, confirmed."


def test_a_spool_without_room_does_not_stop_training(publishing, checkpoint, monkeypatch):
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    publisher = publishing()
    monkeypatch.setattr("drive_sync.spool.os.link", full)
    publisher.submit(checkpoint(1), label(1))
    assert publisher.drain(STUCK)


def test_a_folder_that_went_away_is_given_up_and_said(publishing, checkpoint):
    failing, hold = Failing(errno.ENOTCONN), threading.Event()
    publisher = publishing(HostileDisk(failing), FakeTime(lambda now: hold.wait(STUCK)), spool=None)
    gone = checkpoint(1)
    publisher.submit(gone, label(1))
    publisher.submit(checkpoint(2), label(2))
    gone.rename(gone.with_name("elsewhere"))
    failing.number = None
    hold.set()
    assert not publisher.drain(STUCK)
    assert publisher.states() == {label(1): State.FAILED, label(2): State.UNVERIFIED}
    assert "1 could not be published and will not be tried again" in publisher.status().sentence()


def test_bad_arguments_are_refused_at_once(publishing, checkpoint, tmp_path):
    publisher = publishing()
    for call, message in ((lambda: publisher.submit(checkpoint(1), "no label"), "such as ckpt-e0012-s004800"),
                          (lambda: publisher.submit(checkpoint(2), label(2), share=("x",)), "no file x"),
                          (lambda: publisher.submit(tmp_path / "nowhere", label(3)), "no folder")):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            call()
    publisher.close(STUCK)
    with pytest.raises(RuntimeError, match="closed"):
        publisher.submit(checkpoint(4), label(4))


