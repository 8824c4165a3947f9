"""What is handed over but not on Drive yet, kept on the local disk so that it outlives the process that saved it."""
import errno
import json
import os
import re
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from drive_sync.disk import Disk
from drive_sync.lock import FolderLock
from drive_sync.snapshot import Snapshot
from drive_sync.source import source_files, source_rows

_ITEM = "item.json"
_ENTRY = re.compile(r"(?P<number>\d{6,})-[a-z]+-e\d+-s\d+(?P<half>\.part)?")


@dataclass(frozen=True)
class Spooled:
    """One entry of the spool: the folder to discard, the files in it, and what they are to be published as.

    `sha256` has what a snapshot said of its files when it was handed over; {} for a plain folder.
    """
    folder: Path
    label: str
    share: tuple[str, ...]
    sha256: Mapping[str, str]
    spool: "Spool" = field(repr=False, compare=False)

    @property
    def files(self) -> Path:
        return self.folder / "files"

    def discard(self) -> None:
        """Frees the local disk, unless the spool was given to the next one; the description goes first."""
        self.spool.discard(self.folder)


class Spool:
    """A local folder with one entry for each item that waits, for one publisher at a time: SpoolInUse."""

    def __init__(self, folder: str | Path):
        self._folder = Path(folder).expanduser().absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock: FolderLock | None = FolderLock(self._folder)
        self._guard = threading.RLock()  # a signal's handler may come in between
        self._count = 0
        for path, number, is_half in list(self._own_folders()):
            self._count = max(self._count, number)
            with suppress(OSError):  # what cannot be read is neither published nor deleted
                if is_half or _description(path) is None:  # its process died on the way in or out
                    _discard(path)

    def add(self, source: str | Path | Snapshot, label: str, share: Collection[str]) -> Spooled:
        """Takes a finished folder over. Hard links where the disk has them, so that nothing is copied."""
        self._count += 1
        folder = self._folder / f"{self._count:06d}-{label}"
        part = folder.with_name(folder.name + ".part")
        sha256 = {name: row.sha256 for name, row in source_rows(source).items()}
        text = json.dumps({"label": label, "share": list(share), "sha256": sha256}).encode()
        try:
            for name, path in source_files(source).items():
                target = part / "files" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(path, target)
            Disk().write(part / _ITEM, [text])
            os.rename(part, folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return Spooled(folder, label, tuple(share), sha256, self)

    def left_over(self) -> Iterator[Spooled]:
        """What an earlier process saved and did not bring to Drive, oldest first."""
        for path, _, is_half in sorted(self._own_folders()):
            item = None
            with suppress(OSError):
                item = None if is_half else _description(path)
            if item is not None:
                yield Spooled(path, item["label"], tuple(item["share"]), item.get("sha256", {}), self)

    def discard(self, folder: Path) -> None:
        """Deletes an entry; one that the next publisher may be reading by now stays."""
        with self._guard:
            if self._lock is not None:
                _discard(folder)

    def release(self) -> None:
        """Gives the folder to the next one; what is in it stays."""
        with self._guard:
            lock, self._lock = self._lock, None
            if lock is not None:
                lock.release()

    def _own_folders(self) -> Iterator[tuple[Path, int, bool]]:
        """Folders with names that a spool gives: what else a person keeps here is not touched."""
        for path in self._folder.iterdir():
            if found := _ENTRY.fullmatch(path.name):
                yield path, int(found["number"]), found["half"] is not None


def _description(folder: Path) -> dict | None:
    """What an entry is to be published as; None where it was not finished, or was half discarded."""
    try:
        item = json.loads((folder / _ITEM).read_text(encoding="utf-8"))
        whole = isinstance(item["label"], str) and isinstance(item["share"], list) and source_files(folder / "files")
        return item if whole else None
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _discard(folder: Path) -> None:
    with suppress(OSError):
        (folder / _ITEM).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the disk has no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}:
            raise
        shutil.copyfile(source, target)
