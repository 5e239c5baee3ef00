"""Names that strangers gave -> text that a terminal shows and does not obey."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.foreign_text import clean

SHOWN = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    "text", ["Café 店 Ωmega عربي 🎂", "👩\u200d👩\u200d👧", "मी\u200dय", "[bold]x[/bold]"]
)
def test_letters_of_all_scripts_stay_as_they_are(text: str) -> None:
    """Only what steers a terminal is replaced; joiners shape letters and families of emoji."""
    assert clean(text) == text


@pytest.mark.parametrize(
    "steers", ["\x00", "\x1b", "\n", "\r", "\x7f", "\x9b", "\u202e", "\u2066", "\u2028", "\ud800"]
)
def test_what_steers_a_terminal_is_replaced(steers: str) -> None:
    """Escapes, line breaks, marks of direction, lone surrogates: each becomes one sign that is none."""
    assert clean(f"a{steers}b") == f"a{SHOWN}b"


@given(st.text())
def test_nothing_is_lost_or_added(text: str) -> None:
    """Sign by sign, and what was cleaned once is clean."""
    cleaned = clean(text)
    assert len(cleaned) == len(text)
    assert clean(cleaned) == cleaned
    assert not any(unicodedata.category(sign) in {"Cc", "Zl", "Zp"} for sign in cleaned)
