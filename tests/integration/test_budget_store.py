"""The budget's rows on a real Postgres: what was reserved, what a limit follows from, which Pages wait for one.

No moment is waited for: a jump of the database's clock is a change of `reserved_at`, that of a machine another reading.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from alembic import command
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from tests.fakes.leads import FORM, OTHER_PAGE, PAGE, a_lead, at, in_flight
from tests.fakes.time import NOW
from tests.integration.tables import Tables
from worker.batches import InFlight
from worker.budget.policy import FORMS_COUNTED_FOR, LEADS_OF, Lane, Limit
from worker.errors import StoreUnavailable
from worker.form import Form
from worker.outcomes import DeadLetter, Outcome, Snooze, Stored
from worker.store import migrate as migration
from worker.store.budget import BudgetStore, LimitFacts
from worker.store.forms import FormStore
from worker.store.leads import LeadStore, StoreSettings
from worker.store.migrate import migrate

T = TypeVar("T")
HERE, THERE = "this-boot", "another-boot"
WINDOW, LIFE, BUCKET = 86_400.0, 900.0, 300.0
START = 5_000_000.0
"""What this machine's steady clock reads when a test begins."""


@dataclass
class World(Tables):
    """The rows under test, the leads beside them, and a look at the tables."""

    budget: BudgetStore
    leads: LeadStore
    forms: FormStore
    pool: AsyncConnectionPool
    steady: float = START

    async def reserve(
        self,
        calls: int = 10,
        lane: Lane = Lane.LIVE,
        *,
        page_id: str = PAGE,
        ago: float = 0.0,
        wrong: float = 0.0,
        machine: str = HERE,
    ) -> int:
        """A block of `ago` seconds ago, by a database's clock that was `wrong` (ahead, in seconds) then."""
        block_id = await self.budget.reserve(page_id, lane, calls, machine=machine, steady=self.steady - ago)
        await self.sql(
            "update budget_blocks set reserved_at = reserved_at - make_interval(secs => %s) where block_id = %s",
            ago - wrong,
            block_id,
        )
        return block_id

    async def spent(
        self, unspent: dict[int, int] | None = None, *, machine: str = HERE, page_id: str = PAGE
    ) -> list[tuple[Lane, int, int]]:
        """Lane, calls and age in whole seconds; the youngest first."""
        found = await self.budget.spent(
            page_id,
            unspent or {},
            machine=machine,
            steady=self.steady,
            window=WINDOW,
            life=LIFE,
            bucket=BUCKET,
        )
        return sorted(((s.lane, s.calls, round(s.age)) for s in found), key=lambda s: (s[2], s[0]))

    async def blocks(self) -> set[int]:
        return {row["block_id"] for row in await self.sql("select block_id from budget_blocks")}

    async def settle(self, *settled: tuple[InFlight, Outcome], now: datetime = NOW) -> None:
        await self.leads.settle(settled, now)

    async def keep(self, calls: int, page_id: str = PAGE, now: datetime = NOW) -> None:
        await self.budget.keep_limit(page_id, Limit(calls, calls + 1, "our rows"), now)

    async def hold(
        self, until: datetime, reason: str = "budget", *, number: int = 1, page_id: str = PAGE
    ) -> None:
        await self.settle((in_flight(number, page_id), Snooze(until, reason, whole_page=True)))

    async def page(self, page_id: str = PAGE) -> dict[str, Any]:
        (row,) = await self.sql("select * from pages where page_id = %s", page_id)
        return row

    async def due(self, now: datetime = NOW) -> list[str]:
        """Ids that can be leased now."""
        return [r.leadgen_id for r in await self.leads.lease_due(1_000, 1_000, now)]


@pytest.fixture
def on_rows(database: str) -> Callable[[Callable[[World], Awaitable[T]]], T]:
    """Runs a scenario on the rows."""

    def run(scenario: Callable[[World], Awaitable[T]]) -> T:
        async def inner() -> T:
            async with AsyncConnectionPool(database, min_size=1, max_size=10, open=False, timeout=30) as pool:
                return await scenario(
                    World(BudgetStore(pool), LeadStore(pool, StoreSettings()), FormStore(pool), pool)
                )

        return asyncio.run(inner())

    return run


def near(found: Iterable[tuple[Lane, int, int]], *expected: tuple[Lane, int, float]) -> bool:
    """Whether these are the lanes, calls and ages, the ages to a few seconds."""
    pairs = list(zip(found, expected, strict=True))
    return all(f[:2] == e[:2] and abs(f[2] - e[2]) <= 5 for f, e in pairs)


def test_reserved_calls_count_from_the_moment_at_which_they_could_last_be_spent(on_rows: Any) -> None:
    """A block may be spent for its life, so that its calls are taken for younger by that, and never for unborn."""

    async def scenario(world: World) -> None:
        await world.reserve(7, ago=0)
        await world.reserve(8, ago=LIFE - 20)
        await world.reserve(9, ago=LIFE + 1_000)
        assert near(await world.spent(), (Lane.LIVE, 15, 0), (Lane.LIVE, 9, 1_000))

    on_rows(scenario)


def test_what_was_spent_is_told_by_lane_and_bucket(on_rows: Any) -> None:
    """Blocks of a lane in the same bucket are one sum with the age of the youngest; another Page's are in none."""

    async def scenario(world: World) -> None:
        for ago in (1_210, 1_300, 1_450):
            await world.reserve(10, ago=LIFE + ago)
        await world.reserve(5, ago=LIFE + 1_550)
        await world.reserve(3, Lane.UPKEEP, ago=LIFE + 1_300)
        await world.reserve(99, page_id=OTHER_PAGE)
        assert near(
            await world.spent(), (Lane.LIVE, 30, 1_210), (Lane.UPKEEP, 3, 1_300), (Lane.LIVE, 5, 1_550)
        )
        assert await world.spent(page_id="1") == []

    on_rows(scenario)


def test_the_caller_s_own_unspent_calls_are_not_counted(on_rows: Any) -> None:
    """What of a block is known not to be spent is left out, whole blocks too; of others' blocks all counts."""

    async def scenario(world: World) -> None:
        part, whole = await world.reserve(10), await world.reserve(20)
        await world.reserve(40)
        assert await world.spent({part: 4, whole: 20, 999_999: 7}) == [(Lane.LIVE, 46, 0)]
        assert await world.spent() == [(Lane.LIVE, 70, 0)]

    on_rows(scenario)


def test_calls_that_left_the_window_are_not_counted(on_rows: Any) -> None:
    """Beyond window and life of a block nothing of it counts."""

    async def scenario(world: World) -> None:
        await world.reserve(1, ago=WINDOW + LIFE - 60)
        await world.reserve(2, ago=WINDOW + LIFE + 60)
        assert [calls for _, calls, _ in await world.spent()] == [1]

    on_rows(scenario)


@pytest.mark.parametrize("jump", [-86_400.0 * 400, -3_600.0, -60.0])
def test_a_database_that_jumps_ahead_makes_no_block_of_this_machine_older(on_rows: Any, jump: float) -> None:
    """Where the database's clock has been put forward since, the machine's own clock says how old its blocks are."""

    async def scenario(world: World) -> None:
        await world.reserve(7, ago=LIFE + 1_000, wrong=jump)
        assert near(await world.spent(), (Lane.LIVE, 7, 1_000))

    on_rows(scenario)


@pytest.mark.parametrize(("jump", "age"), [(600.0, 400), (1_000.0, 0), (86_400.0, 0)])
def test_a_database_that_jumps_back_makes_blocks_younger_at_most(on_rows: Any, jump: float, age: int) -> None:
    """Of two ages the smaller holds: calls count for longer than they must, and never for less."""

    async def scenario(world: World) -> None:
        await world.reserve(7, ago=LIFE + 1_000, wrong=jump)
        assert near(await world.spent(), (Lane.LIVE, 7, age))

    on_rows(scenario)


def test_another_machine_s_blocks_go_by_the_database_s_clock(on_rows: Any) -> None:
    """Steady clocks of two machines have nothing to do with one another."""

    async def scenario(world: World) -> None:
        await world.reserve(7, ago=LIFE + 1_000, machine=THERE)
        for reading in (17.0, START - LIFE - 999, START * 9):
            world.steady = reading
            assert near(await world.spent(), (Lane.LIVE, 7, 1_000))

    on_rows(scenario)


def test_a_steady_clock_that_began_anew_says_nothing_of_older_blocks(on_rows: Any) -> None:
    """Where a machine without a boot id was started again, its older blocks go by the database's clock."""

    async def scenario(world: World) -> None:
        await world.reserve(7, ago=LIFE + 1_000)
        world.steady = 17.0
        assert near(await world.spent(), (Lane.LIVE, 7, 1_000))

    on_rows(scenario)


@pytest.mark.parametrize("seed", range(5))
def test_no_spent_call_is_ever_taken_for_older_than_it_is(on_rows: Any, seed: int) -> None:
    """However clocks jumped, every call of this machine that may have been spent in the window is in the sums."""
    dice = random.Random(seed)

    async def scenario(world: World) -> None:
        blocks = [
            (dice.randint(1, 50), dice.choice(list(Lane)), dice.uniform(0, 100_000), dice.uniform(-1e6, 1e6))
            for _ in range(40)
        ]
        for calls, lane, ago, wrong in blocks:
            await world.reserve(calls, lane, ago=ago, wrong=wrong)
        found = await world.spent()
        for lane in Lane:
            for moment in (0.0, 600.0, 3_600.0, 40_000.0, WINDOW - 60):
                true = sum(c for c, own, ago, _ in blocks if own is lane and ago - LIFE < moment)
                assert sum(c for own, c, age in found if own is lane and age <= moment + 5) >= true

    on_rows(scenario)


def test_what_may_still_count_is_not_forgotten(on_rows: Any) -> None:
    """A block goes when both clocks say that it is old; one that this machine knows to be young stays."""

    async def scenario(world: World) -> None:
        old = {await world.reserve(ago=2 * WINDOW + 60), await world.reserve(ago=3 * WINDOW, machine=THERE)}
        kept = {
            await world.reserve(),
            await world.reserve(ago=2 * WINDOW - 60),
            await world.reserve(ago=WINDOW, wrong=-9 * WINDOW),
            await world.reserve(ago=3 * WINDOW, wrong=9 * WINDOW),
            await world.reserve(ago=WINDOW, machine=THERE),
        }
        assert await world.blocks() == old | kept
        assert await world.budget.forget_blocks(2 * WINDOW, machine=HERE, steady=world.steady) == 2
        assert await world.blocks() == kept
        assert await world.budget.forget_blocks(2 * WINDOW, machine=HERE, steady=world.steady) == 0

    on_rows(scenario)


def test_no_block_is_reserved_for_less_than_nothing_or_for_an_unknown_lane(on_rows: Any) -> None:
    """The table itself refuses a block that would make others count for less, or count for nobody."""

    async def scenario(world: World) -> None:
        for values in ("('7', 'live', -1, 'm', 1)", "('7', 'night', 5, 'm', 1)"):
            with pytest.raises(psycopg.errors.CheckViolation):
                await world.sql(
                    f"insert into budget_blocks (page_id, lane, calls, machine, steady) values {values}"
                )
        for lane in Lane:
            await world.reserve(1, lane)
        assert sorted(lane for lane, *_ in await world.spent()) == sorted(Lane)

    on_rows(scenario)


@pytest.mark.parametrize(("unspent", "left"), [(0, 10), (4, 6), (10, 0), (11, 0)])
def test_a_new_block_gives_up_what_its_former_did_not_spend(on_rows: Any, unspent: int, left: int) -> None:
    """Calls that can no longer be made are given up as the next are reserved, and never more than there were."""

    async def scenario(world: World) -> None:
        other = await world.reserve(3)
        former = await world.reserve(10)
        now = await world.budget.reserve(
            PAGE, Lane.LIVE, 20, machine=HERE, steady=world.steady, instead_of=(former, unspent)
        )
        assert len({other, former, now}) == 3
        rows = await world.sql("select block_id, calls from budget_blocks")
        assert {row["block_id"]: row["calls"] for row in rows} == {other: 3, former: left, now: 20}
        assert await world.spent() == [(Lane.LIVE, 23 + left, 0)]
        assert await world.spent({now: 20, other: 3}) == ([(Lane.LIVE, left, 0)] if left else [])

    on_rows(scenario)


@pytest.mark.parametrize(("unspent", "left"), [(4, 6), (10, None), (11, None)])
def test_a_block_given_back_counts_what_was_spent_of_it(on_rows: Any, unspent: int, left: int | None) -> None:
    """A block of which no call was made leaves no row behind; the others stay."""

    async def scenario(world: World) -> None:
        other, block = await world.reserve(3), await world.reserve(10)
        await world.budget.give_back(block, unspent)
        rows = await world.sql("select block_id, calls from budget_blocks")
        assert {row["block_id"]: row["calls"] for row in rows} == {other: 3} | ({block: left} if left else {})

    on_rows(scenario)


def test_many_workers_reserve_at_once(on_rows: Any) -> None:
    """Blocks are only added, so that no two workers meet, and all of them count."""

    async def scenario(world: World) -> None:
        blocks = await asyncio.gather(*(world.reserve(2) for _ in range(100)))
        assert len(set(blocks)) == 100
        assert await world.spent() == [(Lane.LIVE, 200, 0)]

    on_rows(scenario)


def test_a_limit_counts_stored_leads_of_the_last_89_days(on_rows: Any) -> None:
    """Stored leads count by their creation; what waits, is dead, erased, a test, older or of another Page does not."""

    async def scenario(world: World) -> None:
        def created(
            number: int, ago: timedelta, page_id: str = PAGE, **more: Any
        ) -> tuple[InFlight, Outcome]:
            return in_flight(number, page_id), Stored(
                a_lead(number, created_time=(NOW - ago).isoformat(), **more)
            )

        dummy = [{"name": "email", "values": ["test@fb.com"]}]
        await world.settle(
            created(1, timedelta(0)),
            created(2, LEADS_OF - timedelta(minutes=1)),
            created(3, LEADS_OF + timedelta(minutes=1)),
            created(4, timedelta(days=-1, minutes=1)),
            created(5, timedelta(days=-2)),
            created(6, timedelta(1), OTHER_PAGE),
            created(7, timedelta(1), field_data=dummy),
            created(8, timedelta(1)),
            (in_flight(9, created_time=NOW), Snooze(at(60), "x")),
            (in_flight(10, created_time=NOW), DeadLetter("x")),
        )
        assert (await world.sql("select is_test from leadgen where leadgen_id = '7'"))[0]["is_test"]
        await world.sql("update leadgen set state = 'erased', page_id = %s where leadgen_id = '8'", PAGE)
        assert await world.budget.limit_facts(PAGE, NOW) == LimitFacts(3, 0, None)
        assert await world.budget.limit_facts(OTHER_PAGE, NOW) == LimitFacts(1, 0, None)
        assert await world.budget.limit_facts("1", NOW) == LimitFacts(0, 0, None)

    on_rows(scenario)


def a_form(form_id: int, leads: int | None, expired: int | None = None) -> Form:
    return Form(str(form_id), leads_count=leads, expired_leads_count=expired)


def test_meta_s_own_counts_are_added_up_while_they_are_fresh(on_rows: Any) -> None:
    """Leads of a Page's forms less those expired, never below nothing, as counted within the last day."""

    async def scenario(world: World) -> None:
        forms = [a_form(1, 50, 8), a_form(2, 5, 9), a_form(3, None), a_form(4, 100)]
        await world.forms.keep_forms(PAGE, forms, NOW)
        await world.forms.keep_forms(PAGE, [a_form(5, 1_000)], NOW - FORMS_COUNTED_FOR)
        await world.forms.keep_forms(OTHER_PAGE, [a_form(6, 7)], NOW)
        assert (await world.budget.limit_facts(PAGE, NOW)).metas == 142
        assert (await world.budget.limit_facts(OTHER_PAGE, NOW)).metas == 7
        assert sorted(await world.budget.form_counts(PAGE, NOW)) == [0, 42, 100]
        later = NOW + FORMS_COUNTED_FOR
        assert (await world.budget.limit_facts(PAGE, later)).metas == 0
        assert await world.budget.form_counts(PAGE, later) == []

    on_rows(scenario)


def test_counts_that_meta_does_not_tell_age(on_rows: Any) -> None:
    """A listing without counts leaves the old ones, and does not make them younger."""

    async def scenario(world: World) -> None:
        await world.forms.keep_forms(PAGE, [a_form(1, 50, 8)], NOW)
        later = NOW + FORMS_COUNTED_FOR / 2
        await world.forms.keep_forms(PAGE, [a_form(1, None)], later)
        assert (await world.budget.limit_facts(PAGE, later)).metas == 42
        assert (await world.budget.limit_facts(PAGE, NOW + FORMS_COUNTED_FOR)).metas == 0

    on_rows(scenario)


def test_an_operator_s_order_is_a_fact_until_it_is_lifted(on_rows: Any) -> None:
    """An override is kept for a Page that is known or not, replaced by the next, and lifted by none."""

    async def scenario(world: World) -> None:
        await world.keep(10)
        for page_id in (PAGE, OTHER_PAGE):
            for calls in (5_000, 0, None):
                await world.budget.override(page_id, calls, at(5))
                assert (await world.budget.limit_facts(page_id, NOW)).override == calls
        assert (await world.page())["limit_calls"] == 10

    on_rows(scenario)


def test_a_limit_is_noted_and_a_later_one_replaces_it(on_rows: Any) -> None:
    """A Page's row tells the limit in force, where it comes from and since when; nothing else of it changes."""

    async def scenario(world: World) -> None:
        await world.keep(10)
        await world.leads.park(PAGE, "token_refused", NOW)
        await world.budget.keep_limit(PAGE, Limit(950, 1_000, "Meta's forms"), at(60))
        page = await world.page()
        told = (page["limit_calls"], page["limit_told"], page["limit_origin"], page["limit_at"])
        assert told == (950, 1_000, "Meta's forms", at(60))
        assert page["parked_reason"] == "token_refused"

    on_rows(scenario)


@pytest.mark.parametrize(
    ("reason", "limit", "goes"),
    [("budget", 11, True), ("budget", 10, False), ("budget", 9, False), ("throttled_page", 11, False)],
)
def test_a_larger_limit_lets_go_what_waited_for_one(
    on_rows: Any, reason: str, limit: int, goes: bool
) -> None:
    """A Page that its budget held is free as soon as its limit has grown; one that Meta closed is not."""

    async def scenario(world: World) -> None:
        await world.keep(10)
        await world.hold(at(3_600), reason)
        await world.keep(10, OTHER_PAGE)
        await world.hold(at(3_600), "budget", number=2, page_id=OTHER_PAGE)
        assert await world.due() == []
        await world.keep(limit)
        assert await world.due() == (["1"] if goes else [])

    on_rows(scenario)


def test_limits_that_are_old_or_were_never_worked_out_are_due(on_rows: Any) -> None:
    """So are those that are older than Meta's counts; the never looked at come first, and at most so many."""

    async def scenario(world: World) -> None:
        for page_id, limit in {"1": 100, "2": 2_000, "3": 100, "4": 3_000, "5": 0, "6": 100}.items():
            await world.keep(10, page_id, at(-limit))
        for page_id, listed in {"3": 50, "4": 40, "5": 30, "6": 101}.items():
            await world.forms.asking(page_id, at(-listed))
            await world.forms.listed_whole(page_id, at(-listed))
        await world.hold(at(5), page_id="7")

        async def stale(most: int = 100) -> list[str]:
            return list(await world.budget.stale_limits(before=at(-900), most=most))

        assert (await stale())[0] == "7"
        assert sorted(await stale()) == ["2", "3", "4", "7"]
        assert await stale(3) == ["7", "4", "2"]

    on_rows(scenario)


def test_an_operator_sees_what_each_page_may_spend_and_what_waits(on_rows: Any) -> None:
    """Pages come with limit, hold and queue, the longest queue first; a hold that is over is none."""

    async def scenario(world: World) -> None:
        await world.keep(10)
        await world.keep(20, OTHER_PAGE)
        await world.budget.override("7", 5, NOW)
        await world.hold(at(60))
        await world.settle(
            (in_flight(2, first_seen_at=at(-99)), Snooze(at(30), "x")),
            (in_flight(3), DeadLetter("x")),
            (in_flight(4, OTHER_PAGE), Stored(a_lead(4))),
            (in_flight(5, "7"), Stored(a_lead(5, in_part=True))),
        )
        rows = await world.budget.budgeted(None, NOW)
        assert [
            (row["page_id"], row["limit_calls"], row["limit_override"], row["waiting"]) for row in rows
        ] == [
            (PAGE, 10, None, 2),
            (OTHER_PAGE, 20, None, 0),
            ("7", None, 5, 0),
        ]
        assert (rows[0]["oldest"], rows[0]["due_at"]) == (at(-99), NOW)
        assert (rows[0]["held_until"], rows[0]["held_reason"]) == (at(60), "budget")
        (later,) = await world.budget.budgeted(PAGE, at(60))
        assert (later["held_until"], later["held_reason"]) == (None, None)
        assert len(await world.budget.budgeted(None, NOW, most=2)) == 2

    on_rows(scenario)


def test_a_postgres_that_is_away_grants_nothing(free_port: int) -> None:
    """Calls that cannot be reserved are told by the error of the tree, without the database's password."""

    async def scenario() -> None:
        url = f"postgresql://u:hunter2@127.0.0.1:{free_port}/x"
        async with AsyncConnectionPool(url, min_size=0, max_size=1, open=False, timeout=0.2) as pool:
            with pytest.raises(StoreUnavailable) as told:
                await BudgetStore(pool).reserve(PAGE, Lane.LIVE, 1, machine=HERE, steady=1.0)
            assert "hunter2" not in str(told.value)

    asyncio.run(scenario())


def upgrade(url: str, revision: str) -> None:
    """Bring the schema to exactly this revision."""
    config = migration._config()
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    engine.dispose()


def test_rows_of_the_first_schema_are_kept_by_the_second(postgres_url: str) -> None:
    """Leads, waiting references, dead letters and parked Pages of an older version are all there and go on."""
    upgrade(postgres_url, "0001")
    insert = (
        "insert into leadgen (leadgen_id, state, reason, due_at, first_seen_at, last_seen_at, page_id, form_id,"
        " field_data, source, updated_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'webhook', %s)"
    )
    rows = [
        ("1", "stored", None, None, '[{"name":"email","values":["ann@example.org"]}]'),
        ("2", "waiting", "throttled_page", NOW, None),
        ("3", "dead", "lead_malformed", None, None),
        ("4", "erased", None, None, None),
    ]
    with psycopg.connect(postgres_url, row_factory=dict_row) as connection:
        for leadgen_id, state, reason, due_at, field_data in rows:
            values = (leadgen_id, state, reason, due_at, NOW, NOW, PAGE, FORM, field_data, NOW)
            connection.execute(insert, values)
        connection.execute(
            "insert into pages (page_id, parked_at, parked_reason, probe_at, updated_at) values (%s, %s, 'x', %s, %s)",
            (OTHER_PAGE, NOW, NOW, NOW),
        )
        before = connection.execute("select * from leadgen order by 1").fetchall()
    assert migrate(postgres_url) == ("0001", migration.head())
    with psycopg.connect(postgres_url, row_factory=dict_row) as connection:
        after = connection.execute("select * from leadgen order by 1").fetchall()
        # Later versions add columns.
        assert [{name: row[name] for name in before[0]} for row in after] == before
        shown = connection.execute("select leadgen_id, due_at from waiting").fetchall()
        assert shown == [{"leadgen_id": "2", "due_at": NOW}]

    async def goes_on() -> None:
        async with AsyncConnectionPool(postgres_url, min_size=1, max_size=2, open=False) as pool:
            world = World(BudgetStore(pool), LeadStore(pool, StoreSettings()), FormStore(pool), pool)
            assert await world.leads.parked([PAGE, OTHER_PAGE]) == {OTHER_PAGE}
            assert await world.due() == ["2"]
            assert (await world.page(OTHER_PAGE))["held_until"] is None
            await world.keep(10)
            await world.hold(at(60), number=5)
            assert await world.due(at(59)) == []

    asyncio.run(goes_on())
