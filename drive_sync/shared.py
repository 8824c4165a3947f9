"""What several snapshots share (a frozen text encoder, say) is written once and named by its SHA-256.

A session leans only on files that it wrote itself, so no other session's clean-up can pull one away, whatever its
listing shows. Since every snapshot of a session leans on them there is one spare copy: `Store(copies=1)` has none.
"""
import itertools
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
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

    def put(self, source: Path, name: str, sha256: str | None = None) -> Row:
        """The manifest's row for `source`, which is written only where this session has no good copy of it yet.

        With `sha256`, what it has to be, it is not read at all where there is a copy.
        """
        row = Row(name, os.stat(source).st_size, sha256 or Digest(Disk().read(source)).consume().sha256)
        self._reach.make_folders(self._folder)
        alike = [blob for blob in self._reach.names(self._folder) if blob.startswith(row.sha256)]
        mine = [blob for blob in alike if owner_of(blob) and f"-{self._owner}." in blob and self._is_good(blob, row)]
        others = [blob for blob in alike if f"-{self._owner}." not in blob
                  and self._reach.size(self._folder / blob) == row.size]
        while not mine or len(mine) + len(others) < self._copies:
            mine.append(self._write(source, row))
        return Row(name, row.size, row.sha256, f"{SHARED}/{mine[0]}")

    def clear(self, in_use: Mapping[str, int], may_remove: Callable[[str, int], bool]) -> None:
        """Discards what no manifest names, where the session that wrote it is over or this one; `in_use` has sizes.

        Of what manifests do name, this session's own half copies, of tries that were cut off.
        """
        spared = {_without_copy(stored): size for stored, size in in_use.items()}
        for blob in self._reach.names(self._folder):
            owner, size = owner_of(blob), spared.get(_without_copy(f"{SHARED}/{blob}"))
            if not owner:
                continue
            is_half = f"-{self._owner}." in blob and self._reach.size(self._folder / blob) != size
            if is_half or (size is None and may_remove(*owner)):
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
            blob, copy = f"{row.sha256}-{self._owner}.{number}", Digest(Disk().read(source))
            try:
                self._reach.write(self._folder / blob, copy)
                if copy.sha256 != row.sha256:
                    raise ValueError(f"{source.name} in {source.parent} is not what was saved there: the local disk lost it, or "
                                     "something writes to it while it is published.")
            except FileExistsError:
                continue
            except Exception:
                with suppress(OSError):
                    self._reach.disk.discard(self._folder / blob)  # a half copy takes space that the next try may need
                raise
            self._known_good.add(blob)
            return blob
        raise AssertionError("itertools.count ended")
