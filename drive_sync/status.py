"""How far behind Drive is, as numbers and as one sentence."""
from dataclasses import dataclass
from enum import StrEnum

# Seconds after which an upload that is not confirmed is mentioned. Reported: files that never arrive.
STUCK_AFTER = 1800.0


class State(StrEnum):
    """Where one item is."""
    SAVED = "saved here"
    HANDED = "handed to Drive"
    CONFIRMED = "confirmed there"
    UNVERIFIED = "unverified"  # read back whole, but this mount does not tell whether Drive has it
    FAILED = "failed"
    SUPERSEDED = "superseded"  # newer ones of its kind were waiting, so it was left out


@dataclass(frozen=True)
class Status:
    """One look at a publisher. Times in seconds; None where there is nothing to tell."""
    saved: int
    handed: int
    confirmed: int
    unverified: int
    failed: int
    superseded: int
    bytes_behind: int
    seconds_since_success: float | None
    seconds_in_call: float | None
    seconds_unconfirmed: float | None
    retry_in: float | None
    error: str | None
    lost: str | None

    @property
    def behind(self) -> int:
        """Items that Drive does not have for certain."""
        return self.saved + self.handed

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way and nothing was given up."""
        return self.behind == 0 and self.failed == 0 and self.lost is None

    def sentence(self) -> str:
        """For the notebook and the log."""
        if self.lost:
            return f"Nothing more goes to Drive: {self.lost}."
        parts = [self._place()]
        if self.failed:
            parts.append(f"{self.failed} could not be published and will not be tried again")
        if self.superseded:
            parts.append(f"{self.superseded} left out because newer ones were waiting")
        if self.behind and self.seconds_since_success is not None:
            parts.append(f"the last success was {duration(self.seconds_since_success)} ago")
        if self.seconds_in_call is not None and self.seconds_in_call >= 120:
            parts.append(f"Drive has not answered for {duration(self.seconds_in_call)}")
        if self.seconds_unconfirmed is not None and self.seconds_unconfirmed >= STUCK_AFTER:
            parts.append(f"what was handed over {duration(self.seconds_unconfirmed)} ago is still not confirmed; if "
                         "that lasts, unmount Drive and mount it again: nothing is lost by it")
        if self.error and (self.behind or self.failed):
            parts.append(self.error)
        if self.behind and self.retry_in:
            parts.append(f"trying again in {duration(self.retry_in)}; training goes on")
        return "; ".join(parts) + "."

    def _place(self) -> str:
        """The first clause: where things are."""
        if self.behind:
            counts = [f"{count} {state}" for count, state in ((self.saved, "saved here"), (self.handed, State.HANDED))
                      if count]
            return f"Drive is {self.behind} behind ({' and '.join(counts)}, {self.bytes_behind / 1e6:.1f} MB)"
        if self.unverified:
            return (f"{self.confirmed + self.unverified} published and read back; upload unverified for "
                    f"{self.unverified}, because this folder does not tell")
        if self.confirmed:
            return f"Drive has {'' if self.failed else 'all '}{self.confirmed}, confirmed"
        return "Nothing has reached Drive" if self.failed else "Nothing was handed over yet"


def duration(seconds: float) -> str:
    """"40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
