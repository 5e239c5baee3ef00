"""What Celery calls: one run on this process' runtime, and the doorbell answered as it begins; the schedule."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from kombu.asynchronous import Hub

from worker.app import create_app
from worker.doorbell import BACKFILL_BELL_OF, RESUME_BELL_OF, Bell, Doorbell
from worker.hearing import HeardRequest
from worker.inbox import (
    BACKFILL_QUEUE,
    CHECK_TASK,
    DEEP_TASK,
    DRAIN_TASK,
    LIVE_QUEUE,
    TIDY_TASK,
    UPKEEP_QUEUE,
)
from worker.runtime import Family
from worker.schedule import MOST_LYING, DoorbellScheduler
from worker.settings import read_settings
from worker.tasks import Tasks


@dataclass
class RungRuntime:
    """A runtime whose pipelines do nothing but ring, as another process does that finds a reason while they run."""

    ring: Callable[[], bool]
    sent: list[bool] = field(default_factory=list)

    async def backfill(self) -> dict[str, int]:
        self.sent.append(self.ring())
        return {}

    async def resume(self) -> dict[str, int]:
        self.sent.append(self.ring())
        return {}

    def run(self, work: Coroutine[Any, Any, dict[str, int]]) -> dict[str, int]:
        with pytest.raises(StopIteration) as ended:
            work.send(None)
        return dict(ended.value.value)


class TasksOf(Tasks):
    """Tasks on a runtime that was handed in."""

    runtime: RungRuntime

    def _runtime_here(self) -> Any:
        return self.runtime


@pytest.mark.parametrize(
    ("task", "queue", "bell"),
    [("_backfill", BACKFILL_QUEUE, BACKFILL_BELL_OF), ("_resume", UPKEEP_QUEUE, RESUME_BELL_OF)],
)
def test_a_task_that_has_begun_can_be_rung_for_again(
    task: str, queue: str, bell: Bell, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reason to work that comes up while a task runs sends a doorbell at once; before that it waits."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    settings = read_settings()
    # Not registered: Celery would share a task of this name with the apps of other tests.
    tasks = TasksOf(create_app(settings), settings, [queue], Family())
    with redis.Redis.from_url(redis_url) as client:
        doorbell = Doorbell(client, lambda task, queue: None)
        tasks.runtime = RungRuntime(lambda: doorbell.ring(bell))
        assert doorbell.ring(bell)
        assert not doorbell.ring(bell)
        getattr(tasks, task)()
    assert tasks.runtime.sent == [True]


def test_a_worker_that_is_ready_rings_for_itself_and_keeps_its_loop(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left is looked at at once; the loop is what a lost doorbell is noticed by (hearing.py)."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(HeardRequest, "hub", None)
    settings, family, hub = read_settings(), Family(), Hub()
    family.stop()  # the watchdog's thread ends with the test
    tasks = TasksOf(create_app(settings), settings, [UPKEEP_QUEUE], family)
    tasks._on_ready(sender=SimpleNamespace(hub=hub))
    assert HeardRequest.hub is hub
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen(UPKEEP_QUEUE) == 1
    hub.close()


def test_doorbells_that_nobody_answers_do_not_pile_up(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a worker they once filled Redis, until the receiver answered 503. Those that go are the oldest."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    scheduler = DoorbellScheduler(app=create_app(read_settings()))

    def ring(task: str) -> None:
        scheduler.apply_async(scheduler.schedule[task], advance=False)

    with redis.Redis.from_url(redis_url) as client:
        ring(TIDY_TASK)
        for _ in range(MOST_LYING):
            ring(CHECK_TASK)
        ring(DEEP_TASK)
        lying = cast(list[bytes], client.lrange(UPKEEP_QUEUE, 0, -1))
        assert len(lying) == MOST_LYING
        told = [
            next(task for task in (TIDY_TASK, CHECK_TASK, DEEP_TASK) if task.encode() in each)
            for each in lying
        ]
        assert told == [DEEP_TASK] + [CHECK_TASK] * (MOST_LYING - 1)  # a worker takes the last
        client.rpush(LIVE_QUEUE, *["of others who ring"] * 2 * MOST_LYING)
        ring(DRAIN_TASK)
        assert client.llen(LIVE_QUEUE) == MOST_LYING
        assert DRAIN_TASK.encode() in cast(bytes, client.lindex(LIVE_QUEUE, 0))
