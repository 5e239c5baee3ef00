"""waitress' queue of whole requests -> since when the request that this thread serves has been waiting.

All threads may be held up by a slow Redis, and who waited for one of them has used up time that the sender counts.
This file refuses nothing; how late is too late is the publisher's rule.

Invariant: `since` is never later than the call. Under another server, which tells nothing, it is the call itself.
"""

import time
from contextvars import ContextVar
from typing import Any, Final

from waitress.task import ThreadedTaskDispatcher

_SINCE: Final[ContextVar[float | None]] = ContextVar("leadsync_request_since", default=None)


def since() -> float:
    """When the request of this thread was whole, by `time.monotonic`."""
    stamped = _SINCE.get()
    return time.monotonic() if stamped is None else stamped


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
        token = _SINCE.set(self._at)
        try:
            self._task.service()
        finally:
            _SINCE.reset(token)

    def cancel(self) -> None:
        self._task.cancel()
