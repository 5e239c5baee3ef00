"""A moment as people write it, in a stated zone -> aware UTC. Pure: `now` is handed in, nothing is guessed.

Only forms that mean one thing are read: 01/02/2026 is refused, since it is two days. Where a zone's clocks are put
back, a time that comes twice means its first; a time that they jump over means the same number of minutes after the
jump.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

FORMS: Final = (
    '2026-10-01, "2026-10-01 14:30", 2026-10-01T14:30:00+02:00, unix seconds,'
    ' "30 days ago", yesterday, today or now'
)

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)
_MOMENT: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)? ?(?:Z|[+-]\d{2}:?\d{2})?\Z",
    re.ASCII | re.IGNORECASE,
)
# 2001-09-09 to 2286-11-20. Fewer digits may be a date without dashes, more are milliseconds.
_UNIX: Final = re.compile(r"\d{10}\Z", re.ASCII)
_AGO: Final = re.compile(r"(\d{1,9}) ?(minute|hour|day|week)s? ago\Z", re.ASCII)
_DAYS: Final = {"yesterday": -1, "today": 0}
_LONGEST_ZONE: Final = 64
"""Characters, twice what the longest name has: a name's parts are looked for one within the other, however deep."""


class UnreadableTime(ValueError):
    """The text means no moment that leadsync is sure of; the message says what it accepts."""


class UnknownZone(ValueError):
    """There is no zone of this name."""


def zone_of(name: str) -> tzinfo:
    """The zone of an IANA name. Raises UnknownZone."""
    # Known without the system's zone files, which small containers lack.
    if name.upper() in ("UTC", "Z"):
        return UTC
    try:
        if len(name) > _LONGEST_ZONE:
            raise ValueError
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise UnknownZone("is no time zone; give an IANA name such as UTC or Europe/Berlin") from None


def parse_when(text: str, zone: tzinfo, now: datetime, *, end: bool = False) -> datetime:
    """The moment that `text` means in `zone`, aware UTC. Raises UnreadableTime.

    A day (a bare date, today, yesterday) means its first second; where it is the `end` of a span it means the first
    second after it, so that the span holds the whole day.
    """
    words = " ".join(text.split())
    try:
        return _moment(words, zone, now, end).astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnreadableTime(f"is no time that can be read; write it as {FORMS}") from None


def _moment(words: str, zone: tzinfo, now: datetime, end: bool) -> datetime:
    word = words.lower()
    if word == "now":
        return now
    if word in _DAYS:
        return _day(now.astimezone(zone).replace(tzinfo=None), _DAYS[word] + end, zone)
    if ago := _AGO.match(word):
        return now - timedelta(**{f"{ago[2]}s": int(ago[1])})
    if _DATE.match(words):
        return _day(datetime.strptime(words, "%Y-%m-%d"), int(end), zone)  # noqa: DTZ007  the zone follows
    if _UNIX.match(words):
        return datetime.fromtimestamp(int(words), UTC)
    if _MOMENT.match(words):
        return in_zone(iso_time(words), zone)
    raise ValueError


def iso_time(text: str) -> datetime:
    """ISO 8601 with or without offset, blanks between its parts. Raises ValueError."""
    date, clock = text[:10], text[11:].replace(" ", "")
    return datetime.fromisoformat(f"{date}T{clock.upper()}")


def in_zone(time: datetime, zone: tzinfo) -> datetime:
    """`time`, in `zone` where it names no offset itself."""
    return time if time.tzinfo else time.replace(tzinfo=zone)


def _day(day: datetime, later: int, zone: tzinfo) -> datetime:
    """The first second of the day that is `later` days after the day of `day`."""
    first = datetime(day.year, day.month, day.day) + timedelta(days=later)  # noqa: DTZ001  the zone follows
    return first.replace(tzinfo=zone)
