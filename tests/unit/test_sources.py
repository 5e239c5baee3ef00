"""Where references come from, live or waiting: who is told that somebody listens, and how often rows are looked for."""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from tests.fakes.leads import PAGE, at, in_flight
from tests.fakes.time import BEGINNING, NOW, loop_time, run_jumping
from worker.batches import InFlight
from worker.sources import LOOKING_SHARE, PER_PAGE, WAIT_SECONDS, DueSource, StreamSource

pytestmark = pytest.mark.usefixtures("jumping_run")

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


@dataclass
class DueRows:
    """Rows that are due at a moment, and when the next one will be; a look takes `takes` seconds."""

    due: dict[str, datetime] = field(default_factory=dict)
    takes: float = 0.0
    looked: list[float] = field(default_factory=list)

    async def lease_due(self, room: int, per_page: int, now: datetime) -> tuple[InFlight, ...]:
        assert (room, per_page) == (100, PER_PAGE)
        self.looked.append(loop_time() - BEGINNING)
        await asyncio.sleep(self.takes)
        leased = tuple(in_flight(i, turn=1, due_at=at) for i, at in self.due.items() if at <= now)
        self.due = {i: at for i, at in self.due.items() if at > now}
        return leased

    async def next_due(self) -> datetime | None:
        return min(self.due.values(), default=None)


@dataclass
class QuietStream:
    """A stream with so many references waiting."""

    waiting: int = 0

    async def backlog(self) -> int:
        return self.waiting


def taken_from(rows: DueRows, times: int = 1, *, drain_seconds: float = 20.0) -> list[Any]:
    """What so many takes give, by a clock that goes with the loop; up to the one that ends the run."""

    async def takes() -> list[Any]:
        def clock() -> datetime:
            return at(loop_time() - BEGINNING)

        source = DueSource(rows, QuietStream(), clock, drain_seconds=drain_seconds)  # type: ignore[arg-type]
        found: list[Any] = []
        while len(found) < times and None not in found:
            taken = await source.take(100, busy=False)
            found.append(None if taken is None else [r.leadgen_id for r in taken])
        return found

    return run_jumping(takes())


def test_a_run_over_waiting_rows_ends_where_none_is_due_in_its_time() -> None:
    """Where nothing waits, or nothing that comes due before the run's end, the run is over at once."""
    assert taken_from(DueRows()) == [None]
    assert taken_from(DueRows({"1": at(20.5)})) == [None]
    assert taken_from(DueRows({"1": at(-5)}), 2) == [["1"], None]


def test_a_run_waits_for_rows_that_are_due_within_its_time() -> None:
    """A row that comes due while the run lasts is read by it, soon after its moment."""
    rows = DueRows({"1": at(2.2), "2": at(30)})
    found = taken_from(rows, 100)
    assert [taken for taken in found if taken != []] == [["1"], None]
    first = rows.looked[found.index(["1"])]
    assert 2.2 <= first <= 2.2 + WAIT_SECONDS


def test_looking_in_vain_is_a_small_part_of_a_run() -> None:
    """Where a look takes its time the next one comes later: a tenth of the run at most is spent on looking."""
    rows = DueRows({"1": at(99)}, takes=1.0)
    taken_from(rows, 100, drain_seconds=100.0)
    assert rows.takes * len(rows.looked) <= 100 * LOOKING_SHARE + 1


def test_a_run_over_waiting_rows_ends_with_its_time() -> None:
    """Beyond its time nothing more is leased, however much is due."""
    rows = DueRows({"1": NOW})
    assert taken_from(rows, drain_seconds=0.0) == [None]
    assert rows.looked == []
