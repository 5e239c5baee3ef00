"""Forms whose turn has come -> slices of their listings to compare with our rows, and when their next turn is.

Comparing is walking (walking.py): what the listing brings and we lack becomes a row, and is reported. It decides when
and from where on; it is handed rows, clock and settings and imports no I/O. Invariants: a form's watermark is moved by
runs that lack nothing, never past now less the lag; a form that is new here is read from its beginning.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from worker.budget.policy import Shares, Window, cadence
from worker.plans import FormFacts, Plan, plan_forms, span_of

ACTIVE_WITHIN: Final = timedelta(days=7)
"""A form that got a lead within this is active."""
QUIET_PARTS: Final = 4
"""A form without a recent lead has its turn so many times more seldom."""
CLOSED_EVERY: Final = timedelta(days=1)
"""How often a form is compared that is archived and gets no leads any more; the deep comparison sees it too."""
BACKFILL_AGAIN: Final = timedelta(hours=6)
"""When a new form whose first reading failed is read again."""
SKEW: Final = timedelta(hours=1)
"""What lies further ahead of what can be was put there by a clock that was wrong; machines may be a little apart."""
EVER: Final = datetime.max.replace(tzinfo=UTC)


class Rows(Protocol):
    """What this file needs of the rows."""

    async def forms_due(
        self,
        now: datetime,
        *,
        due_by: datetime,
        latest: datetime,
        active: timedelta,
        page_ids: Sequence[str] | None = None,
        most: int = 500,
    ) -> list[dict[str, Any]]: ...
    async def deep_due(self, before: datetime, latest: datetime, most: int = 200) -> list[dict[str, Any]]: ...
    async def live_leads(self, page_id: str, now: datetime) -> int: ...
    async def reconcile_at(
        self,
        form_id: str,
        at: datetime,
        *,
        watermark: datetime | None = None,
        read_from: datetime | None = None,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class ReconcileSettings:
    """`soonest`: between two turns of an active form; `overlap`: how far behind the watermark each turn begins.

    `lag`: how far behind now it ends. `deep`: between two full comparisons. `read_new_forms`: from their beginning.
    """

    soonest: timedelta = timedelta(minutes=15)
    overlap: timedelta = timedelta(hours=1)
    lag: timedelta = timedelta(minutes=5)
    deep: timedelta = timedelta(days=1)
    read_new_forms: bool = True
    window: Window = field(default_factory=Window)


class Reconciler:
    """Begins comparisons. `begin` writes one down, its id and whether it is new; `clock` gives aware UTC."""

    def __init__(
        self,
        rows: Rows,
        begin: Callable[[Plan, datetime], Awaitable[tuple[int, bool]]],
        settings: ReconcileSettings,
        clock: Callable[[], datetime],
    ) -> None:
        self._rows = rows
        self._begin_run = begin
        self._settings = settings
        self._clock = clock
        self.taken_up: frozenset[str] = frozenset()

    async def reconcile(self, wanted_pages: Sequence[str] = ()) -> dict[str, int]:
        """Begin the comparisons that are due; those of `wanted_pages` are. Counts what was begun.

        `taken_up` then names the Pages of which some form was looked at.
        """
        now = self._clock()
        paces: dict[str, timedelta] = {}
        latest = now + self._longest(self._settings.soonest) + SKEW
        due = await self._rows.forms_due(now, due_by=now, latest=latest, active=ACTIVE_WITHIN)
        due = [form for form in due if await self._is_due(form, now, paces)]
        if wanted_pages:
            due += await self._rows.forms_due(
                now, due_by=EVER, latest=EVER, active=ACTIVE_WITHIN, page_ids=wanted_pages
            )
        counts = {"reconciled": 0, "new_forms": 0}
        self.taken_up = frozenset(row["page_id"] for row in due)
        for form in {row["form_id"]: row for row in due}.values():
            if form["watermark"] is None:
                counts["new_forms"] += await self._begin(form, now)
            else:
                counts["reconciled"] += await self._compare(form, now, await self._pace(form, now, paces))
        return counts

    async def _is_due(self, form: dict[str, Any], now: datetime, paces: dict[str, timedelta]) -> bool:
        """Whether its turn has come, or is further ahead than its Page's budget ever puts it."""
        if form["reconcile_at"] is None or form["reconcile_at"] <= now:
            return True
        longest = self._longest(await self._pace(form, now, paces))
        return bool(form["reconcile_at"] > now + longest + SKEW)

    @staticmethod
    def _longest(pace: timedelta) -> timedelta:
        return max(pace * QUIET_PARTS, CLOSED_EVERY, BACKFILL_AGAIN)

    async def reconcile_deep(self) -> dict[str, int]:
        """Begin the full comparisons that are due. Counts what was begun."""
        now = self._clock()
        begun = 0
        for form in await self._rows.deep_due(now - self._settings.deep, now + SKEW):
            plan = deep_plan(form, now=now, lag=self._settings.lag)
            if plan is not None:
                begun += (await self._begin_run(plan, now))[1]
        return {"compared_in_full": begun}

    async def _pace(self, form: dict[str, Any], now: datetime, paces: dict[str, timedelta]) -> timedelta:
        """How often the Page's forms can be compared, by what its budget leaves; worked out once in `paces`."""
        page_id = form["page_id"]
        if page_id not in paces:
            paces[page_id] = await self._pace_of(form, now)
        return paces[page_id]

    async def _pace_of(self, form: dict[str, Any], now: datetime) -> timedelta:
        if not form["limit_calls"]:
            return self._settings.soonest
        return cadence(
            calls_a_round=max(1, form["forms"]),
            limit=form["limit_calls"],
            live=await self._rows.live_leads(form["page_id"], now),
            window=self._settings.window,
            shares=Shares(),
            soonest=self._settings.soonest,
        )

    async def _begin(self, form: dict[str, Any], now: datetime) -> int:
        """A form that is new here."""
        if not self._settings.read_new_forms:
            await self._rows.reconcile_at(
                form["form_id"], now + self._settings.soonest, watermark=now, read_from=now
            )
            return 0
        plan = _plan(form, "backfill", None, now, self._settings.lag)
        if plan is None:
            return 0
        _, is_new = await self._begin_run(plan, now)
        await self._rows.reconcile_at(form["form_id"], now + BACKFILL_AGAIN)
        return int(is_new)

    async def _compare(self, form: dict[str, Any], now: datetime, pace: timedelta) -> int:
        begun = 0
        # Moments in the future were noted by a clock that was wrong; the end of this comparison mends them.
        since = min(form["watermark"], now - self._settings.lag) - self._settings.overlap
        if form["read_from"] is not None and form["read_from"] <= now:
            since = max(since, form["read_from"])
        plan = _plan(form, "reconcile", since, now, self._settings.lag)
        if plan is not None:
            begun = int((await self._begin_run(plan, now))[1])
        every = pace if form["is_active"] else pace * QUIET_PARTS
        if form["status"] not in (None, "ACTIVE") and not form["is_active"]:
            every = max(every, CLOSED_EVERY)
        await self._rows.reconcile_at(form["form_id"], now + every)
        return begun


def deep_plan(
    form: dict[str, Any], *, now: datetime, lag: timedelta, since: datetime | None = None
) -> Plan | None:
    """Compare a form in full: over all that Meta holds and we keep, or since a moment that was asked for."""
    if since is None:
        return _plan(form, "deep", form["read_from"], now, lag)
    return _plan(form, "deep", since, now, lag, asked=(since, None))


def _plan(
    form: dict[str, Any],
    purpose: str,
    since: datetime | None,
    now: datetime,
    lag: timedelta,
    asked: tuple[datetime | None, datetime | None] = (None, None),
) -> Plan | None:
    span = span_of(since, None, now=now, lag=lag)
    if span is None:
        return None
    facts = FormFacts(form["form_id"], form["leads"], form["created_time"])
    return plan_forms(
        [facts], purpose=purpose, edge="form", object_id=form["form_id"], page_id=form["page_id"], span=span, now=now,
        asked=asked,
    )  # fmt: skip
