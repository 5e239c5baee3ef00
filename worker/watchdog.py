"""A worker that lives but no longer takes work -> one that ends, so that whoever runs it starts it again.

Celery's main process is known to stay alive without consuming after its broker was away. Neither the process nor a
ping tells; only work left lying does. Invariant: a worker whose children make progress, or whose queues are empty, or
whose Redis cannot be asked, is left alone.
"""

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final

import redis
import structlog
from billiard.process import active_children

from worker.runtime import Family

log = structlog.get_logger("watchdog")

LOOK_EVERY_SECONDS: Final = 5.0
STUCK_SECONDS: Final = 60.0
"""Doorbells that lie unanswered for so long, while no child makes progress, mean that nobody hears them."""


class Watchdog:
    """Watches one worker from a thread of its main process. `client` is a synchronous Redis client."""

    def __init__(self, client: "redis.Redis", queues: Sequence[str], family: Family) -> None:
        self._client: Any = client
        self._queues = queues
        self._family = family
        self._lain = 0.0
        """Seconds for which doorbells were seen to lie, without those in which Redis could not be asked."""
        self._seen_at: float | None = None

    def start(self) -> None:
        """Watch from now on; the thread ends with the process."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        pause = threading.Event()
        while not self._family.is_stopping():
            pause.wait(LOOK_EVERY_SECONDS)
            if self.is_stuck(monotonic()):
                log.error("worker_stuck", queues=list(self._queues), seconds=STUCK_SECONDS)
                end_family()

    def is_stuck(self, now: float) -> bool:
        """Whether doorbells have been lying for STUCK_SECONDS; `now` is a monotonic clock."""
        lie = self._doorbells_lie()
        if lie and self._seen_at is not None:
            self._lain += now - self._seen_at
        elif lie is False:
            self._lain = 0.0
        self._seen_at = now if lie else None
        return bool(lie) and self._lain >= STUCK_SECONDS and self._family.idle_seconds() >= STUCK_SECONDS

    def _doorbells_lie(self) -> bool | None:
        """None where Redis cannot be asked."""
        try:
            return any(self._client.llen(queue) > 0 for queue in self._queues)
        except (redis.RedisError, OSError):
            return None


def end_family() -> None:
    """End this worker at once, its children first: what they hold is claimed by others."""
    try:
        for child in active_children():
            if child.pid is not None:
                with suppress(ProcessLookupError):  # it has ended meanwhile
                    os.kill(child.pid, signal.SIGKILL)
    finally:
        os._exit(1)
