"""Connecting a Page and disconnecting it, as a row of table pages.

Tokens are store/tokens.py's, parking and taking up store/leads.py's. Invariant: disconnecting deletes nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from psycopg_pool import AsyncConnectionPool

from worker.connecting import Former
from worker.health import DISCONNECTED
from worker.store.statements import Statements

CONNECT: Final = """
with was as (
    select parked_reason, connected_at from pages where page_id = %(page_id)s
),
put as (
    insert into pages as p (page_id, name, connected_at, check_at, updated_at)
    values (%(page_id)s, nullif(%(name)s, ''), %(now)s, %(now)s, %(now)s)
    on conflict (page_id) do update set name = coalesce(excluded.name, p.name),
        connected_at = case when %(is_new)s then excluded.connected_at
                       else coalesce(p.connected_at, excluded.connected_at) end,
        check_at = excluded.check_at, updated_at = excluded.updated_at
    returning page_id
)
select was.parked_reason, was.connected_at is not null as is_connected from put left join was on true
"""
"""A Page is connected, and its health is looked at soon. Answers what it was before."""

DISCONNECT: Final = """
update pages set parked_reason = %(reason)s, connected_at = null, check_at = null, updated_at = %(now)s
where page_id = %(page_id)s and parked_at is not null
"""
"""A parked Page is disconnected, whatever it was parked for before; its health is not looked at any more."""

NAMES: Final = """
select page_id, coalesce(name, '') as name from pages where page_id = any(%(page_ids)s)
"""
"""Which of these Pages are known, and what they are called."""

PARKED_FOR: Final = """
select coalesce(parked_reason, '') as reason from pages where page_id = %(page_id)s
"""
"""Why a Page is parked; empty where it is not."""


class ConnectionStore:
    """The rows of Pages, for whoever connects them. `pool` is open; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

    async def connect(self, page_id: str, name: str, now: datetime, *, is_new: bool) -> Former:
        """Note that a Page is connected, with another token than before where `is_new`; what it was before."""
        put = {"page_id": page_id, "name": name, "now": now, "is_new": is_new}
        row = (await self._rows(CONNECT, put))[0]
        return Former(row["parked_reason"], bool(row["is_connected"]))

    async def disconnect(self, page_id: str, now: datetime) -> None:
        """Note that a Page that is parked is disconnected."""
        await self._rows(DISCONNECT, {"page_id": page_id, "reason": DISCONNECTED, "now": now})

    async def names(self, page_ids: Sequence[str]) -> dict[str, str]:
        """The names of those of these Pages that are known; empty where it is not told."""
        return {row["page_id"]: row["name"] for row in await self._rows(NAMES, {"page_ids": list(page_ids)})}

    async def parked_for(self, page_id: str) -> str | None:
        """Why a Page is parked; empty where it is not, None where it is not known."""
        rows = await self._rows(PARKED_FOR, {"page_id": page_id})
        return str(rows[0]["reason"]) if rows else None
