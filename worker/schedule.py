"""The schedule: moments -> doorbells, by Celery's beat. It rings only while there is work and nobody has rung.

It keeps no state on disk: every entry is an interval of seconds. Invariants: a Redis that is away ends no tick; the
next one rings again; a clock that is set back delays no entry by more than its interval.
"""

from typing import Any, Final

import redis
import structlog
from celery.beat import ScheduleEntry, Scheduler
from kombu.exceptions import OperationalError

from worker.app import send
from worker.doorbell import BACKFILL_BELL_OF, RESUME_BELL_OF, Doorbell
from worker.inbox import BACKFILL_TASK, DRAIN_TASK, QUEUES, RESUME_TASK, UPKEEP_QUEUE
from worker.stream import note_schedule

log = structlog.get_logger("schedule")

MOST_LYING: Final = 500
"""Doorbells in a queue. More come together only where nobody works on it: there they would fill Redis, and who comes to
work on it would throw the oldest away as too old."""


class DoorbellScheduler(Scheduler):
    """Celery's in-memory scheduler, which rings through the Doorbell instead of sending every time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._client = redis.Redis.from_url(
            self.app.conf.broker_url, socket_timeout=5, socket_connect_timeout=2, protocol=2
        )
        self._bell = Doorbell(self._client, lambda task, queue: send(self.app, task, queue))

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Ring for what is due; seconds until the next look."""
        self._take_up_what_lies_ahead()
        return float(super().tick(*args, **kwargs))

    def _take_up_what_lies_ahead(self) -> None:
        """Entries that last rang in the future, before the clock was set back, rang now.

        Celery counts from there by the wall clock, and would ring for nothing until it has caught up.
        """
        now = self.app.now()
        ahead = [entry for entry in self.schedule.values() if entry.last_run_at > now]
        for entry in ahead:
            entry.last_run_at = now
        if ahead:
            self._heap = None  # its moments lie ahead too; it is made anew

    def apply_async(
        self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> None:
        """Ring for `entry`, and move it on to its next moment."""
        if advance:
            entry = self.reserve(entry)
        try:
            note_schedule(self._client)
            if entry.task == DRAIN_TASK:
                self._bell.ring_for_references()
            elif entry.task == RESUME_TASK:
                self._bell.ring(RESUME_BELL_OF)
            elif entry.task == BACKFILL_TASK:
                self._bell.ring(BACKFILL_BELL_OF)
            else:
                send(self.app, entry.task, UPKEEP_QUEUE)
            for queue in QUEUES:
                self._client.ltrim(queue, 0, MOST_LYING - 1)
        except (redis.RedisError, OperationalError, OSError) as error:
            log.warning("ring_failed", task=entry.task, error=type(error).__name__)
