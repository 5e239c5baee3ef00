"""A request that concerns a Page, or none -> grant -> Graph -> what was read from its answer.

It builds no request and reads no answer itself (graph/account.py does). Invariant: every call under a Page's token is
granted first and told to the budget afterwards (granted.py); a call that was not sent is granted anew, a few times.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol, TypeVar

from worker.budget.policy import IN_NO_PAGES_NAME, Budget, Grant, Lane, Refusal
from worker.errors import GrantLapsed, LeadSyncError
from worker.granted import found_by
from worker.graph.wire import GraphAnswer, GraphRequest

LAPSES: Final = 3
"""So often at most a call is begun that each time was not sent."""

T = TypeVar("T")
Read = Callable[[GraphAnswer, datetime], T]
"""What an answer holds, read at a moment. Raises an error of errors.py."""


class Graph(Protocol):
    """What this file needs of Graph."""

    async def ask(self, request: GraphRequest, grant: Grant) -> GraphAnswer: ...


class NoCallNow(LeadSyncError):
    """The budget grants the Page no call for the moment; nothing was sent. `reason` is that of the refusal."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Calls:
    """Asks Graph, in a Page's name or in nobody's. `clock` gives aware UTC."""

    def __init__(self, graph: Graph, budget: Budget, clock: Callable[[], datetime]) -> None:
        self._graph = graph
        self._budget = budget
        self._clock = clock

    async def of_nobody(self, request: GraphRequest, read: "Read[T]") -> T:
        """Ask under an app's or a person's own token. Raises what the call met."""
        lapses = 0
        while True:
            try:
                return read(await self._graph.ask(request, IN_NO_PAGES_NAME), self._clock())
            except GrantLapsed:
                lapses += 1
                if lapses == LAPSES:
                    raise

    async def of_page(self, page_id: str, request: GraphRequest, read: "Read[T]") -> T:
        """Ask under the Page's token. Raises NoCallNow, or what the call met."""
        lapses = 0
        while True:
            grant = await self._budget.request(page_id, 1, Lane.UPKEEP)
            if isinstance(grant, Refusal):
                raise NoCallNow(
                    f"no call is left for Page {page_id} ({grant.reason}) before"
                    f" {grant.not_before:%Y-%m-%d %H:%M:%S} UTC",
                    grant.reason,
                )
            try:
                return await found_by(self._graph, request, read, self._clock, self._budget, page_id, grant)
            except GrantLapsed:
                lapses += 1
                if lapses == LAPSES:
                    raise
