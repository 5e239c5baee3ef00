"""What the supervisor decides: order, delays, bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.supervisor.plan import (
    BEAT,
    RECEIVER,
    SERVERS,
    WORKERS,
    ProcessSpec,
    end_in_words,
    failures_after,
    restart_delay,
    stage_bound,
    stages,
)


def spec(name: str, order: int, stop_seconds: float = 10.0) -> ProcessSpec:
    return ProcessSpec(name, ["true"], order=order, stop_seconds=stop_seconds)


def test_servers_start_first_and_the_receiver_last() -> None:
    """Stages come in the order of what leans on what; processes of one stage keep their order."""
    plan = [
        spec("receiver", RECEIVER),
        spec("worker-1", WORKERS),
        spec("redis", SERVERS),
        spec("beat", BEAT),
        spec("worker-2", WORKERS),
        spec("postgres", SERVERS),
    ]
    assert [[one.name for one in stage] for stage in stages(plan)] == [
        ["redis", "postgres"],
        ["worker-1", "worker-2"],
        ["beat"],
        ["receiver"],
    ]


def test_delays_double_from_one_second_to_ten() -> None:
    """A process that keeps ending is tried again after 1, 2, 4, ... and never more than 10 seconds."""
    assert [restart_delay(n) for n in range(1, 8)] == [1, 2, 4, 8, 10, 10, 10]
    assert restart_delay(100_000) == 10


def test_a_good_run_is_forgiven() -> None:
    """After a minute of running, an end counts as the first again."""
    assert failures_after(7, ran_seconds=60.0) == 1
    assert failures_after(7, ran_seconds=59.9) == 8


def test_a_stage_gets_what_its_slowest_asks_for() -> None:
    """Where time suffices, the bound of a stage is the longest in it."""
    assert stage_bound([[spec("a", 1, 3), spec("b", 1, 7)], [spec("c", 0, 10)]], 30) == 7


def test_time_a_stage_did_not_use_is_there_for_the_next() -> None:
    """Four stages share 30 seconds fairly, and the last has its whole bound where the others were quick."""
    four = [[spec(name, 0)] for name in "abcd"]
    assert stage_bound(four, 30) == 7.5
    assert stage_bound(four[3:], 28) == 10


@given(
    st.lists(st.lists(st.floats(0, 100), max_size=3), min_size=1, max_size=6),
    st.floats(-1, 60),
    st.floats(0, 1),
)
def test_all_stages_together_stay_within_the_whole(
    bounds: list[list[float]], seconds: float, used: float
) -> None:
    """Whatever share of its bound each stage uses, the sum never exceeds what the whole end was given."""
    ahead = [[spec(f"{i}", 0, bound) for bound in stage] for i, stage in enumerate(bounds)]
    left = seconds
    while ahead:
        bound = stage_bound(ahead, left)
        assert 0 <= bound <= max(0.0, left) + 1e-6
        left -= bound * used
        ahead.pop(0)


@pytest.mark.parametrize(
    ("code", "words"), [(0, "code 0"), (3, "code 3"), (-9, "SIGKILL"), (-99, "signal 99")]
)
def test_an_end_is_told_in_words(code: int, words: str) -> None:
    """A person reads the signal's name, not a negative number."""
    assert end_in_words(code) == words
