"""One Graph answer for a form -> a Form that Postgres can hold. Pure; it neither reads nor writes anything.

What Graph said is kept as it was said, save what Postgres cannot hold: NUL and lone surrogates become U+FFFD, numbers
that are no numbers become text. A part of an unknown shape, nested beyond reason or too large, counts as not told.
What a definition means for people who write SQL is questions.py's business. Invariant: no answer raises; a Form's id
is an id, its counts fit a row, and its JSON is finite text.
"""

import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from worker.inbox import is_id
from worker.lead import Json, clean_text

MOST_COUNT: Final = 2**53
"""Beyond this a number read from JSON is no exact one any more."""
MOST_TEXT: Final = 2_000
"""Characters kept of a name."""
MOST_BYTES: Final = 1_000_000
"""A part of a definition that is larger than this is not one that people answered."""
DEEPEST: Final = 32
"""Levels of JSON in a part; Meta's own have four."""


@dataclass(frozen=True, slots=True)
class Form:
    """What Graph tells of one form; a field that it left out, or that makes no sense, is None.

    `questions` is a list of objects, `disclaimers` the `custom_disclaimer` object, `tracking_parameters` a list of
    objects with `key` and `value`.
    """

    form_id: str
    status: str | None = None
    name: str | None = None
    locale: str | None = None
    created_time: datetime | None = None
    leads_count: int | None = None
    expired_leads_count: int | None = None
    questions: list[Json] | None = field(default=None, repr=False)
    disclaimers: dict[str, Json] | None = field(default=None, repr=False)
    tracking_parameters: list[Json] | None = field(default=None, repr=False)

    @classmethod
    def from_graph(cls, raw: object) -> "Form | None":
        """The form that Graph's JSON `raw` describes, or None where it is no form at all."""
        form_id = raw.get("id") if isinstance(raw, dict) else None
        if not isinstance(raw, dict) or not isinstance(form_id, str) or not is_id(form_id):
            return None
        legal = raw.get("legal_content")
        return cls(
            form_id=form_id,
            status=_word(raw.get("status")),
            name=_text(raw.get("name")),
            locale=_word(raw.get("locale")),
            created_time=_time(raw.get("created_time")),
            leads_count=_count(raw.get("leads_count")),
            expired_leads_count=_count(raw.get("expired_leads_count")),
            questions=_objects(raw.get("questions")),
            disclaimers=_object(legal.get("custom_disclaimer")) if isinstance(legal, dict) else None,
            tracking_parameters=_pairs(raw.get("tracking_parameters")),
        )


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value and value.isascii() and value.isprintable() else None


def _text(value: object) -> str | None:
    return clean_text(value[:MOST_TEXT]) or None if isinstance(value, str) else None


def _time(value: object) -> datetime | None:
    """Graph's `2015-02-28T08:49:14+0000` as aware UTC."""
    try:
        if isinstance(value, str):
            time = datetime.fromisoformat(value)
            return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    return None


def _count(value: object) -> int | None:
    """Meta writes counts as numbers; what is none, or beyond all reason, is not known."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    return (
        value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST_COUNT else None
    )


def _objects(value: object) -> list[Json] | None:
    found = (
        _cleaned([entry for entry in value if isinstance(entry, dict)]) if isinstance(value, list) else None
    )
    return found if isinstance(found, list) else None


def _pairs(value: object) -> list[Json] | None:
    """Graph tells a list of key and value; a map, as which they are made, becomes one, since jsonb keeps no order."""
    if isinstance(value, dict):
        value = [{"key": key, "value": told} for key, told in value.items()]
    return _objects(value)


def _object(value: object) -> dict[str, Json] | None:
    found = _cleaned(value) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else None


def _cleaned(value: object) -> Json:
    """As `value`, in so far as Postgres can hold it; None where it is more than a definition can be."""
    try:
        cleaned = _clean(value, DEEPEST)
    except ValueError:
        return None
    return cleaned if len(json.dumps(cleaned, ensure_ascii=False).encode()) <= MOST_BYTES else None


def _clean(value: object, levels: int) -> Json:
    if levels == 0:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list):
        return [_clean(item, levels - 1) for item in value]
    if isinstance(value, dict):
        return {clean_text(str(name)): _clean(item, levels - 1) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    assert value is None or isinstance(value, bool | int | float)
    return value
