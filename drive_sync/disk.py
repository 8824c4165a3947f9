"""Every call that touches a file, in one place. The tests put a hostile disk here: late, lying, full or killed."""
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from drive_sync.errors import UNSUPPORTED

BLOCK = 4 << 20


class Disk:
    """A mounted file system. Uses no links, no locks and no appending, which Drive does not have or loses."""

    def names(self, folder: Path) -> list[str]:
        """What a folder holds, sorted; [] where there is no such folder. OSError where the mount does not answer."""
        try:
            return sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def size(self, path: Path) -> int | None:
        """Bytes of a file, None where there is none. Unlike Path.exists it never takes a dead mount for "no"."""
        try:
            return os.stat(path).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def is_folder(self, path: Path) -> bool:
        """Whether a folder is there; OSError where the mount does not answer."""
        try:
            return os.stat(path).st_mode & 0o170000 == 0o040000
        except (FileNotFoundError, NotADirectoryError):
            return False

    def changed(self, path: Path) -> float:
        """Time of the last change, in seconds since 1970."""
        return os.stat(path).st_mtime

    def make_folder(self, path: Path) -> None:
        """A new folder; FileExistsError where the name is taken."""
        os.mkdir(path)

    def make_folders(self, path: Path) -> None:
        """A folder and what leads to it, where they are not there yet."""
        os.makedirs(path, exist_ok=True)

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
        """Empties a file, then deletes it: Drive's Trash counts against the quota. A missing file is fine."""
        try:
            if os.stat(path).st_nlink < 2:  # a hard link on the local disk shares its bytes with the spool's
                os.truncate(path, 0)
            os.remove(path)
        except FileNotFoundError:
            return

    def discard_folder(self, path: Path) -> None:
        """Deletes an empty folder. One that is missing, or that is shown with old content, is left as it is."""
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST}:
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
        figures = os.statvfs(path)
        return figures.f_bavail * figures.f_frsize


def _flush(descriptor: int) -> None:
    """fsync, where the file system knows it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
