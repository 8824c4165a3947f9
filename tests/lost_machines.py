"""Trains, kills, resumes, again and again, under a Drive that lies; the end is compared with a run that nothing happened to.

    python tests/lost_machines.py FOLDER                          every named moment once, and a few by the clock
    python tests/lost_machines.py FOLDER --kills 300 --seed 1     moments and moods drawn at random (make soak)

This process imports everything once and trains the uninterrupted run. Each life is a fork of it: with the machine that
the last life left, or with a new one, which has an empty disk and a new mount of the same cloud; what was not uploaded
is lost. Each ends by SIGKILL. Prints JSON, and on standard error a line for people. Threads and Drive have their own
pace: a seed gives the same moments and moods, not the same step at which they come.
"""
import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "drive_sync" / "tests")]

import tiny_voice  # noqa: E402
from fuse_drive import FuseDrive  # noqa: E402
from moments import Killer, Point  # noqa: E402
from tiny_voice import STEPS  # noqa: E402
from whole_run import Whole  # noqa: E402

from drive_sync import Snapshot, Store  # noqa: E402

LONGEST = 60.0  # seconds a life may take to come to its moment
MOST_NEVER_HIT = 3  # moments; with more, something is stuck for good, and every further life would take its LONGEST
EPOCHS = 14
Say = Callable[[str], object]
CALM = dict(xattrs=True, upload=1.0, names=0.0, errno=0, eio=0.0, quota=10**12, die_after=0)
MOODS = {
    "calm": CALM,
    "late": CALM | dict(upload=0.3, names=0.5),  # late, out of order, names before bytes
    "crawling": CALM | dict(upload=0.02, names=0.5),
    "mute": CALM | dict(upload=0.5, xattrs=False),  # tells nothing of its uploads
    "stumbling": CALM | dict(upload=0.3, names=0.5, eio=0.01),
}
# What happens to the mount once this life made so many steps.
WEATHER = {
    "fair": {},
    "away": {1: dict(errno=107), 2: dict(errno=0)},  # ENOTCONN for the length of a step
    "full": {1: dict(quota="tight"), 2: dict(quota=10**12)},  # ENOSPC in the midst of a checkpoint
    "dead": {1: dict(die_after=60)},  # the client dies, for as long as this machine lives
}


@dataclass(frozen=True)
class Life:
    """One machine or process, and how it ends: at a point, or `seconds` after its start, or not before its time.

    `patience`: seconds in which it comes to its point, once all its steps are made."""

    point: Point | None = None
    seconds: float | None = None
    patience: float = LONGEST
    machine: str = "same"  # "same" as the last life's, "new", or "old": the first that was left, which knows less than Drive
    steps: int = 2  # it makes no more than these, and waits for its end
    mood: str = "late"
    weather: str = "fair"

    @property
    def name(self) -> str:
        return self.point.name if self.point else f"after {self.seconds:.2f} s" if self.seconds else "not killed"


@dataclass
class Count:
    """What a sweep came to."""

    kills: int = 0
    by_the_clock: int = 0
    resumes: int = 0
    refused: int = 0  # starts that Drive refused, with a sentence
    steps: int = 0
    steps_again: int = 0
    never_hit: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # what a life did that no life may do
    seconds: float = 0.0

    def __add__(self, other: "Count") -> "Count":
        return Count(**{name: value + getattr(other, name) for name, value in vars(self).items()})


class Sweep:
    """One run, from its first life to its last; `whole` is the one that nothing happened to."""

    def __init__(self, folder: Path, whole: Whole, seed: int, say: Say):
        self.folder, self.whole, self.seed, self.say = folder, whole, seed, say
        self.cloud, self.count, self.lives, self.told = folder / "cloud", Count(steps=STEPS * EPOCHS), 0, []
        self.drive: FuseDrive | None = None
        self.machines: list[Path] = []  # the last one is at work
        self.newest_on_drive = 0

    def run(self, lives: Iterable[Life]) -> Count:
        """Lives until a life comes to the run's end, the last one at the latest. Compares the finished run: where it ended,
        and on a machine that begins after that, with nothing but what Drive was said to have confirmed."""
        try:
            for life in chain(lives, [Life(machine="new", steps=10**6)]):
                ending = self.live(life)
                if ending == "never came there":  # a writer's thread has its own pace: a moment may be missed once
                    self.count.never_hit.remove(life.name)
                    ending = self.live(life)
                if len(self.count.never_hit) > MOST_NEVER_HIT:
                    raise SystemExit(f"Training never came to {self.count.never_hit}; the folder {self.machine} has its logs.")
                if ending == "ended":
                    break
            ended_on = self.machine
            self.live(Life(machine="new", steps=0, mood="calm"))
            self.count.steps_again = len(self.told) - self.count.steps
            here, from_drive = (self.whole.differences(machine / "runs" / "run") for machine in (ended_on, self.machine))
            self.count.differences = here + [f"from Drive alone: {found}" for found in from_drive]
            return self.count
        finally:
            if self.drive:
                self.drive.unmount()

    def live(self, life: Life) -> str:
        """One life, again where Drive refused its start. Returns how it ended."""
        for _ in range(9):
            self._begin(life)
            expected, before = self._newest(), len(self.told)
            ending = self._watch(life, *self._fork(life))
            if len(self.told) > before and self.told[before] != expected + 1:
                self._blame(life, f"began with step {self.told[before]}, though there was a checkpoint of {expected}")
            self.say(f"{self.lives:4}  {life.machine} machine {life.mood:9} {life.weather:5} "
                     f"{expected:3} → {self._newest():3}  {life.name}: {ending}")
            self._look_at_the_cloud(life)
            if not ending.startswith("refused"):
                return ending
            self.count.refused += 1
            life = replace(life, mood="late")
        raise SystemExit(f"Refused nine times: {ending}")

    def _begin(self, life: Life) -> None:
        """The machine and its mount."""
        self.lives += 1
        mood = MOODS[life.mood] | {"seed": self.seed + self.lives}
        if life.machine == "same" and self.machines:
            self.drive.remount(**mood) if self.drive.is_dead() else self.drive.set_mood(**mood)
            return
        if self.drive:
            self.drive.unmount()
        old = life.machine == "old" and len(self.machines) > 1
        self.machines.append(self.machines.pop(0) if old else self.folder / f"machine{self.lives}")
        self.drive = FuseDrive(self.machine, self.cloud, **mood)

    @property
    def machine(self) -> Path:
        return self.machines[-1]

    def _newest(self) -> int:
        """The step of the newest checkpoint that a life would find whole."""
        stores = [Store(folder) for folder in (self.machine / "runs" / "run" / "checkpoints",
                                               self.cloud / "MyDrive" / "vaani" / "run")]
        found = [store.latest("ckpt", lambda words: None) for store in stores]
        if not any(found):  # killed before the very first marker: the rest may be whole
            found = [snapshot for store in stores for name in store.all_names() if name.kind == "ckpt"
                     if not (snapshot := Snapshot(name, store.reach, unsealed=True)).verify()]
        return max((snapshot.step for snapshot in found if snapshot), default=0)

    def _look_at_the_cloud(self, life: Life) -> None:
        """What reached Drive stays there until something newer has."""
        newest = Store(self.cloud / "MyDrive" / "vaani" / "run").latest("ckpt", lambda words: None)
        step = newest.step if newest else 0
        if step < self.newest_on_drive:
            self._blame(life, f"left nothing newer than step {step} on Drive, where step {self.newest_on_drive} was")
        self.newest_on_drive = step

    def _fork(self, life: Life) -> tuple[int, int]:
        listen, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(listen)
            self._end(self._train(life, lambda words: os.write(tell, f"{words}\n".encode())))
        os.close(tell)
        return child, listen

    @staticmethod
    def _end(status: int) -> None:
        sys.stdout.flush()
        os._exit(status)

    def _train(self, life: Life, tell) -> int:
        """The child: trains as a person would, on a machine that is about to be lost."""
        with open(self.machine / f"life{self.lives}.log", "w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        self._hurry()
        killer = Killer(self.machine, life.point, tell)
        killer.watch()
        self._count_steps(life, killer)
        where = self.machine / "runs", self.drive.point / "MyDrive" / "vaani"
        try:
            try:
                self.whole.train(*where, life.machine != "same")
            except ValueError as held:  # half a sign of life does not say that its process is dead: a person takes it over
                if "works on this run" not in str(held):
                    raise
                self.whole.train(*where, True)
        except OSError as error:  # what Drive may do to a start: a sentence, and nothing is touched
            tell(f"refused: {error}")
            return 2
        except BaseException as error:
            traceback.print_exc()
            tell(f"raised: {type(error).__name__}: {error}")
            return 3
        return 0

    @staticmethod
    def _hurry() -> None:
        """These machines live for seconds, so what waits for minutes waits for less."""
        import drive_sync.backoff
        import drive_sync.publisher
        import drive_sync.reach
        from drive_sync.lease import LIFE, Lease

        renewal = Lease.seconds_to_renewal
        Lease.seconds_to_renewal = lambda lease: max(renewal(lease) - LIFE / 4 + 0.2, 0.0)
        drive_sync.publisher.LOOK_FIRST, drive_sync.publisher.LOOK_LONGEST = 0.02, 0.2
        drive_sync.backoff.DEAD_MOUNT = drive_sync.backoff.FULL_DRIVE = (0.05, 0.4)
        drive_sync.reach.READ_AGAIN_AFTER = (0.001, 0.002, 0.004)

    def _count_steps(self, life: Life, killer: Killer) -> None:
        """Tells each step, brings the weather, and lets a life make no more than its own steps. At its first step it looks
        whether what it found is what the uninterrupted run had at that step."""
        from vaani_lib.trainer import Trainer

        step, made, tell = Trainer.step, [0], killer.tell

        def counted(trainer, batches):
            if made[0] == life.steps:
                tell("waits")
                while any((self.machine / "runs" / "run" / ".waiting").glob("*/item.json")):  # for Drive
                    time.sleep(0.02)
                killer.moment("delivered")
                threading.Event().wait()
            for found in () if made[0] else self.whole.differences(self.machine / "runs" / "run", trainer.progress.step):
                tell(f"wrong: {found}")
            log = step(trainer, batches)
            tell(f"step {trainer.progress.step}")
            made[0] += 1
            if weather := WEATHER[life.weather].get(made[0]):
                self.drive.set_mood(**{key: self._tight() if value == "tight" else value for key, value in weather.items()})
            return log

        Trainer.step = counted

    def _tight(self) -> int:
        """A quota in which half of the next checkpoint fits."""
        used = 300_000
        for path in self.cloud.rglob("*"):
            with suppress(FileNotFoundError):  # Drive is at work meanwhile
                used += path.stat().st_size
        return used

    def _watch(self, life: Life, child: int, listen: int) -> str:
        """Reads what the child tells until its end, and brings that about where it is due by the clock."""
        text, until = b"", time.monotonic() + (life.seconds or (LONGEST if life.point else 10 * LONGEST))
        waits = False
        while select.select([listen], [], [], max(until - time.monotonic(), 0.0))[0]:
            if not (more := os.read(listen, 4096)):
                break
            text += more
            if not waits and (waits := b"waits\n" in text):
                until = min(until, time.monotonic() + life.patience)
        else:
            os.kill(child, signal.SIGKILL)
        while more := os.read(listen, 4096):
            text += more
        os.close(listen)
        said = text.decode().splitlines()
        return self._account(life, os.waitpid(child, 0)[1], said)

    def _account(self, life: Life, status: int, said: list[str]) -> str:
        """Counts what happened; returns it in words."""
        self.told += [int(words.split()[1]) for words in said if words.startswith("step ")]
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        for words in said:
            if words.startswith("wrong: "):
                self._blame(life, f"resumed with another history: {words[7:]}")
        self.count.kills += killed
        self.count.resumes += self.lives > 1
        last = said[-1] if said else ""
        if killed and life.point and last == f"hit {life.point.name}":
            return "killed there"
        if killed and (life.point is None or life.patience < LONGEST):
            self.count.by_the_clock += 1
            return "killed by the clock"
        if last.startswith("refused"):
            if life.mood != "stumbling":
                self._blame(life, last)
            return last
        if status != 0 and not killed:
            self._blame(life, f"ended by itself with {status}: {last}")
        elif life.point and life.patience == LONGEST:
            self.count.never_hit.append(life.name)
            return "never came there"
        return "ended"

    def _blame(self, life: Life, what: str) -> None:
        self.count.wrong.append(f"life {self.lives} (seed {self.seed}, {life.name}, {life.mood}, {life.weather}): {what}")


def named_lives() -> list[Life]:
    """Every kind of moment once, in an order in which each can come."""
    here, drive = r"^runs/run/.*", r"^content/.*"

    def at(name: str, kind: str, where: str = "", nth: int = 1, **life) -> Life:
        return Life(Point(name, kind, where, nth), **life)

    lives = [
        # the first checkpoint: as long as it is not whole there is nothing to resume from
        at("half of the run's first run.json", "half", here[:-2] + r"\.run\.json", machine="new"),
        at("half of state.safetensors", "tensors", here + r"state\.safetensors"),
        at("half of state.json", "half", here + r"state\.json"),
        at("data whole, no manifest", "write", here + r"ckpt.*manifest\.json"),
        at("half of the manifest", "write_half", here + r"ckpt.*manifest\.json"),
        at("manifest, no marker", "write", here + r"ckpt.*COMPLETE"),
        at("discriminators updated, generator not", "optimizer", nth=2),
        at("half of the second checkpoint's marker", "write_half", here + r"ckpt.*COMPLETE", nth=2, weather="away"),
        # an epoch's end
        at("validation", "evaluate"),
        at("one sentence spoken, the second not", "say", nth=2),
        at("half of a sample", "half", here + r"samples/.*_2\.wav"),
        at("half of best/", "tensors", here + r"best.*model\.safetensors"),
        at("half of an epoch's voice", "tensors", here + r"epoch-.*model\.safetensors"),
        at("half of frozen.safetensors", "tensors", here + r"frozen\.safetensors"),
        at("half of the checkpoint's voice", "half", here + r"voice/vocab\.json"),
        at("half of the checkpoint's run.json", "half", here + r"ckpt.*run\.json"),
        at("step made, no checkpoint", "stepped"),
        at("half of last/", "tensors", here + r"last.*model\.safetensors", nth=2),
        at("half of an event file", "half", here + r"logs/tensorboard/.*tfevents", nth=3),
        at("run.json written beside, not in place", "os.rename", here[:-2] + r"\.run\.json", nth=2),
        # the spool
        at("half of the spool's item", "half", here + r"\.waiting/.*item\.json"),
        at("some files linked into the spool", "os.link", here + r"ckpt.*\.waiting", nth=3),
        # Drive
        at("half of state.safetensors on Drive", "write_half", drive + r"ckpt.*state\.safetensors"),
        at("half of the shared file on Drive", "write_half", drive + r"shared/", steps=1),
        at("half of a history piece on Drive", "write_half", drive + r"history.*tfevents", steps=1, machine="new"),
        at("data on Drive, no manifest", "write", drive + r"ckpt.*manifest\.json", steps=1),
        at("manifest on Drive, no marker", "write", drive + r"ckpt.*COMPLETE", steps=1),
        at("half of a marker on Drive", "write_half", drive + r"ckpt.*COMPLETE", steps=1),
        at("half of best on Drive", "write_half", drive + r"best-.*model\.safetensors", steps=3),
        at("half of an epoch's voice on Drive", "write_half", drive + r"epoch-.*model\.safetensors", steps=3),
        at("confirmed, still in the spool", "os.remove", here + r"\.waiting/.*ckpt.*item\.json", steps=2, weather="full"),
        at("Drive's retention begins", "discard", drive + r"ckpt-.*COMPLETE"),
        at("Drive's retention in the midst", "discard", drive + r"ckpt-.*state\.safetensors", weather="away"),
        at("Drive's retention of best", "discard", drive + r"best-.*model\.safetensors", steps=4),
        at("Drive's retention of shared files", "discard", drive + r"shared/"),
        at("local retention begins", "discard", here + r"ckpt-.*COMPLETE"),
        at("local retention in the midst", "discard", here + r"ckpt-.*state\.safetensors"),
        # resume
        at("half of a checkpoint fetched", "write_half", here + r"\.part-ckpt.*state\.safetensors", machine="new"),
        at("checkpoint fetched, not in place", "os.rename", here + r"\.part-ckpt.* > "),
        # pieces of the history, or a chapter where Drive was quick enough to have one
        at("half of a history piece fetched", "write_half", here + r"\.part-(history|chapter).*(tfevents|\.zip)"),
        at("some of the history in place", "os.rename", here + r"\.staging/(history|chapter).* > .*logs", nth=2, machine="new"),
        at("half of best/ fetched", "write_half", here + r"\.part-best.*model"),
        at("best/ fetched, not in place", "os.rename", here + r"best.* > .*run/best$", machine="new"),
        at("restored, no step made", "step", machine="new"),
        at("another attempt's events being cleared", "os.remove", here + r"logs/tensorboard/events"),
        at("half of last/ at the resume", "tensors", here + r"last.*model\.safetensors"),
        at("best/ set aside, the new one not in place", "os.rename", here + r"\.staging/best > .*run/best$", steps=4),
        # Drive gets ahead of what the old machine knows
        at("three epochs on, and Drive has it all", "delivered", steps=6, mood="calm"),
        at("an old machine, best/ half fetched", "write_half", here + r"\.part-best.*model", machine="old"),
        at("the old machine, restored", "step"),
        at("Drive's probe", "os.remove", drive + r"\.probe"),
    ]
    lives += [
        at("half of the lease's sign", "write_half", drive + r"lease/.*taken"),
        at("checkpoints looked for, lease not taken", "names", here + r"checkpoints$", machine="new"),
        at("lease kept", "write", drive + r"lease/.*kept", steps=4),
    ]
    return lives


WRITING = r"make_folders?|write|write_half|half|tensors|rename|discard|os\..*|shutil\..*|step|stepped|optimizer|evaluate|say"


def random_lives(seed: int, kills: int) -> Iterator[Life]:
    """Moments, machines, moods and weather drawn at random."""
    chance, named = random.Random(seed), [life.point for life in named_lives()]
    for _ in range(kills):
        number = int(10 ** chance.uniform(0, 3.3))
        some = Point(f"moment {number}", WRITING, "", number)
        known = replace(chance.choice(named), nth=chance.randint(1, 3))
        point, seconds = chance.choice([(some, None), (known, None), (None, chance.uniform(0.05, 3.0))])
        yield Life(point, seconds, patience=0.5, steps=chance.randint(1, 5),
                   machine=chance.choice(["same"] * 6 + ["new"] * 3 + ["old"]), mood=chance.choice(list(MOODS)),
                   weather=chance.choice(["fair", *WEATHER]))


def summary(count: Count) -> str:
    return (f"{count.kills} kills ({count.by_the_clock} of them by the clock), {count.resumes} resumes, {count.steps_again} "
            f"steps done again for {count.steps}, {count.refused} starts refused, differences: {len(count.differences)}; "
            f"{count.seconds:.0f} s")


def sweep_by_name(folder: Path, whole: Whole, say: Say) -> Count:
    """The sweep of `make test`: every named moment, and then some lives ended by the clock."""
    chance = random.Random(0)
    by_the_clock = [Life(None, chance.uniform(0.2, 2.0), machine=machine, mood=mood, weather=weather)
                    for machine, mood, weather in (("same", "late", "fair"), ("new", "mute", "fair"),
                                                   ("same", "stumbling", "fair"), ("new", "late", "dead"),
                                                   ("same", "late", "full"), ("new", "stumbling", "away"))]
    return Sweep(folder / "sweep", whole, 0, say).run([*named_lives(), *by_the_clock])


def soak(folder: Path, whole: Whole, say: Say, kills: int, seed: int) -> Count:
    """Run after run, each killed at random until its end; the folders of those that went wrong are kept."""
    total = Count()
    while total.kills < kills:
        sweep = Sweep(folder / f"seed{seed}", whole, 1000 * seed, say)
        count = sweep.run(random_lives(seed, min(40, kills - total.kills)))
        say(f"seed {seed}: {summary(count)} {count.differences[:4]} {count.wrong}")
        total += count
        if not count.differences and not count.wrong:
            shutil.rmtree(sweep.folder)
        seed += 1
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, help="at random, at least so many")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    import torch
    from tqdm import tqdm

    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # its thread would not be there in a fork
    # tqdm's own is one for all processes: a life killed while it draws a bar would leave it locked to all that follow
    tqdm.set_lock(threading.RLock())
    tiny_voice.narrow_discriminators()
    began, folder = time.monotonic(), arguments.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say: Say = (lambda words: print(words, file=sys.stderr, flush=True)) if arguments.verbose else lambda words: None
    if arguments.kills:
        print(f"seed {arguments.seed}", file=sys.stderr)
        count = soak(folder, Whole(folder, EPOCHS), say, arguments.kills, arguments.seed)
    else:
        count = sweep_by_name(folder, Whole(folder, EPOCHS), say)
    count.seconds = time.monotonic() - began
    print(*count.never_hit, *count.wrong, *count.differences, summary(count), sep="\n", file=sys.stderr)
    print(json.dumps(asdict(count) | {"sentence": summary(count)}))
    return 1 if count.wrong or count.differences or count.never_hit else 0


if __name__ == "__main__":
    sys.exit(main())
