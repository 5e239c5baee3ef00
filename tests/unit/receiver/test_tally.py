"""Counts and log lines that a stranger cannot make expensive."""

from structlog.testing import capture_logs

from receiver.tally import LINE_EVERY_SECONDS, Quietly, Tally, Verdict


def test_what_is_taken_is_taken_once() -> None:
    """A count is handed out once, and again only after it was put back."""
    tally = Tally()
    tally.add(Verdict.UNSIGNED)
    tally.add(Verdict.UNSIGNED, 2)
    taken = tally.take()
    assert (taken, tally.take()) == ({Verdict.UNSIGNED: 3}, {})
    tally.put_back(taken)
    tally.add(Verdict.UNSIGNED)
    assert tally.take() == {Verdict.UNSIGNED: 4}


def test_an_event_is_one_line_a_minute() -> None:
    """However often it happens, an event is logged at most once a minute, with how often it happened."""
    now = 0.0
    with capture_logs() as lines:
        quietly = Quietly(lambda: now)
        for _ in range(5):
            quietly.warning("unsigned")
        quietly.warning("too_large")
        now = LINE_EVERY_SECONDS
        quietly.warning("unsigned")
    assert [(line["event"], line["times"]) for line in lines] == [
        ("unsigned", 1),
        ("too_large", 1),
        ("unsigned", 5),
    ]
