"""Limits are kept fresh, Page by Page: what befalls one of them costs no other its limit."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.graph import FakeBudget, FakeTokens
from tests.fakes.leads import OTHER_PAGE, PAGE, at
from tests.fakes.time import NOW, FrozenClock
from worker.budget.policy import Answer, Grant, Lane, Limit, Refusal
from worker.errors import (
    GrantLapsed,
    GraphUnavailable,
    LeadSyncError,
    LedgerUnavailable,
    NotVisibleYet,
    PermissionRefused,
    RequestRefused,
    StoreUnavailable,
    Throttled,
    TooMuchAsked,
)
from worker.graph.usage import Usage
from worker.graph.wire import ResultPage
from worker.limits import AT_ONCE, FORMS_LIMIT, MOST_PAGES, LimitAges, LimitKeeper

TOKENLESS = "153125381999"


@dataclass
class FormsGraph:
    """Each Page's forms, as the result pages that it was told to answer; then an empty one. `hangs` until it is set."""

    says: defaultdict[str, deque[Exception | ResultPage]] = field(default_factory=lambda: defaultdict(deque))
    asked: list[tuple[str, str, int, str | None]] = field(default_factory=list)
    hangs: dict[str, asyncio.Event] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0

    async def list_forms(
        self, page_id: str, token: str, grant: Grant, *, limit: int, after: str | None
    ) -> ResultPage:
        self.asked.append((page_id, token, limit, after))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (self.hangs[page_id].wait() if page_id in self.hangs else asyncio.sleep(0))
        finally:
            self.at_once -= 1
        said = self.says[page_id].popleft() if self.says[page_id] else ResultPage((), None, ())
        if isinstance(said, Exception):
            raise said
        return said


@dataclass
class LimitedBudget(FakeBudget):
    """A budget that works limits out; `answers` stand for grants of a Page, `faults` in place of its new limit."""

    answers: dict[str, Answer | LeadSyncError] = field(default_factory=dict)
    faults: dict[str, LeadSyncError] = field(default_factory=dict)
    refreshed: list[str] = field(default_factory=list)

    async def request(self, page_id: str, calls: int, lane: Lane, *, also: tuple[str, ...] = ()) -> Answer:
        said = self.answers.get(page_id)
        if isinstance(said, LeadSyncError):
            raise said
        granted = await super().request(page_id, calls, lane)
        return said or granted

    async def refresh(self, page_id: str) -> Limit:
        if page_id in self.faults:
            raise self.faults[page_id]
        self.refreshed.append(page_id)
        return Limit(1, 1, "floor")


@dataclass
class LimitRows:
    """Pages that are due, with whether their forms are; what was noted of each."""

    due: tuple[tuple[str, bool], ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)
    asking: list[str] = field(default_factory=list)
    kept: defaultdict[str, list[Mapping[str, object]]] = field(default_factory=lambda: defaultdict(list))

    async def stale_limits(
        self, *, before: datetime, forms_before: datetime, most: int
    ) -> tuple[tuple[str, bool], ...]:
        self.asked = {"before": before, "forms_before": forms_before, "most": most}
        return self.due

    async def asking_forms(self, page_id: str, now: datetime) -> None:
        assert now == NOW
        self.asking.append(page_id)

    async def keep_forms(self, page_id: str, forms: Sequence[Mapping[str, object]], now: datetime) -> None:
        assert now == NOW
        self.kept[page_id] += forms


class Bench:
    """A keeper with its neighbours."""

    def __init__(self, *due: str, forms: bool = True) -> None:
        self.graph = FormsGraph()
        self.budget = LimitedBudget()
        self.rows = LimitRows(tuple((page_id, forms) for page_id in due))
        self.stop: Callable[[], bool] = lambda: False
        self.keeper = LimitKeeper(
            graph=self.graph,
            budget=self.budget,
            rows=self.rows,
            tokens=FakeTokens(frozenset({TOKENLESS})),
            ages=LimitAges(timedelta(minutes=15), timedelta(hours=6)),
            clock=FrozenClock(),
        )

    def run(self) -> dict[str, int]:
        return asyncio.run(self.keeper.run(self.stop))

    def counts_of(self, page_id: str = PAGE) -> dict[object, object]:
        """What was noted of each form."""
        return {form["form_id"]: form["leads_count"] for form in self.rows.kept[page_id]}


def forms(*ids: int, after: str | None = None, usages: tuple[Usage, ...] = ()) -> ResultPage:
    """Forms whose leads are as many as their id."""
    return ResultPage(
        tuple(
            {"id": str(n), "status": "ACTIVE", "leads_count": n, "expired_leads_count": n // 2} for n in ids
        ),
        after,
        usages,
    )


def test_pages_that_are_due_get_their_limits() -> None:
    """Limits older than a quarter of an hour and counts older than six hours are due; the limit follows the counts."""
    bench = Bench(PAGE, OTHER_PAGE)
    bench.graph.says[PAGE].append(forms(1, 2))
    assert bench.run()["limits"] == 2
    assert bench.rows.asked == {
        "before": NOW - timedelta(minutes=15),
        "forms_before": NOW - timedelta(hours=6),
        "most": MOST_PAGES,
    }
    assert sorted(bench.budget.refreshed) == [PAGE, OTHER_PAGE]
    assert sorted(bench.rows.asking) == [PAGE, OTHER_PAGE]


def test_nothing_due_is_no_call() -> None:
    """Where every limit is fresh nobody is asked."""
    bench = Bench()
    assert bench.run() == {"limits": 0, "forms": 0}
    assert (bench.graph.asked, bench.budget.refreshed) == ([], [])


def test_meta_is_not_asked_where_its_counts_are_fresh() -> None:
    """A limit can be worked out anew from our own rows without a call."""
    bench = Bench(PAGE, forms=False)
    assert bench.run() == {"limits": 1, "forms": 0}
    assert (bench.graph.asked, bench.budget.asked, bench.rows.asking) == ([], [], [])


def test_forms_are_counted_over_all_result_pages() -> None:
    """Each result page is one call of upkeep, asked for by the cursor before it; even an empty one may go on."""
    usage = Usage(PAGE, "leadgen", 7, 1, 1, 0)
    bench = Bench(PAGE)
    bench.graph.says[PAGE] += [forms(1, 2, after="b"), forms(after="c"), forms(3, usages=(usage,))]
    assert bench.run() == {"limits": 1, "forms": 3}
    token = f"token-of-{PAGE}"
    assert bench.graph.asked == [(PAGE, token, FORMS_LIMIT, after) for after in (None, "b", "c")]
    assert bench.budget.asked == [(PAGE, 1, Lane.UPKEEP)] * 3
    assert bench.budget.usages == [(PAGE, ()), (PAGE, ()), (PAGE, (usage,))]
    assert bench.counts_of() == {"1": 1, "2": 2, "3": 3}
    assert bench.rows.kept[PAGE][2] == {
        "form_id": "3",
        "status": "ACTIVE",
        "leads_count": 3,
        "expired_leads_count": 1,
    }


@pytest.mark.parametrize(
    ("told", "count"),
    [
        (0, 0),
        (7, 7),
        ("7", 7),
        (2**53 - 1, 2**53 - 1),
        (2**53, None),
        ("9" * 15, int("9" * 15)),
        ("9" * 16, None),
        ("9" * 5_000, None),
        (-1, None),
        (True, None),
        (7.0, None),
        ("", None),
        ("-7", None),
        ("\u0667", None),
        (None, None),
        ([7], None),
    ],
)
def test_a_count_that_is_none_is_not_known(told: object, count: int | None) -> None:
    """What Meta says of a form is noted where it is a sane number; its neighbours are counted in any case."""
    bench = Bench(PAGE)
    odd = {"id": "1", "leads_count": told, "expired_leads_count": told}
    bench.graph.says[PAGE].append(ResultPage((odd, {"id": "2", "leads_count": 5}), None, ()))
    assert bench.run() == {"limits": 1, "forms": 2}
    first, second = bench.rows.kept[PAGE]
    assert (first["leads_count"], first["expired_leads_count"]) == (count, count or 0)
    assert (second["leads_count"], second["expired_leads_count"], second["status"]) == (5, 0, None)


@settings(deadline=None)
@given(
    st.lists(
        st.none()
        | st.integers()
        | st.text(max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "status", "leads_count", "expired_leads_count"]),
            st.none() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.none()),
        ),
        max_size=5,
    )
)
def test_no_entry_raises(entries: list[object]) -> None:
    """Whatever stands in a listing of forms, what is noted has an id and counts that a row can hold."""
    bench = Bench(PAGE)
    bench.graph.says[PAGE].append(ResultPage((*entries, {"id": "9", "leads_count": 5}), None, ()))
    assert bench.run()["limits"] == 1
    assert bench.counts_of()["9"] == 5
    for form in bench.rows.kept[PAGE]:
        assert str(form["form_id"]).isdigit()
        assert form["leads_count"] is None or 0 <= int(str(form["leads_count"])) < 2**53
        assert 0 <= int(str(form["expired_leads_count"])) < 2**53


ERRORS = [
    GraphUnavailable("told"),
    PermissionRefused("told"),
    RequestRefused("told"),
    NotVisibleYet("told"),
    GrantLapsed("told"),
    Throttled("told", until=at(9), scope="page", regain=timedelta(minutes=3)),
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_page_that_cannot_be_asked_harms_no_other(error: LeadSyncError) -> None:
    """One Page's error ends its own counting, which keeps what came before; it has its limit like the others."""
    bench = Bench(PAGE, OTHER_PAGE)
    bench.graph.says[PAGE] += [forms(1, after="b"), error, forms(3)]
    bench.graph.says[OTHER_PAGE] += [forms(5, after="b"), forms(6)]
    assert bench.run()["limits"] == 2
    assert (set(bench.counts_of()), set(bench.counts_of(OTHER_PAGE))) == ({"1"}, {"5", "6"})
    assert sorted(bench.budget.refreshed) == [PAGE, OTHER_PAGE]
    told = [(PAGE, "page", timedelta(minutes=3))] if isinstance(error, Throttled) else []
    assert bench.budget.closed == told


def test_a_refused_grant_ends_the_counting_of_its_page_only() -> None:
    """Where the budget grants upkeep nothing Meta is not asked, and our own rows give the limit."""
    bench = Bench(PAGE, OTHER_PAGE)
    bench.budget.answers[PAGE] = Refusal(at(60), "budget")
    bench.graph.says[OTHER_PAGE].append(forms(5))
    assert bench.run()["limits"] == 2
    assert bench.counts_of(OTHER_PAGE) == {"5": 5}
    assert {page_id for page_id, *_ in bench.graph.asked} == {OTHER_PAGE}
    assert sorted(bench.budget.refreshed) == [PAGE, OTHER_PAGE]


def test_a_page_without_a_token_is_not_asked() -> None:
    """No call is made without a token, and the Page has its limit all the same."""
    bench = Bench(TOKENLESS)
    assert bench.run() == {"limits": 1, "forms": 0}
    assert bench.graph.asked == []


def test_result_pages_that_are_too_large_are_halved() -> None:
    """Graph's wish for less is met at once and from the same place; a single form that is too much ends it."""
    bench = Bench(PAGE)
    bench.graph.says[PAGE] += [forms(1, after="b"), TooMuchAsked("t"), forms(2, after="c"), forms(3)]
    assert bench.run() == {"limits": 1, "forms": 3}
    asked = [(limit, after) for _, _, limit, after in bench.graph.asked]
    assert asked == [
        (FORMS_LIMIT, None),
        (FORMS_LIMIT, "b"),
        (FORMS_LIMIT // 2, "b"),
        (FORMS_LIMIT // 2, "c"),
    ]
    never = Bench(PAGE)
    never.graph.says[PAGE] += [TooMuchAsked("t")] * 50
    assert never.run() == {"limits": 1, "forms": 0}
    assert [limit for _, _, limit, _ in never.graph.asked] == [100, 50, 25, 12, 6, 3, 1]


@pytest.mark.parametrize("away", [LedgerUnavailable("told"), StoreUnavailable("told")])
@pytest.mark.parametrize("where", ["answers", "faults"])
def test_without_redis_or_postgres_the_run_ends(away: LeadSyncError, where: str) -> None:
    """A neighbour that is away is told and not taken for a Page's trouble."""
    bench = Bench(PAGE)
    getattr(bench.budget, where)[PAGE] = away
    with pytest.raises(ExceptionGroup) as told:
        bench.run()
    assert told.value.exceptions == (away,)


def test_a_hanging_page_holds_up_no_other() -> None:
    """While some Pages' calls hang all others have their limits; at most so many are looked after at once."""
    pages = [str(n) for n in range(1, 31)]
    bench = Bench(*pages)

    async def scenario() -> None:
        hangs = asyncio.Event()
        bench.graph.hangs = dict.fromkeys(pages[: AT_ONCE - 1], hangs)
        running = asyncio.ensure_future(bench.keeper.run(lambda: False))
        while len(bench.budget.refreshed) < len(pages) - (AT_ONCE - 1):
            assert not running.done()
            await asyncio.sleep(0)
        assert set(bench.budget.refreshed) == set(pages[AT_ONCE - 1 :])
        hangs.set()
        assert await running == {"limits": 30, "forms": 0}

    asyncio.run(asyncio.wait_for(scenario(), 10))
    assert bench.graph.most_at_once == AT_ONCE


def test_a_run_tells_how_many_forms_it_counted() -> None:
    """The counts are those of all Pages together, though several are looked after at once."""
    bench = Bench(PAGE, OTHER_PAGE)
    bench.graph.says[PAGE].append(forms(1, 2))
    bench.graph.says[OTHER_PAGE].append(forms(5))
    assert bench.run() == {"limits": 2, "forms": 3}


def test_a_stop_leaves_the_rest_for_the_next_run() -> None:
    """Told to stop, nobody begins with another Page."""
    bench = Bench(*(str(n) for n in range(1, 31)))
    bench.stop = lambda: len(bench.budget.refreshed) >= 3
    assert 3 <= bench.run()["limits"] < 3 + AT_ONCE
