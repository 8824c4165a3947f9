"""Who works on a run: small write-once files, one for each sign of life, so that a second session is told.

A mounted Drive has no locks, so a lease is advice, not force. What protects the files is that no session ever writes
or deletes a name of another one that is alive. A file's name says everything; Drive may show its content empty.
"""
import itertools
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from drive_sync.errors import LeaseHeld, LeaseLost
from drive_sync.store import Store

FOLDER = "lease"
# Seconds. Another machine may see a new file minutes late, and a laptop may be asleep for a while.
SHORTEST_LIFE, LIFE = 1800.0, 2700.0
LOOK_EVERY = 60.0
_SIGN = re.compile(r"g(?P<generation>\d+)-(?P<session>[a-z0-9]+)-(?P<time>\d+)-(?P<act>taken|kept|released)"
                   r"(?:\.\d+)?\.txt")


@dataclass(frozen=True, order=True)
class Sign:
    """One sign of life. The highest generation has the run; of two that took the same one, the one that came first."""
    generation: int
    time: float
    session: str
    act: str
    name: str

    @classmethod
    def parse(cls, name: str) -> "Sign | None":
        """A sign from its file's name."""
        found = _SIGN.fullmatch(name)
        return cls(int(found["generation"]), float(found["time"]), found["session"], found["act"],
                   name) if found else None


class Lease:
    """This session's claim on a store's run. `take` first; then `keep` now and then, which the publisher does."""

    def __init__(self, store: Store, life: float = LIFE, now: Callable[[], float] = time.time):
        if life < SHORTEST_LIFE:
            raise ValueError(f"A lease of {life:.0f} seconds is too short: other machines see Drive's files minutes "
                             f"late. Give at least {SHORTEST_LIFE:.0f}.")
        self._store, self._life, self._now = store, life, now
        self._folder = store.folder / FOLDER
        self._taken: Sign | None = None
        self._written = self._looked = float("-inf")

    def take(self, take_over: bool = False) -> int:
        """Begins a new generation and returns it. LeaseHeld while another session is alive, unless `take_over`."""
        signs = self.signs()
        holders = self._living(signs)
        if holders and not take_over:
            raise LeaseHeld(self._held_words(holders[-1]))
        self._store.generation = max([self._store.generation, *(sign.generation + 1 for sign in signs)])
        self._taken = self._write("taken")
        self._store.alive = lambda: {sign.session for sign in self._living(self.signs())}
        # Both of two sessions that start together saw no other: the one that came second steps back.
        if rival := self._rival(self.signs()):
            self.release()
            raise LeaseHeld(self._held_words(rival))
        return self._store.generation

    def keep(self) -> None:
        """Looks whether another session took over and renews the sign of life, each no more often than needed.

        Raises LeaseLost, DriveUnavailable.
        """
        assert self._taken is not None, "Lease.keep() before Lease.take()"
        if self._now() - self._looked >= LOOK_EVERY:
            if rival := self._rival(self.signs()):
                raise LeaseLost(f"session {rival.session} took this run over {self._ago(rival)}. What this session "
                                "saves stays on this machine; to go on here, start again with another run name")
            self._looked = self._now()
        if self.seconds_to_renewal() <= 0:
            self._write("kept")

    def seconds_to_renewal(self) -> float:
        """How long `keep` may be left alone."""
        return max(self._written + self._life / 4 - self._now(), 0.0)

    def release(self) -> None:
        """Ends the claim: the next session need not wait."""
        if self._taken is not None:
            self._write("released")
            self._taken = None

    def signs(self) -> list[Sign]:
        """All signs of life there are, in order; DriveUnavailable."""
        found = (Sign.parse(name) for name in self._store.reach.names(self._folder))
        return sorted(sign for sign in found if sign)

    def _living(self, signs: list[Sign]) -> list[Sign]:
        """The last sign of each other session that neither ended nor fell silent."""
        last = {sign.session: sign for sign in sorted(signs, key=lambda sign: (sign.time, sign.act == "released"))}
        return sorted(sign for session, sign in last.items() if session != self._store.session
                      and sign.act != "released" and self._now() - sign.time < self._life)

    def _rival(self, signs: list[Sign]) -> Sign | None:
        """A session that has a better claim: a later generation, or the same one and was first."""
        mine = self._taken
        assert mine is not None
        claims = [sign for sign in signs if sign.act == "taken" and sign.session != mine.session]
        better = [sign for sign in claims if sign.generation > mine.generation
                  or (sign.generation == mine.generation and (sign.time, sign.session) < (mine.time, mine.session))]
        ended = {sign.session for sign in signs if sign.act == "released"}
        return next((sign for sign in better if sign.generation > mine.generation or sign.session not in ended), None)

    def _write(self, act: str) -> Sign:
        """A new file, then this session's older ones go, but for the one that tells when it took the run."""
        disk, second = self._store.reach.disk, int(self._now())
        text = f"Session {self._store.session} on {platform.node()}: {act} at {time.ctime(second)}.\n".encode()
        with self._store.reach.guard():
            disk.make_folders(self._folder)
            for number in itertools.count(1):
                again = f".{number}" if number > 1 else ""
                name = f"g{self._store.generation:04d}-{self._store.session}-{second}-{act}{again}.txt"
                try:
                    disk.write(self._folder / name, [text])
                    break
                except FileExistsError:
                    continue
            self._written = self._now()
            for sign in self.signs():
                if sign.session == self._store.session and sign.act == "kept" and sign.name != name:
                    disk.discard(self._folder / sign.name)
        sign = Sign.parse(name)
        assert sign is not None, name
        return sign

    def _held_words(self, holder: Sign) -> str:
        minutes = max((holder.time + self._life - self._now()) / 60, 0)
        return (f"Session {holder.session} works on this run; its last sign of life was {self._ago(holder)}. End it, "
                f"or wait {minutes:.0f} minutes if its machine is gone, or take the run over on purpose "
                "(take_over=True): the other session is told and publishes nothing more.")

    def _ago(self, sign: Sign) -> str:
        return f"{max(self._now() - sign.time, 0) / 60:.0f} minutes ago"
