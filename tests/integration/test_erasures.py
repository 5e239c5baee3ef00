"""Forgetting on a real Postgres and a real Redis: what is erased, what stays, and that no way back fills it again.

All moments are handed in; nothing here waits for time to pass.
"""

import asyncio
import io
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
import redis.asyncio as aioredis
from psycopg_pool import AsyncConnectionPool

from tests.fakes.backfills import SECOND
from tests.fakes.leads import FORM, OTHER_PAGE, PAGE, a_lead, in_flight
from tests.fakes.time import NOW
from tests.integration.backfill_world import a_plan, stored
from tests.integration.tables import Tables
from worker.batches import InFlight
from worker.believed import BelievedClock
from worker.clock_notes import KEPT_SECONDS, ClockNotes
from worker.conditions import Condition, Needle
from worker.erased import BODIES, ErasedList
from worker.errors import LedgerUnavailable
from worker.export_file import ExportFile
from worker.forgetting import BATCH, Forgetter, Order
from worker.importing import Importer
from worker.inbox import ERASED, SET_ASIDE, STREAM
from worker.outcomes import DeadLetter, Outcome, Retry, Snooze, Stored
from worker.store.backfills import BackfillStore
from worker.store.erasures import ErasureStore
from worker.store.imports import ImportStore
from worker.store.leads import LeadStore, StoreSettings
from worker.store.slices import SliceStore

T = TypeVar("T")

BY_ID = Order("id")
LATER = NOW + timedelta(hours=1)
DAY = timedelta(days=1)
DEATHS = 3


class FarRedis(ErasedList):
    """A Redis that is away."""

    async def add(self, pages: Mapping[str, str]) -> None:
        raise LedgerUnavailable("away")

    async def drop_set_aside(self, leadgen_ids: Collection[str]) -> int:
        raise LedgerUnavailable("away")


@dataclass
class World(Tables):
    """Rows, list and everybody who writes leads."""

    pool: AsyncConnectionPool
    redis: aioredis.Redis
    now: list[Any] = field(default_factory=lambda: [LATER])
    passed: float = 0.0
    postgres_ahead: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        self.rows = ErasureStore(self.pool)
        self.listed = ErasedList(self.redis)
        self.forgetter = self.forgetter_by(self.by_now)
        self.leads = LeadStore(self.pool, StoreSettings(park_after_deaths=DEATHS))
        self.backfills = BackfillStore(self.pool)
        self.slices = SliceStore(self.pool, self.leads, lease_seconds=60)

    def forgetter_by(self, believed: Callable[[], Awaitable[datetime | None]]) -> Forgetter:
        return Forgetter(
            self.rows, self.listed, lambda: self.now[0], believed=believed, steady=lambda: self.passed
        )

    async def by_now(self) -> datetime | None:
        return self.now[0]  # type: ignore[no-any-return]

    async def by_postgres(self) -> datetime:
        return LATER + timedelta(seconds=self.passed) + self.postgres_ahead

    def process(self, machine: str = "one") -> Forgetter:
        """A process that has just begun, on a machine whose clock is `now`."""
        clock = BelievedClock(
            ClockNotes(self.redis),
            self.by_postgres,
            clock=lambda: self.now[0],
            steady=lambda: self.passed,
            machine=machine,
        )
        return self.forgetter_by(clock)

    def pass_by(self, seconds: float) -> None:
        """So much time passes for all clocks."""
        self.now[0] += timedelta(seconds=seconds)
        self.passed += seconds

    async def row(self, leadgen_id: object) -> dict[str, Any]:
        (row,) = await self.sql("select * from leadgen where leadgen_id = %s", str(leadgen_id))
        return row

    async def states(self) -> dict[str, str]:
        return {
            row["leadgen_id"]: row["state"] for row in await self.sql("select leadgen_id, state from leadgen")
        }

    async def settle(self, *settled: tuple[InFlight, Outcome]) -> None:
        await self.leads.settle(settled, NOW)

    async def store(self, *ids: int, page_id: str = PAGE, **changed: Any) -> None:
        await self.settle(*((in_flight(i, page_id), Stored(a_lead(i, **changed))) for i in ids))

    async def forget(self, *ids: int, page_id: str | None = None) -> Any:
        return await self.forgetter.forget(dict.fromkeys(map(str, ids), page_id), BY_ID)

    async def found(self, *conditions: Condition) -> set[str]:
        return set((await self.forgetter.find(conditions, lambda _: None)).pages)

    async def audit(self) -> list[tuple[Any, ...]]:
        rows = await self.sql("select * from erasures order by erasure_id")
        names = ("by_order_of", "question", "page_id", "form_id", "leads", "took_from")
        return [tuple(row[name] for name in names) for row in rows]


@pytest.fixture
def on_both(database: str, redis_url: str) -> Callable[[Callable[[World], Awaitable[T]]], T]:
    """Runs a scenario on both."""

    def run(scenario: Callable[[World], Awaitable[T]]) -> T:
        async def inner() -> T:
            async with (
                AsyncConnectionPool(database, min_size=1, max_size=4, open=False, timeout=30) as pool,
                aioredis.Redis.from_url(redis_url, protocol=2) as client,
            ):
                return await scenario(World(pool, client))

        return asyncio.run(inner())

    return run


KEPT = {
    "leadgen_id", "state", "reason", "turn", "first_seen_at", "last_seen_at", "page_id", "form_id", "created_time",
    "source", "received_at", "stored_at", "updated_at", "announced",
}  # fmt: skip
"""What an erased row may have that a row without content has not. A new column is content until it stands here."""


def test_an_erased_row_has_ids_and_times_and_nothing_else(on_both: Any) -> None:
    """Every other column of the table is as in a row that never had content, whatever columns there are."""

    async def scenario(world: World) -> None:
        full = a_lead(
            1,
            in_part=True,
            partner_name="p",
            retailer_item_id="r",
            custom_disclaimer_responses=[{"checkbox_key": "a"}],
            vehicle="Trabant\0",
            field_data=[{"name": "email", "values": ["test@fb.com"]}],
        )
        await world.settle((in_flight(1), Stored(full)))
        await world.sql(
            "update leadgen set trail = '{a}', taken_ms = 1, read_ms = 2, leases = 3, attempts = 4"
        )
        before = await world.row(1)
        assert {name for name, value in before.items() if value is None} <= {"reason", "failed_for"}
        done = await world.forget(1, 2)
        after, fresh = await world.row(1), await world.row(2)
        assert {name: after[name] for name in after.keys() - KEPT} == {
            name: fresh[name] for name in fresh.keys() - KEPT
        }
        same = KEPT - {"state", "reason", "turn", "updated_at"}
        assert {name: after[name] for name in same} == {name: before[name] for name in same}
        assert (after["state"], after["reason"], after["due_at"]) == ("erased", "by_order", None)
        assert after["turn"] == before["turn"] + 1
        assert (done.was, done.erased) == ({"stored": 1, "nothing": 1}, 2)
        for view in ("leads", "waiting", "dead_letters", "answers", "disclaimers"):
            assert await world.sql(f"select * from {view}") == []

    on_both(scenario)


def test_an_order_leaves_a_line_without_personal_data(on_both: Any) -> None:
    """By Page and form: how many, and what they were; what was erased already is not told again."""

    async def scenario(world: World) -> None:
        await world.store(1, 2)
        await world.store(3, page_id=OTHER_PAGE)
        await world.settle((in_flight(4), Snooze(NOW, "x")), (in_flight(5), DeadLetter("x")))
        await world.forget(1, 2, 3, 4, 5, 6)
        told = [
            ("id", None, PAGE, FORM, 4, {"stored": 2, "waiting": 1, "dead": 1}),
            ("id", None, OTHER_PAGE, FORM, 1, {"stored": 1}),
            ("id", None, "unknown", None, 1, {"nothing": 1}),
        ]
        assert await world.audit() == told
        done = await world.forget(1, 6)
        assert (done.was, done.erased) == ({"erased": 2}, 0)
        assert await world.audit() == told

    on_both(scenario)


def test_an_id_that_was_never_here_is_kept_out(on_both: Any) -> None:
    """Its Page is what the order says, or unknown; a lead that comes later finds it erased and is not asked for."""

    async def scenario(world: World) -> None:
        await world.forget(1)
        await world.forget(2, page_id=PAGE)
        assert [(await world.row(i))["page_id"] for i in (1, 2)] == ["unknown", PAGE]
        assert await world.leads.known(["1", "2"]) == {"1": "erased", "2": "erased"}
        before = await world.row(1)
        await world.settle((in_flight(1), Stored(a_lead(1))))
        assert await world.row(1) == before
        assert await world.leads.lease_due(10, 10, LATER + 100 * DAY) == ()

    on_both(scenario)


def test_what_is_in_flight_while_it_is_forgotten_does_not_come_back(on_both: Any) -> None:
    """Neither what was leased, nor what was announced and had no row, whatever its reading brings."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Snooze(NOW, "x")), (in_flight(2), Stored(a_lead(2, in_part=True))))
        held = await world.leads.lease_due(10, 10, NOW + 10 * DAY)
        assert {reference.leadgen_id for reference in held} == {"1", "2"}
        await world.forget(1, 2, 3)
        before = await world.sql("select * from leadgen order by 1")
        for reference in (*held, in_flight(3)):
            for outcome in (
                Stored(a_lead(reference.leadgen_id)),
                Stored(a_lead(reference.leadgen_id, in_part=True)),
                Retry(LATER, "x", 2),
                DeadLetter("row_refused_23514"),
            ):
                await world.settle((reference, outcome))
        await world.leads.give_back(held, LATER)
        assert await world.sql("select * from leadgen order by 1") == before

    on_both(scenario)


def test_a_lead_that_is_written_at_the_same_moment_is_erased(on_both: Any) -> None:
    """The order waits for a row that is not committed yet, and two of opposite order wait for none for ever."""

    async def scenario(world: World) -> None:
        ids = range(1, 301)
        for _ in range(3):
            await asyncio.gather(world.store(*ids), world.forget(*reversed(ids)), world.store(*ids))
            assert set((await world.states()).values()) == {"erased"}
            await world.sql("delete from leadgen")

    on_both(scenario)


def test_no_way_back_fills_an_erased_row(on_both: Any) -> None:
    """Listing, import, replay and the deaths of others: all go past it, and nothing of it changes."""

    async def scenario(world: World) -> None:
        await world.store(1, 2)
        await world.settle((in_flight(3), DeadLetter("x")), (in_flight(4), Snooze(NOW, "x")))
        await world.forget(1, 2, 3, 4, 5)
        before = await world.sql("select * from leadgen where leadgen_id <= '5' order by 1")
        for purpose in ("backfill", "deep"):
            await world.backfills.open(a_plan(purpose), LATER)
            (leased,) = await world.slices.lease(1, 1, LATER, walked={})
            leads = [stored(i) for i in (1, 2, 3, 4, 5)]
            assert await world.slices.write_leads(leased, leads, calls=1, now=LATER)
            await world.slices.finish(leased, LATER)
            await world.backfills.close(LATER)
        await load(world, *range(1, 6))
        assert await world.leads.replay(LATER, ids=None, reason=None, page_id=None) == ()
        dead = [in_flight(n) for n in range(6, 6 + DEATHS)]
        await world.settle(*((reference, DeadLetter("x")) for reference in dead))
        assert await world.leads.lease_due(100, 100, LATER + 100 * DAY) == ()
        assert await world.sql("select * from leadgen where leadgen_id <= '5' order by 1") == before

    on_both(scenario)


async def load(world: World, *ids: int) -> None:
    """Import a file with these leads."""
    lines = "".join(f"l:{i}\t2026-11-20T12:59:00+01:00\tf:{FORM}\tann@example.org\n" for i in ids)
    export = ExportFile(io.BytesIO(f"id\tcreated_time\tform_id\temail\n{lines}".encode()), UTC)
    importer = Importer(ImportStore(world.pool), lambda _: None, lambda: LATER, page_id=PAGE)
    summary = await importer.run(export, lambda: None)
    assert (summary.rows, summary.unchanged) == (len(ids), len(ids))


def test_reconciling_counts_an_erased_lead_as_ours(on_both: Any) -> None:
    """Meta lists it, it is not missing, unexplained or repaired, in full and since a watermark."""

    async def scenario(world: World) -> None:
        await world.sql(
            "insert into forms (form_id, page_id, watermark) values (%s, %s, %s)", FORM, PAGE, NOW - 5 * DAY
        )
        await world.store(1, 2, 3)
        await world.forget(1, 9)
        for purpose in ("reconcile", "deep"):
            await world.sql("delete from reconciliations")
            await world.backfills.open(a_plan(purpose), LATER)
            (leased,) = await world.slices.lease(1, 1, LATER, walked={})
            unread = in_flight(9, created_time=NOW - timedelta(minutes=1)), DeadLetter("lead_malformed")
            leads = [*(stored(i, SECOND - 60) for i in (1, 2, 3)), unread]
            await world.slices.write_leads(leased, leads, calls=1, now=LATER)
            await world.slices.finish(leased, LATER)
            await world.backfills.close(LATER)
            (day,) = await world.sql(
                "select metas, ours, missing, repaired, unexplained from reconciliations"
            )
            assert day == {"metas": 4, "ours": 4, "missing": 0, "repaired": 0, "unexplained": 0}
        assert await world.sql("select * from repaired") == []

    on_both(scenario)


def test_leads_are_found_by_answer_in_every_form(on_both: Any) -> None:
    """However it is written; the sums tell forms and since when, and no answer."""

    async def scenario(world: World) -> None:
        def says(**answers: str) -> list[dict[str, Any]]:
            return [{"name": key, "values": [value]} for key, value in answers.items()]

        await world.store(1, field_data=says(email="Ann@Example.org", phone="+49 (170) 1234567"))
        await world.store(2, field_data=says(mail="ann@example.org"), form_id="77")
        await world.store(3, field_data=says(email="joann@example.org"))
        await world.store(
            4, field_data=says(email="ann@example.org", city="Köln\n"), created_time="2026-10-01"
        )
        await world.store(5, field_data=says(phone="0049170 1234567", name="Ünal"))
        await world.store(6, field_data=None)
        await world.settle((in_flight(7), Snooze(NOW, "x")))
        await world.store(8, field_data=says(email='a"b\\c@example.org', city="KÖLN"))
        await world.store(9, field_data=says(mail="\uff21nn\uff20example.org"))
        await world.store(10, field_data=None)
        await world.sql(
            "update leadgen set field_data = ('[' || repeat('9', 5000) || ']')::jsonb where leadgen_id = '10'"
        )
        email = Condition.of("email", "ann@example.org ")
        assert await world.found(email) == {"1", "4"}
        assert await world.found(Condition.of("mail", "ann@example.org")) == {"2", "9"}
        assert await world.found(Condition.of("*", "ANN@example.org")) == {"1", "2", "4", "9"}
        assert await world.found(Condition.of("phone", "+491701234567")) == {"1", "5"}
        assert await world.found(Condition.of("city", "köln")) == {"4", "8"}
        assert await world.found(email, Condition.of("city", "köln")) == {"4"}
        assert await world.found(Condition.of("email", 'a"B\\c@example.org')) == {"8"}
        assert await world.found(Condition.of("name", "ünal")) == {"5"}
        found = await world.forgetter.find([Condition.of("*", "ann@example.org")], lambda _: None)
        assert {(f.form_id, f.leads, f"{f.since:%Y-%m-%d}") for f in found.forms.values()} == {
            (FORM, 3, "2026-10-01"),
            ("77", 1, "2026-11-20"),
        }
        await world.forgetter.forget(found.pages, Order("answer", "*"))
        assert await world.found(Condition.of("*", "ann@example.org")) == set()
        assert [line[:2] for line in await world.audit()] == [("answer", "*")] * 2

    on_both(scenario)


def test_a_search_goes_through_all_rows_in_parts(on_both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the size of a part, each row is looked at once."""
    monkeypatch.setattr("worker.forgetting.SPAN", 7)

    async def scenario(world: World) -> None:
        await world.store(*range(1, 101))
        looked_at: list[int] = []
        found = await world.forgetter.find([Condition.of("email", "ann@example.org")], looked_at.append)
        assert len(found.pages) == looked_at[-1] == 100

    on_both(scenario)


def test_a_lead_that_is_stored_during_a_search_is_found_or_told(
    on_both: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the search has passed by its id: looked at again, or counted with those that are unread."""
    monkeypatch.setattr("worker.forgetting.SPAN", 1)
    ann = [{"name": "email", "values": ["ann@example.org"]}]

    async def scenario(world: World) -> None:
        await world.store(2, 3, 9, field_data=ann)
        await world.settle(*((in_flight(i), Snooze(NOW, "x")) for i in (1, 4)))
        await world.redis.xadd(STREAM, {"any": "entry"})
        during = iter([(0,), (1,), (3,), *[()] * 7, (4,)])
        span = world.rows.span

        async def slow(needle: Needle, after: str, *others: Any) -> Any:
            told = await span(needle, after, *others)
            for leadgen_id in next(during, ()):
                # As the worker does it, or an import that brings more of a lead that is here.
                await world.sql("delete from leadgen where leadgen_id = %s", str(leadgen_id))
                await world.store(leadgen_id, field_data=ann)
            return told

        monkeypatch.setattr(world.rows, "span", slow)
        looked_at: list[int] = []
        found = await world.forgetter.find([Condition.of("email", "ann@example.org")], looked_at.append)
        assert next(during, None) is None
        assert set(found.pages) == {"0", "1", "2", "3", "9"}
        assert [form.leads for form in found.forms.values()] == [5]
        assert found.unread == 2  # the lead 4, which was stored behind the second look, and the stream's
        assert looked_at[-1] == 5

    on_both(scenario)


def test_a_restored_backup_is_erased_again(on_both: Any) -> None:
    """The rows as they were, or no rows at all: the list beside the database knows better, and a line tells of it."""

    async def scenario(world: World) -> None:
        await world.store(1, 2, 3)
        backup = await world.sql("select * from leadgen")
        await world.forget(1, 2, 9, page_id=None)
        assert await world.forgetter.keep_in_step() == {"erased_again": 0, "listed_again": 0}
        await world.sql("delete from leadgen")
        await world.sql("delete from erasures")
        for row in backup:
            await world.sql("insert into leadgen (leadgen_id, state, field_data, page_id, source, first_seen_at,"
                " last_seen_at, updated_at) values (%s, 'stored', '[]', %s, 'webhook', %s, %s, %s)",
                row["leadgen_id"], row["page_id"], NOW, NOW, NOW)  # fmt: skip
        assert await world.forgetter.keep_in_step() == {"erased_again": 3, "listed_again": 0}
        assert await world.states() == {"1": "erased", "2": "erased", "3": "stored", "9": "erased"}
        assert [(line[0], line[4]) for line in await world.audit()] == [("restore", 2), ("restore", 1)]
        assert await world.forgetter.keep_in_step() == {"erased_again": 0, "listed_again": 0}

    on_both(scenario)


def test_an_emptied_redis_gets_the_ids_again(on_both: Any) -> None:
    """Those of orders; retention repeats itself."""

    async def scenario(world: World) -> None:
        await world.store(1, 2, 3)
        await world.forget(*range(1, BATCH + 10))
        await world.rows.erase({"999999": None}, "retention", None, LATER)
        await world.redis.flushdb()
        assert await world.forgetter.keep_in_step() == {"erased_again": 0, "listed_again": BATCH + 9}
        assert await world.redis.hget(ERASED, "1") == PAGE.encode()
        assert not await world.redis.hexists(ERASED, "999999")

    on_both(scenario)


def test_equal_counts_are_trusted_for_an_hour_only(on_both: Any) -> None:
    """Where each lost another id the counts say nothing, and the full comparison gives each what it lacks."""

    async def scenario(world: World) -> None:
        await world.forget(1, 2, 3)
        await world.forgetter.keep_in_step()
        await world.sql("delete from leadgen where leadgen_id = '1'")
        await world.redis.hdel(ERASED, "2")
        assert await world.forgetter.keep_in_step() == {"erased_again": 0, "listed_again": 0}
        world.pass_by(3_600)
        assert await world.forgetter.keep_in_step() == {"erased_again": 1, "listed_again": 1}

    on_both(scenario)


def test_only_what_redis_lacks_is_written_to_it(on_both: Any) -> None:
    """All ids are compared every hour, and a million that are written anew are a hundred megabytes of its log."""

    async def scenario(world: World) -> None:
        await world.forget(1, 2, 3, page_id=PAGE)
        await world.redis.hdel(ERASED, "2")
        told: list[dict[str, str]] = []
        add = world.listed.add

        async def noted(pages: Mapping[str, str]) -> None:
            told.append(dict(pages))
            await add(pages)

        world.listed.add = noted  # type: ignore[method-assign]
        assert await world.forgetter.keep_in_step() == {"erased_again": 0, "listed_again": 1}
        assert [pages for pages in told if pages] == [{"2": PAGE}]
        assert await world.listed.count() == 3

    on_both(scenario)


def test_an_order_goes_before_retention(on_both: Any) -> None:
    """What retention erased and an order names is kept beside the database from then on; not the other way round."""

    async def scenario(world: World) -> None:
        await world.rows.erase({"1": PAGE}, "retention", None, LATER)
        assert await world.rows.ordered("", 10) == {}
        await world.forget(1)
        await world.rows.erase({"1": PAGE}, "retention", None, LATER)
        assert await world.rows.ordered("", 10) == {"1": PAGE}
        assert [line[0] for line in await world.audit()] == ["retention"]

    on_both(scenario)


def test_a_redis_that_is_away_holds_no_order_up(on_both: Any) -> None:
    """The rows are erased, it is said that Redis does not know, and the schedule tells it later."""

    async def scenario(world: World) -> None:
        await world.store(1)
        away = Forgetter(
            world.rows, FarRedis(world.redis), lambda: LATER, believed=world.by_now, steady=lambda: 0.0
        )
        done = await away.forget({"1": None}, BY_ID)
        assert (done.erased, done.is_listed) == (1, False)
        assert await world.forgetter.keep_in_step() == {"erased_again": 0, "listed_again": 1}

    on_both(scenario)


def test_set_aside_bodies_that_name_a_forgotten_lead_are_gone(on_both: Any) -> None:
    """Those and no others: an id within a longer number is another one."""

    async def scenario(world: World) -> None:
        for n in range(2 * BODIES + 5):
            await world.redis.xadd(
                SET_ASIDE, {"body": f'{{"leadgen_id": {1000 + n}, "x": "ann@example.org"}}'}
            )
        await world.redis.xadd(SET_ASIDE, {"body": b'\xff["1000100", 99]'})
        await world.redis.xadd(SET_ASIDE, {"body": b"11003"})
        done = await world.forget(1003, 1100, 99)
        assert done.set_aside == 3
        left = b" ".join(fields[b"body"] for _, fields in await world.redis.xrange(SET_ASIDE))
        assert not {b"1003", b"1100", b"99"} & set(re.findall(rb"\d+", left))
        assert len(await world.redis.xrange(SET_ASIDE)) == 2 * BODIES + 4
        assert (await world.audit())[-1] == ("id", None, None, None, 0, {"set_aside": 3})

    on_both(scenario)


def created(days: float) -> str:
    """As Graph tells a creation so many days ago."""
    return (LATER - days * DAY).strftime("%Y-%m-%dT%H:%M:%S+0000")


def test_what_was_kept_long_enough_is_erased(on_both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its form's days, else its Page's; stored and dead ones; what waits, is younger or of another Page stays."""
    monkeypatch.setattr("worker.forgetting.BATCH", 2)
    monkeypatch.setattr("worker.forgetting.SPAN", 3)

    async def scenario(world: World) -> None:
        await world.sql("insert into forms (form_id, page_id) values ('7', %s), ('8', %s)", PAGE, OTHER_PAGE)
        assert await world.rows.set_retention("page", PAGE, 30, LATER)
        assert await world.rows.set_retention("form", "7", 60, LATER)
        assert await world.rows.set_retention("form", "8", 10, LATER)
        assert not await world.rows.set_retention("form", "9", 10, LATER)
        await world.store(1, 2, 3, 4, 5, created_time=created(30.1))
        await world.store(6, created_time=created(29.9))
        await world.store(7, form_id="7", created_time=created(59.9))
        await world.store(8, form_id="7", created_time=created(60.1))
        await world.store(9, page_id=OTHER_PAGE, created_time=created(500))
        await world.store(10, page_id=OTHER_PAGE, form_id="8", created_time=created(10.1))
        await world.store(11, form_id=None, created_time=None)
        await world.sql(
            "update leadgen set stored_at = %s, form_id = null where leadgen_id = '11'", LATER - 31 * DAY
        )
        old = {"created_time": LATER - 40 * DAY}
        await world.settle((in_flight(12, **old), DeadLetter("x")), (in_flight(13, **old), Snooze(NOW, "x")))
        assert await world.forgetter.retain() == 9
        states = await world.states()
        assert {int(i) for i, state in states.items() if state == "erased"} == {1, 2, 3, 4, 5, 8, 10, 11, 12}
        assert states["13"] == "waiting"
        assert {line[0] for line in await world.audit()} == {"retention"}
        assert sum(line[4] for line in await world.audit()) == 9
        assert await world.forgetter.retain() == 0
        assert [(row["what"], row["days"]) for row in await world.rows.retention()] == [
            ("page", 30), ("form", 60), ("form", 10),
        ]  # fmt: skip
        assert await world.rows.set_retention("page", PAGE, None, LATER)
        world.now[0] = LATER + 10_000 * DAY
        assert await world.forgetter.retain() == 1

    on_both(scenario)


def test_what_is_kept_is_gone_past_in_parts_and_what_is_erased_not_looked_at(on_both: Any) -> None:
    """Ten million kept rows before the first one that is due would take longer than a statement may; and erased ones
    become ever more.
    """

    async def scenario(world: World) -> None:
        await world.sql("insert into forms (form_id, page_id, retention_days) values ('7', %s, 10)", PAGE)
        for i in (1, 2, 3, 4, 5):
            await world.store(i, created_time=created(30 - i))
        await world.store(6, 7, form_id="7", created_time=created(20))
        await world.store(8, form_id="7", created_time=created(9))
        await world.forget(1)
        seen, last = [], None
        while (part := await world.rows.overdue(PAGE, 10, last, LATER, 3))[1]:
            due, last = part
            seen.append(([one.leadgen_id for one in due], last.leadgen_id))
        assert seen == [([], "4"), (["6", "7"], "7")]
        assert await world.forgetter.retain() == 2

    on_both(scenario)


def test_retention_goes_on_where_it_was_stopped(on_both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule gives it half a minute at a time: rows that stay would hide what comes behind them for ever."""
    monkeypatch.setattr("worker.forgetting.SPAN", 2)

    async def scenario(world: World) -> None:
        for form, page_id in (("7", PAGE), ("8", OTHER_PAGE)):
            await world.sql(
                "insert into forms (form_id, page_id, retention_days) values (%s, %s, 10)", form, page_id
            )
        await world.store(1, 2, 3, 4, 5, created_time=created(30))
        await world.store(6, form_id="7", created_time=created(20))
        await world.store(7, form_id="8", page_id=OTHER_PAGE, created_time=created(20))
        await world.store(8, form_id="8", page_id=OTHER_PAGE, created_time=None)
        await world.sql("update leadgen set stored_at = %s where leadgen_id = '8'", LATER - 31 * DAY)
        erased = [await world.forgetter.retain(lambda: True) for _ in range(6)]
        assert (sum(erased), erased[-1]) == (3, 0)
        await world.store(9, form_id="7", created_time=created(20))
        assert await world.forgetter.retain() == 1, "it begins anew once it came to the end"

    on_both(scenario)


def test_the_schedule_keeps_in_step_and_retains(on_both: Any) -> None:
    """In one run, and retention once an hour."""

    async def scenario(world: World) -> None:
        await world.forget(1)
        await world.redis.flushdb()
        await world.store(2, created_time=created(31))
        assert await world.rows.set_retention("page", PAGE, 30, LATER)
        counts = await world.forgetter.run(lambda: False)
        assert counts == {"erased_again": 0, "listed_again": 1, "erased_by_retention": 1}
        await world.store(3, created_time=created(31))
        assert "erased_by_retention" not in await world.forgetter.run(lambda: False)
        world.pass_by(3_600)
        assert (await world.forgetter.run(lambda: False))["erased_by_retention"] == 1

    on_both(scenario)


def test_a_clock_that_jumps_for_a_minute_erases_nothing_by_age(on_both: Any) -> None:
    """What retention erases comes never back, so a clock that was just set is not believed, whoever asks."""

    async def scenario(world: World) -> None:
        await world.store(1, created_time=created(170))
        await world.store(2, created_time=created(181))
        assert await world.rows.set_retention("page", PAGE, 180, LATER)
        process = world.process()
        for _ in range(60):
            assert "erased_by_retention" not in await process.run(lambda: False), (
                "not yet watched for an hour"
            )
            world.pass_by(60)
        assert await process.run(lambda: False) == {
            "erased_again": 0, "listed_again": 0, "erased_by_retention": 1,
        }  # fmt: skip
        world.now[0] += 366 * DAY
        world.postgres_ahead = 366 * DAY
        world.passed += 7_200
        for each in (process, world.process()):
            assert "erased_by_retention" not in await each.run(lambda: False)
            assert await each.retain() is None
        world.now[0] -= 366 * DAY
        world.postgres_ahead = timedelta(0)
        await process.run(lambda: False)
        assert (await world.states())["1"] == "stored"
        world.pass_by(3_600)
        await world.store(3, created_time=created(181))
        assert (await process.run(lambda: False))["erased_by_retention"] == 1
        assert await world.states() == {"1": "stored", "2": "erased", "3": "erased"}

    on_both(scenario)


@pytest.mark.parametrize(("machine_ahead", "postgres_ahead"), [(366, 0), (0, 366)])
def test_the_smaller_of_two_clocks_is_erased_by(
    on_both: Any, machine_ahead: int, postgres_ahead: int
) -> None:
    """A machine, or a Postgres, that has been wrong for long is as even as one that is right."""

    async def scenario(world: World) -> None:
        await world.rows.set_retention("page", PAGE, 180, LATER)
        await world.store(1, created_time=created(170))
        world.now[0] += machine_ahead * DAY
        world.postgres_ahead = postgres_ahead * DAY
        assert await world.process().retain() is None
        world.pass_by(3_600)
        assert await world.process().retain() == 0
        assert await world.states() == {"1": "stored"}

    on_both(scenario)


def test_a_new_machine_and_an_emptied_redis_only_delay_erasing_by_age(on_both: Any) -> None:
    """By an hour; what one process of a machine noted holds for all of it, and for no other machine."""

    async def scenario(world: World) -> None:
        await world.rows.set_retention("page", PAGE, 30, LATER)
        assert await world.process().retain() is None
        world.pass_by(3_600)
        assert await world.process().retain() == 0
        assert await world.process("two").retain() is None
        await world.redis.flushdb()
        assert await world.process().retain() is None
        world.pass_by(3_600)
        assert (await world.process().retain(), await world.process("two").retain()) == (0, None)
        (key,) = await world.redis.keys("leadsync:clock:one")
        await world.redis.expire(key, 5)
        await world.process().retain()
        assert KEPT_SECONDS - 60 < await world.redis.ttl(key) <= KEPT_SECONDS
        await world.redis.set(key, "nonsense")
        assert await world.process().retain() is None

    on_both(scenario)


def test_an_order_that_was_cut_short_is_finished_by_itself_once_more(on_both: Any) -> None:
    """Batches that are committed stay; the same order does the rest and tells of no lead twice."""

    async def scenario(world: World) -> None:
        ids = range(1, 3 * BATCH)
        await world.store(*ids)

        def cut(done: int) -> None:
            raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            await world.forgetter.forget(dict.fromkeys(map(str, ids)), BY_ID, cut)
        assert list((await world.states()).values()).count("erased") == BATCH
        done = await world.forget(*ids)
        assert (done.was["erased"], done.was["stored"]) == (BATCH, 2 * BATCH - 1)
        assert sum(line[4] for line in await world.audit()) == len(ids)
        assert await world.listed.count() == len(ids)

    on_both(scenario)


def test_vacuum_runs_beside_other_work(on_both: Any) -> None:
    """It stands in no transaction, and the connection is as it was afterwards."""

    async def scenario(world: World) -> None:
        await world.store(*range(1, 50))
        await world.forget(*range(1, 50))
        await world.rows.vacuum()
        assert (await world.sql("show statement_timeout"))[0]["statement_timeout"] == "0"
        assert (await world.rows.about()) == 49

    on_both(scenario)
