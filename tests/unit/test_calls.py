"""Single calls, of a Page or of nobody: granted first, told to the budget afterwards, granted anew where not sent."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from tests.fakes.graph import FakeBudget
from tests.fakes.time import NOW, FrozenClock
from worker.budget.policy import IN_NO_PAGES_NAME, Grant, Lane, Refusal
from worker.calls import LAPSES, Calls, NoCallNow, Read
from worker.errors import (
    GrantLapsed,
    GraphUnavailable,
    LeadSyncError,
    NotVisibleYet,
    StoreUnavailable,
    Throttled,
)
from worker.graph.wire import GraphAnswer, GraphRequest

PAGE = "1234"
REQUEST = GraphRequest("GET", "v26.0/1234", token="secret-token")
Made = Callable[["Graph", FakeBudget], object]
USAGE = {"x-app-usage": '{"call_count": 28, "total_time": 25, "total_cputime": 3}'}


@dataclass
class Graph:
    """Raises what it was told to, one after the other, and then answers; remembers the grants of its calls."""

    raises: deque[LeadSyncError] = field(default_factory=deque)
    grants: list[Grant] = field(default_factory=list)

    async def ask(self, request: GraphRequest, grant: Grant) -> GraphAnswer:
        assert request is REQUEST
        self.grants.append(grant)
        if self.raises:
            raise self.raises.popleft()
        return GraphAnswer(200, USAGE, b"told")


def read(answer: GraphAnswer, now: datetime) -> tuple[bytes, datetime]:
    """What the answer held, and when it was read."""
    return answer.body, now


def lapsed(times: int) -> deque[LeadSyncError]:
    return deque(GrantLapsed("the grant ran out") for _ in range(times))


def of_page(graph: Graph, budget: FakeBudget, reading: Read[object] = read) -> object:
    return asyncio.run(Calls(graph, budget, FrozenClock()).of_page(PAGE, REQUEST, reading))


def of_nobody(graph: Graph, budget: FakeBudget) -> object:
    return asyncio.run(Calls(graph, budget, FrozenClock()).of_nobody(REQUEST, read))


def test_a_call_of_a_page_is_granted_and_what_its_answer_told_is_heard() -> None:
    """One call in the lane of upkeep; the usage in its headers goes to the budget."""
    graph, budget = Graph(), FakeBudget()
    assert of_page(graph, budget) == (b"told", NOW)
    assert budget.asked == [(PAGE, 1, Lane.UPKEEP)]
    [(page_id, [usage])] = budget.usages
    assert (page_id, usage.kind, usage.percent) == (PAGE, "app", 28)


def test_a_call_of_nobody_is_granted_by_no_page() -> None:
    """It is made under an app's or a person's own token, so no Page's budget hears of it."""
    graph, budget = Graph(), FakeBudget()
    assert of_nobody(graph, budget) == (b"told", NOW)
    assert graph.grants == [IN_NO_PAGES_NAME]
    assert (budget.asked, budget.usages) == ([], [])


def test_where_the_budget_refuses_nothing_is_sent() -> None:
    """The error tells which Page, why, and from when on there are calls again."""
    refused = Refusal(datetime.fromisoformat("2026-11-20T14:30:05+00:00"), "budget")
    graph, budget = Graph(), FakeBudget(says=deque([refused]))
    with pytest.raises(NoCallNow, match=r"Page 1234 \(budget\) before 2026-11-20 14:30:05 UTC") as none:
        of_page(graph, budget)
    assert none.value.reason == "budget"
    assert graph.grants == []


def test_a_call_that_was_not_sent_is_granted_anew() -> None:
    """Each time a grant of its own: the one that lapsed is used for nothing."""
    graph = Graph(lapsed(LAPSES - 1))
    budget = FakeBudget(says=deque(Grant(1, float(number), 9) for number in range(LAPSES)))
    assert of_page(graph, budget) == (b"told", NOW)
    assert [grant.deadline for grant in graph.grants] == [float(number) for number in range(LAPSES)]
    assert len(budget.usages) == 1


def test_a_call_of_nobody_that_was_not_sent_is_tried_again() -> None:
    """A few times; nobody has to grant it."""
    graph = Graph(lapsed(LAPSES - 1))
    assert of_nobody(graph, FakeBudget()) == (b"told", NOW)
    assert len(graph.grants) == LAPSES


@pytest.mark.parametrize("call", [of_page, of_nobody])
def test_a_call_that_is_never_sent_is_given_up(call: Made) -> None:
    """After so many times in a row it is told, and not tried for ever."""
    graph = Graph(lapsed(LAPSES + 1))
    with pytest.raises(GrantLapsed):
        call(graph, FakeBudget())
    assert len(graph.grants) == LAPSES


@pytest.mark.parametrize("error", [GraphUnavailable("away"), StoreUnavailable("away")])
@pytest.mark.parametrize("call", [of_page, of_nobody])
def test_what_a_call_met_is_raised_at_once(call: Made, error: LeadSyncError) -> None:
    """It may have been sent, so it is not made again here."""
    graph, budget = Graph(deque([error])), FakeBudget()
    with pytest.raises(type(error)):
        call(graph, budget)
    assert len(graph.grants) == 1
    assert budget.usages == []


def test_a_throttle_closes_its_scope_for_as_long_as_meta_says() -> None:
    """The budget is told with the usage of the same answer, and whoever asked is told too."""
    throttled = Throttled("too much", until=NOW, scope="app", regain=timedelta(minutes=4))
    budget = FakeBudget()

    def reading(answer: GraphAnswer, now: datetime) -> None:
        raise throttled

    with pytest.raises(Throttled):
        of_page(Graph(), budget, reading)
    assert budget.closed == [(PAGE, "app", timedelta(minutes=4))]


def test_an_answer_that_is_an_error_tells_its_usage_too() -> None:
    """Meta counted the call, whatever it answered."""
    budget = FakeBudget()

    def reading(answer: GraphAnswer, now: datetime) -> None:
        raise NotVisibleYet("100/33")

    with pytest.raises(NotVisibleYet):
        of_page(Graph(), budget, reading)
    [(page_id, [usage])] = budget.usages
    assert (page_id, usage.percent) == (PAGE, 28)
    assert budget.closed == []
