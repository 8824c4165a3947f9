"""Which snapshots may go. Nothing is deleted before enough newer ones are known to be good."""
from collections.abc import Collection
from typing import TYPE_CHECKING

from drive_sync.errors import SnapshotBroken
from drive_sync.manifest import MANIFEST, decode
from drive_sync.snapshot import Snapshot
from drive_sync.upload import Upload, upload_state

if TYPE_CHECKING:
    from drive_sync.store import Store

# An unfinished folder of another session may be one that is being written; after this many seconds it is litter.
LITTER_AFTER = 3600.0


class Retention:
    """One clean-up of a store, under the store's lock."""

    def __init__(self, store: "Store"):
        self._store = store

    def apply(self, kind: str, keep_last: int, keep: Collection[str]) -> list[str]:
        """Walks from the newest: the last `keep_last` good ones stay, and all that is labelled in `keep`."""
        if keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}; at least 1 must stay, or there is nothing to continue from.")
        store, good, removed = self._store, 0, []
        for snapshot in reversed(store.snapshots(kind)):
            if good < keep_last:
                # Only the newest is read in full, and once: on Drive a reading may be a download.
                good += self._is_good(snapshot, deep=good == 0 and snapshot.name not in store.reach.verified)
            elif not {snapshot.label, snapshot.name} & set(keep) and store.may_remove(*_owner(snapshot)):
                store.remove(snapshot)
                removed.append(snapshot.name)
        self.clear_litter()
        return removed

    def clear_litter(self) -> None:
        """Folders that were never finished and shared files that no manifest names."""
        store = self._store
        found = [Snapshot(name, store.reach) for name in store.all_names()]
        finished = {snapshot.kind for snapshot in found if snapshot.is_finished()}
        for snapshot in found:
            # One with a manifest may have lost no more than its marker, and be all that is left of a run.
            needed = snapshot.kind not in finished and store.reach.size(snapshot.path / MANIFEST) is not None
            if not (needed or snapshot.is_finished()) and store.may_remove(*_owner(snapshot)) and self._is_litter(
                    snapshot):
                store.remove(snapshot)
        in_use, unclear = self._in_use()
        store.shared.clear(in_use, lambda *owner: owner not in unclear and store.may_remove(*owner))

    def _is_good(self, snapshot: Snapshot, deep: bool) -> bool:
        """Whole, and not merely waiting on this machine for its upload."""
        if snapshot.verify(deep, reread=False):
            return False
        try:
            return upload_state(snapshot.reach, snapshot.files()) != Upload.PENDING
        except SnapshotBroken:
            return False

    def _is_litter(self, snapshot: Snapshot) -> bool:
        """A store's own half folders are litter at once: its lock is held, so none of them is being written."""
        store = self._store
        return snapshot.session == store.session or store.now() - store.reach.disk.changed(
            snapshot.path) > LITTER_AFTER

    def _in_use(self) -> tuple[dict[str, int], set[tuple[str, int]]]:
        """Shared files that manifests name, finished or not, with their sizes; and the sessions whose manifests cannot
        all be read."""
        in_use: dict[str, int] = {}
        unclear: set[tuple[str, int]] = set()
        for name in self._store.all_names():
            snapshot = Snapshot(name, self._store.reach)
            try:
                in_use |= self._stored_for(snapshot)
            except NotADirectoryError:  # a person's file with such a name
                continue
            except (FileNotFoundError, IsADirectoryError, SnapshotBroken):
                unclear.add(_owner(snapshot))
        return in_use, unclear

    def _stored_for(self, snapshot: Snapshot) -> dict[str, int]:
        """The shared files that a manifest names. It never changes, so it is read once."""
        known = self._store.stored_for
        if snapshot.name not in known:
            rows = decode(snapshot.reach.content(snapshot.path / MANIFEST), snapshot.parts)
            known[snapshot.name] = {row.stored: row.size for row in rows if row.stored}
        return known[snapshot.name]


def _owner(snapshot: Snapshot) -> tuple[str, int]:
    return snapshot.session, snapshot.generation
