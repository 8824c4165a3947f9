"""Which process wrote something, and whether it still runs: only the machine that it ran on can tell."""
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

PROC = "/proc"


@dataclass(frozen=True)
class Process:
    """`machine` names one boot of one machine, and what sees the same process numbers there; None: nobody can tell.

    `started` is in clock ticks since the boot: a number that is in use again belongs to another process.
    """
    host: str
    machine: str | None
    pid: int
    started: int | None

    @classmethod
    def this(cls) -> "Process":
        """The process that asks."""
        found = _state_and_start(os.getpid())
        return cls(platform.node(), _machine(), os.getpid(), found[1] if found else None)

    @classmethod
    def parse(cls, line: str) -> "Process | None":
        """What `encode` wrote; None for anything else, such as a file that Drive shows empty."""
        try:
            found = json.loads(line)
            process = cls(found["host"], found["machine"], found["pid"], found["started"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        plain = isinstance(process.host, str) and isinstance(process.machine, str | None) and type(
            process.pid) is int and process.pid > 0 and isinstance(process.started, int | None)
        return process if plain else None

    def encode(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    def is_here(self) -> bool:
        """Whether it ran, or runs, where the asking process can see it."""
        return self.machine is not None and self.machine == _machine()

    def is_over(self) -> bool:
        """Whether it certainly runs no more; False where nobody can tell."""
        if not self.is_here() or self.started is None:
            return False
        try:
            os.kill(self.pid, 0)  # sends nothing; tells of other users' processes too, which /proc may hide
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it runs, as somebody else
        found = _state_and_start(self.pid)
        # A zombie (Z) is dead, and stays listed until its parent asks for it: in many containers nobody does.
        return found is not None and (found[0] in "ZX" or found[1] != self.started)


def _machine() -> str | None:
    try:
        boot = Path(PROC, "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(f'{PROC}/self/ns/pid')}" if boot else None
    except OSError:
        return None


def _state_and_start(pid: int) -> tuple[str, int] | None:
    """Fields 3 and 22 of /proc/PID/stat; the second one, the program's name, may hold spaces and brackets."""
    try:
        fields = Path(PROC, str(pid), "stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[19])
    except (OSError, IndexError, ValueError):
        return None
