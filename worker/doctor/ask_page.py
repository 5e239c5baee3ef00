"""A Page's token -> what Meta tells of the Page: its token, subscription, forms and whether a lead can be listed.

The same calls as the hourly check (probing.py), upon which checking.py acts; this file changes nothing: it derives
no token, subscribes nothing and parks nobody. Invariant: every call under the Page's token is granted first.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

from worker.budget.policy import IN_NO_PAGES_NAME
from worker.calls import Calls, Graph, Read
from worker.doctor.facts import PageTold
from worker.errors import (
    LeadSyncError,
    NotVisibleYet,
    ProofRefused,
    StoreUnavailable,
    TokenRefused,
)
from worker.graph.account import (
    Caller,
    TokenFacts,
    debug_request,
    read_debug,
    read_subscribed,
    subscribed_apps_request,
)
from worker.graph.wire import GraphRequest, read_object, read_result_page
from worker.health import Facts
from worker.page_calls import REFUSED_OTHERWISE, TokenMissing
from worker.probing import PROBE_FIELDS, active_first, with_listing
from worker.tokens import PageTokens

FORMS_LISTED: Final = 25
FORMS_TRIED: Final = 2
"""A refusal may be that of one form alone."""

T = TypeVar("T")


class Rows(Protocol):
    """What this file needs of the rows of health."""

    async def webhooks(self, page_id: str, now: datetime) -> dict[str, Any]: ...


class PageAsker:
    """Asks. `clock` gives aware UTC."""

    def __init__(
        self,
        *,
        graph: Graph,
        calls: Calls,
        caller: Caller,
        tokens: PageTokens,
        rows: Rows,
        clock: Callable[[], datetime],
    ) -> None:
        self._graph = graph
        self._calls = calls
        self._caller = caller
        self._tokens = tokens
        self._rows = rows
        self._clock = clock

    async def ask(self, page_id: str) -> PageTold:
        """What Meta tells of the Page. Raises where the token cannot be looked up, or no call granted at all."""
        facts = Facts(self._clock(), page_id, bool(self._caller.app_id))
        facts = replace(facts, **await self._rows.webhooks(page_id, facts.now))
        try:
            token = await self._tokens.token_for(page_id)
        except TokenRefused as error:
            return PageTold(replace(facts, refusal=TokenMissing.told_apart(error)))
        if facts.has_app:
            facts = replace(facts, token=await self._debug(token))
        return await _Talk(page_id, token, self._calls, self._caller).all(facts)

    async def _debug(self, token: str) -> TokenFacts | LeadSyncError:
        try:
            answer = await self._graph.ask(debug_request(self._caller, [token]), IN_NO_PAGES_NAME)
            return read_debug(answer, 1, self._clock())[0]
        except LeadSyncError as error:
            return error


class _Talk:
    """The calls of one look at a Page; the first refused token ends them."""

    def __init__(self, page_id: str, token: str, calls: Calls, caller: Caller) -> None:
        self._page_id = page_id
        self._token = token
        self._calls = calls
        self._caller = caller
        self._refusal: LeadSyncError | None = None
        self._answered = False

    async def all(self, facts: Facts) -> PageTold:
        """Subscription, forms, a lead."""
        if facts.has_app:
            facts = await self._subscription(facts)
        listed = await self._forms()
        forms = listed if isinstance(listed, LeadSyncError) else len(listed)
        form_ids = () if isinstance(listed, LeadSyncError) else listed[:FORMS_TRIED]
        facts = replace(facts, has_form=bool(form_ids))
        for form_id in form_ids:
            if not facts.was_listed:
                facts = await self._lead(facts, form_id)
        return PageTold(replace(facts, refusal=self._refusal, answered=self._answered), forms)

    async def _subscription(self, facts: Facts) -> Facts:
        app_id = self._caller.app_id
        request = subscribed_apps_request(self._caller, self._page_id, self._token)
        told = await self._own(request, lambda answer, now: read_subscribed(answer, app_id, now))
        if isinstance(told, LeadSyncError):
            return replace(facts, subscribed=told)
        return replace(facts, subscribed=told or (), is_installed=told is not None)

    async def _forms(self) -> tuple[str, ...] | LeadSyncError:
        """Ids, those of active forms first."""
        query = (("fields", "id,status"), ("limit", str(FORMS_LISTED)))
        request = self._caller.request(
            "GET", f"{self._page_id}/leadgen_forms", self._token, query=query, kind="forms"
        )
        told = await self._own(request, read_result_page)
        if isinstance(told, LeadSyncError):
            return told
        return active_first(told)

    async def _lead(self, facts: Facts, form_id: str) -> Facts:
        """One lead of the form, without ad fields, for which another permission would be needed."""
        query = (("fields", ",".join(PROBE_FIELDS)), ("limit", "1"))
        told = await self._own(
            self._caller.request("GET", f"{form_id}/leads", self._token, query=query, kind="leads"),
            read_result_page,
        )
        facts = with_listing(facts, told)
        if isinstance(told, NotVisibleYet):
            by_id = (("fields", "id"),)
            form = await self._own(
                self._caller.request("GET", form_id, self._token, query=by_id, kind="form"), read_object
            )
            facts = replace(facts, form_shows=facts.form_shows or not isinstance(form, LeadSyncError))
        return facts

    async def _own(self, request: GraphRequest, read: "Read[T]") -> "T | LeadSyncError":
        if self._refusal is not None:
            return self._refusal
        try:
            told = await self._calls.of_page(self._page_id, request, read)
        except StoreUnavailable:
            raise
        except (TokenRefused, ProofRefused) as error:
            self._refusal = error
            return error
        except LeadSyncError as error:
            self._answered |= isinstance(error, REFUSED_OTHERWISE)
            return error
        self._answered = True
        return told
