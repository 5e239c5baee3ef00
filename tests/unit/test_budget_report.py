"""What each Page may spend, as a person sees it: on 80 columns, with a line for what the table has no column for."""

import io
from typing import Any

from rich.console import Console

from tests.fakes.time import NOW
from worker.budget_report import render


def a_page(page_id: str = "102938475610293", **changed: Any) -> dict[str, Any]:
    """A Page as `gather` tells it, with the largest numbers that may be."""
    spent = {"all": 4_123_456, "live": 99_999, "waiting": 99_999, "backfill": 3_456_789, "upkeep": 99_999}
    return {
        "page_id": page_id,
        "limit": {"calls": 4_560_000, "told": 4_800_000, "origin": "Meta's forms", "override": None, "at": None},
        "held_until": None, "held_reason": None, "parked": None, "waiting": 0, "oldest_waiting": None,
        "spent": spent, "left": 436_544, "saved": 12_345_678, "meta_percent": 99.5, "waits_until": None,
    } | changed  # fmt: skip


def shown(*pages: dict[str, Any], **changed: Any) -> str:
    """As it stands on a terminal of 80 columns."""
    out = io.StringIO()
    report = {"window_seconds": 86_400, "at": NOW.isoformat(), "pages": pages, "scopes": []} | changed
    Console(file=out, width=80).print(render(report))
    return out.getvalue()


def test_the_table_fits_80_columns_uncut() -> None:
    """With the largest numbers no cell is cut, wrapped or shortened beyond recognition."""
    told = shown(a_page())
    assert len(told.splitlines()) == 3
    assert "…" not in told
    for number in ("4.56M", "4.123M", "436k", "99,999", "3.457M", "12.35M", "99%"):
        assert number in told


def test_small_numbers_are_exact() -> None:
    """What is below a hundred thousand is told to the call."""
    assert "95,760" in shown(a_page(limit={"calls": 95_760, "origin": "our rows"}))


def test_what_waits_is_told_below_the_table() -> None:
    """With the reason, and until when at the latest; of a Page of which there is nothing to say no line is told."""
    until = NOW.replace(hour=5, minute=30).isoformat()
    told = shown(
        a_page("11", waiting=1_204, held_until=until, held_reason="budget", waits_until=until),
        a_page("12", waiting=3, parked="token_refused"),
        a_page("13"),
    )
    day = f"{NOW:%m-%d}"
    assert f"11: no calls until {day} 05:30 (budget); 1,204 waiting; all read by {day} 05:30" in told
    assert "12: parked, token_refused; 3 waiting" in told
    assert "13: " not in told


def test_a_limit_that_no_lead_explains_is_told() -> None:
    """Set by hand, or the floor."""
    assert "set by hand" in shown(a_page(limit={"calls": 10, "origin": "override"}))
    assert "no lead is known yet" in shown(a_page(limit={"calls": 4_799, "origin": "floor"}))


def test_a_ledger_that_is_away_leaves_the_limits() -> None:
    """The error stands above, what only the ledger knows is blank."""
    page = a_page()
    for name in ("spent", "left", "saved", "meta_percent", "waits_until"):
        del page[name]
    told = shown(page, error="Redis cannot grant calls now: TimeoutError")
    assert "Redis cannot grant calls now" in told
    assert "4.56M" in told
