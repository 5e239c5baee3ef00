"""Pages whose forms are due -> Graph's listing of them -> rows, and a view a form.

    Page -> grant -> result page -> forms -> rows -> views

Forms come without notice: marketing duplicates one, and its leads are announced under an id that nobody has seen.
It is handed Graph, budget, rows, tokens and clock; what Graph's JSON means is form.py's business. Invariant: every
call is granted in the caller's lane; a listing is whole only where `next` was absent; what was told before a listing
broke off is kept.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

import structlog

from worker.budget.policy import Budget, Grant, Lane, Refusal
from worker.errors import (
    LeadSyncError,
    LedgerUnavailable,
    PermissionRefused,
    RequestRefused,
    StoreUnavailable,
    Throttled,
    TokenRefused,
    TooMuchAsked,
)
from worker.form import Form
from worker.granted import answer_of
from worker.graph.wire import FORM_COUNT_FIELDS, FORM_FIELDS, FormRead, ResultPage
from worker.sealing import KeysUnreadable
from worker.tokens import PageTokens

log = structlog.get_logger("forms")

FORMS_LIMIT: Final = 100
"""Forms asked for on one result page."""
MOST_PAGES: Final = 500
"""Pages looked after in one run."""
AT_ONCE: Final = 8
"""Pages looked after at the same time."""


class Graph(Protocol):
    """What this file needs of Graph."""

    async def list_forms(
        self, page_id: str, token: str, grant: Grant, *, limit: int, after: str | None, fields: Sequence[str]
    ) -> ResultPage:
        """One result page of a Page's forms."""

    async def read_form(self, form_id: str, token: str, grant: Grant, *, fields: Sequence[str]) -> FormRead:
        """One form by its id."""


class Rows(Protocol):
    """What this file needs of the forms' rows."""

    async def due_pages(self, *, before: datetime, unseen_before: datetime, most: int) -> tuple[str, ...]: ...
    async def asking(self, page_id: str, now: datetime) -> None: ...
    async def keep_forms(
        self, page_id: str, forms: Sequence[Form], now: datetime, *, listed: bool = True
    ) -> tuple[str, ...]: ...
    async def listed_whole(self, page_id: str, began: datetime) -> None: ...
    async def stale_views(self, page_id: str) -> tuple[str, ...]: ...
    async def refresh_views(self, form_ids: Sequence[str], now: datetime) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class FormAges:
    """After how long a Page's forms are listed again: usually, and where a lead names a form that no listing held."""

    usual: timedelta = timedelta(hours=6)
    unseen: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Discovered:
    """What came of asking for forms: the ids told, and those of them that no listing had held before.

    `whole`: read to the end. Where it is not, `reason` is a fixed word, that of a refusal or of an error, and
    `not_before` the moment before which asking again is no use, where that is known.
    """

    found: tuple[str, ...]
    new: tuple[str, ...]
    whole: bool
    reason: str | None = None
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Ended:
    reason: str
    not_before: datetime | None = None


@dataclass(slots=True)
class _Ask:
    """How Graph is asked: for less from one refusal to the next."""

    page_id: str
    lane: Lane
    limit: int
    fields: Sequence[str] = FORM_FIELDS
    after: str | None = None

    def smaller(self) -> bool:
        """Ask for half; of a single form for its counts only. False where there is no less."""
        if self.limit == 1:
            return self.plainer()
        self.limit = max(1, self.limit // 2)
        return True

    def plainer(self) -> bool:
        """Ask for counts only; false where that was so already."""
        if self.fields is FORM_COUNT_FIELDS:
            return False
        self.fields = FORM_COUNT_FIELDS
        return True


T = TypeVar("T")


class FormFinder:
    """Finds forms. `clock` gives aware UTC."""

    def __init__(
        self,
        *,
        graph: Graph,
        budget: Budget,
        rows: Rows,
        tokens: PageTokens,
        ages: FormAges,
        clock: Callable[[], datetime],
    ) -> None:
        self._graph = graph
        self._budget = budget
        self._rows = rows
        self._tokens = tokens
        self._ages = ages
        self._clock = clock

    async def run(self, stop: Callable[[], bool]) -> dict[str, int]:
        """Look after the Pages that are due, until `stop`; counts. Raises where Redis or Postgres is away."""
        now = self._clock()
        due = await self._rows.due_pages(
            before=now - self._ages.usual, unseen_before=now - self._ages.unseen, most=MOST_PAGES
        )
        counts = {"pages": 0, "forms": 0, "new": 0}
        pages = iter(due)

        async def look_after() -> None:
            for page_id in pages:
                if stop():
                    return
                try:
                    told = await self.discover(page_id)
                except (LedgerUnavailable, StoreUnavailable):
                    raise
                except Exception as error:
                    # A fault of ours with one Page; only its type is told.
                    log.error("forms_failed", page_id=page_id, error=type(error).__name__)
                    continue
                counts["pages"] += told.whole
                counts["forms"] += len(told.found)
                counts["new"] += len(told.new)

        async with asyncio.TaskGroup() as group:
            # A Page whose calls hang holds up one of these, and no other Page.
            for _ in range(min(AT_ONCE, len(due))):
                group.create_task(look_after())
        return counts

    async def discover(self, page_id: str, lane: Lane = Lane.UPKEEP) -> Discovered:
        """List a Page's forms, the archived ones too. Raises where Redis or Postgres is away."""
        began = self._clock()
        await self._rows.asking(page_id, began)
        ask = _Ask(page_id, lane, FORMS_LIMIT)
        found, new, ended = await self._list(ask)
        if ended is None:
            await self._rows.listed_whole(page_id, began)
        elif ended.not_before is None:
            # Live reads find out what is wrong with a Page and park it; here nothing is lost.
            log.info("forms_not_listed", page_id=page_id, reason=ended.reason)
        if new:
            log.info("forms_found", page_id=page_id, forms=len(new))
        await self._refresh_views(page_id)
        return _discovered(found, new, ended)

    async def read_form(self, form_id: str, page_id: str, lane: Lane = Lane.UPKEEP) -> Discovered:
        """Ask for one form of a Page by its id. Raises where Redis or Postgres is away."""
        ask = _Ask(page_id, lane, limit=1)
        told = await self._send(
            ask,
            lambda token, grant: answer_of(
                self._graph.read_form(form_id, token, grant, fields=ask.fields), self._budget, page_id, grant
            ),
        )
        if isinstance(told, _Ended):
            return _discovered((), (), told)
        form = Form.from_graph(told.form)
        if form is None or form.form_id != form_id:
            return _discovered((), (), _Ended("form_malformed"))
        await self._rows.keep_forms(page_id, [form], self._clock(), listed=False)
        await self._rows.refresh_views([form_id], self._clock())
        return _discovered((form_id,), (), None)

    async def _list(self, ask: _Ask) -> tuple[tuple[str, ...], tuple[str, ...], _Ended | None]:
        """Every form's id, the new ones', and why it ended before its end."""
        found: dict[str, None] = {}
        new: list[str] = []
        cursors: set[str | None] = set()
        while True:
            cursors.add(ask.after)
            told = await self._send(
                ask,
                lambda token, grant: answer_of(
                    self._graph.list_forms(
                        ask.page_id, token, grant, limit=ask.limit, after=ask.after, fields=ask.fields
                    ),
                    self._budget,
                    ask.page_id,
                    grant,
                ),
            )
            if isinstance(told, _Ended):
                return tuple(found), tuple(new), told
            forms = {form.form_id: form for entry in told.entries if (form := Form.from_graph(entry))}
            if forms:
                new += await self._rows.keep_forms(ask.page_id, list(forms.values()), self._clock())
            found |= dict.fromkeys(forms)
            ask.after = told.after
            if ask.after is None:
                return tuple(found), tuple(new), None
            if ask.after in cursors:
                return tuple(found), tuple(new), _Ended("cursor_repeated")

    async def _send(self, ask: _Ask, call: Callable[[str, Grant], Awaitable[T]]) -> "T | _Ended":
        """What Graph answers, asked for less as long as it wants to be."""
        renewed = False
        while True:
            token = ""
            try:
                token = await self._tokens.token_for(ask.page_id)
                grant = await self._budget.request(ask.page_id, 1, ask.lane)
                if isinstance(grant, Refusal):
                    return _Ended(grant.reason, grant.not_before)
                return await call(token, grant)
            except TooMuchAsked as error:
                if not ask.smaller():
                    return _Ended(error.reason)
            except (PermissionRefused, RequestRefused) as error:
                if not ask.plainer():
                    return _Ended(error.reason)
                log.warning("form_fields_refused", page_id=ask.page_id, reason=error.reason)
            except KeysUnreadable as error:
                return _Ended(error.reason)
            except (LedgerUnavailable, StoreUnavailable):
                raise
            except Throttled as error:
                return _Ended(error.reason, error.until)
            except TokenRefused as error:
                if not token or renewed or not await self._tokens.has_another(ask.page_id, token):
                    return _Ended(error.reason)
                renewed = True
            except LeadSyncError as error:
                return _Ended(error.reason)

    async def _refresh_views(self, page_id: str) -> None:
        stale = await self._rows.stale_views(page_id)
        if stale:
            await self._rows.refresh_views(stale, self._clock())


def _discovered(found: tuple[str, ...], new: Sequence[str], ended: _Ended | None) -> Discovered:
    if ended is None:
        return Discovered(found, tuple(new), whole=True)
    return Discovered(found, tuple(new), False, ended.reason, ended.not_before)
