"""The exact meter and the blocks that lengthen, against sums as naive as can be."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.blocks import Scope
from sandbox.rolling import Meter

NOW = 1_790_000_000.0


@dataclass
class Naive:
    """The same as Meter, with a list of every call."""

    window: float
    times: list[float] = field(default_factory=list)
    most: int = 0

    def count(self, now: float, calls: int) -> None:
        self.times += [now] * calls
        self.most = max(self.most, self.used(now))

    def used(self, now: float) -> int:
        return len([time for time in self.times if now - self.window < time])

    def regained_in(self, limit: int, now: float) -> float:
        ends = [now, *sorted(time + self.window for time in self.times if now - self.window < time)]
        return next((end - now for end in ends if self.used(end) < limit), self.window)


STEPS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 6), st.integers(0, 20)), min_size=1, max_size=60
)


@given(window=st.integers(1, 60), steps=STEPS)
def test_a_meter_says_what_a_list_of_all_calls_says(window: int, steps: list[tuple[int, int, int]]) -> None:
    """used, most and regained_in are those of a list that keeps every call, at and between calls."""
    meter, naive, now = Meter(window), Naive(window), NOW
    for quarters, calls, limit in steps:
        now += quarters / 4
        assert meter.used(now) == naive.used(now)
        naive.count(now, calls)
        assert meter.count(now, calls) == naive.used(now)
        assert meter.most == naive.most
        assert meter.regained_in(limit, now) == naive.regained_in(limit, now)


@pytest.mark.parametrize("window", [1, 5, 60, 300, 3_600, 86_400])
def test_a_call_leaves_exactly_a_window_after_it_was_made(window: int) -> None:
    """A call is in the window until a full window has passed, and out at that very moment."""
    meter = Meter(window)
    meter.count(NOW + 0.1, 3)
    assert meter.used(NOW + 0.1 + window - 0.001) == 3
    assert meter.used(NOW + 0.1 + window) == 0


def test_the_time_to_regain_access_is_when_enough_calls_have_left() -> None:
    """Access returns when the oldest calls over the limit have left the window, not all of them."""
    meter = Meter(86_400)
    meter.count(0.0, 4)
    meter.count(3_600.0, 4)
    assert meter.regained_in(5, 7_200.0) == 86_400 - 7_200
    assert meter.regained_in(4, 7_200.0) == 3_600 + 86_400 - 7_200
    assert meter.regained_in(9, 7_200.0) == 0
    assert meter.regained_in(0, 7_200.0) == 86_400


def test_the_most_is_of_any_window_and_not_of_any_slice_of_the_clock() -> None:
    """Calls on both sides of a round minute are in one rolling window."""
    meter = Meter(60)
    for now in (NOW + 59, NOW + 61, NOW + 118.9, NOW + 119, NOW + 300):
        meter.count(now)
    assert meter.most == 3


def test_a_clock_that_was_set_back_loses_no_call() -> None:
    """Calls dated before the last one are counted all the same, and leave in the end."""
    meter = Meter(60)
    meter.count(NOW, 2)
    assert meter.count(NOW - 30) == 3
    assert meter.used(NOW + 60) == 0
    assert meter.count(NOW - 200) == 1
    assert meter.used(NOW + 60) == 0
    assert meter.count(NOW + 61) == 1


def test_a_busy_window_costs_no_more_than_a_quiet_one() -> None:
    """Hundreds of thousands of calls far over the limit are counted one by one, each told when access returns."""
    meter = Meter(86_400)
    for number in range(300_000):
        now = NOW + number / 8
        meter.count(now)
        assert (meter.regained_in(100_000, now) > 0) == (number >= 99_999)
    assert meter.used(now) == meter.most == 300_000
    assert meter.used(NOW + 86_400 + 1_000) == 300_000 - 8_001


@given(limit=st.integers(0, 5), steps=st.lists(st.integers(0, 80), max_size=80))
def test_without_a_penalty_the_window_alone_decides(limit: int, steps: list[int]) -> None:
    """With a penalty of 0 a call is refused just when the window with it holds more than the limit."""
    scope, naive, now = Scope("1", 10, 0.0), Naive(10), NOW
    for quarters in steps:
        now += quarters / 4
        naive.count(now, 1)
        standing = scope.call(limit, now)
        assert standing.refused == (naive.used(now) > limit)
        assert standing.regain_seconds == naive.regained_in(limit, now)


def test_each_call_into_a_block_pushes_its_end_back() -> None:
    """Going over opens a block; each call into it is counted, refused and adds the penalty."""
    scope = Scope("1", 60, 30.0)
    assert [scope.call(2, NOW + second).refused for second in (0, 1)] == [False, False]
    opening = scope.call(2, NOW + 2)
    assert (opening.over, opening.into_block, opening.used) == (True, False, 3)
    assert scope.blocked_until(2, NOW + 2) == NOW + 61
    for second, end in ((3, 91), (4, 121), (120, 151)):
        into = scope.call(2, NOW + second)
        assert (into.refused, into.into_block) == (True, True)
        assert scope.blocked_until(2, NOW + second) == NOW + end
        assert into.regain_seconds == end - second


def test_a_block_refuses_although_the_window_is_free() -> None:
    """While a block lasts every call is refused, whatever the window holds; at its end calls succeed."""
    scope = Scope("1", 10, 30.0)
    for second in (0, 0, 1):
        scope.call(1, NOW + second)
    assert scope.blocked_until(1, NOW + 1) == NOW + 40
    late = scope.call(1, NOW + 39)
    assert (late.used, late.over, late.refused) == (1, False, True)
    assert scope.blocked_until(1, NOW + 69) == NOW + 70
    assert not scope.call(1, NOW + 70).refused
    assert scope.blocked_until(1, NOW + 70) is None


def test_a_block_is_never_shorter_than_its_window_needs() -> None:
    """Where the refused calls themselves fill the window for longer than the penalty, that decides."""
    scope = Scope("1", 1_000, 1.0)
    for second in (0, 0, 500):
        scope.call(1, NOW + second)
    assert scope.blocked_until(1, NOW + 500) == NOW + 1_500


def test_a_limit_that_grows_lets_calls_through_sooner() -> None:
    """New leads raise the limit: the block then lasts as the new limit needs and as it was pushed."""
    scope = Scope("1", 1_000, 30.0)
    for _ in range(3):
        scope.call(1, NOW)
    assert scope.blocked_until(1, NOW) == NOW + 1_030
    assert scope.blocked_until(50, NOW) == NOW + 30
    assert scope.call(50, NOW + 30).refused is False


def test_looking_is_not_calling() -> None:
    """Asking where a scope stands counts nothing and pushes nothing."""
    scope = Scope("1", 60, 30.0)
    for _ in range(2):
        scope.call(1, NOW)
    before = scope.standing(1, NOW)
    assert scope.standing(1, NOW) == before
    assert (before.used, before.refused, before.regain_seconds) == (2, False, 60)
