"""A call that was granted -> what Graph answered, once the budget has heard of it.

The one way from a grant to Graph: it asks for no grant and judges nothing. Invariant: every answer of Graph's, an error
too, is told to the budget before its caller sees it, so nobody asks again for a scope that is still on trial. Of a call
without an answer nothing is told, and its trial ends by time.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, Protocol, TypeVar

import structlog

from worker.budget.policy import Grant
from worker.errors import LeadSyncError, LedgerUnavailable, Throttled
from worker.graph.usage import Usage
from worker.graph.wire import GraphAnswer, GraphRequest, LeadsRead, reading

log = structlog.get_logger("budget")


class Answered(Protocol):
    """What Graph answered."""

    @property
    def usages(self) -> tuple[Usage, ...]: ...


class Ear(Protocol):
    """What this file needs of the budget."""

    async def heard(
        self, page_id: str, grant: Grant, usages: tuple[Usage, ...], *, also: tuple[str, ...] = ()
    ) -> None: ...
    async def throttled(
        self,
        page_id: str,
        scope: str,
        usages: tuple[Usage, ...],
        regain: timedelta | None,
        *,
        also: tuple[str, ...] = (),
    ) -> datetime: ...


class Asks(Protocol):
    """What this file needs of Graph."""

    async def ask(self, request: GraphRequest, grant: Grant) -> GraphAnswer: ...


A = TypeVar("A", bound=Answered)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """What was read from an answer."""

    value: T = field(repr=False)
    usages: tuple[Usage, ...]


async def answer_of(
    call: Awaitable[A], budget: Ear, page_id: str, grant: Grant, *, also: tuple[str, ...] = ()
) -> A:
    """What the call under `grant` answers. Raises what it met; throttles say until when the budget closed the scope.

    A budget that cannot be told changes nothing of an answer that is paid for.
    """
    try:
        answer = await call
    except Throttled as error:
        await _close([error], budget, page_id, error.usages or (), also)
        raise
    except LeadSyncError as error:
        if error.usages is not None:
            await _tell(budget, page_id, grant, error.usages, also)
        raise
    throttles = [e for e in answer.leads if isinstance(e, Throttled)] if isinstance(answer, LeadsRead) else []
    if throttles:
        await _close(throttles, budget, page_id, answer.usages, also)
    else:
        await _tell(budget, page_id, grant, answer.usages, also)
    return answer


async def found_by(
    graph: Asks,
    request: GraphRequest,
    read: Callable[[GraphAnswer, datetime], T],
    clock: Callable[[], datetime],
    budget: Ear,
    page_id: str,
    grant: Grant,
) -> T:
    """What `read` finds in Graph's answer to `request`, under `grant`. Raises what the call met."""

    async def call() -> Found[T]:
        answer = await graph.ask(request, grant)
        with reading(answer.headers) as usages:
            return Found(read(answer, clock()), usages)

    return (await answer_of(call(), budget, page_id, grant)).value


async def _tell(
    budget: Ear, page_id: str, grant: Grant, usages: tuple[Usage, ...], also: tuple[str, ...]
) -> None:
    try:
        await budget.heard(page_id, grant, usages, also=also)
    except LedgerUnavailable:
        log.warning("usage_not_noted", page_id=page_id)


async def _close(
    throttles: Sequence[Throttled],
    budget: Ear,
    page_id: str,
    usages: tuple[Usage, ...],
    also: tuple[str, ...],
) -> None:
    """Tell each scope once, and each throttle what the budget makes of it."""
    for scope in dict.fromkeys(error.scope for error in throttles):
        of_scope = [error for error in throttles if error.scope == scope]
        try:
            until = await budget.throttled(page_id, scope, usages, of_scope[0].regain, also=also)
        except LedgerUnavailable:
            log.warning("throttle_not_noted", page_id=page_id, scope=scope)
            continue
        for error in of_scope:
            error.until = until
