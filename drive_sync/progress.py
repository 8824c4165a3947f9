"""How far a command is, for a person at a terminal; nothing at all where the output goes to a file or a program."""
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from drive_sync.reach import Reach

EVERY = 0.2  # seconds between two looks


@contextmanager
def shown(reach: Reach, what: str, total: int, out: TextIO | None = None,
          clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """While it lasts, one line that is written over and over: `what`, and how many of `total` bytes passed `reach`."""
    out = out or sys.stderr
    if not out.isatty():
        yield
        return
    done, said = 0, float("-inf")

    def moved(count: int) -> None:
        nonlocal done, said
        done += count
        if clock() - said >= EVERY:
            said = clock()
            out.write(f"\r\x1b[K{what}: {_share(done, total)}")
            out.flush()

    before, reach.on_bytes = reach.on_bytes, moved
    try:
        moved(0)
        yield
    finally:
        reach.on_bytes = before
        out.write("\r\x1b[K")
        out.flush()


def _share(done: int, total: int) -> str:
    """Never more than 99 %: what is done says so itself."""
    if total == 0:
        return f"{done / 1e6:.0f} MB"
    return f"{min(100 * done // total, 99)} % of {total / 1e6:.0f} MB"
