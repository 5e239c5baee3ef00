"""Leads from an export file -> rows that were missing, or poorer than the file.

It reads no file. Invariants: a row only gains: what it has stays, an erased row stays erased, and of a row that was
read in full from Graph nothing but its nulls is filled; a row that gains nothing is not touched, so importing again
changes nothing; a lead that Postgres refuses is found by bisection and refused alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, LiteralString, TypeAlias

from psycopg_pool import AsyncConnectionPool

from worker.lead import Lead
from worker.store.lead_rows import LEAD_ROWS, TOLD_BY_FILES, json_of
from worker.store.sql import SECOND
from worker.store.statements import Row, RowsRefused, Statements

OfPage: TypeAlias = tuple[Lead, str]
"""A lead and the id of its Page, which it does not know itself."""

_NAMES: Final = ", ".join((*TOLD_BY_FILES, "field_data", "extra"))

_IN_FULL: Final = "(l.state = 'stored' and not l.in_part)"
# Graph's empty answer is final where it told all of the lead.
_FIELD_DATA: Final = f"(case when {_IN_FULL} then l.field_data else nullif(l.field_data, '[]'::jsonb) end)"


def _extra(new: LiteralString) -> LiteralString:
    """What is in either; where both have a value the row's stays.

    A form's name is kept with the form: it alone is no reason to touch a row that was read in full.
    """
    told = f"case when {_IN_FULL} then nullif({new}.extra - 'form_name', '{{}}'::jsonb) else {new}.extra end"
    return f"coalesce(({told}) || l.extra, {told}, l.extra)"


def _gains(new: LiteralString) -> LiteralString:
    """Whether row `l` would gain something by `new`."""
    filled = " or ".join(f"(l.{column} is null and {new}.{column} is not null)" for column in TOLD_BY_FILES)
    return f"""(l.state <> 'erased' and (l.state <> 'stored' or {filled}
        or ({_FIELD_DATA} is null and nullif({new}.field_data, '[]'::jsonb) is not null)
        or {_extra(new)} is distinct from l.extra))"""


WRITE: Final = f"""
insert into leadgen as l (leadgen_id, state, first_seen_at, last_seen_at, page_id, {_NAMES}, is_test, in_part, cleaned,
    source, stored_at, updated_at)
select leadgen_id, 'stored', %(now)s, %(now)s, r.page_id, {", ".join(f"r.{name}" for name in _NAMES.split(", "))},
    r.is_test, true, r.cleaned, 'import', %(now)s, %(now)s
from {LEAD_ROWS} left join leadgen l using (leadgen_id)
where l.leadgen_id is null or {_gains("r")}
order by leadgen_id
on conflict (leadgen_id) do update set
    state = 'stored',
    reason = case when l.state = 'stored' then l.reason end,
    attempts = case when l.state = 'stored' then l.attempts else 0 end,
    failed_for = case when l.state = 'stored' then l.failed_for end,
    due_at = case when l.state = 'stored' then l.due_at end,
    turn = case when l.state = 'stored' then l.turn else l.turn + 1 end,
    leases = case when l.state = 'stored' then l.leases else 0 end,
    {", ".join(f"{column} = coalesce(l.{column}, excluded.{column})" for column in TOLD_BY_FILES)},
    field_data = coalesce({_FIELD_DATA}, excluded.field_data, l.field_data),
    extra = {_extra("excluded")},
    is_test = l.is_test or excluded.is_test,
    in_part = l.state <> 'stored' or l.in_part,
    cleaned = l.cleaned or excluded.cleaned,
    trail = case when {_IN_FULL} then l.trail else leadsync_trail(l.trail,
        {SECOND} || case when l.state = 'stored' then ' filled' else ' stored' end || ' import') end,
    stored_at = coalesce(l.stored_at, excluded.stored_at),
    updated_at = excluded.updated_at
where {_gains("excluded")}
returning xmax = 0 as is_new
"""
"""Write these leads where there is no row or a poorer one; `is_new` by row written, the others had nothing to gain.

The verdict of a worker that holds a waiting row is void afterwards, unless it brings the lead from Graph. Nothing is
due by it: the listing completes such rows a result page at a time, not at a call each. (xmax is 0 in a row that was
inserted: https://www.postgresql.org/docs/current/ddl-system-columns.html.)
"""

TELL: Final = f"""
select l.leadgen_id is null as is_new
from {LEAD_ROWS} left join leadgen l using (leadgen_id)
where l.leadgen_id is null or {_gains("r")}
"""
"""What WRITE would write."""

PAGES_OF_FORMS: Final = """
select form_id, page_id from forms where form_id = any(%(form_ids)s)
union
select given.form_id, found.page_id
from unnest(%(form_ids)s::text[]) as given (form_id)
cross join lateral (select page_id from leadgen l where l.form_id = given.form_id limit 1) as found
where not exists (select from forms f where f.form_id = given.form_id)
"""
"""The Page of each of these forms: as Meta told it, else as a row of the form has it. The latter reads the table, so
ask once a form."""

PAGES_OF_LEADS: Final = """
select leadgen_id, page_id from leadgen where leadgen_id = any(%(leadgen_ids)s)
"""
"""The Page of each of these rows."""

CREATION: Final = """
select created_time from forms where form_id = %(form_id)s
"""
"""When Meta says that a form was made."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a batch. `refused` has the SQLSTATE by leadgen_id."""

    new: int = 0
    completed: int = 0
    unchanged: int = 0
    refused: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: "Imported") -> "Imported":
        return Imported(
            self.new + other.new,
            self.completed + other.completed,
            self.unchanged + other.unchanged,
            {**self.refused, **other.refused},
        )


class ImportStore:
    """Writes leads of export files. `pool` is open and belongs to this process."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

    async def pages_of_forms(self, form_ids: Sequence[str]) -> dict[str, str]:
        """The Page of each of these forms that is known."""
        found = await self._rows(PAGES_OF_FORMS, {"form_ids": list(form_ids)})
        return {row["form_id"]: row["page_id"] for row in found}

    async def pages_of_leads(self, leadgen_ids: Sequence[str]) -> dict[str, str]:
        """The Page of each of these leads that has a row."""
        found = await self._rows(PAGES_OF_LEADS, {"leadgen_ids": list(leadgen_ids)})
        return {row["leadgen_id"]: row["page_id"] for row in found}

    async def form_created(self, form_id: str) -> datetime | None:
        """When the form was made, where that is known."""
        found = await self._rows(CREATION, {"form_id": form_id})
        created: datetime | None = found[0]["created_time"] if found else None
        return created

    async def write(self, leads: Sequence[OfPage], now: datetime, *, dry_run: bool) -> Imported:
        """One statement for these leads, each of another id; `dry_run` only tells what it would do."""
        try:
            written = await self._rows(
                TELL if dry_run else WRITE, {"rows": json_of([_row(*lead) for lead in leads]), "now": now}
            )
        except RowsRefused as refused:
            if len(leads) == 1:
                return Imported(refused={leads[0][0].leadgen_id: refused.sqlstate})
            middle = len(leads) // 2
            first = await self.write(leads[:middle], now, dry_run=dry_run)
            return first + await self.write(leads[middle:], now, dry_run=dry_run)
        new = sum(row["is_new"] for row in written)
        return Imported(new, len(written) - new, len(leads) - len(written))


def _row(lead: Lead, page_id: str) -> Row:
    """The row of LEAD_ROWS for a lead of a file."""
    return {
        "leadgen_id": lead.leadgen_id,
        "page_id": page_id,
        "form_id": lead.form_id,
        "ad_id": lead.ad_id,
        "ad_name": lead.ad_name,
        "adset_id": lead.adset_id,
        "adset_name": lead.adset_name,
        "campaign_id": lead.campaign_id,
        "campaign_name": lead.campaign_name,
        "created_time": lead.created_time,
        "is_organic": lead.is_organic,
        "platform": lead.platform,
        "field_data": lead.field_data,
        "extra": lead.extra or None,
        "is_test": lead.is_test,
        "cleaned": lead.cleaned,
    }
