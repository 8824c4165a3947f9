"""Whether Drive has a file, as far as the mount tells. DriveFS shows it in extended attributes; other mounts do not."""
import hashlib
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

from drive_sync.reach import Reach


class Upload(StrEnum):
    """The mount's own word on a file."""
    CONFIRMED = "confirmed"    # Drive has it
    PENDING = "pending"        # it is on this machine only, or Drive has other bytes
    UNVERIFIED = "unverified"  # this mount does not tell


def upload_state(reach: Reach, paths: Iterable[Path]) -> Upload:
    """The state of several files together: one that is pending keeps all of them pending. DriveUnavailable, OSError."""
    states = {reach.again(lambda path=path: _file_state(reach, path)) for path in paths}
    return next((state for state in (Upload.PENDING, Upload.UNVERIFIED) if state in states), Upload.CONFIRMED)


def _file_state(reach: Reach, path: Path) -> Upload:
    """Attributes as DriveFS names them: data not uploaded yet, an id that starts with `local-` until Drive gave one."""
    uncommitted = reach.disk.attribute(path, "user.drive.uncommitted")
    identity = reach.disk.attribute(path, "user.drive.id")
    if uncommitted is None and identity is None:
        return Upload.UNVERIFIED
    if uncommitted not in (None, "", "0") or (identity or "").startswith("local-"):
        return Upload.PENDING
    theirs = reach.disk.attribute(path, "user.drive.md5") or ""
    if len(theirs) == 32 and theirs.lower() != _md5(reach, path):
        return Upload.PENDING
    return Upload.CONFIRMED


def _md5(reach: Reach, path: Path) -> str:
    """The checksum that Drive itself keeps; no protection against anybody."""
    md5 = hashlib.md5(usedforsecurity=False)
    for block in reach.disk.read(path):
        md5.update(block)
    return md5.hexdigest()
