"""How a named answer is compared with those of leads."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.conditions import PHONE_MARKS, Condition, Needle, all_met, needle_of


def says(key: str, *values: str) -> list[dict[str, object]]:
    """A field_data of one answer."""
    return [{"name": key, "values": list(values)}]


def met(key: str, wanted: str, given: str) -> bool:
    """Whether an order that names `wanted` finds the lead that answered `given`."""
    return all_met([Condition.of(key, wanted)], says(key, given))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("ann@example.org", "Ann@Example.ORG"),
        (" ann@example.org\n", "ann@example.org "),
        ("+49 170 1234567", "+49 (170) 123-45.67"),
        ("0049 170 1234567", "+491701234567"),
        ("491701234567", "+491701234567"),
        ("Straße 5", "STRASSE 5"),
        ("Gül Çelik", "gu\u0308l c\u0327elik"),
        ("\uff11\uff12\uff13 456 78", "12345678"),
        ("王小明", " 王小明"),
        ("ann@example.org", "\u200bann@example.org\ufeff"),
        ("+49 170 1234567", "\u202a+49\u00a0170\u20131234567\u202c"),
    ],
)
def test_the_same_answer_written_otherwise_is_found(wanted: str, given: str) -> None:
    """Case, blanks around, what nobody sees, how a letter is composed, what stands between digits do not count."""
    assert met("q", wanted, given)
    assert met("q", given, wanted)


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("ann@example.org", "joann@example.org"),
        ("ann@example.org", "ann@example.org.uk"),
        ("0170 1234567", "+491701234567"),
        ("12345", "1 2345"),
        ("Ann Lee", "AnnLee"),
        ("1234567", "12345678"),
        ("1234567", "abc 1234567"),
    ],
)
def test_another_answer_is_not_found(wanted: str, given: str) -> None:
    """A part of an answer is not it; few digits are no phone number; no country is guessed."""
    assert not met("q", wanted, given)
    assert not met("q", given, wanted)


def test_all_conditions_must_be_met_and_each_by_its_own_question() -> None:
    """One that is not met is enough to leave a lead; * is any question; keys are compared without case."""
    lead = says("email", "ann@example.org") + says("city", "Ulm", "Bonn")
    email, city = Condition.of("EMAIL", "ann@example.org"), Condition.of("city", "bonn")
    assert all_met([email, city], lead)  # type: ignore[arg-type]
    assert not all_met([email, Condition.of("city", "Köln")], lead)  # type: ignore[arg-type]
    assert not all_met([Condition.of("phone", "ann@example.org")], lead)  # type: ignore[arg-type]
    assert all_met([Condition.of("*", "ulm")], lead)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [None, {}, "ann@example.org", [1, None, {"name": 5}, {"name": "email"}]])
def test_answers_of_unknown_shape_are_nobody_s(shape: object) -> None:
    """What is no field_data meets nothing and stops nothing."""
    assert not all_met([Condition.of("email", "ann@example.org")], shape)  # type: ignore[arg-type]


@pytest.mark.parametrize(("key", "value"), [("", "x"), ("email", ""), ("email", " \n"), (" ", "x")])
def test_an_empty_answer_is_refused(key: str, value: str) -> None:
    """It would find everybody who skipped a question."""
    with pytest.raises(ValueError, match="no"):
        Condition.of(key, value)


def test_no_repr_holds_an_answer() -> None:
    """Neither of a condition nor of what is looked for in the database."""
    for value in ("hunter2@example.org", "+49 170 7654321"):
        condition = Condition.of("email", value)
        shown = repr(condition) + repr(needle_of([condition]))
        assert "hunter2" not in shown
        assert "7654321" not in shown


TEXT = st.text(
    alphabet=st.one_of(
        st.characters(max_codepoint=0x17F),
        st.sampled_from("\ufb01\u017fK\u212aß\u2460\uff11+-(). 0\u200b\u2013"),
    )
)
DIGITS = st.text(alphabet="0123456789+ -().", min_size=1)


@given(st.one_of(TEXT, DIGITS), st.one_of(TEXT, DIGITS), st.booleans())
def test_the_needle_is_in_every_lead_that_matches(wanted: str, given: str, same: bool) -> None:
    """Looking for the needle first, in leads of plain ASCII, loses none; others are always looked at."""
    try:
        condition = Condition.of("q", wanted)
    except ValueError:
        return
    given = wanted.upper() if same else given
    told = json.dumps(says("q", given), ensure_ascii=False)
    if told.isascii() and all_met([condition], says("q", given)):  # type: ignore[arg-type]
        assert finds(needle_of([condition]), told)


def finds(needle: Needle, told: str) -> bool:
    """As the statement looks for it."""
    text = told.translate(str.maketrans("", "", PHONE_MARKS)) if needle.is_phone else told.lower()
    return needle.text in text
