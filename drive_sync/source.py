"""The local folder that is to be published: its files, and where each of them lies."""
import os
from pathlib import Path

from drive_sync.manifest import MANIFEST, MARKER, Row
from drive_sync.snapshot import Snapshot


def source_files(source: str | Path | Snapshot) -> dict[str, Path]:
    """Name in the snapshot -> file, for a folder or a snapshot of another store, with what that one shares."""
    snapshot = source if isinstance(source, Snapshot) else Snapshot.at(source)
    if snapshot is not None:
        return {row.name: snapshot.locate(row) for row in snapshot.rows()}
    folder = Path(source)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder} to publish.")
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    deeper = [name for name in files if name.count("/") > 1]
    if deeper:
        raise ValueError(f"{folder} has files two folders down, such as {deeper[0]}. A snapshot holds files and one "
                         "level of folders: many small folders time out on Drive. Pack them into one file.")
    if not files:
        raise ValueError(f"{folder} holds no files, so there is nothing to publish.")
    reserved = {MANIFEST, MARKER} & files.keys()
    if reserved:
        raise ValueError(f"{folder} holds a file called {min(reserved)}, a name that snapshots keep for themselves. "
                         "Rename it.")
    return files


def source_rows(source: str | Path | Snapshot) -> dict[str, Row]:
    """What a snapshot says about its files, {} for a plain folder: what was saved must be what is published."""
    snapshot = source if isinstance(source, Snapshot) else Snapshot.at(source)
    return {row.name: row for row in snapshot.rows()} if snapshot is not None else {}


def source_bytes(source: str | Path | Snapshot) -> int:
    """Bytes of all files, shared ones included."""
    return sum(os.stat(path).st_size for path in source_files(source).values())
