"""The items of a publisher: which wait, which are handed over, and how many ended how."""
import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from drive_sync.snapshot import Snapshot
from drive_sync.spool import Spooled
from drive_sync.status import State


@dataclass(eq=False)
class Item:
    """One folder on its way. `look_at` is when to ask Drive for it again; times by the publisher's clock."""
    label: str
    source: str | Path | Snapshot
    share: tuple[str, ...]
    then: Callable[[Snapshot], object] | None
    bytes: int
    spooled: Spooled | None = None
    state: State = State.SAVED
    snapshot: Snapshot | None = None
    looks: int = 0
    look_at: float = 0.0
    handed_at: float = 0.0

    @property
    def kind(self) -> str:
        return self.label.split("-")[0]


class Waiting:
    """Thread-safe; `changed` is notified with every change."""

    def __init__(self, most_waiting: int, newest_only: Collection[str]):
        self.changed = threading.Condition()
        self._most_waiting, self._newest_only = most_waiting, frozenset(newest_only)
        self._items: list[Item] = []
        self._ended: Counter[State] = Counter()
        self._states: dict[str, State] = {}

    def add(self, item: Item) -> None:
        """Queues an item, and leaves out the oldest of its kind where too many wait."""
        with self.changed:
            in_hand = self.first()
            self._items.append(item)
            self._states[item.label] = item.state
            if item.kind in self._newest_only:
                alike = [other for other in self._items if other.state is State.SAVED and other.kind == item.kind]
                for other in alike[:-self._most_waiting]:
                    if other is not in_hand:
                        self.end(other, State.SUPERSEDED)

    def first(self) -> Item | None:
        """The oldest item that is only saved here: the one in the thread's hands, if any is."""
        with self.changed:
            return next((item for item in self._items if item.state is State.SAVED), None)

    def handed(self) -> list[Item]:
        """What Drive was given and has not confirmed."""
        with self.changed:
            return [item for item in self._items if item.state is State.HANDED]

    def move(self, item: Item, state: State) -> None:
        """An item's new state."""
        with self.changed:
            item.state = self._states[item.label] = state
            self.changed.notify_all()

    def end(self, item: Item, state: State, keep: bool = False) -> None:
        """An item leaves, and with it its place in the spool, unless that is to be kept for another day."""
        if item.spooled is not None and not keep:
            item.spooled.discard()
        with self.changed:
            self._items.remove(item)
            self._ended[state] += 1
            self.move(item, state)

    def are_spooled(self) -> bool:
        """Whether all that did not leave outlives this process."""
        with self.changed:
            return all(item.spooled is not None for item in self._items)

    def is_empty(self) -> bool:
        with self.changed:
            return not self._items

    def counts(self) -> dict[str, int]:
        """How many are in each state, by the names of Status, and the bytes that Drive does not have for certain."""
        with self.changed:
            found = Counter(item.state for item in self._items) + self._ended
            return {**{state.name.lower(): found[state] for state in State},
                    "bytes_behind": sum(item.bytes for item in self._items)}

    def states(self) -> dict[str, State]:
        """Each label and where it is."""
        with self.changed:
            return dict(self._states)

    def labels(self) -> set[str]:
        """Labels of all that did not leave."""
        with self.changed:
            return {item.label for item in self._items}
