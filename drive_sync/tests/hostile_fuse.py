"""A Drive that lies, as a real FUSE file system: `python hostile_fuse.py CLOUD CACHE MOUNT MOOD` until it is killed.

What is written lands in CACHE, which is this machine's. It reaches CLOUD, which is Drive's, when the mood lets it:
late, out of order, a file's name perhaps before its bytes. Killed, the mount answers ENOTCONN and what was not uploaded
is lost. A file that is opened once more to be written (a log, say) stays at 0 bytes there for ever. MOOD is a JSON file that is read at each call:

    upload    chance, at each call, that one pending file or deletion (any of them) reaches the cloud
    names     chance that a new file's name reaches the cloud at once, as a file of 0 bytes
    errno     every call fails with this number (0: none)
    eio       chance that a call fails with EIO
    quota     bytes; what was deleted without being emptied first lies in the Trash and counts
    xattrs    whether files tell of their upload as DriveFS does
    refresh   a number; when it changes, this machine sees what others put into the cloud (until then: stale listings)
    die_after the file system dies that many calls after this was set (0: never)
"""
import errno
import functools
import hashlib
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import mfusepy


def lied_to(operation: Callable) -> Callable:
    """A call of the file system that goes through `lie` first."""
    @functools.wraps(operation)
    def call(self: "HostileDrive", *arguments: object) -> object:
        self.lie()
        return operation(self, *arguments)

    return call


class HostileDrive(mfusepy.Operations):
    """Single-threaded; the same seed and the same calls give the same lies."""
    use_ns = True  # times in nanoseconds

    def __init__(self, cloud: Path, cache: Path, mood: Path):
        self.cloud, self.cache, self.mood_file = cloud, cache, mood
        self.mood = json.loads(mood.read_text())
        self.chance = random.Random(self.mood.get("seed", 0))
        self.pending: dict[str, str] = {}  # path -> "write" or "delete"
        self.appended: set[str] = set()
        self.seen = {path.relative_to(cloud).as_posix() for path in cloud.rglob("*") if path.is_file()}
        self.calls = self.trash = 0

    def lie(self) -> None:
        """What Drive does to every call."""
        self.calls += 1
        before, self.mood = self.mood, json.loads(self.mood_file.read_text())
        if self.mood.get("die_after") != before.get("die_after"):
            self.calls = 1
        if self.mood.get("die_after") == self.calls:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mood.get("refresh") != before.get("refresh"):
            self._refresh()
        number = self.mood.get("errno") or (errno.EIO if self.chance.random() < self.mood.get("eio", 0) else 0)
        if number:
            raise mfusepy.FuseOSError(number)
        if self.pending and self.chance.random() < self.mood.get("upload", 1):
            self._upload(self.chance.choice(sorted(self.pending)))

    # What a file system must do.

    @lied_to
    def getattr(self, path, fh=None):
        found = os.lstat(self._here(path))
        numbers = {key: getattr(found, key) for key in ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")}
        return numbers | {f"st_{key}": getattr(found, f"st_{key}_ns") for key in ("atime", "mtime", "ctime")}

    @lied_to
    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self._here(path))]

    @lied_to
    def mkdir(self, path, mode):
        os.mkdir(self._here(path), mode)
        self._there(path).mkdir(parents=True, exist_ok=True)
        return 0

    @lied_to
    def rmdir(self, path):
        os.rmdir(self._here(path))
        shutil.rmtree(self._there(path), ignore_errors=True)
        return 0

    @lied_to
    def create(self, path, mode, fi=None):
        handle = os.open(self._here(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        self._pend(path, "write")
        if self.chance.random() < self.mood.get("names", 0) and not self._there(path).exists():
            self._there(path).parent.mkdir(parents=True, exist_ok=True)
            self._there(path).touch()
            self.seen.add(path.lstrip("/"))
        return handle

    @lied_to
    def open(self, path, flags):
        if flags & (os.O_WRONLY | os.O_RDWR):
            self.appended.add(path)
        return os.open(self._here(path), flags & ~(os.O_CREAT | os.O_APPEND))

    @lied_to
    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    @lied_to
    def write(self, path, data, offset, fh):
        quota = self.mood.get("quota")
        if quota is not None and self._used() + len(data) > quota:
            raise mfusepy.FuseOSError(errno.ENOSPC)
        self._pend(path, "write")
        return os.pwrite(fh, data, offset)

    @lied_to
    def truncate(self, path, length, fh=None):
        os.truncate(self._here(path), length)
        self._pend(path, "write")
        return 0

    @lied_to
    def unlink(self, path):
        self.trash += os.stat(self._here(path)).st_size
        os.unlink(self._here(path))
        self._pend(path, "delete")
        return 0

    def release(self, path, fh):
        os.close(fh)
        return 0

    @lied_to
    def fsync(self, path, datasync, fh):
        return 0  # a promise about this machine only

    def flush(self, path, fh):
        return 0

    @lied_to
    def statfs(self, path):
        quota = self.mood.get("quota", 10**12)
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": quota // 4096,
                "f_bavail": max(quota - self._used(), 0) // 4096}

    def chmod(self, path, mode):
        return 0

    @lied_to
    def symlink(self, target, source):
        raise mfusepy.FuseOSError(errno.ENOTSUP)

    @lied_to
    def link(self, target, source):
        raise mfusepy.FuseOSError(errno.ENOTSUP)

    def lock(self, path, fh, cmd, lock):
        raise mfusepy.FuseOSError(errno.ENOTSUP)

    def flock(self, path, fh, op):
        raise mfusepy.FuseOSError(errno.ENOTSUP)

    @lied_to
    def getxattr(self, path, name, position=0):
        if not self.mood.get("xattrs"):
            raise mfusepy.FuseOSError(errno.ENODATA)
        os.lstat(self._here(path))
        pending = path in self.pending
        if name == "user.drive.uncommitted":
            return b"1" if pending else b"0"
        if name == "user.drive.id":
            return b"local-12" if pending else b"1AbCdEf"
        if name == "user.drive.md5" and not pending:
            return hashlib.md5(self._there(path).read_bytes()).hexdigest().encode()
        raise mfusepy.FuseOSError(errno.ENODATA)

    # What Drive does behind it.

    def _here(self, path: str) -> str:
        return str(self.cache) + path

    def _there(self, path: str) -> Path:
        return self.cloud / path.lstrip("/")

    def _pend(self, path: str, what: str) -> None:
        self.pending[path] = what

    def _upload(self, path: str) -> None:
        """One file reaches Drive. A name that somebody else put there meanwhile is kept beside it as "name (1)"."""
        what, target, key = self.pending.pop(path), self._there(path), path.lstrip("/")
        if what == "delete":
            target.unlink(missing_ok=True)
            self.seen.discard(key)
            self.appended.discard(path)
            return
        if path in self.appended:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"")
            self.pending[path] = what
            return
        if target.exists() and key not in self.seen:
            target = target.with_name(f"{target.stem} (1){target.suffix}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._here(path), target)
        self.seen.add(key)

    def _refresh(self) -> None:
        """This machine's view becomes the cloud's, but for what it has not uploaded yet."""
        for path in self.cloud.rglob("*"):
            key = path.relative_to(self.cloud).as_posix()
            if path.is_dir():
                (self.cache / key).mkdir(parents=True, exist_ok=True)
            elif f"/{key}" not in self.pending:
                (self.cache / key).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, self.cache / key)
                self.seen.add(key)

    def _used(self) -> int:
        return self.trash + sum(path.stat().st_size for path in self.cache.rglob("*") if path.is_file())


if __name__ == "__main__":
    cloud, cache, mount, mood = map(Path, sys.argv[1:])
    shutil.copytree(cloud, cache, dirs_exist_ok=True)
    # No caching in the kernel: what the mood says holds for the very next call.
    mfusepy.FUSE(HostileDrive(cloud, cache, mood), str(mount), foreground=True, nothreads=True, fsname="drive",
                 subtype="drive", attr_timeout=0, entry_timeout=0, negative_timeout=0, direct_io=True)
