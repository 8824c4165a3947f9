"""One sign of life of a session that works on a run. Its file's name is all of it, but for who wrote it."""
import re
from dataclasses import dataclass, field, replace

from drive_sync.process import Process

_NAME = re.compile(r"g(?P<generation>\d+)-(?P<session>[a-z0-9]+)-(?P<time>\d+)-(?P<act>taken|kept|released)"
                   r"(?:\.\d+)?\.txt")


@dataclass(frozen=True, order=True)
class Sign:
    """The highest generation has the run; of two that took the same one, the one that came first.

    `time` is in seconds since 1970 by the clock of whoever wrote it; `process` is None where that is not known.
    """
    generation: int
    time: float
    session: str
    act: str
    name: str
    process: Process | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, name: str) -> "Sign | None":
        """A sign from its file's name."""
        found = _NAME.fullmatch(name)
        return cls(int(found["generation"]), float(found["time"]), found["session"], found["act"],
                   name) if found else None

    @property
    def host(self) -> str | None:
        """The machine's name."""
        return self.process.host if self.process else None

    def written_by(self, process: Process | None) -> "Sign":
        """The same sign, with who wrote it."""
        return replace(self, process=process)
