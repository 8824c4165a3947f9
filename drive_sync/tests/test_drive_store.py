"""A store: write-once names, the marker last, verified before use, nothing deleted too early."""
import errno
import json
import mmap
import os
import shutil
import sys
from pathlib import Path

import pytest
from hostile_disk import Drive, Failing, HostileDisk, contents

from drive_sync import DriveUnavailable, Lease, SnapshotBroken, Store
from drive_sync.manifest import MANIFEST, MARKER, seal
from drive_sync.spool import Spool


def no_wait(seconds: float) -> None:
    """Stands in for waiting."""


def test_what_is_published_is_fetched_byte_for_byte(store, checkpoint, tmp_path):
    snapshot = store.publish(checkpoint(7), "ckpt-e0001-s000007", share=("frozen.safetensors",))
    assert snapshot.name == "ckpt-e0001-s000007-aaa-g1"
    assert (snapshot.kind, snapshot.epoch, snapshot.step) == ("ckpt", 1, 7)
    fetched = store.fetch(store.latest("ckpt"), tmp_path / "here")
    assert contents(fetched) == contents(tmp_path / "local" / "step-7")
    assert Store(tmp_path / "here").latest("ckpt").verify() == []  # what was fetched is itself a snapshot


def test_a_snapshot_without_shared_files_is_a_plain_folder(store, checkpoint, tmp_path):
    snapshot = store.publish(checkpoint(), "best-e0001-s000001")
    assert contents(snapshot.path) == contents(tmp_path / "local" / "step-1")


def test_what_is_shared_is_stored_once_and_a_spare(filled):
    assert len(list((filled.folder / "shared").iterdir())) == 2
    single = Store(filled.folder, "bbb", copies=1)
    for epoch in (4, 5):
        single.publish(filled.latest("ckpt"), f"ckpt-e{epoch}-s{epoch}00", share=("frozen.safetensors",))
    assert len(list((filled.folder / "shared").iterdir())) == 3  # one more for the new session, however many it writes


def test_an_existing_name_is_never_overwritten(store, checkpoint):
    first = store.publish(checkpoint(1), "ckpt-e1-s5")
    before = contents(first.path)
    second = store.publish(checkpoint(2), "ckpt-e1-s5")
    again = Store(store.folder, "aaa").publish(checkpoint(3), "ckpt-e1-s5")
    assert len({first.name, second.name, again.name}) == 3
    assert contents(first.path) == before
    assert store.latest("ckpt") == again


def test_half_a_shared_file_takes_no_space_for_ever(checkpoint, tmp_path):
    full, killed = Failing(errno.ENOSPC, ["write_half"]), Failing(None, ["write_half", "discard"])
    store = Store(tmp_path / "drive", "aaa", disk=HostileDisk(lambda *call: (full(*call), killed(*call))))
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            store.publish(checkpoint(full.refused), "ckpt-e1-s1", share=("frozen.safetensors",))
    assert list((store.folder / "shared").iterdir()) == []
    full.number = None
    store.publish(checkpoint(99), "ckpt-e1-s2", share=("frozen.safetensors",))
    blob = next((store.folder / "shared").iterdir())
    blob.with_name(blob.name[:-1] + "7").write_bytes(b"half")  # of a try that was cut off
    store.retain("ckpt", 1)
    assert [path.stat().st_size for path in (store.folder / "shared").iterdir()] == [6000, 6000]


def test_a_shared_file_that_the_local_disk_lost_is_not_published(filled, tmp_path):
    saved = filled.latest("ckpt")
    for blob in (filled.folder / "shared").iterdir():
        blob.write_bytes(b"\0" * 6000)
    drive = Store(tmp_path / "drive2")
    with pytest.raises(ValueError, match="is not what was saved there"):
        drive.publish(saved, saved.label, share=("frozen.safetensors",))
    assert drive.snapshots() == [] and list((drive.folder / "shared").iterdir()) == []


def test_order_is_by_step_then_generation(store, checkpoint):
    store.generation = 1
    later = Store(store.folder, "zzz", generation=2)
    source = checkpoint()
    for publisher, label in ((later, "ckpt-e1-s20"), (store, "ckpt-e1-s100"), (store, "ckpt-e1-s20"),
                             (store, "best-e1-s999")):
        publisher.publish(source, label)
    assert [(s.step, s.generation) for s in store.snapshots("ckpt")] == [(20, 1), (20, 2), (100, 1)]
    assert len(store.snapshots()) == 4


def test_a_new_session_has_the_next_generation(filled):
    assert filled.generation == 1
    assert Store(filled.folder, "bbb").generation == 2
    assert Store(filled.folder, "aaa").generation == 1


def test_without_a_marker_it_does_not_exist(filled):
    newest = filled.snapshots("ckpt")[-1]
    (newest.path / MARKER).unlink()
    said = []
    assert filled.latest("ckpt", said.append).step == 200
    assert len(filled.snapshots("ckpt")) == 2
    assert said == [f"{newest.name} was skipped: it has no whole marker, so it was never finished."]


def test_publishing_fails_before_the_marker_or_not_at_all(checkpoint, tmp_path):
    """A disk that fails at the n-th call, for every n: what is there afterwards is whole or does not exist."""
    source, failed = checkpoint(), 0
    for moment in range(1000):
        calls = []

        def before(call, path, moment=moment, calls=calls):
            calls.append(call)
            if len(calls) == moment + 1:
                raise OSError(errno.ENOSPC, "full")

        store = Store(tmp_path / f"drive{moment}", disk=HostileDisk(before))
        try:
            store.publish(source, "ckpt-e1-s1", share=("frozen.safetensors",))
        except OSError:
            failed += 1
        assert all(snapshot.verify() == [] for snapshot in Store(store.folder).snapshots()), calls[-1]
        if len(calls) <= moment:
            break
    assert failed > 20


def test_a_failed_try_leaves_no_half_snapshot_behind(checkpoint, tmp_path):
    full = Failing(errno.ENOSPC, ["write_half"])
    store = Store(tmp_path / "drive", disk=HostileDisk(full))
    with pytest.raises(OSError, match="No space"):
        store.publish(checkpoint(), "ckpt-e1-s1")
    assert list(store.folder.iterdir()) == []
    full.number = None
    assert store.publish(tmp_path / "local" / "step-1", "ckpt-e1-s1").verify() == []


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.EIO, errno.ESTALE, errno.ENODEV])
def test_a_dead_mount_is_an_error_with_advice_never_an_empty_store(filled, tmp_path, number):
    dead = Store(filled.folder, disk=HostileDisk(Failing(number)), pause=no_wait)
    newest = filled.latest("ckpt")
    for ask in (lambda: dead.latest("ckpt"), lambda: dead.snapshots("ckpt"), lambda: dead.generation,
                lambda: dead.retain("ckpt", 1), lambda: dead.publish(newest, "ckpt-e9-s9"),
                lambda: dead.fetch(type(newest)(newest.parts, dead.reach), tmp_path / "here")):
        with pytest.raises(DriveUnavailable, match=r"unknown, not lost.*Mount it again"):
            ask()
    assert len(filled.snapshots("ckpt")) == 3
    assert not (tmp_path / "here").exists() or list((tmp_path / "here").iterdir()) == []


def test_a_read_that_stumbles_is_tried_again(filled):
    stumbles = iter([True, True, False] * 1000)

    def before(call, path):
        if call == "read" and next(stumbles):
            raise OSError(errno.EIO, "EIO")

    assert Store(filled.folder, disk=HostileDisk(before), pause=no_wait).latest("ckpt").step == 300


def test_a_mount_that_goes_away_is_noticed(store, checkpoint, monkeypatch):
    store.publish(checkpoint(), "ckpt-e1-s1")
    point = store.folder.parent
    table = point.parent / "mounts"
    table.write_text(f"drive {point} fuse.drive rw 0 0\n")
    monkeypatch.setattr("drive_sync.mounts.mounts.__defaults__", (str(table),))
    mounted = Store(store.folder)
    assert mounted.latest("ckpt") is not None
    table.write_text("")
    with pytest.raises(DriveUnavailable, match="nothing is mounted at"):
        mounted.latest("ckpt")
    with pytest.raises(DriveUnavailable):
        Store(store.folder, mountpoint=point)


def test_nothing_is_written_under_an_unmounted_mountpoint():
    with pytest.raises(DriveUnavailable, match=r"nothing is mounted at /content/drive.*drive_sync\.mount"):
        Store("/content/drive/MyDrive/run")
    assert not Path("/content/drive/MyDrive").exists()


class Unmounting:
    """Takes the mount away at the n-th call, as flush_and_unmount in another cell does, and looks at what is left."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: int = -1):
        self.point, self.cloud, self.table = folder / "mnt", folder / "cloud", folder / "mounts"
        self.left, self.calls = moment, []
        self.cloud.mkdir(parents=True)
        monkeypatch.setattr("drive_sync.mounts.mounts.__defaults__", (str(self.table),))
        self.mount()

    def mount(self) -> None:
        self.point.symlink_to(self.cloud)  # not followed: it is the mountpoint
        self.table.write_text(f"drive {self.point} fuse.drive rw 0 0\n")

    def unmount(self) -> None:
        self.point.unlink()
        self.point.mkdir()
        self.table.write_text("proc /proc proc rw 0 0\n")

    def __call__(self, call: str, path: Path) -> None:
        if self.left == 0:
            self.unmount()
        self.left -= 1


def test_nothing_is_made_in_the_place_of_a_mount_that_goes_away_meanwhile(checkpoint, in_memory, monkeypatch):
    """At every call of a session's life. Files there would keep Colab from mounting Drive again."""
    source, gone = checkpoint(), 0
    for moment in range(1000):
        drive = Unmounting(in_memory / f"machine{moment}", monkeypatch, moment)
        try:
            store = Store(drive.point / "MyDrive" / "run", "aaa", disk=HostileDisk(drive))
            Lease(store).take()
            for step in (1, 2):
                store.publish(source, f"ckpt-e1-s{step}", share=("frozen.safetensors",))
            store.retain("ckpt", 1)
        except DriveUnavailable as error:
            assert "nothing is mounted" in str(error)
            gone += 1
        if drive.left >= 0:
            break
        assert list(drive.point.iterdir()) == [], moment
        drive.point.rmdir()
        drive.mount()
        assert all(snapshot.verify() == [] for snapshot in Store(drive.point / "MyDrive" / "run").snapshots())
    assert gone > 60


def test_another_mount_in_the_place_of_the_first_is_noticed(checkpoint, tmp_path, monkeypatch):
    drive = Unmounting(tmp_path / "machine", monkeypatch)
    store = Store(drive.point / "run")
    store.publish(checkpoint(), "ckpt-e1-s1")
    for table in (f"share {drive.point} cifs rw 0 0\n", f"drive {drive.point} fuse.drive rw 0 0\n"
                  f"other {drive.point}/run fuse.drive rw 0 0\n"):
        drive.table.write_text(table)
        with pytest.raises(DriveUnavailable, match="something else was mounted at"):
            store.latest("ckpt")


def test_a_link_to_a_drive_that_is_not_mounted_is_no_empty_store(tmp_path, monkeypatch):
    """In Colab people make /mydrive a link to /content/drive/MyDrive."""
    drive, link = Unmounting(tmp_path / "machine", monkeypatch), tmp_path / "mydrive"
    fstab = tmp_path / "fstab"
    fstab.write_text(f"drive {drive.point} fuse.drive noauto 0 0\n")
    monkeypatch.setattr("drive_sync.mounts._FSTAB", str(fstab))
    link.symlink_to(drive.point)
    assert Store(link / "run").folder == drive.point / "run"
    drive.unmount()
    with pytest.raises(DriveUnavailable, match="nothing is mounted at"):
        Store(link / "run")
    assert list(drive.point.iterdir()) == []
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(OSError, match="symbolic links"):
        Store(tmp_path / "circle" / "run")


def test_spaces_and_gujarati_letters_in_every_name(tmp_path, monkeypatch):
    drive = Unmounting(tmp_path / "machine", monkeypatch)
    point = drive.point.rename(drive.point.with_name("મારી ડ્રાઇવ (1)"))
    escaped = str(point).replace(" ", chr(92) + "040")
    drive.table.write_text(f"drive {escaped} fuse.drive rw 0 0\n", encoding="utf-8")
    source = tmp_path / "તાલીમ ૧"
    (source / "વાક્યો").mkdir(parents=True)
    (source / "વાક્યો" / f"{'ગુજરાતી વાક્ય ' * 6}.wav").write_bytes(b"RIFF")  # 227 bytes of name
    store = Store(point / "વાણી" / "પહેલો અવાજ")
    snapshot = store.publish(source, "best-e1-s1")
    assert contents(store.fetch(snapshot, tmp_path / "અહીં")) == contents(source)
    spool = Spool(tmp_path / "રાહ જુએ છે")
    assert contents(spool.add(source, "best-e1-s2", ()).files) == contents(source)
    drive.table.write_text("")
    with pytest.raises(DriveUnavailable, match="nothing is mounted at .*મારી ડ્રાઇવ"):
        store.latest("best")


def test_a_file_where_a_folder_belongs_is_said_and_stops_nothing_else(filled, checkpoint, tmp_path):
    (tmp_path / "file").write_text("a person's")
    source = checkpoint(8)
    for ask in (lambda store: store.latest("ckpt"), lambda store: store.publish(source, "ckpt-e1-s1"),
                lambda store: Lease(store).take()):
        for store in (Store(tmp_path / "file"), Store(tmp_path / "file" / "run")):
            with pytest.raises(NotADirectoryError, match="is not a folder but a file"):
                ask(store)
    assert (tmp_path / "file").read_text() == "a person's"
    note = filled.folder / "ckpt-e0009-s000900-aaa-g1"
    note.write_text("a person's")
    marker = filled.folder / "ckpt-e0008-s000800-aaa-g1" / MARKER
    marker.mkdir(parents=True)
    assert len(filled.retain("ckpt", 1)) == 2
    assert filled.latest("ckpt", lambda words: None).step == 300
    assert note.read_text() == "a person's"


def test_what_is_no_file_is_not_opened(filled):
    """Opening a pipe would hang for ever."""
    newest = filled.snapshots()[-1]
    (newest.path / "empty.txt").unlink()
    os.mkfifo(newest.path / "empty.txt")
    assert newest.verify() == ["empty.txt is missing"]


def test_what_is_removed_while_it_is_looked_at_is_skipped(filled, tmp_path):
    """Another session's retention, or a listing that is minutes old."""
    for nth in range(1, 12):
        copy = tmp_path / f"copy{nth}"
        shutil.copytree(filled.folder, copy)
        reads = []

        def before(call, path, copy=copy, nth=nth, reads=reads):
            if call == "read" and "s000300" in str(path) or "s000300" in str(path) and call == "attribute":
                reads.append(path)
                if len(reads) == nth:
                    shutil.rmtree(next(copy.glob("*s000300*")))

        said = []
        found = Store(copy, disk=HostileDisk(before)).latest("ckpt", said.append)
        if len(reads) < nth:
            break
        assert found.step == 200 and len(said) == 1
        shutil.rmtree(copy)
        shutil.copytree(filled.folder, copy)
        reads.clear()
        found, _ = Store(copy, disk=HostileDisk(before)).fetch_latest("ckpt", tmp_path / f"here{nth}", said.append)
        assert found.step == 200 or len(reads) < nth
    assert nth > 4


def test_retention_keeps_the_last_and_the_best(filled):
    removed = filled.retain("ckpt", 1, keep={"ckpt-e0001-s000100"})
    assert [name.split("-aaa")[0] for name in removed] == ["ckpt-e0002-s000200"]
    assert [snapshot.step for snapshot in filled.snapshots("ckpt")] == [100, 300]
    assert all(snapshot.verify() == [] for snapshot in filled.snapshots())
    filled.retain("ckpt", 1)
    assert len(list((filled.folder / "shared").iterdir())) == 2  # still leaned on


def test_retention_never_counts_a_damaged_one(filled):
    newest = filled.snapshots("ckpt")[-1]
    (newest.path / "model.safetensors").write_bytes(b"short")
    filled.retain("ckpt", 1)
    assert [snapshot.step for snapshot in filled.snapshots("ckpt")] == [200, 300]
    assert filled.latest("ckpt", lambda said: None).step == 200


def test_retention_waits_until_drive_has_the_newer_one(checkpoint, tmp_path):
    drive = Drive()
    store = Store(tmp_path / "drive", disk=drive)
    for step in (1, 2):
        store.publish(checkpoint(step), f"ckpt-e1-s{step}")
    drive.upload(store.snapshots()[0].path)
    store.retain("ckpt", 1)
    assert len(store.snapshots()) == 2
    drive.upload(store.folder)
    store.retain("ckpt", 1)
    assert [snapshot.step for snapshot in store.snapshots()] == [2]


def test_removing_empties_files_first_because_the_trash_counts(filled, monkeypatch):
    table = filled.folder.parent / "mounts"
    table.write_text(f"drive {filled.folder.parent} fuse.drive rw 0 0\n")
    monkeypatch.setattr("drive_sync.mounts.mounts.__defaults__", (str(table),))
    calls = []
    store = Store(filled.folder, "aaa", disk=HostileDisk(lambda call, path: calls.append((call, path.name))))
    snapshot = store.snapshots()[0]
    other_name = filled.folder.parent / "other-name"
    watched = os.open(snapshot.path / "model.safetensors", os.O_RDONLY)
    os.link(snapshot.path / "optimizer" / "state.json", other_name)
    store.remove(snapshot)
    assert os.fstat(watched).st_size == 0
    os.close(watched)
    assert other_name.stat().st_size > 0  # a hard link shares the bytes, so there they stay
    discarded = [name for call, name in calls if call == "discard"]
    assert discarded[0] == MARKER and discarded[-1] == MANIFEST
    assert not snapshot.path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="no table of mounts tells which disks are this machine's")
def test_what_a_program_has_mapped_outlives_local_retention(filled):
    """Emptied under a mapping, a checkpoint that was resumed from would end the process with SIGBUS."""
    with ((filled.snapshots()[0].path / "model.safetensors").open("rb") as file,
          mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped):
        assert len(filled.retain("ckpt", 1)) == 2
        assert bytes(mapped) == b"\1" * 3000


def test_one_session_cannot_remove_what_another_uses(filled, checkpoint):
    earlier = filled
    later = Store(filled.folder, "bbb")
    theirs = later.publish(checkpoint(9), "ckpt-e0009-s000900", share=("frozen.safetensors",))
    with pytest.raises(PermissionError, match="belongs to another session"):
        earlier.remove(theirs)
    assert earlier.retain("ckpt", 1) != []
    assert theirs.verify() == []
    later.alive = lambda: {"aaa"}
    assert later.retain("ckpt", 1) == []
    assert [snapshot.session for snapshot in later.snapshots()] == ["aaa", "bbb"] or len(later.snapshots()) >= 1
    later.alive = frozenset
    later.retain("ckpt", 1)
    assert [snapshot.session for snapshot in later.snapshots()] == ["bbb"]
    assert theirs.verify() == []
    assert all("-bbb-" in path.name for path in (filled.folder / "shared").iterdir())


def test_a_damaged_shared_file_is_healed_by_its_spare_and_by_the_next_publish(filled, checkpoint):
    newest = filled.snapshots()[-1]
    stored = next(row.stored for row in newest.rows() if row.stored)
    (filled.folder / stored).write_bytes(b"")
    assert newest.verify() == []
    fresh = Store(filled.folder, "aaa")
    after = fresh.publish(checkpoint(4), "ckpt-e0004-s000400", share=("frozen.safetensors",))
    for path in (filled.folder / "shared").iterdir():
        path.write_bytes(b"\0" * path.stat().st_size)
    assert after.verify() != []
    again = Store(filled.folder, "aaa").publish(checkpoint(5), "ckpt-e0005-s000500", share=("frozen.safetensors",))
    assert again.verify() == []


def test_litter_of_killed_sessions_is_cleared(filled, checkpoint):
    for name in ("ckpt-e0001-s000150-aaa-g1", "ckpt-e0001-s000160-old-g1"):
        (filled.folder / name).mkdir()
        (filled.folder / name / "model.safetensors").write_bytes(b"half")
    later = Store(filled.folder, "bbb", now=lambda: 1e12)
    later.publish(checkpoint(9), "ckpt-e0009-s000900")
    later.retain("ckpt", 10)
    assert not list(filled.folder.glob("*s000150*")) and not list(filled.folder.glob("*s000160*"))
    assert len(later.snapshots()) == 4


@pytest.mark.parametrize("name", ["../../escape", "/etc/passwd", "a/b/c", "..", ".", "a/../../b"])
def test_a_strangers_manifest_cannot_reach_outside(filled, tmp_path, name):
    snapshot = filled.snapshots()[-1]
    manifest = json.loads((snapshot.path / MANIFEST).read_text())
    manifest["files"][0]["name"] = name
    data = json.dumps(manifest).encode()
    (snapshot.path / MANIFEST).write_bytes(data)
    (snapshot.path / MARKER).write_bytes(seal(data))
    assert "outside" in snapshot.verify()[0]
    with pytest.raises(SnapshotBroken, match="outside"):
        filled.fetch(snapshot, tmp_path / "here")


@pytest.mark.parametrize("manifest", [
    b"", b"[]", b"{}", b"null", b"[" * 100_000, b'{"format": 1}', b'{"format": 1, "snapshot": "NAME", "files": [1]}',
    b'{"format": 1, "snapshot": "NAME", "files": [{"name": 1, "size": 1, "sha256": ""}]}',
    b'{"format": 2, "snapshot": "NAME", "files": []}', b'{"format": 1, "snapshot": "other", "files": []}',
    b'{"format": 1, "snapshot": "NAME", "files": [{"name": "COMPLETE", "size": 1, "sha256": ""}]}'])
def test_a_sealed_manifest_that_is_none_is_skipped(filled, manifest):
    newest, said = filled.snapshots()[-1], []
    manifest = manifest.replace(b"NAME", newest.name.encode())
    (newest.path / MANIFEST).write_bytes(manifest)
    (newest.path / MARKER).write_bytes(seal(manifest))
    assert Store(filled.folder).latest("ckpt", said.append).step == 200
    assert len(said) == 1 and "its manifest" in said[0]


def test_nothing_is_left_out_of_a_snapshot_in_silence(store, checkpoint, monkeypatch):
    for number, (name, words) in enumerate({"a\\b": "backslash", "lost": "leads nowhere", "pipe": "leads nowhere"}.items()):
        source = checkpoint(number)
        if name == "lost":
            (source / name).symlink_to("/nowhere/at/all")
        elif name == "pipe":
            os.mkfifo(source / name)
        else:
            (source / name).write_text("x")
        with pytest.raises(ValueError, match=words):
            store.publish(source, "ckpt-e1-s1")
    source, real = checkpoint(7), os.scandir

    def stumbles(path):
        if str(path).endswith("optimizer"):
            raise OSError(errno.EIO, "EIO", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", stumbles)
    with pytest.raises(OSError, match="EIO"):
        store.publish(source, "ckpt-e1-s1")
    monkeypatch.undo()
    monkeypatch.setattr("drive_sync.source.MOST_FILES", 2)
    with pytest.raises(ValueError, match="many files times out"):
        store.publish(source, "ckpt-e1-s1")
    assert not store.folder.exists()


def test_bad_arguments_say_what_to_do(store, checkpoint, tmp_path):
    source = checkpoint()
    for label in ("ckpt", "ckpt-e1", "ckpt-1-2", "ckpt-e1-s1/..", "Ckpt-e1-s1"):
        with pytest.raises(ValueError, match="such as ckpt-e0012-s004800"):
            store.publish(source, label)
    with pytest.raises(ValueError, match="no file nowhere.bin to be shared"):
        store.publish(source, "ckpt-e1-s1", share=("nowhere.bin",))
    with pytest.raises(FileNotFoundError, match="no folder"):
        store.publish(tmp_path / "nothing", "ckpt-e1-s1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no files"):
        store.publish(tmp_path / "empty", "ckpt-e1-s1")
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "c").write_text("deep")
    with pytest.raises(ValueError, match="two folders down"):
        store.publish(source, "ckpt-e1-s1")
    with pytest.raises(ValueError, match="keep_last is 0"):
        store.retain("ckpt", 0)
    assert not store.folder.exists()


def test_what_the_local_disk_lost_is_not_published(filled, tmp_path):
    saved = filled.latest("ckpt")
    flipped = saved.path / "model.safetensors"
    flipped.write_bytes(b"\0" * flipped.stat().st_size)
    drive = Store(tmp_path / "drive2")
    with pytest.raises(ValueError, match="model.safetensors .* is not what was saved there"):
        drive.publish(saved, saved.label)
    assert drive.snapshots() == []


def test_moving_uses_no_space_of_its_own(store, checkpoint, tmp_path):
    source = checkpoint()
    expected = contents(source)
    inode = (source / "model.safetensors").stat().st_ino
    snapshot = store.publish(source, "ckpt-e1-s1", move=True)
    assert contents(snapshot.path) == expected and snapshot.verify() == []
    assert (snapshot.path / "model.safetensors").stat().st_ino == inode


def test_what_another_session_may_be_writing_is_left_alone(filled, checkpoint):
    """Its folder has no marker yet, or Drive shows its manifest empty yet: neither is litter."""
    young = filled.folder / "ckpt-e0001-s000150-old-g1"
    young.mkdir()
    (young / "model.safetensors").write_bytes(b"half")
    for snapshot in filled.snapshots():
        (snapshot.path / MANIFEST).write_bytes(b"")
    later = Store(filled.folder, "bbb")
    later.publish(checkpoint(9), "ckpt-e0009-s000900", share=("frozen.safetensors",))
    later.retain("ckpt", 10)
    assert (young / "model.safetensors").read_bytes() == b"half"
    assert sum("-aaa-" in path.name for path in (filled.folder / "shared").iterdir()) == 2


def test_litter_that_cannot_go_does_not_stop_publishing(filled, checkpoint):
    (filled.folder / "ckpt-e0001-s000150-old-g1").mkdir()
    stubborn = HostileDisk(Failing(errno.EACCES, ["discard", "discard_folder"]))
    later = Store(filled.folder, "bbb", disk=stubborn, now=lambda: 1e12)
    assert later.publish(checkpoint(9), "ckpt-e0009-s000900").verify() == []


def test_a_fetch_that_was_killed_is_cleared_away(filled, tmp_path):
    newest, here = filled.latest("ckpt"), tmp_path / "here"
    for name in (f".part-{newest.name}", ".part-ckpt-e0000-s000001-old-g1", ".part-ckpt-e0000-s000002-now-g1"):
        (here / name).mkdir(parents=True)
        (here / name / "half.bin").write_bytes(b"half")
    os.utime(here / ".part-ckpt-e0000-s000001-old-g1", (0, 0))
    assert contents(filled.fetch(newest, here)) == contents(tmp_path / "local" / "step-3")
    # one of the last hour may be at work
    assert {path.name for path in here.iterdir()} == {newest.name, ".part-ckpt-e0000-s000002-now-g1"}


def test_a_fetch_replaces_a_damaged_copy_and_leaves_none_half_done(filled, tmp_path):
    here = tmp_path / "here"
    newest = filled.latest("ckpt")
    fetched = filled.fetch(newest, here)
    (fetched / "model.safetensors").write_bytes(b"local damage")
    assert contents(filled.fetch(newest, here)) == contents(tmp_path / "local" / "step-3")
    (newest.path / "empty.txt").write_bytes(b"not empty")
    with pytest.raises(SnapshotBroken, match="empty.txt is missing or not as published"):
        filled.fetch(newest, tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []
