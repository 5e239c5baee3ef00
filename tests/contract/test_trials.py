"""A scope that was throttled opens again through a reader's own calls: reader, budget and ledger together.

What the ledger itself promises of trials is test_ledger_scopes.py's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import pytest
import redis.asyncio as aioredis

from tests.fakes.budget import Clocks, FakeMemory, TimedLedger
from tests.fakes.graph import FakeGraph, FakeTokens
from tests.fakes.leads import OTHER_PAGE, PAGE
from worker.asks import ById
from worker.batches import InFlight
from worker.budget.granting import Granter, LimitSettings
from worker.budget.ledger import Ledger
from worker.budget.policy import Grant, Lane, Refusal, Shares, Window
from worker.errors import StoreUnavailable
from worker.graph.wire import FULL_FIELDS, GraphAnswer, LeadsRead, read_answer
from worker.outcomes import Outcome, RetryPolicy, Snooze, Stored
from worker.reading import LeadReader

WINDOW = Window(86_400.0)
AD_FIELDS_REFUSED = GraphAnswer(400, {}, b'{"error":{"code":200}}')
ACCOUNT_THROTTLED = GraphAnswer(
    400,
    {
        "x-business-use-case-usage": '{"777":[{"type":"ads_management","call_count":100,"total_cputime":1,'
        '"total_time":1,"estimated_time_to_regain_access":20}]}'
    },
    b'{"error":{"code":80004}}',
)


class RefusingGraph(FakeGraph):
    """Refuses whoever asks for the full list; `throttles` that many requests before."""

    throttles = 0

    async def read_leads(
        self, leadgen_ids: Sequence[str], fields: Sequence[str], token: str, grant: Grant
    ) -> LeadsRead:
        if self.throttles or fields is FULL_FIELDS:
            self.asked.append((tuple(leadgen_ids), fields is FULL_FIELDS))
            said = ACCOUNT_THROTTLED if self.throttles else AD_FIELDS_REFUSED
            self.throttles = max(0, self.throttles - 1)
            return read_answer(said, leadgen_ids, Clocks().now)
        return await super().read_leads(leadgen_ids, fields, token, grant)


@dataclass
class Bench:
    """A reader that asks a real budget."""

    clocks: Clocks
    ledger: Ledger
    budget: Granter
    graph: RefusingGraph
    reader: LeadReader

    async def read(self, numbers: range) -> list[Outcome]:
        now = self.clocks.now
        references = tuple(InFlight(str(n), PAGE, None, None, now, now) for n in numbers)
        return [outcome for _, outcome in await self.reader.read(PAGE, ById(references), Lane.WAITING)]


def on_redis(redis_url: str, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    async def run() -> None:
        async with aioredis.Redis.from_url(redis_url, protocol=2) as client:
            clocks = Clocks()
            ledger = TimedLedger(clocks, client, WINDOW, Shares(), machine="one")
            budget = Granter(
                ledger,
                FakeMemory(clocks, lambda: StoreUnavailable("told")),
                window=WINDOW,
                limits=LimitSettings(),
                machine="one",
                clock=lambda: clocks.now,
                steady=lambda: clocks.steady("one"),
            )
            graph = RefusingGraph()
            reader = LeadReader(
                graph=graph,
                budget=budget,
                tokens=FakeTokens(),
                policy=RetryPolicy(),
                clock=lambda: clocks.now,
                dice=lambda: 0.5,
            )
            await scenario(Bench(clocks, ledger, budget, graph, reader))

    asyncio.run(run())


@pytest.mark.parametrize("scope", ["page", "app"])
def test_a_trial_whose_answer_is_a_refusal_opens_the_scope(redis_url: str, scope: str) -> None:
    """A Page whose ad fields are refused is read again after a throttle, and no other Page waits for it longer."""

    async def scenario(bench: Bench) -> None:
        await bench.read(range(1, 4))
        await bench.budget.throttled(PAGE, scope, (), None)
        assert all(isinstance(outcome, Snooze) for outcome in await bench.read(range(10, 60)))
        bench.clocks.move(WINDOW.first_pause + 1)
        before = len(bench.graph.asked)
        assert all(isinstance(outcome, Stored) for outcome in await bench.read(range(10, 60)))
        assert len(bench.graph.asked) - before <= 4
        assert isinstance(await bench.budget.request(OTHER_PAGE, 5, Lane.LIVE), Grant)

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("count", [1, 3])
def test_a_throttle_of_an_ad_account_closes_it_for_every_page_that_met_it(redis_url: str, count: int) -> None:
    """The request that failed as a whole names the account in its headers: that closes, not the Page that asked."""

    async def scenario(bench: Bench) -> None:
        bench.graph.throttles = 1
        assert all(isinstance(outcome, Snooze) for outcome in await bench.read(range(1, count + 1)))
        closed = {scope.scope: scope.seconds for scope in await bench.ledger.scopes() if scope.seconds > 0}
        assert closed.pop("ad_account:777") == pytest.approx(20 * 60, abs=1)
        assert f"page:{PAGE}" not in closed
        assert isinstance(await bench.budget.request(PAGE, 1, Lane.LIVE), Refusal)

    on_redis(redis_url, scenario)
