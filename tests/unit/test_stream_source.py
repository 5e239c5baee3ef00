"""Where a drain takes its references from: the dead workers' first, then new ones, and nothing missed at the end."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.leads import in_flight
from worker.batches import InFlight
from worker.sources import StreamSource


@dataclass
class WatchedStream:
    """A stream with what dead workers left and what is new; remembers in which order it was asked."""

    left: list[InFlight] = field(default_factory=list)
    new: list[InFlight] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    async def progress(self, queue: str) -> None:
        self.asked.append("progress")

    async def claim(self, most: int) -> tuple[InFlight, ...]:
        self.asked.append("claim")
        taken, self.left = tuple(self.left[:most]), self.left[most:]
        return taken

    async def read(self, most: int, wait_seconds: float) -> tuple[InFlight, ...]:
        self.asked.append("read")
        taken, self.new = tuple(self.new[:most]), self.new[most:]
        return taken

    async def hush(self, seconds: float) -> None:
        self.asked.append("hush")

    async def unhush(self) -> None:
        self.asked.append("unhush")


def taken_from(stream: WatchedStream, times: int) -> list[Any]:
    """The ids that so many takes give, up to the one that ends the run."""

    async def takes() -> list[Any]:
        source = StreamSource(stream, drain_seconds=60.0, linger_seconds=0.0)  # type: ignore[arg-type]
        found: list[Any] = []
        while len(found) < times and None not in found:
            taken = await source.take(100, busy=False)
            found.append(None if taken is None else [r.leadgen_id for r in taken])
        return found

    return asyncio.run(takes())


def test_what_a_dead_worker_left_goes_before_what_is_new() -> None:
    """A drain first claims what was left pending, however much came since, and then takes what is new."""
    stream = WatchedStream(left=[in_flight("1")], new=[in_flight("2")])
    assert taken_from(stream, 2) == [["1"], ["2"]]


def test_the_bell_is_lifted_before_the_last_look() -> None:
    """What comes in as a drain ends is either seen by its last look or rung for: never neither."""
    stream = WatchedStream()
    assert taken_from(stream, 9) == [[], None]
    assert stream.asked[-2:] == ["unhush", "read"]


def test_what_the_last_look_finds_is_taken_and_the_drain_goes_on() -> None:
    """A reference that came just then does not wait for the schedule."""
    stream = WatchedStream()

    async def unhush() -> None:
        stream.new.append(in_flight("3"))
        stream.unhush = quiet  # type: ignore[method-assign]

    async def quiet() -> None:
        return

    stream.unhush = unhush  # type: ignore[method-assign]
    assert taken_from(stream, 9) == [[], ["3"], [], None]
