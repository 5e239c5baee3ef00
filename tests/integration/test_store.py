"""The rows on a real Postgres: one a leadgen_id, states only forward, whoever writes when and how often.

All moments are handed in; nothing here waits for time to pass.
"""

import asyncio
import random
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg_pool import AsyncConnectionPool

from tests.fakes.leads import PAGE, a_lead, at, graph_lead, in_flight
from tests.fakes.time import NOW
from tests.integration.lead_world import DEATHS, LEASE, SECRET, World, held, ids, some
from worker.batches import InFlight
from worker.errors import StoreUnavailable
from worker.lead import Lead
from worker.outcomes import DeadLetter, Outcome, Park, Retry, Snooze, Stored
from worker.store.leads import LeadStore, StoreSettings


def test_a_lead_is_one_row_with_all_that_graph_said(on_leads: Any) -> None:
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

    on_leads(scenario)


def test_absent_and_null_are_no_json(on_leads: Any) -> None:
    """A field without a value is SQL's null, never JSON's."""

    async def scenario(world: World) -> None:
        raw = {"id": "1", "field_data": None, "custom_disclaimer_responses": None}
        await world.settle((in_flight(1), Stored(Lead.from_graph(raw, leadgen_id="1", in_part=False))))
        row = await world.row(1)
        assert (row["field_data"], row["custom_disclaimer_responses"], row["extra"]) == (None, None, None)
        found = await world.sql("select 1 from leadgen where field_data is null and extra is null")
        assert len(found) == 1

    on_leads(scenario)


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
    on_leads: Any, outcome: Outcome, state: str, reason: str, due: datetime, attempts: int
) -> None:
    """Where there is no row the first verdict makes one, in its state, with its reason and when it is due."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1, received_at=at(-9), first_seen_at=at(-9)), outcome))
        row = await world.row(1)
        assert (row["state"], row["reason"], row["due_at"], row["attempts"]) == (state, reason, due, attempts)
        assert (row["first_seen_at"], row["received_at"]) == (at(-9), at(-9))
        assert (await world.store.known(["1", "2"])) == {"1": state}

    on_leads(scenario)


def test_the_same_id_twice_in_one_settle_is_one_row(on_leads: Any) -> None:
    """Duplicates in a batch neither fail it nor make a second row."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Stored(a_lead(1))), (in_flight(1), Stored(a_lead(1))))
        assert await world.state(1) == "stored"

    on_leads(scenario)


@pytest.mark.parametrize("outcome", [Snooze(at(1), "x"), Retry(at(1), "x", 1), Park("x"), DeadLetter("x")])
@pytest.mark.parametrize("before", ["waiting", "dead", "stored"])
def test_a_verdict_without_a_lease_changes_no_row(on_leads: Any, outcome: Outcome, before: str) -> None:
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

    on_leads(scenario)


@pytest.mark.parametrize("outcome", [Snooze(at(1), "x"), Retry(at(1), "x", 9), Park("x"), DeadLetter("x")])
def test_a_zombie_s_late_verdict_changes_nothing(on_leads: Any, outcome: Outcome) -> None:
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

    on_leads(scenario)


def test_a_zombie_s_late_lead_is_still_a_lead(on_leads: Any) -> None:
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

    on_leads(scenario)


def test_what_was_erased_stays_erased(on_leads: Any) -> None:
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

    on_leads(scenario)


def test_a_leased_verdict_moves_its_row(on_leads: Any) -> None:
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

    on_leads(scenario)


OUTCOMES: list[Outcome] = [
    Stored(a_lead(1)),
    Snooze(at(60), "x"),
    Retry(at(60), "x", 3),
    Park("token_refused"),
    DeadLetter("lead_gone"),
]


@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize("outcome", OUTCOMES, ids=lambda outcome: type(outcome).__name__)
def test_a_settle_applied_twice_is_applied_once(on_leads: Any, outcome: Outcome, leased: bool) -> None:
    """A commit whose answer was lost is repeated: nobody can see that it was."""

    async def scenario(world: World) -> None:
        reference = await world.leased(in_flight(1)) if leased else in_flight(1)
        await world.settle((reference, outcome))
        once, pages = await world.snapshot(), await world.store.pages()
        await world.settle((reference, outcome))
        assert await world.snapshot() == once
        assert await world.store.pages() == pages

    on_leads(scenario)


def test_a_settle_in_part_applied_twice_is_applied_once(on_leads: Any) -> None:
    """The same for a lead that was read in part."""

    async def scenario(world: World) -> None:
        settled = (in_flight(1), Stored(a_lead(1, in_part=True)))
        await world.settle(settled)
        once = await world.snapshot()
        await world.settle(settled)
        assert await world.snapshot() == once

    on_leads(scenario)


def test_a_value_is_never_replaced_by_null(on_leads: Any) -> None:
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

    on_leads(scenario)


def test_in_part_never_replaces_full(on_leads: Any) -> None:
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

    on_leads(scenario)


def test_full_completes_in_part(on_leads: Any) -> None:
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

    on_leads(scenario)


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
    on_leads: Any, outcome: Outcome, due: datetime | None
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

    on_leads(scenario)


def test_what_was_received_keeps_its_first_moment(on_leads: Any) -> None:
    """Latency is counted from the first webhook, whoever reads the lead in the end."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1, received_at=at(-5)), Snooze(NOW, "x")))
        (held,) = await world.lease()
        assert held.received_at == at(-5)
        await world.settle((held, Stored(a_lead(1))), now=at(5))
        told = await world.store.latency(at(-60))
        assert (told["leads"], float(told["p50"]), float(told["p99"])) == (1, 10.0, 10.0)

    on_leads(scenario)


@pytest.fixture
def fussy(on_leads: Any) -> None:
    """A table that refuses one answer, as a trigger or constraint of a user might."""

    async def add(world: World) -> None:
        await world.sql(
            "alter table leadgen add constraint fussy check (coalesce(field_data::text, '') not like '%hunter2%')"
        )

    on_leads(add)


@pytest.mark.usefixtures("fussy")
@pytest.mark.parametrize("bad", [{1}, {50}, {1, 2, 33, 50}, set(range(1, 51))])
def test_a_row_that_postgres_refuses_dies_alone(
    on_leads: Any, bad: set[int], server_folder: Path, capsys: pytest.CaptureFixture[str]
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

    on_leads(scenario)
    told = capsys.readouterr()
    logs = "".join(log.read_text(errors="replace") for log in server_folder.rglob("*.log*"))
    assert "hunter2" not in told.out + told.err + logs
    assert "row_refused" in told.out + told.err
    assert "starting PostgreSQL" in logs, "the server's log is not where this test looks for it"


@pytest.mark.usefixtures("fussy")
def test_a_refused_completion_of_a_waiting_row_is_its_death(on_leads: Any) -> None:
    """A leased row whose lead Postgres refuses does not wait for ever."""

    async def scenario(world: World) -> None:
        held = await world.leased(in_flight(1))
        lead = a_lead(1, field_data=[{"name": "email", "values": [SECRET]}])
        await world.settle((held, Stored(lead)))
        row = await world.row(1)
        assert (row["state"], row["reason"], row["due_at"]) == ("dead", "row_refused_23514", None)

    on_leads(scenario)


def test_a_table_that_refuses_every_row_is_a_store_that_is_away(on_leads: Any) -> None:
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

    on_leads(scenario)


@pytest.mark.parametrize("depth", [900, 5_000])
def test_a_row_nested_too_deeply_dies_alone(on_leads: Any, depth: int) -> None:
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

    on_leads(scenario)


@pytest.mark.parametrize(
    "broken", ["drop table leadgen cascade", "alter table leadgen drop column platform cascade"]
)
def test_what_postgres_does_to_us_is_a_store_that_is_away(on_leads: Any, broken: str) -> None:
    """An error that blames no row leaves as StoreUnavailable, which names a SQLSTATE and no content."""

    async def scenario(world: World) -> None:
        await world.sql(broken)
        with pytest.raises(StoreUnavailable) as told:
            await world.settle((in_flight(1), Stored(a_lead(1, ad_name=SECRET))))
        assert "hunter2" not in str(told.value)
        assert "`leadsync migrate`" in str(told.value)
        assert told.value.__suppress_context__

    on_leads(scenario)


def test_a_postgres_that_is_away_is_told_without_its_url(free_port: int) -> None:
    """No password of the database is in the error."""

    async def scenario() -> None:
        url = f"postgresql://u:hunter2@127.0.0.1:{free_port}/x"
        async with AsyncConnectionPool(url, min_size=0, max_size=1, open=False, timeout=0.2) as pool:
            with pytest.raises(StoreUnavailable) as told:
                await LeadStore(pool, StoreSettings()).ping()
            assert "hunter2" not in str(told.value)

    asyncio.run(scenario())


def test_overlapping_settles_do_not_deadlock(on_leads: Any) -> None:
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

    on_leads(scenario)


def test_who_waits_keeps_when_its_lead_was_created(on_leads: Any) -> None:
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

    on_leads(scenario)


def test_a_lead_that_came_along_begins_or_ends_a_row(on_leads: Any) -> None:
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

    on_leads(scenario)


def test_another_announcement_is_noted(on_leads: Any) -> None:
    """A reference seen again moves only when it was last seen."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Stored(a_lead(1))))
        before = await world.row(1)
        await world.store.seen_again(["1", "2"], at(77))
        after = await world.row(1)
        assert {name for name in after if after[name] != before[name]} == {"last_seen_at", "announced"}
        assert after["last_seen_at"] == at(77)

    on_leads(scenario)
