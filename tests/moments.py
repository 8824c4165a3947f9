"""Named moments of a training process, and its death at one of them: SIGKILL to itself, nothing is cleaned up.

A moment is a kind and a text, mostly a path below the machine's folder. Kinds:

    make_folder, write, write_half, rename, discard …   drive_sync's calls, ahead of each; a write also when half of it is there
    open, half              a file that Python opens to write; `half` leaves its first bytes there
    os.rename, os.remove …  Python's own audit events
    tensors                 safetensors writes a file; half of it is there
    optimizer, stepped …    what training does; `step` and `evaluate` are ahead of it
    delivered               a life of lost_machines has made its steps, and Drive has all that it was given
"""
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

AUDITED = frozenset({"os.rename", "os.remove", "os.link", "os.rmdir", "shutil.rmtree", "shutil.copyfile"})


@dataclass(frozen=True)
class Point:
    """The `nth` moment whose kind and text match these patterns."""

    name: str
    kind: str
    where: str = ""
    nth: int = 1


class Killer:
    """Sees every moment of this process, in every thread, and ends the process at its point. Tells it first."""

    def __init__(self, root: Path, point: Point | None, tell: Callable[[str], object]):
        self.root, self.point, self.tell = f"{root}/", point, tell
        self.left = point.nth if point else 0
        self.lock, self.inside = threading.Lock(), threading.local()

    def is_here(self, kind: str, text: object) -> bool:
        """Whether this moment is the one; each is counted."""
        point = self.point
        if point is None or not re.fullmatch(point.kind, kind) or not re.search(point.where, str(text).replace(self.root, "")):
            return False
        with self.lock:
            self.left -= 1
            return self.left == 0

    def die(self) -> None:
        self.tell(f"hit {self.point.name}")
        os.kill(os.getpid(), signal.SIGKILL)

    def moment(self, kind: str, text: object = "") -> None:
        if self.is_here(kind, text):
            self.die()

    def audit(self, event: str, arguments: tuple) -> None:
        """Python's audit hook: also what training writes without drive_sync."""
        if (event != "open" and event not in AUDITED) or getattr(self.inside, "hook", False):
            return
        self.inside.hook = True
        try:
            if event == "open":
                self._opened(*arguments)
            else:
                paths = [os.fsdecode(path) for path in arguments if isinstance(path, (str, bytes, os.PathLike))]
                self.moment(event, " > ".join(paths))
        finally:
            self.inside.hook = False

    def _opened(self, path: object, mode: str | None, flags: int) -> None:
        if not isinstance(path, (str, bytes, os.PathLike)) or not flags & (os.O_WRONLY | os.O_RDWR):
            return
        path = os.fsdecode(path)  # TensorBoard names its files in bytes
        self.moment("open", path)
        if self.is_here("half", path):
            with open(path, "ab" if flags & os.O_APPEND else "wb") as file:
                file.write(b'{"half a line of it')
            self.die()

    def watch(self) -> None:
        """Puts this between the process and all it does. There is no way back: for a process of its own."""
        sys.addaudithook(self.audit)
        self._watch_drive_sync()
        self._watch_tensors()
        self._watch_training()

    def _watch_drive_sync(self) -> None:
        from hostile_disk import HostileDisk

        import drive_sync.reach
        import drive_sync.transfer

        disk = HostileDisk(self.moment)
        drive_sync.reach.Disk = lambda: disk
        drive_sync.transfer.LOCAL = disk

    def _watch_tensors(self) -> None:
        import safetensors.torch

        write = safetensors.torch.serialize_file

        def watched(tensors, file, *rest, **named) -> None:
            if self.is_here("tensors", file):
                write(tensors, file, *rest, **named)
                os.truncate(file, os.stat(file).st_size // 2)
                self.die()
            write(tensors, file, *rest, **named)

        safetensors.torch.serialize_file = watched

    def _watch_training(self) -> None:
        import torch

        from vaani_lib.trainer import Trainer
        from vaani_lib.voice import Voice

        for owner, name, before, after in ((Trainer, "step", "step", "stepped"), (Trainer, "evaluate", "evaluate", None),
                                           (Voice, "say", "say", None), (torch.optim.AdamW, "step", "optimizer", None)):
            setattr(owner, name, self._around(getattr(owner, name), before, after))

    def _around(self, call: Callable, before: str, after: str | None) -> Callable:
        def watched(*arguments, **named):
            self.moment(before)
            result = call(*arguments, **named)
            if after:
                self.moment(after)
            return result

        return watched
