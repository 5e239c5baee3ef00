"""A run of walks: within its bounds at any time, leases kept, and an end in time whatever the walks do."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.backfills import ASlice, FakeLeases
from tests.fakes.leads import OTHER_PAGE, PAGE
from tests.fakes.time import BEGINNING, NOW, loop_time, run_jumping
from worker.backfill import ABANDON_SECONDS, LOOK_SECONDS, BackfillRun, WalkLimits
from worker.errors import LedgerUnavailable, StoreUnavailable


def slices(count: int, page_id: str = PAGE, first: int = 1) -> list[ASlice]:
    return [ASlice(first + n, page_id=page_id) for n in range(count)]


class Bench:
    """A run on a loop that jumps; `takes` are the seconds of each slice's walk."""

    def __init__(self, *due: ASlice, limits: WalkLimits | None = None) -> None:
        self.store = FakeLeases(list(due))
        self.limits = limits or WalkLimits()
        self.takes: Callable[[ASlice], float] = lambda _: 0.5
        self.stop_at = float("inf")
        self.ends: dict[int, Exception] = {}
        self.walking: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_at_once = 0
        self.walked: list[int] = []
        self.given_back: list[int] = []
        self.alive = 0
        self.deaf = False
        self.alive_fails: Exception | None = None
        self.ended_at = 0.0

    def stop(self) -> bool:
        return loop_time() >= self.stop_at

    async def walk(self, one: ASlice) -> str:
        self.walking[one.page_id] += 1
        self.most[one.page_id] = max(self.most[one.page_id], self.walking[one.page_id])
        self.most_at_once = max(self.most_at_once, self.walking.total())
        until = loop_time() + self.takes(one)
        try:
            while loop_time() < until:
                await asyncio.sleep(min(0.25, until - loop_time()))
                if self.stop() and not self.deaf:
                    self.given_back.append(one.slice_id)
                    return "given_back"
            if one.slice_id in self.ends:
                raise self.ends[one.slice_id]
            self.walked.append(one.slice_id)
            return "done"
        finally:
            self.walking[one.page_id] -= 1

    def clock(self) -> datetime:
        return NOW + timedelta(seconds=loop_time() - BEGINNING)

    async def is_alive(self) -> None:
        self.alive += 1
        if self.alive_fails:
            raise self.alive_fails

    def run(self) -> Counter[str]:
        async def inner() -> Counter[str]:
            walk: Callable[[ASlice], Awaitable[str]] = self.walk
            run: BackfillRun[ASlice] = BackfillRun(
                store=self.store, close=self.store.close, walk=walk, limits=self.limits, clock=self.clock,
                stop=self.stop, alive=self.is_alive,
            )  # fmt: skip
            try:
                return await run.run()
            finally:
                self.ended_at = loop_time() - BEGINNING
                assert self.walking.total() == 0, "a walk outlives its run"

        return run_jumping(inner())


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from(["1", "2", "3"]), max_size=60),
    st.integers(1, 6),
    st.integers(1, 20),
    st.lists(st.floats(0, 7), min_size=1, max_size=9),
)
def test_a_run_walks_everything_within_its_bounds(
    pages: list[str], per_page: int, at_once: int, takes: list[float]
) -> None:
    """At any time no more of a Page and no more in all than is allowed; in the end every slice was walked once."""
    due = [ASlice(n, page_id=page) for n, page in enumerate(pages)]
    bench = Bench(*due, limits=WalkLimits(at_once, per_page))
    bench.takes = lambda one: takes[one.slice_id % len(takes)]
    assert bench.run() == Counter({"done": len(due)} if due else {})
    assert sorted(bench.walked) == list(range(len(due)))
    assert bench.most_at_once <= at_once
    assert all(most <= per_page for most in bench.most.values())


def test_a_page_whose_walks_hang_holds_up_no_other() -> None:
    """Others' slices are leased and walked beside it."""
    bench = Bench(*slices(20), *slices(30, OTHER_PAGE, 100), limits=WalkLimits(8, 4))
    bench.takes = lambda one: 300 if one.page_id == PAGE else 0.5
    bench.stop_at = BEGINNING + 30
    bench.run()
    assert {n for n in bench.walked if n >= 100} == set(range(100, 130))


def test_room_is_filled_as_it_comes_free() -> None:
    """A long walk does not keep the others waiting."""
    bench = Bench(*slices(41), limits=WalkLimits(5, 5))
    bench.takes = lambda one: 100 if one.slice_id == 1 else 1
    bench.run()
    assert bench.ended_at < 100 + 2 * LOOK_SECONDS


def test_leases_are_kept_while_walks_last() -> None:
    """A walk of many minutes is never without a lease: it is renewed well before it ends."""
    bench = Bench(*slices(3), limits=WalkLimits(lease_seconds=30))
    bench.takes = lambda _: 200
    bench.run()
    moments = [NOW, *(at for at, _ in bench.store.kept)]
    gaps = [(other - one).total_seconds() for one, other in pairwise(moments)]
    assert max(gaps) <= 20
    assert all(ids == (1, 2, 3) for _, ids in bench.store.kept)
    assert (bench.store.kept[-1][0] - NOW).total_seconds() > 180


def test_a_run_says_that_it_lives() -> None:
    """However long its walks take, the watchdog hears of it about every second."""
    bench = Bench(*slices(1))
    bench.takes = lambda _: 60
    bench.run()
    assert bench.alive >= 55


def test_a_walk_that_crashes_ends_no_other() -> None:
    """A fault of ours costs its slice a lease."""
    bench = Bench(*slices(5))
    bench.ends = {2: KeyError("ann@example.org"), 4: ZeroDivisionError()}
    assert bench.run() == Counter({"done": 3, "crashed": 2})
    assert bench.walked == [1, 3, 5]


def test_a_database_that_is_away_ends_the_run() -> None:
    """It raises, and no walk outlives it."""
    bench = Bench(*slices(5))
    bench.ends = {2: StoreUnavailable("told")}
    bench.takes = lambda one: one.slice_id
    with pytest.raises(StoreUnavailable):
        bench.run()
    assert bench.ended_at <= 2 + LOOK_SECONDS + ABANDON_SECONDS


@pytest.mark.parametrize("step", ["lease", "keep", "close"])
def test_a_step_that_the_database_refuses_ends_the_run(step: str) -> None:
    """Whichever it is."""
    bench = Bench(*slices(2), limits=WalkLimits(lease_seconds=3))
    bench.takes = lambda _: 5

    def fails(name: str) -> None:
        if name == step:
            raise StoreUnavailable("told")

    bench.store.fails = fails
    with pytest.raises(StoreUnavailable):
        bench.run()


def test_a_ledger_that_is_away_ends_the_run_and_its_walks() -> None:
    """Whoever cannot say that it lives does not go on."""
    bench = Bench(*slices(2))
    bench.alive_fails = LedgerUnavailable("told")
    with pytest.raises(LedgerUnavailable):
        bench.run()
    assert bench.walked == []


def test_stop_ends_a_run_and_walks_give_their_slices_back() -> None:
    """Within a second or two, nothing is leased any more, and what became of the slices is counted."""
    bench = Bench(*slices(30), limits=WalkLimits(6, 6))
    bench.takes = lambda _: 1_000
    bench.stop_at = BEGINNING + 10
    counts = bench.run()
    assert sorted(bench.given_back) == [1, 2, 3, 4, 5, 6]
    assert bench.ended_at <= 10 + 2 * LOOK_SECONDS
    assert counts == Counter({"given_back": 6})


def test_a_walk_that_hears_no_stop_is_abandoned() -> None:
    """It leaves its slice to the lease; the run ends in time all the same."""
    bench = Bench(*slices(3))
    bench.takes = lambda _: 1_000
    bench.deaf = True
    bench.stop_at = BEGINNING + 10
    bench.run()
    assert bench.ended_at <= 10 + LOOK_SECONDS + ABANDON_SECONDS + 1


def test_a_run_that_is_stopped_already_leases_nothing() -> None:
    """Nothing is begun."""
    bench = Bench(*slices(3))
    bench.stop_at = 0
    assert bench.run() == Counter()
    assert bench.store.asked == []


ENDED: dict[str, Any] = {"backfill_id": 1, "failed": 0, "failure": None}


def test_backfills_are_ended_once_their_walks_are() -> None:
    """As soon as a walk ends it is looked at whether a backfill ended with it."""
    bench = Bench(*slices(3))
    bench.store.opened = [ENDED]
    bench.run()
    assert bench.store.opened == []


def test_a_backfill_that_was_over_before_is_ended_by_the_next_run() -> None:
    """Whoever walked its last slice may have died before ending it; no other slice need be due for that."""
    bench = Bench()
    bench.store.opened = [ENDED]
    bench.run()
    assert bench.store.opened == []


def test_a_backfill_that_is_over_while_a_run_ends_is_ended() -> None:
    """A last walk that comes to its end after stop counts as well."""
    bench = Bench(*slices(1))
    bench.takes = lambda _: 6
    bench.deaf = True
    bench.stop_at = BEGINNING + 5
    bench.store.opened = [ENDED]
    bench.run()
    assert bench.walked == [1]
    assert bench.store.opened == []


def test_a_slice_s_parts_are_walked_in_the_same_run() -> None:
    """What comes due while others are walked is found."""
    bench = Bench(*slices(2))
    more = slices(3, first=50)

    def takes(one: ASlice) -> float:
        if one.slice_id == 1:
            bench.store.due += [replace(part, turn=1) for part in more]
            more.clear()
        return 0.5 if one.slice_id == 1 else 3

    bench.takes = takes
    bench.run()
    assert sorted(bench.walked) == [1, 2, 50, 51, 52]


def test_a_run_ends_what_its_walks_ended_at_once_and_looks_through_all_now_and_then() -> None:
    """A process that died between a last slice and its backfill's end leaves that to others, within a minute."""
    bench = Bench(*(ASlice(n, backfill_id=10 * n) for n in (1, 2, 3)), limits=WalkLimits(slices=1))
    bench.takes = lambda one: 61.0 if one.slice_id == 3 else 0.5
    bench.run()
    assert [ids for _, ids in bench.store.closed] == [None, [10], [20], None]
