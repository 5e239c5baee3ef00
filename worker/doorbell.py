"""A reason to work -> one Celery message, and no more than one while it is under way.

A doorbell carries nothing and may be lost: what must not be lost lies in the stream or in Postgres, and the schedule
rings again while there is work. It never looks at what the work is. Invariant: between two answers to the bell at
most one message is sent in BELL_EXPIRES_SECONDS, and where nobody answers one more by the schedule, which insists: so
doorbells cannot pile up however often somebody rings.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import redis

from worker.inbox import (
    BACKFILL_BELL,
    BACKFILL_QUEUE,
    BACKFILL_TASK,
    BELL,
    BELL_EXPIRES_SECONDS,
    DRAIN_TASK,
    LIVE_QUEUE,
    PROGRESS,
    RESUME_BELL,
    RESUME_TASK,
    STREAM,
    UPKEEP_QUEUE,
)

MESSAGE_EXPIRES_SECONDS: Final = 3_600
"""A doorbell that lay in its queue for longer is thrown away unanswered: the schedule has rung again since.

Celery makes it a moment of the sender's clock and judges it by the worker's: a worker whose clock is further ahead than
this hears nothing. What piles up in it while no worker listens the schedule cuts short (schedule.py, MOST_LYING).
"""

OVERDUE_SECONDS: Final = 15.0
"""While workers drain they look at the stream all the time. After so long the flag is of a ring that never was: whoever
put it up had no time to ring, and others put it up again as often as it expires."""

LOOK_EVERY_SECONDS: Final = 30.0
"""Even with nothing to do a worker looks at the stream this often, so that one that cannot is found out in time."""


@dataclass(frozen=True, slots=True)
class Bell:
    """Which flag keeps a task from being rung for twice, and the queue that its message goes to."""

    key: str
    task: str
    queue: str


DRAIN_BELL: Final = Bell(BELL, DRAIN_TASK, LIVE_QUEUE)
RESUME_BELL_OF: Final = Bell(RESUME_BELL, RESUME_TASK, UPKEEP_QUEUE)
BACKFILL_BELL_OF: Final = Bell(BACKFILL_BELL, BACKFILL_TASK, BACKFILL_QUEUE)


class Doorbell:
    """Rings. `client` is a synchronous Redis client, `send(task, queue)` sends the Celery message."""

    def __init__(self, client: "redis.Redis", send: Callable[[str, str], None]) -> None:
        self._client: Any = client
        self._send = send
        self._insisted_at = float("-inf")

    def ring(self, bell: Bell) -> bool:
        """Ring unless somebody has; raises redis.RedisError or kombu's OperationalError where Redis is away."""
        if not self._client.set(bell.key, "rung", nx=True, ex=BELL_EXPIRES_SECONDS):
            return False
        self._send(bell.task, bell.queue)
        return True

    def ring_for_references(self) -> bool:
        """Ring for a drain if the stream holds anything, or if nobody has looked at it for a while.

        If it holds something and nobody looks, whatever the flag says.
        """
        looked_at = int(self._client.hget(PROGRESS, LIVE_QUEUE) or 0) / 1000
        # A look in the future is as old: a clock has jumped since.
        age, holds = abs(time.time() - looked_at), int(self._client.xlen(STREAM)) > 0
        if not holds and age < LOOK_EVERY_SECONDS:
            return False
        if holds and age > OVERDUE_SECONDS and monotonic() - self._insisted_at >= BELL_EXPIRES_SECONDS:
            self._insisted_at = monotonic()
            self._client.delete(DRAIN_BELL.key)
        return self.ring(DRAIN_BELL)

    def answered(self, bell: Bell) -> None:
        """The task has begun: from here on a new ring is news."""
        self._client.delete(bell.key)
