"""Two sessions on one run: the later one is told and may take over; neither can damage what the other wrote."""
import errno
import threading

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
    with pytest.raises(LeaseHeld, match=r"Session aaa .* 10 minutes ago.*wait 35 minutes.*take_over=True"):
        second.take()
    first.keep()  # the refused one changed nothing


def test_taking_over_on_purpose_tells_the_earlier_one(session):
    (_, first, clock), (two, second, _) = session("aaa"), session("bbb")
    first.take()
    assert second.take(take_over=True) == 2 and two.generation == 2
    clock.now += 61
    second.keep()
    with pytest.raises(LeaseLost, match="session bbb took this run over"):
        first.keep()


def test_a_dead_session_is_waited_for_and_a_released_one_is_not(session):
    _, first, clock = session("aaa")
    first.take()
    _, second, _ = session("bbb")
    clock.now += 2699
    with pytest.raises(LeaseHeld):
        second.take()
    clock.now += 2
    assert second.take() == 2
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
