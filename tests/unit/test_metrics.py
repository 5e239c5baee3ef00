"""The counts of one process: what grows, under which field, and that nothing is counted twice."""

from collections import Counter

from worker import errors
from worker.errors import LeadSyncError
from worker.metrics import CALLS, COUNTED, REFERENCES, REQUEST_SECONDS, RESULTS, WEBHOOK_TO_ROW, Meter


def test_what_was_taken_is_not_taken_again() -> None:
    """Growth is handed out once."""
    meter = Meter()
    meter.count(CALLS, "lead", "ok", by=3)
    assert meter.take() == {"graph_calls lead ok": 3}
    assert meter.take() == {}


def test_words_that_are_not_in_the_set_become_other() -> None:
    """Whatever Meta answers, or a caller hands in by mistake, makes no series of its own."""
    meter = Meter()
    meter.count(CALLS, "EAAB-a-token", "some new reason")
    assert meter.take() == {"graph_calls other other": 1}


def test_an_observation_falls_into_the_first_bucket_that_holds_it() -> None:
    """A bound holds what is equal to it; what is beyond all falls into the infinite one; the sum is exact."""
    meter = Meter()
    for seconds in (0.05, 0.0500001, 20.0, 21.0):
        meter.observe(REQUEST_SECONDS, seconds, "lead")
    assert meter.take() == {
        "graph_request_seconds lead 0.05": 1,
        "graph_request_seconds lead 0.1": 1,
        "graph_request_seconds lead 20": 1,
        "graph_request_seconds lead +Inf": 1,
        "graph_request_seconds lead sum": 41_100_000,
    }


def test_observations_of_a_batch_are_those_of_each() -> None:
    """Told at once or one by one, they fall into the same buckets and have the same sum."""
    at_once, one_by_one, each = Meter(), Meter(), (0.05, 0.06, 3.0, 200_000.0, -1.0)
    at_once.observe_all(WEBHOOK_TO_ROW, each)
    for seconds in each:
        one_by_one.observe(WEBHOOK_TO_ROW, seconds)
    assert at_once.take() == one_by_one.take()


def test_a_clock_that_was_set_back_takes_nothing_off_the_sum() -> None:
    """A row that seems older than its webhook counts as one that took no time."""
    meter = Meter()
    meter.observe(WEBHOOK_TO_ROW, -5.0)
    assert meter.take() == {"webhook_to_row_seconds 0.1": 1}


def test_counts_of_a_run_are_followed_while_it_lasts_and_to_its_end() -> None:
    """Somebody who looks during a run sees its counts, and afterwards the rest, each once."""
    meter, counts = Meter(), Counter[str]()
    with meter.following(REFERENCES, counts, "live"):
        counts["stored"] += 2
        assert meter.take() == {"references live stored": 2}
        assert meter.take() == {}
        counts["stored"] += 1
        counts["dead"] += 1
    counts["stored"] += 100  # nobody follows any more
    assert meter.take() == {"references live stored": 1, "references live dead": 1}


def test_fields_of_all_series_can_be_told_apart() -> None:
    """A field is split at its spaces, so no name, label value or bound may hold one."""
    for series in COUNTED:
        words = [series.name, *(word for values in series.labels.values() for word in values)]
        assert not any(" " in word for word in words)
    assert len({series.name for series in COUNTED}) == len(COUNTED)


def test_every_error_that_a_call_can_meet_has_its_word() -> None:
    """Each reason of errors.py that Graph can cause is a result; what is not Graph's doing is none."""
    ours = {"error", "transient", "store_unavailable", "ledger_unavailable", "grant_lapsed", "blocked", "unreadable",
            "configuration"}  # fmt: skip
    reasons = {
        each.reason
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, LeadSyncError)
    }
    assert reasons - ours <= set(RESULTS)
