"""What is mounted where, read from tables so that no dead or hanging mount is ever touched to find out."""
import errno
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from drive_sync.errors import DriveUnavailable

COLAB_DRIVE = Path("/content/drive")
_TABLE, _FSTAB = "/proc/mounts", "/etc/fstab"
# Kinds that are this machine's own disks or memory: they neither hang nor go away, and have no Trash.
_OWN = frozenset({"aufs", "bcachefs", "btrfs", "devtmpfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "jfs", "msdos",
                  "ntfs3", "overlay", "ramfs", "reiserfs", "rootfs", "squashfs", "tmpfs", "vfat", "xfs", "zfs"})


@dataclass(frozen=True)
class Mount:
    """One line of /proc/mounts: where, and of what type ("fuse.drive" is Google Drive in Colab)."""
    point: Path
    kind: str


def mounts(table: str = _TABLE) -> tuple[Mount, ...]:
    """All that is mounted; () on systems without /proc/mounts."""
    try:
        return _rows(Path(table).read_text(encoding="utf-8", errors="surrogateescape"))
    except OSError:
        return ()


@lru_cache(maxsize=8)  # it is asked before every call to Drive, while training has the rest of the processor
def _rows(text: str) -> tuple[Mount, ...]:
    rows = [line.split() for line in text.splitlines() if not line.lstrip().startswith("#")]
    return tuple(Mount(Path(_unescape(row[1])), row[2]) for row in rows if len(row) >= 3 and row[1].startswith("/"))


def mount_of(path: str | Path) -> Mount | None:
    """The mount that holds `path`, None for the machine's own root. `path` itself is not touched."""
    return _holding(os.path.abspath(path), mounts())


def is_own_disk(path: str | Path) -> bool:
    """Whether `path` lies on a disk of this machine; False where no table tells. `path` itself is not touched."""
    table = mounts()
    found = _holding(os.path.abspath(path), table)
    return bool(table) and (found is None or found.kind in _OWN)


def resolved(path: str | Path) -> Path:
    """`path` without the links of this machine's own disks (in Colab, /mydrive is often one to the Drive).

    What lies on another mount is not touched. OSError where links lead in a circle.
    """
    path, table, links = Path(os.path.abspath(path)), mounts(), 0
    here, left = Path(path.anchor), list(path.parts[1:])
    while left:
        inner = here / left.pop(0)
        found = _holding(str(inner), table)
        if found is not None and found.kind not in _OWN:
            return inner.joinpath(*left)
        try:
            target = Path(os.path.abspath(here / os.readlink(inner)))
        except OSError:  # no link, or nothing there
            here = inner
            continue
        links += 1
        if links > 40:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
        here, left = Path(target.anchor), [*target.parts[1:], *left]
    return here


def absent_mount(path: str | Path) -> Path | None:
    """The mountpoint that `path` belongs under (Colab's Drive, or one of /etc/fstab) where nothing is mounted now."""
    path = os.path.abspath(path)
    expected = {COLAB_DRIVE, *(mount.point for mount in mounts(_FSTAB))} - {Path("/")}
    above = sorted(point for point in expected if _holds(point, path))
    mounted = {mount.point for mount in mounts()} if above else ()
    return next((point for point in above if point not in mounted), None)


def require_mounted(path: str | Path, point: Path | None = None) -> None:
    """Raises DriveUnavailable where `path` lies under a mountpoint with nothing mounted (`point`, or a known one)."""
    missing = point or absent_mount(path)
    if missing is not None and missing not in {mount.point for mount in mounts()}:
        raise DriveUnavailable(errno.ENOTCONN, f"nothing is mounted at {missing}, so {path} cannot be reached and what "
                               "it holds is unknown, not lost. Mount it (drive_sync.mount() in Colab), then run this "
                               "again")


def _holding(path: str, table: tuple[Mount, ...]) -> Mount | None:
    holding = [mount for mount in table if _holds(mount.point, path) and mount.point != Path("/")]
    # The last of equal ones was mounted on top.
    return max(reversed(holding), key=lambda mount: len(mount.point.parts), default=None)


def _holds(point: Path, path: str) -> bool:
    return path == str(point) or path.startswith(f"{point}{os.sep}")


def _unescape(text: str) -> str:
    """/proc/mounts writes a space as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
