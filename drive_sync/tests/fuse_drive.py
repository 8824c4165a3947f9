"""Starts, disconnects and remounts the hostile Drive for a test."""
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).parent


def why_not() -> str | None:
    """Why no FUSE file system can be mounted here, None where one can."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no usable /dev/fuse on this machine"
    if shutil.which("fusermount3") is None:
        return "fusermount3 is missing (apt package fuse3)"
    try:
        import mfusepy  # noqa: F401
    except ImportError as error:
        return f"mfusepy is missing (requirements-dev.txt): {error}"
    except Exception as error:  # it is there, but libfuse is not
        return f"mfusepy cannot be loaded (apt package fuse3): {error}"
    return None


class FuseDrive:
    """One machine's mount of a cloud folder. Several of them on one cloud are several machines."""

    def __init__(self, folder: Path, cloud: Path, **mood: object):
        self.cloud, self.point = cloud, folder / "content"
        self._cache, self._mood_file, self._log = folder / "cache", folder / "mood.json", folder / "fuse.log"
        self._mood: dict[str, object] = {}
        for path in (cloud, self.point):
            path.mkdir(parents=True, exist_ok=True)
        self.set_mood(**mood)
        self._process: subprocess.Popen | None = None
        self.mount()

    def set_mood(self, **mood: object) -> None:
        """Changes how Drive behaves from the next call on."""
        self._mood |= mood
        aside = self._mood_file.with_suffix(".new")
        aside.write_text(json.dumps(self._mood))
        os.replace(aside, self._mood_file)

    def mount(self) -> None:
        """A new mount: this machine sees only what the cloud has."""
        shutil.rmtree(self._cache, ignore_errors=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, HERE / "hostile_fuse.py", self.cloud, self._cache, self.point, self._mood_file],
                stdout=log, stderr=log)
        for _ in range(3000):
            if self._process.poll() is not None:
                raise RuntimeError(f"The FUSE file system ended at once:\n{self._log.read_text()}")
            if f" {str(self.point).replace(' ', chr(92) + '040')} fuse.drive " in Path("/proc/mounts").read_text("utf-8"):
                return
            threading.Event().wait(0.01)
        raise RuntimeError("The FUSE file system was not mounted within 30 seconds.")

    def disconnect(self) -> None:
        """The client dies: what was not uploaded is lost, and the mountpoint answers ENOTCONN."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def hang(self) -> None:
        """No call comes back any more, and none fails."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The calls that hang come back."""
        self._process.send_signal(signal.SIGCONT)

    def is_dead(self) -> bool:
        """Whether the client died, by itself or not."""
        return self._process is None or self._process.poll() is not None

    def unmount(self) -> None:
        """Nothing is mounted any more; the mountpoint is an empty folder of this machine."""
        self.disconnect()
        subprocess.run(["fusermount3", "-u", "-z", self.point], check=False, capture_output=True)

    def remount(self, **mood: object) -> None:
        """What a person does after a disconnect."""
        self.unmount()
        self.set_mood(**mood)
        self.mount()
