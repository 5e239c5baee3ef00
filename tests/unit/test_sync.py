"""The live path's middle, on a loop whose time jumps: everything taken is done after its commit, or given back.

What listings bring along is test_sync_listings.py's.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.leads import OTHER_PAGE, PAGE, at, in_flight
from tests.fakes.time import BEGINNING, loop_time, run_jumping
from tests.unit.sync_bench import TOO_LONG, Bench, ids, some
from worker.batches import InFlight
from worker.budget.policy import Lane
from worker.errors import (
    LedgerUnavailable,
)
from worker.outcomes import DeadLetter, Park, Retry, Snooze, Stored
from worker.speed import SLOW_CALL_SECONDS
from worker.sync import (
    ALONE_CRASHES,
    BUSY_SECONDS,
    POISON_CRASHES,
    STALLED_SECONDS,
    WARY_CRASHES,
    WARY_TOGETHER,
)


def test_every_reference_is_read_committed_and_done() -> None:
    """The plain case: what is taken becomes rows and is then acknowledged."""
    bench = Bench([*some(120), *some(30, OTHER_PAGE, 500)])
    assert bench.run() == {"stored": 150}
    assert sorted(ids(bench.source.finished)) == sorted(ids(bench.source.taken))
    assert {type(outcome) for _, outcome in bench.store.settled} == {Stored}
    assert sorted(len(batch) for _, batch in bench.reader.batches) == [20, 30, 50, 50]


pytestmark = pytest.mark.usefixtures("jumping_run")


def test_nothing_to_take_ends_at_once() -> None:
    """An empty source ends the run without a call or a commit."""
    bench = Bench()
    assert bench.run() == {}
    assert (bench.reader.batches, bench.store.commits) == ([], [])


def test_every_outcome_is_carried_out_and_counted() -> None:
    """All five outcomes are committed as they are, and each reference is then done."""
    bench = Bench(some(5))
    bench.reader.outcomes = {
        "1": Snooze(at(9), "x"),
        "2": Retry(at(9), "x", 1),
        "3": Park("token_refused"),
        "4": DeadLetter("lead_malformed"),
    }
    assert bench.run() == {"snoozed": 1, "retried": 1, "parked": 1, "dead": 1, "stored": 1}
    assert {r.leadgen_id: o for r, o in bench.store.settled if r.leadgen_id != "5"} == bench.reader.outcomes


def test_the_time_from_webhook_to_row_is_told_of_each_announced_lead_that_was_stored() -> None:
    """Neither of what waits, nor of a row that was there in part, nor of what no webhook announced."""
    announced = [replace(r, received_at=at(-3 - n)) for n, r in enumerate(some(4))]
    bench = Bench(
        [*announced[:2], replace(announced[2], in_part=True), announced[3], in_flight(9, received_at=None)]
    )
    bench.reader.outcomes = {"4": Retry(at(9), "x", 1)}
    bench.run()
    assert sorted(bench.landed) == [3.0, 4.0]


def of_pages(count: int, *, pages: int = 4) -> list[InFlight]:
    """One of each Page in turn, as a busy stream has them."""
    return [in_flight(n, str(int(PAGE) + n % pages)) for n in range(1, count + 1)]


def test_under_a_backlog_batches_are_full() -> None:
    """What is taken at once is no multiple of a batch of each Page; its rest waits for what is taken next."""
    bench = Bench(of_pages(1_000), calls_per_page=8)
    bench.run()
    assert {len(batch) for _, batch in bench.reader.batches} == {50}


def test_the_rest_of_a_backlog_waits_for_nothing() -> None:
    """Once no more is waiting, part of a batch is read at once, beside those that are being read."""
    bench = Bench(of_pages(500), calls_per_page=8)
    bench.reader.takes = 100.0
    bench.source.endless = True

    async def look() -> None:
        await asyncio.sleep(1)
        assert sorted(len(batch) for _, batch in bench.reader.batches) == [25] * 4 + [50] * 8
        bench.stop = lambda: True

    bench.run(look())


def test_no_part_of_a_batch_waits_for_a_call_that_hangs() -> None:
    """Where nothing more can be taken until a slow call ends, what is here is read beside it."""
    bench = Bench(of_pages(1_000), references=500, calls_per_page=8)
    bench.reader.takes = 4.0

    async def look() -> None:
        await asyncio.sleep(BUSY_SECONDS / 2)
        assert len(bench.reader.read_ids()) == 400
        await asyncio.sleep(BUSY_SECONDS)
        assert len(bench.reader.read_ids()) == 500

    bench.run(look())


def test_a_webhook_repeated_fifty_times_costs_one_call() -> None:
    """Duplicates join the reference in flight, and all of them are done by its one commit."""
    copies = [in_flight(1, entry_id=f"1-{n}".encode()) for n in range(50)]
    bench = Bench([*copies, in_flight(2)], at_once=7)
    counts = bench.run()
    assert bench.reader.read_ids().count("1") == 1
    assert len(bench.source.finished) == 51
    assert counts["stored"] == 2
    assert bench.store.again == ["1"] * 49, "the row counts its first announcement itself"


@pytest.mark.parametrize("state", ["stored", "waiting", "dead", "erased"])
def test_what_has_a_row_is_acknowledged_without_a_call(state: str) -> None:
    """A reference that the store knows is noted as seen again and done, whatever its state."""
    bench = Bench(some(3))
    bench.store.rows = {"2": state}
    assert bench.run() == {"stored": 2, "known": 1}
    assert bench.store.again == ["2"]
    assert sorted(bench.reader.read_ids()) == ["1", "3"]


def test_a_lead_stored_in_part_is_read_once_more() -> None:
    """A row that lacks its ad fields is no reason to leave its next announcement unread."""
    bench = Bench(some(1))
    bench.store.rows = {"1": "in_part"}
    assert bench.run() == {"stored": 1}


def test_leased_rows_are_read_though_they_are_known() -> None:
    """What comes from the waiting room has a row of course, and its lease is its leave to read it."""
    bench = Bench([in_flight(1, turn=4)])
    bench.store.rows = {"1": "waiting"}
    assert bench.run() == {"stored": 1}
    assert bench.store.again == []


def test_a_parked_page_s_references_wait() -> None:
    """No call is made for a parked Page; its references become waiting rows, and another Page is read."""
    bench = Bench([*some(3), *some(2, OTHER_PAGE, 10)])
    bench.store.parked_pages = {PAGE}
    assert bench.run() == {"snoozed": 3, "stored": 2}
    assert {page for page, _ in bench.reader.batches} == {OTHER_PAGE}
    waiting = [outcome for r, outcome in bench.store.settled if r.page_id == PAGE]
    assert {outcome.reason for outcome in waiting if isinstance(outcome, Snooze)} == {"page_parked"}


def test_what_is_queued_behind_a_refused_call_is_not_asked_for() -> None:
    """Once a call is refused, the rest of its Page waits unasked; another Page goes on."""
    bench = Bench([*some(5_000), *some(2, OTHER_PAGE, 9_000)])
    bench.reader.outcomes = {str(n): Park("token_refused") for n in range(1, 5_001)}
    settle, take = bench.store.settle, bench.source.take

    async def take_late(room: int, *, busy: bool) -> Any:
        await asyncio.sleep(1 if bench.source.taken else 0)
        return await take(room, busy=busy)

    async def settle_late(*told: Any) -> None:
        await asyncio.sleep(5)  # meanwhile no row says that the Page is parked
        await settle(*told)

    bench.store.settle = settle_late  # type: ignore[method-assign]
    bench.source.take = take_late  # type: ignore[method-assign]
    counts = bench.run()
    assert counts["parked"] + counts["snoozed"] == 5_000
    assert counts["stored"] == 2
    assert len([page for page, _ in bench.reader.batches if page == PAGE]) <= 8


def test_who_is_read_elsewhere_is_followed_until_it_is_there() -> None:
    """A reference that another process is reading is not read twice: it is done once the row is there."""
    bench = Bench(some(2))
    bench.source.elsewhere["1"] = 10_000

    async def other_process() -> None:
        await asyncio.sleep(3)
        bench.store.rows["1"] = "stored"

    assert bench.run(other_process()) == {"stored": 1, "known": 1}
    assert bench.reader.read_ids() == ["2"]


def test_who_is_read_elsewhere_is_looked_after_while_others_come_in() -> None:
    """A stream that never rests holds up nobody whose other process gave up."""
    bench = Bench(some(300), at_once=1)
    bench.source.elsewhere["5"] = 1
    take, settle, landed_at = bench.source.take, bench.store.settle, dict[str, float]()

    async def trickle(room: int, *, busy: bool) -> tuple[InFlight, ...] | None:
        await asyncio.sleep(0.1)
        return await take(room, busy=busy)

    async def noted(settled: Sequence[tuple[InFlight, Any]], now: Any) -> None:
        await settle(settled, now)
        landed_at.update((reference.leadgen_id, loop_time()) for reference, _ in settled)

    bench.source.take = trickle  # type: ignore[method-assign]
    bench.store.settle = noted  # type: ignore[method-assign]
    bench.run()
    assert landed_at["300"] - landed_at["6"] > 25
    assert landed_at["5"] - landed_at["6"] < 2


def test_what_is_asked_before_a_read_is_asked_at_once() -> None:
    """A lead that comes alone waits for the slowest of three answers before it is read, not for their sum."""
    bench = Bench(some(1))
    bench.store.takes, bench.source.reserving, bench.reader.takes = 2.0, 1.5, 0.25
    landed_at: list[float] = []
    bench.on_landed = lambda _: landed_at.append(loop_time())
    bench.run()
    assert landed_at == [BEGINNING + 2.0 + 0.25 + 2.0]


def test_who_was_read_elsewhere_in_vain_is_read_here() -> None:
    """Where the other process has died and its reservation has run out, the reference is read after all."""
    bench = Bench(some(1))
    bench.source.elsewhere["1"] = 5
    assert bench.run() == {"stored": 1}


@pytest.mark.parametrize(("per_page", "per_process"), [(8, 64), (3, 4), (1, 1), (100, 10)])
def test_calls_in_flight_are_bounded(per_page: int, per_process: int) -> None:
    """Neither a Page nor the process has more calls in flight than its limit, and the limit is used."""
    references = [r for page in range(1, 13) for r in some(600, str(page), page * 10_000)]
    bench = Bench(references, calls_per_page=per_page, calls_per_process=per_process, references=10_000)
    assert bench.run()["stored"] == 7_200
    assert bench.reader.most_of_a_page == min(per_page, per_process)
    assert bench.reader.most_at_once == min(per_process, 12 * per_page)


@pytest.mark.parametrize("crashes", [0, WARY_CRASHES, ALONE_CRASHES])
def test_the_bound_of_the_process_holds_for_suspects_too(crashes: int) -> None:
    """References that some process may have died of do not go beyond the calls of this one."""
    references = [in_flight(n, str(n), crashes=crashes) for n in range(1, 60)]
    bench = Bench(references, calls_per_process=5)
    bench.run()
    assert bench.reader.most_at_once == (1 if crashes >= ALONE_CRASHES else 5)


def test_references_in_flight_are_bounded() -> None:
    """No more is taken than there is room for."""
    bench = Bench(some(300), at_once=40, references=100)
    held: list[int] = []
    take = bench.source.take

    async def watched(room: int, *, busy: bool) -> Any:
        found = await take(room, busy=busy)
        held.append(len(bench.source.taken) - len(bench.source.finished))
        return found

    bench.source.take = watched  # type: ignore[method-assign]
    assert bench.run() == {"stored": 300}
    assert 60 < max(held) <= 100


def test_a_hanging_page_does_not_hold_up_another() -> None:
    """While every call of one Page hangs, the other Page's leads are rows within the time of their own calls."""
    bench = Bench([*some(400), *some(400, OTHER_PAGE, 1_000)])
    bench.reader.hangs = {PAGE: 20.0}

    async def look() -> None:
        await asyncio.sleep(2)
        assert {i for i, state in bench.store.rows.items() if state == "stored"} == set(
            ids(some(400, OTHER_PAGE, 1_000))
        )

    assert bench.run(look())["stored"] >= 400


def test_a_slow_page_s_queue_is_left_to_the_waiting_room() -> None:
    """Who queues behind hanging calls becomes a waiting row while they hang, and is not held in memory."""
    bench = Bench(some(1_000), references=2_000)
    bench.reader.hangs = {PAGE: 20.0}

    async def look() -> None:
        await asyncio.sleep(SLOW_CALL_SECONDS + 1)
        slow = [o for _, o in bench.store.settled if isinstance(o, Snooze) and o.reason == "page_slow"]
        assert len(slow) == 600

    assert bench.run(look()) == {"snoozed": 600, "stored": 400}


def test_a_slow_page_has_no_more_calls_than_any_page() -> None:
    """The calls that a slow Page is left with stay within the bound on calls of a Page."""
    bench = Bench(some(500), calls_per_page=1, slow_page_calls=2)
    bench.reader.takes = 20.0
    bench.run()
    assert bench.reader.most_of_a_page == 1


def test_one_slow_call_among_fast_ones_slows_no_page() -> None:
    """A Page that answers its other calls is not left to the waiting room for one that hangs."""
    bench = Bench(some(5_000), references=10_000)
    read = bench.reader.read
    calls = iter(range(10**6))

    async def one_hangs(page_id: str, references: Any, lane: Lane) -> Any:
        bench.reader.takes = 20.0 if next(calls) == 0 else 1.0
        return await read(page_id, references, lane)

    bench.reader.read = one_hangs  # type: ignore[method-assign]
    assert bench.run() == {"stored": 5_000}


def test_rows_are_written_as_answers_come() -> None:
    """No lead that is here waits for a call that is still out."""
    bench = Bench([*some(50), *some(50, OTHER_PAGE, 100)])
    bench.reader.hangs = {PAGE: 4.0}

    async def look() -> None:
        await asyncio.sleep(1)
        assert len(bench.source.finished) == 50

    assert bench.run(look()) == {"stored": 100}


def test_while_the_store_is_away_nothing_is_done_and_little_is_taken() -> None:
    """An outage of Postgres acknowledges nothing, pauses the intake, counts nothing, and ends by itself."""
    bench = Bench(some(5_000), at_once=100, references=1_000)
    away = True
    bench.store.fails = lambda: away

    async def come_back() -> None:
        nonlocal away
        await asyncio.sleep(60)
        assert bench.source.finished == []
        assert len(bench.source.taken) <= 1_000
        away = False

    assert bench.run(come_back()) == {"stored": 5_000}
    assert len(set(bench.reader.read_ids())) == len(bench.reader.read_ids())


def test_a_commit_that_fails_is_repeated_and_its_leads_are_not_read_again() -> None:
    """What has been read once waits in memory for the store."""
    bench = Bench(some(100))
    reads = bench.reader.batches
    failures = iter([True] * 6)
    bench.store.fails = lambda: bool(reads) and next(failures, False)
    assert bench.run() == {"stored": 100}
    assert bench.store.refused == 6
    assert len(reads) == 2


def test_a_store_asked_in_vain_at_every_second_question_loses_nobody() -> None:
    """A store that fails in the middle of sorting out neither loses nor doubles a reference."""
    bench = Bench([*some(30), *some(30, OTHER_PAGE, 100)], at_once=10)
    bench.store.rows = {str(n): "stored" for n in range(1, 31, 3)}
    answers = iter([False, True] * 40)
    bench.store.fails = lambda: next(answers, False)
    assert bench.run() == {"stored": 50, "known": 10}


@pytest.mark.parametrize("where", ["take", "reserve"])
def test_a_source_that_fails_ends_the_run(where: str) -> None:
    """Without Redis the run ends with that error; what was in flight is finished or given back."""
    bench = Bench(some(300), at_once=100)
    answers = iter([False, False])
    bench.source.fails = {where: lambda: next(answers, True)}
    with pytest.raises(LedgerUnavailable):
        bench.run()
    bench.check_accounts()
    assert len(bench.source.finished) >= 100


def test_an_acknowledgement_that_fails_is_not_the_end() -> None:
    """What is committed and not acknowledged stays pending: it is claimed later and then known."""
    bench = Bench(some(10))
    bench.source.fails = {"done": lambda: True}
    assert run_jumping(bench.run_of().run()) == {"stored": 10}
    assert bench.source.finished == []
    assert bench.source.returned == []


def test_what_is_held_is_kept_alive() -> None:
    """While a call hangs its references, and those that follow another process, are kept from being claimed."""
    bench = Bench(some(3), keep_every=1.0)
    bench.reader.takes = 3.5
    bench.source.elsewhere["3"] = 20
    bench.source.fails = {"keep": iter([False, True, False, False]).__next__}
    bench.run()
    assert {frozenset(ids(kept)) for kept in bench.source.kept[:2]} == {frozenset({"1", "2", "3"})}


def test_a_run_ends_though_its_keeper_does_not_hear_that_it_is_over() -> None:
    """It may be told in the one moment in which that is lost; it would keep what is no longer held, for ever."""
    bench = Bench(some(3), keep_every=1.0)
    bench.reader.takes = 2.5
    bench.source.deaf = 1
    assert bench.run() == {"stored": 3}
    assert (bench.source.deaf, len(bench.source.kept)) == (0, 1)


def test_a_run_that_is_stuck_keeps_nothing_for_long() -> None:
    """What it holds is claimed by others then, and its worker counts as one that makes no progress."""
    bench = Bench(some(3), keep_every=10.0)
    bench.reader.takes = 200.0
    bench.source.takes = {1: 10 * STALLED_SECONDS}
    bench.stop = lambda: len(bench.source.asked_while_busy) > 1
    assert run_jumping(bench.run_of().run()) == {"stored": 3}
    assert STALLED_SECONDS / 10 - 1 <= len(bench.source.kept) <= STALLED_SECONDS / 10 + 1


def test_a_run_goes_on_taking_while_slow_calls_are_out() -> None:
    """A source is told of slow calls, so that live references need not wait for their end."""
    bench = Bench(some(1))
    bench.reader.takes = 4.0
    bench.source.endless = True
    bench.stop = lambda: len(bench.source.asked_while_busy) > 60
    bench.run()
    assert bench.source.asked_while_busy[0] is False
    assert True in bench.source.asked_while_busy


@pytest.mark.parametrize("hang", [0.1, 5.0, 10**6])
def test_a_stop_ends_in_bounded_time(hang: float) -> None:
    """Told to stop, a run finishes what it can in a few seconds and gives the rest back."""
    bench = Bench([*some(500), *some(500, OTHER_PAGE, 1_000)])
    bench.reader.hangs = {PAGE: hang}
    bench.source.endless = True
    stopping = False
    bench.stop = lambda: stopping

    async def stop() -> None:
        nonlocal stopping
        await asyncio.sleep(1.0)
        stopping = True
        await asyncio.sleep(15.0)
        assert len(bench.source.finished) + len(bench.source.returned) == 1_000

    counts = bench.run(stop())
    assert counts["given_back"] == len(bench.source.returned)
    assert counts["stored"] == len(bench.source.finished)


def test_a_stop_while_the_store_is_away_gives_everything_back() -> None:
    """Without Postgres a stop still ends in bounded time, and nothing is acknowledged."""
    bench = Bench(some(100))
    bench.source.endless = True
    bench.store.fails = lambda: bool(bench.reader.batches)
    stopping = False
    bench.stop = lambda: stopping

    async def stop() -> None:
        nonlocal stopping
        await asyncio.sleep(5)
        stopping = True
        await asyncio.sleep(15)
        assert len(bench.source.returned) == 100

    assert bench.run(stop()) == {"given_back": 100}


def test_nothing_new_is_started_after_a_stop() -> None:
    """The end of a run starts no further call, however much is queued."""
    bench = Bench(some(2_000), calls_per_page=1)
    bench.reader.takes = 1.0
    bench.stop = lambda: len(bench.source.taken) == 2_000
    bench.run()
    assert len(bench.reader.batches) == 1
    assert len(bench.source.returned) == 1_950


def test_a_give_back_that_fails_is_not_raised() -> None:
    """Claims and leases run out by themselves, so a stop without Redis ends like any other."""
    bench = Bench(some(100), calls_per_page=1)
    bench.stop = lambda: bool(bench.source.taken)
    bench.source.fails = {"give_back": lambda: True}
    assert run_jumping(asyncio.wait_for(bench.run_of().run(), TOO_LONG))["given_back"] == 50


@pytest.mark.parametrize("fault", [KeyError("ann@example.org"), RecursionError(), TimeoutError()])
def test_a_reader_that_breaks_costs_its_batch_a_retry(
    fault: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault of ours in reading harms neither another Page nor the run, and is told by its type alone."""
    bench = Bench([*some(100), *some(100, OTHER_PAGE, 1_000)])
    bench.reader.faults = {PAGE: fault}
    assert bench.run() == {"retried": 100, "stored": 100}
    told = capsys.readouterr()
    assert "ann@" not in told.out + told.err


def test_a_commit_that_breaks_ends_the_run_and_counts_as_a_crash() -> None:
    """What cannot be written for a fault of ours is told and left pending, so that it counts against itself."""
    bench = Bench(some(10))
    bench.source.endless = True
    bench.store.faults.append(RecursionError())
    with pytest.raises(RecursionError):
        run_jumping(asyncio.wait_for(bench.run_of().run(), TOO_LONG))
    assert (bench.source.finished, bench.source.returned) == ([], [])


def test_suspects_are_read_apart_from_the_innocent() -> None:
    """Who was held at several crashes is read with others like it and with nobody else."""
    suspects = [in_flight(n, str(n % 3), crashes=WARY_CRASHES) for n in range(1, 51)]
    bench = Bench([*some(200, first=1_000), *suspects])
    assert bench.run() == {"stored": 250}
    named = set(ids(suspects))
    mixed = [batch for _, batch in bench.reader.batches if named & set(batch) and set(batch) - named]
    assert mixed == []


@pytest.mark.parametrize("suspects_first", [True, False])
def test_suspects_share_the_process_with_few(suspects_first: bool) -> None:
    """While suspects are read nothing else is in flight, and at most so many of them."""
    suspects = [in_flight(n, str(n), crashes=WARY_CRASHES) for n in range(1, 51)]
    innocents = some(500, first=1_000)
    bench = Bench([*suspects, *innocents] if suspects_first else [*innocents, *suspects], at_once=500)
    bench.run()
    assert bench.reader.most_at_once == WARY_TOGETHER


def test_who_was_held_at_many_crashes_is_read_all_alone() -> None:
    """The last suspects have the process to themselves, one after the other, and no mark stays when they end."""
    suspects = [in_flight(n, crashes=ALONE_CRASHES) for n in range(1, 6)]
    bench = Bench(suspects)
    assert bench.run() == {"stored": 5}
    assert (bench.reader.most_at_once, len(bench.reader.batches)) == (1, 5)
    assert bench.source.alone == {}


def test_what_processes_died_of_is_not_read_again() -> None:
    """A reference that was alone in several processes that died is a dead letter, unread, with its reason."""
    bench = Bench([in_flight(1, crashes=ALONE_CRASHES), in_flight(2)])
    bench.source.alone["1"] = POISON_CRASHES
    assert bench.run() == {"dead": 1, "stored": 1}
    assert bench.reader.read_ids() == ["2"]
    assert [o for _, o in bench.store.settled if isinstance(o, DeadLetter)] == [DeadLetter("poison")]


def test_alone_without_redis_is_not_begun() -> None:
    """A suspect whose lonely reading cannot be noted is not read, and waits."""
    bench = Bench([in_flight(1, crashes=ALONE_CRASHES)])
    bench.source.fails = {"begin_alone": lambda: True}
    assert bench.run() == {"snoozed": 1}
    assert bench.reader.batches == []


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_everything_taken_is_done_or_given_back_whatever_fails(seed: int) -> None:
    """Whatever fails, hangs, repeats or stops, each reference taken is done after its commit or given back, once."""
    dice = random.Random(seed)
    references = [
        in_flight(
            dice.randint(1, 150),
            str(dice.randint(1, 4)),
            entry_id=f"{n}-0".encode(),
            crashes=dice.choice([0] * 20 + [WARY_CRASHES, ALONE_CRASHES]),
            turn=dice.choice([None] * 5 + [3]),
        )
        for n in range(dice.randint(1, 400))
    ]
    bench = Bench(
        references,
        at_once=dice.randint(1, 200),
        references=dice.choice([5, 50, 2_000]),
        calls_per_page=dice.randint(1, 4),
        calls_per_process=dice.randint(1, 8),
        slow_page_calls=dice.choice([0, 1]),
        keep_every=1.0,
    )
    outage, stop_after = dice.choice([0.0, 0.0, 0.1, 0.5]), dice.choice([10**9, 10**9, 1, 20])
    bench.store.fails = lambda: dice.random() < outage
    bench.store.takes = dice.choice([0, 0.05])
    bench.store.parked_pages = set(dice.sample("1234", dice.randint(0, 1)))
    bench.store.rows = {
        str(dice.randint(1, 150)): dice.choice(["stored", "in_part", "dead"]) for _ in range(20)
    }
    bench.source.elsewhere = Counter(str(dice.randint(1, 150)) for _ in range(30))
    bench.source.fails = {"keep": lambda: dice.random() < 0.2, "begin_alone": lambda: dice.random() < 0.2}
    if dice.random() < 0.3:
        bench.source.fails["take"] = lambda: dice.random() < 0.05
    bench.reader.dice = dice
    bench.reader.takes = dice.choice([0.2, 3.0, 30.0])
    bench.reader.faults = {"4": KeyError()} if dice.random() < 0.2 else {}
    kinds = [Snooze(at(5), "x"), Retry(at(5), "x", 1), Park("x"), DeadLetter("x")]
    bench.reader.outcomes = {str(dice.randint(1, 150)): dice.choice(kinds) for _ in range(30)}
    bench.stop = lambda: len(bench.source.taken) > stop_after

    async def ended() -> None:
        try:
            await asyncio.wait_for(bench.run_of().run(), 50_000)
        except LedgerUnavailable:
            assert "take" in bench.source.fails

    run_jumping(ended())
    bench.check_accounts()
    assert bench.reader.most_of_a_page <= bench.limits.calls_per_page
    assert bench.reader.most_at_once <= bench.limits.calls_per_process
