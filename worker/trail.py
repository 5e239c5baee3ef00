"""What befell a lead on its way -> an entry of its row's trail, and back. Pure.

A lead that goes straight through has no trail: its row says when it was announced, taken up, read and stored. An entry
is `<unix seconds> <word> <reason>`, and where the same happened again right after it, `<times> <unix seconds of the
last>` behind that. Merging and bounding are done by the statements that append (leadsync_trail in migration 0005).
Invariants: `Entry.from_text(entry.to_text()) == entry`; no entry holds an answer: words and reasons are fixed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

MOST_ENTRIES: Final = 24
"""Kept of a trail; beyond that the 13th stands for all between the first twelve and the last."""
MOST_MS: Final = 2**31 - 1
"""The longest time that a row's milliseconds can say, 24 days."""

WORDS: Final = {
    "waited": "left waiting",
    "failed": "read in vain, to be tried again",
    "refused": "left waiting, since its Page was refused",
    "died": "became a dead letter",
    "replayed": "put back by `leadsync dead-letters replay`",
    "woken": "put back: many leads of its Page had died of the same",
    "stored": "brought by other means than its own reading",
    "completed": "was stored in part, and is complete",
    "filled": "was stored in part, and gained something that it lacked",
    "others": "more that is not kept singly",
}
"""What the word of an entry says."""

_ASKED: Final = ("failed", "refused", "died")
_NOT_ASKED: Final = (
    "poison",
    "internal_error",
    "tokens_unreadable",
    "token_locked",
    "grant_lapsed",
    "page_parked",
    "store_unavailable",
    "ledger_unavailable",
    "row_refused",
)


@dataclass(frozen=True, slots=True)
class Entry:
    """`word` befell the lead for `reason`, `times` in a row from `first_at` to `last_at` (aware UTC, whole seconds)."""

    first_at: datetime
    word: str
    reason: str | None
    times: int
    last_at: datetime

    def to_text(self) -> str:
        """As a trail holds it."""
        text = entry_text(self.first_at, self.word, self.reason)
        return text if self.times == 1 else f"{text} {self.times} {int(self.last_at.timestamp())}"

    @classmethod
    def from_text(cls, text: str) -> "Entry":
        """What a trail holds. Raises ValueError where it is no entry."""
        first, word, reason, *again = text.split(" ")
        times, last = again or ("1", first)
        return cls(_at(first), word, None if reason == "-" else reason, int(times), _at(last))


def entry_text(at: datetime, word: str, reason: str | None) -> str:
    """The entry of what happens now, once."""
    return f"{int(at.timestamp())} {word} {reason or '-'}"


def calls_of(trail: Iterable[Entry]) -> int:
    """How often Graph was asked for the lead and did not give it, as far as the trail tells it."""
    return sum(
        entry.times
        for entry in trail
        if (entry.word in _ASKED and not (entry.reason or "").startswith(_NOT_ASKED))
        or (entry.word == "waited" and (entry.reason or "").startswith("throttled"))
    )


def _at(seconds: str) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
