"""What a snapshot says about itself: a manifest with every file's size and SHA-256, and a marker that seals it."""
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath

from drive_sync.errors import SnapshotBroken
from drive_sync.names import Name

MANIFEST, MARKER, SHARED = "manifest.json", "COMPLETE", "shared"
FORMAT = 1


@dataclass(frozen=True)
class Row:
    """One file: its name in the snapshot, its size in bytes, its SHA-256, and for a shared one where it is stored."""
    name: str
    size: int
    sha256: str
    stored: str | None = None


class Digest:
    """Passes blocks through and remembers their size and SHA-256, and their MD5 if asked."""

    def __init__(self, blocks: Iterable[bytes], md5: bool = False):
        self._blocks, self._hash, self.size = blocks, hashlib.sha256(), 0
        self._md5 = hashlib.md5(usedforsecurity=False) if md5 else None

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            self._hash.update(block)
            if self._md5 is not None:
                self._md5.update(block)
            self.size += len(block)
            yield block

    def consume(self) -> "Digest":
        """Reads all blocks for their hash alone."""
        for _ in self:
            pass
        return self

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def md5(self) -> str:
        return self._md5.hexdigest() if self._md5 is not None else ""


def encode(name: Name, rows: Iterable[Row]) -> bytes:
    """The manifest as bytes: the same rows give the same bytes."""
    files = [{key: value for key, value in asdict(row).items() if value is not None} for row in rows]
    text = {"format": FORMAT, "snapshot": str(name), "bytes": sum(row["size"] for row in files), "files": files}
    return json.dumps(text, indent=1, sort_keys=True).encode() + b"\n"


def seal(manifest: bytes) -> bytes:
    """The marker's content: a marker that Drive emptied, or that belongs to another manifest, seals nothing."""
    return hashlib.sha256(manifest).hexdigest().encode() + b"\n"


def decode(manifest: bytes, name: Name) -> list[Row]:
    """The rows of a manifest whose seal was checked; SnapshotBroken where they name files outside the snapshot."""
    try:
        found = json.loads(manifest)
        if found["format"] != FORMAT:
            raise SnapshotBroken(f"its manifest has format {found['format']}, this version reads format {FORMAT}")
        if found["snapshot"] != str(name):
            raise SnapshotBroken(f"its manifest belongs to {found['snapshot']}")
        rows = [Row(row["name"], row["size"], row["sha256"], row.get("stored")) for row in found["files"]]
        for row in rows:
            if not is_inside(row.name) or (row.stored is not None and not is_inside(row.stored, SHARED)):
                raise SnapshotBroken(f"its manifest names a file outside of it: {row.name!r}")
        return rows
    except SnapshotBroken:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SnapshotBroken(f"its manifest is none ({type(error).__name__}: {error})") from None


def is_inside(name: str, folder: str | None = None) -> bool:
    """Whether a name from a manifest is a plain file, or one in one folder (`folder`, if given): never a way out."""
    path = PurePosixPath(name)
    plain = str(path) == name and "\\" not in name and not path.is_absolute() and ".." not in path.parts
    inside = plain and name not in (".", MANIFEST, MARKER) and 1 <= len(path.parts) <= 2
    return inside and (folder is None or path.parts[:-1] == (folder,))
