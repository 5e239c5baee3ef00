"""The words and the sums of the budget: who asks, what is granted, how much a Page may spend and who goes first. Pure.

It counts nothing: the ledger does, with the numbers from here. Invariants: a refusal is a value, not an error; a
grant covers at least one call and expires; what is granted is always less than what Meta allows, since at 100% Meta
closes a Page.
https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol, TypeAlias

from worker.graph.usage import Usage

CALLS_PER_LEAD: Final = 200 * 24
"""Calls a Page may make in 24 hours, for each lead of the last 90 days.
https://developers.facebook.com/docs/marketing-api/guides/lead-ads/retrieving"""
LEADS_OF: Final = timedelta(days=89)
"""Leads are counted over a day less than Meta counts, so that none ages out of Meta's count after we spent on it."""
COUNTED_LEADS: Final = 100_000
"""Nobody spends 480 million calls a day, so counting ends here."""
FORMS_COUNTED_FOR: Final = timedelta(days=1)
"""Older counts of a form's leads no longer say anything of the last 90 days."""
BUCKETS: Final = 288


class Lane(StrEnum):
    """What the calls are for, the most urgent first. A waiting reference is an announced lead that was refused once."""

    LIVE = "live"
    WAITING = "waiting"
    BACKFILL = "backfill"
    UPKEEP = "upkeep"


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to make `calls` calls for one Page before `deadline`, a moment of the steady clock in seconds.

    One item of a batch is one call. `left` calls more could have been had. `on_trial`: scopes that were closed and
    are being tried with this one call; nothing else is granted in them until its answer is told.
    """

    calls: int
    deadline: float
    left: int = 0
    on_trial: tuple[str, ...] = ()


IN_NO_PAGES_NAME: Final = Grant(1, math.inf)
"""Leave for a call under an app's or a person's own token, which Meta counts for no Page."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No call before `not_before` (aware UTC). `reason` is `budget` or `throttled_` and the scope that Meta closed."""

    not_before: datetime
    reason: str


Answer: TypeAlias = Grant | Refusal


class Budget(Protocol):
    """Grants calls. Raises LedgerUnavailable where the ledger cannot be asked, StoreUnavailable where its memory."""

    async def request(self, page_id: str, calls: int, lane: Lane, *, also: tuple[str, ...] = ()) -> Answer:
        """Leave for 1 to `calls` calls of `page_id`, or a refusal. `also`: further scopes that they fall in."""

    async def heard(
        self, page_id: str, grant: Grant, usages: tuple[Usage, ...], *, also: tuple[str, ...] = ()
    ) -> None:
        """An answer that was no throttle came, with Meta's word on what is used."""

    async def throttled(
        self,
        page_id: str,
        scope: str,
        usages: tuple[Usage, ...],
        regain: timedelta | None,
        *,
        also: tuple[str, ...] = (),
    ) -> datetime:
        """Meta throttled `scope`, a word of graph/faults.py; until when nothing is granted in it."""

    async def saved(self, page_id: str, calls: int) -> None:
        """So many calls were not needed, because a listing brought the leads."""


@dataclass(frozen=True, slots=True)
class Window:
    """The rolling window that Meta counts in, and what follows from its length. All in seconds.

    What it costs in time: a call is held against the limit for the window, the life of its grant, the jump of a clock
    that goes unnoticed and the rest of its bucket, so on the day it comes back 70 seconds to 6 minutes 10 later than
    at Meta: 0.3% of the limit at a steady pace.
    """

    seconds: float = 86_400.0

    @property
    def bucket(self) -> float:
        """Calls are counted in buckets of this length and leave together."""
        return self.seconds / BUCKETS

    @property
    def life(self) -> float:
        """A grant that is not used by then is void."""
        return min(max(self.seconds / 8_640, 1.0), 10.0)

    @property
    def jump(self) -> float:
        """A clock that moves by less than half of this either way against a steady one is not suspected."""
        return min(max(self.seconds / 1_440, 1.0), 60.0)

    @property
    def hold(self) -> float:
        """How long a call counts after the end of its bucket."""
        return self.seconds + self.life + self.jump

    @property
    def recent(self) -> float:
        """How far back a lane's recent rate is looked at; how long Meta's word stands: an hour of the day."""
        return self.seconds / 24

    @property
    def first_pause(self) -> float:
        """How long a throttled scope stays closed where Meta names no time, the first time: 5 minutes of the day."""
        return self.seconds / 288

    @property
    def longest_pause(self) -> float:
        """The most that doubling the pause leads to: an hour of the day."""
        return self.seconds / 24

    @property
    def trial(self) -> float:
        """How long the one call that tries a scope has for its answer."""
        return max(self.life, 30.0) if self.seconds >= 3_600 else 5.0

    @property
    def block_life(self) -> float:
        """How long calls that were reserved may be spent; a short window's too outlast a few grants."""
        return max(self.seconds / 96, 3 * self.life)


@dataclass(frozen=True, slots=True)
class Shares:
    """How a Page's limit is shared out, as parts of it.

    `live` is kept from backfill and upkeep at least, `over_waiting` from waiting references, so that a lead that has
    just come does not queue behind them; both grow with the recent rate of live leads, up to `most`. The others are
    each lane's minimum, kept for it only while it has been refused lately.
    """

    live: float = 0.05
    over_waiting: float = 0.002
    most: float = 0.9
    waiting: float = 0.05
    backfill: float = 0.05
    upkeep: float = 0.02


@dataclass(frozen=True, slots=True)
class Limit:
    """`calls` that a Page may be granted in a window, of `told` that Meta allows it; `origin` says why so many."""

    calls: int
    told: int
    origin: str


@dataclass(frozen=True, slots=True)
class Spent:
    """Calls of one lane that may have been made until `age` seconds ago."""

    age: float
    lane: Lane
    calls: int


def limit_of(*, ours: int, metas: int, override: int | None, floor: int, share: float) -> Limit:
    """A Page's limit from the leads of LEADS_OF in our rows and from Meta's own count of its forms' leads.

    Meta counts its own, so the larger is used; `floor` calls where neither knows a lead. `override` beats all, and
    `share` (0 to 1) is what we take of a limit that was worked out.
    """
    if override is not None:
        return Limit(_less_than(override), override, "override")
    leads = max(ours, metas)
    told = max(CALLS_PER_LEAD * leads, floor)
    origin = "floor" if told > CALLS_PER_LEAD * leads else "our rows" if ours >= metas else "Meta's forms"
    return Limit(min(int(told * share), _less_than(told)), told, origin)


def _less_than(told: int) -> int:
    """All but the last call: with it Meta's percentage is 100, which closes the Page."""
    return told - 1 if told > 1 else told


def block_of(asked: int, limit: int) -> int:
    """How many calls are reserved at once when `asked` are needed: these, or a 400th of the limit."""
    return max(asked, min(5_000, limit // 400))


def backfill_allowance(limit: int, live: int, shares: Shares) -> int:
    """Calls a window that backfill may spend beside `live` ones (announced leads of the last window)."""
    kept = max(math.ceil(shares.live * limit), math.ceil(1.1 * live))
    return limit - min(kept, math.floor(shares.most * limit))


def cadence(
    *, calls_a_round: int, limit: int, live: int, window: Window, shares: Shares, soonest: timedelta
) -> timedelta:
    """How often a Page's forms can be reconciled: `soonest`, or as often as the budget leaves `calls_a_round`.

    A tenth of what backfill may spend is left to other backfills.
    """
    allowed = 0.9 * backfill_allowance(limit, live, shares)
    if allowed < 1:
        return max(soonest, timedelta(seconds=window.seconds))
    return max(soonest, timedelta(seconds=window.seconds * calls_a_round / allowed))


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a planned backfill costs: `calls` in all, `now` of them at once, done after `lasts`."""

    calls: int
    now: int
    lasts: timedelta


def forecast(
    *,
    calls: int,
    limit: int,
    live: int,
    spent: int,
    window: Window,
    shares: Shares,
    seconds_a_call: float = 0.5,
) -> Forecast:
    """How long `calls` of backfill take for a Page that has `spent` calls in the window, `live` of them for live leads.

    `seconds_a_call`: how long Graph takes for one, one after the other.
    """
    allowed = backfill_allowance(limit, live, shares)
    at_once = max(0, min(calls, allowed - max(0, spent - live), limit - spent))
    rest = calls - at_once
    if rest and allowed < 1:
        return Forecast(calls, at_once, timedelta.max)
    waits = window.seconds * rest / allowed if rest else 0.0
    return Forecast(calls, at_once, timedelta(seconds=max(waits, seconds_a_call * calls)))
