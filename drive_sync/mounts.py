"""What is mounted where, read from tables so that no dead or hanging mount is ever touched to find out."""
import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

from drive_sync.errors import DriveUnavailable

COLAB_DRIVE = Path("/content/drive")
_TABLE, _FSTAB = "/proc/mounts", "/etc/fstab"


@dataclass(frozen=True)
class Mount:
    """One line of /proc/mounts: where, and of what type ("fuse.drive" is Google Drive in Colab)."""
    point: Path
    kind: str


def mounts(table: str = _TABLE) -> list[Mount]:
    """All that is mounted; [] on systems without /proc/mounts."""
    try:
        lines = Path(table).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    rows = [line.split() for line in lines if not line.lstrip().startswith("#")]
    return [Mount(Path(_unescape(row[1])), row[2]) for row in rows if len(row) >= 3 and row[1].startswith("/")]


def mount_of(path: str | Path) -> Mount | None:
    """The mount that holds `path`, None for the machine's own root. `path` itself is not touched."""
    path = Path(os.path.abspath(path))
    holding = [mount for mount in mounts() if path.is_relative_to(mount.point) and mount.point != Path("/")]
    # The last of equal ones was mounted on top.
    return max(reversed(holding), key=lambda mount: len(mount.point.parts), default=None)


def absent_mount(path: str | Path) -> Path | None:
    """The mountpoint that `path` belongs under (Colab's Drive, or one of /etc/fstab) where nothing is mounted now."""
    path = Path(os.path.abspath(path))
    mounted = {mount.point for mount in mounts()}
    expected = {COLAB_DRIVE} | {mount.point for mount in mounts(_FSTAB)} - {Path("/")}
    return next((point for point in sorted(expected) if path.is_relative_to(point) and point not in mounted), None)


def require_mounted(path: str | Path, point: Path | None = None) -> None:
    """Raises DriveUnavailable where `path` lies under a mountpoint with nothing mounted (`point`, or a known one)."""
    missing = point or absent_mount(path)
    if missing is not None and missing not in {mount.point for mount in mounts()}:
        raise DriveUnavailable(errno.ENOTCONN, f"nothing is mounted at {missing}, so {path} cannot be reached and what "
                               "it holds is unknown, not lost. Mount it (drive_sync.mount() in Colab), then run this "
                               "again")


def _unescape(text: str) -> str:
    """/proc/mounts writes a space as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
