"""Settings -> the Celery app: its options in one table, its schedule, and the processes that run it.

Celery carries doorbells only: no payload, no result, no retry, no countdown. Nothing is built at import.
https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

import socket
import sys
import warnings
from typing import Any, Final, NoReturn

from celery import Celery
from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning
from celery.signals import setup_logging

from worker import logs
from worker.doorbell import MESSAGE_EXPIRES_SECONDS
from worker.inbox import (
    BACKFILL_TASK,
    CHECK_TASK,
    DEEP_TASK,
    DISCOVER_TASK,
    DRAIN_TASK,
    FORGET_TASK,
    LIMITS_TASK,
    LIVE_QUEUE,
    RECONCILE_TASK,
    RESUME_TASK,
    TIDY_TASK,
)
from worker.settings import Settings

TIDY_EVERY_SECONDS: Final = 600.0
"""Also less than a schedule lives that is started again and again: its first moment comes after so long."""
TIDY_AT_MOST_EVERY_SECONDS: Final = 60.0
TIDIES_A_WINDOW: Final = 4
"""Where the window of a limit is short, as in a rehearsal, calls leave it sooner."""
LIMITS_EVERY_SECONDS: Final = 60.0
"""How often it is looked whether some Page's limit is due."""
LOOK_TICKS: Final = 6
"""Every so many rings it is looked whether some Page's forms, or some form, are due: every 30 seconds."""
DEEP_EVERY_SECONDS: Final = 600.0
DEEPS_A_PERIOD: Final = 10
"""How often it is looked whether some form is due in full; a form that is not yet due at one look waits for the next,
so looks must be many where full comparisons are frequent."""

FORGET_EVERY_SECONDS: Final = 60.0
"""How often it is looked whether what was erased by order is still so, and whether leads were kept long enough."""


def create_app(settings: Settings) -> Celery:
    """The Celery app of worker and schedule; the tasks are added by tasks.py."""
    app = Celery("leadsync", set_as_current=False)
    app.conf.update(_options(settings))
    return app


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": settings.redis_url,
        # A worker that is started before Redis waits for it, however long.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
        },
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "task_ignore_result": True,
        # A doorbell may be lost, so it is acknowledged early and never delivered again.
        "task_acks_late": False,
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": settings.worker_concurrency,
        # The event loop and its sockets live in a child; the parent has none to share.
        "worker_pool": "prefork",
        "worker_proc_alive_timeout": 30.0,
        # Leaks of third parties stay small: a child is replaced between two tasks.
        "worker_max_tasks_per_child": 5_000,
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "task_default_queue": LIVE_QUEUE,
        "task_create_missing_queues": True,
        "beat_schedule": {
            DRAIN_TASK: {"task": DRAIN_TASK, "schedule": settings.ring_every},
            RESUME_TASK: {"task": RESUME_TASK, "schedule": settings.ring_every},
            TIDY_TASK: {"task": TIDY_TASK, "schedule": _tidy_every(settings.budget_window)},
            LIMITS_TASK: {
                "task": LIMITS_TASK,
                "schedule": min(LIMITS_EVERY_SECONDS, settings.budget_refresh),
            },
            BACKFILL_TASK: {"task": BACKFILL_TASK, "schedule": settings.ring_every},
            DISCOVER_TASK: {
                "task": DISCOVER_TASK,
                "schedule": min(LOOK_TICKS * settings.ring_every, settings.forms_discover),
            },
            RECONCILE_TASK: {
                "task": RECONCILE_TASK,
                "schedule": min(LOOK_TICKS * settings.ring_every, settings.reconcile_every),
            },
            DEEP_TASK: {
                "task": DEEP_TASK,
                "schedule": min(
                    DEEP_EVERY_SECONDS, max(settings.ring_every, settings.reconcile_deep / DEEPS_A_PERIOD)
                ),
            },
            FORGET_TASK: {"task": FORGET_TASK, "schedule": FORGET_EVERY_SECONDS},
            CHECK_TASK: {"task": CHECK_TASK, "schedule": settings.ring_every},
        },
        "timezone": "UTC",
    }


def _tidy_every(window: float) -> float:
    return min(TIDY_EVERY_SECONDS, max(TIDY_AT_MOST_EVERY_SECONDS, window / TIDIES_A_WINDOW))


def send(app: Celery, task: str, queue: str) -> None:
    """One doorbell message."""
    app.send_task(task, queue=queue, expires=MESSAGE_EXPIRES_SECONDS, ignore_result=True, retry=False)


def run_worker(app: Celery, settings: Settings, queues: tuple[str, ...]) -> NoReturn:
    """Work on `queues` until SIGTERM; then exits."""
    _keep_our_logs(settings)
    # Celery warns root of pickled messages; ours are JSON and nothing else is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Eight lines for each lost connection on what Celery 6 will do with tasks; a task here gives its work back itself.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    worker = app.Worker(
        hostname=f"{'+'.join(queues)}@{socket.gethostname()}",
        queues=list(queues),
        loglevel="WARNING",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    sys.exit(worker.exitcode)


def run_schedule(app: Celery, settings: Settings) -> None:
    """Ring on schedule until SIGTERM; blocks. Run exactly one of these; a second one only rings in vain."""
    _keep_our_logs(settings)
    app.Beat(
        scheduler_cls="worker.schedule:DoorbellScheduler",
        loglevel="WARNING",
        quiet=True,
        pidfile=None,
        schedule=None,
    ).run()


def _keep_our_logs(settings: Settings) -> None:
    def keep(**_: object) -> None:
        logs.configure(settings.log_style, settings.log_level)

    # Any receiver of this signal makes Celery leave logging alone.
    setup_logging.connect(keep, weak=False)
    keep()
