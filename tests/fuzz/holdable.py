"""Whether Postgres can hold a value: as jsonb, as text, as a time. It asks no database.

https://www.postgresql.org/docs/current/datatype-json.html
"""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime

from tests.fuzz.target import holds
from worker.errors import LeadSyncError
from worker.form import Form
from worker.json_text import write_json
from worker.lead import TEXT_FIELDS, Lead, answers


def check_text(text: str) -> None:
    """Postgres refuses NUL and, as UTF-8 does, lone surrogates."""
    holds("a text has no NUL", "\x00" not in text)
    holds("a text is UTF-8", _is_utf8(text))


def check_time(time: datetime | None) -> None:
    """Every time is aware UTC."""
    holds("a time is aware UTC", time is None or time.tzinfo is UTC)


def check_json(value: object) -> bool:
    """jsonb holds what has only such texts, and no number that is none; what is written is read back the same.

    False where it is nested too deeply to be written: the store refuses such a row alone.
    """
    for part in _parts(value):
        if isinstance(part, str):
            check_text(part)
        holds("a number is finite", not isinstance(part, float) or math.isfinite(part))
    try:
        text = write_json(value)
    except RecursionError:
        return False
    holds("JSON is read back as written", json.loads(text) == value)
    return True


def check_lead(lead: Lead) -> None:
    """A row of table leadgen, and what readers of rows make of it."""
    for name in TEXT_FIELDS:
        check_text(getattr(lead, name) or "")
    check_time(lead.created_time)
    if check_json([lead.field_data, lead.custom_disclaimer_responses, lead.extra]):
        for answer in answers(lead.field_data):
            holds("an answer is text", all(isinstance(value, str) for value in answer.values))


def check_form(form: Form) -> None:
    """A row of table forms."""
    for text in (form.form_id, form.status, form.name, form.locale):
        check_text(text or "")
    check_time(form.created_time)
    for count in (form.leads_count, form.expired_leads_count):
        holds("a count fits a row", count is None or 0 <= count < 2**63)
    check_json([form.questions, form.disclaimers, form.tracking_parameters])


def check_error(error: LeadSyncError) -> None:
    """One line of text, as logs and dead letters hold it."""
    check_text(str(error))
    holds("an error is one line", "\n" not in str(error) and len(str(error)) < 500)


def _parts(value: object) -> Iterator[object]:
    """Every text, number and the like within `value`, however deep."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left += part.keys()
            left += part.values()
        elif isinstance(part, list):
            left += part
        else:
            yield part


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
