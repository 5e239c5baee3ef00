"""How long a request waited for the thread that serves it."""

import threading
from collections.abc import Iterator

import pytest

from receiver import arrival
from receiver.arrival import StampingDispatcher

PATIENT = 60.0
"""Seconds that no test takes."""


class Request:
    """What waitress queues. It says how long it had waited, once it is let go."""

    def __init__(self) -> None:
        self.taken, self.go_on, self.over = threading.Event(), threading.Event(), threading.Event()
        self.waited = -1.0
        self.cancelled = False

    def service(self) -> None:
        self.taken.set()
        assert self.go_on.wait(PATIENT)
        self.waited = arrival.waited()
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


def test_a_request_waits_from_when_it_was_whole_until_a_thread_takes_it(
    dispatcher: StampingDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What serving takes is not counted: what takes long would be refused each time it comes."""
    now = [1_000.0]
    monkeypatch.setattr(arrival.time, "monotonic", lambda: now[0])
    first, second = Request(), Request()
    dispatcher.add_task(first)
    assert first.taken.wait(PATIENT)
    dispatcher.add_task(second)
    now[0] += 7
    first.go_on.set()
    assert second.taken.wait(PATIENT)
    now[0] += 30
    second.go_on.set()
    assert first.over.wait(PATIENT)
    assert second.over.wait(PATIENT)
    assert (first.waited, second.waited) == (0, 7)


def test_outside_of_a_request_nobody_waited() -> None:
    """As under a server that stamps nothing."""
    assert arrival.waited() == 0


def test_what_still_waits_at_the_end_is_cancelled(dispatcher: StampingDispatcher) -> None:
    """As waitress does with its own."""
    busy, waiting = Request(), Request()
    dispatcher.add_task(busy)
    dispatcher.add_task(waiting)
    assert busy.taken.wait(PATIENT)
    dispatcher.shutdown(timeout=0)
    assert waiting.cancelled
    busy.go_on.set()
