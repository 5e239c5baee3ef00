"""This machine's clock. Whatever decides is handed it, so that a test can say what time it is."""

from datetime import UTC, datetime


def now() -> datetime:
    """This machine's clock, aware UTC."""
    return datetime.now(UTC)
