"""Rows and server settings -> facts about Postgres. It judges nothing and holds no statement (store/doctor.py does)."""

import asyncio
import shutil
from collections.abc import Sequence
from datetime import datetime

from worker.doctor.facts import PageRows, PostgresFacts, RowsFacts
from worker.doctor.findings import Unknown
from worker.errors import StoreUnavailable
from worker.store.doctor import DoctorStore
from worker.store.migrate import head
from worker.store.statements import Row


async def ask_postgres(store: DoctorStore) -> PostgresFacts:
    """About the database. Raises StoreUnavailable."""
    row = await store.server()
    return PostgresFacts(
        version=row["version"],
        is_read_only=row["is_read_only"],
        revision=await _revision(store) if row["has_schema"] else None,
        head=await asyncio.to_thread(head),
        lacking=tuple(row["lacking"]),
        may_create=row["may_create"],
        size=row["size"],
        free=_free(row["folder"], is_here=row["is_here"]),
        connections_left=row["left"],
        connections_most=row["most"],
        fsync=row["fsync"],
        whole_pages=row["whole_pages"],
    )


async def ask_rows(store: DoctorStore, now: datetime) -> RowsFacts:
    """About keys, accounts and reconciling. Raises StoreUnavailable."""
    accounts = await store.accounts()
    return RowsFacts(
        keys_used=await store.keys_used(),
        accounts=accounts["accounts"],
        accounts_refused=accounts["refused"],
        account_ends_at=accounts["ends_at"],
        reconcile_due_at=await store.reconcile_due(now),
    )


async def ask_page_rows(store: DoctorStore, page_id: str | None, now: datetime) -> dict[str, PageRows]:
    """About each Page, or one. Raises StoreUnavailable."""
    return _by_page(await store.pages(page_id, now))


async def _revision(store: DoctorStore) -> str | Unknown | None:
    try:
        return await store.revision()
    except StoreUnavailable:
        return Unknown("the role may not read how far it is, see postgres.privileges")


def _by_page(rows: Sequence[Row]) -> dict[str, PageRows]:
    return {
        row["page_id"]: PageRows(**{name: value for name, value in row.items() if name != "page_id"})
        for row in rows
    }


def _free(folder: str | None, *, is_here: bool) -> int | Unknown:
    """What is left on the disk of Postgres, where that is a disk of this machine."""
    if folder is None:
        return Unknown("the role may not see where the data lie")
    if not is_here:
        return Unknown("Postgres is on another machine")
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return Unknown("the data lie where this command cannot look")
