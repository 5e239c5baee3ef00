"""A request and Graph's answer -> the calls that it was, each with what it asked for and how it ended. Pure.

For requests whose answers other files read (`GraphClient.ask`); what the client reads itself it counts itself, since
to decipher a result page twice would cost. Invariant: a batch is as many calls as it has items, as Meta counts them,
or one of kind `batch` where it failed as a whole and nobody knows which of its calls were made.
https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, TypeAlias

from worker.errors import LeadSyncError
from worker.graph.wire import GraphAnswer, GraphRequest, read_items, read_object
from worker.metrics import GIVEN_UP, OK

BATCH: Final = "batch"

Call: TypeAlias = tuple[str, str]
"""What was asked for, and how it ended: words of metrics.KINDS and metrics.RESULTS."""


def calls_of(request: GraphRequest, answer: GraphAnswer, now: datetime) -> list[Call]:
    """The calls that a request turned out to be."""
    try:
        if request.items:
            return each(request.kind, read_items(answer, request.items, now))
        read_object(answer, now)
    except LeadSyncError as error:
        return [failed(request, error)]
    return [(request.kind, OK)]


def each(kind: str, items: "Iterable[object | LeadSyncError]") -> list[Call]:
    """The calls of a batch that was answered, item by item."""
    return [(kind, item.reason if isinstance(item, LeadSyncError) else OK) for item in items]


def failed(request: GraphRequest, error: LeadSyncError) -> Call:
    """A request that failed as a whole."""
    return _kind(request), error.reason


def given_up(request: GraphRequest) -> Call:
    """A request whose answer nobody waited for."""
    return _kind(request), GIVEN_UP


def _kind(request: GraphRequest) -> str:
    return BATCH if request.items else request.kind
