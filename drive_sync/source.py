"""The local folder that is to be published: its files, and where each of them lies."""
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from drive_sync.manifest import MANIFEST, MARKER, Row
from drive_sync.snapshot import Snapshot

MOST_FILES = 1000  # in one folder


def source_files(source: str | Path | Snapshot) -> dict[str, Path]:
    """Name in the snapshot -> file, for a folder or a snapshot of another store, with what that one shares."""
    snapshot = source if isinstance(source, Snapshot) else Snapshot.at(source)
    if snapshot is not None:
        return {row.name: snapshot.locate(row) for row in snapshot.rows()}
    folder = Path(source)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder} to publish.")
    files = dict(sorted(_files_in(folder)))
    deeper = [name for name in files if name.count("/") > 1]
    if deeper:
        raise ValueError(f"{folder} has files two folders down, such as {deeper[0]}. A snapshot holds files and one "
                         "level of folders: many small folders time out on Drive. Pack them into one file.")
    if not files:
        raise ValueError(f"{folder} holds no files, so there is nothing to publish.")
    crowded = [folder for folder, count in Counter(Path(name).parent for name in files).items() if count > MOST_FILES]
    if crowded:
        raise ValueError(f"{folder / crowded[0]} holds more than {MOST_FILES} files: a folder of many files times out on "
                         "Drive. Pack them into one file.")
    reserved = {MANIFEST, MARKER} & files.keys()
    if reserved:
        raise ValueError(f"{folder} holds a file called {min(reserved)}, a name that snapshots keep for themselves. "
                         "Rename it.")
    return files


def _files_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file, by its name in the snapshot. Nothing is left out in silence: OSError, ValueError."""
    def refuse(error: OSError) -> None:
        raise error

    for top, _, names in os.walk(folder, onerror=refuse):
        for path in (Path(top, name) for name in names):
            if "\\" in path.name:
                raise ValueError(f"{path} has a backslash in its name, which some machines take for a folder. Rename it.")
            if not stat.S_ISREG(_mode(path)):
                raise ValueError(f"{path} is no file but a link that leads nowhere, or a device. Remove it.")
            yield path.relative_to(folder).as_posix(), path


def _mode(path: Path) -> int:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return 0


def source_rows(source: str | Path | Snapshot) -> dict[str, Row]:
    """What a snapshot says about its files, {} for a plain folder: what was saved must be what is published."""
    snapshot = source if isinstance(source, Snapshot) else Snapshot.at(source)
    return {row.name: row for row in snapshot.rows()} if snapshot is not None else {}


def source_bytes(source: str | Path | Snapshot) -> int:
    """Bytes of all files, shared ones included."""
    return sum(os.stat(path).st_size for path in source_files(source).values())
