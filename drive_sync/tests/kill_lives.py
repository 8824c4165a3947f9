"""`python kill_lives.py FOLDER`: lives of a machine, each ended by SIGKILL one writing call later than the last.

Each life forks, takes the run over, resumes from the store, publishes and cleans up, and is killed before its n-th
writing call, or in the midst of a write. Between lives the survivor checks what is left. Prints one JSON line.
"""
import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

from hostile_disk import HostileDisk, KillAt, contents, make_folder

import drive_sync.transfer
from drive_sync import Lease, LeaseHeld, Publisher, Store

SHARE = ("frozen.safetensors",)
STEPS = 2


def label(step: int) -> str:
    return f"ckpt-e{step:06d}-s{step:06d}"


def live(folder: Path, life: int, kill: KillAt, tell: int) -> None:
    """A process with a local disk of its own, begun a second after the last one died. Tells each published step, and -1
    where it took the run over from one of which nobody can know that it died: its first sign is half written."""
    local = folder / f"machine{life}"
    drive_sync.transfer.LOCAL = HostileDisk(kill)  # dies while it resumes, too
    now = 1_800_000_000 + life
    store = Store(folder / "drive", f"life{life}", disk=HostileDisk(kill), now=lambda: now)
    lease = Lease(store, now=lambda: now)
    try:
        lease.take()
    except LeaseHeld:
        os.write(tell, b"-1\n")
        lease.take(take_over=True)
    found = store.fetch_latest("ckpt", local, lambda words: None)
    first = found[0].step + 1 if found else 1
    for step in range(first, first + STEPS):
        store.publish(make_folder(local / "work" / str(step), step), label(step), share=SHARE)
        os.write(tell, f"{step}\n".encode())
        store.retain("ckpt", 2)
        lease.keep()
    lease.release()


def live_spooled(folder: Path, life: int, kill: KillAt, tell: int) -> None:
    """One process of a machine that is not lost: what waits is in its spool. Tells each step that was handed over."""
    store = Store(folder / "drive", f"life{life}", disk=HostileDisk(kill), now=lambda: time.time() + 7200 * life)
    publisher = Publisher(store, folder / "spool", then=lambda snapshot: store.retain("ckpt", 2))
    first = life * STEPS + 1
    for step in range(first, first + STEPS):
        publisher.submit(make_folder(folder / "work" / str(step), step), label(step), share=SHARE)
        os.write(tell, f"{step}\n".encode())
    assert publisher.drain(60)
    publisher.close()


def fork(work) -> tuple[bool, list[int]]:
    """Runs `work(tell)` in a child. Whether it was killed, and the steps it told."""
    listen, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(listen)
        work(tell)
        os._exit(0)
    os.close(tell)
    with os.fdopen(listen) as pipe:
        told = [int(line) for line in pipe]
    status = os.waitpid(child, 0)[1]
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and status != 0:
        raise SystemExit(f"a life ended with {status}")
    return killed, told


def check(folder: Path, told: list[int], scratch: Path) -> None:
    """What any later machine would find: every finished snapshot whole, none lost that was told, little litter."""
    store = Store(folder / "drive", "reader")
    said: list[str] = []
    newest = store.latest("ckpt", said.append)
    assert all("never finished" in words for words in said), said
    assert (newest.step if newest else 0) >= max(told, default=0), (newest, told)
    assert all(snapshot.verify() == [] for snapshot in store.snapshots())
    if newest and not (scratch / newest.name).exists():
        expected = make_folder(scratch / f"expected {newest.name}", newest.step)
        assert contents(store.fetch(newest, scratch)) == contents(expected)
    folders = len(store.all_names())
    assert folders <= 7, f"{folders} folders: litter is not cleared"


def sweep(folder: Path, life_of) -> dict[str, int]:
    """Kills one writing call later in each life, until a life is too short to be killed."""
    kills, told = 0, []
    for life in itertools.count():
        killed, steps = fork(lambda tell, life=life: life_of(folder, life, KillAt(life), tell))
        told += steps
        check(folder, told if life_of is live else [], folder / "scratch")
        if not killed:
            break
        kills += 1
    newest = Store(folder / "drive").latest("ckpt", lambda words: None)
    return {"kills": kills, "resumes": life, "steps": max(told), "found": newest.step, "taken_over": told.count(-1)}


if __name__ == "__main__":
    root = Path(sys.argv[1])
    results = {}
    for work in (live, live_spooled):
        (root / work.__name__ / "scratch").mkdir(parents=True)
        results[work.__name__] = sweep(root / work.__name__, work)
    print(json.dumps(results))
