"""The end of a run: nothing is unmounted, and no machine given back, before Drive has everything."""
import time
from collections.abc import Callable

from drive_sync.colab import flush_and_unmount, give_machine_back, on_colab
from drive_sync.errors import DriveUnavailable
from drive_sync.lease import Lease
from drive_sync.publisher import Publisher

# Seconds between the sentences that say how far it is.
SAY_EVERY = 30.0


def finish(publisher: Publisher, *, lease: Lease | None = None, timeout: float | None = None, give_back: bool = False,
           accept_unverified: bool = False, say: Callable[[str], object] = print,
           clock: Callable[[], float] = time.monotonic) -> bool:
    """Waits for Drive, then unmounts it in Colab and, if asked, gives the machine back. Whether all is safe.

    After `timeout` seconds it gives up and changes nothing, so it can be called again. A machine is given back only
    when Drive confirmed every file, or with `accept_unverified` where the mount does not tell.
    """
    if not _drained(publisher, timeout, say, clock):
        say(f"{publisher.status().sentence()} The machine and its files stay as they are; run this again later.")
        return False
    status = publisher.status()
    say(status.sentence())
    publisher.close()
    try:
        if lease is not None:
            lease.release()
        if on_colab():
            flush_and_unmount()
    except DriveUnavailable as error:
        say(f"Everything was handed over, but the end failed: {error.strerror}. The machine stays; run this again.")
        return False
    if give_back and status.unverified and not accept_unverified:
        say("The machine is kept, because this folder does not tell whether the uploads arrived. Look at "
            "drive.google.com, then end the machine yourself (Runtime, Disconnect and delete runtime).")
        return False
    if give_back:
        give_machine_back()
    return True


def _drained(publisher: Publisher, timeout: float | None, say: Callable[[str], object],
             clock: Callable[[], float]) -> bool:
    """Drains, saying how far it is now and then."""
    until = None if timeout is None else clock() + timeout
    publisher.try_now()
    while True:
        left = SAY_EVERY if until is None else min(SAY_EVERY, max(until - clock(), 0.0))
        if publisher.drain(left, hurry=False):
            return True
        status = publisher.status()
        if status.lost or not status.behind or (until is not None and clock() >= until):
            return False
        say(status.sentence())
