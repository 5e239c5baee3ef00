"""The budget's sums, by themselves: what a limit is, what a window's numbers allow, what a backfill costs."""

from datetime import timedelta
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.budget.policy import (
    BUCKETS,
    CALLS_PER_LEAD,
    LEADS_OF,
    Limit,
    Shares,
    Window,
    backfill_allowance,
    block_of,
    cadence,
    forecast,
    limit_of,
)

DAY = Window()
SHARES = Shares()
WINDOWS = st.floats(5.0, 86_400.0).map(Window)
LIMITS = st.integers(0, 480_000_000)
QUARTER_HOUR = timedelta(minutes=15)


def limit_from(
    ours: int = 0, metas: int = 0, override: int | None = None, floor: int = 4_800, share: float = 0.95
) -> Limit:
    return limit_of(ours=ours, metas=metas, override=override, floor=floor, share=share)


# Limits


def test_a_lead_is_worth_4800_calls_of_which_a_share_is_taken() -> None:
    """Meta allows 200 x 24 calls a lead; we take our share of them."""
    assert limit_from(ours=100) == Limit(456_000, 480_000, "our rows")


@pytest.mark.parametrize(
    ("ours", "metas", "origin"), [(7, 3, "our rows"), (3, 7, "Meta's forms"), (7, 7, "our rows")]
)
def test_the_larger_count_of_leads_holds(ours: int, metas: int, origin: str) -> None:
    """Meta counts its own leads, of which our rows may lack some, and its forms' counts may be old."""
    assert limit_from(ours, metas) == Limit(31_920, 33_600, origin)


def test_a_page_without_leads_has_the_floor() -> None:
    """Where nobody knows a lead, the floor lets the first ones be read."""
    assert limit_from(floor=1_000) == Limit(950, 1_000, "floor")


def test_the_floor_raises_a_small_limit_only() -> None:
    """A floor below what the leads are worth changes nothing, one above it holds."""
    assert limit_from(ours=1, floor=4_800).origin == "our rows"
    assert limit_from(ours=1, floor=9_600) == Limit(9_120, 9_600, "floor")


def test_an_override_beats_all_and_is_not_shared() -> None:
    """The operator's word is taken as it is, all but the last call."""
    assert limit_from(ours=100, metas=100, override=50, share=0.5) == Limit(49, 50, "override")


@pytest.mark.parametrize(("override", "calls"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_an_override_may_stop_a_page_but_a_single_call_is_granted(override: int, calls: int) -> None:
    """0 is none; of 1 the last call is the only one."""
    assert limit_from(override=override).calls == calls


@given(
    st.integers(0, 10**5), st.integers(0, 10**5), st.none() | st.integers(0, 10**8), st.integers(0, 10**5),
    st.floats(0.0, 1.0, exclude_min=True),
)  # fmt: skip
def test_a_limit_is_below_what_meta_allows(
    ours: int, metas: int, override: int | None, floor: int, share: float
) -> None:
    """At 100% Meta closes a Page, so the last call is never granted where there is more than one."""
    limit = limit_of(ours=ours, metas=metas, override=override, floor=floor, share=share)
    assert 0 <= limit.calls <= limit.told
    assert limit.calls < limit.told or limit.told <= 1
    if override is None:
        assert limit.told >= CALLS_PER_LEAD * max(ours, metas)


@given(st.integers(0, 10**5), st.integers(0, 10**5), st.integers(0, 1_000))
def test_more_leads_never_lower_a_limit(ours: int, metas: int, more: int) -> None:
    """A lead that comes can only help."""
    assert limit_from(ours + more, metas).calls >= limit_from(ours, metas).calls
    assert limit_from(ours, metas + more).calls >= limit_from(ours, metas).calls


def test_leads_leave_our_count_before_metas() -> None:
    """A lead ages out of our limit at least a window before it ages out of Meta's 90 days."""
    assert timedelta(days=90) - LEADS_OF >= timedelta(seconds=DAY.seconds)


# Windows


def test_the_numbers_of_the_day() -> None:
    """Buckets of 5 minutes, grants of 10 seconds, jumps of 60: as the docstrings say."""
    assert (DAY.bucket, DAY.life, DAY.jump, DAY.hold) == (300.0, 10.0, 60.0, 86_470.0)
    assert (DAY.recent, DAY.first_pause, DAY.longest_pause) == (3_600.0, 300.0, 3_600.0)
    assert (DAY.trial, DAY.block_life) == (30.0, 900.0)


@given(WINDOWS)
def test_every_window_fits_together(window: Window) -> None:
    """A block outlives the bucket, a trial the grant, and a call is held until Meta has forgotten it for certain."""
    assert window.bucket * BUCKETS == pytest.approx(window.seconds)
    assert window.hold >= window.seconds + window.life + window.jump
    assert window.block_life > window.bucket
    assert window.trial >= window.life
    assert window.first_pause <= window.longest_pause
    assert 1.0 <= window.jump <= 60.0
    assert 1.0 <= window.life <= 10.0


@given(st.floats(3_600.0, 86_400.0).map(Window))
def test_what_holding_costs_is_small(window: Window) -> None:
    """From an hour on, a call comes back at most half a percent later than at Meta."""
    assert window.hold + window.bucket <= 1.005 * window.seconds


@given(WINDOWS)
def test_a_block_lives_longer_than_a_grant_where_windows_are_real(window: Window) -> None:
    """From two minutes on, a fresh block is good for the whole life of a grant."""
    if window.seconds >= 120:
        assert window.block_life > window.life


# Blocks


@given(st.integers(1, 60), LIMITS)
def test_a_block_covers_what_is_asked_and_costs_little(asked: int, limit: int) -> None:
    """No block is smaller than the request, and what a crash loses is at most a 400th of the limit beyond it."""
    block = block_of(asked, limit)
    assert asked <= block <= max(asked, 5_000)
    assert block == asked or block <= limit / 400


# Backfill


@given(LIMITS, st.integers(0, 10**8))
def test_backfill_leaves_the_live_reserve(limit: int, live: int) -> None:
    """A twentieth of the limit is left, a tenth more than live leads need, and never more than nine tenths."""
    allowed = backfill_allowance(limit, live, SHARES)
    assert 0 <= allowed <= limit
    kept = limit - allowed
    assert kept >= min(0.05 * limit, 0.9 * limit - 1)
    assert kept >= min(1.1 * live, 0.9 * limit - 1)
    assert kept <= 0.9 * limit or limit == 0


@given(LIMITS, st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_live_leads_leave_backfill_no_more(limit: int, live: int, more: int) -> None:
    """Backfill steps back as live leads grow."""
    assert backfill_allowance(limit, live + more, SHARES) <= backfill_allowance(limit, live, SHARES)


def reconciled_every(calls: int, limit: int, live: int, window: Window = DAY) -> timedelta:
    return cadence(
        calls_a_round=calls, limit=limit, live=live, window=window, shares=SHARES, soonest=QUARTER_HOUR
    )


def test_a_poor_page_with_many_forms_is_reconciled_less_often() -> None:
    """One lead and sixty forms: sixty calls a quarter of an hour are more than its 4560 a day allow."""
    limit = limit_from(ours=1)
    assert limit.calls == 4_560
    every = reconciled_every(60, limit.calls, live=1)
    assert QUARTER_HOUR < every < timedelta(minutes=25)
    rounds = timedelta(days=1) / every
    assert 60 * rounds <= 0.9 * backfill_allowance(limit.calls, 1, SHARES) + 60


def test_a_rich_page_is_reconciled_at_the_soonest() -> None:
    """Where the budget leaves it, nobody waits for longer than was asked."""
    assert reconciled_every(60, 456_000, live=100) == QUARTER_HOUR


@pytest.mark.parametrize("limit", [0, 1])
def test_a_page_without_a_budget_is_reconciled_once_a_window(limit: int) -> None:
    """With nothing to spend there is still an end to the waiting."""
    assert reconciled_every(60, limit, live=0) == timedelta(days=1)


@given(st.integers(1, 5_000), st.integers(2, 10**7), st.integers(0, 10**6), WINDOWS)
def test_rounds_at_this_cadence_leave_others_a_tenth(
    calls: int, limit: int, live: int, window: Window
) -> None:
    """What all rounds of a window take together is at most nine tenths of what backfill may spend."""
    allowed = backfill_allowance(limit, live, SHARES)
    every = reconciled_every(calls, limit, live, window)
    assert every >= QUARTER_HOUR
    if 0.9 * allowed >= 1:
        assert calls * window.seconds / every.total_seconds() <= 0.9 * allowed * 1.001 + 0.001


# Forecasts


def test_what_fits_is_done_as_fast_as_graph_answers() -> None:
    """A backfill within what is left takes only the time of its calls."""
    found = forecast(calls=100, limit=10_000, live=0, spent=0, window=DAY, shares=SHARES, seconds_a_call=0.5)
    assert (found.calls, found.now, found.lasts) == (100, 100, timedelta(seconds=50))


def test_what_does_not_fit_lasts_windows() -> None:
    """Beyond what is left now, each allowance takes a window."""
    found = forecast(calls=3 * 9_500, limit=10_000, live=0, spent=0, window=DAY, shares=SHARES)
    assert (found.now, found.lasts) == (9_500, timedelta(days=2))


def test_what_was_spent_is_not_there_now() -> None:
    """Backfill's own calls of the window count against its allowance, live ones only against the limit."""
    spent = forecast(calls=20_000, limit=10_000, live=0, spent=9_000, window=DAY, shares=SHARES)
    assert spent.now == 500
    live = forecast(calls=20_000, limit=10_000, live=9_000, spent=9_000, window=DAY, shares=SHARES)
    assert live.now == 1_000


def test_without_an_allowance_it_never_ends() -> None:
    """A Page that may spend nothing on backfill is told so instead of dividing by nothing."""
    assert forecast(calls=5, limit=0, live=0, spent=0, window=DAY, shares=SHARES).lasts == timedelta.max


@given(
    st.integers(0, 10**6), st.integers(2, 10**7), st.integers(0, 10**6), st.integers(0, 10**7),
    st.integers(1, 10**5),
)  # fmt: skip
def test_a_forecast_is_possible_and_grows(calls: int, limit: int, live: int, spent: int, more: int) -> None:
    """No more is done at once than is left, and a larger backfill is never done sooner."""
    told = {"limit": limit, "live": live, "spent": spent, "window": DAY, "shares": SHARES}
    found = forecast(calls=calls, **told)  # type: ignore[arg-type]
    assert 0 <= found.now <= min(calls, max(0, limit - spent))
    assert found.lasts >= timedelta(seconds=ceil(calls / 2) - 1)
    assert forecast(calls=calls + more, **told).lasts >= found.lasts  # type: ignore[arg-type]
