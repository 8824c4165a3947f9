"""Whether a whole run fits, before it starts rather than hours into it."""
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from drive_sync.disk import Disk
from drive_sync.errors import CacheFull
from drive_sync.mounts import mount_of
from drive_sync.reach import Reach


@dataclass(frozen=True)
class Space:
    """Free and needed bytes in a folder."""
    folder: Path
    free: int
    need: int
    on_drive: bool

    @property
    def enough(self) -> bool:
        return self.free >= self.need

    def sentence(self) -> str:
        """For the notebook; on Drive it says what the figure cannot know."""
        figures = f"The run needs {self.need / 1e9:.2f} GB in {self.folder}, {self.free / 1e9:.2f} GB are free."
        if not self.enough:
            figures += (f" Free {(self.need - self.free) / 1e9:.2f} GB, or keep fewer checkpoints."
                        + (" Drive's Trash counts: empty it." if self.on_drive else ""))
        elif self.on_drive:
            figures += " The mount may count this machine's disk instead of your storage: see drive.google.com/quota."
        return figures


def check_space(folder: str | Path, need_bytes: int, disk: Disk | None = None) -> Space:
    """Compares what `folder`, or what will hold it, has free with what a run needs; DriveUnavailable."""
    reach = Reach(folder, disk)
    places = (reach.folder, *reach.folder.parents)
    existing = next(place for place in places if reach.again(lambda place=place: reach.disk.is_folder(place)))
    found = mount_of(reach.folder)
    return Space(Path(os.fspath(folder)), reach.again(lambda: reach.disk.free(existing)), need_bytes,
                 bool(found and found.kind == "fuse.drive"))


def run_bytes(checkpoint: int, keep_last: int, *, shared: int = 0, best: int = 0, history: int = 0) -> int:
    """The most bytes that a run holds at one time: a new snapshot is complete before an old one goes.

    `checkpoint` is one without what is shared; `best` one plain voice; `history` all logs and samples of the run.
    """
    return checkpoint * (keep_last + 1) + 2 * shared + 2 * best + history


def machine_bytes(checkpoint: int, keep_last: int, *, shared: int = 0, best: int = 0, history: int = 0,
                  most_waiting: int = 3) -> int:
    """The most bytes that a run holds on the machine itself while Drive is away, Drive's own cache included.

    `most_waiting` is the publisher's: what waits there shares its bytes with the checkpoints only until those go.
    """
    whole = checkpoint + shared
    return whole * (keep_last + 1 + most_waiting) + 2 * whole + best * (1 + most_waiting) + 2 * history


def require_room_for_cache(folder: Path, size: int, home: Path | None = None) -> None:
    """Raises CacheFull where `folder` is Google's mount and this disk has no room for `size` bytes, twice.

    Its cache fills the machine's disk (reported), and then it is training that cannot write.
    """
    found = mount_of(folder)
    if found is None or found.kind != "fuse.drive":
        return
    free = Disk().free(home or Path.home())
    if free < 2 * size:
        raise CacheFull(errno.ENOSPC, f"this machine's disk has {free / 1e9:.1f} GB free, and what Drive's mount keeps "
                                      f"there on its way would take {2 * size / 1e9:.1f} GB. Free some, so that training "
                                      "can go on")
