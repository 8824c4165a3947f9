"""A Disk whose every call a test may delay, refuse, or never come back from; and small things all tests need."""
import errno
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from drive_sync.disk import Disk

WRITING = ("make_folder", "write", "write_half", "flush", "flush_folder", "rename", "discard",
           "discard_folder")
READING = ("names", "size", "is_folder", "changed", "read", "attribute", "free")
Before = Callable[[str, Path], object]


class HostileDisk(Disk):
    """Calls `before(name of the call, path)` ahead of each call; what that raises is what the mount answers.

    A write has two such moments: "write" before the file is there, "write_half" when half of it is.
    """

    def __init__(self, before: Before):
        self.before = before

    def write(self, path: Path, blocks: Iterable[bytes]) -> None:
        self.before("write", path)

        def halved() -> Iterator[bytes]:
            for block in blocks:
                block = bytes(block)
                yield block[: len(block) // 2]
                self.before("write_half", path)
                yield block[len(block) // 2:]

        super().write(path, halved())


def _watched(name: str) -> Callable:
    call = getattr(Disk, name)

    def watched(self: HostileDisk, path: Path, *rest: object) -> object:
        self.before(name, path)
        return call(self, path, *rest)

    return watched


for _name in (*WRITING, *READING):
    if _name not in ("write", "write_half"):
        setattr(HostileDisk, _name, _watched(_name))


class Failing:
    """Refuses calls with an errno while it is set; counts what it refused."""

    def __init__(self, number: int | None = None, calls: Iterable[str] = (*WRITING, *READING)):
        self.number, self.calls, self.refused = number, frozenset(calls), 0

    def __call__(self, call: str, path: Path) -> None:
        if self.number is not None and call in self.calls:
            self.refused += 1
            raise OSError(self.number, os.strerror(self.number), str(path))


class KillAt:
    """SIGKILL before the n-th writing call (0 is the first): the machine is gone, nothing is cleaned up."""

    def __init__(self, moment: int):
        self.left = moment

    def __call__(self, call: str, path: Path) -> None:
        if call in WRITING:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1


class Drive(HostileDisk):
    """A disk with DriveFS's extended attributes: files stay uncommitted until `upload()` is called."""

    def __init__(self):
        super().__init__(lambda call, path: None)
        self.uploaded: set[Path] = set()
        self.checksum: dict[Path, str] = {}

    def upload(self, folder: Path) -> None:
        self.uploaded |= {path for path in folder.rglob("*") if path.is_file()}

    def attribute(self, path: Path, name: str) -> str | None:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        there = path in self.uploaded
        return {"user.drive.uncommitted": "0" if there else "1", "user.drive.id": "1abc" if there else "local-7",
                "user.drive.md5": self.checksum.get(path)}.get(name)


def make_folder(folder: Path, step: int = 1) -> Path:
    """A checkpoint of four small files, one of them the same at every step, one in a folder."""
    (folder / "optimizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes([step % 256]) * 3000)
    (folder / "optimizer" / "state.json").write_bytes(b'{"step": %d}' % step)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "frozen.safetensors").write_bytes(b"frozen" * 1000)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of what a person put there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in ("manifest.json", "COMPLETE")}
