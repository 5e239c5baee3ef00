"""Entries of a trail as values: text and back, and what they say of calls."""

from datetime import timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.leads import a_lead, at, in_flight
from tests.fakes.time import NOW
from worker.outcomes import DeadLetter, Outcome, Park, Retry, Snooze, Stored
from worker.store.leads import row_of
from worker.trace_report import REASONS, in_words
from worker.trail import WORDS, Entry, calls_of, entry_text

MOMENTS = st.integers(0, 4_000_000_000).map(lambda seconds: NOW + timedelta(seconds=seconds // 2))


@given(
    first=MOMENTS,
    last=MOMENTS,
    word=st.sampled_from(sorted(WORDS)),
    reason=st.sampled_from([None, *REASONS]),
    times=st.integers(1, 10**6),
)
def test_an_entry_is_the_same_after_a_trip_through_text(
    first: object, last: object, word: str, reason: str | None, times: int
) -> None:
    """What a trail holds says all of an entry."""
    entry = Entry(first, word, reason, times, first if times == 1 else last)  # type: ignore[arg-type]
    assert Entry.from_text(entry.to_text()) == entry


@pytest.mark.parametrize("text", ["", "1 died", "x died gone", "1 died gone 2", "1 died gone 2 3 4"])
def test_what_is_no_entry_is_refused(text: str) -> None:
    """Somebody else's text in the column is noticed."""
    with pytest.raises(ValueError, match=r"."):
        Entry.from_text(text)


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Snooze(at(1), "budget"), "waited"),
        (Retry(at(1), "not_visible", 1), "failed"),
        (Park("token_refused"), "refused"),
        (DeadLetter("poison"), "died"),
        (Stored(a_lead()), None),
    ],
)
def test_each_verdict_but_a_lead_is_an_entry(outcome: Outcome, word: str | None) -> None:
    """A lead that is stored costs no entry; every other verdict is one, of a word that is explained."""
    told = row_of(in_flight(), outcome, NOW).get("trail")
    assert (told and told.split()[1]) == word
    assert word is None or word in WORDS


def test_every_verdict_was_looked_at() -> None:
    """A new kind of outcome needs a word."""
    assert {each.__name__ for each in get_args(Outcome)} == {
        "Stored",
        "Snooze",
        "Retry",
        "Park",
        "DeadLetter",
    }


def test_calls_are_those_that_were_made() -> None:
    """A refusal by our own budget, a parked Page or a fault of ours was no call; a throttle was one."""
    texts = [
        "1 failed not_visible 3 9",
        "1 refused token_refused",
        "1 waited throttled_page",
        "1 died lead_gone",
    ]
    assert calls_of(map(Entry.from_text, texts)) == 6
    texts = [
        "1 waited budget 9 9",
        "1 waited page_parked",
        "1 died poison",
        "1 replayed x",
        "1 died row_refused_23514",
        "1 refused token_locked",
    ]
    assert calls_of(map(Entry.from_text, texts)) == 0


def test_a_reason_is_told_in_words() -> None:
    """Scopes, SQLSTATEs and mass deaths too; what is not known is told as it is."""
    assert in_words("throttled_ad_account") == "Meta throttled the ad account"
    assert in_words("row_refused_23514") == "Postgres refuses the row (SQLSTATE 23514)"
    assert in_words("mass_not_visible") == "many of its leads died: Graph does not show the lead (100/33)"
    assert in_words("something_new") == "something_new"
    assert entry_text(NOW, "waited", None).endswith(" waited -")
