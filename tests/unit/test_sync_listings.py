"""Listings in the live path: leads that come along with them, and references that wait for one."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.graph import FakeBudget, FakeTokens, FormGraph
from tests.fakes.leads import FORM, OTHER_PAGE, PAGE, at, in_flight
from tests.fakes.time import NOW, FrozenClock
from tests.unit.sync_bench import Bench, ids, some
from worker.batches import InFlight
from worker.budget.policy import Refusal
from worker.errors import (
    GrantLapsed,
    GraphUnavailable,
    RequestRefused,
    Throttled,
    TooMuchAsked,
)
from worker.outcomes import DeadLetter, RetryPolicy, Snooze, Stored
from worker.reading import LeadReader
from worker.speed import SLOW_CALL_SECONDS


def along(*numbers: int) -> tuple[InFlight, ...]:
    """Leads that a listing brought and nobody had asked for."""
    return tuple(InFlight.listed(str(n), PAGE, FORM, NOW) for n in numbers)


pytestmark = pytest.mark.usefixtures("jumping_run")


def test_of_what_came_along_only_the_new_is_written() -> None:
    """Leads that a listing brought unasked are committed where they wait or are unknown, not where they are stored."""
    bench = Bench(some(1))
    bench.store.rows = {"70": "stored", "71": "waiting", "73": "erased", "74": "in_part", "75": "dead"}
    bench.reader.brings = {"1": along(70, 71, 72, 73, 74, 75)}
    assert bench.run() == {"stored": 5}
    assert sorted(ids(r for r, _ in bench.store.settled)) == ["1", "71", "72", "74", "75"]
    assert ids(bench.source.finished) == ["1"]
    assert bench.reader.sparings == {PAGE: 1}  # the one that waited; nobody would have called for the others


def test_who_queues_while_its_lead_comes_along_is_done_unread() -> None:
    """A reference whose lead another call brought is acknowledged after that commit, and nobody asks for it."""
    bench = Bench(some(500), calls_per_page=1)
    bench.reader.brings = {"1": along(*range(101, 401))}
    assert bench.run() == {"stored": 500}
    assert not {str(n) for n in range(101, 401)} & set(bench.reader.read_ids())
    assert sorted(bench.reader.read_ids(), key=int) == [str(n) for n in [*range(1, 101), *range(401, 501)]]
    assert len(bench.source.finished) == 500
    assert bench.reader.sparings == {PAGE: 300}


def test_whose_lead_came_along_before_it_was_taken_is_done_unread() -> None:
    """An entry that is still in the stream when its lead is brought finds its row there."""
    bench = Bench(some(100), at_once=50, references=50)
    bench.reader.brings = {"1": along(*range(51, 101))}
    assert bench.run() == {"stored": 100, "known": 50}
    assert bench.reader.read_ids() == [str(n) for n in range(1, 51)]


def test_duplicates_of_a_lead_that_came_along_are_all_done() -> None:
    """Every copy of an announcement is acknowledged by the commit that the lead came with."""
    copies = [in_flight(160, entry_id=f"2-{n}".encode()) for n in range(20)]
    bench = Bench([*some(150), *copies], calls_per_page=1)
    bench.reader.brings = {"7": along(160)}
    assert bench.run() == {"stored": 151, "joined": 19}
    assert "160" not in bench.reader.read_ids()
    assert len(bench.source.finished) == 170


def test_what_came_along_waits_for_the_store_like_any_other() -> None:
    """A store that is away when it is asked which of them are new loses none of them."""
    bench = Bench(some(1))
    bench.reader.brings = {"1": along(70, 71)}
    failures = iter([True] * 5)
    bench.store.fails = lambda: bool(bench.reader.batches) and next(failures, False)
    assert bench.run() == {"stored": 3}
    assert bench.store.refused == 5


def test_who_was_asked_for_is_not_settled_twice_in_one_commit() -> None:
    """A lead that comes along beside its own reading is settled as the reference that was asked for."""
    bench = Bench(some(2))
    bench.reader.brings = {"1": along(2, 1)}
    assert bench.run() == {"stored": 2}
    assert [r.unasked for r, _ in bench.store.settled] == [False, False]


@pytest.mark.parametrize(("denied", "brings"), [(1, 51), (51, 1), (1, 2)])
def test_a_lead_that_came_along_beats_the_failure_of_its_own_reading(denied: int, brings: int) -> None:
    """Where a lead is denied and brought in one commit, in whichever order, it is stored and not buried."""
    bench = Bench(some(51))
    bench.reader.outcomes = {str(denied): DeadLetter("not_visible")}
    bench.reader.brings = {str(brings): along(denied)}
    bench.run()
    assert [type(o) for r, o in bench.store.settled if r.leadgen_id == str(denied)] == [Stored]
    assert bench.store.commits == [51]


def test_whose_lead_came_along_keeps_its_webhook() -> None:
    """A row whose reference was queued says when its webhook came, though a listing brought the lead."""
    bench = Bench(some(60), calls_per_page=1)
    bench.reader.brings = {"1": along(60)}
    bench.run()
    (settled,) = [r for r, _ in bench.store.settled if r.leadgen_id == "60"]
    assert (settled.source, settled.received_at) == ("webhook", NOW)


def of_form(count: int, first: int = 1, *, seconds: float = 0.0, **changed: Any) -> list[InFlight]:
    """References of one form, one created a second."""
    return [
        in_flight(n, created_time=NOW + timedelta(seconds=n - first + seconds), **changed)
        for n in range(first, first + count)
    ]


class ListingBench(Bench):
    """A run that reads by the real reader, from forms that hold every lead that was announced."""

    def __init__(self, references: Iterable[InFlight], /, *, at_once: int = 500, **limits: Any) -> None:
        references = list(references)
        super().__init__(references, at_once=at_once, **limits)
        self.graph = FormGraph(takes=1.0)
        for r in references:
            if r.form_id and r.created_time:
                of_one = self.graph.created.setdefault(r.form_id, {})
                of_one[r.leadgen_id] = r.created_time.timestamp()
        self.budget = FakeBudget()
        self.reader = LeadReader(
            graph=self.graph,
            budget=self.budget,
            tokens=FakeTokens(),
            policy=RetryPolicy(),
            clock=FrozenClock(),
            dice=lambda: 0.5,
        )


def test_a_backlog_of_one_form_is_a_few_calls() -> None:
    """Fifteen hundred leads of one form are listed, not read one by one."""
    bench = ListingBench(of_form(1_500), at_once=1_500)
    assert bench.run() == {"stored": 1_500}
    assert bench.graph.read_ids() == []
    assert bench.budget.savings
    assert len(bench.graph.listed) <= 6


def test_references_of_a_form_under_way_wait_for_its_end() -> None:
    """Who comes while its form is being listed is not asked for beside it, and is read when the listing has ended."""
    bench = ListingBench([*of_form(200), *of_form(70, 1_000), *of_form(3, 2_000)], at_once=200)
    seen: list[int] = []

    async def look() -> None:
        await asyncio.sleep(0.9)
        seen.append(len(bench.source.taken))
        assert len(bench.graph.listed) == 1
        assert bench.graph.asked == []

    bench.graph.created[FORM] = {i: at for i, at in bench.graph.created[FORM].items() if int(i) <= 200}
    assert bench.run(look()) == {"stored": 273}
    assert seen == [273]
    assert set(bench.graph.read_ids()) == set(ids([*of_form(70, 1_000), *of_form(3, 2_000)]))
    assert bench.graph.most_at_once == 1


def test_who_waits_for_a_form_holds_up_no_other() -> None:
    """Behind references of a form under way those of another form and another Page are read at once."""
    others = [in_flight(n, form_id="5") for n in range(5_000, 5_010)]
    elsewhere = [in_flight(n, OTHER_PAGE, form_id="6") for n in range(9_000, 9_010)]
    bench = ListingBench([*of_form(200), *of_form(70, 1_000), *others, *elsewhere], at_once=200)
    bench.graph.per_page = 20

    async def look() -> None:
        await asyncio.sleep(2.5)
        assert {*ids(others), *ids(elsewhere)} <= bench.store.committed()
        assert "1" not in bench.store.committed()

    bench.run(look())
    assert len(bench.store.committed()) == 290


def test_who_comes_behind_those_that_wait_for_a_form_is_read_at_once() -> None:
    """That a Page had nothing to ask is no reason to leave what comes for it unasked."""
    others = [in_flight(n, form_id="5") for n in range(5_000, 5_010)]
    bench = ListingBench([*of_form(200), *of_form(200, 1_000), *others], at_once=200)
    bench.graph.per_page = 20

    async def look() -> None:
        await asyncio.sleep(2.5)
        assert set(ids(others)) <= bench.store.committed()
        assert "1" not in bench.store.committed()

    bench.run(look())
    assert len(bench.store.committed()) == 410


def test_a_form_that_is_named_under_two_pages_keeps_neither_waiting() -> None:
    """Who waits for a listing that another Page's references began is read when it has ended."""
    bench = ListingBench([*of_form(200), *of_form(70, 1_000, page_id=OTHER_PAGE, seconds=1_000)], at_once=200)
    assert bench.run() == {"stored": 270}


def test_who_waits_for_a_form_is_done_by_what_the_listing_brings() -> None:
    """References that arrive while their leads are being listed are acknowledged by that listing, unread."""
    bench = ListingBench([*of_form(200), *of_form(50, 1_000)], at_once=200)
    bench.run()
    assert len(bench.graph.listed) == 1
    assert bench.graph.read_ids() == []
    assert len(bench.source.finished) == 250


def test_who_waits_for_a_listing_that_hangs_is_left_to_the_waiting_room() -> None:
    """References behind a slow Page's listing become waiting rows while it hangs, though none may be asked for."""
    bench = ListingBench([*of_form(200), *of_form(70, 1_000, seconds=1_000)], at_once=200)
    bench.graph.takes = 20.0

    async def look() -> None:
        await asyncio.sleep(SLOW_CALL_SECONDS + 1)
        slow = [r for r, o in bench.store.settled if isinstance(o, Snooze) and o.reason == "page_slow"]
        assert ids(slow) == ids(of_form(70, 1_000, seconds=1_000))

    assert bench.run(look()) == {"snoozed": 70, "stored": 200}


def test_who_waits_for_a_listing_is_not_planned_again_and_again() -> None:
    """What happens meanwhile to other Pages is no reason to look once more at who waits for a listing."""
    others = [in_flight(n, OTHER_PAGE, form_id=None) for n in range(5_000, 5_400)]
    bench = ListingBench(
        [*of_form(200), *of_form(70, 1_000, seconds=1_000), *others], at_once=200, calls_per_page=2
    )
    bench.graph.per_page = 100
    plan, planned = bench.reader.plan, Counter[str]()

    def counted(page_id: str, *of: Any) -> Any:
        planned[page_id] += 1
        return plan(page_id, *of)

    bench.reader.plan = counted
    assert bench.run() == {"stored": 670}
    assert len(bench.graph.asked) >= 8
    assert planned[PAGE] <= 4


def test_under_a_backlog_leads_of_several_forms_wait_to_be_listed() -> None:
    """What is taken at once holds few leads of each form; of what is taken next there are enough for a listing."""
    forms = [
        of_form(200, 1_000 * (3 * page + form), page_id=str(page), form_id=f"{page}{form}")
        for page in range(1, 5)
        for form in range(3)
    ]
    bench = ListingBench([r for of_each in zip(*forms, strict=True) for r in of_each])
    assert bench.run() == {"stored": 2_400}
    assert len(bench.graph.read_ids()) <= 500


def test_a_form_is_listed_once_at_a_time() -> None:
    """Two stretches of one form, far apart, are listed one after the other, though both could start at once."""
    bench = ListingBench([*of_form(100), *of_form(100, 1_000, seconds=-80_000)])
    assert bench.run() == {"stored": 200}
    assert bench.graph.most_at_once == 1


def test_a_listing_that_a_stop_cuts_off_gives_all_back() -> None:
    """A listing that hangs beyond the end of its run is given up, and its references with those behind it go back."""
    bench = ListingBench([*of_form(200), *of_form(70, 1_000)], at_once=200)
    bench.graph.takes = 10**6
    bench.stop = lambda: len(bench.source.taken) == 270
    assert bench.run() == {"given_back": 270}
    assert bench.reader.plan(PAGE, tuple(of_form(200))) != ()


REFUSALS = [
    GraphUnavailable("told"),
    TooMuchAsked("told"),
    GrantLapsed("told"),
    RequestRefused("told"),
    Throttled("told", until=at(60), scope="page"),
    KeyError(),
]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_nobody_is_lost_between_listings_and_ids(seed: int) -> None:
    """However forms, listings, refusals and stops are mixed, each reference is done after its commit or given back."""
    dice = random.Random(seed)
    references = []
    for n in range(dice.randint(1, 600)):
        page_id = str(dice.randint(1, 2))
        seconds = dice.choice([dice.uniform(0, 300), dice.uniform(0, 300), dice.uniform(-(10**6), 0)])
        references.append(
            in_flight(
                dice.randint(1, 400),
                page_id,
                form_id=dice.choice([f"{page_id}7", f"{page_id}7", f"{page_id}8", None]),
                created_time=dice.choice([None, *[at(seconds)] * 5]),
                entry_id=f"{n}-0".encode(),
                in_part=dice.random() < 0.05,
                turn=dice.choice([None] * 5 + [3]),
            )
        )
    bench = ListingBench(
        references,
        at_once=dice.randint(1, 600),
        references=dice.choice([50, 2_000]),
        calls_per_page=dice.randint(1, 4),
        keep_every=1.0,
    )
    trouble = dice.choice([0.0, 0.05, 0.5])
    bench.graph.faults = lambda: dice.choice(REFUSALS) if dice.random() < trouble else None
    bench.graph.takes = dice.choice([0.0, 0.2, 3.0])
    bench.graph.per_page = dice.choice([1, 20, 500])
    for leads in bench.graph.created.values():
        for gone in dice.sample(sorted(leads), len(leads) // 10):
            del leads[gone]
        leads |= {str(n): NOW.timestamp() + dice.uniform(0, 300) for n in range(1_000, 1_030)}
    bench.budget.left = dice.choice([0, 10**6])
    bench.budget.grants = dice.choice([1, 7, 1_000])
    bench.budget.says.extend([Refusal(at(5), "budget")] * dice.choice([0, 0, 1]))
    stop_after = dice.choice([10**9, 10**9, 20])
    bench.stop = lambda: len(bench.source.taken) > stop_after
    bench.run()
