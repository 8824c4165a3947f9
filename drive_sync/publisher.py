"""Brings finished folders to Drive from a thread of its own: training hands one over and goes on."""
import random
import threading
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext, suppress
from pathlib import Path

from drive_sync.backoff import Backoff
from drive_sync.delivery import GivenUp, hand_over, look_for
from drive_sync.errors import LeaseLost, UploadLost, in_words
from drive_sync.lease import Lease
from drive_sync.names import Name
from drive_sync.snapshot import Snapshot
from drive_sync.source import source_bytes, source_files
from drive_sync.spool import Spool
from drive_sync.status import State, Status
from drive_sync.store import Store
from drive_sync.upload import Upload
from drive_sync.waiting import Item, Waiting

# Seconds between looks at whether Drive has what it was handed: the first, and the longest after doubling.
LOOK_FIRST, LOOK_LONGEST = 2.0, 60.0
# Drive uploads in any order, and what comes later may lean on what came before. So nothing is handed over before Drive
# has confirmed the rest. Where something is on its way for longer than this (seconds), what follows goes on without it.
IN_ORDER = 900.0


class Publisher:
    """Publishes to `store` in the order of submission, each item once Drive has those before it.

    `spool` is a local folder for what waits (see Spool).

    One publisher at a time has a spool: SpoolInUse, until the other one is closed or its process is gone.
    At most `most_waiting` items of a kind in `newest_only` wait; when Drive is away for long, older ones are left out.
    `then` is what follows an item that has none of its own, such as one that an earlier process left in the spool.
    With a `lease` that was taken it shows signs of life, and stops publishing once another session took the run over.
    """

    def __init__(self, store: Store, spool: str | Path | None = None, *, lease: Lease | None = None,
                 then: Callable[[Snapshot], object] | None = None, most_waiting: int = 3,
                 newest_only: Collection[str] = ("ckpt", "best"), clock: Callable[[], float] = time.monotonic,
                 wait: Callable[[threading.Event, float | None], object] = threading.Event.wait,
                 chance: Callable[[], float] = random.random):
        if lease is not None and not lease.held:
            raise ValueError("Take the lease, then make the publisher: it begins at once with what waits in the spool.")
        self._store, self._lease, self._then, self._clock, self._wait = store, lease, then, clock, wait
        self._spool = Spool(spool) if spool is not None else None  # SpoolInUse where another publisher has it
        self._items, self._backoff = Waiting(most_waiting, newest_only), Backoff(clock, chance)
        self._error: str | None = None
        self._lost: str | None = None
        self._last_success: float | None = None
        self._in_call_since: float | None = None
        self._heard_at = float("-inf")
        store.reach.on_bytes = self._hear
        self._wake, self._closing = threading.Event(), threading.Event()
        self._left_behind = False
        self._thread = threading.Thread(target=self._run, name="drive_sync publisher", daemon=True)
        try:
            for entry in self._spool.left_over() if self._spool else ():
                self._items.add(Item(entry.label, entry.files, entry.share, None, source_bytes(entry.files), entry))
            self._thread.start()
        except BaseException:
            if self._spool is not None:
                self._spool.release()
            raise

    def submit(self, local_folder: str | Path | Snapshot, label: str, share: Collection[str] = (),
               then: Callable[[Snapshot], object] | None = None) -> None:
        """Hands over a finished folder; `then(snapshot)` runs in the thread once it is confirmed or read back whole.

        Without a spool, or room in it, the folder has to stay until `pending()` no longer names its label. Raises
        ValueError for a bad label or folder, FileNotFoundError; never for anything that Drive does.
        """
        if self._closing.is_set():
            raise RuntimeError("This publisher is closed; make a new one.")
        Name.of(label, self._store.session, 1)
        absent = set(share) - source_files(local_folder).keys()
        if absent:
            raise ValueError(f"{local_folder} has no file {min(absent)} to be shared.")
        source = local_folder if isinstance(local_folder, Snapshot) else Path(local_folder).absolute()
        item = Item(label, source, tuple(share), then, source_bytes(source))
        if self._spool is not None:
            try:
                item.spooled = self._spool.add(local_folder, label, share)
                item.source = item.spooled.files
            except OSError as error:  # a full local disk must not stop training: published from where it is
                self._error = f"{label} could not be kept in the spool: {in_words(error)}"
        self._items.add(item)
        self._wake.set()

    def status(self) -> Status:
        """How things stand now; never waits for Drive."""
        handed = min((item.handed_at for item in self._items.handed()), default=None)
        call = self._in_call_since  # read once: the thread sets it to None
        return Status(
            **self._items.counts(), seconds_since_success=self._since(self._last_success),
            seconds_in_call=self._since(None if call is None else max(call, self._heard_at)),
            seconds_unconfirmed=self._since(handed),
            retry_in=self._backoff.seconds_left() or None, error=self._error, lost=self._lost)

    def states(self) -> dict[str, State]:
        """Each label that was submitted, and where it is."""
        return self._items.states()

    def pending(self) -> set[str]:
        """Labels that are not there for certain: their local folders must stay."""
        return self._items.labels()

    def try_now(self) -> None:
        """Ends a wait after an error, for instance because the mount is back."""
        self._backoff.clear()
        self._wake.set()

    def drain(self, timeout: float | None = None, hurry: bool = True) -> bool:
        """Waits until Drive has everything; False after `timeout` seconds, or where that cannot come to be.

        `hurry` ends a wait after an error first.
        """
        if hurry:
            self.try_now()
        with self._items.changed:
            self._items.changed.wait_for(
                lambda: self._items.is_empty() or self._lost or self._closing.is_set(), timeout)
        return self.status().settled

    def close(self, timeout: float = 5.0) -> None:
        """Ends the thread after the call it is in. What waits stays in the spool for the next publisher.

        A call that hangs is left behind after `timeout` seconds: when it comes back, it touches nothing more.
        """
        self._closing.set()
        self._wake.set()
        with self._items.changed:
            self._items.changed.notify_all()
        self._thread.join(timeout)
        self._left_behind = self._thread.is_alive()
        if self._spool is not None:
            self._spool.release()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closing.is_set()

    def keeps_all(self) -> bool:
        """Whether the next publisher on this machine will find in the spool what Drive does not have yet."""
        return self._items.are_spooled()

    def _since(self, moment: float | None) -> float | None:
        return None if moment is None else self._clock() - moment

    def _run(self) -> None:
        """The thread: one piece of work, then a wait until there is more to do."""
        while not self._closing.is_set():
            self._wake.clear()
            seconds = self._step()
            if seconds is None or seconds > 0:
                self._wait(self._wake, seconds)

    def _step(self) -> float | None:
        """One piece of work. Returns the seconds until the next one, None for "when something is submitted"."""
        if self._lost is None:
            self._in_call_since, waiting = self._clock(), self._backoff.seconds_left() > 0
            try:
                self._keep_lease(patient=waiting)
                if not waiting:
                    self._work()
                    self._backoff.succeeded()
            except LeaseLost as lost:
                self._lost = str(lost)
                with self._items.changed:
                    self._items.changed.notify_all()
            except Exception as error:  # whatever it is, the thread lives on and says so
                self._error = in_words(error)
                self._backoff.failed(error)
            finally:
                self._in_call_since = None
        return self._seconds_to_next()

    def _work(self) -> None:
        """Hands over the next item, then looks at what was handed over before."""
        item = self._next()
        due = [item for item in self._items.handed() if item.look_at <= self._clock()]
        if item is not None and self._hand_over(item):
            due.append(item)
        for item in due:
            if not self._closing.is_set():
                self._look(item)

    def _next(self) -> Item | None:
        """The oldest item that waits, once nothing is on its way, or something is for too long."""
        since = min((item.handed_at for item in self._items.handed()), default=None)
        return self._items.first() if since is None or self._clock() - since >= IN_ORDER else None

    def _keep_lease(self, patient: bool) -> None:
        """A sign of life where one is due, also while a full Drive takes nothing else; LeaseLost."""
        if self._lease is not None:
            with suppress(OSError) if patient else nullcontext():
                self._lease.keep()

    def _hand_over(self, item: Item) -> bool:
        """Publishes an item, or gives it up."""
        try:
            item.snapshot = hand_over(self._store, item)
        except GivenUp as given_up:
            self._error = f"{item.label} could not be published: {in_words(given_up.__cause__)}"
            self._items.end(item, State.FAILED, given_up.keep)
            return False
        item.looks = 0
        item.look_at = item.handed_at = self._last_success = self._clock()
        self._items.move(item, State.HANDED)
        return True

    def _look(self, item: Item) -> None:
        """Whether Drive has an item."""
        assert item.snapshot is not None, item
        try:
            upload = look_for(item.snapshot)
        except UploadLost:
            self._items.move(item, State.SAVED)
            raise
        if upload is Upload.PENDING:
            item.look_at = self._clock() + min(LOOK_FIRST * 2 ** min(item.looks, 30), LOOK_LONGEST)
            item.looks += 1
        else:
            self._finish(item, State.CONFIRMED if upload is Upload.CONFIRMED else State.UNVERIFIED)

    def _finish(self, item: Item, state: State) -> None:
        """Drive has it: what was to happen then happens, and the local copy in the spool goes."""
        if self._left_behind:
            return
        self._error, self._last_success = None, self._clock()
        if then := item.then or self._then:
            try:
                then(item.snapshot)
            except Exception as error:  # a clean-up that fails is made up for by the next one
                self._error = f"{item.label} is there, but what was to follow failed: {in_words(error)}"
        self._items.end(item, state)

    def _hear(self, count: int) -> None:
        """Drive took or gave a block. In an hour's upload the session is alive, and notices when the run is taken."""
        self._heard_at = self._clock()
        if threading.current_thread() is self._thread:
            self._keep_lease(patient=True)  # a sign that fails is no reason to break off what goes well

    def _seconds_to_next(self) -> float | None:
        """None when only a new item would give something to do."""
        if self._lost:
            return None
        renewal = self._lease.seconds_to_renewal() if self._lease is not None else None
        if left := self._backoff.seconds_left():
            return left if renewal is None else min(left, max(renewal, LOOK_LONGEST))
        if self._next():
            return 0.0
        times = [max(item.look_at - self._clock(), 0.0) for item in self._items.handed()]
        if renewal is not None:  # a session with nothing to publish is alive all the same
            times.append(renewal)
        return min(times, default=None)
