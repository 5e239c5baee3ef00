"""Growth added to the totals, on the fake and on the real Redis alike: once each, whatever Redis does meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import fakeredis
import pytest
import redis.asyncio as aioredis
from redis.exceptions import ConnectionError as AwayError

from worker.errors import LedgerUnavailable
from worker.metrics import CALLS, Meter
from worker.redis_facts import read_redis
from worker.totals import TOLD_PREFIX, TOTALS, Totals


@dataclass
class Link:
    """A client whose scripts can fail before or after they ran."""

    client: Any
    fails: str = ""

    async def eval(self, *words: Any) -> Any:
        if self.fails == "before":
            raise AwayError("away")
        answer = await self.client.eval(*words)
        if self.fails == "after":
            raise AwayError("the answer was lost")
        return answer


@dataclass
class World:
    client: Any

    def process(self, name: str) -> tuple[Meter, Totals, Link]:
        meter, link = Meter(), Link(self.client)
        return meter, Totals(link, meter, name), link  # type: ignore[arg-type]

    async def total(self) -> int:
        return int((await read_redis(self.client)).totals.get("graph_calls lead ok", 0))


OnRedis = Callable[[Callable[[World], Awaitable[None]]], None]


@pytest.fixture(params=["fake", "real"])
def on_redis(request: pytest.FixtureRequest) -> OnRedis:
    """Runs a scenario on a Redis of that kind, empty."""
    url = request.getfixturevalue("redis_url") if request.param == "real" else None

    def run(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def inner() -> None:
            async with AsyncExitStack() as stack:
                client: Any = aioredis.Redis.from_url(url) if url else fakeredis.FakeAsyncRedis()
                stack.push_async_callback(client.aclose)
                await scenario(World(client))

        asyncio.run(inner())

    return run


def test_the_growth_of_all_processes_adds_up(on_redis: OnRedis) -> None:
    """Two processes and a third that takes the place of the first: the total is the sum of all."""

    async def scenario(world: World) -> None:
        for name, counted in (("a", 3), ("b", 4), ("a again", 5)):
            meter, totals, _ = world.process(name)
            for _ in range(counted):
                meter.count(CALLS, "lead", "ok")
                await totals.add()
        assert await world.total() == 12

    on_redis(scenario)


def test_growth_is_kept_while_redis_is_away(on_redis: OnRedis) -> None:
    """What could not be added is added the next time, with what was counted since."""

    async def scenario(world: World) -> None:
        meter, totals, link = world.process("a")
        link.fails = "before"
        for _ in range(2):
            meter.count(CALLS, "lead", "ok")
            with pytest.raises(LedgerUnavailable):
                await totals.add()
        assert await world.total() == 0
        link.fails = ""
        meter.count(CALLS, "lead", "ok")
        await totals.add()
        assert await world.total() == 3

    on_redis(scenario)


def test_growth_whose_answer_was_lost_is_added_once(on_redis: OnRedis) -> None:
    """Redis had added it, and is sent it again: it counts once, and what came meanwhile counts too."""

    async def scenario(world: World) -> None:
        meter, totals, link = world.process("a")
        meter.count(CALLS, "lead", "ok", by=7)
        link.fails = "after"
        with pytest.raises(LedgerUnavailable):
            await totals.add()
        link.fails = ""
        meter.count(CALLS, "lead", "ok")
        await totals.add()
        assert await world.total() == 8

    on_redis(scenario)


def test_an_add_that_was_cancelled_is_made_good(on_redis: OnRedis) -> None:
    """The end of a process waits only so long; whoever is asked again adds the same growth once."""

    async def scenario(world: World) -> None:
        meter, totals, link = world.process("a")
        meter.count(CALLS, "lead", "ok")
        real, ran = link.client.eval, asyncio.Event()

        async def hangs(*words: Any) -> Any:
            await real(*words)
            ran.set()
            await asyncio.Event().wait()

        link.eval = hangs  # type: ignore[method-assign]
        adding = asyncio.create_task(totals.add())
        await ran.wait()
        adding.cancel()
        await asyncio.gather(adding, return_exceptions=True)
        del link.eval  # type: ignore[method-assign]
        await totals.add()
        assert await world.total() == 1

    on_redis(scenario)


def test_an_emptied_redis_begins_at_nothing(on_redis: OnRedis) -> None:
    """The totals are then what was counted since, which Prometheus takes for a restart."""

    async def scenario(world: World) -> None:
        meter, totals, _ = world.process("a")
        meter.count(CALLS, "lead", "ok", by=5)
        await totals.add()
        await world.client.delete(TOTALS, TOLD_PREFIX + "a")
        meter.count(CALLS, "lead", "ok")
        await totals.add()
        assert await world.total() == 1

    on_redis(scenario)


@pytest.mark.parametrize("version", ["redis_6_url", "redis_7_url"])
def test_a_full_redis_takes_all_of_the_growth_or_none(version: str, request: pytest.FixtureRequest) -> None:
    """Growth that it refuses is kept whole, and is added once there is room."""
    url = request.getfixturevalue(version)

    async def scenario() -> None:
        async with aioredis.Redis.from_url(url) as client:
            world = World(client)
            meter, totals, _ = world.process("a")
            meter.count(CALLS, "lead", "ok", by=2)
            meter.count(CALLS, "leads", "ok")
            await client.config_set("maxmemory", 1)
            with pytest.raises(LedgerUnavailable):
                await totals.add()
            assert await client.exists(TOTALS) == 0
            await client.config_set("maxmemory", 0)
            await totals.add()
            assert (await read_redis(client)).totals == {"graph_calls lead ok": 2, "graph_calls leads ok": 1}

    asyncio.run(scenario())


def test_a_process_leaves_nothing_behind_for_ever(on_redis: OnRedis) -> None:
    """What keeps growth from being added twice goes by itself; names of ended processes do not pile up."""

    async def scenario(world: World) -> None:
        meter, totals, _ = world.process("a")
        meter.count(CALLS, "lead", "ok")
        await totals.add()
        assert 0 < await world.client.ttl(TOLD_PREFIX + "a") <= 3_600
        assert set(await world.client.hkeys(TOTALS)) == {b"graph_calls lead ok"}

    on_redis(scenario)


def test_what_redis_refuses_is_told_without_its_words(on_redis: OnRedis) -> None:
    """An error leaves as LedgerUnavailable with the first word of Redis' own."""

    async def scenario(world: World) -> None:
        await world.client.set(TOTALS, "not a hash")
        meter, totals, _ = world.process("a")
        meter.count(CALLS, "lead", "ok")
        with pytest.raises(LedgerUnavailable):
            await totals.add()
        with pytest.raises(LedgerUnavailable):
            await read_redis(world.client)

    on_redis(scenario)
