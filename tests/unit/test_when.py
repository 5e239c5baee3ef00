"""Moments as people write them."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.time import NOW
from worker.when import FORMS, UnknownZone, UnreadableTime, parse_when, zone_of

BERLIN = ZoneInfo("Europe/Berlin")
INDIA = timezone(timedelta(hours=5, minutes=30))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-10-01", "2026-09-30T22:00:00"),
        ("2026-12-01", "2026-11-30T23:00:00"),
        ("2026-10-01 14:30", "2026-10-01T12:30:00"),
        ("2026-10-01  14:30:15", "2026-10-01T12:30:15"),
        ("2026-10-01T14:30:15.250", "2026-10-01T12:30:15.250"),
        ("2026-10-01T14:30:15+05:30", "2026-10-01T09:00:15"),
        ("2026-10-01 14:30 +0530", "2026-10-01T09:00:00"),
        ("2026-10-01T14:30:15Z", "2026-10-01T14:30:15"),
        ("2026-10-01t14:30z", "2026-10-01T14:30:00"),
        ("1790000000", "2026-09-21T14:13:20"),
        ("now", "2026-11-20T12:00:00"),
        (" Today ", "2026-11-19T23:00:00"),
        ("yesterday", "2026-11-18T23:00:00"),
        ("30 days ago", "2026-10-21T12:00:00"),
        ("1 day ago", "2026-11-19T12:00:00"),
        ("2 Weeks ago", "2026-11-06T12:00:00"),
        ("36 hours ago", "2026-11-19T00:00:00"),
        ("90 minutes ago", "2026-11-20T10:30:00"),
    ],
)
def test_each_form_means_one_moment(text: str, meant: str) -> None:
    """A time without an offset is told in the zone, one with an offset in that, and what comes out is aware UTC."""
    found = parse_when(text, BERLIN, NOW)
    assert found == datetime.fromisoformat(meant).replace(tzinfo=UTC)
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-10-01", "2026-10-01T22:00:00"),
        ("yesterday", "2026-11-19T23:00:00"),
        ("today", "2026-11-20T23:00:00"),
        ("2026-10-25", "2026-10-25T23:00:00"),  # a day of 25 hours
        ("2026-10-01 00:00", "2026-09-30T22:00:00"),
        ("now", "2026-11-20T12:00:00"),
        ("30 days ago", "2026-10-21T12:00:00"),
    ],
)
def test_a_day_as_an_end_is_taken_in_whole(text: str, meant: str) -> None:
    """Only a day gets longer by being an end: any other moment is that moment."""
    assert parse_when(text, BERLIN, NOW, end=True) == datetime.fromisoformat(meant).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "01/10/2026",
        "1.10.2026",
        "2026-1-1",
        "2026-02-30",
        "2026-10-01 25:00",
        "2026-10-01 14",
        "2026-10-01 2:30 PM",
        "20261001",
        "1790000000000",
        "-1790000000",
        "30 days",
        "-3 days ago",
        "a day ago",
        "3 months ago",
        "999999999 weeks ago",
        "2026-10-01T14:30+99:99",
        "0001-01-01T00:00+05:30",
        "9999-12-31",
        "٢٠٢٦-10-01",
    ],
)
def test_what_may_mean_another_moment_is_refused(text: str) -> None:
    """The error tells what is accepted, and does not repeat the text."""
    with pytest.raises(UnreadableTime) as refused:
        parse_when(text, UTC, NOW, end=True)
    assert FORMS in str(refused.value)


def test_a_time_that_comes_twice_means_its_first() -> None:
    """On the night when clocks are put back, 2:30 is the earlier of the two; one that is jumped over is after it."""
    assert parse_when("2026-10-25 02:30", BERLIN, NOW) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert parse_when("2026-03-29 02:30", BERLIN, NOW) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


def test_a_day_that_begins_after_midnight_begins_with_its_first_second() -> None:
    """Where clocks jump at midnight the day's first second is that after the jump."""
    found = parse_when("2026-04-24", ZoneInfo("Africa/Cairo"), NOW)
    assert found.astimezone(ZoneInfo("Africa/Cairo")).isoformat() == "2026-04-24T01:00:00+03:00"


def test_today_is_the_zones_own() -> None:
    """Where the date line lies between us and the zone, its day counts."""
    assert parse_when("today", ZoneInfo("Pacific/Auckland"), NOW) == datetime(2026, 11, 20, 11, tzinfo=UTC)


@given(st.datetimes(min_value=datetime(2001, 9, 10), max_value=datetime(2286, 1, 1)))  # noqa: DTZ001
def test_what_is_written_as_iso_or_unix_seconds_comes_back(moment: datetime) -> None:
    """Every aware moment survives being written as ISO 8601, and as unix seconds but for its fraction."""
    aware = moment.replace(tzinfo=INDIA)
    assert parse_when(aware.isoformat(), BERLIN, NOW) == aware
    assert parse_when(str(int(aware.timestamp())), BERLIN, NOW) == aware.replace(microsecond=0)


@pytest.mark.parametrize("name", ["UTC", "utc", "Europe/Berlin", "Asia/Kolkata"])
def test_zones_have_iana_names(name: str) -> None:
    """A name of the IANA list is a zone."""
    assert NOW.astimezone(zone_of(name)) == NOW


@pytest.mark.parametrize(
    "name", ["", "Mars/Base", "Europe", "../UTC", "+02:00", "/etc/passwd", "\x00", "U/" * 250 + "U"]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    """A name that is none is an error of ours, however the library takes it."""
    with pytest.raises(UnknownZone):
        zone_of(name)
