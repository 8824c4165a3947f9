"""Bringing a snapshot to the local disk, whole or not at all."""
import os
import shutil
import time
from pathlib import Path

from drive_sync.disk import Disk
from drive_sync.errors import SnapshotBroken
from drive_sync.manifest import MANIFEST, MARKER, Digest, Row, encode, seal
from drive_sync.snapshot import Snapshot

LOCAL = Disk()


def fetch(snapshot: Snapshot, into: Path) -> Path:
    """Copies to `into/<name>`, every hash checked, under a temporary name until all is there."""
    target = into / snapshot.name
    here = Snapshot.at(target)
    if here is not None and not here.verify():
        return target
    rows = snapshot.rows()
    part = into / f".part-{snapshot.name}"
    _clear_parts(into, part)
    part.mkdir(parents=True)
    try:
        for row in rows:
            _fetch_file(snapshot, row, part / row.name)
        manifest = encode(snapshot.parts, rows)
        LOCAL.write(part / MANIFEST, [manifest])
        LOCAL.write(part / MARKER, [seal(manifest)])
        shutil.rmtree(target, ignore_errors=True)  # a damaged copy from before
        os.replace(part, target)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    LOCAL.flush_folder(into)
    return target


def _clear_parts(into: Path, part: Path) -> None:
    """Removes what fetches left that were killed: of the same snapshot, and of any after an hour."""
    for old in into.glob(".part-*"):
        if old == part or time.time() - old.stat().st_mtime > 3600:
            shutil.rmtree(old, ignore_errors=True)


def _fetch_file(snapshot: Snapshot, row: Row, target: Path) -> None:
    """One file, from the first place that has its bytes; SnapshotBroken where none has."""
    target.parent.mkdir(exist_ok=True)
    for place in snapshot.places(row):
        if snapshot.reach.size(place) == row.size:
            try:
                copy = snapshot.reach.again(lambda place=place: _copy(snapshot, place, target))
            except FileNotFoundError:
                if snapshot.reach.size(place) is not None:
                    raise  # it is the local folder that went away
                continue
            if copy.sha256 == row.sha256:
                return
    raise SnapshotBroken(f"{row.name} is missing or not as published")


def _copy(snapshot: Snapshot, place: Path, target: Path) -> Digest:
    """Copies and hashes in one go; what an earlier try left is replaced."""
    target.unlink(missing_ok=True)
    content = Digest(snapshot.reach.read(place))
    LOCAL.write(target, content)
    return content
