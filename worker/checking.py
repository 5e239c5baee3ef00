"""Pages whose check is due -> what Graph and the rows tell of each -> health, events, parking and healing.

    Page -> its token -> subscription, a form's listing, waiting leads -> the token's own facts -> judged -> kept

The only calls that are made for a parked Page. It is handed Graph, budget, tokens, rows and clock and imports no I/O;
what the facts mean is health.py's business. Invariants: every call under a Page's token is granted in the lane of
upkeep; a token that is derived anew is kept sealed before anybody uses it; a Page parked by order is never taken up
here; one Page's trouble, or its hanging calls, hold up no other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

import structlog

from worker.budget.policy import IN_NO_PAGES_NAME, Budget, Grant, Lane, Refusal
from worker.errors import (
    LeadSyncError,
    LedgerUnavailable,
    NotVisibleYet,
    PermissionRefused,
    ProofRefused,
    RequestRefused,
    StoreUnavailable,
    Throttled,
    TokenRefused,
    Transient,
)
from worker.graph.account import (
    LEADGEN,
    AppSubscription,
    Caller,
    TokenFacts,
    debug_request,
    page_request,
    read_account,
    read_debug,
    read_subscribed,
    read_subscriptions,
    read_success,
    subscribe_request,
    subscribed_apps_request,
    subscriptions_request,
)
from worker.graph.usage import read_usage
from worker.graph.wire import (
    GraphAnswer,
    GraphRequest,
    lead_request,
    read_answer,
    read_object,
    read_result_page,
)
from worker.health import OK, Change, Facts, Health, asks_for_rows, changes, has_healed, judge, parks_for
from worker.inbox import is_id
from worker.lead import graph_time
from worker.sealing import Keys, Sealed, of_account, of_page
from worker.tokens import PageTokens, TokenRow

log = structlog.get_logger("health")

AT_ONCE: Final = 8
"""Pages checked at the same time."""
CHECK_SECONDS: Final = 90.0
"""What takes longer is given up, and tried again as a parked Page is."""
LEASE: Final = timedelta(seconds=120)
LOOK_SECONDS: Final = 1.0
"""While a slow Page is being checked it is looked so often whether others are due."""
WEBHOOK_KEPT: Final = timedelta(minutes=10)
"""The app's own subscription is one for all Pages."""
ACCOUNTS_TRIED: Final = 3
PROBE_FIELDS: Final = ("id", "created_time")

T = TypeVar("T")


class Leased(Protocol):
    """A Page that is to be checked."""

    @property
    def page_id(self) -> str: ...
    @property
    def parked_reason(self) -> str | None: ...


L = TypeVar("L", bound=Leased)


class Graph(Protocol):
    """What this file needs of Graph."""

    async def ask(self, request: GraphRequest, grant: Grant) -> GraphAnswer: ...


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


class Rows(Protocol[L]):
    """What this file needs of the rows of health."""

    async def lease_checks(self, now: datetime, until: datetime, *, most: int) -> Sequence[L]: ...
    async def next_check(self, leased: L, at: datetime) -> None: ...
    async def probes(self, page_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]: ...
    async def webhooks(self, page_id: str, now: datetime) -> dict[str, Any]: ...
    async def known(self, page_id: str) -> dict[str, str]: ...
    async def keep(
        self, page_id: str, found: dict[str, Any], changes: Sequence[dict[str, Any]], now: datetime
    ) -> list[dict[str, Any]]: ...


class Pages(Protocol):
    """Who parks Pages and takes them up again."""

    async def park(
        self, page_id: str, reason: str, now: datetime, *, check_at: datetime | None = None
    ) -> bool: ...
    async def unpark(
        self, page_ids: Sequence[str], now: datetime, *, but: Sequence[str] = ()
    ) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """How often a Page is checked, and a parked one. `by_order`: reasons for parking that are an operator's will."""

    every: timedelta = timedelta(hours=1)
    parked_every: timedelta = timedelta(minutes=15)
    resubscribe: bool = True
    by_order: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of a check."""

    health: Health
    news: int
    was_parked: bool
    is_parked: bool


class NotGranted(Transient):
    """The budget leaves no call for the check."""

    def __init__(self, reason: str) -> None:
        super().__init__("no call is left for the check")
        self.reason = reason


@dataclass(slots=True)
class _Talk:
    """One check's talk with Graph in a Page's name: the token it uses, and how that fared."""

    page_id: str
    token: str = field(default="", repr=False)
    sealed: Sealed | None = None
    refusal: LeadSyncError | None = None
    trouble: LeadSyncError | None = None
    renewals: int = 0
    account_refused: bool = False
    answered: bool = False


class PageChecker:
    """Checks. `clock` gives aware UTC; `ring` lets the workers look at once at what waits."""

    def __init__(
        self,
        *,
        graph: Graph,
        budget: Budget,
        tokens: PageTokens,
        token_rows: TokenRows,
        keys: Keys,
        rows: Rows[L],
        pages: Pages,
        caller: Caller,
        settings: CheckSettings,
        clock: Callable[[], datetime],
        ring: Callable[[], Awaitable[None]],
    ) -> None:
        self._graph = graph
        self._budget = budget
        self._tokens = tokens
        self._token_rows = token_rows
        self._keys = keys
        self._rows: Any = rows
        self._pages = pages
        self._caller = caller
        self._settings = settings
        self._clock = clock
        self._ring = ring
        self._webhook: tuple[datetime, AppSubscription | LeadSyncError | None] | None = None

    async def run(self, stop: Callable[[], bool]) -> dict[str, int]:
        """Check the Pages that are due, until `stop`; counts. Raises where Redis or Postgres is away."""
        counts = {"checked": 0, "parked": 0, "healed": 0, "news": 0}
        running: set[asyncio.Task[None]] = set()
        try:
            while not stop():
                if room := AT_ONCE - len(running):
                    now = self._clock()
                    for leased in await self._rows.lease_checks(now, now + LEASE, most=room):
                        running.add(asyncio.create_task(self._check(leased, counts)))
                if not running:
                    break
                ended, running = await asyncio.wait(
                    running, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for task in ended:
                    task.result()
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()
        return counts

    async def _check(self, leased: Any, counts: dict[str, int]) -> None:
        again = self._settings.parked_every
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                checked = await self.check(leased.page_id, leased.parked_reason)
        except (LedgerUnavailable, StoreUnavailable):
            raise
        except Exception as error:
            # A fault of ours, or a Page that hangs; only its type is told.
            log.error("check_failed", page_id=leased.page_id, error=type(error).__name__)
        else:
            again = again if checked.is_parked else self._settings.every
            counts["checked"] += 1
            counts["parked"] += checked.is_parked and not checked.was_parked
            counts["healed"] += checked.was_parked and not checked.is_parked
            counts["news"] += checked.news
        await self._rows.next_check(leased, self._clock() + again)

    async def check(self, page_id: str, parked_reason: str | None) -> Checked:
        """Look at one Page, which is parked for `parked_reason` (None: it is not), and do what follows from it.

        Raises where Redis or Postgres is away.
        """
        facts = await self._facts(page_id, parked_reason)
        health = judge(facts)
        was_parked = is_parked = parked_reason is not None
        now, reason = self._clock(), parks_for(health)
        if parked_reason is None and reason is not None:
            await self._pages.park(page_id, reason, now, check_at=now + self._settings.parked_every)
            is_parked = True
        elif parked_reason not in (None, *self._settings.by_order) and has_healed(
            facts, health, str(parked_reason)
        ):
            is_parked = not await self._pages.unpark([page_id], now, but=self._settings.by_order)
        news = await self._keep(page_id, health, parked=was_parked or is_parked)
        if was_parked and not is_parked:
            await self._ring()
        return Checked(health, news, was_parked, is_parked)

    async def _keep(self, page_id: str, health: Health, *, parked: bool) -> int:
        known = await self._rows.known(page_id)
        news = changes(known, health, parked=parked)
        kept = await self._rows.keep(
            page_id, _columns(health), [_object(each) for each in news], self._clock()
        )
        for row in kept:
            if row["became"] == OK:
                log.info("page_health", page_id=page_id, **row)
            else:
                log.warning("page_health", page_id=page_id, **row)
        return len(kept)

    async def _facts(self, page_id: str, parked_reason: str | None) -> Facts:
        talk = await self._begin(page_id)
        has_app = bool(self._caller.app_id)
        facts = Facts(self._clock(), page_id, has_app)
        if has_app:
            facts = await self._subscription(talk, facts)
        facts = await self._lead_access(talk, facts, parked_reason)
        told = await self._debug(talk) if has_app and talk.token else talk.trouble
        facts = replace(
            facts,
            now=self._clock(),
            token=told,
            refusal=talk.refusal,
            account_refused=talk.account_refused,
            answered=talk.answered,
            **await self._rows.webhooks(page_id, self._clock()),
        )
        if talk.answered and talk.refusal is None and talk.sealed is not None:
            await self._mark(talk, is_refused=False)
        return facts

    async def _begin(self, page_id: str) -> _Talk:
        talk = _Talk(page_id)
        try:
            talk.token = await self._tokens.token_for(page_id)
            await self._find_seal(talk)
        except TokenRefused as error:
            if not await self._derive(talk):
                talk.refusal = error if error.reason != TokenRefused.reason else TokenMissing(str(error))
        except StoreUnavailable:
            raise
        except LeadSyncError as error:
            talk.trouble = error
        return talk

    async def _find_seal(self, talk: _Talk) -> None:
        """Whether the token comes from its row, or from the settings, of which nothing is noted."""
        row = await self._token_rows.page_token(talk.page_id)
        if row is None:
            return
        try:
            if self._keys.ring().open(row.sealed, of_page(talk.page_id)) == talk.token:
                talk.sealed = row.sealed
        except (TokenRefused, Transient):
            return

    async def _own(
        self,
        talk: _Talk,
        build: Callable[[str], GraphRequest],
        read: Callable[[GraphAnswer, datetime], T],
        calls: int = 1,
    ) -> "T | LeadSyncError":
        """What Graph answers under the Page's token, derived anew where it is refused; or why it does not."""
        while True:
            stopped = talk.refusal or talk.trouble
            if stopped is not None:
                return stopped
            grant = await self._budget.request(talk.page_id, calls, Lane.UPKEEP)
            if isinstance(grant, Refusal):
                return NotGranted(grant.reason)
            if grant.calls < calls:
                await self._budget.heard(talk.page_id, grant, ())
                return NotGranted("budget")
            try:
                answer = await self._graph.ask(build(talk.token), grant)
                usages = read_usage(answer.headers)
                told = read(answer, self._clock())
            except Throttled as error:
                await self._budget.throttled(talk.page_id, error.scope, usages, error.regain)
                return error
            except (TokenRefused, ProofRefused) as error:
                if isinstance(error, ProofRefused) or not await self._renew(talk):
                    talk.refusal = error
                    return error
                continue
            except (PermissionRefused, NotVisibleYet, RequestRefused) as error:
                talk.answered = True
                await self._budget.heard(talk.page_id, grant, usages)
                return error
            except LeadSyncError as error:
                return error
            talk.answered = True
            await self._budget.heard(talk.page_id, grant, usages)
            return told

    async def _renew(self, talk: _Talk) -> bool:
        """Meta refuses the token: another one, that somebody put there meanwhile or that is derived now."""
        talk.renewals += 1
        if talk.sealed is not None:
            await self._mark(talk, is_refused=True)
        if talk.renewals == 1 and await self._take_another(talk):
            return True
        return talk.renewals <= 2 and await self._derive(talk)

    async def _take_another(self, talk: _Talk) -> bool:
        if not await self._tokens.has_another(talk.page_id, talk.token):
            return False
        talk.token, talk.sealed = await self._tokens.token_for(talk.page_id), None
        await self._find_seal(talk)
        return True

    async def _derive(self, talk: _Talk) -> bool:
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

    async def _token_from(self, account: Account, talk: _Talk) -> str | None:
        try:
            token = self._keys.ring().open(account.sealed, of_account(account.user_id))
        except (TokenRefused, Transient):
            return None
        request = page_request(self._caller, talk.page_id, ("id", "access_token"), token)
        try:
            answer = await self._graph.ask(request, IN_NO_PAGES_NAME)
            page = read_account(read_object(answer, self._clock()))
        except TokenRefused:
            talk.account_refused = True
            await self._token_rows.mark_account(account.user_id, is_refused=True, now=self._clock())
            return None
        except LeadSyncError:
            return None
        await self._token_rows.mark_account(account.user_id, is_refused=False, now=self._clock())
        return page.token if page is not None and page.page_id == talk.page_id else None

    async def _mark(self, talk: _Talk, *, is_refused: bool) -> None:
        assert talk.sealed is not None
        await self._token_rows.mark_page_token(
            talk.page_id, talk.sealed, is_refused=is_refused, now=self._clock()
        )

    async def _debug(self, talk: _Talk) -> TokenFacts | LeadSyncError:
        """Meta's own word on the token; not on the Page's account, since it is asked under the app's."""
        request = debug_request(self._caller, [talk.token])
        try:
            answer = await self._graph.ask(request, IN_NO_PAGES_NAME)
            return read_debug(answer, 1, self._clock())[0]
        except LeadSyncError as error:
            return error

    async def _subscription(self, talk: _Talk, facts: Facts) -> Facts:
        fields = await self._subscribed(talk)
        if isinstance(fields, LeadSyncError):
            return replace(facts, subscribed=fields)
        set_again = False
        if LEADGEN not in (fields or ()) and self._settings.resubscribe:
            wanted = (*(fields or ()), LEADGEN)
            done = await self._own(
                talk, lambda token: subscribe_request(self._caller, talk.page_id, wanted, token), read_success
            )
            again = done if isinstance(done, LeadSyncError) else await self._subscribed(talk)
            if isinstance(again, tuple) and LEADGEN in again:
                log.warning("subscription_restored", page_id=talk.page_id)
                fields, set_again = again, True
        return replace(
            facts,
            subscribed=fields or (),
            is_installed=fields is not None,
            set_again=set_again,
            webhook=await self._app_webhook(),
            webhook_asked=True,
        )

    async def _subscribed(self, talk: _Talk) -> tuple[str, ...] | LeadSyncError | None:
        return await self._own(
            talk,
            lambda token: subscribed_apps_request(self._caller, talk.page_id, token),
            lambda answer, now: read_subscribed(answer, self._caller.app_id, now),
        )

    async def _app_webhook(self) -> AppSubscription | LeadSyncError | None:
        """The app's own subscription to Pages, as it was a few minutes ago at most."""
        now = self._clock()
        if self._webhook is None or self._webhook[0] <= now:
            found: AppSubscription | LeadSyncError | None
            try:
                answer = await self._graph.ask(subscriptions_request(self._caller), IN_NO_PAGES_NAME)
                told = read_subscriptions(answer, now)
                found = next((each for each in told if each.object == "page"), None)
            except LeadSyncError as error:
                found = error
            kept = isinstance(found, AppSubscription)
            self._webhook = (now + WEBHOOK_KEPT if kept else now, found)
        return self._webhook[1]

    async def _lead_access(self, talk: _Talk, facts: Facts, parked_reason: str | None) -> Facts:
        forms, rows = await self._rows.probes(talk.page_id)
        forms = forms or await self._forms(talk)
        facts = replace(facts, has_form=bool(forms))
        for form_id in forms:
            # A refusal may be that of one form alone.
            if facts.listing is None or isinstance(facts.listing, PermissionRefused | NotVisibleYet):
                facts = facts if facts.was_listed else await self._list_one(talk, facts, form_id)
        if isinstance(facts.listing, NotVisibleYet) and facts.has_app:
            facts = replace(facts, can_access=await self._can_access(talk))
        if rows and asks_for_rows(parked_reason, has_form=bool(forms)):
            facts = replace(facts, rows=await self._read_rows(talk, rows))
        return facts

    async def _forms(self, talk: _Talk) -> tuple[str, ...]:
        """One of the Page's forms, where none is known here yet."""
        query = (("fields", "id,status"), ("limit", "25"))
        told = await self._own(
            talk,
            lambda token: self._caller.request("GET", f"{talk.page_id}/leadgen_forms", token, query=query),
            read_result_page,
        )
        if isinstance(told, LeadSyncError):
            return ()
        found = [each for each in told.entries if isinstance(each, dict) and is_id(str(each.get("id")))]
        found.sort(key=lambda each: each.get("status") != "ACTIVE")
        return tuple(str(each["id"]) for each in found[:1])

    async def _list_one(self, talk: _Talk, facts: Facts, form_id: str) -> Facts:
        """A lead of the form, without ad fields, for which another permission would be needed."""
        query = (("fields", ",".join(PROBE_FIELDS)), ("limit", "1"))
        told = await self._own(
            talk,
            lambda token: self._caller.request("GET", f"{form_id}/leads", token, query=query),
            read_result_page,
        )
        if not isinstance(told, LeadSyncError):
            times = [graph_time(each.get("created_time")) for each in told.entries if isinstance(each, dict)]
            return replace(facts, listing=None, was_listed=True, listed_time=times[0] if times else None)
        if not isinstance(facts.listing, PermissionRefused):
            facts = replace(facts, listing=told)
        if isinstance(told, NotVisibleYet):
            by_id = (("fields", "id"),)
            form = await self._own(
                talk, lambda token: self._caller.request("GET", form_id, token, query=by_id), read_object
            )
            shows = facts.form_shows or not isinstance(form, LeadSyncError)
            facts = replace(facts, form_shows=shows)
        return facts

    async def _can_access(self, talk: _Talk) -> bool | None:
        """What Meta says of lead access; None where it does not: it never does of a system user."""
        account = await self._token_rows.account_of_page(talk.page_id)
        if account is None:
            return None
        asked = f"has_lead_access.user_id({account.user_id}).app_id({self._caller.app_id})"
        told = await self._own(
            talk, lambda token: page_request(self._caller, talk.page_id, (asked,), token), read_object
        )
        access = told.get("has_lead_access") if isinstance(told, dict) else None
        if not isinstance(access, dict) or not isinstance(access.get("can_access_lead"), bool):
            return None
        return access["can_access_lead"] and access.get("app_has_leads_permission") is not False

    async def _read_rows(self, talk: _Talk, rows: tuple[str, ...]) -> tuple[LeadSyncError | None, ...]:
        def build(token: str) -> GraphRequest:
            proof = dict(self._caller.request("GET", "", token).query)["appsecret_proof"]
            return lead_request(rows, PROBE_FIELDS, version=self._caller.version, token=token, proof=proof)

        told = await self._own(
            talk, build, lambda answer, now: read_answer(answer, rows, now).leads, calls=len(rows)
        )
        if isinstance(told, LeadSyncError):
            return (told,)
        errors = tuple(each if isinstance(each, LeadSyncError) else None for each in told)
        refused = [each for each in errors if isinstance(each, TokenRefused | ProofRefused)]
        if refused and None not in errors:
            talk.refusal = refused[0]
        return errors


class TokenMissing(TokenRefused):
    """There is no token of the Page at all."""

    reason = "token_missing"


def _columns(health: Health) -> dict[str, Any]:
    """As page_health has them."""
    columns: dict[str, Any] = {
        "token_expires_at": health.token_expires_at,
        "data_access_expires_at": health.data_access_expires_at,
        "missing_scopes": list(health.missing_scopes),
    }
    for aspect in ("token", "subscription", "lead_access", "webhooks"):
        verdict = health.aspect(aspect)
        columns |= {aspect: verdict.word, f"{aspect}_reason": verdict.reason}
    return columns


def _object(change: Change) -> dict[str, Any]:
    return {
        "aspect": change.aspect,
        "was": change.was,
        "became": change.became,
        "reason": change.reason,
        "is_told": change.is_told,
    }
