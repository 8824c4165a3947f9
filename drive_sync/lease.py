"""Who works on a run: small write-once files, one for each sign of life, so that a second session is told.

A mounted Drive has no locks, so a lease is advice, not force. What protects the files is that no session ever writes
or deletes a name of another one that is alive. A file's name says all that other machines need: Drive may show its
content empty. The content says which process wrote it, so that its own machine can tell when that one has died.
"""
import itertools
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress

from drive_sync.errors import LeaseHeld, LeaseLost
from drive_sync.process import Process
from drive_sync.sign import Sign
from drive_sync.store import Store

FOLDER = "lease"
# Seconds. Another machine may see a new file minutes late, and a laptop may be asleep for a while.
SHORTEST_LIFE, LIFE = 1800.0, 2700.0
LOOK_EVERY = 60.0
REMEMBERED = 8  # generations whose signs stay, so that a number is not used again when the newest ones are lost
CLEARED_AT_ONCE = 100  # signs: on Drive each takes a moment
_claims: "weakref.WeakSet[Lease]" = weakref.WeakSet()  # what this process holds and has not given back
_claims_lock = threading.RLock()


class Lease:
    """This session's claim on a store's run. `take` first; then `keep` now and then, which the publisher does.

    `taken_from` is the sign of the session that `take(take_over=True)` took the run from, None where none was alive.
    """

    def __init__(self, store: Store, life: float = LIFE, now: Callable[[], float] = time.time):
        if life < SHORTEST_LIFE:
            raise ValueError(f"A lease of {life:.0f} seconds is too short: other machines see Drive's files minutes "
                             f"late. Give at least {SHORTEST_LIFE:.0f}.")
        self.taken_from: Sign | None = None
        self._store, self._life, self._now = store, life, now
        self._folder = store.folder / FOLDER
        self._taken: Sign | None = None
        self._written = self._looked = float("-inf")
        self._processes: dict[str, Process] = {}  # sign's name -> who wrote it; a sign never changes

    def take(self, take_over: bool = False) -> int:
        """Begins a new generation and returns it. LeaseHeld while another session is alive, unless `take_over`."""
        signs = self.signs()
        living = self.living(signs)
        # One that was taken over before is told so, or will be: only the last one is a person's to decide about.
        newest = max((sign.generation for sign in signs), default=0)
        holder = next((sign for sign in living if sign.generation == newest), None)
        if holder and not take_over:
            raise self._held(holder)
        self._store.generation = max([self._store.generation, *(sign.generation + 1 for sign in signs)])
        self._store.alive = lambda: {sign.session for sign in self.living()}
        try:
            with _claims_lock:
                _claims.add(self)
            self._taken = self._write("taken")
            # Both of two sessions that start together saw no other: the one that came second steps back.
            if rival := self._rival(self.signs()):
                raise self._held(rival)
        except BaseException:
            with suppress(OSError):
                self.release()
            raise
        self.taken_from = holder
        self._forget(signs, {sign.session for sign in living})
        return self._store.generation

    @property
    def held(self) -> bool:
        """Whether it was taken and not given back. Another session may have taken it over all the same: see `keep`."""
        return self._taken is not None

    def keep(self) -> None:
        """Looks whether another session took over and renews the sign of life, each no more often than needed.

        Raises LeaseLost, DriveUnavailable.
        """
        if self._taken is None:
            raise LeaseLost("this session has given the run back. What it saves stays on this machine")
        if self._is_due(self._looked, LOOK_EVERY):
            if rival := self._rival(self.signs()):
                raise LeaseLost(f"session {rival.session} took this run over{_where(rival)} {self._ago(rival)}. What "
                                "this session saves stays on this machine; to go on here, start again with another "
                                "run name")
            self._looked = self._now()
        if self.seconds_to_renewal() <= 0:
            self._write("kept")

    def seconds_to_renewal(self) -> float:
        """How long `keep` may be left alone."""
        every = self._life / 4
        return 0.0 if self._is_due(self._written, every) else self._written + every - self._now()

    def release(self) -> None:
        """Ends the claim: the next session need not wait. One of this process need not, even where Drive is dead."""
        with _claims_lock:
            _claims.discard(self)
        if self._taken is not None:
            self._write("released")
            self._taken = None

    def signs(self) -> list[Sign]:
        """All signs of life there are, in order; DriveUnavailable."""
        found = (Sign.parse(name) for name in self._store.reach.names(self._folder))
        return sorted(sign for sign in found if sign)

    def living(self, signs: list[Sign] | None = None) -> list[Sign]:
        """The last sign of each other session that neither ended, nor fell silent, nor is known to have died."""
        by_session: dict[str, list[Sign]] = {}
        for sign in self.signs() if signs is None else signs:
            if sign.session != self._store.session:
                by_session.setdefault(sign.session, []).append(sign)
        found = (self._last_of(theirs) for theirs in by_session.values())
        return sorted(sign for sign in found if sign)

    def _last_of(self, signs: list[Sign]) -> Sign | None:
        """One session's last sign, with the process that wrote it; None where the session is over."""
        generation = max(sign.generation for sign in signs)
        # By generation, not by time alone: a clock may have been set back between two signs.
        newest_first = sorted((sign for sign in signs if sign.generation == generation),
                              key=lambda sign: sign.time, reverse=True)
        last = newest_first[0]
        if any(sign.act == "released" for sign in newest_first) or self._now() - last.time >= self._life:
            return None
        process = next((found for sign in newest_first if (found := self._process(sign))), None)
        return None if process and self._is_over(last.session, process) else last.written_by(process)

    def _is_over(self, session: str, process: Process) -> bool:
        """Whether its process died, or is this one and holds that claim no more (a cell that ended with an error)."""
        if process != Process.this():
            return process.is_over()
        with _claims_lock:
            return process.is_here() and all(lease._store.session != session for lease in _claims)

    def _process(self, sign: Sign) -> Process | None:
        """Who wrote a sign, None where its content does not tell (yet)."""
        if sign.name not in self._processes:
            try:
                content = self._store.reach.content(self._folder / sign.name)
            except OSError:  # renewed meanwhile, or Drive has the name but not the content
                return None
            if found := Process.parse(content.decode("utf-8", "replace").partition("\n")[0]):
                self._processes[sign.name] = found
        return self._processes.get(sign.name)

    def _rival(self, signs: list[Sign]) -> Sign | None:
        """A session that has a better claim: a later generation, or the same one, was first and is not over."""
        mine = self._taken
        assert mine is not None
        claims = [sign for sign in signs if sign.act == "taken" and sign.session != mine.session]
        later = [sign for sign in claims if sign.generation > mine.generation]
        first = [sign for sign in claims if sign.generation == mine.generation
                 and (sign.time, sign.session) < (mine.time, mine.session)]
        if first and not later:
            ended = {sign.session for sign in signs if sign.act == "released"}
            first = [sign for sign in first if sign.session not in ended
                     and not ((process := self._process(sign)) and self._is_over(sign.session, process))]
        found = next(iter(later or first), None)
        return found and found.written_by(self._process(found))

    def _write(self, act: str) -> Sign:
        """A new file, then this session's older ones go, but for the one that tells when it took the run."""
        reach, second, process = self._store.reach, int(self._now()), Process.this()
        text = (f"{process.encode()}\nSession {self._store.session}, process {process.pid} on {process.host}: {act} at "
                f"{time.ctime(second)}.\n").encode()
        with reach.guard():
            reach.make_folders(self._folder)
            for number in itertools.count(1):
                again = f".{number}" if number > 1 else ""
                name = f"g{self._store.generation:04d}-{self._store.session}-{second}-{act}{again}.txt"
                try:
                    reach.disk.write(self._folder / name, [text])
                    break
                except FileExistsError:
                    continue
        self._written = self._now()
        with suppress(OSError):  # the next renewal clears what stays now
            self._discard(sign for sign in self.signs() if sign.session == self._store.session and sign.act == "kept"
                          and sign.name != name)
        sign = Sign.parse(name)
        assert sign is not None, name
        return sign

    def _forget(self, signs: list[Sign], living: set[str]) -> None:
        """Of sessions that are over, only those signs stay that tell which of the newest generations are taken."""
        over = [sign for sign in signs if sign.session not in living and sign.session != self._store.session and (
            sign.act == "kept" or sign.generation <= self._store.generation - REMEMBERED)]
        with suppress(OSError):  # what cannot go is no reason not to work
            self._discard(over[:CLEARED_AT_ONCE])

    def _discard(self, signs: Iterable[Sign]) -> None:
        with self._store.reach.guard():
            for sign in signs:
                self._store.reach.disk.discard(self._folder / sign.name)

    def _is_due(self, since: float, every: float) -> bool:
        """Whether `every` seconds have passed; a clock that was set back must not put it off for hours."""
        return not 0 <= self._now() - since < every

    def _held(self, holder: Sign) -> LeaseHeld:
        seconds_ago = max(self._now() - holder.time, 0.0)
        left = max(math.ceil((holder.time + self._life - self._now()) / 60), 1)
        gone = "it is stuck" if holder.process and holder.process.is_here() else "its machine is gone"
        return LeaseHeld(
            f"Session {holder.session}{_where(holder)} works on this run; its last sign of life was "
            f"{self._ago(holder)}. End it there, or wait {_minutes(left)} if {gone}, or take the run over: the other "
            "session is then told and publishes nothing more.",
            session=holder.session, host=holder.host, seconds_ago=seconds_ago, minutes_left=left)

    def _ago(self, sign: Sign) -> str:
        return f"{_minutes(round(max(self._now() - sign.time, 0) / 60))} ago"

    def who_works(self) -> str:
        """One sentence: whose last sign of life is the newest, when it came, and where it works."""
        living = self.living()
        if not living:
            return "Nobody works on it now."
        return f"Session {living[-1].session}{_where(living[-1])} works on it; its last sign was {self._ago(living[-1])}."


def _minutes(count: int) -> str:
    return {0: "less than a minute", 1: "1 minute"}.get(count, f"{count} minutes")


def _where(sign: Sign) -> str:
    """On which machine, as far as the sign tells."""
    if sign.process is None:
        return ""
    if sign.process == Process.this():
        return " in this same process (another cell or thread)"
    return f" (process {sign.process.pid} of this machine)" if sign.process.is_here() else f" on {sign.process.host}"
