"""A Page -> what Graph and the rows tell of it: token, subscription, lead access, webhooks -> Facts.

    talk -> subscription, the app's webhook -> a form's listing, waiting leads -> the token's own facts

The only calls that are made for a parked Page. It judges nothing (health.py does) and renews no token (page_calls.py
does). Invariant: two or three calls count for a Page that is well; an error stands where the answer would have been.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog

from worker.calls import Calls, NoCallNow
from worker.errors import Blocked, LeadSyncError, NotVisibleYet, PermissionRefused, Throttled, Transient
from worker.graph.account import (
    LEADGEN,
    AppSubscription,
    Caller,
    TokenFacts,
    debug_request,
    page_request,
    read_debug,
    read_subscribed,
    read_subscriptions,
    read_success,
    subscribe_request,
    subscribed_apps_request,
    subscriptions_request,
)
from worker.graph.wire import ResultPage, read_answer, read_object, read_result_page
from worker.health import Facts, asks_for_rows
from worker.inbox import is_id
from worker.lead import graph_time
from worker.page_calls import PageCalls, Talk

log = structlog.get_logger("health")

WEBHOOK_KEPT: Final = timedelta(minutes=10)
"""The app's own subscription is one for all Pages."""
PROBE_FIELDS: Final = ("id", "created_time")


class Rows(Protocol):
    """What this file needs of the rows."""

    async def probes(self, page_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]: ...
    async def webhooks(self, page_id: str, now: datetime) -> dict[str, Any]: ...


class Prober:
    """Finds out how a Page is. `resubscribe`: a subscription that is lost is set again. `clock` gives aware UTC."""

    def __init__(
        self,
        *,
        calls: Calls,
        page_calls: PageCalls,
        caller: Caller,
        rows: Rows,
        resubscribe: bool,
        clock: Callable[[], datetime],
    ) -> None:
        self._calls = calls
        self._page_calls = page_calls
        self._caller = caller
        self._rows = rows
        self._resubscribe = resubscribe
        self._clock = clock
        self._webhook: tuple[datetime, AppSubscription | LeadSyncError | None] | None = None

    async def facts(self, page_id: str, parked_reason: str | None) -> Facts:
        """All that can be found out of a Page, parked for this reason. Raises where Redis or Postgres is away."""
        talk = await self._page_calls.begin(page_id)
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
        await self._page_calls.end(talk)
        return facts

    async def _debug(self, talk: Talk) -> TokenFacts | LeadSyncError:
        """Meta's own word on the token; not on the Page's account, since it is asked under the app's."""
        request = debug_request(self._caller, [talk.token])
        try:
            told = await self._calls.of_nobody(request, lambda answer, now: read_debug(answer, 1, now))
            return told[0]
        except LeadSyncError as error:
            return error

    async def _subscription(self, talk: Talk, facts: Facts) -> Facts:
        fields = await self._subscribed(talk)
        if isinstance(fields, LeadSyncError):
            return replace(facts, subscribed=fields)
        set_again = False
        if LEADGEN not in (fields or ()) and self._resubscribe:
            wanted = (*(fields or ()), LEADGEN)
            done = await self._page_calls.ask(
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

    async def _subscribed(self, talk: Talk) -> tuple[str, ...] | LeadSyncError | None:
        return await self._page_calls.ask(
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
                told = await self._calls.of_nobody(subscriptions_request(self._caller), read_subscriptions)
                found = next((each for each in told if each.object == "page"), None)
            except LeadSyncError as error:
                found = error
            kept = isinstance(found, AppSubscription)
            self._webhook = (now + WEBHOOK_KEPT if kept else now, found)
        return self._webhook[1]

    async def _lead_access(self, talk: Talk, facts: Facts, parked_reason: str | None) -> Facts:
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

    async def _forms(self, talk: Talk) -> tuple[str, ...]:
        """One of the Page's forms, where none is known here yet."""
        query = (("fields", "id,status"), ("limit", "25"))
        told = await self._page_calls.ask(
            talk,
            lambda token: self._caller.request(
                "GET", f"{talk.page_id}/leadgen_forms", token, query=query, kind="forms"
            ),
            read_result_page,
        )
        if isinstance(told, LeadSyncError):
            return ()
        return active_first(told)[:1]

    async def _list_one(self, talk: Talk, facts: Facts, form_id: str) -> Facts:
        """A lead of the form, without ad fields, for which another permission would be needed."""
        query = (("fields", ",".join(PROBE_FIELDS)), ("limit", "1"))
        told = await self._page_calls.ask(
            talk,
            lambda token: self._caller.request("GET", f"{form_id}/leads", token, query=query, kind="leads"),
            read_result_page,
        )
        facts = with_listing(facts, told)
        if isinstance(told, NotVisibleYet):
            by_id = (("fields", "id"),)
            form = await self._page_calls.ask(
                talk,
                lambda token: self._caller.request("GET", form_id, token, query=by_id, kind="form"),
                read_object,
            )
            shows = facts.form_shows or not isinstance(form, LeadSyncError)
            facts = replace(facts, form_shows=shows)
        return facts

    async def _can_access(self, talk: Talk) -> bool | None:
        """What Meta says of lead access; None where it does not: it never does of a system user."""
        account = await self._page_calls.account_of(talk.page_id)
        if account is None:
            return None
        asked = f"has_lead_access.user_id({account.user_id}).app_id({self._caller.app_id})"
        told = await self._page_calls.ask(
            talk, lambda token: page_request(self._caller, talk.page_id, (asked,), token), read_object
        )
        access = told.get("has_lead_access") if isinstance(told, dict) else None
        if not isinstance(access, dict) or not isinstance(access.get("can_access_lead"), bool):
            return None
        return access["can_access_lead"] and access.get("app_has_leads_permission") is not False

    async def _read_rows(self, talk: Talk, rows: tuple[str, ...]) -> tuple[LeadSyncError | None, ...]:
        """What waiting leads give, one by one up to the first that can be read."""
        errors: list[LeadSyncError | None] = []
        for leadgen_id in rows:
            told = await self._read_row(talk, leadgen_id)
            errors.append(told)
            if told is None or isinstance(told, Blocked | NoCallNow | Throttled | Transient):
                break
        return tuple(errors)

    async def _read_row(self, talk: Talk, leadgen_id: str) -> LeadSyncError | None:
        query = (("fields", ",".join(PROBE_FIELDS)),)
        told = await self._page_calls.ask(
            talk,
            lambda token: self._caller.request("GET", leadgen_id, token, query=query, kind="lead"),
            lambda answer, now: read_answer(answer, (leadgen_id,), now),
        )
        return told if isinstance(told, LeadSyncError) else None


def with_listing(facts: Facts, told: ResultPage | LeadSyncError) -> Facts:
    """The facts with what a form's listing gave; a refused permission says more than another error, and stays."""
    if not isinstance(told, LeadSyncError):
        times = [graph_time(each.get("created_time")) for each in told.entries if isinstance(each, dict)]
        return replace(facts, listing=None, was_listed=True, listed_time=times[0] if times else None)
    return facts if isinstance(facts.listing, PermissionRefused) else replace(facts, listing=told)


def active_first(told: ResultPage) -> tuple[str, ...]:
    """The ids of the forms on a result page, those of active ones first."""
    found = [each for each in told.entries if isinstance(each, dict) and is_id(str(each.get("id")))]
    found.sort(key=lambda each: each.get("status") != "ACTIVE")
    return tuple(str(each["id"]) for each in found)
