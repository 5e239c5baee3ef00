"""The stream as a worker uses it, on the fake and on the real Redis alike: pending until done, whoever dies.

What a dead worker leaves is made old by XCLAIM's IDLE, so nothing here waits for time to pass.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import fakeredis
import pytest
import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from tests.fakes.leads import a_reference, in_flight
from worker.batches import InFlight
from worker.errors import LedgerUnavailable
from worker.inbox import (
    BELL,
    COUNTERS,
    GROUP,
    RECONCILE_WANTED,
    RECONCILE_WANTED_LAST,
    SET_ASIDE,
    SET_ASIDE_LIMIT,
    STREAM,
)
from worker.stream import RESERVED_PREFIX, LeadStream, consumer_name

T = TypeVar("T")
CLAIM_AFTER = 30.0
LONG_AGO_MS = 3_600_000


@dataclass
class World:
    """A Redis and the workers on it, for the time of one event loop."""

    connect: Callable[[], Any]
    stack: AsyncExitStack
    client: Any = field(init=False)

    async def open(self) -> "World":
        self.client = await self._connected()
        await self.worker("founder").create_group()
        return self

    async def _connected(self) -> Any:
        client = self.connect()
        self.stack.push_async_callback(client.aclose)
        return client

    def worker(self, name: str, **changed: Any) -> LeadStream:
        return LeadStream(self.client, name, claim_after=CLAIM_AFTER, **changed)

    async def add(self, *numbers: int) -> list[bytes]:
        """Entries as the receiver writes them."""
        return [await self.client.xadd(STREAM, dict(a_reference(str(n)).to_entry())) for n in numbers]

    async def grow_old(self, references: Sequence[InFlight], owner: str) -> None:
        """As if `owner` had been silent about these for an hour."""
        for reference in references:
            await self.client.xclaim(
                STREAM, GROUP, owner, 0, [reference.entry_id], idle=LONG_AGO_MS, justid=True
            )

    async def pending(self) -> dict[bytes, tuple[str, int]]:
        """Owner and deliveries of every pending entry."""
        found = await self.client.xpending_range(STREAM, GROUP, "-", "+", 10_000)
        return {e["message_id"]: (e["consumer"].decode(), e["times_delivered"]) for e in found}


@dataclass
class Runner:
    """Runs a scenario on one kind of Redis."""

    kind: str
    connect: Callable[[], Any]

    def __call__(self, scenario: Callable[[World], Awaitable[T]]) -> T:
        async def run() -> T:
            async with AsyncExitStack() as stack:
                return await scenario(await World(self.connect, stack).open())

        return asyncio.run(run())


@pytest.fixture(params=["fake", "real"])
def on_redis(request: pytest.FixtureRequest) -> Runner:
    """The two neighbours that keep this contract."""
    if request.param == "fake":
        server = fakeredis.FakeServer()
        return Runner("fake", lambda: fakeredis.FakeAsyncRedis(server=server))
    url = request.getfixturevalue("redis_url")
    return Runner("real", lambda: aioredis.Redis.from_url(url, protocol=2))


def numbers(references: Sequence[InFlight]) -> list[int]:
    return [int(r.leadgen_id) for r in references]


def test_new_entries_are_read_in_order_and_once(on_redis: Runner) -> None:
    """Each entry goes to one worker, at most as many as it asked for, oldest first, with its own id."""

    async def scenario(world: World) -> None:
        entry_ids = await world.add(1, 2, 3, 4, 5)
        first = await world.worker("a").read(3, 0)
        second = await world.worker("b").read(100, 0)
        assert (numbers(first), numbers(second)) == ([1, 2, 3], [4, 5])
        assert [r.entry_id for r in (*first, *second)] == entry_ids
        assert {r.crashes for r in (*first, *second)} == {0}
        assert await world.worker("a").read(100, 0) == ()

    on_redis(scenario)


def test_a_read_waits_for_the_first_entry(on_redis: Runner) -> None:
    """A listening worker has what arrives as it arrives, and comes back empty when nothing does."""
    if on_redis.kind == "fake":
        pytest.skip("fakeredis' blocking XREADGROUP sees no entry that is added while it blocks")

    async def scenario(world: World) -> None:
        listener = LeadStream(await world._connected(), "a", claim_after=CLAIM_AFTER)
        assert await listener.read(10, 0.01) == ()
        listening = asyncio.create_task(listener.read(10, 30))
        await asyncio.sleep(0)
        await world.add(7)
        assert numbers(await asyncio.wait_for(listening, 30)) == [7]

    on_redis(scenario)


def test_an_entry_is_pending_until_it_is_done(on_redis: Runner) -> None:
    """Reading acknowledges nothing; done removes the entry, its claim and its reservation in one step."""

    async def scenario(world: World) -> None:
        await world.add(1, 2, 3)
        worker = world.worker("a")
        taken = await worker.read(10, 0)
        await worker.reserve(["1", "2"])
        assert (len(await world.pending()), await worker.length()) == (3, 3)
        await worker.done(taken[:1])
        assert list(await world.pending()) == [r.entry_id for r in taken[1:]]
        assert await worker.length() == 2
        assert await world.worker("b").reserve(["1", "2"]) == {"1"}
        await worker.done(taken[:2])
        assert await worker.length() == 1

    on_redis(scenario)


def test_nothing_to_acknowledge_is_no_question(on_redis: Runner) -> None:
    """Leased rows carry no entry: done, given back or kept, they leave the stream alone."""

    async def scenario(world: World) -> None:
        worker = world.worker("a")
        for leased in ([], [in_flight(1, turn=3)]):
            await worker.done(leased)
            await worker.give_back(leased)
            await worker.keep(leased)
        assert await worker.length() == 0

    on_redis(scenario)


def test_what_a_dead_worker_left_is_claimed(on_redis: Runner) -> None:
    """Entries of a silent worker go to another one, which is told how often they were taken up before."""

    async def scenario(world: World) -> None:
        await world.add(1, 2)
        dead = await world.worker("dead").read(10, 0)
        heir = world.worker("heir")
        assert await heir.claim(10) == ()
        await world.grow_old(dead, "dead")
        claimed = await heir.claim(10)
        assert [(r.leadgen_id, r.entry_id, r.crashes) for r in claimed] == [
            (r.leadgen_id, r.entry_id, 1) for r in dead
        ]
        assert await world.worker("late").claim(10) == ()
        await world.grow_old(claimed, "heir")
        assert [r.crashes for r in await world.worker("third").claim(10)] == [2, 2]

    on_redis(scenario)


def test_a_large_legacy_is_claimed_in_parts(on_redis: Runner) -> None:
    """However much was left and however young entries lie between, all that is old is claimed, so many at once."""

    async def scenario(world: World) -> None:
        await world.add(*range(1, 301))
        left = await world.worker("dead").read(1_000, 0)
        await world.grow_old(left[::3], "dead")
        heir = world.worker("heir")
        parts = [await heir.claim(40) for _ in range(4)]
        assert [len(part) for part in parts] == [40, 40, 20, 0]
        assert sorted(n for part in parts for n in numbers(part)) == numbers(left[::3])

    on_redis(scenario)


def test_a_claim_frees_what_the_dead_had_reserved(on_redis: Runner) -> None:
    """Whoever was reading a claimed lead has left it, so the heir may read it at once."""

    async def scenario(world: World) -> None:
        await world.add(1)
        dead = await world.worker("dead").read(10, 0)
        await world.worker("dead").reserve(["1"])
        await world.grow_old(dead, "dead")
        heir = world.worker("heir")
        assert await heir.reserve(["1"]) == frozenset()
        await heir.claim(10)
        assert await heir.reserve(["1"]) == {"1"}

    on_redis(scenario)


def test_what_is_given_back_is_claimable_at_once_and_blameless(on_redis: Runner) -> None:
    """An orderly stop costs nobody time, and counts as no crash."""

    async def scenario(world: World) -> None:
        await world.add(1, 2)
        worker = world.worker("a")
        taken = await worker.read(10, 0)
        await worker.reserve(["1", "2"])
        await worker.give_back(taken)
        other = world.worker("b")
        again = await other.claim(10)
        assert [(r.leadgen_id, r.crashes) for r in again] == [("1", 0), ("2", 0)]
        assert await other.reserve(["1", "2"]) == {"1", "2"}
        assert await worker.length() == 2

    on_redis(scenario)


def test_what_is_done_cannot_be_given_back(on_redis: Runner) -> None:
    """Giving back after done brings nothing back to life."""

    async def scenario(world: World) -> None:
        await world.add(1)
        worker = world.worker("a")
        taken = await worker.read(10, 0)
        await worker.done(taken)
        await worker.give_back(taken)
        await worker.keep(taken)
        assert await world.pending() == {}
        assert await world.worker("b").claim(10) == ()

    on_redis(scenario)


def test_what_is_kept_is_not_claimed(on_redis: Runner) -> None:
    """A worker that says it is alive keeps its entries, however long they take, without a delivery more."""

    async def scenario(world: World) -> None:
        await world.add(1, 2)
        worker = world.worker("a")
        taken = await worker.read(10, 0)
        await world.grow_old(taken, "a")
        await worker.keep(taken[:1])
        claimed = await world.worker("b").claim(10)
        assert numbers(claimed) == [2]
        assert (await world.pending())[taken[0].entry_id] == ("a", 1)

    on_redis(scenario)


def test_keeping_takes_nothing_back(on_redis: Runner) -> None:
    """A worker that slept past its claims leaves them with whoever has them now."""

    async def scenario(world: World) -> None:
        await world.add(1, 2)
        sleeper, heir = world.worker("sleeper"), world.worker("heir")
        taken = await sleeper.read(10, 0)
        await world.grow_old(taken[:1], "sleeper")
        await heir.claim(10)
        await sleeper.keep(taken)
        owners = {entry_id: owner for entry_id, (owner, _) in (await world.pending()).items()}
        assert owners == {taken[0].entry_id: "heir", taken[1].entry_id: "sleeper"}

    on_redis(scenario)


def test_keeping_renews_the_reservation(on_redis: Runner) -> None:
    """A duplicate waits as long as its lead is being read."""

    async def scenario(world: World) -> None:
        await world.add(1)
        worker = world.worker("a", reserve_for=60.0)
        taken = await worker.read(10, 0)
        await worker.reserve(["1"])
        await world.client.pexpire(RESERVED_PREFIX + "1", 1_000)
        await worker.keep(taken)
        assert await world.client.pttl(RESERVED_PREFIX + "1") > 30_000

    on_redis(scenario)


def test_who_waits_for_a_dead_reader_does_not_keep_its_reservation_alive(on_redis: Runner) -> None:
    """A duplicate that is kept while it waits must not renew what another reserved, or it waits for ever."""

    async def scenario(world: World) -> None:
        await world.add(1)
        await world.worker("dead").reserve(["1"])
        await world.client.pexpire(RESERVED_PREFIX + "1", 1_000)
        waiting = world.worker("b", reserve_for=60.0)
        taken = await waiting.read(10, 0)
        assert await waiting.reserve(["1"]) == frozenset()
        await waiting.keep(taken)
        assert await world.client.pttl(RESERVED_PREFIX + "1") <= 1_000

    on_redis(scenario)


def test_giving_back_a_duplicate_leaves_its_readers_reservation(on_redis: Runner) -> None:
    """Only who reserved a lead ends the reservation."""

    async def scenario(world: World) -> None:
        await world.add(1)
        await world.worker("reader").reserve(["1"])
        waiting = world.worker("b")
        await waiting.give_back(await waiting.read(10, 0))
        assert await world.client.exists(RESERVED_PREFIX + "1") == 1

    on_redis(scenario)


def test_who_has_reserved_a_lead_may_read_it_when_it_asks_again(on_redis: Runner) -> None:
    """A worker that reserved leads and could then not go on with them is not shut out by itself."""

    async def scenario(world: World) -> None:
        worker = world.worker("a")
        assert await worker.reserve(["1", "2"]) == {"1", "2"}
        assert await worker.reserve(["2", "3"]) == {"2", "3"}
        await world.add(2)
        await worker.done(await worker.read(10, 0))
        assert await world.worker("b").reserve(["1", "2", "3"]) == {"2"}

    on_redis(scenario)


def test_a_reservation_whose_answer_was_lost_is_the_worker_s_own(on_redis: Runner) -> None:
    """The client asks again where a connection breaks: its own mark of a moment ago is nobody else's."""

    async def scenario(world: World) -> None:
        assert await world.worker("a").reserve(["1", "2"]) == {"1", "2"}
        unanswered = world.worker("a")  # knows nothing of that
        assert await unanswered.reserve(["1", "2"]) == {"1", "2"}
        assert await world.worker("b").reserve(["1", "2"]) == frozenset()

    on_redis(scenario)


def test_a_lead_is_reserved_for_one_worker_and_not_for_ever(on_redis: Runner) -> None:
    """Of two workers one may read a lead; should it die, the reservation ends by itself."""

    async def scenario(world: World) -> None:
        assert await world.worker("a").reserve(["1", "2"]) == {"1", "2"}
        assert await world.worker("b").reserve(["1", "2", "3"]) == {"3"}
        assert 0 < await world.client.pttl(RESERVED_PREFIX + "1") <= 60_000

    on_redis(scenario)


@pytest.mark.parametrize("what", ["read", "claim", "keep", "backlog", "give_back"])
def test_after_redis_was_emptied_nothing_is_skipped(on_redis: Runner, what: str) -> None:
    """A missing group is an error once; then it is there from the stream's beginning, with all that came meanwhile."""

    async def scenario(world: World) -> None:
        await world.add(1)
        worker = world.worker("a")
        taken = await worker.read(10, 0)
        await world.client.delete(STREAM)
        await world.add(2, 3)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "read": lambda: worker.read(10, 0),
            "claim": lambda: worker.claim(10),
            "keep": lambda: worker.keep(taken),
            "backlog": worker.backlog,
            "give_back": lambda: worker.give_back(taken),
        }
        with pytest.raises(LedgerUnavailable):
            await calls[what]()
        if what == "give_back":  # its error stands within a transaction; the next look makes the group
            with pytest.raises(LedgerUnavailable):
                await worker.read(10, 0)
        assert numbers(await worker.read(10, 0)) == [2, 3]

    on_redis(scenario)


def test_a_late_acknowledgement_after_redis_was_emptied_harms_nobody(on_redis: Runner) -> None:
    """Done for entries that are gone leaves the new ones alone."""

    async def scenario(world: World) -> None:
        await world.add(1)
        worker = world.worker("a")
        taken = await worker.read(10, 0)
        await world.client.delete(STREAM)
        await asyncio.sleep(0.002)  # an id is a millisecond: the new entry must not get that of the old one
        await worker.create_group()
        await world.add(2)
        await worker.done(taken)
        assert numbers(await worker.read(10, 0)) == [2]

    on_redis(scenario)


def test_the_group_may_be_created_by_everybody(on_redis: Runner) -> None:
    """Creating it again is no error and moves nothing."""

    async def scenario(world: World) -> None:
        await world.add(1)
        worker = world.worker("a")
        assert numbers(await worker.read(10, 0)) == [1]
        await asyncio.gather(*(world.worker(str(n)).create_group() for n in range(5)))
        assert await worker.read(10, 0) == ()

    on_redis(scenario)


@pytest.mark.parametrize(
    "odd",
    [
        {"x": "y"},
        {"v": "1", "lead": "one", "page": "7", "recv": "1"},
        {"v": "1", "lead": "5", "page": "7", "recv": "9" * 16},
        {"v": "1", "lead": "5", "page": "7", "recv": b"\xff\x00"},
        {"v": "1", "lead": "5" * 20_000, "page": "7", "recv": "1"},
    ],
    ids=["foreign", "no id", "no time", "bytes", "long"],
)
@pytest.mark.parametrize("how", ["read", "claim"])
def test_an_unreadable_entry_is_set_aside_and_stops_nobody(on_redis: Runner, odd: Any, how: str) -> None:
    """What no receiver of ours wrote is kept where unreadable bodies are, and its neighbours are read."""

    async def scenario(world: World) -> None:
        await world.add(1)
        entry_id = await world.client.xadd(STREAM, odd)
        await world.add(2)
        worker = world.worker("a")
        if how == "read":
            found = await worker.read(10, 0)
        else:
            await world.client.xreadgroup(GROUP, "dead", {STREAM: ">"})
            for pending in await world.pending():
                await world.client.xclaim(STREAM, GROUP, "dead", 0, [pending], idle=LONG_AGO_MS, justid=True)
            found = await worker.claim(10)
        assert numbers(found) == [1, 2]
        ((_, kept),) = await world.client.xrange(SET_ASIDE)
        assert kept[b"reason"] == b"stream_entry"
        assert len(kept[b"body"]) <= 10_000
        assert entry_id not in await world.pending()
        assert await worker.length() == 2

    on_redis(scenario)


def test_what_is_set_aside_is_bounded(on_redis: Runner) -> None:
    """A flood of unreadable entries drives out the oldest, and nothing else."""

    async def scenario(world: World) -> None:
        for _ in range(SET_ASIDE_LIMIT):
            await world.client.xadd(SET_ASIDE, {"reason": "old"})
        await world.client.xadd(STREAM, {"x": "y"})
        await world.worker("a").read(10, 0)
        assert await world.client.xlen(SET_ASIDE) == SET_ASIDE_LIMIT
        newest = await world.client.xrevrange(SET_ASIDE, count=1)
        assert newest[0][1][b"reason"] == b"stream_entry"

    on_redis(scenario)


def test_a_deleted_entry_is_no_reference(on_redis: Runner) -> None:
    """An entry that somebody deleted while it was pending is passed over by whoever claims it."""

    async def scenario(world: World) -> None:
        await world.add(1, 2)
        left = await world.worker("dead").read(10, 0)
        await world.client.xdel(STREAM, left[0].entry_id)
        await world.grow_old(left[1:], "dead")
        await world.client.xclaim(STREAM, GROUP, "dead", 0, [left[0].entry_id], idle=LONG_AGO_MS, justid=True)
        assert numbers(await world.worker("heir").claim(10)) == [2]

    on_redis(scenario)


def test_consumers_are_forgotten_only_with_empty_hands(on_redis: Runner) -> None:
    """Processes long gone leave no name behind; one that holds an entry stays until that is claimed."""
    if on_redis.kind == "fake":
        pytest.skip("fakeredis' XINFO CONSUMERS inside a script has no flat pairs")

    async def scenario(world: World) -> None:
        await world.add(1, 2)
        holding = await world.worker("holding").read(1, 0)
        gone = world.worker("gone")
        await gone.done(await gone.read(1, 0))
        assert await gone.forget_consumers(3_600) == 0
        assert await gone.forget_consumers(-1) == 1
        names = {consumer["name"] for consumer in await world.client.xinfo_consumers(STREAM, GROUP)}
        assert names == {b"holding"}
        assert list(await world.pending()) == [holding[0].entry_id]

    on_redis(scenario)


def test_the_backlog_is_what_nobody_has_taken(on_redis: Runner) -> None:
    """Entries in work are no backlog; those not yet given to anybody are."""

    async def scenario(world: World) -> None:
        worker = world.worker("a")
        assert await worker.backlog() == 0
        await world.add(1, 2, 3)
        assert await worker.backlog() == 3
        taken = await worker.read(2, 0)
        assert (await worker.backlog(), await worker.length()) == (1, 3)
        await worker.done(taken)
        assert (await worker.backlog(), await worker.length()) == (1, 1)

    on_redis(scenario)


def test_a_listening_worker_silences_the_bell_for_a_moment(on_redis: Runner) -> None:
    """While it listens nobody needs to ring; the flag goes at its word, or by itself should it die."""

    async def scenario(world: World) -> None:
        worker = world.worker("a")
        await worker.hush(1.5)
        assert 0 < await world.client.pttl(BELL) <= 1_500
        await worker.unhush()
        assert not await world.client.exists(BELL)

    on_redis(scenario)


def test_readings_alone_are_counted_until_they_end(on_redis: Runner) -> None:
    """Whoever is begun alone and never ends is known to the next that tries."""

    async def scenario(world: World) -> None:
        assert [await world.worker(name).begin_alone("1") for name in "abc"] == [0, 1, 2]
        await world.worker("c").end_alone("1")
        assert await world.worker("d").begin_alone("1") == 0

    on_redis(scenario)


def test_it_is_known_whether_leads_were_announced_lately(on_redis: Runner) -> None:
    """By the last delivery, though all of it is done with; never where there was none."""

    async def scenario(world: World) -> None:
        worker = world.worker("a")
        await world.client.flushall()
        assert not await worker.delivered_within(3_600)
        await worker.create_group()
        assert not await worker.delivered_within(3_600)
        await world.add(1)
        await worker.done(await worker.read(10, 0))
        assert await worker.length() == 0
        assert await worker.delivered_within(60)
        await world.client.delete(STREAM)
        await world.client.xadd(STREAM, {"leadgen_id": "1"}, id="1000000000000-0")
        assert not await worker.delivered_within(60)

    on_redis(scenario)


def test_a_page_that_never_rests_is_compared_again_and_again(on_redis: Runner) -> None:
    """Announcements without ids every minute: it is taken up once they are as old as they must be, and then anew."""

    async def scenario(world: World) -> None:
        worker, lag, taken_up = world.worker("a"), 300, []
        for second in range(0, 3_600, 30):
            if second % 60 == 0:
                await world.client.hsetnx(RECONCILE_WANTED, "7", second * 1_000)
                await world.client.hset(RECONCILE_WANTED_LAST, "7", second * 1_000)
            wanted = await worker.reconcile_wanted(second - lag)
            if wanted:
                taken_up.append(second)
                await worker.reconcile_begun(wanted, second - lag)
        assert len(taken_up) in range(10, 13)
        await worker.reconcile_begun(await worker.reconcile_wanted(3_500), 3_500)
        wanted = await worker.reconcile_wanted(3_541)
        assert wanted == {"7": 3_540_000}
        await worker.reconcile_begun(wanted, 3_541)
        assert await world.client.exists(RECONCILE_WANTED, RECONCILE_WANTED_LAST) == 0

    on_redis(scenario)


def test_what_was_announced_meanwhile_stays_wanted(on_redis: Runner) -> None:
    """Also where a receiver of the former version wrote it, which knows one moment only."""

    async def scenario(world: World) -> None:
        worker = world.worker("a")
        await world.client.hset(RECONCILE_WANTED, mapping={"7": 1_000, "8": 1_000})
        wanted = await worker.reconcile_wanted(100)
        await world.client.hset(RECONCILE_WANTED, "8", 200_000)
        await worker.reconcile_begun(wanted, 100)
        assert await worker.reconcile_wanted(1_000) == {"8": 200_000}

    on_redis(scenario)


def test_the_condition_is_told_in_numbers(on_redis: Runner) -> None:
    """An operator sees what waits, what came in, which Pages lack and when work was last looked at."""

    async def scenario(world: World) -> None:
        await world.add(1, 2)
        await world.client.hset(COUNTERS, "references", 2)
        await world.client.hset(RECONCILE_WANTED, mapping={"9": 1, "7": 1})
        worker = world.worker("a")
        await worker.progress("live")
        told = await worker.condition()
        assert (told["length"], told["deliveries"], told["set_aside"]) == (2, {"references": 2}, 0)
        assert told["reconcile_wanted"] == ["7", "9"]
        assert told["progress"]["live"] > 10**12

    on_redis(scenario)


@pytest.mark.parametrize(
    "what",
    ["read", "claim", "done", "give_back", "keep", "reserve", "length", "backlog", "hush", "begin_alone"],
)
def test_without_redis_there_is_one_error_that_tells_no_password(what: str, free_port: int) -> None:
    """Whatever is asked of a Redis that is away ends as LedgerUnavailable, with nothing of its URL."""

    async def scenario() -> None:
        url = f"redis://:hunter2@127.0.0.1:{free_port}/0"
        async with aioredis.Redis.from_url(url, protocol=2, retry=None) as client:
            worker = LeadStream(client, "a", claim_after=CLAIM_AFTER)
            held = [in_flight(1, entry_id=b"1-1")]
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "read": lambda: worker.read(1, 0),
                "claim": lambda: worker.claim(1),
                "done": lambda: worker.done(held),
                "give_back": lambda: worker.give_back(held),
                "keep": lambda: worker.keep(held),
                "reserve": lambda: worker.reserve(["1"]),
                "length": worker.length,
                "backlog": worker.backlog,
                "hush": lambda: worker.hush(1),
                "begin_alone": lambda: worker.begin_alone("1"),
            }
            with pytest.raises(LedgerUnavailable) as told:
                await calls[what]()
            assert "hunter2" not in str(told.value)
            assert told.value.__suppress_context__

    asyncio.run(scenario())


def test_a_full_redis_can_be_drained(redis_url: str) -> None:
    """At maxmemory reading, claiming and acknowledging still work, and a reservation refused holds nobody up."""

    async def scenario(world: World) -> None:
        await world.add(1, 2)
        worker = world.worker("a")
        before = (await world.client.config_get("maxmemory"))["maxmemory"]
        await world.client.config_set("maxmemory", 1)
        try:
            with pytest.raises(ResponseError, match="maxmemory"):
                await world.client.set("x", "y")
            await worker.create_group()
            taken = await worker.read(10, 0)
            assert await worker.reserve(["1", "2"]) == {"1", "2"}
            await world.grow_old(taken, "a")
            claimed = await world.worker("b").claim(10)
            await worker.give_back(claimed[:1])
            assert numbers(await world.worker("c").claim(10)) == [1]
            await worker.hush(1)
            await worker.progress("live")
            await worker.done(claimed)
            assert await worker.length() == 0
        finally:
            await world.client.config_set("maxmemory", before)

    Runner("real", lambda: aioredis.Redis.from_url(redis_url, protocol=2))(scenario)


def test_no_two_processes_share_a_name() -> None:
    """Even one host and one pid, met again after a restart, give two consumers."""
    assert len({consumer_name("host", 7) for _ in range(100)}) == 100
