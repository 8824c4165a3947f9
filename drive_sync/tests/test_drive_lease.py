"""Two sessions on one run: the later one is told and may take over; neither can damage what the other wrote."""
import errno
import json
import os
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fake_time import FakeTime
from hostile_disk import Failing, HostileDisk

from drive_sync import DriveUnavailable, Lease, LeaseHeld, LeaseLost, Publisher, Store

STUCK = 30.0


class Clock:
    """Seconds since 1970, for leases."""

    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def session(tmp_path):
    """session(name) -> a store on the same folder and its lease, all with one clock."""
    clock = Clock()

    def begin(name: str) -> tuple[Store, Lease, Clock]:
        store = Store(tmp_path / "drive", name, now=clock, pause=lambda seconds: None)
        return store, Lease(store, now=clock), clock

    return begin


def test_the_later_session_is_told_who_works_there_and_what_to_do(session):
    _, first, clock = session("aaa")
    assert first.take() == 1
    clock.now += 600
    _, second, _ = session("bbb")
    with pytest.raises(LeaseHeld, match=r"Session aaa .* 10 minutes ago.*End it.*wait 35 minutes.*take the run over"):
        second.take()
    first.keep()  # the refused one changed nothing


def test_a_program_can_say_in_its_own_words_who_works_there(session):
    session("aaa")[1].take()
    store, second, clock = session("bbb")
    clock.now += 600
    with pytest.raises(LeaseHeld) as held:
        second.take()
    found = held.value
    assert (found.session, found.host) == ("aaa", platform.node())
    assert (found.seconds_ago, found.minutes_left) == (600, 35)
    assert second.taken_from is None
    second.take(take_over=True)
    assert (second.taken_from.session, second.taken_from.host) == ("aaa", platform.node())
    assert clock.now - second.taken_from.time == 600
    for path in (store.folder / "lease").glob("*aaa*"):
        path.write_text("")
    with pytest.raises(LeaseHeld) as held:
        session("ccc")[1].take()
    assert held.value.session == "bbb" and held.value.host == platform.node()


def test_taking_over_on_purpose_tells_the_earlier_one(session):
    (_, first, clock), (two, second, _) = session("aaa"), session("bbb")
    first.take()
    assert second.take(take_over=True) == 2 and two.generation == 2
    clock.now += 61
    second.keep()
    with pytest.raises(LeaseLost, match="session bbb took this run over"):
        first.keep()


def test_a_person_decides_once_about_a_session_that_may_be_alive(session):
    first, second = session("aaa")[1], session("bbb")[1]
    first.take()
    second.take(take_over=True)
    second.release()
    third = session("ccc")[1]
    assert third.take() == 3  # aaa's sign is young, but bbb has taken the run from it
    assert [sign.session for sign in third.living()] == ["aaa"]  # it may not have noticed yet: its files are left alone


def test_a_dead_session_is_waited_for_and_a_released_one_is_not(session):
    _, first, clock = session("aaa")
    first.take()
    _, second, _ = session("bbb")
    clock.now += 2699
    with pytest.raises(LeaseHeld):
        second.take()
    clock.now += 2
    assert second.take() == 2 and second.taken_from is None
    second.release()
    assert session("ccc")[1].take() == 3


def test_signs_of_life_are_renewed_and_do_not_pile_up(session):
    store, lease, clock = session("aaa")
    lease.take()
    for _ in range(100):
        clock.now += 300
        lease.keep()
        assert lease.seconds_to_renewal() <= 2700 / 4
    with pytest.raises(LeaseHeld):
        session("bbb")[1].take()
    assert len(list((store.folder / "lease").iterdir())) == 2


def test_of_two_that_start_in_the_same_second_one_steps_back(session):
    """Both listed the folder before the other one wrote: exclusive create is no lock on Drive."""
    (one, first, clock), (two, second, _) = session("aaa"), session("bbb")
    assert (one.generation, two.generation) == (1, 1)
    stale, fresh = iter([[]]), second.signs
    second.signs = lambda: next(stale) if stale.__length_hint__() else fresh()
    first.take()
    with pytest.raises(LeaseHeld):
        second.take()
    clock.now += 61
    first.keep()


def test_two_that_see_each_other_late_end_as_one(session):
    """Stale listings on both sides: both work for a while, then the later one is told; no file of either is touched."""
    (_, first, clock), (_, second, _) = session("aaa"), session("bbb")
    for lease in (first, second):
        lease.signs, real = list, lease.signs
        lease.take()
        lease.signs = real
        clock.now += 1
    clock.now += 61
    first.keep()
    with pytest.raises(LeaseLost, match="session aaa"):
        second.keep()


def test_neither_damages_what_the_other_wrote(session, checkpoint):
    (one, first, clock), (two, second, _) = session("aaa"), session("bbb")
    first.take()
    source = checkpoint()
    for step in (1, 2):
        one.publish(source, f"ckpt-e1-s{step}", share=("frozen.safetensors",))
    second.take(take_over=True)
    for step in (2, 3):
        two.publish(source, f"ckpt-e1-s{step}", share=("frozen.safetensors",))
    two.retain("ckpt", 1)
    assert [(s.session, s.step, s.verify()) for s in two.snapshots()] == [
        ("aaa", 1, []), ("aaa", 2, []), ("bbb", 3, [])]
    one.retain("ckpt", 1)
    assert [(s.session, s.step, s.verify()) for s in two.snapshots()] == [("bbb", 3, [])]
    one.publish(source, "ckpt-e1-s2", share=("frozen.safetensors",))
    clock.now += 2701  # the first one is dead by now
    two.retain("ckpt", 1)
    assert [(s.session, s.step, s.verify()) for s in two.snapshots()] == [("bbb", 3, [])]


def test_a_publisher_stops_when_its_run_was_taken_over(session, checkpoint):
    (one, first, clock), (two, second, _) = session("aaa"), session("bbb")
    first.take()
    time = FakeTime()
    publisher = Publisher(one, lease=first, clock=time.clock, wait=lambda event, seconds: event.wait())
    publisher.submit(checkpoint(1), "ckpt-e1-s1")
    assert publisher.drain(STUCK)
    second.take(take_over=True)
    clock.now += 61
    publisher.submit(checkpoint(2), "ckpt-e1-s2")
    assert not publisher.drain(STUCK)
    assert publisher.status().saved == 1
    assert "Nothing more goes to Drive: session bbb took this run over" in publisher.status().sentence()
    assert [snapshot.step for snapshot in two.snapshots()] == [1]
    publisher.close(STUCK)


def test_a_run_is_taken_before_anything_is_published_and_may_be_taken_again(session, checkpoint, tmp_path):
    store, lease, _ = session("aaa")
    with pytest.raises(ValueError, match="Take the lease, then make the publisher"):
        Publisher(store, tmp_path / "spool", lease=lease)
    for generation in (1, 2):
        assert lease.take() == generation and lease.held
        store.publish(checkpoint(generation), f"ckpt-e1-s{generation}", share=("frozen.safetensors",))
        lease.release()
        assert not lease.held
    with pytest.raises(LeaseLost, match="has given the run back"):
        lease.keep()
    assert [(s.generation, s.verify()) for s in store.snapshots()] == [(1, []), (2, [])]


def test_an_idle_publisher_keeps_its_session_alive(session):
    _, lease, clock = session("aaa")
    lease.take()
    waits, enough = [], threading.Event()

    def hours_pass(event, seconds) -> None:
        waits.append(seconds)
        if len(waits) > 50 or seconds is None:
            enough.set()
            event.wait()
        else:
            clock.now += seconds

    publisher = Publisher(lease._store, lease=lease, wait=hours_pass)
    assert enough.wait(STUCK)
    assert None not in waits and sum(waits) > 10 * 2700
    with pytest.raises(LeaseHeld):
        session("bbb")[1].take()
    publisher.close(STUCK)


def test_a_session_is_alive_while_a_full_drive_takes_nothing_but_its_signs(session, checkpoint):
    """The wait after ENOSPC grows to hours; without signs of life others would take the run unasked."""
    store, _, clock = session("aaa")
    full = Failing(errno.ENOSPC, ["write_half"])
    full_store = Store(store.folder, "aaa", disk=HostileDisk(lambda call, path: full(call, path) if "ckpt" in str(
        path) else None), now=clock, pause=lambda seconds: None)
    lease, seen, enough = Lease(full_store, now=clock), [], threading.Event()
    lease.take()

    def ten_hours_pass(event, seconds) -> None:
        seen.append([sign.session for sign in session("bbb")[1].living()])
        if sum(waits) < 36_000:
            waits.append(seconds)
            clock.now += seconds
        else:
            enough.set()
            event.wait()

    waits = []
    publisher = Publisher(full_store, lease=lease, clock=clock, wait=ten_hours_pass, chance=lambda: 0.5)
    publisher.submit(checkpoint(1), "ckpt-e1-s1")
    assert enough.wait(STUCK)
    assert seen == [["aaa"]] * len(seen) and full.refused < 20
    assert min(waits) >= 60  # it does not hammer a Drive that is full
    publisher.close(STUCK)


def test_a_dead_drive_is_not_hammered_for_the_sake_of_a_sign(session, checkpoint):
    store, _, clock = session("aaa")
    failing = Failing(None)
    lease = Lease(Store(store.folder, "aaa", disk=HostileDisk(failing), now=clock, pause=lambda seconds: None), now=clock)
    lease.take()
    waits = []

    def back_after_ten_hours(event, seconds) -> None:
        waits.append(seconds)
        if sum(waits) > 36_000:
            failing.number = None
        clock.now += seconds if seconds is not None else event.wait() or 0

    failing.number = errno.ENOTCONN
    publisher = Publisher(lease._store, lease=lease, clock=clock, wait=back_after_ten_hours, chance=lambda: 0.5)
    publisher.submit(checkpoint(1), "ckpt-e1-s1")
    with publisher._items.changed:
        assert publisher._items.changed.wait_for(publisher._items.is_empty, STUCK)
    assert len(waits) < 36_000 / 60 + 100
    publisher.close(0.01)


def test_a_dead_mount_is_no_free_lease(tmp_path):
    store = Store(tmp_path / "drive", disk=HostileDisk(Failing(errno.ENOTCONN)))
    with pytest.raises(DriveUnavailable):
        Lease(store).take()


def test_a_life_shorter_than_drive_is_late_is_refused(store):
    with pytest.raises(ValueError, match="at least 1800"):
        Lease(store, life=60)


def test_names_alone_tell_everything(session):
    """Drive may show a new file with no bytes in it."""
    store, lease, _ = session("aaa")
    lease.take()
    for path in (store.folder / "lease").iterdir():
        path.write_bytes(b"")
    (store.folder / "lease" / "notes (1).txt").write_text("a person's own file")
    with pytest.raises(LeaseHeld):
        session("bbb")[1].take()


WORKER = """
import sys
from drive_sync import Lease, Store
store = Store(sys.argv[1], sys.argv[2])
Lease(store).take()
print("took it", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def worker(tmp_path):
    """worker(session) -> a process of its own that holds the lease on the folder "drive"; killed at the end."""
    begun = []

    def begin(name: str) -> subprocess.Popen:
        begun.append(subprocess.Popen(
            [sys.executable, "-c", WORKER, tmp_path / "drive", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}))
        assert begun[-1].stdout.readline() == b"took it\n"
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/ns/pid"), reason="/proc tells nothing of processes here")


@needs_proc
def test_a_session_that_was_killed_here_is_not_waited_for(worker, tmp_path):
    process = worker("aaa")
    store = Store(tmp_path / "drive", "bbb")
    with pytest.raises(LeaseHeld, match=rf"Session aaa \(process {process.pid} of this machine\)"):
        Lease(store).take()
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie: dead, but nobody has asked for it yet
    assert Lease(store).take() == 2
    process.wait()
    assert Lease(Store(tmp_path / "drive", "ccc")).living()[0].session == "bbb"


@needs_proc
def test_what_a_killed_session_left_may_be_cleared_and_what_a_living_one_writes_may_not(worker, checkpoint, tmp_path):
    process = worker("aaa")
    Store(tmp_path / "drive", "aaa", generation=1).publish(checkpoint(1), "ckpt-e1-s1")
    store = Store(tmp_path / "drive", "bbb")
    Lease(store).take(take_over=True)
    store.publish(checkpoint(2), "ckpt-e1-s2")
    assert not store.may_remove("aaa", 1) and store.retain("ckpt", 1) == []
    process.kill()
    process.wait()
    assert store.may_remove("aaa", 1) and len(store.retain("ckpt", 1)) == 1


@needs_proc
def test_what_nobody_can_know_counts_as_alive(worker, tmp_path, monkeypatch):
    process = worker("aaa")
    process.kill()
    process.wait()
    store = Store(tmp_path / "drive", "bbb")
    sign, = (store.folder / "lease").iterdir()
    written = json.loads(sign.read_text().splitlines()[0])
    texts = {"emptied": "", "a stranger's": "[" * 100_000, "no line of it": "hello", "not numbers": json.dumps(
        written | {"pid": "1", "started": []}), "another machine": json.dumps(written | {"machine": "another boot"})}
    for what, text in texts.items():
        sign.write_text(text)
        with pytest.raises(LeaseHeld):
            Lease(store).take()
            pytest.fail(f"{what} was taken for the sign of a dead process")
    sign.write_text(json.dumps(written))
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("drive_sync.process.PROC", str(tmp_path / "no proc"))
        with pytest.raises(LeaseHeld, match=platform.node()):
            Lease(store).take()
    sign.write_text(json.dumps(written | {"pid": os.getpid()}))  # the number is in use again: another start time
    assert Lease(store).take() == 2


def test_a_cell_that_ended_with_an_error_does_not_lock_the_next_one_out(session):
    """The first train() in a kernel gives the run back in a `finally`, while Drive is dead. Its sign says "alive"."""
    failing = Failing(None)
    store, _, clock = session("aaa")
    dead = Store(store.folder, "aaa", disk=HostileDisk(failing), pause=lambda seconds: None)
    first = Lease(dead, now=clock)
    first.take()
    _, second, _ = session("bbb")
    with pytest.raises(LeaseHeld, match="in this same process"):
        second.take()  # another thread of the kernel is at it
    failing.number = errno.ENOTCONN
    with pytest.raises(DriveUnavailable):
        first.release()
    if os.path.exists("/proc/self/ns/pid"):
        assert second.take() == 2 and second.living() == []
    failing.number = None
    first.release()  # it can be tried again


def test_a_take_that_fails_halfway_holds_nothing(session):
    store, _, clock = session("aaa")
    calls = []

    def dies_after_the_first_write(call, path) -> None:
        calls.append(call)
        if "write" in calls and call != "write" and calls[-2] != "write":
            raise OSError(errno.ENOTCONN, "gone")

    broken = Lease(Store(store.folder, "aaa", disk=HostileDisk(dies_after_the_first_write)), now=clock)
    with pytest.raises(DriveUnavailable):
        broken.take()
    assert any("taken" in path.name for path in (store.folder / "lease").iterdir())
    if os.path.exists("/proc/self/ns/pid"):
        assert session("bbb")[1].take() == 2


def test_clocks_that_jump_neither_stop_the_signs_nor_undo_a_release(session):
    store, first, clock = session("aaa")
    first.take()
    first.keep()
    clock.now -= 86_400  # set right after a wrong start
    assert first.seconds_to_renewal() == 0
    _, second, _ = session("bbb")
    second.take(take_over=True)
    with pytest.raises(LeaseLost):
        first.keep()  # it looks at once, not a day later
    second.release()
    clock.now += 86_400 - 1  # now aaa's old sign is young again
    assert [sign.session for sign in session("ccc")[1].living()] == ["aaa"]
    first.release()
    for path in (store.folder / "lease").iterdir():
        path.write_text("")  # another machine would see no more than this
    clock.now -= 3600
    assert session("ccc")[1].living() == []
    assert session("ccc")[1].take() == 3


def test_old_signs_are_cleared_and_no_generation_comes_twice(session, checkpoint):
    for number in range(30):
        store, lease, clock = session(f"s{number}")
        assert lease.take() == number + 1
        clock.now += 700
        lease.keep()
        clock.now += 2700  # killed on another machine: it never said that it ended
    for second in range(500):  # of a session whose clearing never worked
        (store.folder / "lease" / f"g0030-s29-{1_800_000_000 + second}-kept.txt").write_text("")
    for number in range(6):
        lease = session(f"z{number}")[1]
        lease.take()
        lease.release()
        if number == 1:  # not all at once: on Drive each takes a moment
            assert 300 <= len(list((store.folder / "lease").iterdir())) <= 330
    assert len(list((store.folder / "lease").iterdir())) <= 2 * 9
    # every snapshot is gone, and so is the newest sign, which was never uploaded
    newest = max((store.folder / "lease").iterdir(), key=lambda path: path.name)
    newest.unlink()
    assert session("www")[1].take() >= int(newest.name[1:5])


def test_a_sign_that_cannot_be_cleared_does_not_stop_the_next_one(session):
    store, _, clock = session("aaa")
    lease = Lease(Store(store.folder, "aaa", disk=HostileDisk(Failing(errno.EACCES, ["discard"]))), now=clock)
    lease.take()
    for _ in range(3):
        clock.now += 700
        lease.keep()
    assert len(list((store.folder / "lease").iterdir())) == 4
