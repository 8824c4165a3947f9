"""One item's way to Drive: handed over, then looked for until it is there whole."""
import errno
from collections.abc import Mapping
from pathlib import Path

from drive_sync.errors import LeaseLost, SnapshotBroken, UploadLost
from drive_sync.snapshot import Snapshot
from drive_sync.source import source_files
from drive_sync.space import require_room_for_cache
from drive_sync.store import Store
from drive_sync.upload import Upload, upload_state
from drive_sync.waiting import Item

# What a folder answers that cannot take this very item, however often it is tried: a name or a size it does not know.
_HOPELESS = frozenset({errno.ENAMETOOLONG, errno.EFBIG, errno.EILSEQ, errno.EINVAL})


class GivenUp(Exception):
    """No new try can help: the cause says why. `keep`: the local files are good, another folder may take them."""

    def __init__(self, keep: bool):
        super().__init__(keep)
        self.keep = keep


def hand_over(store: Store, item: Item) -> Snapshot:
    """Publishes an item. GivenUp where its local files are gone or damaged, or can never be stored there."""
    sha256: Mapping[str, str] | None = item.spooled.sha256 if item.spooled else None
    try:
        require_room_for_cache(store.folder, item.bytes)
        return store.publish(item.source, item.label, item.share, sha256=sha256)
    except (LeaseLost, MemoryError):
        raise
    except OSError as error:
        hopeless = error.errno in _HOPELESS
        if not hopeless and _is_readable(item.source):
            raise  # Drive's doing
        raise GivenUp(keep=hopeless) from error
    except Exception as error:
        raise GivenUp(keep=False) from error


def look_for(snapshot: Snapshot) -> Upload:
    """Whether Drive has what it was handed: by the mount's word, and by every byte read back once. UploadLost."""
    reach, problems = snapshot.reach, []
    try:
        upload = upload_state(reach, snapshot.files())
        if upload is not Upload.PENDING and snapshot.name not in reach.verified:
            problems = snapshot.verify(reread=False)
        if upload is Upload.CONFIRMED and not problems:
            upload = upload_state(reach, snapshot.files(), checksums=True)
    except (SnapshotBroken, FileNotFoundError) as gone:
        problems = [str(gone)]
    if problems:
        raise UploadLost(None, f"{snapshot.name} did not arrive whole ({problems[0]}); it is published again")
    return upload


def _is_readable(source: str | Path | Snapshot) -> bool:
    """Whether the local folder still has its files."""
    try:
        return bool(source_files(source))
    except (OSError, ValueError):
        return False
