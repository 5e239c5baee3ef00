"""When a Page counts as slow, and when again not."""

from worker.speed import SLOW_CALL_SECONDS, SLOW_FOR_SECONDS, PageSpeeds


def test_a_page_whose_only_calls_hang_is_slow_for_a_while_and_then_on_trial() -> None:
    """A hanging call with no quick one beside it makes its Page slow, later one call may try."""
    speeds = PageSpeeds()
    assert speeds.call_hangs("1", now=100.0)
    assert speeds.is_slow("1", now=100.0 + SLOW_FOR_SECONDS - 1)
    assert not speeds.is_slow("1", now=100.0 + SLOW_FOR_SECONDS)
    assert speeds.is_on_trial("1", now=100.0 + SLOW_FOR_SECONDS)
    assert not speeds.is_on_trial("2", now=100.0)


def test_one_hanging_call_among_quick_ones_makes_no_page_slow() -> None:
    """A Page that answers is not held for a single call that does not."""
    speeds = PageSpeeds()
    speeds.call_ended("1", seconds=0.2, now=98.0)
    assert not speeds.call_hangs("1", now=100.0)
    assert not speeds.is_slow("1", now=100.0)


def test_a_quick_call_clears_the_page_and_a_slow_one_does_not() -> None:
    """Only an answer in time shows that a Page has recovered."""
    speeds = PageSpeeds()
    speeds.call_hangs("1", now=100.0)
    speeds.call_ended("1", seconds=SLOW_CALL_SECONDS + 1, now=110.0)
    assert speeds.is_slow("1", now=110.0)
    speeds.call_ended("1", seconds=1.0, now=111.0)
    assert not speeds.is_slow("1", now=111.0)
    assert not speeds.is_on_trial("1", now=111.0)
