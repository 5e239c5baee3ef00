"""Walking a slice: it ends where Meta's listing ends, writes each lead once, and always says what became of it."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.backfills import DAY, SECOND, Asked, ASlice, FakeRows, SpanGraph, after_now, spread
from tests.fakes.graph import FakeBudget, FakeTokens, answered
from tests.fakes.leads import FORM, OTHER_PAGE, PAGE
from tests.fakes.time import NOW, FrozenClock
from worker.asks import RESULT_PAGE_LIMIT
from worker.budget.policy import Lane, Refusal
from worker.errors import (
    AnswerTooLarge,
    GrantLapsed,
    GraphUnavailable,
    LeadSyncError,
    LedgerUnavailable,
    NotVisibleYet,
    PermissionRefused,
    ProofRefused,
    RequestRefused,
    StoreUnavailable,
    Throttled,
    TokenRefused,
    TooMuchAsked,
)
from worker.giving_way import Turns
from worker.graph.usage import Usage
from worker.outcomes import DeadLetter, RetryPolicy, Stored
from worker.sealing import KeysUnreadable
from worker.slices import Slice
from worker.walking import (
    LAPSES,
    LEDGER_AGAIN,
    REDUCED_FOR,
    REFUSALS_TO_REDUCE,
    RENEWALS,
    RESTARTS,
    SliceWalker,
)

HOUR = Slice(SECOND - 3_600, SECOND)
WORDS = {"done", "divided", "failed", "put_off", "parked", "refused", "given_back", "taken_away"}


class Bench:
    """A walker with its neighbours."""

    def __init__(
        self, leads: dict[str, int] | None = None, *, others: Sequence[str] = (), **told: Any
    ) -> None:
        self.clock = FrozenClock()
        self.graph = SpanGraph(leads if leads is not None else {}, **told)
        self.budget = FakeBudget()
        self.rows = FakeRows(self.clock)
        self.stop: Callable[[], bool] = lambda: False
        self.walker: SliceWalker[ASlice] = SliceWalker(
            graph=self.graph,
            budget=self.budget,
            store=self.rows,
            tokens=FakeTokens(frozenset({OTHER_PAGE}), {PAGE: list(others)}),
            policy=RetryPolicy(),
            clock=self.clock,
            dice=lambda: 0.5,
            stop=lambda: self.stop(),
            turns=Turns(1, time.monotonic),
        )

    def faults(self, *faults: Exception | None) -> "Bench":
        """Graph raises these in turn; None lets a call through."""
        queue = deque(faults)
        self.graph.faults = lambda _: queue.popleft() if queue else None
        return self

    async def walking(self, slice_id: int = 1) -> str:
        word = await self.walker.walk(self.rows.lease(slice_id))
        row = self.rows.rows[slice_id]
        assert word in WORDS
        assert not row.leased, f"the slice is held though the walk said {word}"
        ends = {"done": "done", "divided": "divided", "failed": "failed"}
        assert word == "taken_away" or row.state == ends.get(word, "waiting")
        return word

    def walk(self, one: ASlice | None = None) -> str:
        """Walk this slice, by default an hour of the form's; what became of it."""
        one = one or ASlice(span=HOUR)
        if one.slice_id not in self.rows.rows:
            self.rows.add(one)
        word = asyncio.run(self.walking(one.slice_id))
        assert self.rows.calls == len(self.graph.asked), "calls are not counted exactly"
        assert len(self.graph.asked) <= len(self.budget.asked)
        assert {lane for _, _, lane in self.budget.asked} <= {Lane.BACKFILL}
        return word

    def walk_all(self, most: int = 300) -> None:
        """Walk until no slice waits; the clock moves to when the next one is due."""
        for _ in range(most):
            waiting = sorted(self.rows.waiting(), key=lambda row: (row.due_at, row.one.slice_id))
            if not waiting:
                return
            self.clock.now = max(self.clock.now, waiting[0].due_at)
            self.walk(waiting[0].one)
        raise AssertionError(f"slices still wait after {most} walks")

    @property
    def row(self) -> Any:
        return self.rows.rows[1]

    @property
    def stored(self) -> set[str]:
        return {i for i, outcome in self.rows.leads.items() if isinstance(outcome, Stored)}


def in_turns(*sizes: int) -> Callable[[], int]:
    """Sizes of result pages, then large ones."""
    queue = deque(sizes)
    return lambda: queue.popleft() if queue else 10_000


def some(count: int, span: Slice = HOUR) -> dict[str, int]:
    return spread(count, span.since, span.until)


@pytest.mark.parametrize("order", ["newest", "oldest", "shuffled"])
@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1_700])
def test_a_walk_brings_every_lead_of_its_slice(order: str, count: int) -> None:
    """Whatever the order, all leads of [since, until) become rows and no other."""
    leads = some(count)
    bench = Bench(leads | {"9000001": HOUR.since - 1, "9000002": HOUR.until}, order=order)
    assert bench.walk() == "done"
    assert bench.stored == set(leads)
    assert len(bench.graph.asked) == max(1, -(-count // RESULT_PAGE_LIMIT))


def test_only_an_absent_next_ends_a_walk() -> None:
    """Short result pages go on, and empty ones too, the first one as well."""
    bench = Bench(some(20), sizes=in_turns(0, 3, 0, 0, 1, 0))
    assert bench.walk() == "done"
    assert len(bench.stored) == 20
    assert len(bench.graph.asked) == 7


def test_nothing_is_asked_without_a_grant() -> None:
    """A call is made under one grant of its own, in the lane of backfills; each answer is told to the budget."""
    bench = Bench(some(1_200))
    bench.walk()
    assert bench.budget.asked == [(PAGE, 1, Lane.BACKFILL)] * 3
    assert len(bench.budget.usages) == 3


def test_leads_that_appear_or_vanish_meanwhile_disturb_no_other() -> None:
    """Those that stood there all along are all stored, whatever came and went between result pages."""
    leads = some(40)
    bench = Bench(dict(leads), sizes=lambda: 7)
    gone = iter(["5", "33", "20"])
    news = iter(range(8_000, 9_000))

    def between() -> None:
        bench.graph.leads.pop(next(gone, ""), None)
        bench.graph.leads[str(next(news))] = HOUR.since + 1_800

    bench.graph.between = between
    assert bench.walk() == "done"
    assert set(leads) - {"5", "33", "20"} <= bench.stored


@pytest.mark.parametrize("error", [RequestRefused("told"), NotVisibleYet("told")])
def test_a_refused_cursor_begins_the_walk_anew(error: Exception) -> None:
    """A cursor cannot be kept: the walk goes back to its first result page, at once and counting no attempt."""
    bench = Bench(some(30), sizes=lambda: 10).faults(None, None, error)
    assert bench.walk() == "done"
    assert [asked.after is None for asked in bench.graph.asked] == [True, False, False, True, False, False]
    assert bench.row.one.attempts == 0
    assert len(bench.stored) == 30


def test_a_cursor_that_is_refused_again_and_again_is_a_failure() -> None:
    """After so many new beginnings the slice waits, with one attempt counted."""
    faults = [fault for _ in range(RESTARTS + 1) for fault in (None, RequestRefused("told"))]
    bench = Bench(some(30), sizes=lambda: 10).faults(*faults)
    assert bench.walk() == "put_off"
    assert (bench.row.one.attempts, bench.row.reason) == (1, "request_refused")


def test_a_cursor_whose_lead_vanished_loses_no_lead() -> None:
    """Where Meta refuses the cursor of a lead that is gone, the walk begins anew and stores the others."""
    leads = some(40)
    bench = Bench(dict(leads), sizes=lambda: 10, stale=True)
    gone = iter(["31"])
    bench.graph.between = lambda: bench.graph.leads.pop(next(gone, ""), None)
    assert bench.walk() == "done"
    assert set(leads) - {"31"} <= bench.stored


def test_a_walk_asks_for_less_where_less_is_wanted() -> None:
    """The limit is halved at once until Graph answers, and nothing is lost; no attempt is counted."""
    bench = Bench(some(300), at_most=100)
    assert bench.walk() == "done"
    assert [asked.limit for asked in bench.graph.asked] == [500, 250, 125, 62, 62, 62, 62, 62]
    assert len(bench.stored) == 300


def test_a_form_that_wants_to_be_asked_for_less_than_one_lead_is_put_off() -> None:
    """There is nothing smaller than one: that counts an attempt."""
    bench = Bench(some(3), at_most=0)
    assert bench.walk() == "put_off"
    assert bench.row.one.attempts == 1


def side_by_side(count: int) -> list[ASlice]:
    seconds = 3_600 // count
    return [
        ASlice(n + 1, span=Slice(HOUR.since + n * seconds, HOUR.since + (n + 1) * seconds))
        for n in range(count)
    ]


def walk_side_by_side(bench: Bench, count: int = 8) -> list[str]:
    bench.rows.add(*side_by_side(count))

    async def all_at_once() -> list[str]:
        return list(await asyncio.gather(*(bench.walking(n + 1) for n in range(count))))

    return asyncio.run(all_at_once())


def test_walks_side_by_side_halve_what_they_ask_for_once() -> None:
    """Eight walks of a form that learn at the same time that 500 are too many do not end at one lead a call."""
    bench = Bench(some(800), at_most=300)
    walk_side_by_side(bench)
    assert min(asked.limit for asked in bench.graph.asked) >= 125
    assert len(bench.stored) == 800


def refuses_full(asked: Asked) -> Exception | None:
    return PermissionRefused("told") if asked.full else None


def test_a_page_that_refuses_ad_fields_is_listed_without_them() -> None:
    """The walk begins anew with fewer fields, and its leads say that they are in part."""
    bench = Bench(some(5), refuses=refuses_full)
    assert bench.walk() == "done"
    assert [asked.full for asked in bench.graph.asked] == [True, False]
    assert all(isinstance(o, Stored) and o.lead.in_part for o in bench.rows.leads.values())
    assert bench.rows.parked == {}


def test_walks_side_by_side_of_a_page_that_refuses_ad_fields_all_go_on_without_them() -> None:
    """A refusal that was under way while another walk learned of it says nothing of the reduced fields."""
    bench = Bench(some(80), refuses=refuses_full)
    assert walk_side_by_side(bench) == ["done"] * 8
    assert len(bench.stored) == 80


def test_a_refusal_that_passes_costs_no_other_walk_its_ad_fields() -> None:
    """One walk met a moment's refusal: it alone is in part, and the next one brings all."""
    bench = Bench(some(5))
    bench.faults(PermissionRefused("told"))
    assert bench.walk() == "done"
    assert {o.lead.in_part for o in bench.rows.leads.values() if isinstance(o, Stored)} == {True}
    assert bench.walk(ASlice(2, span=HOUR)) == "done"
    assert [asked.full for asked in bench.graph.asked] == [True, False, True]


def test_a_permission_that_was_away_for_all_fields_leaves_no_trace_in_the_next_walk() -> None:
    """Full and reduced fields refused says nothing of ad fields, however often."""
    bench = Bench(some(5))
    for slice_id in range(1, 6):
        bench.faults(PermissionRefused("told"), PermissionRefused("told"))
        assert bench.walk(ASlice(slice_id, span=HOUR)) == "put_off"
    bench.faults()
    assert bench.walk(ASlice(9, span=HOUR)) == "done"
    assert {o.lead.in_part for o in bench.rows.leads.values() if isinstance(o, Stored)} == {False}


def test_a_page_that_keeps_refusing_ad_fields_is_asked_for_them_again_after_a_while() -> None:
    """Three walks in a row settle it for all others, for minutes; then the full fields are tried once more."""
    bench = Bench(some(5), refuses=refuses_full)
    for slice_id in range(1, REFUSALS_TO_REDUCE + 3):
        assert bench.walk(ASlice(slice_id, span=HOUR)) == "done"
    assert [asked.full for asked in bench.graph.asked] == [True, False] * REFUSALS_TO_REDUCE + [False, False]
    bench.clock.move(REDUCED_FOR.total_seconds())
    bench.graph.refuses = lambda _: None
    assert bench.walk(ASlice(50, span=HOUR)) == "done"
    assert bench.graph.asked[-1].full


def test_a_lead_is_in_part_by_the_fields_that_were_asked_for() -> None:
    """What was asked for without ad fields stays in part though the time for which they are left out ends meanwhile."""
    bench = Bench(some(5), refuses=refuses_full)

    def between() -> None:
        if not bench.graph.asked[-1].full:
            bench.clock.move(REDUCED_FOR.total_seconds())

    bench.graph.between = between
    bench.walk()
    assert all(isinstance(o, Stored) and o.lead.in_part for o in bench.rows.leads.values())


def test_what_was_read_in_full_is_not_in_part() -> None:
    """That another walk of the Page was refused its ad fields meanwhile takes none from a full answer."""
    bench = Bench(some(40), sizes=lambda: 5)
    faults = iter([None, PermissionRefused("told")])
    bench.graph.faults = lambda asked: next(faults, None) if asked.full else None
    walk_side_by_side(bench, 2)
    told = {i: o.lead for i, o in bench.rows.leads.items() if isinstance(o, Stored)}
    assert {i for i, lead in told.items() if lead.in_part != (lead.ad_id is None)} == set()


def test_a_permission_refused_with_fewer_fields_too_puts_off_the_slice_alone() -> None:
    """It may be the form's alone: an hour later again, an attempt counted, the Page not parked."""
    bench = Bench(some(5), refuses=lambda _: PermissionRefused("told"))
    assert bench.walk() == "put_off"
    assert [asked.full for asked in bench.graph.asked] == [True, False]
    assert (bench.row.due_at, bench.row.one.attempts) == (after_now(3_600), 1)
    assert (bench.rows.parked, bench.rows.pages_put_off) == ({}, [])


@pytest.mark.parametrize("error", [TokenRefused("told"), ProofRefused("told")])
def test_a_refused_token_parks_the_page(error: LeadSyncError) -> None:
    """The slice waits with it and no attempt is counted."""
    bench = Bench(some(5)).faults(error)
    assert bench.walk() == "parked"
    assert bench.rows.parked == {PAGE: error.reason}
    assert bench.row.one.attempts == 0


def test_a_page_without_a_token_is_parked_and_costs_no_call() -> None:
    """Nothing is asked, so no call is counted."""
    bench = Bench(some(5))
    assert bench.walk(ASlice(page_id=OTHER_PAGE, span=HOUR)) == "parked"
    assert bench.graph.asked == []


@pytest.mark.parametrize("scope", ["page", "app", "user", "ad_account"])
@pytest.mark.parametrize("at_result_page", [0, 1])
def test_a_throttle_puts_off_the_page_and_counts_no_attempt(scope: str, at_result_page: int) -> None:
    """The budget says until when; the Page's other slices wait as long."""
    bench = Bench(some(30), sizes=lambda: 10)
    bench.faults(*[None] * at_result_page, Throttled("told", until=after_now(9), scope=scope))
    bench.rows.add(ASlice(1, span=HOUR, attempts=2), ASlice(2, span=HOUR))
    assert bench.walk(bench.rows.rows[1].one) == "refused"
    until = NOW + timedelta(minutes=5)
    assert bench.rows.pages_put_off == [(PAGE, until, f"throttled_{scope}")]
    assert (bench.row.due_at, bench.rows.rows[2].due_at) == (until, until)
    assert bench.row.one.attempts == 2
    assert [closed[:2] for closed in bench.budget.closed] == [(PAGE, scope)]


def test_a_throttle_of_an_ad_s_listing_holds_up_nothing_else_of_its_page() -> None:
    """Meta meters it by the ad account, and the Page's other calls by the Page."""
    bench = Bench(some(3)).faults(Throttled("told", until=after_now(9), scope="ad_account"))
    bench.rows.add(ASlice(1, edge="ad", span=HOUR), ASlice(2, span=HOUR))
    assert bench.walk(bench.rows.rows[1].one) == "refused"
    assert [closed[:2] for closed in bench.budget.closed] == [(PAGE, "ad")]
    assert bench.rows.pages_put_off == []
    assert bench.rows.rows[2].due_at == NOW


def test_what_meta_says_of_an_ad_account_closes_the_ad_alone() -> None:
    """Beside an ad's listing it is told to no scope in which the Page's other calls fall."""
    spent, page = Usage("77", "ads_management", 100, 1, 1, 0), Usage(PAGE, "leadgen", 3, 1, 1, 0)
    bench = Bench(some(3))
    list_leads = bench.graph.list_leads

    async def told(*asked: Any, **named: Any) -> Any:
        return replace(await list_leads(*asked, **named), usages=(spent, page))

    bench.graph.list_leads = told  # type: ignore[method-assign]
    assert bench.walk(ASlice(1, edge="ad", span=HOUR)) == "done"
    assert bench.budget.usages == [(PAGE, (page,))]
    assert [closed[:2] for closed in bench.budget.closed] == [(PAGE, "ad")]


def test_a_throttle_that_cannot_be_noted_holds_until_meta_s_own_time() -> None:
    """A ledger that is away costs the note and nothing else."""
    bench = Bench(some(3)).faults(Throttled("told", until=after_now(77), scope="page"))
    bench.budget.fails_to_close = LedgerUnavailable("told")
    assert bench.walk() == "refused"
    assert bench.row.due_at == after_now(77)


def test_a_refusal_of_the_budget_puts_off_the_page_s_other_slices() -> None:
    """Nothing is asked, nothing counted, and nobody else of the Page asks in vain."""
    bench = Bench(some(3))
    bench.budget.says.append(Refusal(after_now(50), "budget"))
    bench.rows.add(ASlice(1, span=HOUR, attempts=3), ASlice(2, span=HOUR), ASlice(3, page_id="77", span=HOUR))
    assert bench.walk(bench.rows.rows[1].one) == "refused"
    dues = [bench.rows.rows[n].due_at for n in (1, 2, 3)]
    assert dues == [after_now(50), after_now(50), NOW]
    assert bench.row.one.attempts == 3
    assert bench.graph.asked == []


def test_a_ledger_that_is_away_puts_the_slice_off() -> None:
    """Without a grant there is no call; it is tried again soon and counts nothing."""
    bench = Bench(some(3))
    bench.budget.says.append(LedgerUnavailable("told"))
    assert bench.walk() == "put_off"
    assert bench.row.due_at == NOW + LEDGER_AGAIN
    assert bench.row.one.attempts == 0


def test_a_key_file_that_cannot_be_read_puts_the_slice_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one Page's token that cannot be opened: the walks of the others go on."""
    bench = Bench(some(3))

    async def unreadable(_: FakeTokens, page_id: str) -> str:
        raise KeysUnreadable("told")

    monkeypatch.setattr(FakeTokens, "token_for", unreadable)
    assert bench.walk() == "put_off"
    assert bench.row.due_at == NOW + LEDGER_AGAIN
    assert bench.row.one.attempts == 0


def test_a_database_that_is_away_ends_the_walk() -> None:
    """Nothing can be told of the slice, so its lease runs out."""
    for step in ("write", "finish"):
        bench = Bench(some(3))

        def fails(name: str, step: str = step) -> None:
            if name == step:
                raise StoreUnavailable("told")

        bench.rows.fails = fails
        bench.rows.add(ASlice(span=HOUR))
        with pytest.raises(StoreUnavailable):
            asyncio.run(bench.walking())


@pytest.mark.parametrize("lapses", [1, LAPSES])
def test_a_grant_that_ran_out_is_asked_for_again(lapses: int) -> None:
    """Nothing was sent, so nothing is counted."""
    bench = Bench(some(3)).faults(*[GrantLapsed("told")] * lapses)
    assert bench.walk() == "done"
    assert bench.rows.calls == 1


def test_grants_that_run_out_again_and_again_put_the_slice_off() -> None:
    """A machine too slow to use its grants tries again later."""
    bench = Bench(some(3)).faults(*[GrantLapsed("told")] * (LAPSES + 1))
    assert bench.walk() == "put_off"
    assert bench.rows.calls == 0


def test_a_graph_that_is_away_is_asked_again_later_and_in_the_end_no_more() -> None:
    """Attempts in a row are counted; the last one fails the slice."""
    bench = Bench(some(3))
    bench.graph.faults = lambda _: GraphUnavailable("told")
    bench.rows.add(ASlice(span=HOUR))
    bench.walk_all()
    assert len(bench.graph.asked) == RetryPolicy().transient_attempts
    assert (bench.row.state, bench.row.reason) == ("failed", "graph_unavailable")


def test_time_outs_do_not_shorten_the_patience_with_another_failure() -> None:
    """Failures are counted by their kind, as a reference's are: two time-outs and one odd refusal fail no slice."""
    bench = Bench(some(3)).faults(
        GraphUnavailable("told"), GraphUnavailable("told"), NotVisibleYet("told"), None
    )
    bench.rows.add(ASlice(span=HOUR))
    bench.walk_all()
    assert bench.row.state == "done"


def test_entries_that_are_no_leads_are_passed_over_and_repeated_ones_written_once() -> None:
    """The readable leads of a result page become rows whatever stands beside them."""

    def entries(leadgen_id: str, entry: dict[str, Any]) -> list[object]:
        odd: list[object] = [None, 7, "text", [], {}, {"id": None}, {"id": 5}, {"id": "x1"}, {"id": "000"}]
        return [*odd, entry, entry, {**entry, "field_data": "odd"}, {"id": "1" * 33}]

    bench = Bench(some(12), sizes=lambda: 5, entries=entries)
    assert bench.walk() == "done"
    assert bench.stored == set(some(12))


def test_a_lead_that_is_not_understood_is_a_dead_letter() -> None:
    """It keeps its id, and the others are stored."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    bench = Bench(some(3), entries=lambda i, e: [{**e, "field_data": deep} if i == "2" else e])
    assert bench.walk() == "done"
    assert isinstance(bench.rows.leads["2"], DeadLetter)
    assert bench.stored == {"1", "3"}


@pytest.mark.parametrize("after", range(5))
def test_a_walk_that_is_stopped_gives_its_slice_back(after: int) -> None:
    """At any moment: due at once, no attempt counted, what was brought kept."""
    bench = Bench(some(40), sizes=lambda: 10)
    bench.stop = lambda: len(bench.graph.asked) >= after
    assert bench.walk() == ("given_back" if after < 4 else "done")
    assert len(bench.stored) == 10 * after
    if after < 4:
        assert (bench.row.due_at, bench.row.one.attempts) == (NOW, 0)


def test_a_slice_that_another_has_taken_is_left_to_it() -> None:
    """What was brought is written; nothing more is asked or told."""
    bench = Bench(some(40), sizes=lambda: 10)
    bench.rows.taken_away = lambda: True
    assert bench.walk() == "taken_away"
    assert bench.rows.steps == ["write"]


def test_a_dense_slice_is_divided_and_its_parts_bring_every_lead() -> None:
    """No lead is lost by dividing, whatever the order."""
    span = Slice(SECOND - DAY, SECOND)
    for order, count in (("newest", 31_000), ("shuffled", 21_000)):
        bench = Bench(some(count, span), order=order)
        bench.rows.add(ASlice(span=span))
        bench.walk_all()
        assert "divide" in bench.rows.steps
        assert len(bench.stored) == count


def test_a_cursor_that_leads_back_to_itself_does_not_hold_a_walk_for_ever() -> None:
    """The listing of forms ends there too: the walk stops asking and counts a failure."""
    bench = Bench(some(5), sizes=lambda: 0, loops=True)
    bench.stop = lambda: len(bench.graph.asked) > 200
    bench.walk()
    assert len(bench.graph.asked) <= 200


def test_what_a_reference_says_is_what_the_slice_is() -> None:
    """Its source tells backfilling from reconciling; nobody asked for it by name."""
    for purpose, source in (("backfill", "backfill"), ("reconcile", "reconcile"), ("deep", "reconcile")):
        bench = Bench(some(1))
        bench.walk(ASlice(span=HOUR, purpose=purpose))
        (reference,) = bench.rows.references.values()
        assert (reference.source, reference.form_id, reference.unasked) == (source, FORM, True)


FAULTS = st.sampled_from(
    [
        *[None] * 10,
        GraphUnavailable("told"),
        TokenRefused("told"),
        PermissionRefused("told"),
        RequestRefused("told"),
        NotVisibleYet("told"),
        Throttled("told", until=after_now(9), scope="page"),
        Throttled("told", until=after_now(9), scope="app"),
        TooMuchAsked("told"),
        GrantLapsed("told"),
    ]
)
REFUSALS = st.sampled_from([*[None] * 8, Refusal(after_now(5), "budget"), LedgerUnavailable("told")])


@settings(max_examples=150)
@given(st.data())
def test_whatever_happens_every_slice_comes_to_an_end_and_no_lead_is_lost(data: st.DataObject) -> None:
    """Faults, refusals and stops in any order: calls counted exactly, and a slice that is done brought all leads."""
    leads = some(data.draw(st.integers(0, 60)))
    bench = Bench(
        dict(leads),
        order=data.draw(st.sampled_from(["newest", "oldest", "shuffled"])),
        sizes=in_turns(*data.draw(st.lists(st.integers(0, 20), max_size=20))),
    )
    faults = deque(data.draw(st.lists(FAULTS, max_size=25)))
    stops = deque(data.draw(st.lists(st.sampled_from([False] * 6 + [True]), max_size=30)))
    bench.graph.faults = lambda _: faults.popleft() if faults else None
    bench.budget.says.extend(r for r in data.draw(st.lists(REFUSALS, max_size=10)) if r is not None)
    bench.stop = lambda: stops.popleft() if stops else False
    vanish = iter(data.draw(st.lists(st.sampled_from([*leads, "", ""]), max_size=5)))
    gone: set[str] = set()

    def between() -> None:
        gone.add(leadgen_id := next(vanish, ""))
        bench.graph.leads.pop(leadgen_id, None)

    bench.graph.between = between
    bench.graph.stale = data.draw(st.booleans())
    bench.rows.add(ASlice(span=HOUR))
    bench.walk_all()
    if bench.row.state == "done":
        assert set(leads) - gone <= bench.stored
    assert Counter(bench.rows.steps)["finish"] <= 1


@settings(max_examples=40)
@given(st.integers(1, 8), st.integers(0, 200), st.lists(st.integers(0, 30), min_size=1, max_size=6))
def test_walks_side_by_side_disturb_each_other_nowhere(walks: int, count: int, sizes: Iterable[int]) -> None:
    """Slices of one form that are walked at the same time bring all leads between them."""
    kept = [*sizes, 10]
    turn = iter(range(10**6))
    bench = Bench(some(count), sizes=lambda: kept[next(turn) % len(kept)])
    words = walk_side_by_side(bench, walks)
    assert words == ["done"] * walks
    covered = [replace(s).span for s in side_by_side(walks)]
    assert bench.stored == {
        i for i, at in some(count).items() if any(s.since <= at < s.until for s in covered)
    }


def test_a_refused_token_with_another_in_its_place_costs_one_call() -> None:
    """The walk goes on under the other token, and nothing is parked."""
    bench = Bench({"1": SECOND - 5}, others=["mended"]).faults(TokenRefused("told"))
    assert bench.walk() == "done"
    assert (len(bench.graph.asked), bench.stored) == (2, {"1"})


def test_a_refused_token_with_none_in_its_place_parks_after_one_call() -> None:
    """The slice waits for its Page."""
    bench = Bench({"1": SECOND - 5}).faults(*[TokenRefused("told")] * 9)
    assert bench.walk() == "parked"
    assert len(bench.graph.asked) == 1


def test_tokens_that_are_refused_one_after_the_other_come_to_an_end() -> None:
    """However often there is another token, a walk goes on twice at most."""
    bench = Bench({"1": SECOND - 5}, others=[f"token {n}" for n in range(50)]).faults(
        *[TokenRefused("told")] * 50
    )
    assert bench.walk() == "parked"
    assert len(bench.graph.asked) == 1 + RENEWALS


def test_a_lead_that_is_too_large_to_be_listed_is_dead_by_its_id_and_the_walk_goes_on() -> None:
    """Its own row says so, those behind it are listed in usual numbers, and it costs few calls."""
    leads = some(600)
    bench = Bench(leads, huge=frozenset({"33"}))
    assert bench.walk() == "done"
    assert bench.stored == set(leads) - {"33"}
    assert bench.rows.leads["33"] == DeadLetter("answer_too_large")
    assert len(bench.graph.asked) < 25
    assert bench.graph.asked[-1].limit == RESULT_PAGE_LIMIT
    assert bench.row.one.attempts == 0


def test_several_leads_that_are_too_large_are_each_dead_for_themselves() -> None:
    """The first or the last of its slice, or next to another."""
    leads = some(30)
    bench = Bench(leads, huge=frozenset({"1", "12", "13", "30"}), order="oldest")
    assert bench.walk() == "done"
    assert bench.stored == set(leads) - bench.graph.huge


def test_a_listing_that_is_too_large_even_for_an_id_comes_to_an_end() -> None:
    """The slice fails for that reason after as many walks as for any failure, each of few calls."""
    bench = Bench(some(3), refuses=lambda _: AnswerTooLarge("told"))
    bench.rows.add(ASlice(span=HOUR))
    bench.walk_all()
    assert (bench.row.state, bench.row.reason) == ("failed", "answer_too_large")
    assert len(bench.graph.asked) <= RetryPolicy().transient_attempts * 11


def test_the_full_fields_are_asked_for_again_behind_a_lead_that_is_too_large() -> None:
    """One lead's size says nothing of how others are read."""
    bench = Bench(some(30), huge=frozenset({"12"}), order="oldest")
    bench.walk()
    assert not any(o.lead.in_part for o in bench.rows.leads.values() if isinstance(o, Stored))


@pytest.mark.parametrize("scope", ["page", "ad_account"])
def test_a_throttled_listing_hands_its_usage_on(scope: str) -> None:
    """By it the budget knows which ad account is meant."""
    usage = Usage("777", "ads_management", 100, 1, 1, 20)
    bench = Bench(some(3)).faults(answered(Throttled("told", until=NOW, scope=scope), usage))
    bench.walk()
    assert bench.budget.closed_with == [(usage,)]


@pytest.mark.parametrize("error", [PermissionRefused("t"), NotVisibleYet("t"), TooMuchAsked("t")])
def test_a_listing_that_is_refused_is_heard_before_the_next_is_asked_for(error: LeadSyncError) -> None:
    """A scope on trial grants nothing until its answer is told, and any answer but a throttle tells it."""
    bench = Bench(some(3)).faults(answered(error))
    bench.walk()
    assert bench.budget.usages[0] == (PAGE, ())
    assert len(bench.budget.usages) == len(bench.budget.asked)
