"""Every call that touches a file, in one place. The tests put a hostile disk here: late, lying, full or killed."""
import errno
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from drive_sync.errors import UNSUPPORTED
from drive_sync.mounts import is_own_disk

BLOCK = 4 << 20


class Disk:
    """A mounted file system. Uses no links, no locks and no appending, which Drive does not have or loses."""

    def names(self, folder: Path) -> list[str]:
        """What a folder holds, sorted; [] where there is no such folder. OSError where the mount does not answer."""
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise NotADirectoryError(error.errno, f"{folder} is not a folder but a file, or lies under one. Rename that "
                                                  "file, then run this again") from None

    def size(self, path: Path) -> int | None:
        """Bytes of a file, None where there is none. Unlike Path.exists it never takes a dead mount for "no"."""
        try:
            found = os.stat(path)
            return found.st_size if stat.S_ISREG(found.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_folder(self, path: Path) -> bool:
        """Whether a folder is there; OSError where the mount does not answer."""
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def changed(self, path: Path) -> float:
        """Time of the last change, in seconds since 1970."""
        return os.stat(path).st_mtime

    def make_folder(self, path: Path) -> None:
        """A new folder; FileExistsError where the name is taken."""
        os.mkdir(path)

    def read(self, path: Path) -> Iterator[bytes]:
        """A file in blocks."""
        with open(path, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                yield block

    def write(self, path: Path, blocks: Iterable[bytes]) -> None:
        """A new file, flushed to the disk; FileExistsError where the name is taken."""
        with open(path, "xb", buffering=0) as file:
            for block in blocks:
                view = memoryview(block)
                while view:
                    view = view[file.write(view):]
            _flush(file.fileno())

    def flush(self, path: Path) -> None:
        """Makes a file that someone else wrote survive a power cut."""
        with open(path, "rb") as file:
            _flush(file.fileno())

    def flush_folder(self, path: Path) -> None:
        """Makes a folder's new names survive a power cut, where the file system can do that."""
        if os.name != "posix":
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            _flush(descriptor)
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Gives a file or folder another name on the same disk."""
        os.rename(old, new)

    def discard(self, path: Path) -> None:
        """Empties a file, then deletes it: Drive's Trash counts against the quota. Only files go; a missing one is fine.

        On this machine's own disks, where a program may have mapped it or a hard link share its bytes, it only goes.
        """
        try:
            if not is_own_disk(path) and os.stat(path).st_nlink < 2:
                os.truncate(path, 0)
            os.remove(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return

    def discard_folder(self, path: Path) -> None:
        """Deletes an empty folder. One that is missing, or that is shown with old content, is left as it is."""
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST}:
                raise

    def attribute(self, path: Path, name: str) -> str | None:
        """An extended attribute as text, None where the mount has none by that name."""
        if not hasattr(os, "getxattr"):
            return None
        try:
            return os.getxattr(path, name).decode("utf-8", "replace")
        except OSError as error:
            if error.errno in UNSUPPORTED | {errno.ENODATA, errno.ERANGE}:
                return None
            raise

    def free(self, path: Path) -> int:
        """Free bytes for this user, as the file system tells it."""
        return shutil.disk_usage(path).free


def _flush(descriptor: int) -> None:
    """fsync, where the file system knows it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
