"""Forms are found in Graph's listings, whatever stands in them, and one Page's trouble is no other's."""

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.graph import FakeBudget, FakeTokens, PagesGraph, answered
from tests.fakes.leads import OTHER_PAGE, PAGE, at
from tests.fakes.time import NOW, FrozenClock
from worker.budget.policy import Answer, Lane, Refusal
from worker.errors import (
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
from worker.form import DEEPEST, MOST_BYTES, MOST_TEXT, Form
from worker.forms import AT_ONCE, FORMS_LIMIT, MOST_PAGES, Discovered, FormAges, FormFinder
from worker.graph.usage import Usage
from worker.graph.wire import FORM_COUNT_FIELDS, FORM_FIELDS, ResultPage
from worker.sealing import KeysUnreadable

TOKENLESS = "153125381999"


@dataclass
class PagesBudget(FakeBudget):
    """`answers` stand for grants of a Page, an error in place of one."""

    answers: dict[str, Answer | LeadSyncError] = field(default_factory=dict)

    async def request(self, page_id: str, calls: int, lane: Lane, *, also: tuple[str, ...] = ()) -> Answer:
        said = self.answers.get(page_id)
        if isinstance(said, LeadSyncError):
            raise said
        granted = await super().request(page_id, calls, lane)
        return said or granted


@dataclass
class FormRows:
    """Pages that are due, and the forms of each as they were told last; `fails` in place of keeping them."""

    due: tuple[str, ...] = ()
    fails: dict[str, Exception] = field(default_factory=dict)
    due_asked: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    kept: defaultdict[str, dict[str, Form]] = field(default_factory=lambda: defaultdict(dict))
    seen: set[str] = field(default_factory=set)
    whole: list[tuple[str, datetime]] = field(default_factory=list)
    stale: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refreshed: list[str] = field(default_factory=list)

    async def due_pages(self, *, before: datetime, unseen_before: datetime, most: int) -> tuple[str, ...]:
        self.due_asked = {"before": before, "unseen_before": unseen_before, "most": most}
        return self.due

    async def asking(self, page_id: str, now: datetime) -> None:
        self.asked.append(page_id)

    async def keep_forms(
        self, page_id: str, forms: Sequence[Form], now: datetime, *, listed: bool = True
    ) -> tuple[str, ...]:
        if page_id in self.fails:
            raise self.fails[page_id]
        self.kept[page_id] |= {form.form_id: form for form in forms}
        new = tuple(form.form_id for form in forms if listed and form.form_id not in self.seen)
        self.seen |= set(new)
        return new

    async def listed_whole(self, page_id: str, began: datetime) -> None:
        self.whole.append((page_id, began))

    async def stale_views(self, page_id: str) -> tuple[str, ...]:
        return self.stale.get(page_id, ())

    async def refresh_views(self, form_ids: Sequence[str], now: datetime) -> tuple[str, ...]:
        self.refreshed += form_ids
        return tuple(form_ids)


class Bench:
    """A finder with its neighbours."""

    def __init__(self, *due: str, others: Sequence[str] = ()) -> None:
        self.graph = PagesGraph()
        self.budget = PagesBudget()
        self.rows = FormRows(due)
        self.stop: Callable[[], bool] = lambda: False
        self.finder = FormFinder(
            graph=self.graph,
            budget=self.budget,
            rows=self.rows,
            tokens=FakeTokens(frozenset({TOKENLESS}), {PAGE: list(others)}),
            ages=FormAges(),
            clock=FrozenClock(),
        )

    def run(self) -> dict[str, int]:
        return asyncio.run(self.finder.run(self.stop))

    def discover(self, page_id: str = PAGE, lane: Lane = Lane.UPKEEP) -> Discovered:
        return asyncio.run(self.finder.discover(page_id, lane))

    def read(self, form_id: str = "7", lane: Lane = Lane.UPKEEP) -> Discovered:
        return asyncio.run(self.finder.read_form(form_id, PAGE, lane))


def a_form(form_id: int | str, **changed: Any) -> dict[str, Any]:
    """Graph's JSON for a form whose leads are as many as its id."""
    return {"id": str(form_id), "status": "ACTIVE", "leads_count": int(form_id), "name": "F", **changed}


def forms(*ids: int, after: str | None = None, usages: tuple[Usage, ...] = ()) -> ResultPage:
    return ResultPage(tuple(a_form(n) for n in ids), after, usages)


def test_pages_that_are_due_are_listed() -> None:
    """Forms are listed again after six hours, or five minutes after the last time where a lead names an unseen one."""
    bench = Bench(PAGE, OTHER_PAGE)
    bench.graph.says[PAGE].append(forms(1, 2))
    bench.graph.says[OTHER_PAGE].append(forms(5))
    assert bench.run() == {"pages": 2, "forms": 3, "new": 3}
    assert bench.rows.due_asked == {
        "before": NOW - timedelta(hours=6),
        "unseen_before": NOW - timedelta(minutes=5),
        "most": MOST_PAGES,
    }
    assert sorted(bench.rows.asked) == [PAGE, OTHER_PAGE]
    bench.graph.says[PAGE].append(forms(1, 2, 3))
    assert bench.run() == {"pages": 2, "forms": 3, "new": 1}


def test_nothing_due_is_no_call() -> None:
    """Where every Page was asked lately nobody is."""
    bench = Bench()
    assert bench.run() == {"pages": 0, "forms": 0, "new": 0}
    assert (bench.graph.listed, bench.budget.asked) == ([], [])


@pytest.mark.parametrize("lane", [Lane.UPKEEP, Lane.BACKFILL])
def test_forms_are_listed_over_all_result_pages(lane: Lane) -> None:
    """Each result page is a call in the caller's lane, by the cursor before it; even an empty one may go on."""
    usage = Usage(PAGE, "leadgen", 7, 1, 1, 0)
    bench = Bench()
    bench.graph.says[PAGE] += [forms(1, 2, after="b"), forms(after="c"), forms(3, usages=(usage,))]
    bench.rows.seen = {"2"}
    assert bench.discover(lane=lane) == Discovered(("1", "2", "3"), ("1", "3"), whole=True)
    assert bench.graph.listed == [(PAGE, FORMS_LIMIT, after, FORM_FIELDS) for after in (None, "b", "c")]
    assert bench.graph.tokens == [f"token-of-{PAGE}"] * 3
    assert bench.budget.asked == [(PAGE, 1, lane)] * 3
    assert bench.budget.usages == [(PAGE, ()), (PAGE, ()), (PAGE, (usage,))]
    assert bench.rows.kept[PAGE]["3"] == Form("3", status="ACTIVE", name="F", leads_count=3)
    assert bench.rows.whole == [(PAGE, NOW)]


def test_views_that_are_stale_are_made_anew_after_a_listing() -> None:
    """Whatever came of the listing, the Page's views follow what is known by then."""
    bench = Bench()
    bench.rows.stale = {PAGE: ("1", "9"), OTHER_PAGE: ("3",)}
    bench.graph.says[PAGE] += [forms(1, after="b"), GraphUnavailable("told")]
    assert not bench.discover().whole
    assert bench.rows.refreshed == ["1", "9"]


def test_a_form_that_is_told_twice_is_one() -> None:
    """A listing that moves while it is read may show a form again; the later word holds."""
    bench = Bench()
    twice = ResultPage((a_form(1, name="old"), a_form(1, name="new"), a_form(2)), "b", ())
    bench.graph.says[PAGE] += [twice, ResultPage((a_form(2, name="newer"),), None, ())]
    assert bench.discover() == Discovered(("1", "2"), ("1", "2"), whole=True)
    assert [form.name for form in bench.rows.kept[PAGE].values()] == ["new", "newer"]


def test_a_listing_that_runs_in_a_circle_ends() -> None:
    """A cursor that was followed before is not followed again, and the listing is not whole."""
    bench = Bench()
    bench.graph.says[PAGE] += [forms(1, after="b"), forms(2, after="c"), forms(3, after="b"), forms(4)]
    assert bench.discover() == Discovered(("1", "2", "3"), ("1", "2", "3"), False, "cursor_repeated")
    assert len(bench.graph.listed) == 3


ERRORS = [
    GraphUnavailable("told"),
    ProofRefused("told"),
    NotVisibleYet("told"),
    GrantLapsed("told"),
    Throttled("told", until=at(9), scope="page", regain=timedelta(minutes=3)),
]


@pytest.mark.parametrize("error", ERRORS)
def test_a_page_that_cannot_be_asked_harms_no_other(error: LeadSyncError) -> None:
    """One Page's error ends its own listing, which keeps what came before; a throttle is told to the budget."""
    bench = Bench(PAGE, OTHER_PAGE)
    bench.graph.says[PAGE] += [forms(1, after="b"), error, forms(3)]
    bench.graph.says[OTHER_PAGE] += [forms(5, after="b"), forms(6)]
    assert bench.run() == {"pages": 1, "forms": 3, "new": 3}
    assert (set(bench.rows.kept[PAGE]), set(bench.rows.kept[OTHER_PAGE])) == ({"1"}, {"5", "6"})
    assert bench.rows.whole == [(OTHER_PAGE, NOW)]
    told = [(PAGE, "page", timedelta(minutes=3))] if isinstance(error, Throttled) else []
    assert bench.budget.closed == told


def test_why_a_listing_is_not_whole_is_told() -> None:
    """A refusal of the budget and a throttle say from when on; an error says its fixed word."""
    bench = Bench()
    bench.graph.says[PAGE] += [
        GraphUnavailable("told"),
        Throttled("told", until=at(9), scope="page", regain=timedelta(minutes=3)),
    ]
    assert bench.discover() == Discovered((), (), False, "graph_unavailable")
    assert bench.discover() == Discovered((), (), False, "throttled", at(180))
    bench.budget.answers[PAGE] = Refusal(at(60), "budget")
    assert bench.discover() == Discovered((), (), False, "budget", at(60))
    assert len(bench.graph.listed) == 2


def test_a_page_without_a_token_is_not_asked() -> None:
    """No call is made, and none is granted, without a token."""
    bench = Bench(TOKENLESS)
    assert bench.run() == {"pages": 0, "forms": 0, "new": 0}
    assert (bench.graph.listed, bench.budget.asked) == ([], [])


def test_result_pages_that_are_too_large_are_halved() -> None:
    """Graph's wish for less is met at once and from the same place; of a single form the counts are left to ask."""
    bench = Bench()
    bench.graph.says[PAGE] += [forms(1, after="b"), TooMuchAsked("t"), forms(2, after="c"), forms(3)]
    assert bench.discover().whole
    assert [(limit, after) for _, limit, after, _ in bench.graph.listed] == [
        (FORMS_LIMIT, None),
        (FORMS_LIMIT, "b"),
        (FORMS_LIMIT // 2, "b"),
        (FORMS_LIMIT // 2, "c"),
    ]
    never = Bench()
    never.graph.says[PAGE] += [TooMuchAsked("t")] * 50
    assert never.discover() == Discovered((), (), False, "too_much_asked")
    assert [limit for _, limit, _, _ in never.graph.listed] == [100, 50, 25, 12, 6, 3, 1, 1]
    assert never.graph.listed[-1][3] == FORM_COUNT_FIELDS


@pytest.mark.parametrize("refused", [PermissionRefused("told"), RequestRefused("told")])
def test_a_definition_that_is_refused_leaves_the_counts(refused: LeadSyncError) -> None:
    """Where the full list of fields is refused the counts are asked for, from the same place; then that is all."""
    bench = Bench()
    bench.graph.says[PAGE] += [forms(1, after="b"), refused, forms(2, after="c"), forms(3)]
    assert bench.discover() == Discovered(("1", "2", "3"), ("1", "2", "3"), whole=True)
    assert [(after, fields) for _, _, after, fields in bench.graph.listed] == [
        (None, FORM_FIELDS),
        ("b", FORM_FIELDS),
        ("b", FORM_COUNT_FIELDS),
        ("c", FORM_COUNT_FIELDS),
    ]
    bench.graph.says[PAGE] += [refused, refused, forms(9)]
    assert bench.discover() == Discovered((), (), False, refused.reason)


@pytest.mark.parametrize("away", [LedgerUnavailable("told"), StoreUnavailable("told")])
def test_without_redis_or_postgres_the_run_ends(away: LeadSyncError) -> None:
    """A neighbour that is away is told and not taken for a Page's trouble."""
    bench = Bench(PAGE)
    bench.budget.answers[PAGE] = away
    with pytest.raises(ExceptionGroup) as told:
        bench.run()
    assert told.value.exceptions == (away,)
    with pytest.raises(type(away)):
        bench.discover()


def test_a_token_that_cannot_be_opened_for_now_is_one_page_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key file may have its key again soon; the forms of other Pages are listed."""
    token_for = FakeTokens.token_for

    async def opened(tokens: FakeTokens, page_id: str) -> str:
        if page_id == PAGE:
            raise KeysUnreadable("told")
        return await token_for(tokens, page_id)

    monkeypatch.setattr(FakeTokens, "token_for", opened)
    bench = Bench(PAGE, OTHER_PAGE)
    bench.graph.says[OTHER_PAGE].append(forms(5))
    assert bench.run() == {"pages": 1, "forms": 1, "new": 1}
    assert bench.discover() == Discovered((), (), False, "keys_unreadable")


def test_a_fault_of_ours_with_one_page_harms_no_other() -> None:
    """What nobody thought of costs one Page its forms, until the next run."""
    bench = Bench(PAGE, OTHER_PAGE)
    bench.graph.says[PAGE].append(forms(1))
    bench.graph.says[OTHER_PAGE].append(forms(5))
    bench.rows.fails[PAGE] = ZeroDivisionError("told")
    assert bench.run() == {"pages": 1, "forms": 1, "new": 1}


def test_a_hanging_page_holds_up_no_other() -> None:
    """While some Pages' calls hang all others are listed; at most so many are looked after at once."""
    pages = [str(n) for n in range(1, 31)]
    bench = Bench(*pages)

    async def scenario() -> None:
        hangs = asyncio.Event()
        bench.graph.hangs = dict.fromkeys(pages[: AT_ONCE - 1], hangs)
        running = asyncio.ensure_future(bench.finder.run(lambda: False))
        while len(bench.rows.whole) < len(pages) - (AT_ONCE - 1):
            assert not running.done()
            await asyncio.sleep(0)
        assert {page_id for page_id, _ in bench.rows.whole} == set(pages[AT_ONCE - 1 :])
        hangs.set()
        assert await running == {"pages": 30, "forms": 0, "new": 0}

    asyncio.run(asyncio.wait_for(scenario(), 10))
    assert bench.graph.most_at_once == AT_ONCE


def test_a_stop_leaves_the_rest_for_the_next_run() -> None:
    """Told to stop, nobody begins with another Page."""
    bench = Bench(*(str(n) for n in range(1, 31)))
    bench.stop = lambda: len(bench.rows.whole) >= 3
    assert 3 <= bench.run()["pages"] < 3 + AT_ONCE


def test_a_form_that_is_asked_for_by_its_id_is_one_call() -> None:
    """It is kept with its view, in the caller's lane, and is new to the listing that will hold it."""
    bench = Bench()
    usage = Usage(PAGE, "leadgen", 7, 1, 1, 0)
    bench.graph.usages = (usage,)
    bench.graph.forms["7"] = answers(a_form(7))
    assert bench.read(lane=Lane.BACKFILL) == Discovered(("7",), (), whole=True)
    assert bench.graph.read == [("7", FORM_FIELDS)]
    assert bench.budget.asked == [(PAGE, 1, Lane.BACKFILL)]
    assert bench.budget.usages == [(PAGE, (usage,))]
    assert bench.rows.kept[PAGE]["7"].leads_count == 7
    assert (bench.rows.refreshed, bench.rows.whole, bench.rows.asked) == (["7"], [], [])


def answers(*told: Any) -> deque[Any]:
    return deque(told)


def test_a_form_by_its_id_may_be_refused_in_part_or_whole() -> None:
    """The counts are left where the definition is refused; an error says its word; another form is none."""
    bench = Bench()
    bench.graph.forms["7"] = answers(RequestRefused("t"), a_form(7), NotVisibleYet("t"), a_form(8), [])
    assert bench.read().whole
    assert [fields for _, fields in bench.graph.read] == [FORM_FIELDS, FORM_COUNT_FIELDS]
    assert bench.read() == Discovered((), (), False, "not_visible")
    assert bench.read() == bench.read() == Discovered((), (), False, "form_malformed")
    assert set(bench.rows.kept[PAGE]) == {"7"}


def test_a_form_is_read_from_what_graph_tells() -> None:
    """Counts, status and definition stand where Graph puts them; the disclaimer is the custom one."""
    questions = [{"id": "1", "key": "größe?", "label": "Größe?", "type": "CUSTOM", "options": [{"key": "a"}]}]
    disclaimer = {
        "title": "T",
        "checkboxes": [{"key": "optional_1", "text": "Call me", "is_required": False}],
    }
    told = {
        "id": "7",
        "status": "ARCHIVED",
        "name": "Häuser 🏠",
        "locale": "de_DE",
        "created_time": "2026-10-01T10:00:00+0200",
        "leads_count": 9,
        "expired_leads_count": 2,
        "questions": questions,
        "legal_content": {"id": "5", "custom_disclaimer": disclaimer},
        "tracking_parameters": [{"key": "utm", "value": "x"}],
    }
    assert Form.from_graph(told) == Form(
        "7",
        "ARCHIVED",
        "Häuser 🏠",
        "de_DE",
        datetime(2026, 10, 1, 8, 0, tzinfo=UTC),
        9,
        2,
        questions,  # type: ignore[arg-type]
        disclaimer,  # type: ignore[arg-type]
        [{"key": "utm", "value": "x"}],
    )


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
    """What Meta counts is noted where it is a sane number."""
    form = Form.from_graph({"id": "1", "leads_count": told, "expired_leads_count": told})
    assert form == Form("1", leads_count=count, expired_leads_count=count)


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "questions",
    [
        None,
        5,
        "text",
        {"key": "a"},
        True,
        pytest.param([{"key": "k" * MOST_BYTES}], id="huge"),
        pytest.param([nested(DEEPEST)], id="deep"),
        pytest.param([nested(900)], id="very deep"),
    ],
)
def test_questions_that_are_none_are_not_told(questions: object) -> None:
    """What is no list, too large or nested beyond reason counts as not told, and the rest of the form stays."""
    form = Form.from_graph(a_form(3, questions=questions, legal_content={"custom_disclaimer": questions}))
    assert form is not None
    assert (form.questions, form.name, form.leads_count) == (None, "F", 3)


def test_what_postgres_cannot_hold_is_replaced() -> None:
    """As in a lead, so that keys still agree: NUL and lone surrogates become U+FFFD; entries that are none go."""
    form = Form.from_graph(
        a_form(
            3,
            name="N\x00\ud800" + "x" * MOST_TEXT,
            questions=[{"key": "a\x00", "label": "\ud83c", "n\x00": [float("nan"), 1, None]}, 5, None, "x"],
            tracking_parameters={"utm\x00": float("inf")},
            status="AC\x00TIVE",
            locale=["de"],
            created_time="yesterday",
        )
    )
    assert form is not None
    assert form.name == "N\ufffd" + "\ufffd" * 3 + "x" * (MOST_TEXT - 3)
    assert form.questions == [{"key": "a\ufffd", "label": "\ufffd" * 3, "n\ufffd": ["nan", 1, None]}]
    assert form.tracking_parameters == [{"key": "utm\ufffd", "value": "inf"}]
    assert (form.status, form.locale, form.created_time) == (None, None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec=None), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = ["id", *FORM_FIELDS, "legal_content"]


@given(st.lists(JSON | st.dictionaries(st.sampled_from(NAMES), JSON), max_size=5))
def test_no_entry_raises(entries: list[Any]) -> None:
    """Whatever stands in a listing, what is kept has an id, counts that a row can hold and finite JSON."""
    bench = Bench()
    bench.graph.says[PAGE].append(ResultPage((*entries, a_form(9)), None, ()))
    assert bench.discover().whole
    kept = bench.rows.kept[PAGE]
    assert kept["9"].leads_count == 9
    for form in kept.values():
        assert form.form_id.isdigit()
        for count in (form.leads_count, form.expired_leads_count):
            assert count is None or 0 <= count < 2**53
        told = [form.name, form.questions, form.disclaimers, form.tracking_parameters]
        text = json.dumps(told, ensure_ascii=False, allow_nan=False)
        assert "\x00" not in text.encode().decode()
        assert isinstance(form.questions, list | None)


def test_a_refused_token_with_another_in_its_place_costs_one_call() -> None:
    """The listing goes on under the other token."""
    bench = Bench(others=["mended"])
    bench.graph.says[PAGE].extend([TokenRefused("told"), forms(1, 2)])
    assert bench.discover().found == ("1", "2")
    assert bench.graph.tokens == [f"token-of-{PAGE}", "mended"]


def test_tokens_that_are_refused_one_after_the_other_end_the_listing() -> None:
    """Asked again once at most, however often there is another token."""
    bench = Bench(others=[f"token {n}" for n in range(50)])
    bench.graph.says[PAGE].extend([TokenRefused("told")] * 50)
    told = bench.discover()
    assert (told.whole, told.reason) == (False, "token_refused")
    assert len(bench.graph.tokens) == 2


@pytest.mark.parametrize("refused", [PermissionRefused("told"), TooMuchAsked("told")])
def test_a_listing_that_is_refused_is_heard_before_the_next_is_asked_for(refused: LeadSyncError) -> None:
    """A scope on trial grants nothing until its answer is told, and any answer but a throttle tells it."""
    bench = Bench()
    bench.graph.says[PAGE] += [answered(refused), forms(1)]
    assert bench.discover().whole
    assert len(bench.budget.usages) == len(bench.budget.asked) == 2


def test_a_throttled_listing_hands_its_usage_on() -> None:
    """By it the budget knows which ad account is meant."""
    usage = Usage("777", "ads_management", 100, 1, 1, 20)
    bench = Bench()
    bench.graph.says[PAGE] += [answered(Throttled("told", until=at(9), scope="ad_account"), usage)]
    bench.discover()
    assert bench.budget.closed_with == [(usage,)]
