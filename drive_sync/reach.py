"""Reaching a folder that may be on a mount: a dead mount is told apart from an empty folder, always."""
import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from drive_sync.disk import Disk
from drive_sync.errors import DEAD, DriveUnavailable, unavailable
from drive_sync.manifest import Digest
from drive_sync.mounts import Mount, mount_of, require_mounted, resolved

T = TypeVar("T")
# Drive answers these now and then and is fine a moment later; ENOTCONN stays until someone mounts again.
PASSING = frozenset({errno.EIO, errno.ETIMEDOUT, errno.ESTALE})
# Seconds before each new try of a read.
READ_AGAIN_AFTER = (0.5, 2.0, 8.0)
MD5 = "user.drive.md5"  # the attribute in which Drive tells what it has, on some mounts


def pause(seconds: float) -> None:
    """Waits; the tests give a Reach one that does not."""
    threading.Event().wait(seconds)


def within(seconds: float, call: Callable[[], T]) -> T:
    """What `call()` returns; TimeoutError where it does not come back. A call that hangs cannot be ended, only left."""
    outcome: list[tuple[T | None, BaseException | None]] = []

    def work() -> None:
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=work, name="drive_sync call", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


class Reach:
    """A folder, the disk calls for it, and the mount it was on when this began.

    `on_bytes` is told of each block that was read or written. `whole` and `verified` are what this process has read and
    found as published: (file, SHA-256), and names of snapshots.
    """

    def __init__(self, folder: str | Path, disk: Disk | None = None, mountpoint: str | Path | None = None,
                 pause: Callable[[float], None] = pause):
        self.folder = resolved(Path(folder).expanduser())
        self.disk = disk or Disk()
        self.on_bytes: Callable[[int], object] = lambda count: None
        self.verified: set[str] = set()
        self.whole: set[tuple[Path, str]] = set()
        self._md5: dict[Path, str] = {}
        self._pause = pause
        require_mounted(self.folder, resolved(mountpoint) if mountpoint else None)
        self._mount: Mount | None = mount_of(self.folder)

    def check(self) -> None:
        """Raises DriveUnavailable where the mount that held the folder is no longer there, or is another one."""
        require_mounted(self.folder, self._mount.point if self._mount else None)
        now = mount_of(self.folder)
        # An automounter's own entry is replaced by what it mounts.
        if now != self._mount and (self._mount is None or self._mount.kind != "autofs"):
            raise DriveUnavailable(errno.ESTALE, f"something else was mounted at {now.point} meanwhile, so {self.folder} "
                                                 "is another folder than before. Run this again from the start")

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turns the errors of a dead mount into DriveUnavailable. All others pass: they are answers."""
        self.check()
        try:
            yield
        except DriveUnavailable:
            raise
        except OSError as error:
            if error.errno in DEAD:
                raise unavailable(error, self.folder) from error
            self.check()  # a file that is "not there" because the mount went away meanwhile
            raise

    def again(self, read: Callable[[], T]) -> T:
        """What `read()` returns, tried a few times where the mount stumbles; DriveUnavailable where it is dead."""
        with self.guard():
            for seconds in READ_AGAIN_AFTER:
                try:
                    return read()
                except OSError as error:
                    if error.errno not in PASSING:
                        raise
                    self._pause(seconds)
            return read()

    def names(self, folder: Path) -> list[str]:
        """What a folder holds, sorted; [] where it is certain that there is none."""
        return self.again(lambda: self.disk.names(folder))

    def size(self, path: Path) -> int | None:
        """Bytes of a file; None where it is certain that there is none."""
        return self.again(lambda: self.disk.size(path))

    def content(self, path: Path) -> bytes:
        """A small file."""
        return self.again(lambda: b"".join(self.disk.read(path)))

    def read(self, path: Path) -> Iterator[bytes]:
        """A file in blocks, each of them told."""
        for block in self.disk.read(path):
            yield block
            self.on_bytes(len(block))

    def write(self, path: Path, blocks: Iterable[bytes]) -> None:
        """A new file, each block of it told; FileExistsError where the name is taken."""
        def told() -> Iterator[bytes]:
            for block in blocks:
                yield block
                self.on_bytes(len(block))

        self.disk.write(path, told())

    def make_folders(self, folder: Path) -> None:
        """`folder`, in this one or this one itself, and what leads to it.

        Level by level, so that what belongs under a mount that goes away meanwhile is not made in its place.
        """
        missing = []
        while not self.disk.is_folder(folder):
            missing.append(folder)
            folder = folder.parent
        for level in reversed(missing):
            self.check()
            with suppress(FileExistsError):
                self.disk.make_folder(level)
            try:
                self.check()
            except DriveUnavailable:
                with suppress(OSError):
                    self.disk.discard_folder(level)
                raise

    def digest(self, path: Path) -> Digest:
        """Size and SHA-256 of a file; where Drive tells its MD5, that of these bytes too, for `md5`: one reading."""
        told = self.again(lambda: self.disk.attribute(path, MD5)) is not None
        found = self.again(lambda: Digest(self.read(path), told).consume())
        if told:
            self._md5[path] = found.md5
        return found

    def md5(self, path: Path) -> str:
        """MD5 of a file's bytes as this process read them: files never change. It protects against nobody."""
        if path not in self._md5:
            self.digest(path)
        return self._md5.get(path, "")
