"""The judge of a soak: every broken promise is seen, and none that was kept is called broken."""

from dataclasses import replace

import pytest

from tests.system.soak.invariants import Answer, Facts, Found, PageWindow, violations
from tests.system.soak.leaks import LEAST_SAMPLES, growing
from tests.system.soak.watch import OpenSince, Process, Sample

GOOD = Facts(
    truth=frozenset({"1", "2", "3"}),
    rows={
        "1": Found("stored"),
        "2": Found("erased"),
        "3": Found("erased"),
        "4": Found("dead", "not_visible"),
    },
    results={"4": {"100/33": 4}},
    forgotten=frozenset({"2"}),
    perhaps_forgotten=frozenset({"2", "3"}),
    deleted=frozenset({"4"}),
    windows=(PageWindow("9", limit=60, most=60, over_limit=0),),
    answers=(Answer(10.0, 0.9, "200"), Answer(11.0, 4.0, "503")),
    left={"entries in the stream": 0},
    ages={"oldest entry, seconds": 12.0},
)


def rows(**changed: Found) -> dict[str, Found]:
    return {**GOOD.rows, **{name.removeprefix("_"): found for name, found in changed.items()}}


def test_where_every_promise_was_kept_there_is_no_violation() -> None:
    """A stored lead, one that was forgotten, one whose order may have come through, one that Meta deleted."""
    assert violations(GOOD) == []
    assert violations(replace(GOOD, rows=rows(_3=Found("stored")))) == []
    assert violations(replace(GOOD, rows=rows(_4=Found("stored")))) == []


BROKEN = {
    "a lead without a row": replace(GOOD, rows={i: row for i, row in GOOD.rows.items() if i != "1"}),
    "a lead that still waits": replace(GOOD, rows=rows(_1=Found("waiting", "graph_unavailable"))),
    "a dead letter of a lead that Meta has": replace(GOOD, rows=rows(_1=Found("dead", "request_refused"))),
    "an altered answer": replace(GOOD, rows=rows(_1=Found("stored", None, ("field_data",)))),
    "a person who was forgotten and is back": replace(GOOD, rows=rows(_2=Found("stored"))),
    "an erasure that nobody ordered": replace(GOOD, rows=rows(_1=Found("erased"))),
    "a dead letter for a reason that Graph never gave": replace(GOOD, results={"4": {"5xx": 1}}),
    "a deleted lead without a row though Redis lost nothing": replace(
        GOOD, rows={i: row for i, row in GOOD.rows.items() if i != "4"}
    ),
    "a row that Graph did not give": replace(GOOD, rows=rows(_77=Found("stored"))),
    "a lead that was stored and then was not": replace(GOOD, moved_back=("1",)),
    "a window with a call too many": replace(GOOD, windows=(PageWindow("9", 60, 61, 0),)),
    "a call that found its window full": replace(GOOD, windows=(PageWindow("9", 60, 60, 1),)),
    "a 200 that took too long": replace(GOOD, answers=(Answer(10.0, 1.1, "200"),)),
    "a receiver that did not answer": replace(GOOD, answers=(Answer(10.0, 20.0, "TimeoutError"),)),
    "a genuine delivery that was refused": replace(GOOD, answers=(Answer(10.0, 0.1, "403"),)),
    "an entry that is left": replace(GOOD, left={"entries in the stream": 1}),
    "a reference that waited too long": replace(GOOD, ages={"oldest entry, seconds": 601.0}),
    "something that grows": replace(GOOD, grown=("worker child grew",)),
    "a token in a log": replace(GOOD, exposed=("log: a token in line 3",)),
    "an order that was never carried out": replace(GOOD, not_done=("forgetting 2",)),
}


@pytest.mark.parametrize("facts", BROKEN.values(), ids=BROKEN.keys())
def test_each_broken_promise_is_one_violation(facts: Facts) -> None:
    """And nothing else is called broken on the way."""
    assert len(violations(facts)) == 1


def test_what_redis_lost_and_meta_no_longer_lists_is_nobodys_fault() -> None:
    """A lead that was deleted at Meta while only an emptied Redis knew of it."""
    without = {i: row for i, row in GOOD.rows.items() if i != "4"}
    assert violations(replace(GOOD, rows=without, emptied=True)) == []


def test_an_answer_is_excused_only_while_its_receiver_was_hit() -> None:
    """A stretch excuses what was under way in it, and nothing beside."""
    late = Answer(10.0, 20.0, "TimeoutError")
    assert violations(replace(GOOD, answers=(late,), excused=((29.0, 31.0),))) == []
    assert len(violations(replace(GOOD, answers=(late,), excused=((31.0, 40.0), (1.0, 9.0))))) == 1


def test_a_dropped_connection_now_and_then_is_no_broken_promise() -> None:
    """Both ends may close one that is kept; where many are dropped, somebody does not answer."""
    good = [Answer(float(at), 0.1, "200") for at in range(1_000)]
    dropped = [Answer(float(at), 0.01, "ServerDisconnectedError") for at in range(6)]
    assert violations(replace(GOOD, answers=(*good, *dropped[:5]))) == []
    assert len(violations(replace(GOOD, answers=(*good, *dropped)))) == 6
    assert len(violations(replace(GOOD, answers=(*good, Answer(1.0, 3.0, "ServerDisconnectedError"))))) == 1


def samples(rss: list[int], files: list[int], **sizes: float) -> list[Sample]:
    return [
        Sample(float(at), [Process("worker child", 7, memory, descriptors)], dict(sizes))
        for at, (memory, descriptors) in enumerate(zip(rss, files, strict=True))
    ]


def test_growth_over_one_life_is_seen_and_a_full_pool_is_not() -> None:
    """By its second and its last quarter, so that what fills at the start does not count."""
    many, megabyte = LEAST_SAMPLES * 2, 1_000_000
    steady = [30 * megabyte] * 5 + [100 * megabyte] * (many - 5)
    assert growing(samples(steady, [40] * many), 10) == []
    leaking = [100 * megabyte + at * 3 * megabyte for at in range(many)]
    assert len(growing(samples(leaking, [40] * many), 10)) == 1
    assert len(growing(samples(steady, [40 + at * 5 for at in range(many)]), 10)) == 1


def test_a_short_life_is_not_judged_by_its_growth() -> None:
    """A process that was killed soon has had no time to settle."""
    few = LEAST_SAMPLES - 1
    assert growing(samples([at * 20_000_000 for at in range(few)], [40] * few), 10) == []


def test_what_is_left_over_at_rest_is_seen() -> None:
    """Entries in the stream, rows in tables that should stay small; the leads themselves may be many."""
    at_rest = {"stream entries": 0.0, "table leadgen": 1e6, "table slices": 100.0}
    assert growing(samples([1], [1], **at_rest), 10) == []
    assert len(growing(samples([1], [1], **{**at_rest, "stream entries": 1.0}), 10)) == 1
    assert len(growing(samples([1], [1], **{**at_rest, "table slices": 300.0}), 10)) == 1


def test_reserved_calls_may_gather_for_two_windows_and_no_longer() -> None:
    """They are forgotten after that; before, a run of five minutes had 268 rows a minute of them, and rightly so."""
    for minutes, rows, is_fine in (
        (5, 2_190.0, True),
        (5, 2_210.0, False),
        (30, 4_990.0, True),
        (30, 5_010.0, False),
    ):
        sample = Sample(minutes * 60.0, [], {"table budget_blocks": rows})
        assert (growing([sample], 200) == []) is is_fine


def test_a_row_waits_from_when_its_page_was_last_seen_closed() -> None:
    """Parked or held, nobody could have read it; a closed Page's rows count for nothing, an unknown Page's in full."""
    since = OpenSince()
    assert since.oldest([("1", 40.0, True), ("2", 900.0, False)], at=1_000) == 40
    assert since.oldest([("1", 50.0, True), ("2", 910.0, True)], at=1_010) == 50
    assert since.oldest([("2", 1_210.0, True), ("3", 5.0, True)], at=1_310) == 310
    assert since.oldest([("2", 20.0, True)], at=1_400) == 20
    assert since.oldest([], at=1_500) == 0
