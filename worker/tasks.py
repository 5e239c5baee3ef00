"""Celery tasks: a doorbell -> one run of a pipeline on this process' runtime. They carry and return nothing.

What a task does is decided elsewhere. Invariant: a neighbour that is away ends the task with one line in the log and
leaves the work where it lies; the schedule rings again.
"""

import os
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import redis
import structlog
from celery import Celery
from celery.signals import worker_process_shutdown, worker_ready, worker_shutting_down
from kombu.exceptions import OperationalError

from worker.app import create_app, send
from worker.doorbell import BACKFILL_BELL_OF, DRAIN_BELL, RESUME_BELL_OF, Bell, Doorbell
from worker.errors import LeadSyncError
from worker.hearing import HeardRequest
from worker.inbox import (
    BACKFILL_TASK,
    CHECK_TASK,
    DEEP_TASK,
    DISCOVER_TASK,
    DRAIN_TASK,
    FORGET_TASK,
    LIMITS_TASK,
    RECONCILE_TASK,
    RESUME_TASK,
    TIDY_TASK,
    UPKEEP_QUEUE,
)
from worker.runtime import Family, Runtime
from worker.settings import Settings
from worker.watchdog import Watchdog, end_family

log = structlog.get_logger("tasks")

SHUTDOWN_SECONDS: Final = 20.0
"""Within this a warm shutdown has ended, or is ended."""


class Tasks:
    """The tasks of one worker; the runtime is opened in the child that first needs it."""

    def __init__(self, app: Celery, settings: Settings, queues: Sequence[str], family: Family) -> None:
        self._app = app
        self._queues = queues
        self._settings = settings
        self._family = family
        self._runtime: Runtime | None = None
        self._doorbell: Doorbell | None = None

    def register(self) -> None:
        """Give the app its tasks, under their fixed names."""
        tasks = {
            DRAIN_TASK: self._drain,
            RESUME_TASK: self._resume,
            TIDY_TASK: self._tidy,
            LIMITS_TASK: self._limits,
            BACKFILL_TASK: self._backfill,
            DISCOVER_TASK: self._discover,
            RECONCILE_TASK: self._reconcile,
            DEEP_TASK: self._reconcile_deep,
            FORGET_TASK: self._forget,
            CHECK_TASK: self._check_pages,
        }
        for name, work in tasks.items():
            self._app.task(name=name, Request=HeardRequest)(self._guarded(work))
        worker_ready.connect(self._on_ready, weak=False)
        worker_shutting_down.connect(self._on_shutdown, weak=False)
        worker_process_shutdown.connect(self._on_child_end, weak=False)

    def _guarded(self, work: Callable[[], None]) -> Callable[[], None]:
        def task() -> None:
            structlog.contextvars.clear_contextvars()
            structlog.contextvars.bind_contextvars(process=os.getpid(), run=secrets.token_hex(4))
            try:
                if not self._family.is_stopping():
                    work()
            except LeadSyncError as error:
                log.warning(
                    "task_interrupted", task=work.__name__.strip("_"), reason=error.reason, error=str(error)
                )
            except (redis.RedisError, OperationalError, OSError) as error:
                log.warning("task_interrupted", task=work.__name__.strip("_"), error=type(error).__name__)

        return task

    def _drain(self) -> None:
        more = True
        while more and not self._family.is_stopping():
            counts, more = self._runtime_here().run(self._runtime_here().drain())
            if counts:
                log.info("drained", **counts)
            try:
                if more:
                    self._bell().ring(DRAIN_BELL)
                    return
            except redis.exceptions.OutOfMemoryError:
                continue  # a full Redis takes no doorbell, and nobody but us would go on to make room

    def _resume(self) -> None:
        self._bell().answered(RESUME_BELL_OF)
        counts = self._runtime_here().run(self._runtime_here().resume())
        if counts:
            log.info("resumed", **counts)

    def _tidy(self) -> None:
        forgotten = self._runtime_here().run(self._runtime_here().tidy())
        log.info("tidied", **forgotten)

    def _limits(self) -> None:
        self._runtime_here().refresh_limits()

    def _backfill(self) -> None:
        self._bell().answered(BACKFILL_BELL_OF)
        counts = self._runtime_here().run(self._runtime_here().backfill())
        if counts:
            log.info("slices_walked", **counts)

    def _discover(self) -> None:
        self._runtime_here().discover_forms()

    def _reconcile(self) -> None:
        self._began(self._runtime_here().run(self._runtime_here().reconcile()))

    def _reconcile_deep(self) -> None:
        self._began(self._runtime_here().run(self._runtime_here().reconcile_deep()))

    def _forget(self) -> None:
        self._runtime_here().forget()

    def _check_pages(self) -> None:
        self._runtime_here().check_pages(self._ring_for_healed)

    def _ring_for_healed(self) -> None:
        """A Page was taken up again: what waits for it is looked at now, not when the schedule rings."""
        try:
            self._bell().ring(RESUME_BELL_OF)
            self._bell().ring(BACKFILL_BELL_OF)
            send(self._app, RECONCILE_TASK, UPKEEP_QUEUE)
        except (redis.RedisError, OperationalError, OSError) as error:
            log.warning("ring_failed", error=type(error).__name__)

    def _began(self, counts: dict[str, int]) -> None:
        if any(counts.values()):
            log.info("reconciling", **counts)
            self._bell().ring(BACKFILL_BELL_OF)

    def _runtime_here(self) -> Runtime:
        """This process' own runtime: a fork inherits the parent's attributes but none of its threads."""
        if self._runtime is None or self._runtime.pid != os.getpid():
            self._runtime = Runtime(self._settings, self._family).open()
        return self._runtime

    def _bell(self) -> Doorbell:
        if self._doorbell is None:
            self._doorbell = Doorbell(self._client(), lambda task, queue: send(self._app, task, queue))
        return self._doorbell

    def _client(self) -> "redis.Redis":
        return redis.Redis.from_url(
            self._settings.redis_url, socket_timeout=5, socket_connect_timeout=2, protocol=2
        )

    def _on_ready(self, sender: Any, **_: Any) -> None:
        """Look at once at what was left, rather than when the schedule rings next."""
        HeardRequest.hub = sender.hub
        Watchdog(self._client(), self._queues, self._family).start()
        bells = [
            bell for bell in (DRAIN_BELL, RESUME_BELL_OF, BACKFILL_BELL_OF) if bell.queue in self._queues
        ]
        try:
            for bell in bells:
                self._bell().ring(bell)
        except (redis.RedisError, OperationalError, OSError) as error:
            log.warning("ring_failed", error=type(error).__name__)

    def _on_shutdown(self, **_: Any) -> None:
        self._family.stop()
        # Three in 25 warm shutdowns of Celery never end by themselves.
        timer = threading.Timer(SHUTDOWN_SECONDS, _end_now)
        timer.daemon = True
        timer.start()

    def _on_child_end(self, **_: Any) -> None:
        """A child ends in order: what it counted beside its runs is added too."""
        if self._runtime is not None and self._runtime.pid == os.getpid():
            self._runtime.run(self._runtime.add_totals())


def ring_now(settings: Settings, *bells: Bell) -> None:
    """Let workers look at once, from a command; where Redis is away the schedule rings later."""
    client = redis.Redis.from_url(settings.redis_url, socket_timeout=5, socket_connect_timeout=2, protocol=2)
    app = create_app(settings)
    with suppress(redis.RedisError, OperationalError, OSError):
        doorbell = Doorbell(client, lambda task, queue: send(app, task, queue))
        for bell in bells:
            doorbell.ring(bell)


def _end_now() -> None:
    log.error("shutdown_overdue", seconds=SHUTDOWN_SECONDS)
    end_family()
