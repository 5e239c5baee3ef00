"""What a granted call answered is told to the budget: always, before its caller sees it, and by one file."""

import ast
import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.fakes.graph import FakeBudget, answered
from tests.fakes.leads import PAGE, at, graph_lead
from worker import errors
from worker.budget.policy import Grant
from worker.errors import LeadSyncError, LedgerUnavailable, NotVisibleYet, Throttled
from worker.granted import answer_of
from worker.graph.usage import Usage
from worker.graph.wire import LeadsRead

ROOT = Path(__file__).parents[2]
ASKING = {"read_leads", "list_leads", "list_forms", "read_form", "ask"}
"""Graph's calls that are made under a grant."""
USAGE = Usage("777", "ads_management", 100, 1, 1, 20)
GRANT = Grant(1, 60.0)


class DeafBudget(FakeBudget):
    """A budget whose ledger is away."""

    async def heard(self, *_: object, **__: object) -> None:
        raise LedgerUnavailable("told")


async def meets(error: Exception) -> LeadsRead:
    raise error


async def says(*leads: "object | LeadSyncError") -> LeadsRead:
    return LeadsRead(leads, (USAGE,))


def every_error() -> list[type[LeadSyncError]]:
    kinds = (kind for kind in vars(errors).values() if isinstance(kind, type))
    return [kind for kind in kinds if issubclass(kind, LeadSyncError) and kind is not Throttled]


@pytest.mark.parametrize("kind", every_error())
def test_whatever_graph_answers_is_heard(kind: type[LeadSyncError]) -> None:
    """An answer that is an error ends a trial, and its usage counts; a call that got none tells nothing."""
    budget = FakeBudget()
    with pytest.raises(kind):
        asyncio.run(answer_of(meets(kind("told")), budget, PAGE, GRANT))
    assert budget.usages == []
    with pytest.raises(kind):
        asyncio.run(answer_of(meets(answered(kind("told"), USAGE)), budget, PAGE, GRANT))
    assert budget.usages == [(PAGE, (USAGE,))]
    assert budget.closed == []


def test_a_throttle_closes_its_scope_with_the_usage_of_its_answer() -> None:
    """The usage names the ad account; whoever asked learns until when the budget closed it."""
    budget = FakeBudget(closes_for=timedelta(hours=1))
    throttled = answered(Throttled("told", until=at(9), scope="ad_account"), USAGE)
    with pytest.raises(Throttled) as told:
        asyncio.run(answer_of(meets(throttled), budget, PAGE, GRANT))
    assert (budget.closed, budget.closed_with) == ([(PAGE, "ad_account", None)], [(USAGE,)])
    assert told.value.until == at(3_600)
    assert budget.usages == []


def test_throttled_items_close_each_scope_once() -> None:
    """An answer of several throttles is one strike a scope, and each of its items waits as long as the budget says."""
    budget = FakeBudget()
    items = [Throttled("told", until=at(9), scope=scope) for scope in ("page", "app", "page")]
    told = asyncio.run(answer_of(says(graph_lead(1), *items), budget, PAGE, GRANT))
    assert budget.closed == [(PAGE, "page", None), (PAGE, "app", None)]
    assert budget.usages == []
    assert [item.until for item in told.leads[1:] if isinstance(item, Throttled)] == [at(300)] * 3


def test_a_refused_item_is_no_throttle() -> None:
    """A batch with refusals in it was answered."""
    budget = FakeBudget()
    asyncio.run(answer_of(says(graph_lead(1), NotVisibleYet("told")), budget, PAGE, GRANT))
    assert (budget.usages, budget.closed) == ([(PAGE, (USAGE,))], [])


def test_an_answer_that_is_paid_for_survives_a_ledger_that_is_away() -> None:
    """What Graph answered goes to whoever asked, an error as itself; a throttle then holds for Meta's own time."""
    assert len(asyncio.run(answer_of(says(graph_lead(1)), DeafBudget(), PAGE, GRANT)).leads) == 1
    with pytest.raises(NotVisibleYet):
        asyncio.run(answer_of(meets(answered(NotVisibleYet("told"))), DeafBudget(), PAGE, GRANT))
    budget = FakeBudget(fails_to_close=LedgerUnavailable("told"))
    with pytest.raises(Throttled) as told:
        asyncio.run(answer_of(meets(Throttled("told", until=at(9), scope="page")), budget, PAGE, GRANT))
    assert told.value.until == at(9)


def test_nobody_asks_graph_under_a_grant_but_through_here() -> None:
    """Whoever could ask past `answer_of` could forget to tell the budget, and a scope on trial would stay closed."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted((ROOT / "worker").rglob("*.py"))
        if path.name != "granted.py"
        for line in asked_past(ast.parse(path.read_text()))
    ]
    assert not wrong, "\n".join(wrong)


def test_a_call_that_passes_the_budget_by_is_seen() -> None:
    """The test above can fail."""
    past = "answer_of(self._graph.ask(r, g), b, p, g)\nself._graph.ask(r, g)\nnear.graph.ask(r, IN_NO_PAGES_NAME)"
    assert list(asked_past(ast.parse(past))) == [2]


def asked_past(tree: ast.Module) -> Iterator[int]:
    """Lines where Graph is asked under some Page's grant and not as the call of an `answer_of`."""
    handed = {
        id(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "answer_of" and node.args
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or id(node) in handed:
            continue
        whom = ast.unparse(node.func.value).rpartition(".")[2].lstrip("_")
        in_no_name = any(ast.unparse(told) == "IN_NO_PAGES_NAME" for told in node.args)
        if whom == "graph" and node.func.attr in ASKING and not in_no_name:
            yield node.lineno
