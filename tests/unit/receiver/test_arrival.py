"""Since when a request has been waiting, by the thread that serves it."""

import threading
import time
from collections.abc import Iterator

import pytest

from receiver import arrival
from receiver.arrival import StampingDispatcher

PATIENT = 60.0
"""Seconds that no test takes."""


class Request:
    """What waitress queues. It says since when it has been waiting, once it is let go."""

    def __init__(self) -> None:
        self.go_on, self.over = threading.Event(), threading.Event()
        self.since = 0.0
        self.cancelled = False

    def service(self) -> None:
        assert self.go_on.wait(PATIENT)
        self.since = arrival.since()
        self.over.set()

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def dispatcher() -> Iterator[StampingDispatcher]:
    """One thread."""
    dispatcher = StampingDispatcher()
    dispatcher.set_thread_count(1)
    yield dispatcher
    dispatcher.shutdown()


def test_a_request_waits_from_when_it_was_whole(dispatcher: StampingDispatcher) -> None:
    """Not from when a thread was free for it."""
    first, second = Request(), Request()
    dispatcher.add_task(first)
    dispatcher.add_task(second)
    queued = time.monotonic()
    first.go_on.set()
    assert first.over.wait(PATIENT)
    assert first.since <= queued
    second.go_on.set()
    assert second.over.wait(PATIENT)
    assert first.since <= second.since <= queued


def test_outside_of_a_request_it_is_now(dispatcher: StampingDispatcher) -> None:
    """As under a server that stamps nothing."""
    before = time.monotonic()
    assert before <= arrival.since() <= time.monotonic()


def test_what_still_waits_at_the_end_is_cancelled(dispatcher: StampingDispatcher) -> None:
    """As waitress does with its own."""
    busy, waiting = Request(), Request()
    dispatcher.add_task(busy)
    dispatcher.add_task(waiting)
    while dispatcher.queue and dispatcher.queue[0]._task is busy:
        threading.Event().wait(0.001)
    dispatcher.shutdown(timeout=0)
    assert waiting.cancelled
    busy.go_on.set()
