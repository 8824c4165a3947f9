"""Write-once names. `ckpt-e0012-s004800-a3f91c-g2`: kind, epoch, step, session, generation; `.2` on a second try."""
import re
from dataclasses import dataclass

_LABEL = r"(?P<kind>[a-z]+)-e(?P<epoch>\d+)-s(?P<step>\d+)"
_NAME = re.compile(rf"(?P<label>{_LABEL})-(?P<session>[a-z0-9]+)-g(?P<generation>\d+)(?:\.(?P<attempt>\d+))?")


@dataclass(frozen=True)
class Name:
    """A snapshot's name, taken apart."""
    label: str
    kind: str
    epoch: int
    step: int
    session: str
    generation: int
    attempt: int = 1

    @classmethod
    def parse(cls, text: str) -> "Name | None":
        """The parts of a snapshot's name, None for a folder that is none."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        numbers = {key: int(found[key] or 1) for key in ("epoch", "step", "generation", "attempt")}
        return cls(label=found["label"], kind=found["kind"], session=found["session"], **numbers)

    @classmethod
    def of(cls, label: str, session: str, generation: int, attempt: int = 1) -> "Name":
        """The name for a label; ValueError where the label or the session cannot be part of one."""
        name = cls.parse(f"{label}-{session}-g{generation}.{attempt}")
        if name is None:
            raise ValueError(f"The snapshot label {label!r} with session {session!r} makes no name. A label is a kind, "
                             "an epoch and a step, such as ckpt-e0012-s004800; a session is small letters and digits.")
        return name

    @property
    def order(self) -> tuple[int, int, int, int, str]:
        """Sorts oldest to newest: by step, then by generation."""
        return self.step, self.generation, self.epoch, self.attempt, self.session

    def __str__(self) -> str:
        second_try = f".{self.attempt}" if self.attempt > 1 else ""
        return f"{self.label}-{self.session}-g{self.generation}{second_try}"
