"""Forms, the views of their answers and the functions behind them on a real Postgres, with whatever JSON there is."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool
from structlog.testing import capture_logs

from sandbox.content import form_fields
from tests.fakes.graph import FakeBudget, FakeTokens, PagesGraph
from tests.fakes.leads import FORM, OTHER_PAGE, PAGE, at, graph_lead, in_flight
from tests.fakes.sandboxes import made
from tests.fakes.time import NOW, FrozenClock
from tests.integration.tables import Tables
from worker.errors import StoreUnavailable
from worker.form import Form
from worker.forms import Discovered, FormAges, FormFinder
from worker.graph.wire import ResultPage
from worker.lead import Lead
from worker.outcomes import DeadLetter, Snooze, Stored
from worker.questions import LEAD_COLUMNS, Column, Kind, answer_text, columns
from worker.store.forms import FormStore
from worker.store.leads import LeadStore, StoreSettings

T = TypeVar("T")
MANUAL = (Path(__file__).parents[2] / "docs" / "answers.md").read_text()


@dataclass
class World(Tables):
    """The forms' rows and views, the leads beside them, and a look at everything."""

    forms: FormStore
    leads: LeadStore
    pool: AsyncConnectionPool

    async def store(self, leadgen_id: str | int = 1, **changed: Any) -> None:
        lead = Lead.from_graph(graph_lead(leadgen_id, **changed), leadgen_id=str(leadgen_id), in_part=False)
        await self.leads.settle([(in_flight(leadgen_id), Stored(lead))], NOW)

    async def keep(self, *forms: Form, now: datetime = NOW, page_id: str = PAGE) -> tuple[str, ...]:
        """Note forms and make their views."""
        new = await self.forms.keep_forms(page_id, forms, now)
        await self.forms.refresh_views(await self.forms.stale_views(page_id), now)
        return new

    async def row(self, form_id: str = FORM) -> dict[str, Any]:
        row = await self.forms.form(form_id)
        assert row is not None
        return row

    async def columns(self, form_id: str = FORM) -> list[str]:
        """The form's own columns of its view."""
        rows = await self.sql(
            "select attname from pg_attribute where attrelid = to_regclass(%s) and attnum > %s order by attnum",
            f"leads_of.form_{form_id}",
            len(LEAD_COLUMNS),
        )
        return [row["attname"] for row in rows]


@pytest.fixture
def on_rows(database: str) -> Callable[[Callable[[World], Awaitable[T]]], T]:
    """Runs a scenario on the rows."""

    def run(scenario: Callable[[World], Awaitable[T]]) -> T:
        async def inner() -> T:
            async with AsyncConnectionPool(
                database, min_size=1, max_size=10, open=False, timeout=30, kwargs={"autocommit": True}
            ) as pool:
                return await scenario(World(FormStore(pool), LeadStore(pool, StoreSettings()), pool))

        return asyncio.run(inner())

    return run


def ask(key: str, label: str | None = None, **options: str) -> dict[str, Any]:
    told: dict[str, Any] = {"key": key, "label": label or key.title(), "type": "CUSTOM"}
    return told | ({"options": [{"key": k, "value": v} for k, v in options.items()]} if options else {})


def a_form(*questions: Any, form_id: str = FORM, name: str = "My form", boxes: Any = (), **more: Any) -> Form:
    told = {
        "id": form_id,
        "name": name,
        "questions": list(questions),
        "legal_content": {"custom_disclaimer": {"title": "T", "checkboxes": list(boxes)}},
        **more,
    }
    form = Form.from_graph(told)
    assert form is not None
    return form


def answered(**values: Any) -> list[dict[str, Any]]:
    return [{"name": name, "values": each} for name, each in values.items()]


# Rows of forms.


def test_what_is_not_told_leaves_what_is_known(on_rows: Any) -> None:
    """Status, counts and definition stay where a later answer lacks them; the Page is that of the last answer."""

    async def scenario(world: World) -> None:
        full = a_form(
            ask("a"), boxes=[{"key": "b"}], locale="de_DE", status="ACTIVE", leads_count=9, expired_leads_count=2,
            created_time="2026-10-01T10:00:00+0000", tracking_parameters=[{"key": "utm", "value": "x"}],
        )  # fmt: skip
        await world.keep(full)
        before = await world.row()
        assert before["disclaimers"] == {"title": "T", "checkboxes": [{"key": "b"}]}
        await world.keep(Form(FORM), now=at(60), page_id=OTHER_PAGE)
        assert await world.row() == {**before, "page_id": OTHER_PAGE, "listed_at": at(60)}
        await world.keep(Form(FORM, status="ARCHIVED", leads_count=11), now=at(90))
        after = await world.row()
        assert (after["status"], after["leads_count"], after["expired_leads_count"]) == ("ARCHIVED", 11, 2)
        assert (after["counted_at"], after["definition_at"]) == (at(90), NOW)

    on_rows(scenario)


def test_a_definition_changes_only_where_it_differs(on_rows: Any) -> None:
    """The same JSON, however written, moves nothing; another name, question, checkbox or parameter does."""

    async def scenario(world: World) -> None:
        await world.keep(a_form({"key": "a", "label": "A"}))
        await world.keep(a_form({"label": "A", "key": "a"}, status="PAUSED"), now=at(1))
        assert (await world.row())["definition_at"] == NOW
        changes = [
            a_form(ask("a"), name="Another"),
            a_form(ask("b"), name="Another"),
            a_form(ask("b"), name="Another", boxes=[{"key": "x"}]),
            a_form(ask("b"), name="Another", boxes=[{"key": "x"}], tracking_parameters=[{"key": "u"}]),
        ]
        for second, form in enumerate(changes, 2):
            await world.keep(form, now=at(second))
            row = await world.row()
            assert (row["definition_at"], row["view_at"], row["found_at"]) == (at(second), at(second), NOW)

    on_rows(scenario)


def test_a_form_is_new_to_the_first_listing_that_holds_it(on_rows: Any) -> None:
    """A form that was asked for by its id, or had only a row, is new all the same; a listed one is not."""

    async def scenario(world: World) -> None:
        await world.sql("insert into forms (form_id, page_id) values ('3', '7')")
        assert await world.forms.keep_forms(PAGE, [Form("1")], NOW, listed=False) == ()
        row = await world.row("1")
        assert (row["found_at"], row["listed_at"]) == (None, None)
        told = [Form("3"), Form("1"), Form("2")]
        assert await world.forms.keep_forms(PAGE, told, at(5)) == ("1", "2", "3")
        assert await world.forms.keep_forms(PAGE, told, at(9)) == ()
        row = await world.row("1")
        assert (row["found_at"], row["listed_at"]) == (at(5), at(9))
        assert [each["form_id"] for each in await world.forms.forms_of(PAGE)] == ["1", "2", "3"]
        assert await world.forms.form("4") is None

    on_rows(scenario)


def test_forms_noted_at_the_same_time_do_not_deadlock(on_rows: Any) -> None:
    """Whoever notes the same forms in another order waits for nobody for ever, and each form is new once."""

    async def scenario(world: World) -> None:
        forms = [Form(str(n), leads_count=n) for n in range(1, 200)]
        noted = await asyncio.gather(
            *(world.forms.keep_forms(PAGE, forms[:: (-1) ** n], at(n)) for n in range(8))
        )
        assert sorted(form_id for new in noted for form_id in new) == sorted(form.form_id for form in forms)

    on_rows(scenario)


def test_a_form_that_postgres_refuses_is_passed_over_alone(on_rows: Any) -> None:
    """A constraint of the operator's costs one form its row, not its Page the others."""

    async def scenario(world: World) -> None:
        await world.sql("alter table forms add check (name <> 'bad')")
        forms = [a_form(form_id=str(n), name="bad" if n == 4 else "good") for n in range(1, 8)]
        with capture_logs() as logs:
            assert len(await world.forms.keep_forms(PAGE, forms, NOW)) == 6
        assert [(line["event"], line["form_id"]) for line in logs] == [("form_refused", "4")]

    on_rows(scenario)


def test_pages_are_due_by_age(on_rows: Any) -> None:
    """A Page that was asked long ago or never is due, the never asked first, and at most so many."""

    async def scenario(world: World) -> None:
        for page_id, ago in {"1": 100, "2": 50_000, "3": 40_000}.items():
            await world.forms.asking(page_id, at(-ago))
        await world.sql("insert into pages (page_id, updated_at) values ('4', %s)", NOW)

        async def due(most: int = 100) -> list[str]:
            told = await world.forms.due_pages(before=at(-21_600), unseen_before=at(-300), most=most)
            return list(told)

        assert await due() == ["4", "2", "3"]
        assert await due(1) == ["4"]

    on_rows(scenario)


def test_a_lead_of_an_unseen_form_makes_its_page_due(on_rows: Any) -> None:
    """At once, but not within five minutes, nor again for what a whole listing has not held since, nor when parked."""

    async def scenario(world: World) -> None:
        async def due(now: datetime) -> list[str]:
            told = await world.forms.due_pages(
                before=now - timedelta(hours=6), unseen_before=now - timedelta(minutes=5), most=9
            )
            return list(told)

        async def announce(number: int, form_id: str | None, now: datetime) -> None:
            reference = in_flight(number, form_id=form_id, first_seen_at=now)
            await world.leads.settle([(reference, Snooze(now, "x"))], now)

        await announce(1, "71", at(-1))
        assert await due(NOW) == [PAGE]  # of which nothing else is known
        await world.forms.asking(PAGE, NOW)
        assert await due(at(299)) == []
        assert await due(at(301)) == [PAGE]  # that listing was not whole
        await world.forms.listed_whole(PAGE, at(301))
        await world.forms.asking(PAGE, at(301))
        await announce(2, None, at(302))
        assert await due(at(9_000)) == []
        await announce(3, "71", at(302))
        assert await due(at(602)) == [PAGE]
        await world.leads.park(PAGE, "token_refused", NOW)
        assert await due(at(602)) == []
        assert await due(at(10**6)) == []
        await world.leads.unpark([PAGE], NOW)
        assert await due(at(302)) == [PAGE]  # forms may have come meanwhile
        await world.forms.asking(PAGE, at(301))
        await world.forms.keep_forms(PAGE, [Form("71")], at(603))
        assert await due(at(9_000)) == []

    on_rows(scenario)


def test_a_discovery_ends_in_rows_and_views(on_rows: Any) -> None:
    """What Graph lists of simulated forms is kept with all questions, and each form can be selected from at once."""
    sandbox = made()
    told = [form_fields(sandbox.world, form, NOW.timestamp()) for form in sandbox.world.forms]

    async def scenario(world: World) -> None:
        graph = PagesGraph()
        graph.says[PAGE] += [ResultPage(tuple(told[:2]), "b", ()), ResultPage(tuple(told[2:]), None, ())]
        finder = FormFinder(
            graph=graph, budget=FakeBudget(), rows=world.forms, tokens=FakeTokens(), ages=FormAges(),
            clock=FrozenClock(),
        )  # fmt: skip
        ids = tuple(str(form["id"]) for form in told)
        assert await finder.discover(PAGE) == Discovered(
            ids, tuple(sorted(ids[:2])) + tuple(sorted(ids[2:])), True
        )
        (page,) = await world.sql("select forms_asked_at, forms_listed_at from pages")
        assert set(page.values()) == {NOW}
        for form in told:
            row = await world.row(str(form["id"]))
            asked = columns(row["questions"], row["tracking_parameters"], row["disclaimers"])
            assert row["questions"] == form["questions"]
            assert await world.columns(str(form["id"])) == [column.name for column in asked]
            await world.sql(f"select * from leads_of.form_{form['id']}")
        assert await world.forms.stale_views(PAGE) == ()

    on_rows(scenario)


# A view a form.


def test_a_form_s_view_shows_its_leads(on_rows: Any) -> None:
    """A row a stored lead of the form; labels, several values, skipped questions, parameters, checkboxes."""

    async def scenario(world: World) -> None:
        boxes = [{"key": "optional_1", "text": "Call me"}, {"key": "created_time", "text": "?"}]
        form = a_form(ask("email"), ask("größe?", s="klein", l="groß"), ask("skipped"), boxes=boxes,
                      tracking_parameters=[{"key": "utm source", "value": "{{x}}"}])  # fmt: skip
        await world.keep(form)
        told = answered(**{"email": ["a@b"], "größe?": ["l", "zz", "s"], "skipped": [], "utm source": ["ig"]})
        ticks = [{"checkbox_key": "optional_1", "is_checked": "1"}]
        await world.store(1, field_data=told, custom_disclaimer_responses=ticks)
        await world.store(2, form_id="5")
        await world.leads.settle([(in_flight(3), DeadLetter("x"))], NOW)
        (row,) = await world.sql(f"select * from leads_of.form_{FORM}")
        assert row == {
            "leadgen_id": "1",
            "created_time": at(-60),
            "ad_name": "Autumn",
            "adset_name": "Set",
            "campaign_name": "Campaign",
            "platform": "fb",
            "is_organic": False,
            "is_test": False,
            "email": "a@b",
            "größe?": "groß, zz, klein",
            "skipped": None,
            "utm source": "ig",
            "optional_1": True,
            "created_time_2": None,
        }

    on_rows(scenario)


HOSTILE = [
    '"; drop table leadgen; --',
    "it's $c$ \\ %s %(x)s {}",
    "🏠" * 50,
    "x" * 64,
    "x" * 65,
    "",
    " ",
    "ctid",
    "\ufffd",
    "é",
    "e\u0301",
]


def test_any_key_is_a_column(on_rows: Any) -> None:
    """Quotes, escapes, emoji and 200 characters are names and find their answers; labels are comments on them."""

    async def scenario(world: World) -> None:
        form = a_form(*(ask(key, f"label of {key}", a=f"label {key}") for key in HOSTILE), name="N'; \\ %s")
        await world.keep(form)
        names = [column.name for column in columns(form.questions)]
        assert await world.columns() == names
        await world.store(1, field_data=answered(**{key: ["a"] for key in HOSTILE}))
        (row,) = await world.sql(f"select * from leads_of.form_{FORM}")
        assert [row[name] for name in names] == [f"label {key}" for key in HOSTILE]
        view = f"leads_of.form_{FORM}"
        (told,) = await world.sql("select obj_description(%s::regclass) as form", view)
        assert told["form"] == "N'; \\ %s"
        labels = await world.sql(
            "select col_description(attrelid, attnum) as label from pg_attribute"
            " where attrelid = %s::regclass and attnum > %s order by attnum",
            view,
            len(LEAD_COLUMNS),
        )
        assert [each["label"] for each in labels] == [f"label of {key}" for key in HOSTILE]

    on_rows(scenario)


def test_a_view_follows_its_definition(on_rows: Any) -> None:
    """Columns come, go and change places, and who may read the old view may read the new one."""

    async def scenario(world: World) -> None:
        await world.sql('create role reader; create role "The Other"')
        try:
            await world.keep(a_form(ask("a")))
            await world.sql(f'grant select on leads_of.form_{FORM} to reader, "The Other", public')
            for second, keys in enumerate(("abc", "ab", "ba", "", "z"), 1):
                await world.keep(a_form(*map(ask, keys)), now=at(second))
                assert await world.columns() == list(keys)
                for role in ("reader", "The Other", "public"):
                    (may,) = await world.sql(
                        "select has_table_privilege(%s, %s, 'select') as may", role, f"leads_of.form_{FORM}"
                    )
                    assert may["may"]
        finally:
            await world.sql(
                f'drop view if exists leads_of.form_{FORM}; drop role reader; drop role "The Other"'
            )

    on_rows(scenario)


def test_what_people_built_upon_a_view_stays(on_rows: Any) -> None:
    """Questions may be added under it; a change that would drop it waits, is told each time, and comes once it may."""

    async def scenario(world: World) -> None:
        await world.keep(a_form(ask("a")), a_form(ask("x"), form_id="5"))
        await world.sql(f"create view mine as select a from leads_of.form_{FORM}")
        with capture_logs() as logs:
            await world.keep(a_form(ask("a"), ask("b")), now=at(1))
        assert (await world.columns(), logs) == (["a", "b"], [])
        for second in (2, 3):
            with capture_logs() as logs:
                await world.keep(
                    a_form(ask("b")), a_form(ask("y"), form_id="5", name=str(second)), now=at(second)
                )
            assert [(each["event"], each["form_id"], each["sqlstate"]) for each in logs] == [
                ("form_view_kept", FORM, "2BP01")
            ]
            assert (await world.columns(), await world.columns("5")) == (["a", "b"], ["y"])
            await world.sql("select * from mine")
        await world.sql("drop view mine")
        await world.keep(a_form(ask("b")), now=at(4))
        assert await world.columns() == ["b"]

    on_rows(scenario)


def test_a_view_that_was_dropped_comes_back(on_rows: Any) -> None:
    """Dropped alone or with the whole schema, it is there after the next look; a form without questions has none."""

    async def scenario(world: World) -> None:
        await world.keep(a_form(ask("a")), Form("5", name="counts only"))
        for statement in (f"drop view leads_of.form_{FORM}", "drop schema leads_of cascade"):
            await world.sql(statement)
            await world.keep(Form(FORM), now=at(1))
            assert await world.columns() == ["a"]
        views = await world.sql("select viewname from pg_views where schemaname = 'leads_of'")
        assert [view["viewname"] for view in views] == [f"form_{FORM}"]
        assert await world.forms.refresh_views(["5", "6"], NOW) == ()

    on_rows(scenario)


def test_what_is_no_view_of_ours_is_left_alone(on_rows: Any) -> None:
    """A table by the name of a view is not touched; the form is noted all the same."""

    async def scenario(world: World) -> None:
        await world.sql(f"create table leads_of.form_{FORM} (mine int)")
        with capture_logs() as logs:
            await world.keep(a_form(ask("a")))
        assert [(each["event"], each["sqlstate"]) for each in logs] == [("form_view_kept", "42809")]
        await world.sql(f"select mine from leads_of.form_{FORM}")
        assert (await world.row())["view_at"] is None

    on_rows(scenario)


def test_many_make_the_same_views_at_once(on_rows: Any) -> None:
    """Workers that see a form at the same moment wait for each other, and all succeed."""

    async def scenario(world: World) -> None:
        await world.forms.keep_forms(PAGE, [a_form(ask("a"), form_id=str(n)) for n in range(1, 6)], NOW)
        ids = [str(n) for n in range(1, 6)]
        with capture_logs() as logs:
            made = await asyncio.gather(
                *(world.forms.refresh_views(ids[:: (-1) ** n], NOW) for n in range(8))
            )
        assert (logs, [len(each) for each in made]) == ([], [5] * 8)

    on_rows(scenario)


def test_a_view_that_is_being_read_is_not_waited_for_long(on_rows: Any, monkeypatch: Any) -> None:
    """A reader that takes its time keeps the old view; nobody queues up behind us, and the next look mends it."""
    monkeypatch.setattr("worker.store.forms.LOCK_TIMEOUT", "50ms")

    async def scenario(world: World) -> None:
        await world.keep(a_form(ask("a")))
        async with world.pool.connection() as reader, reader.transaction():
            await reader.execute(f"select * from leads_of.form_{FORM}".encode())
            with capture_logs() as logs:
                await world.keep(a_form(ask("b")), now=at(1))
        assert [(each["event"], each["sqlstate"]) for each in logs] == [("form_view_kept", "55P03")]
        await world.keep(Form(FORM), now=at(2))
        assert await world.columns() == ["b"]

    on_rows(scenario)


def test_a_role_without_the_right_to_create_gets_no_views(database: str) -> None:
    """Its forms are noted all the same; the log says once a form and look that the view could not be made."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("create role plain login")
        owner.execute("grant select, insert, update on all tables in schema public to plain")
    try:
        url = make_conninfo(database, user="plain")

        async def scenario(schema: bool) -> list[tuple[Any, ...]]:
            async with AsyncConnectionPool(url, min_size=1, max_size=2, open=False, timeout=30) as pool:
                world = World(FormStore(pool), LeadStore(pool, StoreSettings()), pool)
                with capture_logs() as logs:
                    await world.keep(a_form(ask("a")))
                assert (await world.row())["questions"] == [ask("a")]
                return [(each["event"], each["form_id"], each["sqlstate"]) for each in logs]

        assert asyncio.run(scenario(True)) == [("form_view_kept", FORM, "42501")]
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute("drop schema leads_of cascade")
        assert asyncio.run(scenario(False)) == [("form_view_kept", FORM, "42501")]
    finally:
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute("drop owned by plain; drop role plain")


def test_a_postgres_that_is_away_is_told(free_port: int) -> None:
    """Views wait for Postgres like everything else, and the message holds no password."""

    async def scenario() -> None:
        url = f"postgresql://u:hunter2@127.0.0.1:{free_port}/x"
        async with AsyncConnectionPool(url, min_size=0, max_size=1, open=False, timeout=0.2) as pool:
            with pytest.raises(StoreUnavailable) as told:
                await FormStore(pool).refresh_views([FORM], NOW)
            assert "hunter2" not in str(told.value)

    asyncio.run(scenario())


# The views over all forms.


def test_answers_are_rows_with_their_questions(on_rows: Any) -> None:
    """A row an entry: label, type and place from the definition, the answer by labels, the values as they came."""

    async def scenario(world: World) -> None:
        await world.keep(a_form(ask("email"), ask("size", "Size?", s="Small", l="Large"), {"key": "bare"},
                                tracking_parameters=[{"key": "utm", "value": "x"}]))  # fmt: skip
        told = [
            *answered(size=["l", "s"], email=["a@b"], unknown=["u"], bare=[], utm=["ig"]),
            {"name": "email", "values": ["c@d"]},
            {"name": "skipped"},
        ]
        await world.store(1, field_data=told)
        await world.store(2, form_id="5", field_data=answered(size=["l"]))
        rows = await world.sql(
            'select leadgen_id, question, label, type, position, answer, "values" from answers order by 1, 5, 2'
        )
        assert [tuple(row.values()) for row in rows] == [
            ("1", "email", "Email", "CUSTOM", 1, "a@b, c@d", ["a@b", "c@d"]),
            ("1", "size", "Size?", "CUSTOM", 2, "Large, Small", ["l", "s"]),
            ("1", "bare", "bare", None, 3, None, []),
            ("1", "skipped", None, None, None, None, []),
            ("1", "unknown", None, None, None, "u", ["u"]),
            ("1", "utm", "utm", "TRACKING", None, "ig", ["ig"]),
            ("2", "size", None, None, None, "l", ["l"]),
        ]

    on_rows(scenario)


def test_disclaimers_are_rows_whether_told_or_not(on_rows: Any) -> None:
    """Each checkbox of the definition has a row a lead, ticked or not or unknown; so has one of the lead alone."""

    async def scenario(world: World) -> None:
        boxes = [
            {"key": "a", "text": "Mail", "is_required": True},
            {"key": "b", "text": "Call", "is_required": "x"},
        ]
        await world.keep(a_form(boxes=boxes))
        ticks = [{"checkbox_key": "b", "is_checked": ""}, {"checkbox_key": "z", "is_checked": "1"}]
        await world.store(1, custom_disclaimer_responses=ticks)
        await world.store(2, form_id="5")
        rows = await world.sql("select * from disclaimers order by leadgen_id, key")
        assert [tuple(row.values()) for row in rows] == [
            ("1", FORM, "a", "Mail", True, None),
            ("1", FORM, "b", "Call", None, False),
            ("1", FORM, "z", None, None, True),
        ]

    on_rows(scenario)


@pytest.mark.parametrize(
    ("told", "ticked"),
    [
        ("1", True),
        ("true", True),
        ("True", True),
        (True, True),
        (1, True),
        ("", False),
        ("0", False),
        ("false", False),
        (False, False),
        (0, False),
        (None, None),
        ("yes", None),
        ([1], None),
        ({}, None),
    ],
)
def test_a_tick_is_one_where_meta_says_so(connection: Any, told: Any, ticked: bool | None) -> None:
    """Meta writes "1" and ""; what else says yes or no counts, anything else is not known; two must agree on yes."""
    statement = "select leadsync_ticked(%s, 'a'), leadsync_ticked(%s, 'a'), leadsync_ticked(%s, 'b')"
    box = {"checkbox_key": "a", "is_checked": told}
    yes = {"checkbox_key": "a", "is_checked": "1"}
    found = connection.execute(statement, (Jsonb([box]), Jsonb([yes, box]), Jsonb([box, {}, 5]))).fetchone()
    assert found == (ticked, ticked, None)


@pytest.fixture
def connection(database: str) -> "Iterator[psycopg.Connection[Any]]":
    """One connection, whose work is never committed."""
    with psycopg.connect(database) as connection:
        yield connection
        connection.rollback()


# The fixtures are the same for all examples of a test, and each example leaves the database as it was.
SHARED = [HealthCheck.function_scoped_fixture]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KEY = st.sampled_from(["a", "b", ""])
VALUES = JSON | st.lists(KEY | JSON, max_size=3)


def listed(**fields: Any) -> Any:
    """A list of objects with such fields, or with less, or something else entirely."""
    entry = st.fixed_dictionaries({}, optional={name: KEY | JSON | value for name, value in fields.items()})
    return JSON | st.lists(entry | JSON, max_size=4)


FIELD_DATA = listed(name=KEY, values=VALUES)
OPTIONS = listed(key=KEY, value=TEXT)
RESPONSES = listed(checkbox_key=KEY, is_checked=st.sampled_from(["1", "", True]))
QUESTIONS = listed(key=KEY, label=TEXT, type=TEXT, options=OPTIONS)
BOXES = JSON | st.fixed_dictionaries({"checkboxes": listed(key=KEY, text=TEXT, is_required=st.booleans())})


@settings(max_examples=300, suppress_health_check=SHARED)
@given(field_data=FIELD_DATA, options=OPTIONS, responses=RESPONSES, key=KEY | TEXT)
def test_no_json_breaks_a_function(
    connection: Any, field_data: Any, options: Any, responses: Any, key: str
) -> None:
    """Whatever stands in a lead or a definition gives an answer or null; of texts, the one that the export gives."""
    told = (Jsonb(field_data), Jsonb(options), Jsonb(responses), key)
    plain, labelled, ticked, swapped = connection.execute(
        "select leadsync_answer(%(f)s, %(k)s), leadsync_answer(%(f)s, %(k)s, %(o)s), leadsync_ticked(%(r)s, %(k)s),"
        " concat(leadsync_answer(%(o)s, %(k)s, %(f)s), leadsync_ticked(%(f)s, %(k)s))",
        dict(zip("fork", told, strict=True)),
    ).fetchone()
    assert isinstance(swapped, str)
    assert ticked in (True, False, None)
    assert (plain is None) == (labelled is None)
    if _is_plain(field_data):
        assert plain == answer_text(field_data, Column("x", key, "", Kind.QUESTION))
        (column,) = columns([{"key": key, "options": options}])
        assert labelled == answer_text(field_data, column)


def _is_plain(field_data: Any) -> bool:
    """Whether all values are texts: of numbers and the like, Python and Postgres write some otherwise."""
    entries = (
        [entry for entry in field_data if isinstance(entry, dict)] if isinstance(field_data, list) else []
    )
    values = [entry.get("values", []) for entry in entries]
    return all(
        isinstance(each, str | None) or (isinstance(each, list) and all(isinstance(v, str) for v in each))
        for each in values
    )


@settings(max_examples=150, suppress_health_check=SHARED)
@given(field_data=FIELD_DATA, responses=RESPONSES, questions=QUESTIONS, boxes=BOXES, tracking=listed(key=KEY))
def test_no_json_breaks_a_view(
    connection: Any, field_data: Any, responses: Any, questions: Any, boxes: Any, tracking: Any
) -> None:
    """One odd lead or definition is rows or no rows, and every other lead is shown."""
    with connection.transaction(force_rollback=True):
        for leadgen_id, told, ticks in (("1", field_data, responses), ("2", answered(a=["x"]), [])):
            connection.execute(
                "insert into leadgen (leadgen_id, state, first_seen_at, last_seen_at, updated_at, page_id, form_id,"
                " source, field_data, custom_disclaimer_responses)"
                " values (%s, 'stored', now(), now(), now(), '7', '9', 'webhook', %s, %s)",
                (leadgen_id, Jsonb(told), Jsonb(ticks)),
            )
        connection.execute(
            "insert into forms (form_id, page_id, questions, disclaimers, tracking_parameters)"
            " values ('9', '7', %s, %s, %s)",
            (Jsonb(questions), Jsonb(boxes), Jsonb(tracking)),
        )
        rows = connection.execute("select leadgen_id, question, answer from answers").fetchall()
        plain = connection.execute(
            "select answer, leadsync_answer(field_data, question) from answers join leads using (leadgen_id)"
            " where label is null"
        )
        assert all(shown == answer for shown, answer in plain)
        shown = [row for row in rows if row[0] == "2"]
        assert len(shown) == 1
        assert len({row[:2] for row in rows}) == len(rows)
        connection.execute("select * from disclaimers").fetchall()


@settings(max_examples=60, suppress_health_check=SHARED)
@given(questions=QUESTIONS, boxes=BOXES, tracking=listed(key=KEY | TEXT), name=st.none() | TEXT)
def test_any_definition_gives_a_view(
    definitions: Any, questions: Any, boxes: Any, tracking: Any, name: str | None
) -> None:
    """Whatever Graph tells of a form, its view can be made and shows the columns that it ought to."""
    told = {
        "id": FORM, "name": name, "questions": questions, "legal_content": {"custom_disclaimer": boxes},
        "tracking_parameters": tracking,
    }  # fmt: skip
    form = Form.from_graph(told)
    assert form is not None
    run, world = definitions

    async def scenario() -> None:
        await world.sql("delete from forms; drop schema if exists leads_of cascade")
        with capture_logs() as logs:
            await world.keep(form)
        assert logs == []
        asked = columns(form.questions, form.tracking_parameters, form.disclaimers)
        expected = [] if form.questions is None else [column.name for column in asked]
        assert await world.columns() == expected

    run(scenario())


@pytest.fixture
def definitions(database: str) -> Iterator[tuple[Any, World]]:
    """Rows on which many definitions are tried, one after the other, and what runs a scenario on them."""
    with asyncio.Runner() as runner:

        async def opened() -> AsyncConnectionPool:
            pool = AsyncConnectionPool(
                database, min_size=1, max_size=2, open=False, timeout=30, kwargs={"autocommit": True}
            )
            await pool.open()
            return pool

        pool = runner.run(opened())
        yield runner.run, World(FormStore(pool), LeadStore(pool, StoreSettings()), pool)
        runner.run(pool.close())


def test_the_functions_may_be_used_in_an_index_and_in_parallel(connection: Any) -> None:
    """They are immutable and parallel safe, whatever the search_path of who calls them."""
    found = connection.execute(
        "select provolatile::text, proparallel::text from pg_proc where proname like 'leadsync\\_%'"
    ).fetchall()
    assert set(found) == {("i", "s")}
    assert len(found) >= 3
    with connection.transaction(force_rollback=True):
        schema = connection.execute("select current_schema()").fetchone()[0]
        connection.execute("set local search_path = pg_temp")
        statement = sql.SQL("select {0}.leadsync_answer('[]', 'a'), {0}.leadsync_ticked('[]', 'a')")
        connection.execute(statement.format(sql.Identifier(schema)))


def test_the_manual_s_sql_runs_as_printed(on_rows: Any) -> None:
    """Every SQL block of docs/answers.md runs on a form like the one it speaks of, and its queries find its leads."""
    blocks = re.findall(r"```sql\n(.*?)```", MANUAL, re.DOTALL)
    assert len(blocks) >= 7

    async def scenario(world: World) -> None:
        form = a_form(
            ask("full_name"),
            {"key": "email", "label": "Email", "type": "EMAIL"},
            ask("wie_viele_mitarbeiter_haben_sie?", mehr_als_5="mehr als 5"),
            ask("which_services_are_you_interested_in?", solar="Solar panels", heat_pump="Heat pump"),
            form_id="1234567890",
            boxes=[{"key": "optional_1", "text": "Call me"}],
            tracking_parameters=[{"key": "utm_source", "value": "x"}],
        )
        await world.keep(form)
        told = {
            "full_name": ["Ann"],
            "email": ["Ann@example.org"],
            "wie_viele_mitarbeiter_haben_sie?": ["mehr_als_5"],
            "which_services_are_you_interested_in?": ["solar", "heat_pump"],
            "utm_source": ["ig"],
        }
        await world.store(
            900000000000001,
            form_id="1234567890",
            field_data=answered(**told),
            custom_disclaimer_responses=[{"checkbox_key": "optional_1", "is_checked": "1"}],
            campaign_name="Autumn",
        )
        await world.sql("update leadgen set created_time = now()")
        statements = [each.strip() for block in blocks for each in block.split(";") if each.strip()]
        for statement in statements:
            code = "\n".join(line for line in statement.splitlines() if not line.startswith("--"))
            found = await world.sql(statement)
            assert found or not code.startswith("select"), statement
        await world.sql("set role analyst; select * from leads_of.form_1234567890; reset role")
        await world.keep(a_form(ask("z"), form_id="1234567890"), now=at(1))
        await world.sql("set role analyst; select z from leads_of.form_1234567890; reset role")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await world.sql("set role analyst; select * from leads")

    try:
        on_rows(scenario)
    finally:
        on_rows(lambda world: world.sql("drop owned by analyst; drop role analyst"))
