"""One at a time in a local folder: a lock that the kernel takes back when its process dies."""
import os
import weakref
from contextlib import suppress
from pathlib import Path

from drive_sync.errors import SpoolInUse
from drive_sync.process import Process

try:
    import fcntl
except ImportError:  # Windows: one is trusted to be alone
    fcntl = None

_held: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()


class FolderLock:
    """Held from the beginning until `release`; SpoolInUse where another one has it. The file is there only meanwhile."""

    def __init__(self, folder: Path):
        self._path = folder / ".lock"
        self._descriptor = self._take() if fcntl else None
        if self._descriptor is not None:
            _held.add(self)
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, Process.this().encode().encode())

    def release(self) -> None:
        """Lets the next one in."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            _held.discard(self)
            with suppress(OSError):
                os.unlink(self._path)
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _take(self) -> int | None:
        """An open file that is locked; None where the disk has no locks."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.stat(self._path).st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
            except FileNotFoundError:
                pass  # the one that had it went away just now, and its file with it
            except BlockingIOError:
                holder = Process.parse(os.pread(descriptor, 1000, 0).decode("utf-8", "replace"))
                os.close(descriptor)
                raise SpoolInUse(_in_use(self._path.parent, holder)) from None
            except OSError:  # a disk without locks
                os.close(descriptor)
                os.unlink(self._path)
                return None
            os.close(descriptor)


def _in_use(folder: Path, holder: Process | None) -> str:
    if holder == Process.this():
        return (f"An earlier cell or thread of this program still brings to Drive what waits in {folder}. Close its "
                "publisher, or restart this program, then run this again.")
    who = f"Process {holder.pid}" if holder else "Another process"
    return (f"{who} of this machine works on the same run: it brings to Drive what waits in {folder}. End it, or wait "
            "until it is done, then run this again.")


def _leave_to_parent() -> None:
    """A forked child (a worker that loads data, say) must not hold the lock when its parent was killed."""
    for lock in list(_held):
        descriptor, lock._descriptor = lock._descriptor, None
        os.close(descriptor)  # the parent's lock stays


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
