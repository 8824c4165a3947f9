"""How long to leave Drive alone after an error: longer each time, longer still where only a person or a day helps."""
from collections.abc import Callable

from drive_sync.errors import FULL

# Seconds: the first wait and the longest. A full Drive or a used-up quota is not better a minute later.
DEAD_MOUNT, FULL_DRIVE = (5.0, 600.0), (300.0, 7200.0)


class Backoff:
    """Doubling waits with jitter, so that several machines do not come back in the same second."""

    def __init__(self, clock: Callable[[], float], chance: Callable[[], float]):
        self._clock, self._chance = clock, chance
        self._failures, self._until = 0, 0.0

    def failed(self, error: Exception) -> None:
        """Sets the next wait."""
        first, longest = FULL_DRIVE if getattr(error, "errno", None) in FULL else DEAD_MOUNT
        seconds = min(first * 2 ** min(self._failures, 30), longest)
        self._failures += 1
        self._until = self._clock() + seconds * (0.5 + self._chance())

    def succeeded(self) -> None:
        """The next error starts from the shortest wait."""
        self._failures, self._until = 0, 0.0

    def clear(self) -> None:
        """Ends the present wait, but remembers how often it failed."""
        self._until = 0.0

    def seconds_left(self) -> float:
        """0.0 when it may be tried."""
        return max(self._until - self._clock(), 0.0)
