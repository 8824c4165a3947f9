"""What is handed over but not on Drive yet, kept on the local disk so that it outlives the process that saved it."""
import errno
import json
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from drive_sync.snapshot import Snapshot
from drive_sync.source import source_files

_ITEM = "item.json"


@dataclass(frozen=True)
class Spooled:
    """One entry of the spool: the folder to discard, the files in it, and what they are to be published as."""
    folder: Path
    label: str
    share: tuple[str, ...]

    @property
    def files(self) -> Path:
        return self.folder / "files"

    def discard(self) -> None:
        """Frees the local disk; the description goes first, for what has none does not exist."""
        (self.folder / _ITEM).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Spool:
    """A local folder with one entry for each item that waits."""

    def __init__(self, folder: str | Path):
        self._folder = Path(folder).expanduser().absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        for half in set(self._folder.iterdir()) - set(self._entries()):  # its process died on the way in or out
            shutil.rmtree(half, ignore_errors=True)
        self._count = max((int(path.name.split("-")[0]) for path in self._entries()), default=0)

    def add(self, source: str | Path | Snapshot, label: str, share: Collection[str]) -> Spooled:
        """Takes a finished folder over. Hard links where the disk has them, so that nothing is copied."""
        self._count += 1
        folder = self._folder / f"{self._count:06d}-{label}"
        part = folder.with_name(folder.name + ".part")
        try:
            for name, path in source_files(source).items():
                target = part / "files" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(path, target)
            (part / _ITEM).write_text(json.dumps({"label": label, "share": list(share)}), encoding="utf-8")
            os.rename(part, folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
        return Spooled(folder, label, tuple(share))

    def left_over(self) -> Iterator[Spooled]:
        """What an earlier process saved and did not bring to Drive, oldest first."""
        for folder in self._entries():
            item = json.loads((folder / _ITEM).read_text(encoding="utf-8"))
            yield Spooled(folder, item["label"], tuple(item["share"]))

    def _entries(self) -> list[Path]:
        return sorted(path.parent for path in self._folder.glob(f"[0-9]*-*/{_ITEM}") if path.parent.suffix != ".part")


def _link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the disk has no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS}:
            raise
        shutil.copyfile(source, target)
