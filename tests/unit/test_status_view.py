"""A fixed report -> screens of several sizes, and one plain line."""

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tests.fakes.time import NOW
from worker.flow import Flow
from worker.status import render
from worker.status_view import plain_line, span, sparkline, view

PAGE = "102938475610293"
SIZES = [(40, 8), (50, 12), (80, 24), (119, 30), (120, 24), (160, 50), (240, 60)]
AWAY = {"error": "Redis cannot do this now: ConnectionError"}
NASTY = "[red]Evil[/] [link=http://x]\x1b[2J\x1b]0;title\x07\x9b31m\r\nnew \u202egnp\u200b"


def a_state(state: str, reason: str, count: int, **marks: bool) -> dict[str, Any]:
    return {
        "state": state, "reason": reason, "count": count, "oldest_due": NOW, "is_at_least": False,
        "is_estimate": False, **marks,
    }  # fmt: skip


def a_page(**told: Any) -> dict[str, Any]:
    return {"page_id": PAGE, "name": "Bakery", **told}


def a_report(**told: Any) -> dict[str, Any]:
    """A report of which everything is well and nothing waits."""
    looked = int(NOW.timestamp() * 1000) - 3_000
    return {
        "at": NOW,
        "stream": {
            "length": 0, "oldest_at": None, "deliveries": {"references": 0}, "reconcile_wanted": [],
            "set_aside": 0, "progress": dict.fromkeys(("live", "backfill", "upkeep", "schedule"), looked),
        },
        "rows": [a_state("stored", "", 10_002_331, is_estimate=True)],
        "pages": [],
        "lag": {"oldest_overdue": None},
        "flow": {"since": NOW - timedelta(seconds=2), "until": NOW, "stored": 24},
        "backfills": [],
        "health": {"pages": 12, "wrong": []},
        "budget": {"pages": [], "app_closed_until": None},
        **told,
    }  # fmt: skip


def a_bad_report(name: str = "Bakery") -> dict[str, Any]:
    """A report of which everything is wrong at once, and much of it."""
    page = a_page(name=name)
    return a_report(
        rows=[
            *(a_state("waiting", f"reason_{n}", 5_000 - n, is_at_least=n == 0) for n in range(9)),
            *(a_state("dead", f"row_refused_{n}", n + 1) for n in range(9)),
        ],
        pages=[
            {**page, "parked_at": NOW - timedelta(hours=5), "parked_reason": "token_refused", "waiting": 120,
             "is_at_least": True}
        ],
        lag={"oldest_overdue": NOW - timedelta(minutes=12)},
        backfills=[
            {"backfill_id": 17, "edge": "form", "object_id": "88", "name": name, "expected_leads": 2_000,
             "leads": 1_240, "slices": 10, "slices_done": 3, "waits_for": "budget"}
        ] * 5,
        health={
            "pages": 40,
            "wrong": [{**page, "page_id": f"{n}", "aspects": {"webhooks": "silent"}} for n in range(30)],
        },
        budget={
            "pages": [{**page, "limit": 4_799, "spent": 4_700 - 500 * n,
                       "closed_until": None if n else NOW + timedelta(minutes=9)} for n in range(9)],
            "app_closed_until": NOW + timedelta(minutes=1),
        },
    )  # fmt: skip


def shown(report: dict[str, Any], width: int = 80, height: int = 24, *, terminal: bool = False) -> str:
    """As it stands on a screen of that size."""
    flow = Flow()
    flow.note(report)
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=terminal, color_system=None)
    console.print(view(report, flow, width=width, height=height, every=2))
    return out.getvalue()


def line_of(screen: str, label: str) -> str:
    return next(line for line in screen.splitlines() if label in line)


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("report", [a_report(), a_bad_report(), a_bad_report(NASTY), a_bad_report("店" * 90)])
def test_the_screen_is_never_larger_than_it_was_given(
    report: dict[str, Any], width: int, height: int
) -> None:
    """Whatever there is to tell, no line is wider and there are no more of them."""
    lines = shown(report, width, height).splitlines()
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


@pytest.mark.parametrize(("width", "height"), [size for size in SIZES if size[1] > 10])
def test_each_section_keeps_its_place_however_much_is_wrong(width: int, height: int) -> None:
    """A long list of one kind never pushes the others off the screen; what is left out is counted."""
    screen = shown(a_bad_report(), width, height)
    for label in ("FLOW", "LAG", "WORK", "WAITING", "DEAD", "BUDGET", "BACKFILLS", "HEALTH"):
        assert label in screen
    assert " more" in screen or height > 40


def test_what_is_wrong_is_named_in_the_title() -> None:
    """The first line says where to look, or that there is nothing."""
    assert "nothing stands out" in shown(a_report()).splitlines()[0]
    assert "look at dead, budget, health" in shown(a_bad_report()).splitlines()[0]


def test_the_figures_stand_where_they_belong() -> None:
    """Flow, lag, budget, waiting, backfills and health of a report, at 80 columns."""
    screen = shown(a_bad_report(), 80, 60)
    assert "12.0/s" in line_of(screen, "stored ")
    assert "12 min overdue" in line_of(screen, "waiting  ")
    assert "5,000+  reason_0" in screen
    assert f"98%  {PAGE} 4,700 of 4,799, closed until" in screen
    assert "62%  #17 form 88  1,240 of 2,000 leads, waits: budget" in screen
    assert f"{PAGE} parked 5 h: token_refused, 120+ waiting" in screen
    assert "~10,002,331" in shown(a_report())


def test_who_does_not_look_at_its_work_is_told() -> None:
    """Each queue and the schedule, also one that never did."""
    report = a_report()
    report["stream"]["progress"] = {
        "live": int(NOW.timestamp() * 1000) - 90_000,
        "schedule": NOW.timestamp() * 1000,
    }
    screen = shown(report)
    assert "look at work" in screen
    assert "live 1 min   backfill never   upkeep never   schedule 0 s" in screen


@pytest.mark.parametrize(("ahead", "told"), [(7_200, "2 h ahead"), (30, "0 s")])
def test_a_look_from_the_future_is_no_fresh_one(ahead: int, told: str) -> None:
    """A clock that was set back hides a standstill for that long; clocks of machines are a little apart."""
    report = a_report()
    looked = int(NOW.timestamp() * 1000)
    report["stream"]["progress"] |= {"schedule": looked + ahead * 1_000}
    screen = shown(report)
    assert f"schedule {told}" in screen
    assert ("look at work" in screen) is (ahead > 60)
    out = io.StringIO()
    Console(file=out, width=100).print(render(report, NOW.timestamp()))
    plain = "7,200 s ahead of this clock" if ahead > 60 else "0 s ago"
    assert plain in line_of(out.getvalue(), "schedule last looked")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_neighbour_that_is_away_is_told_in_its_place(width: int, height: int) -> None:
    """The other one's figures stay."""
    no_redis = shown(a_report(stream=AWAY, budget=AWAY), width, height)
    assert "Redis is away" in no_redis
    assert "12 Pages, none parked" in no_redis or width < 80
    away = {"error": "Postgres gives no connection"}
    no_postgres = shown(a_report(rows=away, lag=away, flow=away, backfills=away, health=away), width, height)
    assert "Postgres is away" in no_postgres
    assert "live 3 s" in no_postgres or height < 10
    neither = a_report(stream=AWAY, budget=AWAY, rows=away, lag=away, flow=away, backfills=away, health=away)
    assert "Redis is away" in shown(neither, width, height)


@pytest.mark.parametrize("width", [80, 160])
def test_a_name_of_metas_steers_no_terminal_and_is_no_markup(width: int) -> None:
    """Pages and forms are named by strangers: brackets are shown as they are, escapes and line breaks are not."""
    screen = shown(a_bad_report(NASTY), width, 60, terminal=True)
    assert "[red]Evil" in screen
    assert not set("\x1b\x07\x9b\r\u202e\u200b") & set(screen)


def test_a_plain_line_is_one_line_of_printable_ascii() -> None:
    """For a pipe: no name of Meta's, no control character, whatever the report holds."""
    flow = Flow()
    away = {"error": "\x1b[2J\n"}
    bad = a_bad_report(NASTY)
    for report in (bad, a_report(stream=away, budget=away), a_report(rows=away, lag=away, flow=away)):
        flow.note(report)
        line = plain_line(report, flow)
        assert line.isascii()
        assert line.isprintable()
    line = plain_line(bad, flow)
    assert "waiting=44964+ dead=45 backfills=5 parked=1 unwell=30" in line
    assert f"tightest={PAGE}:4700/4799" in line
    assert "redis=away" in plain_line(a_report(stream=away, budget=away), flow)
    assert "postgres=away" in plain_line(a_report(rows=away, lag=away, flow=away), flow)


def test_a_sparkline_ends_with_the_latest_and_shows_holes() -> None:
    """It is as wide as it was told, its peak is full, what is not known is blank."""
    assert sparkline([1.0, None, 4.0, 8.0], 6) == "  ▂ ▅█"
    assert sparkline([0.0, 0.0], 2) == "▁▁"
    assert sparkline([8.0, 1.0], 1) == "█"
    assert sparkline([1.0], 0) == ""


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min"), (7_100, "1 h"), (200_000, "2 d")]
)
def test_a_span_is_told_in_one_unit(seconds: float, told: str) -> None:
    """Rounded down, so that it never claims more than has passed."""
    assert span(seconds) == told


@pytest.mark.parametrize(
    ("changed", "is_hinted"),
    [
        ({}, False),
        ({"rows": [a_state("waiting", "budget", 3)]}, False),
        ({"rows": [a_state("dead", "not_visible", 1)]}, True),
        ({"stream": AWAY}, True),
        ({"rows": AWAY}, True),
        ({"pages": [a_page(parked_reason="token_refused", waiting=2)]}, True),
    ],
)
def test_where_something_is_wrong_status_names_the_command_that_says_what(
    changed: dict[str, Any], is_hinted: bool
) -> None:
    """Whoever is woken reads it first; leads that wait for their budget wake nobody."""
    out = io.StringIO()
    Console(file=out, width=80).print(render(a_report(**changed), NOW.timestamp()))
    told = out.getvalue()
    assert ("`leadsync doctor` says what is wrong" in told) is is_hinted
    assert ("backfill last looked" in told) is ("stream" not in changed)
