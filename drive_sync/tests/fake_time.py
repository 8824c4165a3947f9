"""A clock that only waiting moves: hours of backing off pass at once, and no test sleeps."""
import threading
from collections.abc import Callable


class FakeTime:
    """`clock` and `wait` for a Publisher; `then` is called in each wait with the time at its end."""

    def __init__(self, then: Callable[[float], object] = lambda now: None):
        self.now, self.waits, self._then = 1000.0, [], then

    def clock(self) -> float:
        return self.now

    def wait(self, event: threading.Event, seconds: float | None) -> None:
        if seconds is None:
            event.wait()
            return
        self.waits.append(seconds)
        self._then(self.now + seconds)
        self.now += seconds
