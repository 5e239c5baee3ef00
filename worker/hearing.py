"""A doorbell that could not be acknowledged -> the main process connects to Redis anew, and hears again.

Celery logs such a failure and goes on. The message then counts as taken for ever, and once as many do as a worker may
take at a time, it takes none: its main process lives and is deaf. Seen with Celery and kombu 5.7.0 in outages of Redis
while doorbells lay in the main process; https://github.com/celery/celery/issues/10302 tells of the like. This file
acknowledges nothing itself.
Invariant: after a failed acknowledgement the main loop sees a lost connection, which Celery knows how to mend.
"""

from typing import Any, ClassVar, Final
from weakref import WeakSet

from celery.worker.request import Request
from kombu.asynchronous import Hub

LOOKS: Final = 2
"""The loop runs what is due in no order, Celery's own acknowledgement too: on the second look it has been tried."""


class HeardRequest(Request):
    """One doorbell in the main process of a worker."""

    hub: ClassVar[Hub | None] = None
    """The main process' loop. Kombu's get_event_loop() knows of it until a connection is lost for the first time."""
    _lost: ClassVar["WeakSet[Any]"] = WeakSet()
    """Channels on which one failed: connecting anew is enough, however many more do."""

    def acknowledge(self) -> None:
        """Acknowledge the message as Celery does, which is soon, and look then whether that worked."""
        super().acknowledge()
        self._look_soon(LOOKS)

    def _look_soon(self, looks: int) -> None:
        hub = self.hub
        # A loop that reads nothing is being closed: it runs what is due for the last time, and nothing may fail there.
        if hub is None or not hub.readers or self._message.acknowledged:
            return
        if looks:
            hub.call_soon(self._look_soon, looks - 1)  # type: ignore[no-untyped-call]
        elif self._message.channel not in self._lost:
            self._lost.add(self._message.channel)
            raise ConnectionResetError("a doorbell could not be acknowledged")
