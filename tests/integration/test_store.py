"""The rows on a real Postgres: one a leadgen_id, states only forward, whoever writes when and how often.

All moments are handed in; nothing here waits for time to pass.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tests.fakes.leads import OTHER_PAGE, PAGE, a_lead, at, graph_lead, in_flight
from tests.fakes.time import NOW
from worker.batches import InFlight
from worker.budget.policy import Limit
from worker.errors import StoreUnavailable
from worker.lead import Lead
from worker.outcomes import DeadLetter, Outcome, Park, Retry, Snooze, Stored
from worker.store.budget import BudgetStore
from worker.store.leads import LeadStore, StoreSettings
from worker.store.sql import LEASE_DUE

T = TypeVar("T")
SECRET = "ann-hunter2@example.org"
DEATHS = StoreSettings().park_after_deaths
LEASE = StoreSettings().lease_seconds
TOUCHED = "select leadgen_id from leadgen where xmax <> 0 or turn > -1"
"""Rows that were locked or written again since they were made."""


@dataclass
class World:
    """The store under test and a look at its tables beside it."""

    store: LeadStore
    pool: AsyncConnectionPool

    async def sql(self, statement: str, *parameters: object) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def row(self, leadgen_id: object) -> dict[str, Any]:
        (row,) = await self.sql("select * from leadgen where leadgen_id = %s", str(leadgen_id))
        return row

    async def state(self, leadgen_id: object) -> str:
        return str((await self.row(leadgen_id))["state"])

    async def settle(self, *settled: tuple[InFlight, Outcome], now: datetime = NOW) -> None:
        await self.store.settle(settled, now)

    async def wait(self, references: Iterable[InFlight], *, due: datetime = NOW) -> None:
        """Let these wait in rows of their own."""
        await self.settle(*((r, Snooze(due, "throttled_page")) for r in references))

    async def lease(
        self, now: datetime = NOW, *, room: int = 1_000, per_page: int = 1_000
    ) -> tuple[InFlight, ...]:
        return await self.store.lease_due(room, per_page, now)

    async def leased(self, reference: InFlight, now: datetime = NOW) -> InFlight:
        """The one reference, waiting and leased."""
        await self.wait([reference])
        (found,) = await self.lease(now)
        return found

    async def snapshot(self) -> list[dict[str, Any]]:
        """All that anybody can see of the rows, without the turn that guards them."""
        rows = await self.sql("select * from leadgen order by leadgen_id")
        return [{name: value for name, value in row.items() if name != "turn"} for row in rows]


@pytest.fixture
def on_store(database: str) -> Callable[[Callable[[World], Awaitable[T]]], T]:
    """Runs a scenario on the store."""

    def run(scenario: Callable[[World], Awaitable[T]]) -> T:
        async def inner() -> T:
            async with AsyncConnectionPool(
                database, min_size=1, max_size=10, open=False, timeout=30, kwargs={"autocommit": True}
            ) as pool:
                return await scenario(World(LeadStore(pool, StoreSettings()), pool))

        return asyncio.run(inner())

    return run


def ids(references: Sequence[InFlight]) -> list[str]:
    return [r.leadgen_id for r in references]


def some(count: int, page_id: str = PAGE, first: int = 1) -> list[InFlight]:
    return [in_flight(n, page_id) for n in range(first, first + count)]


def test_a_lead_is_one_row_with_all_that_graph_said(on_store: Any) -> None:
    """What was read is in its columns, text, JSON and moments alike, and the view shows it."""

    async def scenario(world: World) -> None:
        raw = graph_lead(
            1,
            partner_name="Ümit 😀",
            retailer_item_id="sku",
            custom_disclaimer_responses=[{"checkbox_key": "a", "is_checked": ""}],
            vehicle={"make": "Trabant", "huge": 10**300, "none": None},
            field_data=[{"name": "q"}, {"name": "r", "values": None}, {"name": "s", "values": ["a", "b"]}],
        )
        await world.settle((in_flight(1), Stored(Lead.from_graph(raw, leadgen_id="1", in_part=False))))
        (row,) = await world.store.stored(["1"])
        told = {name: row[name] for name in raw if name in row and name != "created_time"}
        assert told == {name: raw[name] for name in told}
        assert len(told) == 13
        assert row["created_time"] == at(-60)
        assert row["extra"] == {"vehicle": raw["vehicle"]}
        assert (row["page_id"], row["source"], row["received_at"], row["stored_at"]) == (
            PAGE,
            "webhook",
            NOW,
            NOW,
        )
        assert (row["is_test"], row["in_part"], row["cleaned"]) == (False, False, False)

    on_store(scenario)


def test_absent_and_null_are_no_json(on_store: Any) -> None:
    """A field without a value is SQL's null, never JSON's."""

    async def scenario(world: World) -> None:
        raw = {"id": "1", "field_data": None, "custom_disclaimer_responses": None}
        await world.settle((in_flight(1), Stored(Lead.from_graph(raw, leadgen_id="1", in_part=False))))
        row = await world.row(1)
        assert (row["field_data"], row["custom_disclaimer_responses"], row["extra"]) == (None, None, None)
        found = await world.sql("select 1 from leadgen where field_data is null and extra is null")
        assert len(found) == 1

    on_store(scenario)


@pytest.mark.parametrize(
    ("outcome", "state", "reason", "due", "attempts"),
    [
        (Snooze(at(60), "throttled_app"), "waiting", "throttled_app", at(60), 0),
        (Retry(at(5), "not_visible", 1), "waiting", "not_visible", at(5), 1),
        (Park("token_refused"), "waiting", "token_refused", NOW, 0),
        (DeadLetter("lead_gone"), "dead", "lead_gone", None, 1),
        (Stored(a_lead(1)), "stored", None, None, 0),
    ],
)
def test_every_outcome_begins_a_row(
    on_store: Any, outcome: Outcome, state: str, reason: str, due: datetime, attempts: int
) -> None:
    """Where there is no row the first verdict makes one, in its state, with its reason and when it is due."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1, received_at=at(-9), first_seen_at=at(-9)), outcome))
        row = await world.row(1)
        assert (row["state"], row["reason"], row["due_at"], row["attempts"]) == (state, reason, due, attempts)
        assert (row["first_seen_at"], row["received_at"]) == (at(-9), at(-9))
        assert (await world.store.known(["1", "2"])) == {"1": state}

    on_store(scenario)


def test_the_same_id_twice_in_one_settle_is_one_row(on_store: Any) -> None:
    """Duplicates in a batch neither fail it nor make a second row."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Stored(a_lead(1))), (in_flight(1), Stored(a_lead(1))))
        assert await world.state(1) == "stored"

    on_store(scenario)


@pytest.mark.parametrize("outcome", [Snooze(at(1), "x"), Retry(at(1), "x", 1), Park("x"), DeadLetter("x")])
@pytest.mark.parametrize("before", ["waiting", "dead", "stored"])
def test_a_verdict_without_a_lease_changes_no_row(on_store: Any, outcome: Outcome, before: str) -> None:
    """A second delivery's failure says nothing of a row that is there already."""

    async def scenario(world: World) -> None:
        first: dict[str, Outcome] = {
            "waiting": Snooze(at(9), "first"),
            "dead": DeadLetter("first"),
            "stored": Stored(a_lead(1)),
        }
        await world.settle((in_flight(1), first[before]))
        row = await world.row(1)
        await world.settle((in_flight(1), outcome), now=at(50))
        assert await world.row(1) == row

    on_store(scenario)


@pytest.mark.parametrize("outcome", [Snooze(at(1), "x"), Retry(at(1), "x", 9), Park("x"), DeadLetter("x")])
def test_a_zombie_s_late_verdict_changes_nothing(on_store: Any, outcome: Outcome) -> None:
    """Whoever's lease ran out and was given to another judges no more, whatever the other did."""

    async def scenario(world: World) -> None:
        zombie = await world.leased(in_flight(1))
        (heir,) = await world.lease(at(LEASE))
        row = await world.row(1)
        await world.settle((zombie, outcome), now=at(LEASE + 1))
        assert await world.row(1) == row
        await world.settle((heir, Retry(at(500), "graph_unavailable", 1)), now=at(LEASE + 2))
        row = await world.row(1)
        assert row["reason"] == "graph_unavailable"
        await world.settle((zombie, outcome), now=at(LEASE + 3))
        assert await world.row(1) == row

    on_store(scenario)


def test_a_zombie_s_late_lead_is_still_a_lead(on_store: Any) -> None:
    """What was read is stored, however late and by whomever: a lead beats every verdict but erasure."""

    async def scenario(world: World) -> None:
        zombie = await world.leased(in_flight(1))
        (heir,) = await world.lease(at(LEASE))
        await world.settle((heir, DeadLetter("lead_gone")), now=at(LEASE + 1))
        await world.settle((zombie, Stored(a_lead(1))), now=at(LEASE + 2))
        row = await world.row(1)
        assert (row["state"], row["reason"], row["due_at"], row["leases"]) == ("stored", None, None, 0)
        assert await world.store.dead_letters(reason=None, page_id=None, limit=10) == []
        await world.settle((heir, DeadLetter("lead_gone")), now=at(LEASE + 3))
        assert await world.state(1) == "stored"

    on_store(scenario)


def test_what_was_erased_stays_erased(on_store: Any) -> None:
    """No verdict, lease, replay or late lead brings an erased row back to life, nor its content."""

    async def scenario(world: World) -> None:
        zombie = await world.leased(in_flight(1))
        await world.sql("update leadgen set state = 'erased', due_at = null, page_id = %s", PAGE)
        row = await world.row(1)
        await world.settle((zombie, Stored(a_lead(1))))
        await world.settle((in_flight(1), Stored(a_lead(1))))
        await world.settle((zombie, DeadLetter("x")))
        await world.store.replay(at(5), ids=["1"], reason=None, page_id=None)
        await world.settle(*((in_flight(n), DeadLetter("x")) for n in range(2, DEATHS + 3)))
        assert await world.row(1) == row
        await world.store.unpark([PAGE], at(9_999))
        assert await world.lease(at(10_000)) != ()
        assert await world.row(1) == row
        assert await world.store.known(["1"]) == {"1": "erased"}

    on_store(scenario)


def test_a_leased_verdict_moves_its_row(on_store: Any) -> None:
    """The holder of a lease retries, snoozes, parks or buries its row, and the lease is over."""

    async def scenario(world: World) -> None:
        held = await world.leased(in_flight(1))
        assert (held.turn, held.attempts, held.entry_id, held.crashes) == (0, 0, None, 0)
        await world.settle((held, Retry(at(5), "not_visible", 1)))
        row = await world.row(1)
        assert (row["state"], row["attempts"], row["due_at"], row["leases"]) == ("waiting", 1, at(5), 0)
        (held,) = await world.lease(at(5))
        assert (held.attempts, held.failed_for) == (1, "not_visible")
        await world.settle((held, Snooze(at(9), "throttled_page")), now=at(5))
        (held,) = await world.lease(at(9))
        assert (held.attempts, held.failed_for) == (1, "not_visible")
        await world.settle((held, DeadLetter("lead_gone")), now=at(9))
        row = await world.row(1)
        assert (row["state"], row["reason"], row["due_at"]) == ("dead", "lead_gone", None)
        assert await world.lease(at(10**6)) == ()

    on_store(scenario)


OUTCOMES: list[Outcome] = [
    Stored(a_lead(1)),
    Snooze(at(60), "x"),
    Retry(at(60), "x", 3),
    Park("token_refused"),
    DeadLetter("lead_gone"),
]


@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
def test_a_settle_applied_twice_is_applied_once(on_store: Any, outcome: Outcome, leased: bool) -> None:
    """A commit whose answer was lost is repeated: nobody can see that it was."""

    async def scenario(world: World) -> None:
        reference = await world.leased(in_flight(1)) if leased else in_flight(1)
        await world.settle((reference, outcome))
        once, pages = await world.snapshot(), await world.store.pages()
        await world.settle((reference, outcome))
        assert await world.snapshot() == once
        assert await world.store.pages() == pages

    on_store(scenario)


def test_a_settle_in_part_applied_twice_is_applied_once(on_store: Any) -> None:
    """The same for a lead that was read in part."""

    async def scenario(world: World) -> None:
        settled = (in_flight(1), Stored(a_lead(1, in_part=True)))
        await world.settle(settled)
        once = await world.snapshot()
        await world.settle(settled)
        assert await world.snapshot() == once

    on_store(scenario)


def test_a_value_is_never_replaced_by_null(on_store: Any) -> None:
    """A later answer that lacks a field leaves what an earlier one told; what it tells anew replaces the old."""

    async def scenario(world: World) -> None:
        full = graph_lead(1, vehicle={"make": "Trabant"})
        await world.settle((in_flight(1), Stored(Lead.from_graph(full, leadgen_id="1", in_part=False))))
        before = await world.row(1)
        bare = {"id": "1", "ad_name": "Winter", "field_data": []}
        await world.settle(
            (in_flight(1), Stored(Lead.from_graph(bare, leadgen_id="1", in_part=False))), now=at(9)
        )
        after = await world.row(1)
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {"ad_name", "turn", "updated_at"}
        assert (after["ad_name"], after["stored_at"]) == ("Winter", NOW)

    on_store(scenario)


def test_in_part_never_replaces_full(on_store: Any) -> None:
    """An answer without the ad fields adds to a full row what that lacks, and changes nothing else of it."""

    async def scenario(world: World) -> None:
        full = graph_lead(1)
        del full["platform"]
        await world.settle((in_flight(1), Stored(Lead.from_graph(full, leadgen_id="1", in_part=False))))
        before = await world.row(1)
        part = {"id": "1", "platform": "ig", "form_id": "999", "field_data": [{"name": "x", "values": ["y"]}]}
        await world.settle(
            (in_flight(1), Stored(Lead.from_graph(part, leadgen_id="1", in_part=True))), now=at(9)
        )
        after = await world.row(1)
        changed = {name for name in after if after[name] != before[name]}
        assert changed == {"platform", "turn", "updated_at"}
        assert (after["in_part"], after["due_at"]) == (False, None)

    on_store(scenario)


def test_full_completes_in_part(on_store: Any) -> None:
    """A row that was read in part is due again, is leased though it is stored, and a full answer completes it."""

    async def scenario(world: World) -> None:
        part = {"id": "1", "platform": "fb", "field_data": [{"name": "x", "values": ["y"]}]}
        await world.settle((in_flight(1), Stored(Lead.from_graph(part, leadgen_id="1", in_part=True))))
        assert await world.store.known(["1"]) == {"1": "in_part"}
        due = (await world.row(1))["due_at"]
        assert await world.lease(NOW) == ()
        (held,) = await world.lease(due)
        assert held.in_part
        await world.settle((held, Stored(a_lead(1))), now=due)
        row = await world.row(1)
        assert (row["in_part"], row["due_at"], row["ad_name"], row["stored_at"]) == (
            False,
            None,
            "Autumn",
            NOW,
        )
        assert await world.store.known(["1"]) == {"1": "stored"}

    on_store(scenario)


@pytest.mark.parametrize(
    ("outcome", "due"),
    [
        (Retry(at(99), "x", 1), at(99)),
        (Snooze(at(99), "x"), at(99)),
        (DeadLetter("x"), None),
        (Park("x"), None),
    ],
)
def test_a_failed_completion_leaves_the_lead_stored(
    on_store: Any, outcome: Outcome, due: datetime | None
) -> None:
    """A verdict on a row that was read in part moves only its next reading: the lead stays a lead."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Stored(a_lead(1, in_part=True))))
        (held,) = await world.lease(at(10**5))
        before = await world.store.stored(["1"])
        await world.settle((held, outcome), now=at(10**5))
        row = await world.row(1)
        assert row["state"] == "stored"
        assert row["due_at"] == (at(10**5) if isinstance(outcome, Park) else due)
        assert await world.store.stored(["1"]) == before

    on_store(scenario)


def test_what_was_received_keeps_its_first_moment(on_store: Any) -> None:
    """Latency is counted from the first webhook, whoever reads the lead in the end."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1, received_at=at(-5)), Snooze(NOW, "x")))
        (held,) = await world.lease()
        assert held.received_at == at(-5)
        await world.settle((held, Stored(a_lead(1))), now=at(5))
        told = await world.store.latency(at(-60))
        assert (told["leads"], float(told["p50"]), float(told["p99"])) == (1, 10.0, 10.0)

    on_store(scenario)


@pytest.fixture
def fussy(on_store: Any) -> None:
    """A table that refuses one answer, as a trigger or constraint of a user might."""

    async def add(world: World) -> None:
        await world.sql(
            "alter table leadgen add constraint fussy check (coalesce(field_data::text, '') not like '%%hunter2%%')"
        )

    on_store(add)


@pytest.mark.usefixtures("fussy")
@pytest.mark.parametrize("bad", [{1}, {50}, {1, 2, 33, 50}, set(range(1, 51))])
def test_a_row_that_postgres_refuses_dies_alone(
    on_store: Any, bad: set[int], server_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The refused rows of a batch are found and become dead letters without content; every other is stored."""

    async def scenario(world: World) -> None:
        hostile = [{"name": "email", "values": [SECRET]}]
        leads = {n: a_lead(n, field_data=hostile) if n in bad else a_lead(n) for n in range(1, 51)}
        await world.settle(*((in_flight(n), Stored(lead)) for n, lead in leads.items()))
        rows = {int(r["leadgen_id"]): r for r in await world.sql("select * from leadgen")}
        assert {n for n, row in rows.items() if row["state"] == "stored"} == set(leads) - bad
        mass = len(bad) >= DEATHS
        for n in bad:
            assert rows[n]["reason"] == "row_refused_23514"
            assert rows[n]["state"] == "dead" or mass
            assert (rows[n]["field_data"], rows[n]["ad_name"], rows[n]["page_id"]) == (None, None, PAGE)

    on_store(scenario)
    told = capsys.readouterr()
    logs = "".join(log.read_text(errors="replace") for log in server_folder.rglob("*.log*"))
    assert "hunter2" not in told.out + told.err + logs
    assert "row_refused" in told.out + told.err
    assert "starting PostgreSQL" in logs, "the server's log is not where this test looks for it"


@pytest.mark.usefixtures("fussy")
def test_a_refused_completion_of_a_waiting_row_is_its_death(on_store: Any) -> None:
    """A leased row whose lead Postgres refuses does not wait for ever."""

    async def scenario(world: World) -> None:
        held = await world.leased(in_flight(1))
        lead = a_lead(1, field_data=[{"name": "email", "values": [SECRET]}])
        await world.settle((held, Stored(lead)))
        row = await world.row(1)
        assert (row["state"], row["reason"], row["due_at"]) == ("dead", "row_refused_23514", None)

    on_store(scenario)


def test_a_table_that_refuses_every_row_is_a_store_that_is_away(on_store: Any) -> None:
    """Where even the bare row is refused nothing is acknowledged, and the message quotes no answer."""

    async def scenario(world: World) -> None:
        await world.sql("alter table leadgen add constraint none check (page_id = '0') not valid")
        with pytest.raises(StoreUnavailable, match="SQLSTATE 23514") as told:
            await world.settle(
                (in_flight(1), Stored(a_lead(1, field_data=[{"name": "x", "values": [SECRET]}])))
            )
        assert "hunter2" not in repr(told.value)
        assert told.value.__suppress_context__
        assert await world.snapshot() == []

    on_store(scenario)


@pytest.mark.parametrize("depth", [900, 5_000])
def test_a_row_nested_too_deeply_dies_alone(on_store: Any, depth: int) -> None:
    """A value that cannot be written as text, or that Postgres finds too deep, costs its neighbours nothing."""

    async def scenario(world: World) -> None:
        nested: Any = 1
        for _ in range(depth):
            nested = [nested]
        deep = replace(a_lead(1), extra={"x": nested})
        await world.settle((in_flight(1), Stored(deep)), (in_flight(2), Stored(a_lead(2))))
        assert await world.state(2) == "stored"
        assert await world.state(1) in ("stored", "dead")
        assert depth < 5_000 or await world.state(1) == "dead"

    on_store(scenario)


@pytest.mark.parametrize(
    "broken", ["drop table leadgen cascade", "alter table leadgen drop column platform cascade"]
)
def test_what_postgres_does_to_us_is_a_store_that_is_away(on_store: Any, broken: str) -> None:
    """An error that blames no row leaves as StoreUnavailable, which names a SQLSTATE and no content."""

    async def scenario(world: World) -> None:
        await world.sql(broken)
        with pytest.raises(StoreUnavailable) as told:
            await world.settle((in_flight(1), Stored(a_lead(1, ad_name=SECRET))))
        assert "hunter2" not in str(told.value)
        assert "`leadsync migrate`" in str(told.value)
        assert told.value.__suppress_context__

    on_store(scenario)


def test_a_postgres_that_is_away_is_told_without_its_url(free_port: int) -> None:
    """No password of the database is in the error."""

    async def scenario() -> None:
        url = f"postgresql://u:hunter2@127.0.0.1:{free_port}/x"
        async with AsyncConnectionPool(url, min_size=0, max_size=1, open=False, timeout=0.2) as pool:
            with pytest.raises(StoreUnavailable) as told:
                await LeadStore(pool, StoreSettings()).ping()
            assert "hunter2" not in str(told.value)

    asyncio.run(scenario())


def test_overlapping_settles_do_not_deadlock(on_store: Any) -> None:
    """Writers of the same ids in any order, live, leased and noting duplicates, all get through."""

    async def scenario(world: World) -> None:
        dice = random.Random(7)
        everybody = some(300)
        await world.wait(everybody[:150])

        async def writer() -> None:
            for _ in range(8):
                chosen = dice.sample(everybody, 100)
                kinds = [Stored(a_lead(1)), Snooze(NOW, "x"), DeadLetter("x"), Retry(NOW, "x", 1)]
                settled = [(r, dice.choice(kinds)) for r in chosen]
                await world.settle(
                    *((r, Stored(a_lead(r.leadgen_id)) if isinstance(o, Stored) else o) for r, o in settled)
                )
                await world.store.seen_again(ids(dice.sample(everybody, 100)), NOW)
                leased = await world.lease(room=50)
                await world.settle(*((r, Stored(a_lead(r.leadgen_id))) for r in leased))

        await asyncio.gather(*(writer() for _ in range(8)))
        assert len(await world.snapshot()) == 300

    on_store(scenario)


def test_two_leases_never_take_the_same_row(on_store: Any) -> None:
    """Workers that lease at the same moment share out what is due, and nobody waits for another's lock."""

    async def scenario(world: World) -> None:
        await world.wait(some(400))
        parts = await asyncio.gather(*(world.lease(room=100) for _ in range(8)))
        taken = Counter(i for part in parts for i in ids(part))
        assert max(taken.values()) == 1
        while rest := await world.lease(room=100):
            taken.update(ids(rest))
        assert (len(taken), max(taken.values())) == (400, 1)

    on_store(scenario)


def test_a_row_that_is_being_written_is_not_waited_for(on_store: Any) -> None:
    """A locked row is passed over by whoever leases."""

    async def scenario(world: World) -> None:
        await world.wait(some(3))
        async with world.pool.connection() as connection, connection.transaction():
            await connection.execute("select 1 from leadgen where leadgen_id = '2' for update")
            assert sorted(ids(await asyncio.wait_for(world.lease(), 10))) == ["1", "3"]

    on_store(scenario)


def test_only_what_is_due_is_leased_and_comes_back_when_its_holder_dies(on_store: Any) -> None:
    """Before its moment a row is left alone; a lease hides it until it runs out, and counts the holder's death."""

    async def scenario(world: World) -> None:
        await world.wait(some(1), due=at(10))
        assert await world.lease(at(9)) == ()
        (first,) = await world.lease(at(10))
        assert await world.lease(at(10 + LEASE - 1)) == ()
        (second,) = await world.lease(at(10 + LEASE))
        assert second.turn == (first.turn or 0) + 1
        assert (first.crashes, second.crashes) == (0, 1)

    on_store(scenario)


def test_an_old_backlog_does_not_go_before_another_page(on_store: Any) -> None:
    """Pages take turns: however much of several Pages has been due for long, a fresh row of another is leased."""

    async def scenario(world: World) -> None:
        for n in range(4):
            await world.wait(some(300, f"7{n}", 1 + 1_000 * n), due=at(-3_600))
        await world.wait(some(2, OTHER_PAGE, 90_000))
        leased = await world.lease(room=100, per_page=200)
        shares = Counter(r.page_id for r in leased)
        assert shares[OTHER_PAGE] == 2
        assert all(shares[f"7{n}"] in (24, 25) for n in range(4))

    on_store(scenario)


def test_a_page_has_no_more_leases_than_its_share(on_store: Any) -> None:
    """A single Page gets at most `per_page` rows at once, the longest due first, and `room` bounds the whole."""

    async def scenario(world: World) -> None:
        for n in range(1, 31):
            await world.wait([in_flight(n)], due=at(-n))
        await world.wait(some(30, OTHER_PAGE, 100), due=at(-5))
        leased = await world.lease(room=25, per_page=20)
        assert len(leased) == 25
        mine = [int(r.leadgen_id) for r in leased if r.page_id == PAGE]
        assert sorted(mine) == list(range(31 - len(mine), 31))
        rest = await world.lease(room=1_000, per_page=20)
        assert max(Counter(r.page_id for r in rest).values()) <= 20

    on_store(scenario)


def test_leasing_locks_only_what_it_leases(on_store: Any) -> None:
    """A lock is a write: however many rows of however many Pages are due, those left alone are not written to."""

    async def scenario(world: World) -> None:
        for page in range(20):
            await world.wait(some(10, f"7{page}", 1 + 100 * page), due=at(-9))
        before = {row["leadgen_id"] for row in await world.sql(TOUCHED)}
        leased = await world.lease(room=12, per_page=10)
        assert Counter(r.page_id for r in leased).most_common(1)[0][1] == 1
        assert {row["leadgen_id"] for row in await world.sql(TOUCHED)} - before == set(ids(leased))
        assert len(leased) == 12

    on_store(scenario)


def test_two_who_lease_at_once_both_find_something(on_store: Any) -> None:
    """What one is leasing at this moment, the other passes over, and takes what comes next."""

    async def scenario(world: World) -> None:
        for page in range(5):
            await world.wait(some(5, f"7{page}", 1 + 100 * page), due=at(-9))
        asked = {"now": NOW, "lease": timedelta(seconds=9), "per_page": 5, "room": 3}
        async with world.pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(LEASE_DUE, asked)
            first = {row[0] for row in await cursor.fetchall()}
            second = set(ids(await asyncio.wait_for(world.lease(room=3, per_page=5), 10)))
        assert (len(first), len(second), first & second) == (3, 3, set())

    on_store(scenario)


def test_rows_given_back_are_due_at_once_and_blameless(on_store: Any) -> None:
    """An orderly stop ends its leases without an attempt or a crash; a lease that is another's by now it leaves."""

    async def scenario(world: World) -> None:
        await world.wait(some(2))
        held = await world.lease()
        await world.store.give_back([*held, in_flight(5)], at(1))
        again = await world.lease(at(1))
        assert sorted(ids(again)) == ["1", "2"]
        assert {(r.attempts, r.crashes) for r in again} == {(0, 0)}
        await world.store.give_back(held, at(2))
        assert await world.lease(at(2)) == ()

    on_store(scenario)


def test_one_question_tells_what_is_known_and_who_is_parked(on_store: Any) -> None:
    """Of all that is named it says what the two questions say that it stands for, and of nothing else."""

    async def scenario(world: World) -> None:
        part = Stored(Lead.from_graph({"id": "3"}, leadgen_id="3", in_part=True))
        await world.settle(
            (in_flight(1), Stored(a_lead(1))),
            (in_flight(2), DeadLetter("lead_gone")),
            (in_flight(3), part),
            (in_flight(5), Stored(a_lead(5))),
        )
        await world.wait([in_flight(6, OTHER_PAGE)])
        assert await world.store.park(PAGE, "token_refused", NOW)
        leads, pages = ["1", "2", "3", "4", "6"], [PAGE, OTHER_PAGE, "77"]
        known, parked = await world.store.known_and_parked(leads, pages)
        assert known == {"1": "stored", "2": "dead", "3": "in_part", "6": "waiting"}
        assert known == await world.store.known(leads)
        assert parked == {PAGE} == await world.store.parked(pages)
        assert await world.store.known_and_parked(["4"], [OTHER_PAGE]) == ({}, frozenset())

    on_store(scenario)


def test_nothing_of_a_parked_page_is_leased(on_store: Any) -> None:
    """While a Page is held its rows wait, however long; they were due all along once it is taken up."""

    async def scenario(world: World) -> None:
        await world.wait([*some(50), *some(5, OTHER_PAGE, 100)])
        assert await world.store.park(PAGE, "token_refused", NOW)
        assert await world.store.parked([PAGE, OTHER_PAGE]) == {PAGE}
        assert {r.page_id for r in await world.lease()} == {OTHER_PAGE}
        assert [r for r in await world.lease(at(10**6)) if r.page_id == PAGE] == []
        assert await world.store.unpark([PAGE], at(10**6)) == (PAGE,)
        assert len([r for r in await world.lease(at(10**6)) if r.page_id == PAGE]) == 50

    on_store(scenario)


def test_the_longest_overdue_row_is_known_but_not_a_parked_page_s(on_store: Any) -> None:
    """How long somebody has waited counts only where waiting can be ended."""

    async def scenario(world: World) -> None:
        assert await world.store.oldest_overdue(NOW) is None
        await world.wait(some(1), due=at(-500))
        await world.wait(some(1, OTHER_PAGE, 9), due=at(-20))
        assert await world.store.oldest_overdue(NOW) == at(-500)
        await world.store.park(PAGE, "token_refused", NOW)
        assert await world.store.oldest_overdue(NOW) == at(-20)
        assert await world.store.oldest_overdue(at(-100)) is None

    on_store(scenario)


def held(until: datetime, reason: str = "budget") -> Snooze:
    """The budget's refusal of a whole Page."""
    return Snooze(until, reason, whole_page=True)


def test_nothing_of_a_held_page_is_leased_until_its_moment(on_store: Any) -> None:
    """One refusal holds everything that waits for its Page, and nothing that waits for another."""

    async def scenario(world: World) -> None:
        await world.wait([*some(20), *some(20, OTHER_PAGE, 100)])
        await world.settle((in_flight(50), held(at(60))))
        assert {r.page_id for r in await world.lease(at(59))} == {OTHER_PAGE}
        assert await world.lease(at(59)) == ()
        assert sorted(ids(await world.lease(at(60))), key=int) == [*map(str, range(1, 21)), "50"]

    on_store(scenario)


def test_who_meets_the_hold_of_its_page_keeps_its_place(on_store: Any) -> None:
    """A refused row is as long overdue as before, so that after the hold the oldest go first."""

    async def scenario(world: World) -> None:
        for n, ago in ((1, 30), (2, 500), (3, 90)):
            await world.wait([in_flight(n)], due=at(-ago))
        leased = await world.lease()
        assert {r.leadgen_id: r.due_at for r in leased} == {"1": at(-30), "2": at(-500), "3": at(-90)}
        await world.settle(*((r, held(at(60))) for r in leased), now=at(5))
        await world.settle((in_flight(4), held(at(60))), now=at(6))
        assert [(await world.row(n))["due_at"] for n in (1, 2, 3, 4)] == [at(-30), at(-500), at(-90), at(6)]
        in_turn = [(await world.lease(at(60), room=1))[0].leadgen_id for _ in range(4)]
        assert in_turn == ["2", "3", "1", "4"]

    on_store(scenario)


def test_rows_due_at_the_same_moment_go_by_when_they_were_first_seen(on_store: Any) -> None:
    """What a refusal made due at once is read in the order in which it was announced."""

    async def scenario(world: World) -> None:
        order = [3, 1, 5, 2, 4]
        await world.settle(
            *((in_flight(n, first_seen_at=at(10 * i - 100)), held(at(60))) for i, n in enumerate(order))
        )
        in_turn = [int((await world.lease(at(60), per_page=1))[0].leadgen_id) for _ in order]
        assert in_turn == order

    on_store(scenario)


def test_a_live_reference_that_is_refused_is_due_in_its_place(on_store: Any) -> None:
    """A hold is the Page's: the row of a live reference begins due now, one that is snoozed alone due later."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), held(at(600))), (in_flight(2), Snooze(at(600), "page_slow")))
        assert [(await world.row(n))["due_at"] for n in (1, 2)] == [NOW, at(600)]
        assert [(await world.row(n))["reason"] for n in (1, 2)] == ["budget", "page_slow"]

    on_store(scenario)


def test_a_snooze_of_one_reference_holds_nobody_else(on_store: Any) -> None:
    """Whoever waits alone, for a slow Page or an absent ledger, leaves the rest of its Page free to be read."""

    async def scenario(world: World) -> None:
        await world.wait(some(3))
        await world.settle((in_flight(9), Snooze(at(600), "page_slow")))
        assert sorted(ids(await world.lease())) == ["1", "2", "3"]

    on_store(scenario)


def test_when_the_next_row_may_be_read_is_known(on_store: Any) -> None:
    """The earliest row of a Page that is neither parked nor held, or the end of a hold where that comes first."""

    async def scenario(world: World) -> None:
        assert await world.store.next_due() is None
        await world.wait(some(2), due=at(-500))
        assert await world.store.next_due() == at(-500)
        await world.settle((in_flight(9), held(at(300))))
        assert await world.store.next_due() == at(300)
        await world.wait(some(1, OTHER_PAGE, 100), due=at(400))
        assert await world.store.next_due() == at(300)
        await world.wait(some(1, OTHER_PAGE, 101), due=at(200))
        assert await world.store.next_due() == at(200)
        await world.store.park(OTHER_PAGE, "token_refused", NOW)
        assert await world.store.next_due() == at(300)
        await world.store.park(PAGE, "token_refused", NOW)
        assert await world.store.next_due() is None

    on_store(scenario)


def test_a_row_that_is_due_after_its_page_s_hold_is_next_due_then(on_store: Any) -> None:
    """A hold that ends first does not make a row due before its own moment."""

    async def scenario(world: World) -> None:
        leased = await world.leased(in_flight(1))
        await world.settle((leased, Retry(at(300), "graph_unavailable", 1)))
        await world.settle((in_flight(2), held(at(60))))
        await world.sql("delete from leadgen where leadgen_id = '2'")
        assert await world.store.next_due() == at(300)
        assert await world.lease(at(299)) == ()

    on_store(scenario)


@pytest.mark.parametrize("until", [at(30), at(3_600)])
def test_a_newer_hold_replaces_an_older_one(on_store: Any, until: datetime) -> None:
    """The budget's last word counts, be it sooner or later than the one before."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), held(at(60))))
        await world.settle((in_flight(2), held(until, "throttled_page")))
        (page,) = await world.sql("select held_until, held_reason from pages")
        assert (page["held_until"], page["held_reason"]) == (until, "throttled_page")
        before = min(59.0, (until - NOW).total_seconds() - 1)
        assert await world.lease(at(before)) == ()
        assert len(await world.lease(until)) == 2

    on_store(scenario)


@pytest.mark.parametrize(("minutes", "held_for"), [(0, 120), (1, 120), (3, 3_600)])
def test_a_hold_by_the_limit_before_a_raise_is_short(on_store: Any, minutes: int, held_for: int) -> None:
    """A limit that has just been worked out may not be the one that refused: it is asked again soon."""

    async def scenario(world: World) -> None:
        worked_out = NOW - timedelta(minutes=minutes)
        await BudgetStore(world.pool).keep_limit(PAGE, Limit(4_560, 4_800, "our rows"), worked_out)
        await world.settle((in_flight(1), held(at(3_600))))
        assert await world.lease(at(held_for - 1)) == ()
        assert len(await world.lease(at(held_for))) == 1

    on_store(scenario)


def test_a_lead_that_arrives_meanwhile_does_not_end_a_hold(on_store: Any) -> None:
    """A hold is about calls, so what a call still brought says nothing against it."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), held(at(60))), (in_flight(2), Stored(a_lead(2))))
        assert await world.lease(at(59)) == ()
        assert ids(await world.lease(at(60))) == ["1"]

    on_store(scenario)


def test_how_long_a_held_page_s_rows_could_have_been_read_counts_from_the_hold_s_end(on_store: Any) -> None:
    """A row under a hold is not overdue, and after it only since the hold was over."""

    async def scenario(world: World) -> None:
        await world.wait(some(1), due=at(-500))
        await world.wait(some(1, OTHER_PAGE, 9), due=at(-20))
        await world.settle((in_flight(2), held(at(60))))
        assert await world.store.oldest_overdue(at(59)) == at(-20)
        await world.store.park(OTHER_PAGE, "token_refused", NOW)
        assert await world.store.oldest_overdue(at(59)) is None
        assert await world.store.oldest_overdue(at(100)) == at(60)

    on_store(scenario)


def test_a_lead_read_in_part_keeps_its_place_under_a_hold(on_store: Any) -> None:
    """The next full reading of a stored lead waits with its Page and stays due."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Stored(a_lead(1, in_part=True))))
        due = (await world.row(1))["due_at"]
        (leased,) = await world.lease(due)
        assert leased.in_part
        await world.settle((leased, held(due.replace(microsecond=7))), now=due)
        row = await world.row(1)
        assert (row["state"], row["in_part"], row["due_at"]) == ("stored", True, due)

    on_store(scenario)


def test_people_see_until_when_a_row_waits(on_store: Any) -> None:
    """The view of what waits shows the later of a row's own moment and the end of its Page's hold."""

    async def scenario(world: World) -> None:
        await world.wait([in_flight(1)], due=at(10))
        await world.wait([in_flight(2)], due=at(900))
        await world.wait([in_flight(3, OTHER_PAGE)], due=at(10))
        await world.settle((in_flight(4), held(at(60))))
        rows = await world.sql("select leadgen_id, due_at from waiting order by 1")
        assert [row["due_at"] for row in rows] == [at(60), at(900), at(10), at(60)]

    on_store(scenario)


def test_who_waits_keeps_when_its_lead_was_created(on_store: Any) -> None:
    """What the webhook said of a lead's creation is with its row, so that a listing may bring it later."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1, created_time=at(-77)), held(at(60))))
        (leased,) = await world.lease(at(60))
        assert (leased.created_time, leased.form_id) == (at(-77), in_flight(1).form_id)
        await world.settle((replace(leased, created_time=None), Retry(at(90), "graph_unavailable", 1)))
        (again,) = await world.lease(at(90))
        assert again.created_time == at(-77)
        bare = Lead.from_graph({"id": "1", "field_data": []}, leadgen_id="1", in_part=False)
        fresh = Lead.from_graph({"id": "2", "field_data": []}, leadgen_id="2", in_part=False)
        await world.settle((again, Stored(bare)), (in_flight(2, created_time=at(-5)), Stored(fresh)))
        assert [(await world.row(n))["created_time"] for n in (1, 2)] == [at(-77), at(-5)]

    on_store(scenario)


def test_a_lead_that_came_along_begins_or_ends_a_row(on_store: Any) -> None:
    """Whom a listing brought unasked is stored where nothing was, where somebody waits, and where one was given up."""

    async def scenario(world: World) -> None:
        await world.settle(
            (in_flight(1, received_at=at(-9)), held(at(600))), (in_flight(2), DeadLetter("not_visible"))
        )
        brought = [InFlight.listed(str(n), PAGE, "12312312312", NOW) for n in (1, 2, 3)]
        await world.settle(*((r, Stored(a_lead(r.leadgen_id))) for r in brought))
        rows = [await world.row(n) for n in (1, 2, 3)]
        assert [row["state"] for row in rows] == ["stored"] * 3
        assert [row["source"] for row in rows] == ["webhook", "webhook", "listing"]
        assert [row["received_at"] for row in rows] == [at(-9), NOW, None]
        assert await world.lease(at(10**6)) == ()

    on_store(scenario)


def test_a_refused_token_parks_its_page_once(on_store: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Fifty references that meet a refused token are one alarm, and all of them wait."""

    async def scenario(world: World) -> None:
        await world.settle(*((r, Park("token_refused")) for r in some(50)))
        await world.settle(*((r, Park("permission_refused")) for r in some(50, first=100)), now=at(5))
        (page,) = await world.store.pages()
        assert (page["parked_at"], page["parked_reason"], page["waiting"]) == (NOW, "token_refused", 100)

    on_store(scenario)
    told = capsys.readouterr()
    assert (told.out + told.err).count("page_parked") == 1


def test_a_lead_that_was_being_read_does_not_take_its_page_up_again(on_store: Any) -> None:
    """Its call was answered before the token was refused: the Page stays held, so that it is one alarm and not many."""

    async def scenario(world: World) -> None:
        await world.settle(*((r, Park("token_refused")) for r in some(30)))
        await world.settle((in_flight(99), Stored(a_lead(99))), now=at(1))
        assert await world.store.parked([PAGE]) == {PAGE}
        assert await world.state(99) == "stored"
        assert await world.lease(at(10**6)) == ()

    on_store(scenario)


def test_a_page_with_a_lead_in_the_same_batch_is_not_parked(on_store: Any) -> None:
    """One reference refused beside one that was read is no trouble of the Page."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Park("permission_refused")), (in_flight(2), Stored(a_lead(2))))
        assert await world.store.pages() == []

    on_store(scenario)


def test_many_deaths_of_one_reason_are_the_page_s_trouble(on_store: Any) -> None:
    """Where many die of one reason and none was stored since, they wait again and the Page is parked."""

    async def scenario(world: World) -> None:
        dying = some(DEATHS)
        for n, reference in enumerate(dying[:-1]):
            await world.settle((reference, DeadLetter("request_refused")), now=at(n))
        assert await world.store.parked([PAGE]) == frozenset()
        assert Counter(r["state"] for r in await world.snapshot()) == {"dead": DEATHS - 1}
        await world.settle((dying[-1], DeadLetter("request_refused")), now=at(DEATHS))
        rows = await world.snapshot()
        assert Counter(r["state"] for r in rows) == {"waiting": DEATHS}
        assert {(r["due_at"], r["attempts"]) for r in rows} == {(at(DEATHS), 0)}
        (page,) = await world.store.pages()
        assert page["parked_reason"] == "mass_request_refused"

    on_store(scenario)


def test_who_was_being_read_when_its_page_was_parked_waits_with_the_others(on_store: Any) -> None:
    """A reference in flight dies of the same reason after the Page is held for it: it is no dead letter of its own."""

    async def scenario(world: World) -> None:
        await world.settle(*((r, DeadLetter("not_visible")) for r in some(DEATHS)))
        late = some(DEATHS + 3)[DEATHS:]
        await world.settle(
            (late[0], DeadLetter("not_visible")), (late[1], DeadLetter("lead_gone")), now=at(1)
        )
        states = {r["leadgen_id"]: r["state"] for r in await world.snapshot()}
        assert states.pop(late[1].leadgen_id) == "dead"
        assert set(states.values()) == {"waiting"}
        await world.store.unpark([PAGE], at(2))
        await world.settle((late[2], DeadLetter("not_visible")), now=at(3))
        assert await world.state(DEATHS + 3) == "dead"

    on_store(scenario)


@pytest.mark.parametrize("what", ["reasons", "pages", "stored"])
def test_scattered_deaths_are_the_leads_own(on_store: Any, what: str) -> None:
    """Deaths of several reasons, of several Pages, or with a lead stored in between park nobody."""

    async def scenario(world: World) -> None:
        for n in range(2 * DEATHS - 2):
            half = n % 2
            reference = in_flight(n + 1, (PAGE, OTHER_PAGE)[half] if what == "pages" else PAGE)
            reason = ("lead_gone", "not_visible")[half] if what == "reasons" else "lead_gone"
            await world.settle((reference, DeadLetter(reason)), now=at(n))
            if what == "stored" and n == DEATHS - 2:
                await world.settle((in_flight(900), Stored(a_lead(900))), now=at(n + 0.5))
        assert await world.store.pages() == []
        assert Counter(r["state"] for r in await world.snapshot())["dead"] == 2 * DEATHS - 2

    on_store(scenario)


def test_deaths_of_yesterday_are_not_counted(on_store: Any) -> None:
    """A few dead letters a week never add up to a parked Page."""

    async def scenario(world: World) -> None:
        for n in range(DEATHS + 5):
            await world.settle((in_flight(n + 1), DeadLetter("lead_gone")), now=at(n * 86_401.0))
        assert await world.store.pages() == []

    on_store(scenario)


def test_replay_puts_the_chosen_back(on_store: Any) -> None:
    """Dead letters are replayed by id, reason or Page, with their full time again; nothing else is touched."""

    async def scenario(world: World) -> None:
        await world.settle(
            (in_flight(1), DeadLetter("lead_gone")),
            (in_flight(2), DeadLetter("not_visible")),
            (in_flight(3, OTHER_PAGE), DeadLetter("lead_gone")),
            (in_flight(4), Stored(a_lead(4))),
            (in_flight(5), Snooze(at(10**6), "x")),
        )
        later = at(90_000)
        replay = world.store.replay
        assert await replay(later, ids=["4", "5", "99"], reason=None, page_id=None) == ()
        assert await replay(later, ids=None, reason="not_visible", page_id=OTHER_PAGE) == ()
        assert await replay(later, ids=["2"], reason=None, page_id=None) == ("2",)
        row = await world.row(2)
        assert (row["state"], row["attempts"], row["due_at"], row["first_seen_at"]) == (
            "waiting",
            0,
            later,
            later,
        )
        assert await replay(later, ids=None, reason="lead_gone", page_id=PAGE) == ("1",)
        assert await replay(later, ids=None, reason=None, page_id=None) == ("3",)
        assert sorted(ids(await world.lease(later))) == ["1", "2", "3"]

    on_store(scenario)


def test_a_zombie_cannot_bury_what_was_replayed(on_store: Any) -> None:
    """A verdict from before the replay changes nothing after it."""

    async def scenario(world: World) -> None:
        zombie = await world.leased(in_flight(1))
        (heir,) = await world.lease(at(LEASE))
        await world.settle((heir, DeadLetter("lead_gone")), now=at(LEASE))
        await world.store.replay(at(200), ids=["1"], reason=None, page_id=None)
        for late in (zombie, heir):
            await world.settle((late, DeadLetter("lead_gone")), now=at(201))
        assert await world.state(1) == "waiting"

    on_store(scenario)


def test_another_announcement_is_noted(on_store: Any) -> None:
    """A reference seen again moves only when it was last seen."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Stored(a_lead(1))))
        before = await world.row(1)
        await world.store.seen_again(["1", "2"], at(77))
        after = await world.row(1)
        assert {name for name in after if after[name] != before[name]} == {"last_seen_at", "announced"}
        assert after["last_seen_at"] == at(77)

    on_store(scenario)


def test_the_views_show_each_row_in_its_place(on_store: Any) -> None:
    """A row is in exactly one of leads, waiting and dead_letters, and an erased one in none."""

    async def scenario(world: World) -> None:
        await world.settle(
            (in_flight(1), Stored(a_lead(1))),
            (in_flight(2), Snooze(at(9), "throttled_page")),
            (in_flight(3), DeadLetter("lead_gone")),
            (in_flight(4), Stored(a_lead(4, in_part=True))),
            (in_flight(5), DeadLetter("lead_gone")),
        )
        await world.sql("update leadgen set state = 'erased' where leadgen_id = '5'")
        shown = {
            view: [r["leadgen_id"] for r in await world.sql(f"select leadgen_id from {view} order by 1")]
            for view in ("leads", "waiting", "dead_letters")
        }
        assert shown == {"leads": ["1", "4"], "waiting": ["2"], "dead_letters": ["3"]}

    on_store(scenario)


def test_an_operator_sees_states_and_reasons_but_no_answers(on_store: Any) -> None:
    """Counts, dead letters and a row's story are told without what the person wrote."""

    async def scenario(world: World) -> None:
        hostile = a_lead(1, field_data=[{"name": "email", "values": [SECRET]}], full_name=SECRET)
        await world.settle(
            (in_flight(1), Stored(hostile)),
            (in_flight(2), DeadLetter("lead_gone")),
            (in_flight(3), Snooze(at(9), "throttled_page")),
            (in_flight(4), Snooze(at(5), "throttled_page")),
        )
        counts = {
            (r["state"], r["reason"]): (r["count"], r["oldest_due"]) for r in await world.store.counts()
        }
        assert counts == {
            ("stored", ""): (1, None),
            ("dead", "lead_gone"): (1, None),
            ("waiting", "throttled_page"): (2, at(5)),
        }
        (dead,) = await world.store.dead_letters(reason="lead_gone", page_id=PAGE, limit=5)
        assert (dead["leadgen_id"], dead["died_at"]) == ("2", NOW)
        shown = await world.store.show("1")
        assert shown is not None
        assert shown["state"] == "stored"
        assert "hunter2" not in json.dumps([shown, dead], default=str)
        assert await world.store.show("99") is None

    on_store(scenario)
