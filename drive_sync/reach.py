"""Reaching a folder that may be on a mount: a dead mount is told apart from an empty folder, always."""
import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from drive_sync.disk import Disk
from drive_sync.errors import DEAD, DriveUnavailable, unavailable
from drive_sync.manifest import Digest
from drive_sync.mounts import mount_of, require_mounted

T = TypeVar("T")
# Drive answers these now and then and is fine a moment later; ENOTCONN stays until someone mounts again.
PASSING = frozenset({errno.EIO, errno.ETIMEDOUT, errno.ESTALE})
# Seconds before each new try of a read.
READ_AGAIN_AFTER = (0.5, 2.0, 8.0)


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
    """A folder, the disk calls for it, and the mount it was on when this began."""

    def __init__(self, folder: str | Path, disk: Disk | None = None, mountpoint: str | Path | None = None,
                 pause: Callable[[float], None] = pause):
        self.folder = Path(folder).expanduser().absolute()
        self.disk = disk or Disk()
        self.verified: set[str] = set()  # snapshots of which this process has read every byte
        self._pause = pause
        self._point = Path(mountpoint).absolute() if mountpoint else None
        self.check()
        mount = mount_of(self.folder)
        self._point = mount.point if mount else None

    def check(self) -> None:
        """Raises DriveUnavailable where the mount that held the folder is no longer there."""
        require_mounted(self.folder, self._point)

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

    def digest(self, path: Path) -> Digest:
        """Size and SHA-256 of a file."""
        return self.again(lambda: Digest(self.disk.read(path)).consume())
