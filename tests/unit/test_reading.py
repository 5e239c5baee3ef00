"""Reading a batch: whatever Graph and the budget do, each reference comes out once, with one outcome."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.fakes.graph import FakeBudget, FakeGraph, FakeTokens, answered
from tests.fakes.leads import OTHER_PAGE, PAGE, at, graph_lead, in_flight
from tests.fakes.time import NOW, FrozenClock
from worker.asks import ById
from worker.batches import InFlight
from worker.budget.policy import Grant, Lane, Refusal
from worker.errors import (
    AnswerTooLarge,
    GrantLapsed,
    GraphUnavailable,
    ItemUnanswered,
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
from worker.graph.wire import LeadsRead
from worker.outcomes import TOO_LARGE_ATTEMPTS, DeadLetter, Outcome, Park, Retry, RetryPolicy, Snooze, Stored
from worker.reading import REDUCED_FOR, REFUSALS_TO_REDUCE, UNANSWERED_AGAIN, LeadReader
from worker.verdicts import LEDGER_AGAIN, Verdicts

FULL, REDUCED = True, False
AD_FIELDS = PermissionRefused("told")


class Bench:
    """A reader with its neighbours."""

    def __init__(self, *, others: Sequence[str] = (), **graph: Any) -> None:
        self.graph = FakeGraph(**graph)
        self.budget = FakeBudget()
        self.clock = FrozenClock()
        self.reader = LeadReader(
            graph=self.graph,
            budget=self.budget,
            tokens=FakeTokens(frozenset({OTHER_PAGE}), {PAGE: list(others)}),
            policy=RetryPolicy(),
            clock=self.clock,
            dice=lambda: 0.5,
        )

    def read(self, *references: InFlight, page_id: str = PAGE) -> dict[str, Outcome]:
        """Outcome by leadgen_id; each reference exactly once."""
        settled = asyncio.run(self.reader.read(page_id, ById(references), Lane.LIVE))
        assert Counter(r for r, _ in settled) == Counter(references)
        return {reference.leadgen_id: outcome for reference, outcome in settled}

    def kinds(self, *references: InFlight) -> list[type]:
        outcomes = self.read(*references)
        return [type(outcomes[r.leadgen_id]) for r in references]


def some(count: int) -> tuple[InFlight, ...]:
    return tuple(in_flight(n) for n in range(1, count + 1))


def ids(*numbers: int) -> tuple[str, ...]:
    return tuple(map(str, numbers))


@pytest.mark.parametrize("count", [1, 2, 50])
def test_a_batch_is_one_request_and_one_grant(count: int) -> None:
    """All references of a batch are read with the full list by one granted request under the Page's token."""
    bench = Bench()
    outcomes = bench.read(*some(count))
    assert {i: o.lead.leadgen_id for i, o in outcomes.items() if isinstance(o, Stored)} == {
        i: i for i in outcomes
    }
    assert not any(o.lead.in_part for o in outcomes.values() if isinstance(o, Stored))
    assert bench.graph.asked == [(ids(*range(1, count + 1)), FULL)]
    assert bench.graph.tokens == [f"token-of-{PAGE}"]
    assert bench.budget.asked == [(PAGE, count, Lane.LIVE)]


def test_no_reference_is_no_call() -> None:
    """An empty batch asks neither budget nor Graph."""
    bench = Bench()
    assert bench.read() == {}
    assert (bench.budget.asked, bench.graph.asked) == ([], [])


def test_a_smaller_grant_is_spent_and_the_rest_asked_for_again() -> None:
    """No call is made without a grant: five references under grants of two are three requests."""
    bench = Bench()
    bench.budget.grants = 2
    assert bench.kinds(*some(5)) == [Stored] * 5
    assert [calls for _, calls, _ in bench.budget.asked] == [5, 3, 1]
    assert [asked for asked, _ in bench.graph.asked] == [ids(1, 2), ids(3, 4), ids(5)]


def test_a_refusal_snoozes_what_is_left() -> None:
    """What the budget refuses waits until it says, uncounted, and Graph is not asked; what was granted is kept."""
    bench = Bench()
    bench.budget.says.extend([Grant(2, 60.0), Refusal(at(300), "spent")])
    outcomes = bench.read(*some(4))
    assert [type(outcomes[i]) for i in ids(1, 2)] == [Stored, Stored]
    assert [outcomes[i] for i in ids(3, 4)] == [Snooze(at(300), "spent", whole_page=True)] * 2
    assert len(bench.graph.asked) == 1


def test_without_a_ledger_there_is_no_call() -> None:
    """Where the ledger cannot be asked, references wait a little and Graph hears nothing."""
    bench = Bench()
    bench.budget.says.append(LedgerUnavailable("told"))
    assert bench.read(*some(2)) == dict.fromkeys(ids(1, 2), Snooze(NOW + LEDGER_AGAIN, "ledger_unavailable"))
    assert bench.graph.asked == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (GraphUnavailable("told"), Retry(at(1), "graph_unavailable", 1)),
        (TokenRefused("told"), Park("token_refused")),
        (NotVisibleYet("told"), Retry(at(2.5), "not_visible", 1)),
        (
            Throttled("told", until=at(9), scope="app", regain=timedelta(minutes=1)),
            Snooze(at(60), "throttled_app", whole_page=True),
        ),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_an_error_of_the_whole_request_is_everybody_s(
    error: LeadSyncError, outcome: Outcome, count: int
) -> None:
    """What the request as a whole met becomes the outcome of each of its references, by one request."""
    bench = Bench(says=deque([error]))
    assert list(bench.read(*some(count)).values()) == [outcome] * count
    assert len(bench.graph.asked) == 1


def test_a_page_without_a_token_is_parked_unasked() -> None:
    """No call is made without a token, and none granted: of a scope on trial that would be the trial."""
    bench = Bench()
    reference = in_flight(1, OTHER_PAGE)
    assert bench.read(reference, page_id=OTHER_PAGE) == {"1": Park("token_refused")}
    assert (bench.graph.asked, bench.budget.asked) == ([], [])


def test_one_bad_item_harms_no_other() -> None:
    """Each item of a batch has its own outcome."""
    bench = Bench()
    bench.graph.items = {
        "1": deque([NotVisibleYet("told")]),
        "2": deque([{"id": "99", "field_data": []}]),
        "3": deque([GraphUnavailable("told")]),
        "4": deque([None]),
    }
    assert bench.kinds(*some(5)) == [Retry, DeadLetter, Retry, DeadLetter, Stored]


@pytest.mark.parametrize("error", [AD_FIELDS, RequestRefused("told")])
@pytest.mark.parametrize("count", [1, 3])
def test_refused_ad_fields_are_read_without(error: LeadSyncError, count: int) -> None:
    """Where the full list is refused, the reduced one brings the leads, marked as read in part."""
    bench = Bench(refuses_ad_fields=error)
    outcomes = bench.read(*some(count)).values()
    assert all(isinstance(o, Stored) and o.lead.in_part for o in outcomes)
    assert [full for _, full in bench.graph.asked] == [FULL, REDUCED]
    assert [calls for _, calls, _ in bench.budget.asked] == [count, count]


def test_only_the_refused_items_are_read_again() -> None:
    """In a mixed batch the leads that were read in full stay so; only the others are asked for with less."""
    bench = Bench()
    bench.graph.items = {"2": deque([PermissionRefused("told")])}
    outcomes = bench.read(*some(3))
    assert {i: o.lead.in_part for i, o in outcomes.items() if isinstance(o, Stored)} == {
        "1": False,
        "2": True,
        "3": False,
    }
    assert bench.graph.asked == [(ids(1, 2, 3), FULL), (ids(2), REDUCED)]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (PermissionRefused("told"), Park("permission_refused")),
        (RequestRefused("told"), DeadLetter("request_refused")),
    ],
)
def test_what_is_refused_with_both_lists_is_refused(error: LeadSyncError, outcome: Outcome) -> None:
    """A missing permission parks the Page only after the reduced list was refused too, whole or in items."""
    whole = Bench(says=deque([error, error]))
    assert whole.read(*some(2)) == dict.fromkeys(ids(1, 2), outcome)
    items = Bench()
    items.graph.items = {"1": deque([error, error])}
    assert items.read(*some(2))["1"] == outcome
    assert (len(whole.graph.asked), len(items.graph.asked)) == (2, 2)


def refused_in_a_row(bench: Bench, times: int) -> list[bool]:
    """Read so many single leads; which lists were asked with."""
    before = len(bench.graph.asked)
    for n in range(times):
        bench.read(in_flight(100 + n))
    return [full for _, full in bench.graph.asked[before:]]


def test_a_page_that_refuses_ad_fields_again_and_again_is_read_without_for_a_while() -> None:
    """After some whole refusals in a row the full list is spared for an hour, and then tried again."""
    bench = Bench(refuses_ad_fields=AD_FIELDS)
    assert refused_in_a_row(bench, REFUSALS_TO_REDUCE) == [FULL, REDUCED] * REFUSALS_TO_REDUCE
    assert refused_in_a_row(bench, 2) == [REDUCED, REDUCED]
    bench.clock.move(REDUCED_FOR.total_seconds())
    bench.graph.refuses_ad_fields = None
    assert refused_in_a_row(bench, 2) == [FULL, FULL]


def test_one_lead_of_another_ad_account_does_not_reduce_its_page() -> None:
    """A single refusal says something of that lead and nothing of the Page."""
    bench = Bench(says=deque([AD_FIELDS]))
    assert bench.kinds(in_flight(1), in_flight(2)) == [Stored, Stored]
    assert refused_in_a_row(bench, 1) == [FULL]


def test_a_page_s_list_says_nothing_of_another_page() -> None:
    """The reduced list is remembered by Page."""
    bench = Bench(refuses_ad_fields=AD_FIELDS)
    refused_in_a_row(bench, REFUSALS_TO_REDUCE)
    bench.graph.refuses_ad_fields = None
    bench.read(in_flight(1, "777"), page_id="777")
    assert bench.graph.asked[-1] == (ids(1), FULL)


def test_a_refusal_that_was_none_of_the_ad_fields_reduces_nothing() -> None:
    """Where the reduced list fails as well, the next batch is asked for in full again."""
    bench = Bench(says=deque([AD_FIELDS, AD_FIELDS] * REFUSALS_TO_REDUCE))
    refused_in_a_row(bench, REFUSALS_TO_REDUCE)
    assert refused_in_a_row(bench, 1) == [FULL]


def test_who_is_stored_in_part_gains_nothing_from_the_reduced_list() -> None:
    """A lead that lacks only its ad fields is not read without them again: it waits, and in the end is left."""
    bench = Bench(refuses_ad_fields=AD_FIELDS)
    first, last = in_flight(1, turn=3, in_part=True), in_flight(2, turn=3, in_part=True, attempts=99)
    outcomes = bench.read(first, last, in_flight(3))
    assert isinstance(outcomes["1"], Retry)
    assert outcomes["1"].at > NOW + timedelta(hours=1)
    assert outcomes["2"] == DeadLetter("ad_fields_refused")
    assert isinstance(outcomes["3"], Stored)
    assert bench.graph.asked == [(ids(1, 2, 3), FULL), (ids(3), REDUCED)]


def test_who_is_stored_in_part_waits_while_the_page_is_read_without() -> None:
    """While ad fields are known to be refused, nobody asks for them."""
    bench = Bench(refuses_ad_fields=AD_FIELDS)
    refused_in_a_row(bench, REFUSALS_TO_REDUCE)
    outcomes = bench.read(in_flight(1, turn=3, in_part=True), in_flight(2))
    assert outcomes["1"] == Snooze(NOW + REDUCED_FOR, "ad_fields_refused")
    assert bench.graph.asked[-1] == (ids(2), REDUCED)


@pytest.mark.parametrize(("count", "at_most", "requests"), [(50, 25, 3), (50, 1, 99), (3, 2, 3), (7, 3, 5)])
def test_an_ask_that_was_too_large_is_halved(count: int, at_most: int, requests: int) -> None:
    """Halves are asked for at once, each under a grant of its own, until they are small enough."""
    bench = Bench(at_most=at_most)
    assert bench.kinds(*some(count)) == [Stored] * count
    assert len(bench.graph.asked) == len(bench.budget.asked) == requests


def test_one_lead_that_is_too_much_is_tried_later() -> None:
    """What cannot be halved is a failure that counts."""
    bench = Bench(at_most=0)
    assert bench.read(in_flight(1)) == {"1": Retry(at(1), "too_much_asked", 1)}
    assert len(bench.graph.asked) == 1


def test_unanswered_items_are_asked_for_again_at_once() -> None:
    """Null items are asked for again, they alone, a few times; then they are a failure like any other."""
    null = ItemUnanswered("told")
    bench = Bench()
    bench.graph.items = {"1": deque([null]), "2": deque([null] * (UNANSWERED_AGAIN + 1))}
    outcomes = bench.read(*some(3))
    assert [type(outcomes[i]) for i in ids(1, 2, 3)] == [Stored, Retry, Stored]
    assert outcomes["2"] == Retry(at(1), "graph_unavailable", 1)
    assert bench.graph.asked == [(ids(1, 2, 3), FULL), (ids(1, 2), FULL), (ids(2), FULL)]
    assert [calls for _, calls, _ in bench.budget.asked] == [3, 2, 1]


@pytest.mark.parametrize("count", [1, 3])
def test_the_budget_is_told_of_a_throttle(count: int) -> None:
    """A throttle of the whole request closes its scope before the next call."""
    told = timedelta(minutes=2)
    bench = Bench(says=deque([Throttled("told", until=at(120), scope="page", regain=told)]))
    bench.read(*some(count))
    assert bench.budget.closed == [(PAGE, "page", told)]


def test_the_budget_is_told_of_a_throttled_item() -> None:
    """An item's throttle closes its scope too, and the items beside it keep their leads."""
    bench = Bench()
    bench.graph.items = {i: deque([Throttled("told", until=at(120), scope="app")]) for i in ids(2, 3)}
    assert bench.kinds(*some(3)) == [Stored, Snooze, Snooze]
    assert bench.budget.closed == [(PAGE, "app", None)]


def test_a_throttled_reference_waits_as_long_as_the_budget_says() -> None:
    """The budget backs off further with each throttle in a row; the reference and its Page wait for that."""
    bench = Bench(says=deque([Throttled("told", until=at(120), scope="page")]))
    bench.budget.closes_for = timedelta(hours=1)
    assert bench.read(in_flight(1)) == {"1": Snooze(at(3600), "throttled_page", whole_page=True)}


def test_meta_s_usage_is_passed_on() -> None:
    """Every answer that is no throttle tells the budget what Meta says is used."""
    usage = Usage(PAGE, "leadgen", 7, 1, 1, 0)
    bench = Bench(says=deque([LeadsRead((graph_lead(1),), (usage,))]))
    bench.read(in_flight(1))
    assert bench.budget.usages == [(PAGE, (usage,))]


def test_a_call_that_was_not_sent_is_granted_anew() -> None:
    """A grant that ran out before its call was sent is no failure: another is asked for, a few times."""
    bench = Bench(says=deque([GrantLapsed("told")]))
    assert bench.kinds(*some(2)) == [Stored, Stored]
    assert [calls for _, calls, _ in bench.budget.asked] == [2, 2]
    late = Bench(says=deque([GrantLapsed("told")] * (UNANSWERED_AGAIN + 1)))
    assert late.read(in_flight(1)) == {"1": Snooze(NOW + LEDGER_AGAIN, "grant_lapsed")}


def test_without_the_budget_s_memory_there_is_no_call() -> None:
    """Where calls cannot be reserved in Postgres, references wait a little and no attempt counts."""
    bench = Bench()
    bench.budget.says.append(StoreUnavailable("told"))
    assert bench.read(in_flight(1)) == {"1": Snooze(NOW + LEDGER_AGAIN, "store_unavailable")}
    assert bench.graph.asked == []


def test_a_throttle_that_cannot_be_noted_is_a_snooze_all_the_same() -> None:
    """A ledger that is away when it is told loses no reference."""
    bench = Bench(says=deque([Throttled("told", until=at(120), scope="page")]))
    bench.budget.fails_to_close = LedgerUnavailable("told")
    assert bench.kinds(*some(2)) == [Snooze, Snooze]


@pytest.mark.parametrize(
    "fault",
    [
        KeyError("ann@example.org"),
        LeadsRead((), ()),
        LeadsRead((graph_lead(1),) * 3, ()),
        RecursionError(),
        MemoryError(),
    ],
)
def test_a_fault_of_ours_loses_no_reference(fault: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever breaks in the Graph client, each reference is tried again and no text of the fault is told."""
    bench = Bench(says=deque([fault]))
    assert bench.read(*some(2)) == dict.fromkeys(ids(1, 2), Retry(at(1), "internal_error", 1))
    told = capsys.readouterr()
    assert "ann@" not in told.out + told.err


def test_a_fault_of_ours_in_one_lead_is_that_lead_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lead that we fail to understand for a fault of ours costs its neighbours nothing."""
    bench = Bench()
    understood = Verdicts.__module__ + ".Lead.from_graph"
    from_graph = __import__("worker.lead", fromlist=["Lead"]).Lead.from_graph

    def broken(raw: Any, **about: Any) -> Any:
        if about["leadgen_id"] == "2":
            raise ZeroDivisionError
        return from_graph(raw, **about)

    monkeypatch.setattr(understood, broken)
    assert bench.kinds(*some(3)) == [Stored, Retry, Stored]


def test_what_a_fault_of_ours_quotes_is_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault met over a lead may quote it, and its answers with it: the log tells the id and the kind of fault."""

    def broken(raw: Any, **about: Any) -> Any:
        raise ValueError(raw)

    monkeypatch.setattr(Verdicts.__module__ + ".Lead.from_graph", broken)
    with capture_logs() as lines:
        Bench().read(in_flight(1))
    told = repr(lines)
    assert "ValueError" in told
    assert "field_data" not in told
    assert "example.org" not in told


def test_who_waits_for_its_ad_fields_is_not_lost_by_a_fault() -> None:
    """On a Page read with the reduced list, a fault while reading the others leaves nobody without an outcome."""
    bench = Bench(refuses_ad_fields=AD_FIELDS)
    refused_in_a_row(bench, REFUSALS_TO_REDUCE)
    bench.graph.says.append(KeyError())
    bench.read(in_flight(1, turn=1, in_part=True), in_flight(2))


def test_refusals_far_apart_reduce_nothing() -> None:
    """Three leads of another ad account among many that were read in full do not cost the Page its ad fields."""
    bench = Bench()
    for _ in range(REFUSALS_TO_REDUCE + 1):
        bench.graph.says.append(AD_FIELDS)
        bench.read(in_flight(1))
        assert refused_in_a_row(bench, 5) == [FULL] * 5


THROTTLED = Throttled("told", until=at(9), scope="page")
TRANSIENT = [GraphUnavailable("told"), ItemUnanswered("told"), NotVisibleYet("told")]
REFUSED = [AD_FIELDS, RequestRefused("told"), TokenRefused("told")]
ITEMS = st.sampled_from(["lead", *TRANSIENT, *REFUSED, THROTTLED, None, 5, {"id": "odd"}])
WHOLE = st.sampled_from(
    [
        None,
        None,
        None,
        *TRANSIENT,
        *REFUSED,
        THROTTLED,
        TooMuchAsked("told"),
        LedgerUnavailable("told"),
        KeyError(),
    ]
)
BUDGET = st.sampled_from([Grant(1, 1.0), Refusal(at(5), "spent"), LedgerUnavailable("told")])


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(1, 12))
def test_every_reference_comes_out_once_whatever_happens(
    data: st.DataObject, count: int, grants: int
) -> None:
    """However answers, refusals and faults are mixed, each reference has exactly one outcome, by granted calls."""
    bench = Bench()
    bench.budget.grants = grants
    bench.budget.says.extend(
        data.draw(
            st.lists(
                st.sampled_from([Grant(1, 1.0), Refusal(at(5), "spent"), LedgerUnavailable("t")]),
                max_size=2,
            )
        )
    )

    def answer(leadgen_ids: Any, fields: Any) -> LeadsRead:
        whole = data.draw(WHOLE)
        if whole is not None:
            raise whole
        items = [data.draw(ITEMS) for _ in leadgen_ids]
        leads = [
            graph_lead(i) if item == "lead" else item for i, item in zip(leadgen_ids, items, strict=True)
        ]
        return LeadsRead(tuple(leads), ())

    bench.graph.says.extend([answer] * 200)
    references = tuple(
        in_flight(n, turn=1, in_part=data.draw(st.booleans()), attempts=data.draw(st.integers(0, 30)))
        for n in range(1, count + 1)
    )
    bench.read(*references)
    assert sum(len(asked) for asked, _ in bench.graph.asked) <= sum(
        min(calls, grants) for _, calls, _ in bench.budget.asked
    )


REFUSED = TokenRefused("told")


def test_a_refused_token_with_another_in_its_place_costs_one_call() -> None:
    """The same batch is read again under the other token, and nothing is parked."""
    bench = Bench(says=deque([REFUSED]), others=["mended"])
    assert bench.kinds(*some(3)) == [Stored] * 3
    assert bench.graph.asked == [(ids(1, 2, 3), FULL)] * 2
    assert bench.graph.tokens == [f"token-of-{PAGE}", "mended"]
    assert [calls for _, calls, _ in bench.budget.asked] == [3, 3]


def test_a_refused_token_with_none_in_its_place_parks() -> None:
    """After the one call that was refused."""
    bench = Bench(says=deque([REFUSED] * 9))
    assert bench.kinds(*some(2)) == [Park, Park]
    assert len(bench.graph.asked) == 1


def test_tokens_that_are_refused_one_after_the_other_come_to_an_end() -> None:
    """However often there is another token, the batch is asked again twice at most, and then parks."""
    bench = Bench(says=deque([REFUSED] * 50), others=[f"token {n}" for n in range(50)])
    assert bench.kinds(*some(2)) == [Park, Park]
    assert len(bench.graph.asked) == 1 + UNANSWERED_AGAIN


@pytest.mark.parametrize(
    "error", [PermissionRefused("t"), RequestRefused("t"), NotVisibleYet("t"), TooMuchAsked("t")]
)
def test_an_answer_that_is_an_error_is_heard_before_anything_is_asked_again(error: LeadSyncError) -> None:
    """A scope on trial grants nothing until its answer is told, and any answer but a throttle tells it."""
    usage = Usage(PAGE, "leadgen", 7, 1, 1, 0)
    bench = Bench(says=deque([answered(error, usage)]))
    bench.read(in_flight(1))
    assert bench.budget.usages[0] == (PAGE, (usage,))
    assert len(bench.budget.usages) == len(bench.budget.asked)


@pytest.mark.parametrize("count", [1, 3])
def test_a_throttle_of_the_whole_request_hands_its_usage_on(count: int) -> None:
    """By it the budget knows which ad account is meant."""
    usage = Usage("777", "ads_management", 100, 1, 1, 20)
    bench = Bench(says=deque([answered(Throttled("told", until=at(9), scope="ad_account"), usage)]))
    bench.read(*some(count))
    assert bench.budget.closed_with == [(usage,)]


def test_a_lead_whose_answer_is_too_large_harms_none_beside_it_and_ends_dead() -> None:
    """Its batch is halved down to it once; from then on it is read alone, a few times, and the reason is its own."""
    bench = Bench()

    def say(leadgen_ids: Sequence[str], fields: Sequence[str]) -> LeadsRead:
        if "13" in leadgen_ids:
            raise answered(AnswerTooLarge("told"))
        return LeadsRead(tuple(graph_lead(i) for i in leadgen_ids), ())

    bench.graph.says = deque([say] * 500)
    first = bench.read(*some(50))
    assert [i for i, outcome in first.items() if not isinstance(outcome, Stored)] == ["13"]
    halving = len(bench.graph.asked)
    assert halving <= 2 * 6 + 1
    ended = first["13"]
    while isinstance(ended, Retry):
        huge = replace(in_flight(13), attempts=ended.attempts, failed_for=ended.reason)
        outcomes = bench.read(*some(12), huge)
        assert all(isinstance(outcome, Stored) for i, outcome in outcomes.items() if i != "13")
        ended = outcomes["13"]
    assert ended == DeadLetter("answer_too_large")
    assert len(bench.graph.asked) - halving == 2 * (TOO_LARGE_ATTEMPTS - 1)
