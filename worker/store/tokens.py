"""Sealed tokens of Pages and accounts -> rows, and back.

It seals and opens nothing (sealing.py does). Invariant: what goes into a statement is sealed, so neither the database
nor its log nor a dump of it holds a token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psycopg_pool import AsyncConnectionPool

from worker.sealing import Sealed
from worker.store.statements import Row, Statements
from worker.tokens import Account as Account
from worker.tokens import Dropped, TokenRow

SEALED_OF_PAGE: Final = """
select key_id, sealed, refused_at is not null as is_refused from page_tokens where page_id = %(page_id)s
"""
"""A Page's sealed token."""

PAGES_WITH_TOKENS: Final = """
select page_id from page_tokens order by page_id
"""
"""Pages of which there is a sealed token."""

KEEP_OF_PAGE: Final = """
with former as (
    select user_id from page_tokens where page_id = %(page_id)s and user_id is distinct from %(user_id)s
),
kept as (
    insert into page_tokens as t (page_id, user_id, key_id, sealed, derived_at)
    values (%(page_id)s, %(user_id)s, %(key_id)s, %(box)s, %(now)s)
    on conflict (page_id) do update set user_id = excluded.user_id, key_id = excluded.key_id, sealed = excluded.sealed,
        refused_at = null, derived_at = excluded.derived_at
)
delete from accounts a using former f where a.user_id = f.user_id
  and not exists (select from page_tokens t where t.user_id = a.user_id and t.page_id <> %(page_id)s)
"""
"""A Page's token, new or instead of the former; and the former account is forgotten, if no other Page leans on it."""

RENEW_OF_PAGE: Final = """
update page_tokens set user_id = %(user_id)s, key_id = %(key_id)s, sealed = %(box)s, refused_at = null,
    derived_at = %(now)s
where page_id = %(page_id)s and sealed = %(was)s returning page_id
"""
"""A Page's token instead of this very one; a Page that was disconnected or connected meanwhile is left alone."""

MARK_OF_PAGE: Final = """
update page_tokens set refused_at = case when %(is_refused)s then coalesce(refused_at, %(now)s) end
where page_id = %(page_id)s and sealed = %(box)s and (refused_at is not null) <> %(is_refused)s
"""
"""Meta refuses this very token, or takes it again."""

DROP_OF_PAGE: Final = """
with token as (
    delete from page_tokens where page_id = %(page_id)s returning user_id
),
account as (
    delete from accounts a
    where not exists (select from page_tokens t where t.user_id = a.user_id and t.page_id <> %(page_id)s)
      and (a.user_id in (select user_id from token)
           or (a.connected_at < %(unused_since)s
               and not exists (select from page_tokens t where t.user_id is null and t.page_id <> %(page_id)s)))
    returning a.user_id
)
select exists (select from token) as is_page_token, array(select user_id from account order by 1) as accounts
"""
"""Forget a Page's token, its account if no other Page leans on it, and older accounts that no Page leans on, unless
there is a Page's token of which nobody knows the account."""

KEEP_ACCOUNT: Final = """
insert into accounts as a (user_id, kind, key_id, sealed, scopes, expires_at, data_access_expires_at, connected_at)
values (%(user_id)s, %(kind)s, %(key_id)s, %(box)s, %(scopes)s, %(expires_at)s, %(data_access_expires_at)s, %(now)s)
on conflict (user_id) do update set kind = excluded.kind, key_id = excluded.key_id, sealed = excluded.sealed,
    scopes = excluded.scopes, expires_at = excluded.expires_at,
    data_access_expires_at = excluded.data_access_expires_at, refused_at = null, connected_at = excluded.connected_at
"""
"""The token of a person or a system user, new or instead of the former."""

ACCOUNT: Final = """
select * from accounts where user_id = %(user_id)s
"""
"""All about one account."""

ACCOUNT_OF_PAGE: Final = """
select a.* from accounts a join page_tokens t using (user_id) where t.page_id = %(page_id)s
"""
"""The account from which a Page's token was derived."""

ACCOUNTS: Final = """
select * from accounts order by user_id
"""
"""All accounts."""

MARK_ACCOUNT: Final = """
update accounts set refused_at = case when %(is_refused)s then coalesce(refused_at, %(now)s) end
where user_id = %(user_id)s and (refused_at is not null) <> %(is_refused)s
"""
"""Meta refuses an account's token, or takes it again."""

KEYS_USED: Final = """
select key_id, count(*) filter (where is_page)::integer as pages,
    count(*) filter (where not is_page)::integer as accounts
from (select key_id, true as is_page from page_tokens union all select key_id, false from accounts) as sealed
group by key_id order by key_id
"""
"""How many tokens each key seals."""

SEALED_OTHERWISE: Final = """
select is_page, id, key_id, sealed
from (select true as is_page, page_id as id, key_id, sealed from page_tokens
      union all select false, user_id, key_id, sealed from accounts) as sealed
where key_id <> %(key_id)s and (is_page, id) > (%(is_page)s, %(id)s)
order by is_page, id limit %(most)s
"""
"""Tokens that another key than this seals, those behind a given one: accounts first, each by its id."""

RESEAL_PAGE: Final = """
update page_tokens set key_id = %(key_id)s, sealed = %(box)s where page_id = %(id)s and sealed = %(was)s
returning page_id
"""
"""The same token under another key, unless it was replaced meanwhile."""

RESEAL_ACCOUNT: Final = """
update accounts set key_id = %(key_id)s, sealed = %(box)s where user_id = %(id)s and sealed = %(was)s
returning user_id
"""
"""The same of an account's."""


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A sealed token in its place: a Page's, or an account's."""

    is_page: bool
    owner_id: str
    sealed: Sealed


class TokenStore:
    """The rows of tokens. `pool` is open and belongs to this process; `now` is the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._rows = Statements(pool).rows

    async def page_token(self, page_id: str) -> TokenRow | None:
        """A Page's sealed token, if there is one."""
        rows = await self._rows(SEALED_OF_PAGE, {"page_id": page_id})
        return TokenRow(_sealed(rows[0]), rows[0]["is_refused"]) if rows else None

    async def pages_with_tokens(self) -> tuple[str, ...]:
        """The Pages of which there is one."""
        return tuple(row["page_id"] for row in await self._rows(PAGES_WITH_TOKENS, {}))

    async def keep_page_token(self, page_id: str, user_id: str | None, sealed: Sealed, now: datetime) -> None:
        """Keep a Page's token, derived from that of account `user_id`; an account that no Page leans on now goes."""
        kept = {
            "page_id": page_id,
            "user_id": user_id,
            "key_id": sealed.key_id,
            "box": sealed.box,
            "now": now,
        }
        await self._rows(KEEP_OF_PAGE, kept)

    async def renew_page_token(
        self, page_id: str, user_id: str, sealed: Sealed, now: datetime, *, instead_of: Sealed
    ) -> bool:
        """Keep a token that was derived anew; false where that of the row is no longer the one it is to replace."""
        kept = {
            "page_id": page_id,
            "user_id": user_id,
            "key_id": sealed.key_id,
            "box": sealed.box,
            "was": instead_of.box,
            "now": now,
        }
        return bool(await self._rows(RENEW_OF_PAGE, kept))

    async def mark_page_token(self, page_id: str, sealed: Sealed, *, is_refused: bool, now: datetime) -> None:
        """Note whether Meta refuses this very token of a Page."""
        marked = {"page_id": page_id, "box": sealed.box, "is_refused": is_refused, "now": now}
        await self._rows(MARK_OF_PAGE, marked)

    async def drop_page_token(self, page_id: str, unused_since: datetime) -> Dropped:
        """Forget a Page's token and its account, unless another Page leans on that one.

        So go accounts that no Page leans on and that were connected before `unused_since`.
        """
        row = (await self._rows(DROP_OF_PAGE, {"page_id": page_id, "unused_since": unused_since}))[0]
        return Dropped(row["is_page_token"], tuple(row["accounts"]))

    async def keep_account(self, account: Account, now: datetime) -> None:
        """Keep the token of a person or a system user."""
        kept = {
            "user_id": account.user_id,
            "kind": account.kind,
            "key_id": account.sealed.key_id,
            "box": account.sealed.box,
            "scopes": list(account.scopes),
            "expires_at": account.expires_at,
            "data_access_expires_at": account.data_access_expires_at,
            "now": now,
        }
        await self._rows(KEEP_ACCOUNT, kept)

    async def account(self, user_id: str) -> Account | None:
        """One account."""
        rows = await self._rows(ACCOUNT, {"user_id": user_id})
        return _account(rows[0]) if rows else None

    async def account_of_page(self, page_id: str) -> Account | None:
        """The account from whose token that of the Page was derived."""
        rows = await self._rows(ACCOUNT_OF_PAGE, {"page_id": page_id})
        return _account(rows[0]) if rows else None

    async def accounts(self) -> tuple[Account, ...]:
        """All accounts."""
        return tuple(map(_account, await self._rows(ACCOUNTS, {})))

    async def mark_account(self, user_id: str, *, is_refused: bool, now: datetime) -> None:
        """Note whether Meta refuses an account's token."""
        await self._rows(MARK_ACCOUNT, {"user_id": user_id, "is_refused": is_refused, "now": now})

    async def keys_used(self) -> list[Row]:
        """`key_id`, `pages`, `accounts`: how many tokens each key seals."""
        return await self._rows(KEYS_USED, {})

    async def sealed_otherwise(
        self, key_id: str, most: int, after: SealedRow | None = None
    ) -> Sequence[SealedRow]:
        """At most `most` tokens that another key than this seals, those behind `after`."""
        begin = (after.is_page, after.owner_id) if after else (False, "")
        asked = {"key_id": key_id, "most": most, "is_page": begin[0], "id": begin[1]}
        rows = await self._rows(SEALED_OTHERWISE, asked)
        return [SealedRow(row["is_page"], row["id"], _sealed(row)) for row in rows]

    async def reseal(self, row: SealedRow, sealed: Sealed) -> bool:
        """Put the same token under another key; false where it was replaced meanwhile."""
        statement = RESEAL_PAGE if row.is_page else RESEAL_ACCOUNT
        put = {"id": row.owner_id, "key_id": sealed.key_id, "box": sealed.box, "was": row.sealed.box}
        return bool(await self._rows(statement, put))


def _sealed(row: Row) -> Sealed:
    return Sealed(row["key_id"], bytes(row["sealed"]))


def _account(row: Row) -> Account:
    return Account(
        row["user_id"],
        row["kind"],
        _sealed(row),
        tuple(row["scopes"]),
        row["expires_at"],
        row["data_access_expires_at"],
        row["refused_at"],
    )
