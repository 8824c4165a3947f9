"""A folder of snapshots with write-once names, on the local disk or on a mounted Drive: the same code for both."""
import errno
import secrets
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

from drive_sync.disk import Disk
from drive_sync.errors import SnapshotBroken
from drive_sync.manifest import MANIFEST, MARKER, SHARED, Digest, Row, encode, seal
from drive_sync.names import Name
from drive_sync.reach import Reach, pause
from drive_sync.retention import Retention
from drive_sync.shared import SharedFiles, owner_of
from drive_sync.snapshot import Snapshot
from drive_sync.source import source_files, source_rows
from drive_sync.transfer import fetch


class Store:
    """Snapshots in `folder`. Making a Store writes nothing; DriveUnavailable where its mount is not there."""

    def __init__(self, folder: str | Path, session: str | None = None, *, generation: int | None = None,
                 mountpoint: str | Path | None = None, copies: int = 2, disk: Disk | None = None,
                 pause: Callable[[float], None] = pause, now: Callable[[], float] = time.time):
        self.reach = Reach(folder, disk, mountpoint, pause)
        self.folder = self.reach.folder
        self.session = session or secrets.token_hex(3)
        Name.of("check-e0-s0", self.session, 1)  # a session that fits no name fails here, not hours later
        self.alive: Callable[[], Collection[str]] = frozenset  # sessions whose files are not ours to remove: the lease
        self.now = now
        self.stored_for: dict[str, dict[str, int]] = {}  # snapshot -> shared files its manifest names, with sizes
        self._generation, self._copies, self._shared = generation, copies, None
        self._tries: dict[str, int] = {}
        self._cleared = False
        self._lock = threading.RLock()  # a clean-up never runs into a publish of the same store

    @property
    def generation(self) -> int:
        """One more than any session before this one had, fixed at the first look; DriveUnavailable."""
        if self._generation is None:
            owners = [(name.session, name.generation) for name in self.all_names()]
            owners += [owner for blob in self.reach.names(self.folder / SHARED) if (owner := owner_of(blob))]
            mine = [number for session, number in owners if session == self.session]
            self._generation = max(mine, default=max((number for _, number in owners), default=0) + 1)
        return self._generation

    @generation.setter
    def generation(self, number: int) -> None:
        self._generation, self._shared = number, None

    def all_names(self) -> list[Name]:
        """The names of all snapshots, finished or not, oldest to newest."""
        found = (Name.parse(text) for text in self.reach.names(self.folder))
        return sorted((name for name in found if name), key=lambda name: name.order)

    def snapshots(self, kind: str | None = None) -> list[Snapshot]:
        """The finished ones, oldest to newest; [] only where it is certain that there are none. DriveUnavailable."""
        return [snapshot for snapshot in self._snapshots(kind) if snapshot.is_finished()]

    def latest(self, kind: str, report: Callable[[str], object] = print) -> Snapshot | None:
        """The newest whose every byte verifies. `report` is told which newer ones were skipped, and why."""
        for snapshot in reversed(self._snapshots(kind)):
            problems = snapshot.verify()
            if not problems:
                return snapshot
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            report(f"{snapshot.name} was skipped: {problems[0]}{more}.")
        return None

    def publish(self, folder: str | Path | Snapshot, label: str, share: Collection[str] = (), move: bool = False,
                sha256: Mapping[str, str] | None = None) -> Snapshot:
        """Data, then the manifest, then the marker; `share` names files to be stored once for many snapshots.

        `move` renames a folder's files on the same disk instead of copying them; the folder is used up by the try.
        `sha256` is what files have to be: a snapshot knows that itself, a copy of one does not.
        Raises ValueError for a bad label or folder, DriveUnavailable, OSError where the disk is full.
        """
        sources = source_files(folder)
        saved = dict(sha256 or {name: row.sha256 for name, row in source_rows(folder).items()})
        absent = set(share) - sources.keys()
        if absent:
            raise ValueError(f"{folder} has no file {min(absent)} to be shared; it holds {', '.join(sorted(sources))}.")
        with self._lock, self.reach.guard():
            self._make_room()
            snapshot = self._claim(label)
            try:
                rows = [self.shared.put(path, name, saved.get(name)) if name in share
                        else self._put(snapshot, name, path, move) for name, path in sources.items()]
                changed = [row.name for row in rows if saved.get(row.name, row.sha256) != row.sha256]
                if changed:
                    raise ValueError(f"{changed[0]} in {folder} is not what was saved there: the local disk lost it.")
                self._finish(snapshot, rows)
            except Exception:
                with suppress(OSError):
                    self._discard(snapshot)  # a half snapshot takes space that the next try may need
                raise
        return snapshot

    def fetch(self, snapshot: Snapshot, into: str | Path) -> Path:
        """A whole local copy `into/<name>`, every hash checked; SnapshotBroken, DriveUnavailable. All or nothing."""
        return fetch(snapshot, Path(into))

    def fetch_latest(self, kind: str, into: str | Path, report: Callable[[str], object] = print,
                     during: Callable[[Snapshot], AbstractContextManager] = nullcontext) -> tuple[Snapshot, Path] | None:
        """`latest` and `fetch` in one, reading each byte once: on a new machine that is half the download.

        `during(snapshot)` is entered for each try.
        """
        for snapshot in reversed(self._snapshots(kind)):
            try:
                with during(snapshot):
                    return snapshot, self.fetch(snapshot, into)
            except SnapshotBroken as broken:
                report(f"{snapshot.name} was skipped: {broken}.")
        return None

    def fetch_unsealed(self, kind: str, into: str | Path, report: Callable[[str], object] = print) -> tuple[
            Snapshot, Path] | None:
        """The newest that has lost nothing but its marker, as a local copy that has one again.

        For where nothing is finished: one that is being removed looks the same.
        """
        for snapshot in reversed(self._snapshots(kind)):
            with suppress(SnapshotBroken):
                folder = self.fetch(replace(snapshot, unsealed=True), into)
                report(f"{snapshot.name} has lost its marker, but every byte of it is as it was published: it is used.")
                return snapshot, folder
        return None

    def remove(self, snapshot: Snapshot) -> None:
        """Marker first, then the rest, each emptied and deleted; PermissionError for what another session owns."""
        if not self.may_remove(snapshot.session, snapshot.generation):
            raise PermissionError(errno.EPERM, f"{snapshot.name} belongs to another session of this run, which may "
                                               "still be using it. End that one first.")
        with self._lock, self.reach.guard():
            self._discard(snapshot)

    def retain(self, kind: str, keep_last: int, keep: Collection[str] = ()) -> list[str]:
        """Removes what is older than the last `keep_last` good ones and not labelled in `keep`; returns the names."""
        with self._lock, self.reach.guard():
            return Retention(self).apply(kind, keep_last, keep)

    def may_remove(self, session: str, generation: int) -> bool:
        """Whether this session may delete what that one wrote: its own, or of one before it that is over."""
        return session == self.session or (generation < self.generation and session not in self.alive())

    @property
    def shared(self) -> SharedFiles:
        """The shared files, as this session writes them."""
        if self._shared is None:
            self._shared = SharedFiles(self.reach, self.session, self.generation, self._copies)
        return self._shared

    def _snapshots(self, kind: str | None) -> list[Snapshot]:
        return [Snapshot(name, self.reach) for name in self.all_names() if kind in (None, name.kind)]

    def _make_room(self) -> None:
        """Once, before the first publish: half snapshots of sessions that were killed take the space of whole ones."""
        if not self._cleared:
            self._cleared = True
            with suppress(OSError):  # litter that will not go is no reason not to publish
                Retention(self).clear_litter()

    def _claim(self, label: str) -> Snapshot:
        """A new folder for a label. A name that exists, or that failed before, is never used again."""
        Name.of(label, self.session, self.generation)
        self.reach.make_folders(self.folder)
        while True:
            self._tries[label] = self._tries.get(label, 0) + 1
            snapshot = Snapshot(Name.of(label, self.session, self.generation, self._tries[label]), self.reach)
            with suppress(FileExistsError):
                self.reach.disk.make_folder(snapshot.path)
                return snapshot

    def _put(self, snapshot: Snapshot, name: str, source: Path, move: bool) -> Row:
        """Writes one file and returns its row: read, hashed and written in one go."""
        reach, target = self.reach, snapshot.path / name
        if target.parent != snapshot.path:
            with suppress(FileExistsError):
                reach.disk.make_folder(target.parent)
        if move:
            content = Digest(reach.read(source)).consume()
            reach.disk.flush(source)
            reach.disk.rename(source, target)
        else:
            content = Digest(Disk().read(source))
            reach.write(target, content)
        return Row(name, content.size, content.sha256)

    def _finish(self, snapshot: Snapshot, rows: list[Row]) -> None:
        """The manifest, then the marker, each flushed before what follows it."""
        disk, manifest = self.reach.disk, encode(snapshot.parts, rows)
        for folder in {(snapshot.path / row.name).parent for row in rows if row.stored is None}:
            disk.flush_folder(folder)
        self.reach.write(snapshot.path / MANIFEST, [manifest])
        disk.flush_folder(snapshot.path)
        self.reach.write(snapshot.path / MARKER, [seal(manifest)])
        disk.flush_folder(snapshot.path)
        disk.flush_folder(self.folder)

    def _discard(self, snapshot: Snapshot) -> None:
        """Deletes a snapshot's folder: marker first, manifest last, so that no moment shows half of one as whole."""
        disk = self.reach.disk
        if not disk.is_folder(snapshot.path):  # a person's file with such a name, or gone
            return
        disk.discard(snapshot.path / MARKER)
        for name in self.reach.names(snapshot.path):
            inner = snapshot.path / name
            if disk.is_folder(inner):
                for deeper in self.reach.names(inner):
                    disk.discard(inner / deeper)
                disk.discard_folder(inner)
            elif name != MANIFEST:
                disk.discard(inner)
        disk.discard(snapshot.path / MANIFEST)
        disk.discard_folder(snapshot.path)
