"""Orders to forget people -> rows without content that stay erased, and lines that tell of it without personal data.

It decides nothing (forgetting.py does). Invariants: an erased row keeps ids and times and nothing that a person said
or that an ad is named; what erases a batch and what tells of it are one statement; rows are locked in the order of
leadgen_id and no lock outlives a batch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, LiteralString

from psycopg_pool import AsyncConnectionPool

from worker.conditions import PHONE_MARKS, Needle
from worker.store.statements import Row, Statements

BY_ORDER: Final = "by_order"
BY_RETENTION: Final = "by_retention"
"""Why a row is erased, its `reason`. An order goes before retention: it is kept outside of the database as well."""
UNKNOWN_PAGE: Final = "unknown"
"""page_id of an erased row whose Page nobody knows: the order came before the lead."""

_CLEARED: Final[Mapping[str, LiteralString]] = {
    "attempts": "0",
    "failed_for": "null",
    "due_at": "null",
    "turn": "l.turn + 1",
    "leases": "0",
    "ad_id": "null",
    "ad_name": "null",
    "adset_id": "null",
    "adset_name": "null",
    "campaign_id": "null",
    "campaign_name": "null",
    "is_organic": "null",
    "platform": "null",
    "partner_name": "null",
    "retailer_item_id": "null",
    "field_data": "null",
    "custom_disclaimer_responses": "null",
    "extra": "null",
    "is_test": "false",
    "in_part": "false",
    "cleaned": "false",
    "taken_ms": "null",
    "read_ms": "null",
    "trail": "null",
}
_SET_CLEARED: Final = ", ".join(f"{column} = {value}" for column, value in _CLEARED.items())

ERASE: Final = f"""
with asked as (
    select leadgen_id, page_id from unnest(%(ids)s::text[], %(page_ids)s::text[]) as a (leadgen_id, page_id)
),
prior as (
    select l.leadgen_id, l.state, l.page_id from leadgen l where l.leadgen_id = any(%(ids)s)
),
written as (
    insert into leadgen as l (leadgen_id, state, reason, first_seen_at, last_seen_at, page_id, source, updated_at)
    select a.leadgen_id, 'erased', %(reason)s, %(now)s, %(now)s, coalesce(a.page_id, '{UNKNOWN_PAGE}'), 'forget',
        %(now)s
    from asked a order by a.leadgen_id
    on conflict (leadgen_id) do update set state = 'erased', reason = excluded.reason, {_SET_CLEARED},
        updated_at = excluded.updated_at
    where l.state <> 'erased' or (excluded.reason = '{BY_ORDER}' and l.reason is distinct from '{BY_ORDER}')
    returning l.leadgen_id, l.page_id, l.form_id
),
told as (
    insert into erasures (at, by_order_of, question, page_id, form_id, leads, took_from)
    select %(now)s, %(by_order_of)s, %(question)s, w.page_id, w.form_id, count(*), jsonb_strip_nulls(jsonb_build_object(
        'stored', nullif(count(*) filter (where p.state = 'stored'), 0),
        'waiting', nullif(count(*) filter (where p.state = 'waiting'), 0),
        'dead', nullif(count(*) filter (where p.state = 'dead'), 0),
        'nothing', nullif(count(*) filter (where p.state is null), 0)))
    from written w left join prior p using (leadgen_id)
    where p.state is distinct from 'erased'
    group by w.page_id, w.form_id order by w.page_id, w.form_id
)
select a.leadgen_id, coalesce(w.page_id, p.page_id) as page_id,
    case when w.leadgen_id is null then 'erased' else coalesce(p.state, 'nothing') end as was
from asked a left join written w using (leadgen_id) left join prior p using (leadgen_id)
"""
"""Erase these rows, start erased ones where there are none, and tell of it by Page and form; what each was before.

The verdict of whoever holds a row is void afterwards, and nothing is due. Whatever inserts a row at the same time is
waited for and erased.
"""

TELL: Final = """
insert into erasures (at, by_order_of, question, leads, took_from)
values (%(now)s, %(by_order_of)s, %(question)s, 0, %(took_from)s::jsonb)
"""
"""Something was taken from elsewhere than the rows."""

SPAN: Final = f"""
with span as materialized (
    select leadgen_id, page_id, form_id, coalesce(created_time, stored_at, first_seen_at) as since,
        case when %(since)s::text is null or age(xmin) <= age(%(since)s::text::xid) then field_data::text end as told
    from leadgen where leadgen_id > %(after)s order by leadgen_id limit %(most)s
)
select edge.last, edge.looked_at, found.leadgen_id, found.page_id, found.form_id, found.since, found.told
from (select max(leadgen_id) as last, count(*) as looked_at from span) as edge
left join (
    select * from span
    where octet_length(told) <> length(told) or position(%(needle)s in case
        when %(is_phone)s then translate(told, '{PHONE_MARKS}', '') else lower(told collate "C") end) > 0
) as found on true
"""
"""The next rows by id: those that may match, with their answers, and how far that was.

`since` leaves those that were last written before that mark; a clock would be that of whoever wrote.
In a Turkish database lower('I') is no i, hence the collation; rows with letters beyond ASCII are always looked at.
"""

MARK: Final = """
select pg_snapshot_xmin(pg_current_snapshot())::xid::text as mark
"""
"""The oldest transaction that may still write: what is written from now on is of this one or a later one."""

ABOUT: Final = """
select greatest(reltuples, 0)::bigint as rows from pg_class where oid = 'leadgen'::regclass
"""
"""About how many rows there are."""

UNREAD: Final = """
select count(*) as waiting from leadgen where due_at is not null and state = 'waiting'
"""
"""References whose answers are not known yet."""

ERASED_AMONG: Final = """
select leadgen_id from leadgen where leadgen_id = any(%(ids)s) and state = 'erased'
"""
"""Which of these are erased, by whatever order."""

COUNT_ORDERED: Final = f"""
select count(*) as ordered from leadgen where state = 'erased' and reason = '{BY_ORDER}'
"""
"""How many rows are erased by order."""

ORDERED: Final = f"""
select leadgen_id, page_id from leadgen
where state = 'erased' and reason = '{BY_ORDER}' and leadgen_id > %(after)s
order by leadgen_id limit %(most)s
"""
"""The next of them by id."""

ORDERED_AMONG: Final = f"""
select leadgen_id from leadgen
where leadgen_id = any(%(ids)s) and state = 'erased' and reason = '{BY_ORDER}'
"""
"""Which of these are erased by order."""

RETAINING: Final = """
select p.page_id, least(p.retention_days, min(f.retention_days)) as fewest
from (select page_id, retention_days from pages
      union select page_id, null from forms where retention_days is not null
          and page_id not in (select page_id from pages)) as p
left join forms f using (page_id)
group by p.page_id, p.retention_days
having least(p.retention_days, min(f.retention_days)) is not null
order by p.page_id
"""
"""Pages of which something is erased in time, and after how many days at the soonest."""

OVERDUE: Final = """
with span as materialized (
    select leadgen_id, created_time, form_id, state from leadgen
    where page_id = %(page_id)s and created_time < %(now)s::timestamptz - make_interval(days => %(fewest)s)
      and state <> 'erased'
      and (created_time, leadgen_id) > (%(after)s::timestamptz, %(after_id)s::text)
    order by created_time, leadgen_id limit %(most)s
),
edge as (select leadgen_id, created_time from span order by created_time desc, leadgen_id desc limit 1)
select edge.leadgen_id as last_id, edge.created_time as last_time, due.leadgen_id, due.created_time
from edge left join (
    select span.* from span left join forms f using (form_id) left join pages p on p.page_id = %(page_id)s
    where span.state in ('stored', 'dead')
      and span.created_time < %(now)s::timestamptz - make_interval(days => coalesce(f.retention_days, p.retention_days))
) as due on true
order by due.created_time, due.leadgen_id
"""
"""Of the next of a Page's rows, the oldest first, those that are older than what was set for their form, else for their
Page; and how far that was. What its form keeps longer is looked at too: there may be millions. What is erased
already does not stand in the index by creation, or each look would read again all that was ever erased."""

OVERDUE_UNDATED: Final = """
select l.leadgen_id, l.created_time
from leadgen l left join forms f on f.form_id = l.form_id left join pages p on p.page_id = l.page_id
where l.page_id = %(page_id)s and l.created_time is null and l.state in ('stored', 'dead')
  and coalesce(l.stored_at, l.first_seen_at)
      < %(now)s::timestamptz - make_interval(days => coalesce(f.retention_days, p.retention_days))
order by l.leadgen_id limit %(most)s
"""
"""The same of those whose creation nobody told."""

CLOCK: Final = """
select clock_timestamp() as now
"""
"""What time it is there."""

RETENTION: Final = """
select 'page' as what, page_id as id, page_id, name, retention_days as days from pages where retention_days is not null
union all
select 'form', form_id, page_id, name, retention_days from forms where retention_days is not null
order by page_id, what desc, id
"""
"""What is erased in time."""

SET_OF_PAGE: Final = """
insert into pages as p (page_id, retention_days, updated_at)
select %(id)s, %(days)s, %(now)s
where exists (select from pages where page_id = %(id)s) or exists (select from forms where page_id = %(id)s)
   or exists (select from leadgen where page_id = %(id)s)
   or exists (select from page_tokens where page_id = %(id)s)
on conflict (page_id) do update set retention_days = excluded.retention_days
returning p.page_id as id
"""
"""How long answers of a Page's leads are kept. A Page of which nothing is here would be a mistyped one."""

SET_OF_FORM: Final = """
update forms set retention_days = %(days)s where form_id = %(id)s returning form_id as id
"""
"""The same of a form that is known here."""

FIRST: Final = datetime(1000, 1, 1, tzinfo=UTC)
"""Before any lead."""


@dataclass(frozen=True, slots=True)
class Erased:
    """One id of an order, its Page, and what was there of it: stored, waiting, dead, nothing, or erased already."""

    leadgen_id: str
    page_id: str
    was: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may match; `told` is its field_data as JSON text, `since` when it was created, as far as known."""

    leadgen_id: str
    page_id: str
    form_id: str | None
    since: datetime
    told: str


@dataclass(frozen=True, slots=True)
class Overdue:
    """A lead that was kept long enough."""

    leadgen_id: str
    created_time: datetime | None


class ErasureStore:
    """The erased rows. `pool` is open and belongs to this process; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._statements = Statements(pool)
        self._rows = self._statements.rows

    async def erase(
        self, asked: Mapping[str, str | None], by_order_of: str, question: str | None, now: datetime
    ) -> list[Erased]:
        """Erase these ids (with their Page, where the caller knows it) in one transaction. Safe to repeat.

        `by_order_of` is id, answer, retention or restore; `question` the key by which they were found.
        """
        ids = sorted(asked)
        rows = await self._rows(
            ERASE,
            {
                "ids": ids,
                "page_ids": [asked[leadgen_id] for leadgen_id in ids],
                "reason": BY_RETENTION if by_order_of == "retention" else BY_ORDER,
                "by_order_of": by_order_of,
                "question": question,
                "now": now,
            },
        )
        return [Erased(row["leadgen_id"], row["page_id"], row["was"]) for row in rows]

    async def tell(
        self, by_order_of: str, question: str | None, took_from: Mapping[str, int], now: datetime
    ) -> None:
        """Note what was taken from elsewhere."""
        told = {
            "by_order_of": by_order_of,
            "question": question,
            "took_from": json.dumps(took_from),
            "now": now,
        }
        await self._rows(TELL, told)

    async def mark(self) -> str:
        """Now, in the order in which Postgres' transactions write."""
        return str((await self._rows(MARK, {}))[0]["mark"])

    async def span(
        self, needle: Needle, after: str, most: int, since: str | None = None
    ) -> tuple[Sequence[Candidate], str | None, int]:
        """Those of the next `most` rows after an id that may match; the last id, and how many were looked at.

        `since`: only those that were written since that mark.
        """
        asked = {
            "needle": needle.text,
            "is_phone": needle.is_phone,
            "after": after,
            "most": most,
            "since": since,
        }
        rows = await self._rows(SPAN, asked)
        found = [
            Candidate(row["leadgen_id"], row["page_id"], row["form_id"], row["since"], row["told"])
            for row in rows
            if row["leadgen_id"] is not None
        ]
        return found, rows[0]["last"], rows[0]["looked_at"]

    async def about(self) -> int:
        """About how many rows there are."""
        return int((await self._rows(ABOUT, {}))[0]["rows"])

    async def unread(self) -> int:
        """References that wait, whose answers are not known yet."""
        return int((await self._rows(UNREAD, {}))[0]["waiting"])

    async def erased_among(self, leadgen_ids: Sequence[str]) -> frozenset[str]:
        """Which of these are erased."""
        rows = await self._rows(ERASED_AMONG, {"ids": list(leadgen_ids)})
        return frozenset(row["leadgen_id"] for row in rows)

    async def count_ordered(self) -> int:
        """How many are erased by order."""
        return int((await self._rows(COUNT_ORDERED, {}))[0]["ordered"])

    async def ordered(self, after: str, most: int) -> dict[str, str]:
        """The Page by id of the next `most` of them."""
        rows = await self._rows(ORDERED, {"after": after, "most": most})
        return {row["leadgen_id"]: row["page_id"] for row in rows}

    async def ordered_among(self, leadgen_ids: Sequence[str]) -> frozenset[str]:
        """Which of these are erased by order."""
        rows = await self._rows(ORDERED_AMONG, {"ids": list(leadgen_ids)})
        return frozenset(row["leadgen_id"] for row in rows)

    async def retaining(self) -> dict[str, int]:
        """Days after which something of a Page is erased, at the soonest, by Page."""
        return {row["page_id"]: row["fewest"] for row in await self._rows(RETAINING, {})}

    async def overdue(
        self, page_id: str, fewest: int, after: Overdue | None, now: datetime, most: int
    ) -> tuple[list[Overdue], Overdue | None]:
        """Those of a Page's next `most` rows, the oldest first, that were kept long enough, and the last of these rows.

        `after`: the last one of those before; None for the first ones, and answered where there are no more.
        """
        asked = {
            "page_id": page_id,
            "fewest": fewest,
            "after": after.created_time if after else FIRST,
            "after_id": after.leadgen_id if after else "",
            "now": now,
            "most": most,
        }
        rows = await self._rows(OVERDUE, asked)
        due = [
            Overdue(row["leadgen_id"], row["created_time"]) for row in rows if row["leadgen_id"] is not None
        ]
        return due, Overdue(rows[0]["last_id"], rows[0]["last_time"]) if rows else None

    async def overdue_undated(self, page_id: str, now: datetime, most: int) -> list[Overdue]:
        """The same of those whose creation is not known: by when they came."""
        asked = {"page_id": page_id, "now": now, "most": most}
        return [Overdue(**row) for row in await self._rows(OVERDUE_UNDATED, asked)]

    async def clock(self) -> datetime:
        """Postgres' own clock."""
        now: datetime = (await self._rows(CLOCK, {}))[0]["now"]
        return now

    async def retention(self) -> list[Row]:
        """`what` (page or form), `id`, `page_id`, `name` and `days` of all that was set."""
        return await self._rows(RETENTION, {})

    async def set_retention(self, what: str, object_id: str, days: int | None, now: datetime) -> bool:
        """Keep a Page's or a form's answers so long (None: for ever); false where it is not known."""
        statement = SET_OF_PAGE if what == "page" else SET_OF_FORM
        return bool(await self._rows(statement, {"id": object_id, "days": days, "now": now}))

    async def vacuum(self) -> None:
        """Let Postgres take away what erased rows were before, and what it sampled of them; it waits for nobody and
        blocks nobody.
        """
        await self._statements.alone("vacuum (analyze) leadgen")
