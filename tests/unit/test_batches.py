"""References in flight: queued by Page, taken in order, none lost and none twice."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.leads import OTHER_PAGE, PAGE, a_reference, in_flight
from tests.fakes.time import NOW
from worker.batches import Held, InFlight, PageQueues, halves

MANY = tuple(in_flight(n) for n in range(1, 8))


def filled(*references: InFlight) -> PageQueues:
    queues = PageQueues()
    queues.put(references)
    return queues


def test_an_entry_keeps_its_ids_and_when_it_was_received() -> None:
    """A reference from the stream is first seen when the receiver had it, and was never leased."""
    taken = InFlight.from_entry(a_reference("5", ad_id="9", received_at=1_793_000_002_500), b"7-0", crashes=2)
    received = datetime(2026, 10, 26, 7, 33, 22, 500_000, tzinfo=UTC)
    assert (taken.leadgen_id, taken.page_id, taken.ad_id, taken.entry_id) == ("5", PAGE, "9", b"7-0")
    assert taken.received_at == taken.first_seen_at == received
    assert (taken.attempts, taken.turn, taken.source, taken.crashes) == (0, None, "webhook", 2)


RECEIVED = 1_793_000_000
HOUR, DAY = 3_600, 86_400


@pytest.mark.parametrize(
    ("created", "is_plausible"),
    [
        (RECEIVED, True),
        (RECEIVED - 36 * HOUR, True),
        (RECEIVED - 90 * DAY, True),
        (RECEIVED - 91 * DAY, True),
        (RECEIVED - 93 * DAY, False),
        (RECEIVED + HOUR, True),
        (RECEIVED + HOUR + 1, False),
        (RECEIVED * 1_000, False),
        (99_999_999_999_999, False),
        (0, False),
        (None, False),
    ],
)
def test_a_moment_of_creation_that_cannot_be_is_none(created: int | None, is_plausible: bool) -> None:
    """A lead is announced within 90 days of its creation and no more than a clock's fault before it."""
    reference = a_reference("5", created_time=created, received_at=RECEIVED * 1_000 + 500)
    taken = InFlight.from_entry(reference, b"7-0")
    expected = datetime.fromtimestamp(created or 0, UTC) if is_plausible else None
    assert taken.created_time == expected


@given(st.none() | st.integers(0, 10**14 - 1), st.integers(0, 10**14 - 1))
def test_no_moment_of_an_entry_raises(created: int | None, received: int) -> None:
    """Whatever 14 digits a webhook says, the reference is taken, and its moment of creation is near its receipt."""
    taken = InFlight.from_entry(a_reference("5", created_time=created, received_at=received), b"7-0")
    if taken.created_time is not None:
        assert timedelta(days=-92) <= taken.created_time - taken.first_seen_at <= timedelta(hours=1)


def test_a_lead_that_came_along_is_nobody_s_reference() -> None:
    """Whom a listing brought unasked has neither entry nor lease nor webhook, and is first seen now."""
    along = InFlight.listed("5", PAGE, "77", NOW)
    assert (along.leadgen_id, along.page_id, along.form_id, along.first_seen_at) == ("5", PAGE, "77", NOW)
    assert (along.entry_id, along.turn, along.received_at, along.source) == (None, None, None, "listing")
    assert along.unasked
    assert not in_flight(5).unasked


def test_what_is_put_back_comes_first_and_in_its_order() -> None:
    """References that were looked at and not read keep their place ahead of those that came later."""
    queues = filled(*MANY)
    taken = queues.take(PAGE, 5)
    queues.put_back((taken[1], taken[3], taken[4]))
    assert queues.take(PAGE, 50) == (taken[1], taken[3], taken[4], *MANY[5:])


def test_a_page_whose_queue_was_emptied_is_named_again() -> None:
    """Where all that a Page had is put back, the Page is offered for reading again; nothing put back names none."""
    queues = filled(*MANY, in_flight(9, OTHER_PAGE))
    taken = queues.take(PAGE, 50)
    queues.put_back(())
    assert queues.pages() == (OTHER_PAGE,)
    queues.put_back(iter(taken))
    assert queues.pages() == (OTHER_PAGE, PAGE)
    assert queues.take(PAGE, 50) == MANY


def test_the_oldest_come_first_and_no_more_than_asked() -> None:
    """A batch is the longest-waiting references of one Page, at most so many."""
    queues = filled(*MANY)
    assert queues.take(PAGE, 3) == MANY[:3]
    assert queues.take(PAGE, 50) == MANY[3:]
    assert queues.take(PAGE, 50) == ()


def test_a_batch_is_of_one_page() -> None:
    """References of another Page are not in the batch, since they need another token."""
    mine, other = in_flight(1), in_flight(2, OTHER_PAGE)
    queues = filled(other, mine)
    assert queues.take(PAGE, 50) == (mine,)
    assert queues.pages() == (OTHER_PAGE,)
    assert queues.take("1", 50) == ()


def test_an_emptied_page_is_no_longer_named() -> None:
    """Only Pages with something queued are offered for reading."""
    queues = filled(in_flight(1), in_flight(2, OTHER_PAGE))
    queues.take(PAGE, 1)
    assert queues.pages() == (OTHER_PAGE,)
    queues.take_all([OTHER_PAGE])
    assert (queues.pages(), len(queues), list(queues)) == ((), 0, [])


def test_taking_all_of_some_pages_leaves_the_others() -> None:
    """What a slow Page has queued is taken off without touching its neighbours; unknown Pages have nothing."""
    queues = filled(*MANY, in_flight(9, OTHER_PAGE))
    assert queues.take_all([PAGE, "1"]) == MANY
    assert queues.take_all() == (in_flight(9, OTHER_PAGE),)
    assert queues.take_all() == ()


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 60))), st.integers(1, 50))
def test_everything_put_in_comes_out_once_and_in_order(puts: list[tuple[int, int]], most: int) -> None:
    """However references are put and taken, each comes out exactly once, in the order of its Page."""
    queues, put, out = PageQueues(), {}, {}
    number = 0
    for page, count in puts:
        references = [in_flight(number + n + 1, str(page)) for n in range(count)]
        number += count
        queues.put(references)
        put.setdefault(str(page), []).extend(references)
        taken = queues.take(str(page), most)
        kept = len(taken) // 2
        queues.put_back(taken[kept:])
        out.setdefault(str(page), []).extend(taken[:kept])
    assert len(queues) == number - sum(map(len, out.values())) == len(list(queues))
    for page in queues.pages():
        while batch := queues.take(page, most):
            assert len(batch) <= most
            out[page].extend(batch)
    assert out == put


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5))))
def test_what_is_held_is_let_go_with_all_that_joined_it(steps: list[tuple[bool, int]]) -> None:
    """However references of a lead are added and popped: the first is told, each comes out once, all are counted."""
    held, expected = Held(), {}
    for number, (is_added, lead) in enumerate(steps):
        if is_added:
            reference = in_flight(lead, entry_id=f"{number}-0".encode())
            assert held.add(reference) == (str(lead) not in expected)
            expected.setdefault(str(lead), []).append(reference)
        else:
            assert list(held.pop(str(lead))) == expected.pop(str(lead), [])
        assert list(held.of(str(lead))) == expected.get(str(lead), [])
        assert (str(lead) in held) == (str(lead) in expected)
        assert list(held) == [reference for of_lead in expected.values() for reference in of_lead]
        assert len(held) == len(list(held))
        assert held.have_joined == any(len(of_lead) > 1 for of_lead in expected.values())


@given(st.integers(2, 50))
def test_halves_are_smaller_and_together_the_whole(count: int) -> None:
    """An ask that was too large is halved until it is one, and nothing is lost on the way."""
    whole = tuple(in_flight(n) for n in range(1, count + 1))
    first, second = halves(whole)
    assert first + second == whole
    assert 0 < len(first) <= len(second) < count
