"""The token of a person or a system user -> checked with Meta, made long-lived, kept: whose Pages can be connected.

    given, or the kept one -> debug_token -> short-lived? exchanged -> kept, sealed -> its scopes

It lists no Page (connecting.py does). Invariants: a token that is not this app's, or is not good, is neither kept nor
used; a token leaves only sealed, or to Graph.
https://developers.facebook.com/docs/facebook-login/guides/access-tokens/get-long-lived
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from worker.calls import Calls
from worker.errors import Blocked, LeadSyncError, TokenRefused, Unreadable
from worker.graph.account import (
    Caller,
    TokenFacts,
    debug_request,
    exchange_request,
    read_debug,
    read_exchange,
)
from worker.scopes import missing_scopes, with_purposes
from worker.sealing import Keys, of_account, opened_or_none
from worker.steps import Checklist, State, Step, Stopped, answered, failed
from worker.tokens import Account

SHORT_LIVED: Final = timedelta(days=2)
"""A person's token that expires sooner is exchanged: short-lived ones hold an hour or two, long-lived ones 60 days."""
STILL_LONG: Final = timedelta(days=30)
"""A kept token that holds so long still, and may do as much, makes an exchange unnecessary."""
CONNECT_AGAIN: Final = "make a new token (docs/connect.md says where) and run `leadsync connect` again"
AGAIN: Final = "run the same command again: what is done stays done"
_THE_APP: Final = (
    "META_APP_ID and META_APP_SECRET must be those of one app (App settings > Basic); check both"
)
_PERSONS: Final = {"USER": "a person", "SYSTEM_USER": "a system user"}
"""Kinds of tokens that Pages' tokens can be derived from."""


class AccountRows(Protocol):
    """What this file needs of the rows of tokens."""

    async def accounts(self) -> tuple[Account, ...]: ...
    async def account(self, user_id: str) -> Account | None: ...
    async def keep_account(self, account: Account, now: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose token it is, and what Meta knows of it."""

    user_id: str
    facts: TokenFacts
    token: str = field(repr=False)

    @property
    def name(self) -> str:
        """In a sentence."""
        return f"{_PERSONS[self.facts.kind]} ({self.user_id})"


class AccountTokens:
    """Checks and keeps accounts' tokens. `clock` gives aware UTC.

    Its methods raise Stopped where there is no token to go on with, which is told by then; StoreUnavailable where
    Postgres is away, KeysUnreadable or ConfigurationError where there is no key.
    """

    def __init__(
        self, *, calls: Calls, caller: Caller, rows: AccountRows, keys: Keys, clock: Callable[[], datetime]
    ) -> None:
        self._calls = calls
        self._caller = caller
        self._rows = rows
        self._keys = keys
        self._clock = clock

    async def owner(self, token: str | None, user_id: str | None, told: Checklist) -> Owner:
        """Whose `token` it is, good and kept. None: the kept one, of `user_id` where there are several."""
        owner = await self._check(await self._kept(user_id, told) if token is None else token, told)
        if self._is_short_lived(owner):
            owner = await self._exchange(owner, told)
        told.add(await self._keep(owner))
        told.add(_scopes(owner.facts))
        return owner

    async def _kept(self, user_id: str | None, told: Checklist) -> str:
        accounts = [each for each in await self._rows.accounts() if user_id in (None, each.user_id)]
        if len(accounts) > 1:
            several = f"tokens of several accounts are kept: {', '.join(each.user_id for each in accounts)}"
            remedy = "say whose with --account, or give a token"
            raise told.stop(Step("token", State.MISSING, several, remedy))
        if not accounts:
            none = "no token is given, and none is kept" + (f" of account {user_id}" if user_id else "")
            remedy = "give one at the prompt of a terminal, in META_USER_TOKEN, or with --token-stdin"
            raise told.stop(Step("token", State.MISSING, none, remedy))
        try:
            return self._keys.ring().open(accounts[0].sealed, of_account(accounts[0].user_id))
        except TokenRefused as error:
            raise told.stop(failed("token", error, CONNECT_AGAIN)) from None

    async def _check(self, token: str, told: Checklist) -> Owner:
        try:
            (found,) = await self._calls.of_nobody(
                debug_request(self._caller, [token]), lambda answer, now: read_debug(answer, 1, now)
            )
        except (Blocked, Unreadable) as error:
            sentence = f"Meta does not take the app's own token, APP_ID|APP_SECRET ({answered(error)})"
            raise told.stop(Step("token", State.FAILED, sentence, _THE_APP)) from None
        except LeadSyncError as error:
            raise told.stop(failed("token", error, AGAIN)) from None
        if isinstance(found, LeadSyncError):
            # Of another app's token Meta tells nothing, and which error it answers is not documented.
            if not isinstance(found, Blocked | Unreadable):
                raise told.stop(failed("token", found, AGAIN))
            sentence = f"Meta tells nothing of this token ({answered(found)}): it may be another app's"
            remedy = f"it must be a token of app {self._caller.app_id}; {CONNECT_AGAIN}"
            raise told.stop(Step("token", State.FAILED, sentence, remedy))
        if (problem := _unfit(found, self._caller.app_id)) or found.user_id is None:
            raise told.stop(
                Step("token", State.FAILED, problem or "Meta does not say whose token it is", CONNECT_AGAIN)
            )
        return Owner(found.user_id, found, token)

    def _is_short_lived(self, owner: Owner) -> bool:
        expires_at = owner.facts.expires_at
        return (
            owner.facts.kind == "USER" and expires_at is not None and expires_at < self._clock() + SHORT_LIVED
        )

    async def _exchange(self, owner: Owner, told: Checklist) -> Owner:
        """The same person's long-lived token."""
        if (kept := await self._as_good(owner)) is not None:
            sentence = "not needed: a long-lived token of the same person, which may do as much, is kept"
            told.add(Step("exchange", State.ALREADY, sentence))
            return kept
        try:
            token = await self._calls.of_nobody(exchange_request(self._caller, owner.token), read_exchange)
        except LeadSyncError as error:
            if not isinstance(error, Blocked | Unreadable):
                raise told.stop(failed("exchange", error, AGAIN)) from None
            sentence = f"Meta does not exchange this token ({answered(error)})"
            raise told.stop(Step("exchange", State.FAILED, sentence, CONNECT_AGAIN)) from None
        lasting = await self._check(token, told)
        until = _until(lasting.facts)
        if self._is_short_lived(lasting):
            told.add(
                Step("exchange", State.FAILED, f"Meta gave a token that holds {until} only", CONNECT_AGAIN)
            )
        else:
            told.add(Step("exchange", State.DONE, f"a short-lived token for one that holds {until}"))
        return lasting

    async def _as_good(self, owner: Owner) -> Owner | None:
        """The kept token of the same person, where it holds long still and may do as much as this one."""
        account = await self._rows.account(owner.user_id)
        if account is None or account.refused_at is not None:
            return None
        token = opened_or_none(self._keys.ring(), account.sealed, of_account(owner.user_id))
        try:
            kept = await self._check(token, Checklist()) if token is not None else None
        except Stopped:
            return None
        if kept is None or kept.facts.targets != owner.facts.targets:
            return None
        expires_at = kept.facts.expires_at
        is_long = expires_at is None or expires_at > self._clock() + STILL_LONG
        return kept if is_long and set(kept.facts.scopes) >= set(owner.facts.scopes) else None

    async def _keep(self, owner: Owner) -> Step:
        facts, whose, ring = owner.facts, of_account(owner.user_id), self._keys.ring()
        former = await self._rows.account(owner.user_id)
        told = f"of {owner.name}, holds {_until(facts)}"
        if (
            former is not None
            and former.refused_at is None
            and opened_or_none(ring, former.sealed, whose) == owner.token
            and (former.kind, former.scopes, former.expires_at, former.data_access_expires_at)
            == (facts.kind, facts.scopes, facts.expires_at, facts.data_access_expires_at)
        ):
            return Step("token", State.ALREADY, f"{told}; is kept")
        sealed = ring.seal(owner.token, whose)
        account = Account(
            owner.user_id, facts.kind, sealed, facts.scopes, facts.expires_at, facts.data_access_expires_at
        )
        await self._rows.keep_account(account, self._clock())
        return Step("token", State.DONE, f"{told}; now kept, sealed")


def _unfit(facts: TokenFacts, app_id: str) -> str | None:
    """Why Pages cannot be connected with a token."""
    if facts.app_id is not None and facts.app_id != app_id:
        return f"it is a token of app {facts.app_id}, and META_APP_ID is {app_id}"
    if not facts.is_valid:
        why = "".join(
            f"{name} {value}" for name, value in (("code", facts.code), (", subcode", facts.subcode)) if value
        )
        return f"Meta says that the token is not valid{f' ({why})' if why else ''}"
    if facts.kind not in _PERSONS:
        return f"it is a token of kind {facts.kind}; it must be that of a person or of a system user"
    return None


def _until(facts: TokenFacts) -> str:
    return f"until {facts.expires_at:%Y-%m-%d %H:%M} UTC" if facts.expires_at else "for ever"


def _scopes(facts: TokenFacts) -> Step:
    missing = missing_scopes(facts)
    if not missing:
        return Step("scopes", State.ALREADY, "all that are needed are granted")
    remedy = f"choose them in the dialogue that makes the token; then {CONNECT_AGAIN}"
    return Step("scopes", State.MISSING, f"missing: {with_purposes(missing)}", remedy)
