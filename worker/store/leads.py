"""References with their outcomes -> rows of table leadgen, and rows that are due -> references in flight.

The only file that runs the statements on leadgen and pages. It decides nothing: outcomes come from outcomes.py.
Invariant: a row that Postgres refuses is found by bisection and dies alone; no error message holds a row's content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import structlog
from psycopg_pool import AsyncConnectionPool

from worker.batches import InFlight
from worker.errors import NotVisibleYet, StoreUnavailable
from worker.health import BY_ORDER
from worker.lead import Lead
from worker.outcomes import DeadLetter, Outcome, Park, Retry, Snooze, Stored, full_reading
from worker.store import sql
from worker.store.health import DOUBT
from worker.store.lead_rows import json_of
from worker.store.statements import Row, RowsRefused, Statements
from worker.trail import MOST_MS, entry_text

log = structlog.get_logger("store")

Settled: TypeAlias = tuple[InFlight, Outcome]

REFUSED_REASON: Final = "row_refused"
DOUBTFUL_LEADS: Final = 3
"""So many leads of a Page that Graph did not show twice, with none stored since, make its check due."""
LIMIT_IN_DOUBT: Final = timedelta(minutes=2)
"""So long after a Page's limit was worked out, the one before it may be what refused."""
MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """When a Page is parked, and how often a parked one is looked at. Times in seconds."""

    park_after_deaths: int = 10
    parked_probe_every: float = 900.0
    lease_seconds: float = 90.0


class LeadStore:
    """The rows. `pool` is open and belongs to this process; `now` is always the caller's clock, aware UTC."""

    def __init__(self, pool: AsyncConnectionPool, settings: StoreSettings) -> None:
        self._rows = Statements(pool).rows
        self._settings = settings

    async def ping(self) -> None:
        """Raises StoreUnavailable where Postgres cannot answer now."""
        await self._rows("select 1", {})

    async def known(self, leadgen_ids: Sequence[str]) -> dict[str, str]:
        """State by id of those that have a row; `in_part` for a stored lead that is still to be read in full."""
        rows = await self._rows(sql.KNOWN, {"ids": list(leadgen_ids)})
        return {row["leadgen_id"]: _state_of(row) for row in rows}

    async def known_and_parked(
        self, leadgen_ids: Sequence[str], page_ids: Sequence[str]
    ) -> tuple[dict[str, str], frozenset[str]]:
        """What `known` says of these leads and `parked` of these Pages, in one question."""
        asked = {"ids": list(leadgen_ids), "page_ids": list(page_ids)}
        rows = await self._rows(sql.KNOWN_OR_PARKED, asked)
        known = {row["id"]: _state_of(row) for row in rows if row["state"] is not None}
        return known, frozenset(row["id"] for row in rows if row["state"] is None)

    async def seen_again(self, leadgen_ids: Sequence[str], now: datetime) -> None:
        """Note that these known references were announced once more, each as often as it is named."""
        await self._rows(sql.SEEN_AGAIN, {"ids": list(leadgen_ids), "now": now})

    async def parked(self, page_ids: Sequence[str]) -> frozenset[str]:
        """Which of these Pages are held."""
        return frozenset(row["page_id"] for row in await self._rows(sql.PARKED, {"page_ids": list(page_ids)}))

    async def unknown_pages(self, page_ids: Sequence[str]) -> frozenset[str]:
        """Of which of these Pages nothing is known here."""
        rows = await self._rows(sql.UNKNOWN_PAGES, {"page_ids": list(page_ids)})
        return frozenset(row["page_id"] for row in rows)

    async def lease_due(self, room: int, per_page: int, now: datetime) -> tuple[InFlight, ...]:
        """Lease at most `room` rows that are due, none of a parked Page."""
        lease = timedelta(seconds=self._settings.lease_seconds)
        due = await self._rows(
            sql.LEASE_DUE, {"now": now, "lease": lease, "per_page": per_page, "room": room}
        )
        return tuple(map(_leased, due))

    async def give_back(self, leased: Sequence[InFlight], now: datetime) -> None:
        """End these leases unread."""
        held = [(r.leadgen_id, r.turn) for r in leased if r.turn is not None]
        if held:
            ids, turns = map(list, zip(*sorted(held), strict=True))
            await self._rows(sql.GIVE_BACK, {"ids": ids, "turns": turns, "now": now})

    async def oldest_overdue(self, now: datetime) -> datetime | None:
        """Since when the longest waiting row of a Page that is not held is due."""
        rows = await self._rows(sql.OLDEST_OVERDUE, {"now": now})
        oldest: datetime | None = rows[0]["min"]
        return oldest

    async def next_due(self) -> datetime | None:
        """When the next waiting row may be read; it may be long past."""
        at: datetime | None = (await self._rows(sql.NEXT_DUE, {}))[0]["at"]
        return at

    async def settle(self, settled: Sequence[Settled], now: datetime) -> None:
        """Commit what became of these references, and what it means for their Pages.

        Safe to repeat: a second application of the same verdicts changes nothing.
        """
        rows = {reference.leadgen_id: row_of(reference, outcome, now) for reference, outcome in settled}
        await self._settle_rows([rows[leadgen_id] for leadgen_id in sorted(rows)], now)
        await self._judge_pages(settled, now)

    async def _settle_rows(self, rows: list[Row], now: datetime) -> None:
        try:
            await self._rows(sql.SETTLE, {"rows": json_of(rows), "now": now})
        except RowsRefused as refused:
            if len(rows) > 1:
                middle = len(rows) // 2
                await self._settle_rows(rows[:middle], now)
                await self._settle_rows(rows[middle:], now)
                return
            await self._bury(rows[0], refused, now)

    async def _bury(self, row: Row, refused: RowsRefused, now: datetime) -> None:
        """Postgres refuses this row's content: keep the reference as a dead letter without it."""
        log.error(
            "row_refused", leadgen_id=row["leadgen_id"], page_id=row["page_id"], sqlstate=refused.sqlstate
        )
        kept = (
            "leadgen_id",
            "turn",
            "attempts",
            "failed_for",
            "first_seen_at",
            "page_id",
            "source",
            "received_at",
            "announced",
            "taken_ms",
        )
        reason = f"{REFUSED_REASON}_{refused.sqlstate}"
        dead = _verdict({name: row.get(name) for name in kept}, "dead", reason, None, "died", now)
        try:
            await self._rows(sql.SETTLE, {"rows": json_of([dead]), "now": now})
        except RowsRefused as again:
            raise StoreUnavailable(
                f"Postgres refuses even the bare row of {row['leadgen_id']} (SQLSTATE {again.sqlstate});"
                " look at the constraints and triggers on table leadgen"
            ) from None

    async def _judge_pages(self, settled: Sequence[Settled], now: datetime) -> None:
        stored = {r.page_id for r, outcome in settled if isinstance(outcome, Stored)}
        parks = {r.page_id: outcome.reason for r, outcome in settled if isinstance(outcome, Park)}
        deaths = {
            (r.page_id, outcome.reason)
            for r, outcome in settled
            if isinstance(outcome, DeadLetter) and r.page_id not in stored
        }
        holds = {
            r.page_id: outcome for r, outcome in settled if isinstance(outcome, Snooze) and outcome.whole_page
        }
        if holds:
            await self._hold(holds, now)
        for page_id in sorted(parks.keys() - stored):
            await self.park(page_id, parks[page_id], now)
        for page_id, reason in sorted(deaths):
            await self._park_on_mass_death(page_id, reason, now)
        doubted = {r.page_id for r, outcome in settled if _is_doubtful(outcome)} - stored
        if doubted:
            every = timedelta(seconds=self._settings.parked_probe_every)
            asked = {"page_ids": sorted(doubted), "leads": DOUBTFUL_LEADS, "every": every, "now": now}
            await self._rows(DOUBT, asked)

    async def _hold(self, holds: Mapping[str, Snooze], now: datetime) -> None:
        page_ids = sorted(holds)
        held = {
            "page_ids": page_ids,
            "untils": [holds[page_id].until for page_id in page_ids],
            "reasons": [holds[page_id].reason for page_id in page_ids],
            "doubt": LIMIT_IN_DOUBT,
            "now": now,
        }
        await self._rows(sql.HOLD, held)

    async def park(self, page_id: str, reason: str, now: datetime, *, by_check: bool = False) -> bool:
        """Hold a Page; false where it was held already. The alarm goes out once.

        It is looked at again at once, since its token may be derived anew; or when it was to be, where `by_check` has
        just done so. A reason of BY_ORDER takes the place of one that heals by itself.
        """
        told = {
            "page_id": page_id,
            "reason": reason,
            "now": now,
            "by_check": by_check,
            "every": timedelta(seconds=self._settings.parked_probe_every),
            "by_order": reason in BY_ORDER,
        }
        held = await self._rows(sql.PARK, told)
        if held and reason in BY_ORDER:
            log.info("page_parked", page_id=page_id, reason=reason)
        elif held:
            log.error("page_parked", page_id=page_id, reason=reason)
        return bool(held)

    async def unpark(
        self, page_ids: Sequence[str], now: datetime, *, but: Sequence[str] = ()
    ) -> tuple[str, ...]:
        """Take Pages up again and let their forms be compared, but those parked for a reason of `but`; which were."""
        freed = await self._rows(
            sql.UNPARK, {"page_ids": list(page_ids), "now": now, "but": list(but), "by_order": list(BY_ORDER)}
        )
        for row in freed:
            log.info("page_unparked", page_id=row["page_id"])
        return tuple(row["page_id"] for row in freed)

    async def _park_on_mass_death(self, page_id: str, reason: str, now: datetime) -> None:
        died = {
            "page_id": page_id,
            "reason": reason,
            "parked_reason": f"mass_{reason}",
            "deaths": self._settings.park_after_deaths,
            "now": now,
        }
        # Another process may have settled a death between our waking and our parking, and seen neither.
        if await self._rows(sql.MASS_DEATH, died) and await self.park(page_id, f"mass_{reason}", now):
            await self._rows(sql.MASS_DEATH, died)

    async def replay(
        self, now: datetime, *, ids: Sequence[str] | None, reason: str | None, page_id: str | None
    ) -> tuple[str, ...]:
        """Put the chosen dead letters back; answers their ids."""
        chosen = {"ids": None if ids is None else list(ids), "reason": reason, "page_id": page_id, "now": now}
        return tuple(row["leadgen_id"] for row in await self._rows(sql.REPLAY, chosen))

    async def dead_letters(self, *, reason: str | None, page_id: str | None, limit: int) -> list[Row]:
        """The newest dead letters, without answers."""
        return await self._rows(sql.LIST_DEAD, {"reason": reason, "page_id": page_id, "limit": limit})

    async def show(self, leadgen_id: str) -> Row | None:
        """All about one row but its answers."""
        rows = await self._rows(sql.SHOW, {"id": leadgen_id})
        return rows[0] if rows else None

    async def counts(self) -> list[Row]:
        """Rows by state and reason, with the oldest `due_at` of each."""
        return await self._rows(sql.COUNT_STATES, {})

    async def pages(self) -> list[Row]:
        """The Pages that are known."""
        return await self._rows(sql.LIST_PAGES, {})

    async def stored(self, leadgen_ids: Sequence[str]) -> list[Row]:
        """These leads, whole."""
        return await self._rows(sql.STORED, {"ids": list(leadgen_ids)})

    async def latency(self, since: datetime) -> Row:
        """`leads`, and `p50`, `p99` in seconds from webhook to row, of what was received since then."""
        return (await self._rows(sql.LATENCY, {"since": since}))[0]


def _state_of(row: Row) -> str:
    return "in_part" if row["state"] == "stored" and row["in_part"] else row["state"]


def _is_doubtful(outcome: Outcome) -> bool:
    """Graph did not show a lead, and not for the first time."""
    match outcome:
        case Retry(_, NotVisibleYet.reason, attempts):
            return attempts > 1
        case DeadLetter(NotVisibleYet.reason):
            return True
    return False


def _leased(row: Mapping[str, Any]) -> InFlight:
    return InFlight(
        leadgen_id=row["leadgen_id"],
        page_id=row["page_id"],
        form_id=row["form_id"],
        ad_id=row["ad_id"],
        received_at=row["received_at"],
        first_seen_at=row["first_seen_at"],
        attempts=row["attempts"],
        turn=row["turn"],
        source=row["source"],
        crashes=row["leases"] - 1,
        failed_for=row["failed_for"],
        in_part=row["in_part"],
        created_time=row["created_time"],
        due_at=row["was_due_at"],
    )


def row_of(reference: InFlight, outcome: Outcome, now: datetime) -> Row:
    """The row of LEAD_ROWS that says what became of a reference."""
    match outcome:
        case Stored(lead, read_at):
            return _lead_row(lead, read_at, reference, now)
        case Snooze(until, reason, whole_page):
            # The Page is held until then; the row keeps its place among the others, the oldest first.
            due_at = (reference.due_at or now) if whole_page else until
            return _verdict(_reference_row(reference), "waiting", reason, due_at, "waited", now)
        case Retry(at, reason, attempts):
            failed = {**_reference_row(reference), "attempts": attempts, "failed_for": reason}
            return _verdict(failed, "waiting", reason, at, "failed", now)
        case Park(reason):
            return _verdict(_reference_row(reference), "waiting", reason, now, "refused", now)
        case DeadLetter(reason):
            died = {
                **_reference_row(reference),
                "attempts": reference.attempts + 1,
                "failed_for": reason,
            }
            return _verdict(died, "dead", reason, None, "died", now)


def _reference_row(reference: InFlight) -> Row:
    return {
        "leadgen_id": reference.leadgen_id,
        "turn": reference.turn,
        "attempts": reference.attempts,
        "failed_for": reference.failed_for,
        "first_seen_at": reference.first_seen_at,
        "page_id": reference.page_id,
        "form_id": reference.form_id,
        "ad_id": reference.ad_id,
        "source": reference.source,
        "received_at": reference.received_at,
        "created_time": reference.created_time,
        "announced": 1 if reference.entry_id else None,
        "taken_ms": reference.taken_ms,
    }


def _milliseconds(took: timedelta) -> int:
    return min(max(0, took // MILLISECOND), MOST_MS)


def _verdict(row: Row, state: str, reason: str, due_at: datetime | None, befell: str, now: datetime) -> Row:
    return {
        **row,
        "trail": entry_text(now, befell, reason),
        "state": state,
        "reason": reason,
        "due_at": due_at,
        "is_test": False,
        "in_part": False,
        "cleaned": False,
    }


def _lead_row(lead: Lead, read_at: datetime | None, reference: InFlight, now: datetime) -> Row:
    received_at = reference.received_at
    waited = read_at - received_at if read_at is not None and received_at is not None else None
    return {
        "leadgen_id": reference.leadgen_id,
        "state": "stored",
        "turn": reference.turn,
        "attempts": 0,
        "due_at": full_reading(0, now) if lead.in_part else None,
        "first_seen_at": reference.first_seen_at,
        "page_id": reference.page_id,
        "form_id": lead.form_id or reference.form_id,
        "ad_id": lead.ad_id or reference.ad_id,
        "ad_name": lead.ad_name,
        "adset_id": lead.adset_id,
        "adset_name": lead.adset_name,
        "campaign_id": lead.campaign_id,
        "campaign_name": lead.campaign_name,
        "created_time": lead.created_time or reference.created_time,
        "is_organic": lead.is_organic,
        "platform": lead.platform,
        "partner_name": lead.partner_name,
        "retailer_item_id": lead.retailer_item_id,
        "field_data": lead.field_data,
        "custom_disclaimer_responses": lead.custom_disclaimer_responses,
        "extra": lead.extra or None,
        "is_test": lead.is_test,
        "in_part": lead.in_part,
        "cleaned": lead.cleaned,
        "source": reference.source,
        "received_at": received_at,
        "announced": 1 if reference.entry_id else None,
        "taken_ms": reference.taken_ms,
        "read_ms": None if waited is None else _milliseconds(waited),
    }
