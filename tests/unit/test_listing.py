"""Listing a form: many leads a call, an end in time, and nobody lost between the listing and the ids."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.graph import FakeBudget, FakeGraph, FakeTokens, FormGraph, answered
from tests.fakes.leads import FORM, OTHER_PAGE, PAGE, at, graph_lead, in_flight
from tests.fakes.time import NOW, FrozenClock
from worker.asks import RESULT_PAGE_LIMIT, USUAL_RATE, ByListing, plan
from worker.batches import InFlight
from worker.budget.policy import Grant, Lane, Refusal
from worker.errors import (
    AnswerTooLarge,
    GrantLapsed,
    GraphUnavailable,
    LeadSyncError,
    LedgerUnavailable,
    NotVisibleYet,
    PermissionRefused,
    RequestRefused,
    StoreUnavailable,
    Throttled,
    TokenRefused,
    TooMuchAsked,
)
from worker.graph.usage import Usage
from worker.graph.wire import FULL_FIELDS, REDUCED_FIELDS, ResultPage
from worker.listing import (
    ASKED_AGAIN,
    BY_ID_FOR,
    CALLS_OF_IDS,
    TIGHT_FOR,
    TIGHT_PART,
    ListingReader,
)
from worker.outcomes import DeadLetter, Outcome, Park, Retry, RetryPolicy, Snooze, Stored
from worker.reading import REFUSALS_TO_REDUCE, LeadReader
from worker.result_pages import SMALLER_FOR
from worker.verdicts import LEDGER_AGAIN, Settled, Verdicts

SECOND = int(NOW.timestamp())


class SpendthriftBudget(FakeBudget):
    """A budget whose note of what was saved fails."""

    async def saved(self, page_id: str, calls: int) -> None:
        raise LedgerUnavailable("told")


class Bench:
    """A reader of listings with its neighbours; and all of a LeadReader where a test asks for it."""

    def __init__(
        self,
        graph: FakeGraph | None = None,
        budget: FakeBudget | None = None,
        others: Iterable[str] = (),
    ) -> None:
        self.graph = graph or FakeGraph()
        self.budget = budget or FakeBudget()
        self.clock = FrozenClock()
        tokens = FakeTokens(frozenset({OTHER_PAGE}), {PAGE: list(others)})
        verdicts = Verdicts(self.budget, RetryPolicy(), self.clock, lambda: 0.5)
        self.listings = ListingReader(self.graph, self.budget, tokens, verdicts, self.clock)
        self.reader = LeadReader(
            graph=self.graph,
            budget=self.budget,
            tokens=tokens,
            policy=RetryPolicy(),
            clock=self.clock,
            dice=lambda: 0.5,
        )

    def told(self, *pages: ResultPage | Exception) -> "Bench":
        """Graph answers with these result pages."""
        self.graph.pages_say.extend(pages)
        return self

    def by_listing(self, ask: ByListing, page_id: str = PAGE) -> tuple[list[Settled], tuple[InFlight, ...]]:
        settled, left = asyncio.run(self.listings.read(page_id, ask, FULL_FIELDS, Lane.LIVE))
        asked = [r for r, _ in settled if not r.unasked]
        assert Counter([*asked, *left]) == Counter(ask.references)
        return settled, left

    def read(self, ask: ByListing, page_id: str = PAGE) -> list[Settled]:
        """By a LeadReader; each reference has exactly one outcome."""
        settled = asyncio.run(self.reader.read(page_id, ask, Lane.LIVE))
        assert Counter(r for r, _ in settled if not r.unasked) == Counter(ask.references)
        return settled

    @property
    def calls(self) -> int:
        return len(self.graph.listed)

    @property
    def cursors(self) -> list[str | None]:
        return [after for *_, after in self.graph.listed]

    @property
    def limits(self) -> list[int]:
        return [limit for _, _, _, limit, _ in self.graph.listed]


def an_ask(count: int, form_id: str = FORM, **changed: Any) -> ByListing:
    """Leads 1 to `count` of a form, one a second."""
    references = tuple(
        in_flight(n, form_id=form_id, created_time=NOW + timedelta(seconds=n), **changed)
        for n in range(1, count + 1)
    )
    return ByListing(form_id, SECOND + 1, SECOND + count + 1, references)


def page(ids: Iterable[int] = (), after: str | None = None, usages: tuple[Usage, ...] = ()) -> ResultPage:
    return ResultPage(tuple(graph_lead(n) for n in ids), after, usages)


def stored(settled: Iterable[Settled]) -> list[int]:
    return [int(r.leadgen_id) for r, outcome in settled if isinstance(outcome, Stored)]


def outcomes(settled: Iterable[Settled]) -> set[Outcome]:
    """The different outcomes of those that were not stored."""
    return {outcome for _, outcome in settled if not isinstance(outcome, Stored)}


def test_hundreds_of_leads_are_one_granted_call() -> None:
    """One result page of the form, between the seconds asked for, brings them all under a grant of one call."""
    bench = Bench().told(page(range(300, 0, -1)))
    settled, left = bench.by_listing(an_ask(300))
    assert (stored(settled), left) == (list(range(300, 0, -1)), ())
    assert bench.graph.listed == [(FORM, SECOND + 1, SECOND + 301, RESULT_PAGE_LIMIT, None)]
    assert bench.budget.asked == [(PAGE, 1, Lane.LIVE)]


def test_only_the_cursor_is_followed() -> None:
    """Each result page is asked for with the cursor that the one before gave, each under a grant of its own."""
    bench = Bench().told(page([9], "b"), page([], "c"), page([8, 7]))
    settled, left = bench.by_listing(an_ask(12))
    assert bench.cursors == [None, "b", "c"]
    assert bench.budget.asked == [(PAGE, 1, Lane.LIVE)] * 3
    assert (stored(settled), len(left)) == ([9, 8, 7], 9)


def test_a_listing_ends_where_everything_is_found() -> None:
    """However much the form has before that, nobody reads on once the last of those asked for is there."""
    bench = Bench().told(page([3, 1], "b"), page([2], "c"), page([99], "d"))
    settled, left = bench.by_listing(an_ask(12))
    assert left
    bench = Bench().told(page([3, 1], "b"), page([2, *range(4, 13)], "c"), page([99], "d"))
    settled, left = bench.by_listing(an_ask(12))
    assert (len(stored(settled)), left, bench.calls) == (12, (), 2)


def test_a_listing_ends_where_graph_has_no_more() -> None:
    """Without a cursor the listing is over, and what it did not bring is left to be read by id."""
    bench = Bench().told(page([1, 2]), page([3]))
    settled, left = bench.by_listing(an_ask(40))
    assert (stored(settled), len(left), bench.calls) == ([1, 2], 38, 1)


@pytest.mark.parametrize(("count", "calls"), [(1, 1), (3, 1), (7, 1), (8, 2), (100, 25)])
def test_a_listing_gives_up_after_a_part_of_the_calls_of_ids(count: int, calls: int) -> None:
    """A listing that finds nobody and has no end costs a quarter of what ids cost, and at least one call."""
    assert CALLS_OF_IDS == 4
    bench = Bench().told(*(page([10_000 + n], "more") for n in range(200)))
    settled, left = bench.by_listing(an_ask(count))
    assert (bench.calls, len(left)) == (calls, count)
    assert all(r.unasked for r, _ in settled)


def test_a_refusal_keeps_what_was_found_and_holds_the_page() -> None:
    """What the budget refuses in the middle of a listing waits with its whole Page; what was paid for is kept."""
    bench = Bench().told(page([1, 2], "b"))
    bench.budget.says.extend([Grant(1, 60.0, 99), Refusal(at(300), "budget")])
    settled, left = bench.by_listing(an_ask(8))
    assert (stored(settled), left, bench.calls) == ([1, 2], (), 1)
    assert outcomes(settled) == {Snooze(at(300), "budget", whole_page=True)}


@pytest.mark.parametrize("away", [LedgerUnavailable("told"), StoreUnavailable("told")])
def test_without_a_grant_no_result_page_is_asked_for(away: LeadSyncError) -> None:
    """Where no grant can be had the rest waits a little, uncounted, and Graph hears nothing more."""
    bench = Bench().told(page([1], "b"))
    bench.budget.says.extend([Grant(1, 60.0, 99), away])
    settled, left = bench.by_listing(an_ask(8))
    assert (stored(settled), left, bench.calls) == ([1], (), 1)
    assert outcomes(settled) == {Snooze(NOW + LEDGER_AGAIN, away.reason)}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TokenRefused("told"), Park("token_refused")),
        (GraphUnavailable("told"), Retry(at(1), "graph_unavailable", 1)),
        (
            Throttled("told", until=at(9), scope="page", regain=timedelta(minutes=2)),
            Snooze(at(120), "throttled_page", whole_page=True),
        ),
    ],
)
def test_an_error_of_a_result_page_is_everybody_s_who_is_left(error: LeadSyncError, outcome: Outcome) -> None:
    """What a result page meets becomes the outcome of all who were not found before it; nobody is read by id."""
    bench = Bench().told(page([1], "b"), error)
    settled, left = bench.by_listing(an_ask(8))
    assert (stored(settled), left) == ([1], ())
    assert outcomes(settled) == {outcome}
    assert bench.budget.closed == ([(PAGE, "page", error.regain)] if isinstance(error, Throttled) else [])


def test_a_page_without_a_token_is_not_listed() -> None:
    """No call is made without a token, none is granted, and the Page is parked."""
    bench = Bench()
    settled, _ = bench.by_listing(an_ask(8), OTHER_PAGE)
    assert outcomes(settled) == {Park("token_refused")}
    assert (bench.calls, bench.budget.asked) == (0, [])


@pytest.mark.parametrize("error", [NotVisibleYet("t"), PermissionRefused("t"), RequestRefused("t")])
def test_what_is_refused_of_the_form_is_left_to_be_read_by_id(error: LeadSyncError) -> None:
    """A form that is gone or not permitted condemns none of its leads: reading by id tells of each."""
    bench = Bench().told(page([1], "b"), error)
    settled, left = bench.by_listing(an_ask(8))
    assert ([int(r.leadgen_id) for r, _ in settled], len(left), bench.calls) == ([1], 7, 2)


def test_result_pages_that_are_too_large_are_halved() -> None:
    """Graph's wish for less is met at once, from the same place, with every try under a grant of its own."""
    bench = Bench().told(page([1], "b"), TooMuchAsked("t"), TooMuchAsked("t"), page([2], "c"))
    bench.by_listing(an_ask(16))
    assert bench.limits == [500, 500, 250, 125]
    assert bench.cursors == [None, "b", "b", "b"]
    assert len(bench.budget.asked) == 4


def test_the_size_that_a_form_can_do_is_remembered_for_a_while() -> None:
    """A form that asked for less is asked for less for an hour, and another form is not."""
    bench = Bench().told(TooMuchAsked("t"), page([1]))
    bench.by_listing(an_ask(8))
    bench.by_listing(an_ask(8))
    bench.by_listing(an_ask(8, "555"))
    bench.clock.move(SMALLER_FOR.total_seconds())
    bench.by_listing(an_ask(8))
    assert bench.limits == [500, 250, 250, 500, 500]


def test_a_form_that_cannot_be_listed_in_any_size_is_read_by_id() -> None:
    """A result page of one lead that is still too much ends the listing."""
    bench = Bench().told(*[TooMuchAsked("t")] * 50)
    _, left = bench.by_listing(an_ask(200))
    assert bench.limits == [500, 250, 125, 62, 31, 15, 7, 3, 1]
    assert len(left) == 200


def test_a_call_that_was_not_sent_is_granted_anew() -> None:
    """A grant that ran out is no failure: the same result page is asked for under another, as long as it pays."""
    bench = Bench().told(page([1], "b"), GrantLapsed("t"), page(range(2, 17)))
    settled, left = bench.by_listing(an_ask(16))
    assert (len(stored(settled)), left) == (16, ())
    assert (bench.cursors, len(bench.budget.asked)) == ([None, "b", "b"], 3)
    late = Bench().told(*[GrantLapsed("t")] * 50)
    assert len(late.by_listing(an_ask(16))[1]) == 16
    assert late.calls == 4 + ASKED_AGAIN


def test_leads_that_come_along_are_passed_on() -> None:
    """What the call paid for is stored too: leads of the form that nobody had asked for, marked as such."""
    bench = Bench().told(page([1, 70, 2, 71]))
    settled, _ = bench.by_listing(an_ask(2))
    along = {r.leadgen_id: r for r, outcome in settled if isinstance(outcome, Stored) and r.unasked}
    assert set(along) == {"70", "71"}
    assert along["70"] == InFlight.listed("70", PAGE, FORM, NOW)


def test_an_entry_that_is_no_lead_costs_nobody_anything() -> None:
    """Odd entries are passed over; a lead that was asked for and is malformed is so by name, an unasked one is none."""
    odd: list[object] = [None, 5, "7", [], {}, {"id": 1}, {"id": None}, {"id": ""}, {"id": "x"}, {"id": "0"}]
    bottomless: list[object] = []
    for _ in range(100_000):
        bottomless = [bottomless]
    broken = [graph_lead(n, field_data=bottomless) for n in (2, 70)]
    entries = (*odd, graph_lead(1), *broken, graph_lead(3))
    bench = Bench().told(ResultPage(entries, None, ()))
    settled, left = bench.by_listing(an_ask(4))
    assert {r.leadgen_id: type(o) for r, o in settled} == {"1": Stored, "2": DeadLetter, "3": Stored}
    assert [r.leadgen_id for r in left] == ["4"]


def test_a_lead_that_is_listed_twice_is_settled_once_as_asked() -> None:
    """Result pages overlap where leads come in meanwhile: the second time nobody asks for it any more."""
    bench = Bench().told(page([1, 2], "b"), page([2, *range(3, 9)]))
    settled, _ = bench.by_listing(an_ask(8))
    assert Counter(r.unasked for r, _ in settled if r.leadgen_id == "2") == {False: 1, True: 1}


def test_meta_s_usage_is_passed_on() -> None:
    """Every result page tells the budget what Meta says is used."""
    usage = Usage(PAGE, "leadgen", 7, 1, 1, 0)
    bench = Bench().told(page([1], "b", (usage,)), page([2]))
    bench.by_listing(an_ask(8))
    assert bench.budget.usages == [(PAGE, (usage,)), (PAGE, ())]


def test_the_budget_is_told_what_was_saved() -> None:
    """A call a lead is what ids would have cost; what came along unasked saved nothing."""
    bench = Bench().told(page([1, 2, 3, 70], "b"), page([4, 5, 71]))
    bench.by_listing(an_ask(8))
    assert bench.budget.savings == [(PAGE, 3)]


def test_a_saving_that_cannot_be_noted_loses_no_lead() -> None:
    """A ledger that is away at the end of a listing costs a figure and nothing else."""
    bench = Bench(budget=SpendthriftBudget()).told(page(range(1, 9)))
    assert len(stored(bench.by_listing(an_ask(8))[0])) == 8


@pytest.mark.parametrize(("found", "pays"), [(0, False), (1, False), (2, True)])
def test_a_form_whose_listing_brought_less_than_it_cost_is_read_by_id_for_a_while(
    found: int, pays: bool
) -> None:
    """A listing that found no more than its calls is not tried again for some minutes, and saved nothing."""
    bench = Bench().told(page([*range(1, found + 1), 70, 71, 72]))
    bench.by_listing(an_ask(4))
    assert (bench.listings.not_worth_it() == frozenset()) is pays
    assert bool(bench.budget.savings) is pays
    bench.clock.move(BY_ID_FOR.total_seconds())
    assert bench.listings.not_worth_it() == frozenset()


def test_a_form_s_rate_is_learned_from_a_listing_that_was_read_to_its_end() -> None:
    """Leads a second of the stretch, those that came along too; of a form never listed a usual rate is assumed."""
    bench = Bench().told(page([*range(1, 9), *range(100, 112)]))
    assert bench.listings.rate_of(FORM) == USUAL_RATE
    bench.by_listing(an_ask(10))
    assert bench.listings.rate_of(FORM) == 2.0
    assert bench.listings.rate_of("555") == USUAL_RATE


def test_a_listing_that_ended_early_says_nothing_of_the_rate() -> None:
    """Where everything was found before the end, how many more there were is not known; nor where nothing was."""
    bench = Bench().told(page(range(1, 9), "b"), page([]))
    bench.by_listing(an_ask(8))
    bench.by_listing(an_ask(8))
    assert bench.listings.rate_of(FORM) == USUAL_RATE


def test_a_form_with_few_leads_keeps_some_rate() -> None:
    """One lead in a day does not make gaps of a month look free."""
    bench = Bench().told(page([1]))
    ask = an_ask(1)
    bench.by_listing(ByListing(FORM, ask.since, ask.since + 86_400 * 30, ask.references))
    assert bench.listings.rate_of(FORM) == USUAL_RATE / 10


@pytest.mark.parametrize(
    ("answer", "tight"),
    [
        (Grant(5, 60.0, TIGHT_PART * 5 - 1), True),
        (Grant(5, 60.0, TIGHT_PART * 5), False),
        (Refusal(at(60), "budget"), True),
        (Refusal(at(60), "throttled_app"), False),
    ],
)
def test_calls_are_scarce_where_little_is_left(answer: Grant | Refusal, tight: bool) -> None:
    """Less than four times what was asked, or a refusal of the budget's own, makes a Page thrifty for some minutes."""
    bench = Bench()
    bench.listings.answered(PAGE, answer)
    assert bench.listings.is_tight(PAGE) is tight
    assert not bench.listings.is_tight(OTHER_PAGE)
    bench.clock.move(TIGHT_FOR.total_seconds())
    assert not bench.listings.is_tight(PAGE)


def test_what_a_listing_did_not_bring_is_read_by_id_in_batches() -> None:
    """The rest of a listing is asked for by id, 50 at once, under grants of their own."""
    bench = Bench().told(page(range(1, 81)))
    settled = bench.read(an_ask(200))
    assert sorted(stored(settled)) == list(range(1, 201))
    assert [len(asked) for asked, _ in bench.graph.asked] == [50, 50, 20]
    assert [calls for _, calls, _ in bench.budget.asked] == [1, 50, 50, 20]


def test_a_reader_plans_by_what_its_listings_have_learned() -> None:
    """Scarce calls make a small listing worth it; one that brought nothing sends its form back to ids."""
    bench = Bench().told(page([]))
    ask = an_ask(8)
    assert [type(a) for a in bench.reader.plan(PAGE, ask.references)] != [ByListing]
    bench.budget.left = 3
    bench.read(an_ask(1))
    assert bench.reader.plan(PAGE, ask.references) != (ask,)
    bench.clock.move(BY_ID_FOR.total_seconds() - 1)
    bench.budget.says.append(Refusal(at(5), "budget"))
    bench.read(an_ask(1, "555"))
    bench.clock.move(1)
    assert bench.reader.plan(PAGE, ask.references) == (ask,)


def test_a_page_that_refuses_ad_fields_is_listed_without_them() -> None:
    """A listing asks for no more than the Page gives, and its leads are marked as read in part."""
    bench = Bench(FakeGraph(refuses_ad_fields=PermissionRefused("told")))
    for n in range(REFUSALS_TO_REDUCE):
        bench.told(RequestRefused("told"))
        bench.read(an_ask(1 + n))
    bench.told(page(range(1, 9)))
    settled = bench.read(an_ask(8))
    assert all(isinstance(outcome, Stored) and outcome.lead.in_part for _, outcome in settled)
    assert len(settled) == 8


@pytest.mark.parametrize("fields", [FULL_FIELDS, REDUCED_FIELDS])
def test_leads_of_a_listing_are_in_part_where_less_was_asked_for(fields: tuple[str, ...]) -> None:
    """What was read without the ad fields says so, whether it was asked for or came along."""
    bench = Bench().told(page([1, 70]))
    settled, _ = asyncio.run(bench.listings.read(PAGE, an_ask(1), fields, Lane.LIVE))
    in_part = [outcome.lead.in_part for _, outcome in settled if isinstance(outcome, Stored)]
    assert in_part == [fields is REDUCED_FIELDS] * 2


def test_a_fault_of_ours_in_a_listing_loses_no_reference() -> None:
    """Whatever breaks, each reference is tried again."""
    bench = Bench().told(page([1], "b"), KeyError("ann@example.org"))
    assert outcomes(bench.read(an_ask(8))) == {Retry(at(1), "internal_error", 1)}


FAULTS = st.sampled_from(
    [
        *[None] * 12,
        GraphUnavailable("told"),
        TokenRefused("told"),
        PermissionRefused("told"),
        RequestRefused("told"),
        NotVisibleYet("told"),
        Throttled("told", until=at(9), scope="page"),
        TooMuchAsked("told"),
        GrantLapsed("told"),
        KeyError(),
    ]
)
ANSWERS = st.sampled_from(
    [
        *[None] * 8,
        Grant(1, 1.0),
        Refusal(at(5), "budget"),
        LedgerUnavailable("told"),
        StoreUnavailable("told"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 120), st.integers(1, 200), st.integers(1, 60))
def test_every_reference_comes_out_once_whatever_happens(
    data: st.DataObject, count: int, per_page: int, grants: int
) -> None:
    """However listing and ids go wrong, each has one outcome, for granted calls that are not many more than by id."""
    ask = an_ask(count)
    hidden = data.draw(st.sets(st.integers(1, count), max_size=10))
    created = {str(n): SECOND + n for n in range(1, count + 1) if n not in hidden}
    created |= {str(n): SECOND + n % (count + 1) for n in range(1_000, 1_000 + data.draw(st.integers(0, 50)))}
    graph = FormGraph(created={FORM: created}, per_page=per_page, faults=lambda: data.draw(FAULTS))
    bench = Bench(graph)
    bench.budget.grants = grants
    bench.budget.says.extend(a for a in data.draw(st.lists(ANSWERS, max_size=6)) if a is not None)
    settled = bench.read(ask)
    assert all(isinstance(outcome, Stored) for r, outcome in settled if r.unasked)
    assert bench.calls <= max(1, count // CALLS_OF_IDS) + ASKED_AGAIN
    spent = len(graph.listed) + sum(len(asked) for asked, _ in graph.asked)
    assert spent <= sum(calls for _, calls, _ in bench.budget.asked)


@settings(max_examples=30, deadline=None)
@given(st.integers(51, 200), st.integers(1, 250), st.integers(0, 200))
def test_what_is_planned_as_a_listing_is_found_by_it(count: int, per_page: int, others: int) -> None:
    """Every lead of a planned stretch that Meta lists is brought by listing alone, if that pays at all."""
    references = [in_flight(n, created_time=at(n * 7 % 500)) for n in range(1, count + 1)]
    created = {str(n): SECOND + n * 7 % 500 for n in range(1, count + 1)}
    created |= {str(n): SECOND + n * 11 % 500 for n in range(10_000, 10_000 + others)}
    (ask,) = plan(references, rate_of=lambda _: 0.1, tight=False)
    assert isinstance(ask, ByListing)
    bench = Bench(FormGraph(created={FORM: created}, per_page=per_page))
    settled, left = bench.by_listing(ask)
    assert len(stored(settled)) + len(left) >= count
    if bench.calls < count // CALLS_OF_IDS:
        assert left == ()


def test_a_refused_token_with_another_in_its_place_costs_one_call() -> None:
    """The result page is asked for again under the other token, and nothing is parked."""
    bench = Bench(others=["mended"]).told(TokenRefused("told"), page(range(1, 13)))
    settled, left = bench.by_listing(an_ask(12))
    assert (sorted(stored(settled)), left) == (list(range(1, 13)), ())
    assert len(bench.graph.listed) == len(bench.budget.asked) == 2


def test_tokens_that_are_refused_one_after_the_other_come_to_an_end() -> None:
    """However often there is another token, the calls of a listing are bounded and nobody is lost."""
    bench = Bench(others=[f"token {n}" for n in range(50)]).told(*[TokenRefused("told")] * 50)
    settled, left = bench.by_listing(an_ask(12))
    assert (settled, len(left)) == ([], 12)
    assert len(bench.graph.listed) == 12 // CALLS_OF_IDS


def test_a_listing_of_one_lead_that_is_too_large_is_left_to_be_read_by_id() -> None:
    """Reading by id tells which one it is; the form's listings are asked for as many as ever."""
    bench = Bench().told(*[answered(AnswerTooLarge("t"))] * 9)
    _, left = bench.by_listing(an_ask(200))
    assert (bench.calls, len(left)) == (9, 200)
    bench.told(page([1]))
    bench.by_listing(an_ask(8))
    assert bench.limits[-1] == 500


@pytest.mark.parametrize(
    "error", [PermissionRefused("t"), RequestRefused("t"), NotVisibleYet("t"), TooMuchAsked("t")]
)
def test_a_listing_that_is_refused_is_heard_before_anything_is_asked_again(error: LeadSyncError) -> None:
    """A scope on trial grants nothing until its answer is told, and any answer but a throttle tells it."""
    bench = Bench().told(answered(error), page([1]))
    bench.by_listing(an_ask(8))
    assert bench.budget.usages[0] == (PAGE, ())
    assert len(bench.budget.usages) == len(bench.budget.asked)


def test_a_throttled_listing_hands_its_usage_on() -> None:
    """By it the budget knows which ad account is meant."""
    usage = Usage("777", "ads_management", 100, 1, 1, 20)
    bench = Bench().told(answered(Throttled("t", until=at(9), scope="ad_account"), usage))
    bench.by_listing(an_ask(8))
    assert bench.budget.closed_with == [(usage,)]
