"""The words of the budget: who asks, what is granted or refused, and the door that every budget keeps. Pure.

Invariant: a refusal is a value, not an error; a grant covers at least one call and expires.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias


class Lane(StrEnum):
    """What the calls are for."""

    LIVE = "live"
    BACKFILL = "backfill"
    UPKEEP = "upkeep"


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to make `calls` calls for one Page before `expires_at` (aware UTC). One item of a batch is one call."""

    calls: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Refusal:
    """No call before `not_before` (aware UTC)."""

    not_before: datetime
    reason: str


Answer: TypeAlias = Grant | Refusal


class Budget(Protocol):
    """Grants calls. Raises LedgerUnavailable where the ledger cannot be asked."""

    async def request(self, page_id: str, calls: int, lane: Lane) -> Answer:
        """Leave for 1 to `calls` calls of `page_id`, or a refusal."""

    async def close(self, page_id: str, scope: str, until: datetime) -> None:
        """Meta throttled this scope: nothing is granted in it before `until`."""
