"""A Page's token -> calls under it, with the token derived anew from the Page's account where Meta refuses it.

    Page -> its token -> calls -> refused? another that is kept -> else derived, sealed, kept -> calls

It asks nothing of its own but for the token and judges nothing (probing.py and health.py do). Invariants: every call
under a Page's token is granted in the lane of upkeep; a token that is derived anew is kept sealed before anybody uses
it, and only where that which it replaces is still kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, TypeVar

import structlog

from worker.calls import Calls, Read
from worker.errors import (
    LeadSyncError,
    LedgerUnavailable,
    NotVisibleYet,
    PermissionRefused,
    ProofRefused,
    RequestRefused,
    StoreUnavailable,
    TokenRefused,
    Transient,
)
from worker.graph.account import Caller, page_request, read_account
from worker.graph.wire import GraphRequest, read_object
from worker.sealing import Keys, Sealed, of_account, of_page
from worker.tokens import PageTokens, TokenRow

log = structlog.get_logger("health")

ACCOUNTS_TRIED: Final = 3
"""Where it is not known from whose token that of the Page was derived."""

REFUSED_OTHERWISE: Final = (PermissionRefused, NotVisibleYet, RequestRefused)
"""Answers that refuse something, and by which the token is known to be good."""

T = TypeVar("T")


class Account(Protocol):
    """Whose token a Page's may be derived from."""

    @property
    def user_id(self) -> str: ...
    @property
    def sealed(self) -> Sealed: ...


class TokenRows(Protocol):
    """What this file needs of the rows of tokens."""

    async def page_token(self, page_id: str) -> TokenRow | None: ...
    async def renew_page_token(
        self, page_id: str, user_id: str, sealed: Sealed, now: datetime, *, instead_of: Sealed
    ) -> bool: ...
    async def mark_page_token(
        self, page_id: str, sealed: Sealed, *, is_refused: bool, now: datetime
    ) -> None: ...
    async def account_of_page(self, page_id: str) -> Account | None: ...
    async def accounts(self) -> Sequence[Account]: ...
    async def mark_account(self, user_id: str, *, is_refused: bool, now: datetime) -> None: ...


class TokenMissing(TokenRefused):
    """There is no token of the Page at all."""

    reason = "token_missing"

    @classmethod
    def told_apart(cls, error: TokenRefused) -> TokenRefused:
        """The error itself, unless it says only that there is no token."""
        return cls(str(error)) if error.reason == TokenRefused.reason else error


@dataclass(slots=True)
class Talk:
    """One talk with Graph in a Page's name: the token it uses, and how that fared.

    `refusal`: why no call is made any more, `trouble`: why none could be; `answered`: some call was; `sealed`: the
    row that the token comes from, None where it comes from the settings.
    """

    page_id: str
    token: str = field(default="", repr=False)
    sealed: Sealed | None = None
    refusal: LeadSyncError | None = None
    trouble: LeadSyncError | None = None
    renewals: int = 0
    account_refused: bool = False
    answered: bool = False


class PageCalls:
    """Talks with Graph. `clock` gives aware UTC. Its methods raise where Redis or Postgres is away."""

    def __init__(
        self,
        *,
        calls: Calls,
        caller: Caller,
        tokens: PageTokens,
        token_rows: TokenRows,
        keys: Keys,
        clock: Callable[[], datetime],
    ) -> None:
        self._calls = calls
        self._caller = caller
        self._tokens = tokens
        self._token_rows = token_rows
        self._keys = keys
        self._clock = clock

    async def begin(self, page_id: str) -> Talk:
        """A talk under the Page's token, or under one that is derived now; it says where there is none."""
        talk = Talk(page_id)
        try:
            talk.token = await self._tokens.token_for(page_id)
            await self._find_seal(talk)
        except TokenRefused as error:
            if not await self._derive(talk):
                talk.refusal = TokenMissing.told_apart(error)
        except StoreUnavailable:
            raise
        except LeadSyncError as error:
            talk.trouble = error
        return talk

    async def ask(
        self, talk: Talk, build: Callable[[str], GraphRequest], read: "Read[T]"
    ) -> "T | LeadSyncError":
        """What Graph answers to the request that `build` makes with a token, or why it does not."""
        while True:
            stopped = talk.refusal or talk.trouble
            if stopped is not None:
                return stopped
            try:
                told = await self._calls.of_page(talk.page_id, build(talk.token), read)
            except (LedgerUnavailable, StoreUnavailable):
                raise
            except (TokenRefused, ProofRefused) as error:
                if isinstance(error, ProofRefused) or not await self._renew(talk):
                    talk.refusal = error
            except LeadSyncError as error:
                talk.answered |= isinstance(error, REFUSED_OTHERWISE)
                return error
            else:
                talk.answered = True
                return told

    async def end(self, talk: Talk) -> None:
        """Note that the token is good, where it was."""
        if talk.answered and talk.refusal is None and talk.sealed is not None:
            await self._mark(talk, talk.sealed, is_refused=False)

    async def account_of(self, page_id: str) -> Account | None:
        """From whose token that of the Page was derived, if that is known."""
        return await self._token_rows.account_of_page(page_id)

    async def _find_seal(self, talk: Talk) -> None:
        """Whether the token comes from its row, or from the settings, of which nothing is noted."""
        row = await self._token_rows.page_token(talk.page_id)
        if row is None:
            return
        try:
            if self._keys.ring().open(row.sealed, of_page(talk.page_id)) == talk.token:
                talk.sealed = row.sealed
        except (TokenRefused, Transient):
            return

    async def _renew(self, talk: Talk) -> bool:
        """Meta refuses the token: another one, that somebody put there meanwhile or that is derived now."""
        talk.renewals += 1
        if talk.sealed is not None:
            await self._mark(talk, talk.sealed, is_refused=True)
        if talk.renewals == 1 and await self._take_another(talk):
            return True
        return talk.renewals <= 2 and await self._derive(talk)

    async def _take_another(self, talk: Talk) -> bool:
        if not await self._tokens.has_another(talk.page_id, talk.token):
            return False
        talk.token, talk.sealed = await self._tokens.token_for(talk.page_id), None
        await self._find_seal(talk)
        return True

    async def _derive(self, talk: Talk) -> bool:
        """Take the Page's token from the account that has a role on it, and keep it; whether there is a new one."""
        former = await self._token_rows.page_token(talk.page_id)
        if former is None:
            return False  # nobody connected it
        own = await self._token_rows.account_of_page(talk.page_id)
        accounts = [own] if own is not None else list(await self._token_rows.accounts())[:ACCOUNTS_TRIED]
        for account in accounts:
            token = await self._token_from(account, talk)
            if token is not None and token != talk.token:
                sealed = self._keys.ring().seal(token, of_page(talk.page_id))
                if not await self._token_rows.renew_page_token(
                    talk.page_id, account.user_id, sealed, self._clock(), instead_of=former.sealed
                ):
                    return await self._take_another(talk)  # connected meanwhile, or taken away
                await self._tokens.has_another(talk.page_id, token)
                talk.token, talk.sealed = token, sealed
                log.info("page_token_derived", page_id=talk.page_id)
                return True
        return False

    async def _token_from(self, account: Account, talk: Talk) -> str | None:
        try:
            token = self._keys.ring().open(account.sealed, of_account(account.user_id))
        except (TokenRefused, Transient):
            return None
        request = page_request(self._caller, talk.page_id, ("id", "access_token"), token)
        try:
            page = read_account(await self._calls.of_nobody(request, read_object))
        except TokenRefused:
            talk.account_refused = True
            await self._token_rows.mark_account(account.user_id, is_refused=True, now=self._clock())
            return None
        except LeadSyncError:
            return None
        await self._token_rows.mark_account(account.user_id, is_refused=False, now=self._clock())
        return page.token if page is not None and page.page_id == talk.page_id else None

    async def _mark(self, talk: Talk, sealed: Sealed, *, is_refused: bool) -> None:
        await self._token_rows.mark_page_token(talk.page_id, sealed, is_refused=is_refused, now=self._clock())
