"""Whether Drive has a file, as far as the mount tells. DriveFS shows it in extended attributes; other mounts do not."""
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from drive_sync.reach import MD5, Reach


class Upload(StrEnum):
    """The mount's own word on a file."""
    CONFIRMED = "confirmed"    # Drive has it
    PENDING = "pending"        # it is on this machine only, or Drive has other bytes
    UNVERIFIED = "unverified"  # this mount does not tell


def upload_state(reach: Reach, paths: Iterable[Path], checksums: bool = False) -> Upload:
    """The state of several files together: one that is pending keeps all of them pending. DriveUnavailable, OSError.

    With `checksums`, bytes are compared with what Drive says it has: those that this process did not read are read.
    """
    states = {reach.again(lambda path=path: _file_state(reach, path, checksums)) for path in paths}
    return next((state for state in (Upload.PENDING, Upload.UNVERIFIED) if state in states), Upload.CONFIRMED)


def _file_state(reach: Reach, path: Path, checksums: bool) -> Upload:
    """Attributes as DriveFS names them: data not uploaded yet, an id that starts with `local-` until Drive gave one."""
    uncommitted = reach.disk.attribute(path, "user.drive.uncommitted")
    identity = reach.disk.attribute(path, "user.drive.id")
    if uncommitted is None and identity is None:
        return Upload.UNVERIFIED
    if uncommitted not in (None, "", "0") or (identity or "").startswith("local-"):
        return Upload.PENDING
    theirs = (checksums and reach.disk.attribute(path, MD5)) or ""
    if len(theirs) == 32 and theirs.lower() != reach.md5(path):
        return Upload.PENDING
    return Upload.CONFIRMED
