"""Sealed tokens on a real Postgres: one a Page and one an account, marked and resealed only while they are the same."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

import pytest
from psycopg_pool import AsyncConnectionPool

from tests.fakes.leads import OTHER_PAGE, PAGE, at
from tests.fakes.time import NOW
from tests.integration.tables import Tables
from worker.errors import StoreUnavailable
from worker.rotation import seal_anew
from worker.sealing import KeyRing, Keys, Sealed, new_key, of_account, of_page
from worker.store.tokens import Account, SealedRow, TokenStore
from worker.tokens import Dropped, GivenTokens, StoredTokens, TokenRow

T = TypeVar("T")
USER = "900000001"
OLD, NEW = new_key(), new_key()
RING, BOTH = KeyRing((OLD,)), KeyRing((NEW, OLD))


@dataclass
class World(Tables):
    """The store under test and a look at its tables beside it."""

    store: TokenStore
    pool: AsyncConnectionPool

    async def keep(
        self, page_id: str, token: str, *, user: str | None = None, ring: KeyRing = RING
    ) -> Sealed:
        sealed = ring.seal(token, of_page(page_id))
        await self.store.keep_page_token(page_id, user, sealed, NOW)
        return sealed

    async def keep_user(self, token: str, user_id: str = USER, **besides: Any) -> Account:
        sealed = RING.seal(token, of_account(user_id))
        account = Account(user_id, "USER", sealed, ("leads_retrieval",), at(60), None)
        await self.store.keep_account(replace(account, **besides), NOW)
        return replace(account, **besides)

    async def refused_at(self, page_id: str) -> datetime | None:
        (row,) = await self.sql("select refused_at from page_tokens where page_id = %s", page_id)
        return row["refused_at"]  # type: ignore[no-any-return]


Run = Callable[[Callable[[World], Awaitable[T]]], T]


@pytest.fixture
def world(database: str) -> Run[Any]:
    """Runs a test's steps with a store on a database of their own."""

    def run(steps: Callable[[World], Awaitable[T]]) -> T:
        async def inside() -> T:
            async with AsyncConnectionPool(database, min_size=1, max_size=4, open=False) as pool:
                return await steps(World(TokenStore(pool), pool))

        return asyncio.run(inside())

    return run


def test_a_page_s_token_comes_back_sealed_as_it_was(world: Run[None]) -> None:
    """What is kept is what was sealed, byte for byte; of a Page without one there is none."""

    async def steps(it: World) -> None:
        sealed = await it.keep(PAGE, "EAAG-secret")
        assert await it.store.page_token(PAGE) == TokenRow(sealed, is_refused=False)
        assert await it.store.page_token(OTHER_PAGE) is None
        assert await it.store.pages_with_tokens() == (PAGE,)

    world(steps)


def test_a_new_token_takes_the_former_one_s_place(world: Run[None]) -> None:
    """Connecting again replaces token, key and account, and nobody is known to refuse the new one."""

    async def steps(it: World) -> None:
        await it.keep_user("user")
        former = await it.keep(PAGE, "former")
        await it.store.mark_page_token(PAGE, former, is_refused=True, now=NOW)
        new = await it.keep(PAGE, "new", user=USER, ring=BOTH)
        assert await it.store.page_token(PAGE) == TokenRow(new, is_refused=False)
        assert (await it.store.account_of_page(PAGE)) is not None

    world(steps)


def test_only_the_very_token_that_was_refused_is_marked(world: Run[None]) -> None:
    """A refusal of the former token, told late, does not spoil the one that has come in its place."""

    async def steps(it: World) -> None:
        former = await it.keep(PAGE, "former")
        new = await it.keep(PAGE, "new")
        await it.store.mark_page_token(PAGE, former, is_refused=True, now=NOW)
        assert await it.refused_at(PAGE) is None
        await it.store.mark_page_token(PAGE, new, is_refused=True, now=at(1))
        await it.store.mark_page_token(PAGE, new, is_refused=True, now=at(9))
        assert await it.refused_at(PAGE) == at(1)
        await it.store.mark_page_token(PAGE, new, is_refused=False, now=at(10))
        assert await it.refused_at(PAGE) is None

    world(steps)


def test_a_token_that_is_dropped_is_gone(world: Run[None]) -> None:
    """And once only."""

    async def steps(it: World) -> None:
        await it.keep(PAGE, "token")
        assert await it.store.drop_page_token(PAGE, NOW) == Dropped(True, ())
        assert await it.store.drop_page_token(PAGE, NOW) == Dropped(False, ())
        assert await it.sql("select * from page_tokens") == []

    world(steps)


def test_an_account_comes_back_as_it_was_kept(world: Run[None]) -> None:
    """By its id, among all, and by the Page whose token was derived from its own."""

    async def steps(it: World) -> None:
        kept = await it.keep_user("user", data_access_expires_at=at(90))
        other = await it.keep_user("other", "900000002", kind="SYSTEM_USER", expires_at=None, scopes=())
        await it.keep(PAGE, "page", user=USER)
        await it.keep(OTHER_PAGE, "page")
        assert await it.store.account(USER) == await it.store.account_of_page(PAGE) == kept
        assert await it.store.accounts() == (kept, other)
        assert await it.store.account_of_page(OTHER_PAGE) is await it.store.account("1") is None

    world(steps)


def test_an_account_s_refusal_is_kept_until_it_connects_again(world: Run[None]) -> None:
    """Its first moment stays."""

    async def steps(it: World) -> None:
        kept = await it.keep_user("user")
        await it.store.mark_account(USER, is_refused=True, now=at(1))
        await it.store.mark_account(USER, is_refused=True, now=at(2))
        assert await it.store.account(USER) == replace(kept, refused_at=at(1))
        again = await it.keep_user("again")
        assert await it.store.account(USER) == again

    world(steps)


def test_an_account_that_a_page_leans_on_stays(world: Run[None]) -> None:
    """Its token is what a dead Page token is derived anew from; it goes with the last Page, in the same statement."""

    async def steps(it: World) -> None:
        await it.keep_user("user")
        await it.keep(PAGE, "page", user=USER)
        await it.keep(OTHER_PAGE, "page", user=USER)
        assert await it.store.drop_page_token(PAGE, NOW) == Dropped(True, ())
        assert await it.store.drop_page_token(OTHER_PAGE, NOW) == Dropped(True, (USER,))
        assert await it.store.accounts() == ()

    world(steps)


def test_an_account_goes_when_its_last_page_is_connected_by_another(world: Run[None]) -> None:
    """Nobody's token is held for longer than a Page leans on it, whenever connecting is interrupted."""

    async def steps(it: World) -> None:
        await it.keep_user("user")
        other = await it.keep_user("other", "900000002")
        await it.keep(PAGE, "page", user=USER)
        await it.keep(OTHER_PAGE, "page", user=USER)
        await it.keep(PAGE, "page", user=other.user_id)
        assert len(await it.store.accounts()) == 2
        await it.keep(OTHER_PAGE, "page", user=other.user_id)
        assert await it.store.accounts() == (other,)
        await it.keep(OTHER_PAGE, "again", user=other.user_id)
        assert await it.store.account_of_page(OTHER_PAGE) == other

    world(steps)


def test_an_account_that_no_page_leans_on_goes_once_it_is_old(world: Run[None]) -> None:
    """One that is young may just be connecting its Pages; a Page's token without an account may need any."""

    async def steps(it: World) -> None:
        await it.keep_user("user")
        await it.keep(OTHER_PAGE, "of nobody known")
        assert await it.store.drop_page_token(PAGE, at(1)) == Dropped(False, ())
        await it.store.drop_page_token(OTHER_PAGE, NOW)
        assert await it.store.drop_page_token(PAGE, NOW) == Dropped(False, ())
        assert await it.store.drop_page_token(PAGE, at(1)) == Dropped(False, (USER,))

    world(steps)


def test_keys_are_counted_by_what_they_seal(world: Run[None]) -> None:
    """Pages and accounts apart."""

    async def steps(it: World) -> None:
        assert await it.store.keys_used() == []
        await it.keep_user("user")
        await it.keep(PAGE, "page")
        await it.keep(OTHER_PAGE, "page", ring=BOTH)
        used = {row["key_id"]: (row["pages"], row["accounts"]) for row in await it.store.keys_used()}
        assert used == {OLD.key_id: (1, 1), NEW.key_id: (1, 0)}

    world(steps)


def test_tokens_under_other_keys_come_in_order_and_once(world: Run[None]) -> None:
    """Accounts first, then Pages; going on behind the last of a batch meets each exactly once, also of equal ids."""

    async def steps(it: World) -> None:
        for n in range(7):
            await it.keep(str(100 + n), "page", ring=BOTH if n == 3 else RING)
        await it.keep_user("user", "102")
        met: list[SealedRow] = []
        while batch := await it.store.sealed_otherwise(NEW.key_id, 3, met[-1] if met else None):
            assert len(batch) <= 3
            met += batch
        ids = [(row.is_page, row.owner_id) for row in met]
        assert ids == [(False, "102"), *((True, str(100 + n)) for n in (0, 1, 2, 4, 5, 6))]

    world(steps)


def test_a_token_is_resealed_only_while_it_is_the_same(world: Run[None]) -> None:
    """What was connected meanwhile stays, a Page's and an account's; a refusal that is known stays known."""

    async def steps(it: World) -> None:
        sealed = await it.keep(PAGE, "page")
        account = await it.keep_user("user")
        await it.store.mark_page_token(PAGE, sealed, is_refused=True, now=at(1))
        for row, whose in (
            (SealedRow(True, PAGE, sealed), of_page(PAGE)),
            (SealedRow(False, USER, account.sealed), of_account(USER)),
        ):
            assert await it.store.reseal(row, BOTH.seal("the same", whose))
            assert not await it.store.reseal(row, BOTH.seal("late", whose))
        assert await it.refused_at(PAGE) == at(1)
        found, user = await it.store.page_token(PAGE), await it.store.account(USER)
        assert found
        assert BOTH.open(found.sealed, of_page(PAGE)) == "the same"
        assert user
        assert BOTH.open(user.sealed, of_account(USER)) == "the same"

    world(steps)


def test_pages_are_connected_while_keys_are_rotated(world: Run[None]) -> None:
    """Of forty Pages written again and again under either key meanwhile, each ends with the token written last."""

    async def steps(it: World) -> None:
        last: dict[str, str] = {}
        done = asyncio.Event()

        async def write() -> None:
            number = 0
            while not done.is_set() or number < 120:
                page_id, number = str(100 + number % 40), number + 1
                last[page_id] = f"token {number}"
                await it.keep(page_id, last[page_id], ring=RING if number % 3 else BOTH)

        for n in range(40):
            await it.keep(str(100 + n), "first")
        writer = asyncio.create_task(write())
        for _ in range(3):
            await seal_anew(it.store, BOTH, lambda _: None)
        done.set()
        await writer
        await seal_anew(it.store, BOTH, lambda _: None)
        for page_id, token in last.items():
            row = await it.store.page_token(page_id)
            assert row is not None
            assert KeyRing((NEW,)).open(row.sealed, of_page(page_id)) == token

    world(steps)


def test_the_database_holds_no_token(world: Run[None]) -> None:
    """Neither as text nor as the bytes of the sealed columns."""

    async def steps(it: World) -> None:
        await it.keep_user("hunter2-user")
        await it.keep(PAGE, "hunter2-page", user=USER)
        for table in ("accounts", "page_tokens"):
            (row,) = await it.sql(f"select t::text as text, sealed from {table} t")
            assert "hunter2" not in row["text"]
            assert b"hunter2" not in bytes(row["sealed"])

    world(steps)


def test_an_absent_postgres_is_told_as_such(free_port: int) -> None:
    """The store's own error, so that nothing is acknowledged and no Page parked; it quotes nothing."""

    async def steps() -> None:
        url = f"postgresql://leadsync:hunter2@127.0.0.1:{free_port}/leadsync"
        async with AsyncConnectionPool(url, min_size=0, max_size=1, open=False, timeout=0.2) as pool:
            tokens = StoredTokens(TokenStore(pool), Keys((OLD,), None), GivenTokens({}, None), lambda: 0.0)
            with pytest.raises(StoreUnavailable) as told:
                await tokens.token_for(PAGE)
            assert "hunter2" not in str(told.value)

    asyncio.run(steps())
