"""What goes wrong between a program and a mounted Drive, in words that a person can act on."""
import errno

# A call that ends with one of these says nothing about the file: the file system behind it did not answer.
DEAD = frozenset({errno.ENOTCONN, errno.EIO, errno.ENODEV, errno.ENXIO, errno.ESTALE, errno.ETIMEDOUT,
                  errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ECONNRESET, errno.ECONNABORTED})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# Mounts and local disks that have no such call answer with one of these; that is an answer, not a failure.
UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY})

_WORDS = {
    errno.ENOTCONN: "the mount is gone (ENOTCONN, \"Transport endpoint is not connected\")",
    errno.ENODEV: "nothing is mounted there any more",
    errno.EIO: "the mount answered with an input/output error (EIO); Drive does this when a daily quota is used up "
               "and when its connection breaks",
    errno.ETIMEDOUT: "the mount did not answer in time",
    errno.ESTALE: "the mount no longer knows the file (ESTALE)",
    errno.ENOSPC: "there is no space left (on Drive the Trash counts too, on this machine Drive's own cache)",
    errno.ENAMETOOLONG: "a name is too long for this folder",
    errno.EFBIG: "a file is too large for this folder",
    errno.EDQUOT: "the storage quota is used up; what lies in Drive's Trash counts, so empty the Trash",
    errno.EROFS: "it is mounted read-only",
    errno.EACCES: "permission was refused",
    errno.EPERM: "permission was refused",
}


class DriveUnavailable(OSError):
    """The folder cannot be reached, so nothing is known about what it holds. Never means that it is empty."""


class UploadLost(OSError):
    """What was handed to Drive is not there whole; it is published again."""


class CacheFull(OSError):
    """This machine's disk has no room for what Drive's mount keeps there on its way; it is tried again."""


class LeaseHeld(RuntimeError):
    """Another session works on this run and is alive. How to take the run over is for the caller to add.

    `host` is None where it is not known; `minutes_left` is how long to wait for a session whose machine is gone.
    """

    def __init__(self, message: str, *, session: str, host: str | None, seconds_ago: float, minutes_left: int):
        super().__init__(message)
        self.session, self.host, self.seconds_ago, self.minutes_left = session, host, seconds_ago, minutes_left


class LeaseLost(RuntimeError):
    """Another session took this run over; this one publishes nothing more."""


class SpoolInUse(RuntimeError):
    """Another publisher on this machine brings what waits in the same folder to Drive."""


class SnapshotBroken(ValueError):
    """A snapshot's bytes are not those that were published."""


def in_words(error: BaseException) -> str:
    """One plain phrase for an error: what a person would want to read beside "Drive"."""
    number = getattr(error, "errno", None)
    if isinstance(error, (DriveUnavailable, UploadLost, CacheFull, NotADirectoryError)) and error.strerror:
        return error.strerror
    if number in _WORDS:
        return _WORDS[number]
    return f"{type(error).__name__}: {error}"


def unavailable(error: OSError, folder: object) -> DriveUnavailable:
    """`error` as a DriveUnavailable that says what to do about it."""
    return DriveUnavailable(error.errno, f"{error.filename or folder} cannot be reached: {in_words(error)}. What it holds is unknown, "
                                         "not lost. Mount it again (drive_sync.mount() in Colab), then run this again")
