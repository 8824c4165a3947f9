"""The end of a session: nothing is unmounted, and no machine given back, before Drive has everything."""
import time
from collections.abc import Callable

from drive_sync.colab import flush_and_unmount, give_machine_back, on_colab
from drive_sync.errors import DriveUnavailable, in_words
from drive_sync.lease import Lease
from drive_sync.publisher import Publisher
from drive_sync.reach import within

# Seconds between the sentences that say how far it is, and for a last sign that may hang.
SAY_EVERY = 30.0
SECONDS_TO_SIGN_OFF = 30.0
SHORTEST_FLUSH = 60.0


def finish(publisher: Publisher, *, lease: Lease | None = None, timeout: float | None = None, unmount: bool = True,
           give_back: bool = False, accept_unverified: bool = False, say: Callable[[str], object] = print,
           clock: Callable[[], float] = time.monotonic) -> bool:
    """Waits for Drive, closes the publisher, gives the run back. Whether all that was handed over is safe.

    With `unmount` (an interrupted cell leaves Drive mounted for the next one) Colab's Drive is unmounted, then; with
    `give_back` so is the machine given back, but only where Drive confirmed every file, or with `accept_unverified`
    where the mount does not tell. After `timeout` seconds, and where another session took the run over, it changes
    nothing: it may be called again, or the publisher closed.
    """
    until = None if timeout is None else clock() + timeout
    arrived = _drained(publisher, until, say, clock)
    status = publisher.status()
    say(f"{status.sentence()}{'' if arrived else _what_is_kept(publisher)}")
    if not arrived:
        return False
    publisher.close()
    _sign_off(lease, say)
    if (unmount or give_back) and on_colab():
        try:
            flush_and_unmount(None if until is None else max(until - clock(), SHORTEST_FLUSH))
        except DriveUnavailable as error:
            say(f"{error.strerror}. The machine stays. Run `from google.colab import drive; drive.flush_and_unmount()` "
                "in a cell before you end it.")
            return False
    if give_back and status.unverified and not accept_unverified:
        say("The machine is kept, because this folder does not tell whether the uploads arrived. Look at "
            "drive.google.com, then end the machine yourself (Runtime, Disconnect and delete runtime).")
        return False
    if status.failed:
        if give_back:
            say("The machine is kept, because what could not be published is only here.")
        return False
    if give_back:
        give_machine_back()
    return True


def _drained(publisher: Publisher, until: float | None, say: Callable[[str], object],
             clock: Callable[[], float]) -> bool:
    """Drains, saying how far it is now and then. Whether nothing is on its way any more."""
    publisher.try_now()
    while True:
        left = SAY_EVERY if until is None else min(SAY_EVERY, max(until - clock(), 0.0))
        publisher.drain(left, hurry=False)
        status = publisher.status()
        if status.lost or not status.behind:
            return status.lost is None
        if publisher.closed or (until is not None and clock() >= until):
            return False
        say(status.sentence())


def _what_is_kept(publisher: Publisher) -> str:
    """For whoever reads that Drive does not have everything: what becomes of the rest."""
    if publisher.status().lost:
        return ""
    if publisher.keeps_all():
        return (" What Drive does not have yet is kept on this machine, so keep the machine: it goes to Drive when this "
                "run is started here again.")
    if publisher.closed:
        return " This program brings no more of it to Drive: what is missing there is on this machine only."
    return " Keep this program running until Drive has all of it: the rest is on this machine only."


def _sign_off(lease: Lease | None, say: Callable[[str], object]) -> None:
    """Gives the run back. That everything has arrived is not undone by a Drive that does not take this last sign."""
    if lease is None:
        return
    try:
        within(SECONDS_TO_SIGN_OFF, lease.release)
    except OSError as error:
        say(f"Drive did not take the sign that this session has ended ({in_words(error)}). Started on another machine, "
            "the run will say for a while that somebody works on it, and can be taken over there.")
