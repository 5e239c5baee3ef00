"""waitress' queue of whole requests -> how long the request that this thread serves had waited for it.

All threads may be held up by a slow Redis, and who waited for one of them has used up time that the sender counts.
This file refuses nothing; how late is too late is the publisher's rule.

Invariant: what serving takes is not counted: a request that takes long to read would be refused each time it comes.
Under another server, which tells nothing, nobody waited.
"""

import time
from contextvars import ContextVar
from typing import Any, Final

from waitress.task import ThreadedTaskDispatcher

_WAITED: Final[ContextVar[float]] = ContextVar("leadsync_request_waited", default=0.0)


def waited() -> float:
    """Seconds between when the request of this thread was whole and when a thread took it."""
    return _WAITED.get()


class StampingDispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """waitress' own, with the time at which each request was handed to it."""

    def add_task(self, task: Any) -> None:
        """Queue `task`, which waitress calls a connection that has a whole request."""
        super().add_task(_Stamped(task))


class _Stamped:
    """A queued task: the two calls that the dispatcher makes of one."""

    __slots__ = ("_at", "_task")

    def __init__(self, task: Any) -> None:
        self._task, self._at = task, time.monotonic()

    def service(self) -> None:
        token = _WAITED.set(time.monotonic() - self._at)
        try:
            self._task.service()
        finally:
            _WAITED.reset(token)

    def cancel(self) -> None:
        self._task.cancel()
