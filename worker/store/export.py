"""What was chosen of the stored leads -> their forms, their questions' keys and their rows, all of one moment.

It knows nothing of columns or files (worker/export.py does). Invariant: everything that one snapshot tells is of the
same moment, whatever is stored meanwhile; no more than one batch of rows is held.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import dict_row

from worker.store.statements import Row, Statements

BEGIN: Final = """
set transaction isolation level repeatable read, read only;
set local timezone = 'UTC';
set local cursor_tuple_fraction = 1;
-- The first rows come when a million are sorted, and whoever reads them may stop to think.
set local statement_timeout = '1h';
set local idle_in_transaction_session_timeout = '1h'
"""
"""A look at one moment, by a reader who wants all rows and takes time."""

_CHOSEN: Final = """
(%(forms)s::text[] is null or form_id = any(%(forms)s))
  and (%(pages)s::text[] is null or page_id = any(%(pages)s))
  and (%(since)s::timestamptz is null or created_time >= %(since)s)
  and (%(until)s::timestamptz is null or created_time < %(until)s)
  and (%(tests)s or not is_test)
"""

FORMS: Final = f"""
with chosen as (select form_id, count(*) as leads from leads where {_CHOSEN} group by form_id)
select coalesce(c.form_id, f.form_id) as form_id, coalesce(c.leads, 0) as leads, f.name, f.questions,
    f.tracking_parameters, f.disclaimers
from chosen c full join forms f using (form_id)
where c.leads is not null or form_id = any(%(forms)s)
order by 1
"""
"""The forms that have chosen leads, or that were named, with what is known of them; leads without a form last."""


def _found(column: LiteralString, key: LiteralString) -> LiteralString:
    return f"""
select form_id, key, min(coalesce(created_time, '9999-12-31') + place * interval '1 microsecond') as first
from leads
cross join lateral jsonb_array_elements(
    case jsonb_typeof({column}) when 'array' then {column} else '[null]'::jsonb end) with ordinality as e (entry, place)
cross join lateral (
    select case jsonb_typeof(entry -> '{key}') when 'string' then entry ->> '{key}' end as key) as named
where {column} is not null and {_CHOSEN}
group by 1, 2
order by form_id, first, key
"""


KEYS: Final = _found("field_data", "name")
"""The keys in the chosen leads' field_data, by form, in the order in which they first appear.

A key of null stands for entries of an unknown shape. Meta's times are whole seconds, so the microseconds are free to
tell the place within a lead.
"""

CHECKBOXES: Final = _found("custom_disclaimer_responses", "checkbox_key")
"""The same of the custom disclaimers' checkboxes."""

ROWS: Final = f"""
select leadgen_id, created_time, page_id, form_id, ad_id, ad_name, adset_id, adset_name, campaign_id, campaign_name,
    is_organic, platform, partner_name, retailer_item_id, is_test, in_part, cleaned, source, received_at, stored_at,
    field_data::text, custom_disclaimer_responses::text, extra::text
from leads where {_CHOSEN}
order by form_id, created_time, leadgen_id
"""
"""The chosen leads, whole; JSON as text, so that its numbers stay as Meta wrote them."""

UNKNOWN: Final = """
select 'form' as kind, asked as id from unnest(%(forms)s::text[]) as asked
where not exists (select from forms where form_id = asked) and not exists (select from leadgen where form_id = asked)
union all
select 'page', asked from unnest(%(pages)s::text[]) as asked
where not exists (select from pages where page_id = asked) and not exists (select from forms where page_id = asked)
  and not exists (select from leadgen where page_id = asked)
"""
"""Those of these forms and Pages that nothing here has ever named."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which stored leads: of any of these forms and Pages (none named: of all), `[since, until)` by created_time."""

    forms: Sequence[str] = ()
    pages: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    tests: bool = True


class Snapshot:
    """The chosen leads at one moment. It lives as long as its connection's transaction."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], selection: Selection) -> None:
        self._connection = connection
        self._asked: dict[str, Any] = {
            "forms": list(selection.forms) or None,
            "pages": list(selection.pages) or None,
            "since": selection.since,
            "until": selection.until,
            "tests": selection.tests,
        }

    async def forms(self) -> list[Row]:
        """`form_id`, `leads`, `name` and the definition of each form that matters."""
        return await self._all(FORMS)

    async def keys(self) -> list[Row]:
        """`form_id`, `key` and when it `first` appeared, of each key of field_data."""
        return await self._all(KEYS)

    async def checkboxes(self) -> list[Row]:
        """The same of the custom disclaimers' checkboxes."""
        return await self._all(CHECKBOXES)

    async def unknown(self, forms: Sequence[str]) -> list[Row]:
        """`kind` and `id` of those of `forms`, and of the chosen Pages, that nothing here has ever named."""
        return await self._all(UNKNOWN, forms=list(forms))

    async def rows(self, batch: int) -> AsyncIterator[list[Row]]:
        """The leads, at most `batch` at a time."""
        async with self._connection.cursor("export", row_factory=dict_row) as cursor:
            await cursor.execute(ROWS, self._asked)
            while rows := await cursor.fetchmany(batch):
                yield rows

    async def _all(self, statement: LiteralString, **changed: object) -> list[Row]:
        async with self._connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(statement, {**self._asked, **changed})
            return await cursor.fetchall()


class ExportStore(Statements):
    """Opens snapshots. `pool` is open and belongs to this process."""

    @asynccontextmanager
    async def snapshot(self, selection: Selection) -> AsyncIterator[Snapshot]:
        """The chosen leads at this moment. Raises StoreUnavailable, also while it is read."""
        async with self._connection() as connection, connection.transaction():
            await connection.execute(BEGIN)
            yield Snapshot(connection, selection)
