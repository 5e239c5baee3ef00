"""Graph and the callback -> facts about the app: one call under its own token, one handshake, one empty delivery.

It judges nothing. Invariant: of Graph's answer only codes, headers and the app's own webhook are kept.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Protocol

from worker.budget.policy import IN_NO_PAGES_NAME, Grant
from worker.doctor.facts import CallbackFacts, MetaFacts
from worker.doctor.findings import Unknown
from worker.errors import LeadSyncError
from worker.graph.account import AppSubscription, Caller, read_subscriptions, subscriptions_request
from worker.graph.wire import GraphAnswer, GraphRequest
from worker.handshaking import deliver_nothing, shake

NO_APP_ID = Unknown("META_APP_ID is not set")


class Graph(Protocol):
    """What this file needs of Graph."""

    async def ask(self, request: GraphRequest, grant: Grant) -> GraphAnswer: ...


async def ask_meta(graph: Graph, caller: Caller, clock: Callable[[], datetime]) -> MetaFacts:
    """About Graph and the app. Raises GraphUnavailable where nobody answers."""
    # Without an app there is nothing to ask for; the refusal tells clock and version all the same.
    request = subscriptions_request(caller) if caller.app_id else GraphRequest("GET", f"/{caller.version}/me")
    asked_at = clock()
    answer = await graph.ask(request, IN_NO_PAGES_NAME)
    meanwhile = (clock() - asked_at) / 2
    app = _app(answer, clock()) if caller.app_id else NO_APP_ID
    served = answer.headers.get("facebook-api-version")
    return MetaFacts(served, _offset(answer.headers.get("date"), asked_at + meanwhile), app)


def _app(answer: GraphAnswer, now: datetime) -> AppSubscription | LeadSyncError | None:
    try:
        told = read_subscriptions(answer, now)
    except LeadSyncError as error:
        return error
    return next((each for each in told if each.object == "page"), None)


def _offset(date: str | None, ours: datetime) -> timedelta | None:
    """Meta's clock less ours. https://www.rfc-editor.org/rfc/rfc9110#name-date"""
    try:
        return parsedate_to_datetime(date or "") - ours
    except (TypeError, ValueError):
        return None


async def ask_callback(url: str, verify_token: str, app_secret: str | Unknown) -> CallbackFacts:
    """About whoever answers at the callback."""
    shaken = await shake(url, verify_token) if verify_token else Unknown("META_VERIFY_TOKEN is not set")
    if isinstance(app_secret, Unknown):
        return CallbackFacts(url, shaken, app_secret)
    if shaken is not None and not isinstance(shaken, Unknown) and shaken.status is None:
        return CallbackFacts(url, shaken, Unknown("nobody answers at the callback, see meta.handshake"))
    return CallbackFacts(url, shaken, await deliver_nothing(url, app_secret))
