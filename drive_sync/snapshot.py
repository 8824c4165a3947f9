"""One published snapshot: what it holds, where each file is, and whether its bytes are those that were published."""
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drive_sync.errors import SnapshotBroken
from drive_sync.manifest import MANIFEST, MARKER, SHARED, Row, decode, seal
from drive_sync.names import Name
from drive_sync.reach import Reach


@dataclass(frozen=True)
class Snapshot:
    """A folder in a store. Its files never change; whether they arrived whole is what `verify` is for."""
    parts: Name
    reach: Reach = field(repr=False, compare=False)
    unsealed: bool = field(default=False, repr=False, compare=False)  # its marker is lost: only its manifest is asked

    name = property(lambda self: str(self.parts), doc="The folder's name.")
    label = property(lambda self: self.parts.label, doc="Kind, epoch and step: `ckpt-e0012-s004800`.")
    kind = property(lambda self: self.parts.kind, doc="The label's first part: `ckpt`.")
    epoch = property(lambda self: self.parts.epoch)
    step = property(lambda self: self.parts.step)
    session = property(lambda self: self.parts.session, doc="Who wrote it.")
    generation = property(lambda self: self.parts.generation, doc="The how-manieth session of the run that was.")

    @property
    def path(self) -> Path:
        """The folder itself. Files that are shared are not in it: `Store.fetch` puts all of them together."""
        return self.reach.folder / self.name

    @classmethod
    def at(cls, path: str | Path) -> "Snapshot | None":
        """The snapshot whose folder `path` is; None where it is no finished one."""
        path = Path(path).absolute()
        parts = Name.parse(path.name)
        if parts is None:
            return None
        snapshot = cls(parts, Reach(path.parent))
        return snapshot if snapshot.is_finished() else None

    def is_finished(self) -> bool:
        """Whether it has its marker, without which it does not exist; DriveUnavailable where nobody can tell.

        A marker of another size is one that is not written, or not uploaded, to its end.
        """
        return self.reach.size(self.path / MARKER) == len(seal(b""))

    def rows(self) -> list[Row]:
        """The manifest, checked against its marker; SnapshotBroken where they are not as published."""
        if self.unsealed:
            return self._unsealed_rows()
        if not self.is_finished():
            raise SnapshotBroken("it has no whole marker, so it was never finished")
        if self.reach.size(self.path / MANIFEST) is None:
            raise SnapshotBroken("its manifest is missing")
        try:
            manifest, marker = (self.reach.content(self.path / name) for name in (MANIFEST, MARKER))
        except FileNotFoundError:
            raise SnapshotBroken("it is being removed") from None
        if marker != seal(manifest):
            raise SnapshotBroken("its manifest and its marker do not belong together")
        return decode(manifest, self.parts)

    def _unsealed_rows(self) -> list[Row]:
        try:
            return decode(self.reach.content(self.path / MANIFEST), self.parts)
        except (FileNotFoundError, NotADirectoryError):
            raise SnapshotBroken("it has no manifest, so it was never finished") from None

    def verify(self, deep: bool = True, reread: bool = True) -> list[str]:
        """What is wrong, one phrase each; [] when every byte is as published. `deep=False` compares sizes only.

        Without `reread`, shared files that this process has read and found whole are not read again.
        """
        try:
            rows = self.rows()
        except SnapshotBroken as problem:
            return [str(problem)]
        problems = [problem for row in rows if (problem := self._problem(row, deep, reread))]
        if deep and not problems:
            self.reach.verified.add(self.name)
        return problems

    def places(self, row: Row) -> Iterator[Path]:
        """Where a file may be: in the folder, in the shared file that the manifest names, in any copy of that one."""
        yield self.path / row.name
        if row.stored is None:
            return
        yield self.reach.folder / row.stored
        shared = self.reach.folder / SHARED
        yield from (shared / name for name in self.reach.names(shared)
                    if name.startswith(row.sha256) and f"{SHARED}/{name}" != row.stored)

    def locate(self, row: Row) -> Path:
        """A file's place, by its size alone; SnapshotBroken where it is nowhere."""
        for place in self.places(row):
            if self.reach.size(place) == row.size:
                return place
        raise SnapshotBroken(f"{row.name} is missing or has another size")

    def content(self, name: str) -> bytes:
        """The bytes of one small file as they were published; SnapshotBroken where they are not to be had."""
        row = next((row for row in self.rows() if row.name == name), None)
        if row is None:
            raise SnapshotBroken(f"it holds no {name}")
        try:
            content = self.reach.content(self.locate(row))
        except FileNotFoundError:
            raise SnapshotBroken("it is being removed") from None
        if hashlib.sha256(content).hexdigest() != row.sha256:
            raise SnapshotBroken(f"its {name} is not as it was published")
        return content

    def files(self) -> list[Path]:
        """Every file that this snapshot leans on, shared ones included; SnapshotBroken where one is missing."""
        return [*(self.locate(row) for row in self.rows()), self.path / MANIFEST, self.path / MARKER]

    def _problem(self, row: Row, deep: bool, reread: bool) -> str | None:
        """Why a file is not as published, None when a good copy of it was found."""
        found = "is missing"
        for place in self.places(row):
            size = self.reach.size(place)
            if size == row.size:
                if not deep or self._has_content(place, row, reread):
                    return None
                found = "has the right size but other content (its SHA-256 differs)"
            elif size is not None:
                found = f"has {size} bytes, expected {row.size}"
        return f"{row.name} {found}"

    def _has_content(self, place: Path, row: Row, reread: bool) -> bool:
        """Whether a file's bytes are those of a row."""
        if row.stored is not None and not reread and (place, row.sha256) in self.reach.whole:
            return True
        try:
            found = self.reach.digest(place).sha256 == row.sha256
        except FileNotFoundError:  # removed since it was listed
            return False
        if found:
            self.reach.whole.add((place, row.sha256))
        return found
