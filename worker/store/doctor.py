"""What the doctor asks Postgres: about the server, the rows that are about no one Page, and each Page's rows.

It judges nothing (doctor/ does) and changes nothing. Invariant: each statement leans on an index, or on a table that is
small, so that it may be asked while a million leads lie there; no message names the password.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import psycopg
from psycopg_pool import AsyncConnectionPool

from worker.store.statements import Row, Statements

CONNECT_SECONDS: Final = 5
TABLES: Final = (
    "leadgen", "pages", "forms", "budget_blocks", "backfills", "slices", "findings", "repaired", "reconciliations",
    "accounts", "page_tokens", "page_health", "health_events", "erasures",
)  # fmt: skip
"""Those that workers write; what is not there is the schema's matter."""

SERVER: Final = """
select current_setting('server_version_num')::integer as version,
    pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as is_read_only,
    to_regclass('alembic_version') is not null as has_schema,
    has_schema_privilege(coalesce(current_schema(), 'public'), 'CREATE') as may_create,
    pg_database_size(current_database()) as size,
    current_setting('fsync')::boolean as fsync, current_setting('full_page_writes')::boolean as whole_pages,
    case when pg_has_role('pg_read_all_settings', 'USAGE') then current_setting('data_directory') end as folder,
    inet_server_addr() is null or inet_server_addr() = inet_client_addr() as is_here,
    array(select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where n.nspname = current_schema() and c.relkind in ('r', 'p') and c.relname = any(%(tables)s)
            and not (has_table_privilege(c.oid, 'SELECT') and has_table_privilege(c.oid, 'INSERT')
                and has_table_privilege(c.oid, 'UPDATE') and has_table_privilege(c.oid, 'DELETE'))
          order by c.relname) as lacking
"""
"""The server, and what the role may do there."""

CONNECTIONS: Final = """
with used as (
    select count(*) as all, count(*) filter (where datname = current_database()) as here,
        count(*) filter (where usename = current_user) as ours
    from pg_stat_activity where backend_type = 'client backend'
)
select least(
        most.server - used.all,
        case when d.datconnlimit >= 0 then d.datconnlimit - used.here else most.server end,
        case when r.rolconnlimit >= 0 then r.rolconnlimit - used.ours else most.server end)::integer as left,
    least(most.server, nullif(d.datconnlimit, -1), nullif(r.rolconnlimit, -1))::integer as most
from used, pg_database d, pg_roles r, (
    select current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer as server) as most
where d.datname = current_database() and r.rolname = current_user
"""
"""How many connections there may be, and how many are left; this one counts as used."""

REVISION: Final = """
select version_num from alembic_version
"""
"""How far the schema is."""

KEYS_USED: Final = """
select key_id, count(*) filter (where is_page)::integer as pages,
    count(*) filter (where not is_page)::integer as accounts
from (select key_id, true as is_page from page_tokens union all select key_id, false from accounts) as sealed
group by key_id order by key_id
"""
"""How many tokens each key seals."""

ACCOUNTS: Final = """
select count(*)::integer as accounts, count(refused_at)::integer as refused,
    min(least(expires_at, data_access_expires_at)) filter (where refused_at is null) as ends_at
from accounts
"""
"""The accounts whose tokens connect Pages."""

RECONCILE_DUE: Final = """
select min(coalesce(f.reconcile_at, f.found_at)) as at
from forms f left join pages p using (page_id)
where p.parked_at is null and (p.held_until is null or p.held_until <= %(now)s)
"""
"""When the first form is due to be compared with Meta's listing, but for those of Pages that are parked or held."""

PAGES: Final = """
select p.page_id, p.parked_at, p.parked_reason, p.held_until, p.held_reason,
    coalesce(w.waiting, 0) as waiting, w.waiting_since, w.waiting_for, w.overdue_since,
    d.dead, d.dead_lately, d.dead_of, g.unexplained, g.gap_days
from pages p
    cross join lateral (
        select count(*)::integer as waiting, min(first_seen_at) as waiting_since,
            min(due_at) filter (where due_at <= %(now)s) as overdue_since,
            mode() within group (order by reason) as waiting_for
        from leadgen l where l.page_id = p.page_id and l.due_at is not null and l.state = 'waiting') as w
    cross join lateral (
        select count(*)::integer as dead,
            (count(*) filter (where updated_at > %(now)s::timestamptz - interval '7 days'))::integer as dead_lately,
            mode() within group (order by reason)
                filter (where updated_at > %(now)s::timestamptz - interval '7 days') as dead_of
        from leadgen l where l.page_id = p.page_id and l.state = 'dead') as d
    cross join lateral (
        select coalesce(sum(unexplained), 0)::integer as unexplained, count(distinct day)::integer as gap_days
        from reconciliations r where r.page_id = p.page_id and r.unexplained > 0
          and r.day >= (%(now)s::timestamptz - interval '90 days')::date) as g
where %(page_id)s::text is null or p.page_id = %(page_id)s
order by p.page_id
"""
"""What the rows tell of each Page."""


async def why_away(database_url: str) -> str | None:
    """Why Postgres gives no connection, in fixed words; None where it does."""
    try:
        async with await psycopg.AsyncConnection.connect(database_url, connect_timeout=CONNECT_SECONDS):
            return None
    except psycopg.Error as error:
        text = str(error).lower()
        return next((told for part, told in _WHY.items() if part in text), type(error).__name__)


# libpq gives no SQLSTATE for a connection that fails, and its text may quote the URL.
_WHY: Final = {
    "authentication failed": "it refuses user or password",
    "no pg_hba.conf entry": "it lets nobody in from this machine (pg_hba.conf)",
    "does not exist": "there is no such user or database",
    "too many": "it has no connection left",
    "connection slots": "it has no connection left",
    "starting up": "it is starting up",
    "shutting down": "it is shutting down",
    "refused": "nobody listens there",
    "no such file": "nobody listens there",
    "timeout": "it does not answer",
    "resolve": "the name of its machine is not known",
    "translate host": "the name of its machine is not known",
    'missing "="': "DATABASE_URL cannot be read",
}


class DoctorStore:
    """Asks. `pool` is open; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

    async def server(self) -> Row:
        """Server and privileges, `left` and `most` connections."""
        row = (await self._rows(SERVER, {"tables": list(TABLES)}))[0]
        return row | (await self._rows(CONNECTIONS, {}))[0]

    async def keys_used(self) -> dict[str, tuple[int, int]]:
        """Key id -> how many Pages' and accounts' tokens it seals."""
        return {row["key_id"]: (row["pages"], row["accounts"]) for row in await self._rows(KEYS_USED, {})}

    async def accounts(self) -> Row:
        """`accounts`, how many of them are `refused`, and when the first of the others ends (`ends_at`)."""
        return (await self._rows(ACCOUNTS, {}))[0]

    async def reconcile_due(self, now: datetime) -> datetime | None:
        """When the first form is due to be compared."""
        at: datetime | None = (await self._rows(RECONCILE_DUE, {"now": now}))[0]["at"]
        return at

    async def pages(self, page_id: str | None, now: datetime) -> Sequence[Row]:
        """What the rows tell of all Pages, or of one."""
        return await self._rows(PAGES, {"page_id": page_id, "now": now})

    async def revision(self) -> str | None:
        """How far the schema is; None where there is none. Raises StoreUnavailable where the role may not read it."""
        rows = await self._rows(REVISION, {})
        return rows[0]["version_num"] if rows else None
