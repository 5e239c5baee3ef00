"""Snapshots of a real Postgres: which leads are chosen, in which order, and that they are all of one moment."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from tests.fakes.leads import FORM, OTHER_PAGE, PAGE, at, graph_lead, in_flight
from tests.fakes.time import NOW
from worker.errors import StoreUnavailable
from worker.export import Contents, JsonLines, Table
from worker.lead import Lead
from worker.outcomes import DeadLetter, Snooze, Stored
from worker.store.export import ExportStore, Selection, Snapshot
from worker.store.leads import LeadStore, StoreSettings

T = TypeVar("T")
OTHER_FORM = "22222222222"


class World:
    """The snapshots under test, and the rows they are of."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self.pool = pool
        self.export = ExportStore(pool)
        self.leads = LeadStore(pool, StoreSettings())

    async def store(
        self, leadgen_id: int, *, page_id: str = PAGE, created: datetime = NOW, **changed: Any
    ) -> None:
        raw = graph_lead(leadgen_id, created_time=created.isoformat(), **changed)
        lead = Lead.from_graph(raw, leadgen_id=str(leadgen_id), in_part=False)
        await self.leads.settle([(in_flight(leadgen_id, page_id), Stored(lead))], NOW)

    async def define(self, form_id: str, page_id: str = PAGE, **definition: Any) -> None:
        told = {name: value if name == "name" else json.dumps(value) for name, value in definition.items()}
        columns = "".join(f", {name}" for name in told)
        await self.sql(
            f"insert into forms (form_id, page_id{columns}) values (%s, %s{', %s' * len(told)})",
            form_id,
            page_id,
            *told.values(),
        )

    async def sql(self, statement: str, *parameters: object) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(statement.encode(), parameters)

    async def chosen(self, **selection: Any) -> list[str]:
        async with self.export.snapshot(Selection(**selection)) as snapshot:
            return await ids(snapshot)


async def ids(snapshot: Snapshot, batch: int = 2) -> list[str]:
    return [row["leadgen_id"] async for rows in snapshot.rows(batch) for row in rows]


async def keys(snapshot: Snapshot) -> list[str | None]:
    return [row["key"] for row in await snapshot.keys()]


@pytest.fixture
def on_store(database: str) -> Callable[[Callable[[World], Awaitable[T]]], T]:
    """Runs a scenario on the store."""

    def run(scenario: Callable[[World], Awaitable[T]]) -> T:
        async def inner() -> T:
            async with AsyncConnectionPool(database, min_size=1, max_size=4, open=False, timeout=30) as pool:
                return await scenario(World(pool))

        return asyncio.run(inner())

    return run


def test_stored_leads_come_by_form_and_time(on_store: Any) -> None:
    """Only stored leads are told, by form, then created_time, then id; those without a form or time come last."""

    async def scenario(world: World) -> None:
        await world.store(5, form_id=OTHER_FORM, created=at(-9))
        await world.store(4, created=at(5))
        await world.store(3, created=at(-5))
        await world.store(2, created=at(-5))
        await world.store(1, form_id=OTHER_FORM)
        await world.leads.settle(
            [(in_flight(6), Snooze(at(9), "x")), (in_flight(7), DeadLetter("lead_gone"))], NOW
        )
        await world.store(8)
        await world.sql("update leadgen set state = 'erased' where leadgen_id = '8'")
        await world.store(9)
        await world.sql("update leadgen set form_id = null, created_time = null where leadgen_id = '9'")
        assert await world.chosen() == ["2", "3", "4", "5", "1", "9"]

    on_store(scenario)


def test_leads_are_chosen_by_form_page_time_and_kind(on_store: Any) -> None:
    """Each choice narrows, several ids of a kind widen; since is inclusive and until is not."""

    async def scenario(world: World) -> None:
        await world.store(1, created=at(0))
        await world.store(2, created=at(60), form_id=OTHER_FORM)
        await world.store(3, created=at(120), page_id=OTHER_PAGE, form_id="33")
        await world.store(4, created=at(180), field_data=[{"name": "email", "values": ["test@meta.com"]}])
        assert await world.chosen() == ["1", "4", "2", "3"]
        assert await world.chosen(forms=[OTHER_FORM, "33"]) == ["2", "3"]
        assert await world.chosen(pages=[OTHER_PAGE]) == ["3"]
        assert await world.chosen(pages=[OTHER_PAGE], forms=[OTHER_FORM]) == []
        assert await world.chosen(since=at(60), until=at(180)) == ["2", "3"]
        assert await world.chosen(since=at(60) + timedelta(microseconds=1), until=at(181)) == ["4", "3"]
        assert await world.chosen(tests=False) == ["1", "2", "3"]

    on_store(scenario)


def test_keys_come_in_the_order_in_which_they_appear(on_store: Any) -> None:
    """The first lead that has a key, and its place in that lead, decide; odd entries count as a key of null."""

    async def scenario(world: World) -> None:
        def told(*names: str) -> list[dict[str, Any]]:
            return [{"name": name, "values": ["x"]} for name in names]

        await world.store(1, created=at(1), field_data=told("late", "email"))
        await world.store(2, created=at(0), field_data=told("phone", "email", "phone", "Straße 😀"))
        await world.store(3, created=at(-9), form_id=OTHER_FORM, field_data=told("zip", "email"))
        await world.store(4, created=at(9), field_data=None)
        async with world.export.snapshot(Selection()) as snapshot:
            assert await keys(snapshot) == ["phone", "email", "Straße 😀", "late", "zip", "email"]
        async with world.export.snapshot(Selection(forms=[OTHER_FORM])) as snapshot:
            assert await keys(snapshot) == ["zip", "email"]
        for odd in ("text", {"name": "q", "values": []}, [7], [{"name": 7}], [{"values": ["x"]}]):
            await world.store(5, created=at(9), form_id="9", field_data=odd)
            async with world.export.snapshot(Selection(forms=["9"])) as snapshot:
                assert await keys(snapshot) == [None]

    on_store(scenario)


def test_checkboxes_are_found_like_keys(on_store: Any) -> None:
    """Checkboxes of the custom disclaimers come in the order in which they appear."""

    async def scenario(world: World) -> None:
        boxes = [{"checkbox_key": "b", "is_checked": "1"}, {"checkbox_key": "a", "is_checked": ""}]
        await world.store(1, custom_disclaimer_responses=boxes)
        async with world.export.snapshot(Selection()) as snapshot:
            assert [row["key"] for row in await snapshot.checkboxes()] == ["b", "a"]

    on_store(scenario)


def test_forms_are_those_with_leads_and_those_named(on_store: Any) -> None:
    """A form is told with its count where it has chosen leads, and without any where it was named."""

    async def scenario(world: World) -> None:
        await world.define(FORM, name="Newsletter", questions=[{"key": "email", "label": "E-mail"}])
        await world.define(OTHER_FORM, name="Empty")
        await world.define("3", name="Neither")
        await world.store(1)
        await world.store(2)
        await world.store(4, form_id="44")
        async with world.export.snapshot(Selection()) as snapshot:
            forms = await snapshot.forms()
            assert [(f["form_id"], f["leads"], f["name"]) for f in forms] == [
                (FORM, 2, "Newsletter"),
                ("44", 1, None),
            ]
        async with world.export.snapshot(Selection(forms=[OTHER_FORM, "5"])) as snapshot:
            assert [(f["form_id"], f["leads"], f["name"]) for f in await snapshot.forms()] == [
                (OTHER_FORM, 0, "Empty")
            ]

    on_store(scenario)


def test_what_was_never_heard_of_is_named(on_store: Any) -> None:
    """A form or Page is unknown where neither a lead, in whatever state, nor a listing has named it."""

    async def scenario(world: World) -> None:
        await world.define(OTHER_FORM, page_id="77")
        await world.leads.settle([(in_flight(1), DeadLetter("lead_gone"))], NOW)
        pages = [PAGE, "77", "78"]
        async with world.export.snapshot(Selection(pages=pages)) as snapshot:
            found = await snapshot.unknown([FORM, OTHER_FORM, "5"])
            assert [(row["kind"], row["id"]) for row in found] == [("form", "5"), ("page", "78")]

    on_store(scenario)


def test_a_snapshot_is_of_one_moment(on_store: Any) -> None:
    """What is stored while a snapshot is read is in none of its answers; it changes nothing itself."""

    async def scenario(world: World) -> None:
        await world.store(1)
        await world.store(2)
        async with world.export.snapshot(Selection()) as snapshot:
            assert [form["leads"] for form in await snapshot.forms()] == [2]
            await world.store(3, field_data=[{"name": "new", "values": ["x"]}])
            await world.sql("update leadgen set state = 'erased' where leadgen_id = '1'")
            assert await keys(snapshot) == ["email"]
            assert await ids(snapshot, batch=1) == ["1", "2"]
        with pytest.raises(StoreUnavailable, match="ReadOnlySqlTransaction"):
            async with world.export.snapshot(Selection()) as snapshot:
                await snapshot._connection.execute("delete from leadgen")
        assert await world.chosen() == ["2", "3"]

    on_store(scenario)


def test_a_connection_lost_midway_is_one_line(on_store: Any, database: str) -> None:
    """Postgres that goes away while rows are read is StoreUnavailable, and tells nothing of them."""

    async def scenario(world: World) -> None:
        for leadgen_id in range(1, 5):
            await world.store(leadgen_id)

        async def read(rows: AsyncIterator[list[dict[str, Any]]]) -> None:
            async for _ in rows:
                with psycopg.connect(database, autocommit=True) as other:
                    other.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity where state like 'idle in%'"
                    )

        with pytest.raises(StoreUnavailable) as raised:
            async with world.export.snapshot(Selection()) as snapshot:
                await read(snapshot.rows(1))
        assert "example.org" not in str(raised.value)

    on_store(scenario)


def test_a_real_row_is_a_line_in_every_format(on_store: Any) -> None:
    """What the store gives is what the formats take, numbers to their last digit."""

    async def scenario(world: World) -> None:
        await world.store(
            1, field_data=[{"name": "q", "values": ["=1", "b"]}], vehicle={"price": 0.5, "n": 10**300}
        )
        await world.sql("update leadgen set extra = jsonb_set(extra, '{vehicle,price}', '0.10')")
        async with world.export.snapshot(Selection()) as snapshot:
            contents = Contents.of(await snapshot.forms(), await snapshot.keys(), await snapshot.checkboxes())
            (rows,) = [rows async for rows in snapshot.rows(9)]
        line = JsonLines(contents, UTC).text(rows)
        assert '"price": 0.10' in line
        told = json.loads(line)
        assert (told["field_data"], told["extra"]["vehicle"]["n"]) == ({"q": ["=1", "b"]}, 10**300)
        table = Table(contents, UTC, format="tsv")
        assert table.header().endswith("\tstored_at\tq\textra\r\n")
        assert "\t'=1 | b\t" in table.text(rows)
        assert "\t2026-11-20T12:00:00+00:00\t" in table.text(rows)

    on_store(scenario)
