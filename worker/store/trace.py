"""What Postgres knows of one lead, its form, its Page and their reconciliations; it reads only, and no answer.

Invariant: no statement here names a column that holds an answer.
"""

from typing import Final

from psycopg_pool import AsyncConnectionPool

from worker.store.statements import Row, Statements

LEAD: Final = """
select l.leadgen_id, l.state, l.reason, l.attempts, l.failed_for, l.due_at, l.leases, l.first_seen_at, l.last_seen_at,
    l.page_id, l.form_id, l.ad_id, l.created_time, l.is_test, l.in_part, l.cleaned, l.source, l.received_at,
    l.stored_at, l.updated_at, l.announced, l.taken_ms, l.read_ms, l.trail
from leadgen l where l.leadgen_id = %(id)s
"""
"""A lead's row but its answers."""

REPAIRED: Final = """
select was, backfill_id, created_time, repaired_at from repaired where leadgen_id = %(id)s
"""
"""What a reconciliation found of a lead that had not come, and when it brought it."""

ERASURE: Final = """
select e.by_order_of, e.at from leadgen l join erasures e on e.at = l.updated_at
where l.leadgen_id = %(id)s and l.state = 'erased'
order by (e.page_id is not distinct from l.page_id and e.form_id is not distinct from l.form_id) desc limit 1
"""
"""By which kind of order a lead was erased."""

FORM: Final = """
select f.form_id, f.page_id, f.name, f.status, f.watermark, f.reconcile_at, f.deep_at, f.read_from,
    (select max(c.checked_at) from reconciliations c where c.form_id = f.form_id) as compared_at
from forms f where f.form_id = %(form_id)s
"""
"""How far a form is reconciled, and when it is compared next."""

DAY: Final = """
select day, metas, ours, missing, repaired, unexplained, checked_at from reconciliations
where form_id = %(form_id)s and day = (%(created)s::timestamptz at time zone 'UTC')::date
"""
"""What reconciling found of a form on the day of a lead's creation."""

READING: Final = """
select b.backfill_id, b.purpose, b.requested_at from slices s join backfills b using (backfill_id)
where s.edge = 'form' and s.object_id = %(form_id)s and s.state = 'waiting' and b.state = 'running'
order by b.requested_at limit 1
"""
"""A reading of the form's past that is under way."""

PAGE: Final = """
select page_id, parked_at, parked_reason, check_at, held_until, held_reason from pages where page_id = %(page_id)s
"""
"""Whether a Page is parked or held."""

ACTIVE_FORMS: Final = """
select form_id, page_id, name from forms where status = 'ACTIVE' order by page_id, form_id
"""
"""The forms that are known to be active."""


class TraceStore:
    """Reads. `pool` is open and belongs to this process."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

    async def lead(self, leadgen_id: str) -> Row | None:
        """A lead's row."""
        return _first(await self._rows(LEAD, {"id": leadgen_id}))

    async def repaired(self, leadgen_id: str) -> Row | None:
        """That a reconciliation brought it."""
        return _first(await self._rows(REPAIRED, {"id": leadgen_id}))

    async def erasure(self, leadgen_id: str) -> Row | None:
        """By which kind of order it was erased, and when."""
        return _first(await self._rows(ERASURE, {"id": leadgen_id}))

    async def form(self, form_id: str) -> Row | None:
        """How far a form is reconciled; `reading`, where its past is being read."""
        form = _first(await self._rows(FORM, {"form_id": form_id}))
        if form is not None:
            form["reading"] = _first(await self._rows(READING, {"form_id": form_id}))
        return form

    async def day(self, form_id: str, created: object) -> Row | None:
        """What reconciling found of the day in which `created` lies."""
        return _first(await self._rows(DAY, {"form_id": form_id, "created": created}))

    async def page(self, page_id: str) -> Row | None:
        """Whether a Page is parked or held."""
        return _first(await self._rows(PAGE, {"page_id": page_id}))

    async def active_forms(self) -> list[Row]:
        """The forms that are known to be active."""
        return await self._rows(ACTIVE_FORMS, {})


def _first(rows: list[Row]) -> Row | None:
    return rows[0] if rows else None
