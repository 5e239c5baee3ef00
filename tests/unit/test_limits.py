"""Limits are kept fresh, Page by Page: what befalls one of them costs no other its limit."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.fakes.leads import OTHER_PAGE, PAGE
from tests.fakes.time import NOW, FrozenClock
from worker.budget.policy import Limit
from worker.errors import LeadSyncError, LedgerUnavailable, StoreUnavailable
from worker.limits import AT_ONCE, MOST_PAGES, LimitKeeper


@dataclass
class LimitedBudget:
    """Works limits out; `faults` in place of a Page's new limit; `hangs` until it is set."""

    faults: dict[str, Exception] = field(default_factory=dict)
    hangs: dict[str, asyncio.Event] = field(default_factory=dict)
    refreshed: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    async def refresh(self, page_id: str) -> Limit:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (self.hangs[page_id].wait() if page_id in self.hangs else asyncio.sleep(0))
        finally:
            self.at_once -= 1
        if page_id in self.faults:
            raise self.faults[page_id]
        self.refreshed.append(page_id)
        return Limit(1, 1, "floor")


@dataclass
class LimitRows:
    """Pages that are due."""

    due: tuple[str, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)

    async def stale_limits(self, *, before: datetime, most: int) -> tuple[str, ...]:
        self.asked = {"before": before, "most": most}
        return self.due


class Bench:
    """A keeper with its neighbours."""

    def __init__(self, *due: str) -> None:
        self.budget = LimitedBudget()
        self.rows = LimitRows(due)
        self.stop: Callable[[], bool] = lambda: False
        self.keeper = LimitKeeper(
            budget=self.budget, rows=self.rows, age=timedelta(minutes=15), clock=FrozenClock()
        )

    def run(self) -> dict[str, int]:
        return asyncio.run(self.keeper.run(self.stop))


def test_pages_that_are_due_get_their_limits() -> None:
    """Limits older than their age are due; each is worked out once."""
    bench = Bench(PAGE, OTHER_PAGE)
    assert bench.run() == {"limits": 2}
    assert bench.rows.asked == {"before": NOW - timedelta(minutes=15), "most": MOST_PAGES}
    assert sorted(bench.budget.refreshed) == [PAGE, OTHER_PAGE]


def test_nothing_due_is_nothing_done() -> None:
    """Where every limit is fresh none is worked out."""
    bench = Bench()
    assert bench.run() == {"limits": 0}
    assert bench.budget.refreshed == []


def test_a_fault_with_one_page_costs_no_other_its_limit() -> None:
    """A fault of ours is told by its type, and the Page keeps the limit that it has."""
    bench = Bench(PAGE, OTHER_PAGE)
    bench.budget.faults[PAGE] = ZeroDivisionError("told")
    assert bench.run() == {"limits": 1}
    assert bench.budget.refreshed == [OTHER_PAGE]


@pytest.mark.parametrize("away", [LedgerUnavailable("told"), StoreUnavailable("told")])
def test_without_redis_or_postgres_the_run_ends(away: LeadSyncError) -> None:
    """A neighbour that is away is told and not taken for a Page's trouble."""
    bench = Bench(PAGE)
    bench.budget.faults[PAGE] = away
    with pytest.raises(ExceptionGroup) as told:
        bench.run()
    assert told.value.exceptions == (away,)


def test_a_hanging_page_holds_up_no_other() -> None:
    """While some Pages hang all others have their limits; at most so many are looked after at once."""
    pages = [str(n) for n in range(1, 31)]
    bench = Bench(*pages)

    async def scenario() -> None:
        hangs = asyncio.Event()
        bench.budget.hangs = dict.fromkeys(pages[: AT_ONCE - 1], hangs)
        running = asyncio.ensure_future(bench.keeper.run(lambda: False))
        while len(bench.budget.refreshed) < len(pages) - (AT_ONCE - 1):
            assert not running.done()
            await asyncio.sleep(0)
        assert set(bench.budget.refreshed) == set(pages[AT_ONCE - 1 :])
        hangs.set()
        assert await running == {"limits": 30}

    asyncio.run(asyncio.wait_for(scenario(), 10))
    assert bench.budget.most_at_once == AT_ONCE


def test_a_stop_leaves_the_rest_for_the_next_run() -> None:
    """Told to stop, nobody begins with another Page."""
    bench = Bench(*(str(n) for n in range(1, 31)))
    bench.stop = lambda: len(bench.budget.refreshed) >= 3
    assert 3 <= bench.run()["limits"] < 3 + AT_ONCE
