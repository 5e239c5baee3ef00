"""Where live references come from, and who is told that somebody listens."""

import asyncio
from typing import Any

import pytest

from tests.fakes.leads import PAGE, in_flight
from tests.fakes.time import BEGINNING, loop_time, run_jumping
from worker import sources
from worker.batches import InFlight
from worker.sources import StreamSource

APART_SECONDS = 0.02
"""Between one reference and the next."""
REFERENCES = 200


class Stream:
    """A stream in which a reference comes now and then; it notes until when the bell is hushed."""

    def __init__(self) -> None:
        self.left = REFERENCES
        self.hushes = 0
        self.hushed_until = 0.0
        self.listened_unhushed: list[float] = []

    async def hush(self, seconds: float) -> None:
        self.hushes += 1
        self.hushed_until = loop_time() + seconds

    async def unhush(self) -> None:
        self.hushed_until = 0.0

    async def read(self, room: int, seconds: float) -> tuple[InFlight, ...]:
        if seconds and loop_time() + seconds > self.hushed_until:
            self.listened_unhushed.append(loop_time())
        if not seconds or not self.left:
            await asyncio.sleep(seconds)
            return ()
        await asyncio.sleep(APART_SECONDS)
        self.left -= 1
        return (in_flight(self.left, PAGE),)

    async def claim(self, room: int) -> tuple[InFlight, ...]:
        return ()

    async def progress(self, queue: str) -> None: ...


@pytest.fixture(autouse=True)
def jumping_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "monotonic", loop_time)


def test_while_it_listens_nobody_needs_to_ring_and_that_is_seldom_written() -> None:
    """The bell is hushed to the end of each blocking read, by two writes a second and not one a reference."""
    stream: Any = Stream()

    async def take_all() -> float:
        source = StreamSource(stream, drain_seconds=60.0, linger_seconds=2.0)
        while await source.take(500, busy=False) is not None:
            pass
        return loop_time() - BEGINNING

    seconds = run_jumping(take_all())
    assert (stream.left, stream.listened_unhushed) == (0, [])
    assert stream.hushes <= 2 * seconds + 2 < REFERENCES / 5
