"""The span of time that Meta is asked for."""

from datetime import datetime, timedelta

import pytest

from tests.fakes.time import NOW
from worker.errors import LeadSyncError
from worker.export_download import ExportAccess, Span, span_of

DAY = timedelta(days=1)
CREATED = NOW - 10 * DAY


@pytest.mark.parametrize(
    ("since", "until", "created", "span"),
    [
        (None, None, CREATED, Span(CREATED, NOW)),
        (None, None, None, Span(None, NOW)),
        (NOW - 20 * DAY, None, CREATED, Span(CREATED, NOW)),
        (NOW - 20 * DAY, None, None, Span(NOW - 20 * DAY, NOW)),
        (NOW - 5 * DAY, NOW - DAY, CREATED, Span(NOW - 5 * DAY, NOW - DAY)),
        (NOW - 5 * DAY, NOW + DAY, CREATED, Span(NOW - 5 * DAY, NOW)),
        (None, NOW - DAY, CREATED, Span(CREATED, NOW - DAY)),
    ],
)
def test_a_span_lies_between_the_forms_creation_and_now(
    since: datetime | None, until: datetime | None, created: datetime | None, span: Span
) -> None:
    """As Meta reads it: what is missing or out of reach becomes the form's creation, or now."""
    assert span_of(since, until, created, NOW) == span


@pytest.mark.parametrize(
    ("since", "until", "created"),
    [
        (NOW - DAY, NOW - 2 * DAY, None),
        (NOW - DAY, NOW - DAY, None),
        (NOW + DAY, None, None),
        (None, CREATED - DAY, CREATED),
        (CREATED - 2 * DAY, CREATED - DAY, CREATED),
    ],
)
def test_an_empty_span_is_refused(
    since: datetime | None, until: datetime | None, created: datetime | None
) -> None:
    """Nobody waits for a file that cannot hold a lead."""
    with pytest.raises(LeadSyncError, match="there is no time in this span"):
        span_of(since, until, created, NOW)


def test_what_gives_access_is_not_shown() -> None:
    """Neither cookie nor token is in the text of the value that holds them."""
    assert "hunter2" not in repr(ExportAccess("http://meta", "cookie hunter2", "token hunter2"))
