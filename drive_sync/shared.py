"""What several snapshots share (a frozen text encoder, say) is written once and named by its SHA-256.

A session leans only on files that it wrote itself, so no other session's clean-up can pull one away, whatever its
listing shows. Since every snapshot of a session leans on them there is one spare copy: `Store(copies=1)` has none.
"""
import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from drive_sync.disk import Disk
from drive_sync.manifest import SHARED, Digest, Row
from drive_sync.reach import Reach

_BLOB = re.compile(r"(?P<sha256>[0-9a-f]{64})-(?P<session>[a-z0-9]+)-g(?P<generation>\d+)\.(?P<copy>\d+)")


def owner_of(blob: str) -> tuple[str, int] | None:
    """Session and generation that wrote a shared file; None for a file that is none of ours."""
    found = _BLOB.fullmatch(blob)
    return (found["session"], int(found["generation"])) if found else None


def _without_copy(stored: str) -> str:
    """Content and writer: a spare stays as long as the copy that manifests name."""
    return stored.rpartition(".")[0]


class SharedFiles:
    """The store's folder `shared/`, as one session writes to it."""

    def __init__(self, reach: Reach, session: str, generation: int, copies: int = 2):
        self._reach, self._folder = reach, reach.folder / SHARED
        self._owner, self._copies = f"{session}-g{generation}", copies
        self._known_good: set[str] = set()

    def put(self, source: Path, name: str) -> Row:
        """The manifest's row for `source`, which is written only where this session has no good copy of it yet."""
        digest = Digest(Disk().read(source)).consume()
        row = Row(name, digest.size, digest.sha256)
        self._reach.disk.make_folders(self._folder)
        alike = [blob for blob in self._reach.names(self._folder) if blob.startswith(row.sha256)]
        mine = [blob for blob in alike if owner_of(blob) and f"-{self._owner}." in blob and self._is_good(blob, row)]
        others = [blob for blob in alike if f"-{self._owner}." not in blob
                  and self._reach.size(self._folder / blob) == row.size]
        while not mine or len(mine) + len(others) < self._copies:
            mine.append(self._write(source, row))
        return Row(name, row.size, row.sha256, f"{SHARED}/{mine[0]}")

    def clear(self, in_use: Iterable[str], may_remove: Callable[[str, int], bool]) -> None:
        """Discards what no manifest names, where the session that wrote it is over or this one."""
        spared = {_without_copy(stored) for stored in in_use}
        for blob in self._reach.names(self._folder):
            owner = owner_of(blob)
            if owner and _without_copy(f"{SHARED}/{blob}") not in spared and may_remove(*owner):
                self._known_good.discard(blob)
                self._reach.disk.discard(self._folder / blob)

    def _is_good(self, blob: str, row: Row) -> bool:
        """Whether a copy is whole: its size each time, its content once."""
        if self._reach.size(self._folder / blob) != row.size:
            return False
        if blob not in self._known_good and self._reach.digest(self._folder / blob).sha256 == row.sha256:
            self._known_good.add(blob)
        return blob in self._known_good

    def _write(self, source: Path, row: Row) -> str:
        """A new copy under a name that is free."""
        for number in itertools.count(1):
            blob = f"{row.sha256}-{self._owner}.{number}"
            try:
                copy = Digest(Disk().read(source))
                self._reach.disk.write(self._folder / blob, copy)
            except FileExistsError:
                continue
            if copy.sha256 != row.sha256:
                raise ValueError(f"{source} changed while it was published. Hand over a folder that nothing writes to.")
            self._known_good.add(blob)
            return blob
        raise AssertionError("itertools.count ended")
