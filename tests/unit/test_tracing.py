"""Looking for a lead through fakes: Meta is asked only where nobody announced it, a granted call a Page."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.graph import FakeBudget, FakeGraph, FakeTokens
from tests.fakes.leads import FORM, OTHER_PAGE, PAGE, graph_lead
from tests.fakes.time import NOW
from worker.budget.policy import Lane, Refusal
from worker.errors import GraphUnavailable, LedgerUnavailable, NotVisibleYet, Throttled
from worker.graph.wire import LeadsRead
from worker.stream_search import Lying, Standing
from worker.tracing import LOOK_FIELDS, PAGES_AT_MOST, MetaSays, Trace, ask_meta, trace

LEAD = "900000000000001"
NOWHERE = Standing((), None, 0, (), whole=True)


@dataclass
class Rows:
    """A row, and a form of which all is known."""

    row: dict[str, Any] | None = None
    asked: list[str] = field(default_factory=list)

    async def lead(self, leadgen_id: str) -> dict[str, Any] | None:
        self.asked.append("lead")
        return self.row

    async def repaired(self, leadgen_id: str) -> dict[str, Any] | None:
        self.asked.append("repaired")
        return None

    async def erasure(self, leadgen_id: str) -> dict[str, Any] | None:
        self.asked.append("erasure")
        return None

    async def form(self, form_id: str) -> dict[str, Any] | None:
        self.asked.append(f"form {form_id}")
        return {"form_id": form_id}

    async def day(self, form_id: str, created: object) -> dict[str, Any] | None:
        self.asked.append("day")
        return None

    async def page(self, page_id: str) -> dict[str, Any] | None:
        self.asked.append(f"page {page_id}")
        return None


def look(
    rows: Rows, standing: Standing | Exception = NOWHERE, form_id: str | None = None
) -> tuple[Trace, int]:
    """The trace, and how often Meta was asked."""
    asked = []

    async def find(leadgen_id: str) -> Standing:
        if isinstance(standing, Exception):
            raise standing
        return standing

    async def ask(leadgen_id: str) -> MetaSays:
        asked.append(leadgen_id)
        return MetaSays(PAGE, FORM)

    found = asyncio.run(trace(LEAD, rows=rows, find=find, ask=ask, form_id=form_id))
    return found, len(asked)


def test_meta_is_asked_only_where_nobody_announced_it() -> None:
    """Not for a row, nor for what lies in the stream, nor where its form was told."""
    row = {"state": "stored", "form_id": FORM, "created_time": None, "page_id": PAGE}
    assert look(Rows(row))[1] == 0
    lying = Standing((Lying("1-0", PAGE, FORM, 1, 1),), None, 0, (), whole=True)
    found, asked = look(Rows(), lying)
    assert (asked, found.form) == (0, {"form_id": FORM})
    found, asked = look(Rows(), form_id="77")
    assert (asked, found.form) == (0, {"form_id": "77"})
    found, asked = look(Rows())
    assert (asked, found.form) == (1, {"form_id": FORM})


def test_redis_away_is_part_of_what_is_found() -> None:
    """The rows are told all the same."""
    found, _ = look(Rows(), LedgerUnavailable("Redis cannot be asked"))
    assert found.standing == "Redis cannot be asked"


def test_of_an_erased_lead_nothing_else_is_looked_up() -> None:
    """Neither its form nor its reconciliations."""
    rows = Rows({"state": "erased", "form_id": FORM, "created_time": None, "page_id": PAGE})
    look(rows)
    assert rows.asked == ["lead", "erasure"]


def ask(
    graph: FakeGraph, *page_ids: str, budget: FakeBudget | None = None, tokens: FakeTokens | None = None
) -> MetaSays:
    return asyncio.run(
        ask_meta(LEAD, page_ids, graph=graph, budget=budget or FakeBudget(), tokens=tokens or FakeTokens())
    )


def test_pages_are_asked_one_call_each_until_one_sees_it() -> None:
    """Under grants of upkeep, for ids and time only."""

    def fields_are_few(_: object, fields: object) -> LeadsRead:
        assert fields == LOOK_FIELDS
        return LeadsRead((graph_lead(LEAD),), ())

    graph, budget = FakeGraph(says=deque([NotVisibleYet("told"), fields_are_few])), FakeBudget()
    says = ask(graph, "1", "2", "3", budget=budget)
    assert (says.page_id, says.form_id, says.asked) == ("2", FORM, ("1",))
    assert budget.asked == [("1", 1, Lane.UPKEEP), ("2", 1, Lane.UPKEEP)]


def test_a_page_that_cannot_be_asked_says_why_and_the_others_are() -> None:
    """No token, no budget, Graph away: each is told, and a throttle goes to the budget."""
    graph = FakeGraph(
        says=deque([GraphUnavailable("told"), Throttled("told", until=NOW, scope="page"), NotVisibleYet("")])
    )
    budget = FakeBudget()
    says = ask(graph, PAGE, "2", "3", OTHER_PAGE, budget=budget, tokens=FakeTokens(without=frozenset({PAGE})))
    assert says.troubles == {PAGE: "token_refused", "2": "graph_unavailable", "3": "throttled"}
    assert says.asked == (OTHER_PAGE,)
    assert [page for page, *_ in budget.closed] == ["3"]


def test_no_call_is_made_that_was_not_granted() -> None:
    """A spent Page is passed over."""
    graph = FakeGraph()
    refused = FakeBudget(says=deque([Refusal(NOW, "budget")]))
    assert ask(graph, PAGE, budget=refused).troubles == {PAGE: "throttled"}
    assert graph.asked == []


def test_no_more_pages_are_asked_than_is_allowed() -> None:
    """The others are counted."""
    graph = FakeGraph(says=deque([NotVisibleYet("told")] * PAGES_AT_MOST))
    says = ask(graph, *map(str, range(1, PAGES_AT_MOST + 4)))
    assert (len(says.asked), says.left_out) == (PAGES_AT_MOST, 3)
