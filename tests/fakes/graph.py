"""A Graph and a budget without a socket: told what to answer, remembering what they were asked."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias, TypeVar

from tests.fakes.leads import graph_lead
from tests.fakes.time import NOW
from worker.budget.policy import Answer, Grant, Lane
from worker.errors import LeadSyncError, TokenRefused, TooMuchAsked
from worker.graph.usage import Usage
from worker.graph.wire import FULL_FIELDS, FormRead, LeadsRead, ResultPage

Item: TypeAlias = "object | LeadSyncError"
Said: TypeAlias = "Exception | LeadsRead | Callable[[Sequence[str], Sequence[str]], LeadsRead]"


E = TypeVar("E", bound=LeadSyncError)


def answered(error: E, *usages: Usage) -> E:
    """The error as an answer of Graph's, with these usages in its headers."""
    error.usages = usages
    return error


@dataclass
class FakeGraph:
    """Holds every lead that is asked for, unless it is told otherwise.

    `says` are answers to the next requests, in order; `items` what stands in place of a lead, each time it is asked
    for; `refuses_ad_fields` raises this for every request with the full list; `at_most` leads a request.
    """

    says: deque[Said] = field(default_factory=deque)
    items: dict[str, deque[Item]] = field(default_factory=dict)
    refuses_ad_fields: LeadSyncError | None = None
    at_most: int = 50
    asked: list[tuple[tuple[str, ...], bool]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    pages_say: deque["Exception | ResultPage"] = field(default_factory=deque)
    listed: list[tuple[str, int, int, int, str | None]] = field(default_factory=list)

    async def list_leads(
        self, form_id: str, since: int, until: int, fields: Sequence[str], token: str, grant: Grant, *,
        limit: int, after: str | None,
    ) -> ResultPage:  # fmt: skip
        """The result pages that it was told to answer, in order; then empty ones."""
        self.listed.append((form_id, since, until, limit, after))
        said = self.pages_say.popleft() if self.pages_say else ResultPage((), None, ())
        if isinstance(said, Exception):
            raise said
        return said

    async def read_leads(
        self, leadgen_ids: Sequence[str], fields: Sequence[str], token: str, grant: Grant
    ) -> LeadsRead:
        full = fields is FULL_FIELDS
        self.asked.append((tuple(leadgen_ids), full))
        self.tokens.append(token)
        if self.says:
            said = self.says.popleft()
            if isinstance(said, Exception):
                raise said
            return said if isinstance(said, LeadsRead) else said(leadgen_ids, fields)
        if len(leadgen_ids) > self.at_most:
            raise TooMuchAsked("told")
        if full and self.refuses_ad_fields is not None:
            raise self.refuses_ad_fields
        return LeadsRead(tuple(self._item(leadgen_id) for leadgen_id in leadgen_ids), ())

    def _item(self, leadgen_id: str) -> Item:
        queued = self.items.get(leadgen_id)
        return queued.popleft() if queued else graph_lead(leadgen_id)


@dataclass
class FormGraph(FakeGraph):
    """Forms whose leads were `created` (form -> lead -> unix second), listed newest first, `per_page` at most.

    `faults` is asked before each answer for what to raise instead; an answer takes `takes` seconds. `lists` are the
    listings of a form at this moment, `most_at_once` the most that there were.
    """

    created: dict[str, dict[str, float]] = field(default_factory=dict)
    per_page: int = 500
    takes: float = 0.0
    faults: Callable[[], "Exception | None"] = lambda: None
    lists: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0

    async def list_leads(
        self, form_id: str, since: int, until: int, fields: Sequence[str], token: str, grant: Grant, *,
        limit: int, after: str | None,
    ) -> ResultPage:  # fmt: skip
        """The form's leads created in [since, until), from the cursor on."""
        self.listed.append((form_id, since, until, limit, after))
        self.lists[form_id] += 1
        self.most_at_once = max(self.most_at_once, self.lists[form_id])
        try:
            await self._answer()
        finally:
            self.lists[form_id] -= 1
        of_form = self.created.get(form_id, {})
        found = sorted((i for i, at in of_form.items() if since <= at < until), key=lambda i: -of_form[i])
        start = int(after.removeprefix("after-")) if after else 0
        end = start + min(limit, self.per_page)
        entries = tuple(graph_lead(i, form_id=form_id) for i in found[start:end])
        return ResultPage(entries, f"after-{end}" if end < len(found) else None, ())

    async def read_leads(
        self, leadgen_ids: Sequence[str], fields: Sequence[str], token: str, grant: Grant
    ) -> LeadsRead:
        await self._answer()
        return await super().read_leads(leadgen_ids, fields, token, grant)

    async def _answer(self) -> None:
        await asyncio.sleep(self.takes)
        if fault := self.faults():
            raise fault

    def read_ids(self) -> list[str]:
        """What was read by id."""
        return [leadgen_id for asked, _ in self.asked for leadgen_id in asked]


@dataclass
class PagesGraph:
    """Each Page's forms, as the result pages that it was told to answer, then an empty one; forms by their id.

    `hangs` until it is set. `listed`: Page, limit, cursor and fields of each listing; `read`: form and fields.
    """

    says: defaultdict[str, deque["Exception | ResultPage"]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    forms: dict[str, deque["Exception | object"]] = field(default_factory=dict)
    usages: tuple[Usage, ...] = ()
    listed: list[tuple[str, int, str | None, Sequence[str]]] = field(default_factory=list)
    read: list[tuple[str, Sequence[str]]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    hangs: dict[str, asyncio.Event] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0

    async def list_forms(
        self, page_id: str, token: str, grant: Grant, *, limit: int, after: str | None, fields: Sequence[str]
    ) -> ResultPage:
        self.listed.append((page_id, limit, after, fields))
        self.tokens.append(token)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await (self.hangs[page_id].wait() if page_id in self.hangs else asyncio.sleep(0))
        finally:
            self.at_once -= 1
        said = self.says[page_id].popleft() if self.says[page_id] else ResultPage((), None, ())
        if isinstance(said, Exception):
            raise said
        return said

    async def read_form(self, form_id: str, token: str, grant: Grant, *, fields: Sequence[str]) -> FormRead:
        self.read.append((form_id, fields))
        self.tokens.append(token)
        said = self.forms[form_id].popleft()
        if isinstance(said, Exception):
            raise said
        return FormRead(said, self.usages)


@dataclass
class FakeBudget:
    """Grants all that is asked, at most `grants` calls at once, after giving the answers it was told to give."""

    says: deque[Answer | LeadSyncError] = field(default_factory=deque)
    grants: int = 1_000
    left: int = 1_000_000
    fails_to_close: LeadSyncError | None = None
    closes_for: timedelta | None = None
    asked: list[tuple[str, int, Lane]] = field(default_factory=list)
    closed: list[tuple[str, str, timedelta | None]] = field(default_factory=list)
    closed_with: list[tuple[Usage, ...]] = field(default_factory=list)
    usages: list[tuple[str, tuple[Usage, ...]]] = field(default_factory=list)
    savings: list[tuple[str, int]] = field(default_factory=list)

    async def request(self, page_id: str, calls: int, lane: Lane, *, also: tuple[str, ...] = ()) -> Answer:
        self.asked.append((page_id, calls, lane))
        if self.says:
            said = self.says.popleft()
            if isinstance(said, LeadSyncError):
                raise said
            return said
        return Grant(min(calls, self.grants), float("inf"), self.left)

    async def heard(
        self, page_id: str, grant: Grant, usages: tuple[Usage, ...], *, also: tuple[str, ...] = ()
    ) -> None:
        self.usages.append((page_id, usages))

    async def throttled(
        self,
        page_id: str,
        scope: str,
        usages: tuple[Usage, ...],
        regain: timedelta | None,
        *,
        also: tuple[str, ...] = (),
    ) -> datetime:
        if self.fails_to_close is not None:
            raise self.fails_to_close
        self.closed.append((page_id, scope, regain))
        self.closed_with.append(usages)
        return NOW + (self.closes_for or regain or timedelta(minutes=5))

    async def saved(self, page_id: str, calls: int) -> None:
        self.savings.append((page_id, calls))


@dataclass
class FakeTokens:
    """Every Page has a token named after it, save those without."""

    without: frozenset[str] = frozenset()
    others: dict[str, list[str]] = field(default_factory=dict)
    """Tokens that come after the first one of a Page was refused."""

    async def token_for(self, page_id: str) -> str:
        if page_id in self.without:
            raise TokenRefused(f"no token for Page {page_id}")
        return self._current.get(page_id, f"token-of-{page_id}")

    async def has_another(self, page_id: str, refused: str) -> bool:
        if self.others.get(page_id):
            self._current[page_id] = self.others[page_id].pop(0)
        return self._current.get(page_id, refused) != refused

    _current: dict[str, str] = field(default_factory=dict)
