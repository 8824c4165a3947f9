"""A person's Drive as a folder: in Colab through its mount, elsewhere the folder that was asked for."""
import errno
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from drive_sync.errors import DriveUnavailable, in_words
from drive_sync.mounts import COLAB_DRIVE, Mount, mounts, require_mounted, resolved
from drive_sync.reach import pause, within

TRIES = 3
SECONDS_TO_ANSWER = 120.0
_LOG = "~/.config/Google/DriveFS/Logs/drive_fs.txt"
# What google.colab.drive.mount says, and what a person can do about it. The others are worth another try.
_FINAL = {
    "must not contain a space": "A mountpoint must not contain a space. Use drive_sync.mount() for /content/drive.",
    "must not be a symlink": "The mountpoint is a symlink. Use drive_sync.mount() for /content/drive.",
    "must not already contain files": "The mountpoint holds files of this machine, written while Drive was not "
                                      "mounted. Move them away (the folder must be empty), then run this cell again.",
    "must either be a directory": "The mountpoint is a file. Rename it, then run this cell again.",
    "must be in a directory that exists": "The folder above the mountpoint is missing. Use drive_sync.mount() for "
                                          "/content/drive.",
    "domain policy has disabled": "The administrator of this Google account has switched Drive off for such use. Use "
                                  "another account, or a folder of this machine.",
    "invalid oauth code": "The authorization code was not accepted. Run this cell again and copy the whole code.",
}
_AGAIN = {
    "timeout during initial read": "Drive took too long to list its top folder, which happens when My Drive itself "
                                   "holds very many files. Move some of them into folders.",
    "mount failed": "Drive could not be mounted. Run this cell again; if that fails too, restart the runtime.",
}


def on_colab() -> bool:
    """Whether this is a kernel of Google Colab."""
    if "IPython" not in sys.modules:
        return False
    return "google.colab" in str(sys.modules["IPython"].get_ipython())


def mount(path: str | Path = COLAB_DRIVE, elsewhere: str | Path = "drive", say: Callable[[str], object] = print,
          wait: Callable[[float], None] = pause) -> Path:
    """The folder to keep things in: My Drive in Colab, otherwise `path`, or `elsewhere` for Colab's own path.

    Raises DriveUnavailable with advice where Drive cannot be mounted or does not answer.
    """
    folder = resolved(Path(path).expanduser())
    point = COLAB_DRIVE if folder.is_relative_to(COLAB_DRIVE) else folder
    found = _mounted_at(point)
    if found is None and not on_colab():
        return _plain_folder(folder, elsewhere, say)
    try:
        if found is None:
            _mount_in_colab(point, False, say, wait)
        top = _answering(_inside(point))
    except DriveUnavailable as dead:
        if found is None or not on_colab():
            raise
        say(f"{dead.strerror}. Mounting it anew.")
        _mount_in_colab(point, True, say, wait)
        top = _answering(_inside(point))
    if folder == point:
        return top
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _plain_folder(folder: Path, elsewhere: str | Path, say: Callable[[str], object]) -> Path:
    """A folder of this machine or of something that is mounted; never one where a mount is missing."""
    if os.environ.get("COLAB_RELEASE_TAG") and folder.is_relative_to(COLAB_DRIVE):
        raise DriveUnavailable(errno.ENOTCONN, "Drive is not mounted, and a command cannot mount it. Run "
                               "`import drive_sync; drive_sync.mount()` in a cell, then this command again")
    if folder == COLAB_DRIVE:
        folder = Path(elsewhere).expanduser().absolute()
        say(f"This is not Colab: what would go to Drive is kept in {folder}.")
    require_mounted(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _mounted_at(point: Path) -> Mount | None:
    """The mount at exactly this place."""
    return next((mount for mount in reversed(mounts()) if mount.point == point), None)


def _inside(point: Path) -> Path:
    """Drive shows a person's files under MyDrive; other mounts show them directly."""
    found = _mounted_at(point)
    return point / "MyDrive" if point == COLAB_DRIVE or (found and found.kind == "fuse.drive") else point


def _mount_in_colab(point: Path, force: bool, say: Callable[[str], object], wait: Callable[[float], None]) -> None:
    """google.colab.drive.mount with bounded tries; DriveUnavailable in a person's words."""
    if threading.current_thread() is not threading.main_thread():
        raise DriveUnavailable(errno.ENOTCONN, "Drive can be mounted only from a notebook's cell, not from a thread")
    from google.colab import drive  # there is no such module outside Colab
    for number in range(1, TRIES + 1):
        try:
            drive.mount(str(point), force_remount=force or number > 1)
            return
        except NotImplementedError as error:
            raise DriveUnavailable(errno.ENOTSUP, "This kind of Colab (Enterprise) has no Drive. Use a mounted bucket "
                                                  "or a folder of this machine") from error
        except Exception as error:
            if type(error).__name__ == "MessageError":  # google.colab._message, a private module
                raise DriveUnavailable(errno.EACCES, "Access to Drive was declined in the dialog. Run this cell again "
                                                     "and allow it, or use a folder of this machine") from error
            advice = _match(_FINAL, error)
            if advice or number == TRIES:
                advice = advice or f"{_match(_AGAIN, error) or in_words(error)}{_log_tail()}"
                raise DriveUnavailable(errno.ENOTCONN, advice) from error
            say(f"Drive was not mounted ({error}); try {number + 1} of {TRIES} follows.")
            wait(5.0 * number)


def _match(advice: dict[str, str], error: Exception) -> str | None:
    """The advice for an error's message."""
    return next((words for part, words in advice.items() if part in str(error)), None)


def _log_tail(lines: int = 5) -> str:
    """The end of DriveFS's own log, for whoever helps this person."""
    try:
        tail = Path(_LOG).expanduser().read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    except OSError:
        return ""
    return " The end of Drive's log:\n" + "\n".join(tail)


def _answering(folder: Path) -> Path:
    """`folder` once it was listed; DriveUnavailable where that fails or hangs (a hanging call cannot be ended)."""
    try:
        within(SECONDS_TO_ANSWER, lambda: os.listdir(folder))
    except OSError as error:
        raise DriveUnavailable(error.errno, f"{folder} is there, but {in_words(error)}. Unmount it, mount "
                               "it again, then run this again") from error
    return folder


def flush_and_unmount(timeout: float | None = None) -> None:
    """Pushes what Drive's mount still holds and unmounts it; DriveUnavailable where it is still there afterwards.

    `timeout` is in seconds; Colab's own is a day.
    """
    from google.colab import drive  # there is no such module outside Colab
    try:
        drive.flush_and_unmount(**({} if timeout is None else {"timeout_ms": int(timeout * 1000)}))
    except Exception as error:
        raise DriveUnavailable(errno.EIO, f"Drive could not be unmounted: {error}.{_log_tail()}") from error
    if any(mount.kind == "fuse.drive" for mount in mounts()):
        raise DriveUnavailable(errno.EBUSY, "Drive is still mounted after it was told to unmount; a file in it may be "
                                            "open")


def give_machine_back() -> None:
    """Ends the Colab machine at once. Whatever is on it is gone."""
    from google.colab import runtime  # there is no such module outside Colab
    runtime.unassign()
