"""When a worker counts as one that no longer hears its doorbells."""

import os
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import redis

from worker.runtime import Family
from worker.watchdog import STUCK_SECONDS, Watchdog, end_family


@dataclass
class Queues:
    """A Redis that holds so many doorbells a queue, or is away."""

    lying: dict[str, int] = field(default_factory=dict)
    away: bool = False

    def llen(self, queue: str) -> int:
        if self.away:
            raise redis.ConnectionError
        return self.lying.get(queue, 0)


class Resting(Family):
    """A family whose children last made progress so long ago."""

    def __init__(self, idle: float) -> None:
        super().__init__()
        self.idle = idle

    def idle_seconds(self) -> float:
        return self.idle


def watching(queues: Queues, idle: float) -> Watchdog:
    return Watchdog(queues, ["live"], Resting(idle))  # type: ignore[arg-type]


def test_doorbells_that_lie_unanswered_mean_that_nobody_hears_them() -> None:
    """Stuck after STUCK_SECONDS of lying doorbells without progress, and not before."""
    dog = watching(Queues({"live": 1}), idle=STUCK_SECONDS)
    assert not dog.is_stuck(100.0)
    assert not dog.is_stuck(100.0 + STUCK_SECONDS - 1)
    assert dog.is_stuck(100.0 + STUCK_SECONDS)


def test_idleness_counts_from_when_it_began_and_not_from_when_bells_have_lain_for_long() -> None:
    """Bells lie and children rest side by side: after STUCK_SECONDS of both it is stuck, not after twice as long."""
    family = Resting(0.0)
    dog = Watchdog(Queues({"live": 1}), ["live"], family)  # type: ignore[arg-type]
    for at in range(0, int(STUCK_SECONDS), 5):
        family.idle = float(at)
        assert not dog.is_stuck(float(at))
    family.idle = STUCK_SECONDS
    assert dog.is_stuck(STUCK_SECONDS)


def test_progress_of_any_child_is_life() -> None:
    """A worker whose children make progress is never stuck, whatever lies in its queues."""
    dog = watching(Queues({"live": 5}), idle=1.0)
    assert not any(dog.is_stuck(at) for at in (0.0, STUCK_SECONDS, 10 * STUCK_SECONDS))


def test_an_empty_queue_is_no_sign_of_trouble() -> None:
    """Having nothing to do is not being stuck, and the time starts anew when something lies there again."""
    queues = Queues({"live": 1})
    dog = watching(queues, idle=1e6)
    assert not dog.is_stuck(0.0)
    queues.lying.clear()
    assert not dog.is_stuck(STUCK_SECONDS)
    queues.lying["live"] = 1
    assert not dog.is_stuck(STUCK_SECONDS + 1)
    assert dog.is_stuck(2 * STUCK_SECONDS + 1)


def test_a_redis_that_is_away_is_not_the_workers_fault() -> None:
    """While Redis cannot be asked, nobody is judged."""
    dog = watching(Queues(away=True), idle=1e6)
    assert not any(dog.is_stuck(at) for at in (0.0, STUCK_SECONDS, 10 * STUCK_SECONDS))


def test_a_redis_that_comes_and_goes_does_not_begin_the_time_anew() -> None:
    """What had lain before an outage has lain; the outage itself counts for nothing."""
    queues = Queues({"live": 1})
    dog = watching(queues, idle=1e6)
    at, half = 0.0, STUCK_SECONDS / 2
    assert not dog.is_stuck(at)
    assert not dog.is_stuck(at + half)
    queues.away = True
    assert not dog.is_stuck(at + half + 5)
    queues.away = False
    back = at + half + 10 * STUCK_SECONDS
    assert not dog.is_stuck(back)
    assert not dog.is_stuck(back + half - 1)
    assert dog.is_stuck(back + half)


def test_a_child_that_forked_off_tells_its_parent() -> None:
    """What a child notes in the family's memory, the main process sees; so too the other way with the stop."""
    family = Family()
    before = family.idle_seconds()
    pid = os.fork()
    if pid == 0:
        family.note_progress()
        os._exit(0)
    os.waitpid(pid, 0)
    assert before > 1.0
    assert family.idle_seconds() < 1.0
    family.stop()
    assert family.is_stopping()


def test_a_child_that_has_ended_by_itself_keeps_nobody_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main process ends all the same, with status 1."""
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    monkeypatch.setattr("worker.watchdog.active_children", lambda: [SimpleNamespace(pid=gone)])
    main = os.fork()
    if main == 0:
        try:
            end_family()
        finally:
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(main, 0)[1]) == 1
