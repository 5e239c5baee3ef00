"""A lead is found in a real Redis wherever it lies: in the stream, with whom, reserved, in a body set aside."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio as aioredis

from tests.fakes.leads import FORM, PAGE, a_reference
from worker import stream_search
from worker.errors import LedgerUnavailable
from worker.inbox import SET_ASIDE, STREAM
from worker.stream import LeadStream
from worker.stream_search import search

LEAD = "900000000000001"


@pytest.fixture
def on_redis(redis_url: str) -> Callable[[Callable[[Any], Awaitable[None]]], None]:
    """Runs a scenario with a client."""

    def run(scenario: Callable[[Any], Awaitable[None]]) -> None:
        async def inner() -> None:
            async with aioredis.Redis.from_url(redis_url, protocol=2) as client:
                await scenario(client)

        asyncio.run(inner())

    return run


async def add(client: Any, leadgen_id: str = LEAD) -> str:
    entry_id = await client.xadd(STREAM, a_reference(leadgen_id).to_entry())
    return str(entry_id, "ascii")


def test_an_entry_tells_with_whom_it_is(on_redis: Any) -> None:
    """Not taken up, without a group even; taken up and reserved; acknowledged, it is gone."""

    async def scenario(client: Any) -> None:
        entry_id = await add(client)
        (lying,) = (await search(client, LEAD)).entries
        assert (lying.entry_id, lying.page_id, lying.form_id, lying.taken_by) == (entry_id, PAGE, FORM, None)
        assert lying.received_ms == a_reference().received_at
        stream = LeadStream(client, "host-1", claim_after=45)
        await stream.create_group()
        taken = await stream.read(10, 0)
        await stream.reserve([LEAD])
        standing = await search(client, LEAD)
        (lying,) = standing.entries
        assert (lying.taken_by, lying.deliveries, standing.reserved_by) == ("host-1", 1, "host-1")
        assert lying.idle_ms < 60_000
        await stream.done(taken)
        standing = await search(client, LEAD)
        assert (standing.entries, standing.reserved_by, standing.whole) == ((), None, True)

    on_redis(scenario)


def test_a_long_stream_is_looked_through_in_blocks(on_redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its newest end, and no further than is allowed; it is said how far."""
    monkeypatch.setattr(stream_search, "BLOCK", 10)

    async def scenario(client: Any) -> None:
        first = await add(client)
        for n in range(25):
            await add(client, str(7_000 + n))
        end_of_block = await add(client)
        for n in range(8):
            await add(client, str(8_000 + n))
        last = await add(client)
        told: list[tuple[int, int]] = []
        standing = await search(client, LEAD, told=lambda looked, length: told.append((looked, length)))
        assert [entry.entry_id for entry in standing.entries] == [first, end_of_block, last]
        assert told == [(10, 36), (20, 36), (30, 36)]
        monkeypatch.setattr(stream_search, "ENTRIES_AT_MOST", 20)
        standing = await search(client, LEAD)
        assert ([entry.entry_id for entry in standing.entries], standing.whole) == (
            [end_of_block, last],
            False,
        )

    on_redis(scenario)


def test_nothing_older_is_looked_at_than_was_asked(on_redis: Any) -> None:
    """An entry from before the moment is not found."""

    async def scenario(client: Any) -> None:
        added = int((await add(client)).split("-")[0])
        assert (await search(client, LEAD, since_ms=added)).entries
        assert not (await search(client, LEAD, since_ms=added + 1)).entries

    on_redis(scenario)


@pytest.mark.parametrize(
    ("body", "is_named"),
    [
        (f'{{"leadgen_id": {LEAD}}}', True),
        (f'{{"leadgen_id": "{LEAD}"}}', True),
        (f"{LEAD}1 {LEAD}", True),
        (f"1{LEAD} {LEAD}2", False),
        ("", False),
    ],
)
def test_a_body_set_aside_is_found_by_the_whole_id(on_redis: Any, body: str, is_named: bool) -> None:
    """A longer number that holds the id is another."""

    async def scenario(client: Any) -> None:
        await client.xadd(SET_ASIDE, {"reason": "not_json", "received_at": "1", "body": body})
        found = (await search(client, LEAD)).set_aside
        assert [reason for reason, _ in found] == (["not_json"] if is_named else [])

    on_redis(scenario)


def test_bodies_set_aside_are_looked_at_a_few_at_a_time(on_redis: Any) -> None:
    """Each may have a megabyte and there may be a thousand: of no answer of Redis more than BODIES are asked."""

    async def scenario(client: Any) -> None:
        count = 2 * stream_search.BODIES + 3
        for n in range(count):
            body = LEAD if n % stream_search.BODIES == 0 else "1"
            await client.xadd(SET_ASIDE, {"reason": str(n), "body": body}, id=f"{n + 1}-0")
        asked: list[int] = []
        xrange = client.xrange

        async def noted(name: str, *, min: str, count: int) -> Any:
            asked.append(count)
            return await xrange(name, min=min, count=count)

        client.xrange = noted
        found = (await search(client, LEAD)).set_aside
        assert found == tuple((str(n), n + 1) for n in range(0, count, stream_search.BODIES))
        assert asked == [stream_search.BODIES] * 3
        assert (await search(client, LEAD, since_ms=22)).set_aside == found[2:]

    on_redis(scenario)


def test_redis_away_is_one_error() -> None:
    """Nobody answers there."""

    async def scenario() -> None:
        async with aioredis.Redis.from_url("redis://127.0.0.1:1/0") as client:
            with pytest.raises(LedgerUnavailable):
                await search(client, LEAD)

    asyncio.run(scenario())
