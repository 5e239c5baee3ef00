"""Forms as Graph tells them -> rows of table forms; a form's definition -> its view in the schema leads_of.

Which forms are asked for is decided elsewhere (worker/forms.py), which columns a view has in questions.py. Invariant:
a null never replaces what is known; `definition_at` moves only when the definition changed; a view that cannot be made
anew stays as it is, and what a person built upon it is never dropped.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
import structlog
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from worker.errors import StoreUnavailable
from worker.form import Form
from worker.questions import LEAD_COLUMNS, Column, Kind, columns
from worker.store.statements import Row, RowsRefused, Statements

log = structlog.get_logger("store")

SCHEMA: Final = "leads_of"
LOCK_TIMEOUT: Final = "2s"
"""Somebody may be reading the view for minutes, and others would queue up behind us."""
# Any fixed number: it names the views of forms among the advisory locks of the database.
_LOCK: Final = 72_031

# What Postgres says of the view, its columns or our rights, and not of the moment: dependent objects, syntax and
# access rules, "not in this state" (a lock), limits, data and duplicates.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_VIEW_CLASSES: Final = ("0A", "22", "23", "2B", "42", "54", "55")

_TOLD: Final = ("name", "questions", "disclaimers", "tracking_parameters")
_CHANGED: Final = " or ".join(
    f"coalesce(excluded.{each}, f.{each}) is distinct from f.{each}" for each in _TOLD
)
# The old value itself where nothing changed, so that it is not written anew.
_SET_DEFINITION: Final = ",\n    ".join(
    f"{each} = coalesce(nullif(excluded.{each}, f.{each}), f.{each})" for each in _TOLD
)

KEEP_FORMS: Final = f"""
with unseen as (
    select form_id from forms where form_id = any(%(form_ids)s) and found_at is null
),
kept as (
    insert into forms as f (form_id, page_id, status, locale, created_time, leads_count, expired_leads_count,
        counted_at, {", ".join(_TOLD)}, definition_at, found_at, listed_at)
    select form_id, %(page_id)s, status, locale, created_time, leads_count, expired_leads_count,
        case when leads_count is not null then %(now)s::timestamptz end, {", ".join(_TOLD)},
        case when num_nonnulls({", ".join(_TOLD)}) > 0 then %(now)s::timestamptz end,
        %(listed_at)s::timestamptz, %(listed_at)s::timestamptz
    from jsonb_to_recordset(%(forms)s::jsonb) as t (
        form_id text, status text, name text, locale text, created_time timestamptz, leads_count bigint,
        expired_leads_count bigint, questions jsonb, disclaimers jsonb, tracking_parameters jsonb)
    order by form_id
    on conflict (form_id) do update set
    page_id = excluded.page_id,
    status = coalesce(excluded.status, f.status),
    locale = coalesce(excluded.locale, f.locale),
    created_time = coalesce(excluded.created_time, f.created_time),
    leads_count = coalesce(excluded.leads_count, f.leads_count),
    expired_leads_count = coalesce(excluded.expired_leads_count, f.expired_leads_count),
    counted_at = coalesce(excluded.counted_at, f.counted_at),
    {_SET_DEFINITION},
    definition_at = case when {_CHANGED} then %(now)s else f.definition_at end,
    view_at = case when {_CHANGED} then null else f.view_at end,
    found_at = coalesce(f.found_at, excluded.found_at),
    listed_at = coalesce(excluded.listed_at, f.listed_at)
    returning form_id, xmax::text = '0' as inserted
)
select form_id from kept
where %(listed_at)s::timestamptz is not null and (inserted or form_id in (select form_id from unseen))
order by form_id
"""
"""What Graph tells of some forms of a Page; answers those that no listing had held before."""

ASKING: Final = """
insert into pages as p (page_id, forms_asked_at, updated_at) values (%(page_id)s, %(now)s, %(now)s)
on conflict (page_id) do update set forms_asked_at = excluded.forms_asked_at
"""
"""Graph is being asked for a Page's forms, whatever comes of it."""

LISTED_WHOLE: Final = """
update pages set forms_listed_at = %(began)s where page_id = %(page_id)s
"""
"""A listing of the Page's forms that began then was read to its end."""

DUE_PAGES: Final = """
with recursive form (form_id) as (
    (select form_id from leadgen where form_id is not null order by form_id limit 1)
    union all
    select (select l.form_id from leadgen l where l.form_id > form.form_id order by l.form_id limit 1)
    from form where form.form_id is not null
),
unseen as (
    select news.page_id, max(news.seen_at) as seen_at
    from form cross join lateral (
        select page_id, max(first_seen_at) as seen_at from (
            select page_id, first_seen_at from leadgen where form_id = form.form_id
            order by created_time desc limit %(newest)s) as newest
        group by page_id) as news
    where form.form_id is not null and not exists (select from forms where forms.form_id = form.form_id)
    group by news.page_id
),
due as (
    select page_id, forms_asked_at from pages where parked_at is null and coalesce(forms_asked_at < %(before)s, true)
    union
    select u.page_id, p.forms_asked_at from unseen u left join pages p using (page_id)
    where p.parked_at is null and coalesce(p.forms_asked_at < %(unseen_before)s, true)
      and u.seen_at > coalesce(p.forms_listed_at, '-infinity')
)
select page_id from due order by forms_asked_at nulls first, page_id limit %(most)s
"""
"""Pages, none of them parked, whose forms are due to be listed: asked for long ago, or a lead names a form that no
listing since has held."""

FORM: Final = """
select * from forms where form_id = %(form_id)s
"""
"""All that is known of one form."""

FORMS_OF: Final = """
select * from forms where page_id = %(page_id)s order by form_id
"""
"""All that is known of a Page's forms."""

STALE_VIEWS: Final = """
select form_id from forms f
where page_id = %(page_id)s and questions is not null and (view_at is null or not exists (
    select from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'leads_of' and c.relname = 'form_' || f.form_id))
order by form_id
"""
"""Forms of a Page whose view shows another definition, or is not there."""

_DEFINITION: Final = """
select name, questions, tracking_parameters, disclaimers, definition_at from forms
where form_id = %(form_id)s and questions is not null
"""
_VIEW_MADE: Final = """
update forms set view_at = %(now)s
where form_id = %(form_id)s and definition_at is not distinct from %(definition_at)s
"""
_GRANTS: Final = """
select case grantee when 0 then null else grantee::regrole::text end as role, privilege_type, is_grantable
from pg_catalog.pg_class c, aclexplode(c.relacl)
where c.oid = pg_catalog.to_regclass(%(view)s) and grantee <> c.relowner
"""
NEWEST: Final = 20
"""Leads of an unknown form at which it is looked to see whether there is news of it."""


@dataclass(frozen=True, slots=True)
class View:
    """A form's view: what it is called, what it shows and what stands beside each column."""

    form_id: str
    form: str | None
    columns: tuple[Column, ...]

    @property
    def name(self) -> sql.Identifier:
        return sql.Identifier(SCHEMA, f"form_{self.form_id}")


class FormStore:
    """The forms' rows and views. `pool` is open and belongs to this process; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool
        self._rows = Statements(pool).rows

    async def asking(self, page_id: str, now: datetime) -> None:
        """Graph is being asked for this Page's forms."""
        await self._rows(ASKING, {"page_id": page_id, "now": now})

    async def keep_forms(
        self, page_id: str, forms: Sequence[Form], now: datetime, *, listed: bool = True
    ) -> tuple[str, ...]:
        """Note what Graph tells of these forms; the ids of those that no listing had held before.

        `listed`: they stood in the Page's listing. A form that Postgres refuses is passed over, alone.
        """
        told = {form.form_id: _row(form) for form in forms}
        kept = {
            "page_id": page_id,
            "form_ids": list(told),
            "forms": json.dumps(list(told.values()), ensure_ascii=False),
            "now": now,
            "listed_at": now if listed else None,
        }
        try:
            return tuple(row["form_id"] for row in await self._rows(KEEP_FORMS, kept))
        except RowsRefused as refused:
            if len(forms) == 1:
                log.error(
                    "form_refused", form_id=forms[0].form_id, page_id=page_id, sqlstate=refused.sqlstate
                )
                return ()
        middle = len(forms) // 2
        first = await self.keep_forms(page_id, forms[:middle], now, listed=listed)
        return first + await self.keep_forms(page_id, forms[middle:], now, listed=listed)

    async def listed_whole(self, page_id: str, began: datetime) -> None:
        """A listing of the Page's forms that began then was read to its end."""
        await self._rows(LISTED_WHOLE, {"page_id": page_id, "began": began})

    async def due_pages(self, *, before: datetime, unseen_before: datetime, most: int) -> tuple[str, ...]:
        """Pages not asked since `before`; not since `unseen_before`, where a lead names a form we have not seen."""
        asked = {"before": before, "unseen_before": unseen_before, "most": most, "newest": NEWEST}
        return tuple(row["page_id"] for row in await self._rows(DUE_PAGES, asked))

    async def form(self, form_id: str) -> Row | None:
        """All that is known of a form."""
        rows = await self._rows(FORM, {"form_id": form_id})
        return rows[0] if rows else None

    async def forms_of(self, page_id: str) -> list[Row]:
        """All that is known of a Page's forms."""
        return await self._rows(FORMS_OF, {"page_id": page_id})

    async def stale_views(self, page_id: str) -> tuple[str, ...]:
        """Forms of the Page whose view is not that of their definition, or is not there."""
        return tuple(row["form_id"] for row in await self._rows(STALE_VIEWS, {"page_id": page_id}))

    async def refresh_views(self, form_ids: Sequence[str], now: datetime) -> tuple[str, ...]:
        """Make the views of these forms anew; the ids of those that were made. A form without questions has none."""
        return tuple([form_id for form_id in form_ids if await self._refresh_view(form_id, now)])

    async def _refresh_view(self, form_id: str, now: datetime) -> bool:
        try:
            async with self._pool.connection() as connection, connection.transaction():
                return await _make_view(connection, form_id, now)
        except psycopg.Error as error:
            sqlstate = error.sqlstate or ""
            if sqlstate[:2] not in _VIEW_CLASSES:
                told = f"Postgres cannot make a view now: {type(error).__name__} {sqlstate}"
                raise StoreUnavailable(told) from None
            log.warning("form_view_kept", form_id=form_id, sqlstate=sqlstate)
            return False
        except PoolTimeout:
            raise StoreUnavailable("Postgres gives no connection") from None


async def _make_view(connection: "psycopg.AsyncConnection[Any]", form_id: str, now: datetime) -> bool:
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(sql.SQL("set local lock_timeout = {}").format(LOCK_TIMEOUT))
    await cursor.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, form_id))
    about = await (await cursor.execute(_DEFINITION, {"form_id": form_id})).fetchone()
    if about is None:
        return False
    asked = columns(about["questions"], about["tracking_parameters"], about["disclaimers"])
    view = View(form_id, about["name"], asked)
    try:
        # Keeps whatever was built upon the view, and works where columns were only added at its end.
        async with connection.transaction():
            await _create_schema(cursor)
            await cursor.execute(_create(view))
    except psycopg.errors.InvalidTableDefinition:
        await _drop_and_create(cursor, view)
    await cursor.execute(_comments(view))
    await cursor.execute(
        _VIEW_MADE, {"form_id": form_id, "definition_at": about["definition_at"], "now": now}
    )
    return True


async def _create_schema(cursor: "psycopg.AsyncCursor[Any]") -> None:
    # `if not exists` alone asks for the right to create one even where there is one.
    await cursor.execute("select from pg_catalog.pg_namespace where nspname = %s", (SCHEMA,))
    if await cursor.fetchone() is None:
        await cursor.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(SCHEMA)))


async def _drop_and_create(cursor: "psycopg.AsyncCursor[Any]", view: View) -> None:
    """Who may read the view may read the new one."""
    await cursor.execute(_GRANTS, {"view": f"{SCHEMA}.form_{view.form_id}"})
    grants = await cursor.fetchall()
    await cursor.execute(sql.SQL("drop view {}").format(view.name))
    await cursor.execute(_create(view))
    for grant in grants:
        # The role is quoted as need be by regrole; the privilege is one of Postgres' own words.
        to = sql.SQL(grant["role"] or "public") + sql.SQL(
            " with grant option" if grant["is_grantable"] else ""
        )
        await cursor.execute(
            sql.SQL("grant {} on {} to {}").format(sql.SQL(grant["privilege_type"]), view.name, to)
        )


def _create(view: View) -> sql.Composed:
    shown = [sql.Identifier(name) for name in LEAD_COLUMNS]
    return sql.SQL("create or replace view {} as select {} from leads where form_id = {}").format(
        view.name, sql.SQL(", ").join([*shown, *map(_shown, view.columns)]), sql.Literal(view.form_id)
    )


def _shown(column: Column) -> sql.Composed:
    name, key = sql.Identifier(column.name), sql.Literal(column.key)
    if column.kind is Kind.DISCLAIMER:
        return sql.SQL("leadsync_ticked(custom_disclaimer_responses, {}) as {}").format(key, name)
    if not column.options:
        return sql.SQL("leadsync_answer(field_data, {}) as {}").format(key, name)
    options = json.dumps([{"key": k, "value": label} for k, label in column.options], ensure_ascii=False)
    return sql.SQL("leadsync_answer(field_data, {}, {}::jsonb) as {}").format(key, sql.Literal(options), name)


def _comments(view: View) -> sql.Composed:
    on_view = sql.SQL("comment on view {} is {}").format(view.name, sql.Literal(view.form))
    on_columns = [
        sql.SQL("comment on column {}.{} is {}").format(
            view.name, sql.Identifier(column.name), sql.Literal(column.label)
        )
        for column in view.columns
    ]
    return sql.SQL(";\n").join([on_view, *on_columns])


def _row(form: Form) -> Row:
    return {
        "form_id": form.form_id,
        "status": form.status,
        "name": form.name,
        "locale": form.locale,
        "created_time": form.created_time.isoformat() if form.created_time else None,
        "leads_count": form.leads_count,
        "expired_leads_count": form.expired_leads_count,
        "questions": form.questions,
        "disclaimers": form.disclaimers,
        "tracking_parameters": form.tracking_parameters,
    }
