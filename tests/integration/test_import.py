"""Imported leads on a real Postgres: a row only gains, and importing again changes nothing."""

import asyncio
import io
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from psycopg_pool import AsyncConnectionPool

from tests.fakes.leads import FORM, PAGE, a_lead, at, in_flight
from tests.fakes.time import NOW
from tests.integration.tables import Tables
from worker.export_file import ExportFile, Refused
from worker.importing import Importer, Summary
from worker.outcomes import DeadLetter, Outcome, Retry, Snooze, Stored
from worker.store.imports import ImportStore
from worker.store.leads import LeadStore, StoreSettings

T = TypeVar("T")
HEADER = (
    "id\tcreated_time\tad_id\tad_name\tadset_id\tadset_name\tcampaign_id\tcampaign_name\tform_id\tform_name"
    "\tis_organic\tplatform\temail\tbudget\n"
)
LATER = at(3_600)


def line(
    leadgen_id: object, *, form_id: str = FORM, email: str = "ann@example.org", budget: str = "much"
) -> str:
    """A row of a file with everything told."""
    return (
        f"l:{leadgen_id}\t2026-11-20T12:59:00+01:00\tag:1\tFile's ad\tas:2\tFile's set\tc:3\tFile's campaign"
        f"\tf:{form_id}\tForm\tfalse\tig\t{email}\t{budget}\n"
    )


def bare(leadgen_id: object) -> str:
    """A row of an organic lead without answers."""
    return f"l:{leadgen_id}\t2026-11-20T12:59:00+01:00\t\t\t\t\t\t\tf:{FORM}\tForm\t1\tfb\t\t\n"


@dataclass
class World(Tables):
    """The store under test and a look at its table."""

    store: ImportStore
    leads: LeadStore
    pool: AsyncConnectionPool
    aside: list[Refused] = field(default_factory=list)

    async def row(self, leadgen_id: object) -> dict[str, Any]:
        (row,) = await self.sql("select * from leadgen where leadgen_id = %s", str(leadgen_id))
        return row

    async def snapshot(self) -> list[dict[str, Any]]:
        return await self.sql("select * from leadgen order by leadgen_id")

    async def settle(self, leadgen_id: object, outcome: Outcome, **changed: Any) -> None:
        await self.leads.settle([(in_flight(str(leadgen_id), **changed), outcome)], NOW)

    async def load(
        self, *lines: str, page_id: str | None = PAGE, now: datetime = LATER, dry_run: bool = False
    ) -> Summary:
        importer = Importer(self.store, self.aside.append, lambda: now, page_id=page_id, dry_run=dry_run)
        export = ExportFile(io.BytesIO((HEADER + "".join(lines)).encode()), UTC)
        return await importer.run(export, lambda: None)


def counts(summary: Summary) -> tuple[int, int, int, int]:
    """New, completed, unchanged, kept aside."""
    return summary.new, summary.completed, summary.unchanged, summary.kept_aside


@pytest.fixture
def on_store(database: str) -> Callable[[Callable[[World], Awaitable[T]]], T]:
    """Runs a scenario on the store."""

    def run(scenario: Callable[[World], Awaitable[T]]) -> T:
        async def inner() -> T:
            async with AsyncConnectionPool(database, min_size=1, max_size=4, open=False, timeout=30) as pool:
                return await scenario(World(ImportStore(pool), LeadStore(pool, StoreSettings()), pool))

        return asyncio.run(inner())

    return run


def test_a_lead_of_a_file_is_a_stored_row_in_part(on_store: Any) -> None:
    """All that the file tells is in its columns; nothing is due, for the listing completes it."""

    async def scenario(world: World) -> None:
        assert counts(await world.load(line(1))) == (1, 0, 0, 0)
        row = await world.row(1)
        told = (row["state"], row["source"], row["in_part"], row["due_at"], row["reason"], row["received_at"])
        assert told == ("stored", "import", True, None, None, None)
        assert (row["page_id"], row["form_id"], row["created_time"]) == (PAGE, FORM, at(-60))
        assert (row["stored_at"], row["first_seen_at"], row["updated_at"]) == (LATER, LATER, LATER)
        assert (row["ad_id"], row["adset_id"], row["campaign_name"]) == ("1", "2", "File's campaign")
        assert (row["is_organic"], row["platform"], row["extra"]) == (False, "ig", {"form_name": "Form"})
        assert row["field_data"] == [
            {"name": "email", "values": ["ann@example.org"]},
            {"name": "budget", "values": ["much"]},
        ]
        assert await world.leads.lease_due(10, 10, at(10**7)) == ()

    on_store(scenario)


def test_importing_again_changes_nothing(on_store: Any) -> None:
    """No column, no moment, and not the row's version in the database."""

    async def scenario(world: World) -> None:
        await world.settle(3, Stored(a_lead(3, extra_field="x")))
        await world.settle(4, Snooze(NOW, "throttled_page"))
        await world.load(line(1), bare(2), line(3), line(4))
        before = await world.sql("select xmin, xmax, * from leadgen order by leadgen_id")
        assert counts(await world.load(line(1), bare(2), line(3), line(4), now=at(7_200))) == (0, 0, 4, 0)
        assert await world.sql("select xmin, xmax, * from leadgen order by leadgen_id") == before

    on_store(scenario)


def test_a_row_read_in_full_keeps_all_that_it_has(on_store: Any) -> None:
    """Where Graph has told everything the file changes nothing, whatever it says."""

    async def scenario(world: World) -> None:
        await world.settle(1, Stored(a_lead(1)))
        before = await world.snapshot()
        assert counts(await world.load(line(1, email="other@example.org"))) == (0, 0, 1, 0)
        assert await world.snapshot() == before

    on_store(scenario)


def test_nulls_of_a_row_read_in_full_are_filled(on_store: Any) -> None:
    """And nothing else: what Graph told stays, also that there were no answers, and it stays a row in full."""

    async def scenario(world: World) -> None:
        await world.settle(1, Stored(a_lead(1, ad_name=None, platform=None, field_data=[])))
        before = await world.row(1)
        assert counts(await world.load(line(1))) == (0, 1, 0, 0)
        after = await world.row(1)
        gained = {name for name in after if after[name] != before[name]}
        assert gained == {"ad_name", "platform", "updated_at"}
        assert (after["ad_name"], after["platform"], after["in_part"]) == ("File's ad", "ig", False)

    on_store(scenario)


def test_what_graph_does_not_tell_is_kept_beside_a_row_read_in_full(on_store: Any) -> None:
    """Inbox and status of a file go beside what is in `extra`; a form's name does not, for the form has it."""

    async def scenario(world: World) -> None:
        await world.settle(1, Stored(a_lead(1)))
        await world.settle(2, Stored(a_lead(2, vehicle="Trabant")))
        await world.settle(3, Stored(a_lead(3, lead_status="from Graph")))
        header = "id\tform_name\tlead_status\n"
        importer = Importer(world.store, world.aside.append, lambda: LATER, page_id=PAGE)
        lines = "".join(f"{number}\tForm\tcomplete\n" for number in (1, 2, 3))
        export = ExportFile(io.BytesIO(f"{header}{lines}".encode()), UTC)
        assert counts(await importer.run(export, lambda: None)) == (0, 2, 1, 0)
        assert (await world.row(1))["extra"] == {"lead_status": "complete"}
        assert (await world.row(2))["extra"] == {"vehicle": "Trabant", "lead_status": "complete"}
        assert (await world.row(3))["extra"] == {"lead_status": "from Graph"}

    on_store(scenario)


def test_what_a_file_told_outlives_a_full_reading(on_store: Any) -> None:
    """Graph's values go beside the file's, and a later word in part takes nothing from them."""

    async def scenario(world: World) -> None:
        importer = Importer(world.store, world.aside.append, lambda: LATER, page_id=PAGE)
        export = ExportFile(io.BytesIO(b"id\tform_name\tlead_status\n1\tForm\tcomplete\n"), UTC)
        await importer.run(export, lambda: None)
        await world.settle(1, Stored(a_lead(1, vehicle="Trabant")))
        extra = {"form_name": "Form", "lead_status": "complete", "vehicle": "Trabant"}
        assert (await world.row(1))["extra"] == extra
        await world.settle(1, Stored(replace(a_lead(1, vehicle="?", wheels=4), in_part=True)))
        assert (await world.row(1))["extra"] == {**extra, "wheels": 4}

    on_store(scenario)


def test_a_row_read_in_part_gains_what_it_lacks(on_store: Any) -> None:
    """It keeps what it has and stays due, so Graph's own word still comes."""

    async def scenario(world: World) -> None:
        lead = a_lead(
            1, in_part=True, ad_id=None, ad_name=None, adset_id=None, campaign_id=None, field_data=[]
        )
        await world.settle(1, Stored(lead), ad_id=None)
        before = await world.row(1)
        assert before["due_at"] is not None
        assert counts(await world.load(line(1))) == (0, 1, 0, 0)
        after = await world.row(1)
        assert (after["ad_id"], after["ad_name"], after["adset_name"]) == ("1", "File's ad", "Set")
        assert after["field_data"][0] == {"name": "email", "values": ["ann@example.org"]}
        assert (after["in_part"], after["due_at"], after["turn"]) == (True, before["due_at"], before["turn"])
        assert (after["source"], after["stored_at"]) == (before["source"], before["stored_at"])

    on_store(scenario)


def test_what_waits_or_is_dead_becomes_stored(on_store: Any) -> None:
    """It no longer has a reason and is no longer due; what the webhook told stays."""

    async def scenario(world: World) -> None:
        await world.settle(1, Snooze(NOW, "throttled_page"), ad_id="77")
        await world.settle(2, DeadLetter("lead_gone"))
        assert counts(await world.load(line(1), line(2))) == (0, 2, 0, 0)
        for leadgen_id in (1, 2):
            row = await world.row(leadgen_id)
            told = [row[name] for name in ("state", "in_part", "reason", "due_at", "attempts", "failed_for")]
            assert told == ["stored", True, None, None, 0, None]
            assert (row["stored_at"], row["received_at"], row["first_seen_at"]) == (LATER, NOW, NOW)
        assert ((await world.row(1))["ad_id"], (await world.row(2))["ad_id"]) == ("77", "1")

    on_store(scenario)


def test_an_erased_row_stays_erased(on_store: Any) -> None:
    """What a person had erased does not come back by a file."""

    async def scenario(world: World) -> None:
        await world.settle(1, Stored(a_lead(1)))
        await world.sql("update leadgen set state = 'erased', field_data = null, ad_name = null")
        before = await world.snapshot()
        assert counts(await world.load(line(1))) == (0, 0, 1, 0)
        assert await world.snapshot() == before

    on_store(scenario)


def test_a_later_full_reading_replaces_what_was_imported(on_store: Any) -> None:
    """Graph's word beats the file's in every column that it fills."""

    async def scenario(world: World) -> None:
        await world.load(line(1))
        await world.settle(1, Stored(a_lead(1)))
        row = await world.row(1)
        assert (row["in_part"], row["ad_name"], row["platform"]) == (False, "Autumn", "fb")
        assert row["field_data"] == [{"name": "email", "values": ["ann@example.org"]}]
        assert (row["source"], row["stored_at"]) == ("import", LATER)

    on_store(scenario)


def test_the_verdict_of_who_held_a_waiting_row_is_void(on_store: Any) -> None:
    """A worker that had leased it can no longer make it wait or die, but may still bring the lead in full."""

    async def scenario(world: World) -> None:
        await world.settle(1, Snooze(NOW, "throttled_page"))
        (held,) = await world.leads.lease_due(10, 10, NOW)
        await world.load(line(1))
        before = await world.row(1)
        for outcome in (Retry(at(60), "graph_unavailable", 1), DeadLetter("lead_gone")):
            await world.leads.settle([(held, outcome)], at(30))
            assert await world.row(1) == before
        await world.leads.settle([(held, Stored(a_lead(1)))], at(30))
        assert (await world.row(1))["in_part"] is False

    on_store(scenario)


def test_pages_are_found_by_form_and_by_row(on_store: Any) -> None:
    """Meta's word on a form goes first, then another row of it, then the lead's own row; the rest is kept aside."""

    async def scenario(world: World) -> None:
        await world.sql("insert into forms (form_id, page_id) values ('1001', '11')")
        await world.settle(50, Stored(a_lead(50, form_id="1002")), page_id="12")
        await world.settle(51, Stored(a_lead(51, form_id="1001")), page_id="99")
        await world.settle(3, Snooze(NOW, "throttled_page"), page_id="13", form_id=None)
        summary = await world.load(
            line(1, form_id="1001"), line(2, form_id="1002"), line(3, form_id="1003"), line(4, form_id="1004"),
            page_id=None,
        )  # fmt: skip
        assert counts(summary) == (2, 1, 0, 1)
        pages = {row["leadgen_id"]: row["page_id"] for row in await world.snapshot()}
        assert pages == {"50": "12", "51": "99", "1": "11", "2": "12", "3": "13"}
        assert [refused.line for refused in world.aside] == [5]

    on_store(scenario)


def test_a_row_that_postgres_refuses_is_found_and_stops_no_other(on_store: Any) -> None:
    """The others of its statement are written; its reason names the SQLSTATE and no content."""

    async def scenario(world: World) -> None:
        await world.sql(
            "alter table leadgen add constraint odd check (field_data::text not like '%hunter2%')"
        )
        lines = [line(n, email="hunter2" if n in (3, 700) else "x") for n in range(1, 1_501)]
        assert counts(await world.load(*lines)) == (1_498, 0, 0, 2)
        assert [(refused.line, refused.reason) for refused in world.aside] == [
            (4, "is refused by Postgres (SQLSTATE 23514)"),
            (701, "is refused by Postgres (SQLSTATE 23514)"),
        ]

    on_store(scenario)


def test_a_dry_run_tells_what_would_be_and_writes_nothing(on_store: Any) -> None:
    """It counts as the import itself does afterwards."""

    async def scenario(world: World) -> None:
        await world.settle(1, Stored(a_lead(1)))
        await world.settle(2, Stored(a_lead(2, ad_name=None)))
        await world.settle(3, DeadLetter("lead_gone"))
        before = await world.snapshot()
        lines = [line(n) for n in range(1, 7)]
        told = await world.load(*lines, dry_run=True)
        assert await world.snapshot() == before
        assert counts(told) == counts(await world.load(*lines)) == (3, 2, 1, 0)

    on_store(scenario)


def test_the_same_lead_twice_in_a_file_is_one_row(on_store: Any) -> None:
    """The second telling fills what the first lacks."""

    async def scenario(world: World) -> None:
        assert counts(await world.load(bare(1), bare(1), line(1))) == (1, 1, 1, 0)
        assert (await world.row(1))["ad_name"] == "File's ad"

    on_store(scenario)


def test_two_imports_at_once_write_each_lead_once(on_store: Any) -> None:
    """Neither waits for the other for ever, and together they count each new row once."""

    async def scenario(world: World) -> None:
        lines = [line(n) for n in range(1, 4_001)]
        told = await asyncio.gather(world.load(*lines), world.load(*reversed(lines)))
        assert sum(summary.new for summary in told) == 4_000
        assert len(await world.snapshot()) == 4_000

    on_store(scenario)
