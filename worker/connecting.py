"""A token's Pages -> each one's token kept, its leads announced to the app, its forms known -> the app's webhook.

    token -> Pages -> choice -> per Page: token, subscription, forms -> webhook

Each step is told as it ends (steps.py); one Page's failure is told and stops no other. It shows nothing and asks nobody
(cli does: it hands in `choose` and `tell`); the token is account_token.py's business. Invariants: a Page's token leaves
only sealed, or to Graph; asked twice, the second time changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from worker.account_pages import AccountPages, none_listed
from worker.account_token import AGAIN, CONNECT_AGAIN, AccountTokens, Owner
from worker.errors import (
    Blocked,
    CallbackRefused,
    LeadSyncError,
    PermissionRefused,
    TokenRefused,
)
from worker.forms import Discovered
from worker.graph.account import AppSubscription, PageAccount
from worker.health import BY_HAND
from worker.scopes import scopes_without, with_purposes
from worker.sealing import Keys, Sealed, of_page, opened_or_none
from worker.steps import Checklist, State, Step, Stopped, answered, failed
from worker.subscribing import Subscriber, announces_leads
from worker.tokens import Account, PageTokens, TokenRow

TOKEN, PAGES, SUBSCRIBE, WEBHOOK = "token", "pages", "subscribe", "webhook"
PARTS: Final = (TOKEN, PAGES, SUBSCRIBE, WEBHOOK)
"""What can be asked for, in this order."""

ADVERTISE: Final = "ADVERTISE"
"""The task on a Page that takes in its leads. https://developers.facebook.com/docs/pages-api/overview#tasks"""


class Tokens(PageTokens, Protocol):
    """The Pages' tokens as workers find them."""

    async def page_ids(self) -> tuple[str, ...]: ...


class TokenRows(Protocol):
    """What this file needs of the rows of tokens."""

    async def account_of_page(self, page_id: str) -> Account | None: ...
    async def page_token(self, page_id: str) -> TokenRow | None: ...
    async def keep_page_token(
        self, page_id: str, user_id: str | None, sealed: Sealed, now: datetime
    ) -> None: ...


class PageRows(Protocol):
    """What this file needs of the rows of Pages."""

    async def connect(self, page_id: str, name: str, now: datetime, *, is_new: bool) -> "Former": ...
    async def names(self, page_ids: Sequence[str]) -> dict[str, str]: ...


class Parking(Protocol):
    """Whoever takes Pages up again."""

    async def unpark(
        self, page_ids: Sequence[str], now: datetime, *, but: Sequence[str] = ()
    ) -> tuple[str, ...]: ...


class FormRows(Protocol):
    """What this file needs of the rows of forms."""

    async def forms_of(self, page_id: str) -> list[dict[str, Any]]: ...


class Forms(Protocol):
    """Whoever lists a Page's forms."""

    async def discover(self, page_id: str) -> Discovered: ...


Choose = Callable[[Sequence[PageAccount]], Sequence[str]]
"""Those that are known -> the ids of those wanted, which may be others."""


@dataclass(frozen=True, slots=True)
class Former:
    """What a Page was before it was connected: parked for that reason, or not; connected, or not."""

    parked_reason: str | None = None
    is_connected: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for. `token` None: the kept one, of account `user_id` where there are several."""

    parts: frozenset[str]
    token: str | None = field(default=None, repr=False)
    user_id: str | None = None
    page_ids: tuple[str, ...] = ()
    webhook_url: str = ""
    webhook_again: bool = False
    verify_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class FoundForm:
    """A form of a connected Page."""

    form_id: str
    name: str | None
    status: str | None


_NO_FORMS: Final[tuple[FoundForm, ...]] = ()


@dataclass(frozen=True, slots=True)
class ConnectedPage:
    """A Page that was chosen. `is_connected`: nothing that was asked for it is left to be done."""

    page_id: str
    name: str
    is_connected: bool
    forms: tuple[FoundForm, ...] = ()


@dataclass(frozen=True, slots=True)
class Connection:
    """What all came to."""

    steps: tuple[Step, ...]
    pages: tuple[ConnectedPage, ...]


class Connector:
    """Connects Pages. `clock` gives aware UTC."""

    def __init__(
        self,
        *,
        account_tokens: AccountTokens,
        account_pages: AccountPages,
        subscriber: Subscriber,
        tokens: Tokens,
        token_rows: TokenRows,
        page_rows: PageRows,
        parking: Parking,
        forms: Forms,
        form_rows: FormRows,
        keys: Keys,
        clock: Callable[[], datetime],
    ) -> None:
        self._account_tokens = account_tokens
        self._account_pages = account_pages
        self._subscriber = subscriber
        self._tokens = tokens
        self._token_rows = token_rows
        self._page_rows = page_rows
        self._parking = parking
        self._forms = forms
        self._form_rows = form_rows
        self._keys = keys
        self._clock = clock

    async def connect(self, wish: Wish, choose: Choose, tell: Callable[[Step], None]) -> Connection:
        """Do what is wished, and `tell` each step as it ends.

        Raises StoreUnavailable, LedgerUnavailable, ConfigurationError where there is no key, and what `choose` raises.
        """
        told = Checklist(tell)
        pages: list[ConnectedPage] = []
        try:
            if wish.parts & {TOKEN, PAGES}:
                owner = await self._account_tokens.owner(wish.token, wish.user_id, told)
                if PAGES in wish.parts:
                    pages = await self._pages(owner, wish, choose, told)
            elif SUBSCRIBE in wish.parts:
                pages = await self._subscribe_known(choose, told)
        except Stopped:
            pass  # what stopped it was told
        if WEBHOOK in wish.parts:
            told.add(await self._webhook(wish))
        return Connection(tuple(told.steps), tuple(pages))

    async def _pages(self, owner: Owner, wish: Wish, choose: Choose, told: Checklist) -> list[ConnectedPage]:
        listed = await self._account_pages.listed(owner, told)
        if not listed and not wish.page_ids:
            raise Stopped if listed is None else told.stop(none_listed(owner))
        listed = listed or {}
        pages: list[ConnectedPage] = []
        for page_id in dict.fromkeys(choose(tuple(listed.values()))):
            page = listed.get(page_id) or await self._account_pages.find(owner, page_id, told)
            if page is None:
                pages.append(ConnectedPage(page_id, "", is_connected=False))
            else:
                pages.append(await self._page(page, owner, wish, told))
        return pages

    async def _page(self, page: PageAccount, owner: Owner, wish: Wish, told: Checklist) -> ConnectedPage:
        before, forms = len(told.steps), _NO_FORMS
        told.extend(_lacking(page, owner))
        if page.token is not None:
            told.add(await self._keep(page, page.token, owner))
            if SUBSCRIBE in wish.parts:
                told.add(await self._subscribe(page.page_id, page.token))
            step, forms = await self._find_forms(page.page_id)
            told.add(step)
        is_connected = all(step.is_achieved for step in told.steps[before:])
        return ConnectedPage(page.page_id, page.name, is_connected, forms)

    async def _keep(self, page: PageAccount, token: str, owner: Owner) -> Step:
        """Keep the Page's token, and take the Page up, unless an operator parked it."""
        now, whose, ring = self._clock(), of_page(page.page_id), self._keys.ring()
        row = await self._token_rows.page_token(page.page_id)
        former = await self._token_rows.account_of_page(page.page_id)
        is_kept = (
            row is not None
            and not row.is_refused
            and former is not None
            and former.user_id == owner.user_id
            and opened_or_none(ring, row.sealed, whose) == token
        )
        if not is_kept:
            await self._token_rows.keep_page_token(page.page_id, owner.user_id, ring.seal(token, whose), now)
        was = await self._page_rows.connect(page.page_id, page.name, now, is_new=not is_kept)
        sentence = "is kept" if is_kept else "now kept, sealed"
        if was.parked_reason == BY_HAND:
            sentence += f"; the Page stays parked by hand: `leadsync pages unpark {page.page_id}` takes it up"
        elif was.parked_reason is not None:
            await self._parking.unpark([page.page_id], now, but=[BY_HAND])
            sentence += f"; the Page was parked ({was.parked_reason}) and is taken up again"
        is_same = is_kept and was.is_connected and was.parked_reason in (None, BY_HAND)
        return Step("page_token", State.ALREADY if is_same else State.DONE, sentence, page_id=page.page_id)

    async def _find_forms(self, page_id: str) -> tuple[Step, tuple[FoundForm, ...]]:
        found = await self._forms.discover(page_id)
        rows = await self._form_rows.forms_of(page_id)
        forms = tuple(FoundForm(row["form_id"], row["name"], row["status"]) for row in rows)
        if not found.whole:
            when = f" after {found.not_before:%Y-%m-%d %H:%M:%S} UTC" if found.not_before else ""
            sentence = f"Meta did not tell all forms of the Page ({found.reason})"
            remedy = f"grant pages_manage_ads where it is missing; then run the same command again{when}"
            return Step("forms", State.FAILED, sentence, remedy, page_id), forms
        sentence = f"{len(forms)} form{'s' * (len(forms) != 1)}" if forms else "the Page has no form yet"
        details = tuple(f"{form.form_id}  {form.name or ''}  {form.status or ''}".rstrip() for form in forms)
        if not found.new:
            return Step("forms", State.ALREADY, sentence, None, page_id, details), forms
        news = f"{sentence}, {len(found.new)} new here"
        return Step("forms", State.DONE, news, None, page_id, details), forms

    async def _subscribe_known(self, choose: Choose, told: Checklist) -> list[ConnectedPage]:
        """Subscribe Pages whose tokens are here already."""
        known = await self._tokens.page_ids()
        if not known:
            remedy = "run `leadsync connect` without --only"
            raise told.stop(Step("subscription", State.MISSING, "no Page has a token here", remedy))
        names = await self._page_rows.names(known)
        pages: list[ConnectedPage] = []
        chosen = choose([PageAccount(page_id, names.get(page_id, ""), (), None) for page_id in known])
        for page_id in dict.fromkeys(chosen):
            try:
                step = await self._subscribe(page_id, await self._tokens.token_for(page_id))
            except TokenRefused as error:
                step = failed("subscription", error, CONNECT_AGAIN, page_id)
            told.add(step)
            pages.append(ConnectedPage(page_id, names.get(page_id, ""), step.is_achieved))
        return pages

    async def _subscribe(self, page_id: str, token: str) -> Step:
        try:
            subscribed = await self._subscriber.subscribe(page_id, token)
        except Blocked as error:
            sentence = f"Meta refuses it ({answered(error)})"
            return Step("subscription", State.FAILED, sentence, _subscription_remedy(error), page_id)
        except LeadSyncError as error:
            return failed("subscription", error, AGAIN, page_id)
        fields = ", ".join(subscribed.fields)
        if subscribed.is_changed:
            return Step("subscription", State.DONE, f"made, and read back: {fields}", page_id=page_id)
        return Step("subscription", State.ALREADY, f"is there: {fields}", page_id=page_id)

    async def _webhook(self, wish: Wish) -> Step:
        try:
            if not wish.webhook_url:
                return _webhook_as_it_is(await self._subscriber.webhook())
            webhook = await self._subscriber.set_webhook(
                wish.webhook_url, wish.verify_token, again=wish.webhook_again
            )
        except (Blocked, CallbackRefused) as error:
            sentence = f"Meta refuses it ({answered(error)})"
            if isinstance(error, CallbackRefused):
                sentence += (
                    ": it asked there and did not get its challenge back, so it did not reach the receiver, or the"
                    " receiver has another META_VERIFY_TOKEN"
                )
            return Step("webhook", State.FAILED, sentence, _webhook_remedy(error, wish.webhook_url))
        except LeadSyncError as error:
            return failed("webhook", error, AGAIN)
        if not webhook.is_changed:
            return _webhook_as_it_is(webhook.now)
        sentence = (
            f"Meta asked {wish.webhook_url} and was answered; active for {', '.join(webhook.now.fields)}"
        )
        if webhook.former is not None and webhook.former.callback_url != wish.webhook_url:
            sentence += f"; it went to {webhook.former.callback_url} before"
        return Step("webhook", State.DONE, sentence)


def _lacking(page: PageAccount, owner: Owner) -> list[Step]:
    """What is missing for this Page's leads, as far as Meta has told it."""
    steps: list[Step] = []
    if page.token is None:
        remedy = f"{owner.name} needs a role on the Page that takes in advertising"
        steps.append(
            Step("page_token", State.MISSING, "Meta gives no token for this Page", remedy, page.page_id)
        )
    if page.tasks and ADVERTISE not in page.tasks:
        remedy = f"give {owner.name} the task {ADVERTISE} on the Page (its settings > Page access)"
        sentence = f"without the task {ADVERTISE} on the Page its leads cannot be read"
        steps.append(Step("role", State.MISSING, sentence, remedy, page.page_id))
    if scopes := scopes_without(owner.facts, page.page_id):
        sentence = f"granted for other Pages and not for this one: {with_purposes(scopes)}"
        remedy = f"choose this Page too in the dialogue that makes the token; then {CONNECT_AGAIN}"
        steps.append(Step("scopes", State.MISSING, sentence, remedy, page.page_id))
    return steps


def _subscription_remedy(error: Blocked) -> str:
    if isinstance(error, PermissionRefused):
        return f"grant pages_manage_metadata and leads_retrieval for this Page; then {CONNECT_AGAIN}"
    return CONNECT_AGAIN


def _webhook_as_it_is(webhook: AppSubscription | None) -> Step:
    if webhook is not None and announces_leads(webhook):
        return Step(
            "webhook",
            State.ALREADY,
            f"goes to {webhook.callback_url}, active for {', '.join(webhook.fields)}",
        )
    sentence = "the app has no webhook for leads, so they come by reconciling only, minutes later"
    remedy = (
        "once Meta can reach the receiver: leadsync connect --only webhook --webhook-url https://.../webhook"
    )
    return Step("webhook", State.LEFT, sentence, remedy)


def _webhook_remedy(error: LeadSyncError, url: str) -> str:
    if isinstance(error, CallbackRefused):
        return (
            f"open {url} from outside: it must be https with a certificate that is not self-signed, lead to the running"
            " receiver, and META_VERIFY_TOKEN must be the same here and there; then run the same command again"
        )
    return "META_APP_ID and META_APP_SECRET must be those of one app (App settings > Basic)"
