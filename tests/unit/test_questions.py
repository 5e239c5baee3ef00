"""A form's questions become columns: by their own keys, distinct, within what Postgres takes, the same each time."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.questions import questions_of, tracking_of
from worker.questions import (
    LEAD_COLUMNS,
    MOST_COLUMNS,
    NAME_BYTES,
    Column,
    Kind,
    answer_text,
    columns,
)


def asks(*keys: str) -> Any:
    return [{"key": key} for key in keys]


def names(*keys: str) -> list[str]:
    return [column.name for column in columns(asks(*keys))]


def test_a_question_is_a_column_with_its_key_label_and_options() -> None:
    """Questions come first, then tracking parameters, then checkboxes, each in the form's own order."""
    questions = [
        {"key": "größe?", "label": "Größe?", "type": "CUSTOM", "options": [{"key": "s", "value": "klein"}]},
        {"key": "email", "type": "EMAIL"},
    ]
    disclaimers = {"checkboxes": [{"key": "optional_1", "text": "Call me"}]}
    assert columns(questions, [{"key": "utm source", "value": "x"}], disclaimers) == (  # type: ignore[arg-type]
        Column("größe?", "größe?", "Größe?", Kind.QUESTION, (("s", "klein"),)),
        Column("email", "email", "email", Kind.QUESTION),
        Column("utm source", "utm source", "utm source", Kind.TRACKING),
        Column("optional_1", "optional_1", "Call me", Kind.DISCLAIMER),
    )


@pytest.mark.parametrize(
    "key", ['"; drop table leadgen; --', "it's", "a b", "comentários", "🏠", "%s", "A", "a" * 63]
)
def test_a_key_is_a_name_as_it_is(key: str) -> None:
    """Quotes, spaces, accents and emoji stay: quoting is Postgres' and psycopg's business."""
    assert names(key) == [key]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["x" * 200], ["x" * 63]),
        (["ü" * 100], ["ü" * 31]),
        (["🏠" * 50], ["🏠" * 15]),
        (["a" + "🏠" * 50], ["a" + "🏠" * 15]),
        (["x" * 64, "x" * 65, "x" * 66], ["x" * 63, "x" * 61 + "_2", "x" * 61 + "_3"]),
        (["🏠" * 16, "🏠" * 17], ["🏠" * 15, "🏠" * 15 + "_2"]),
        (["leadgen_id", "created_time", "ctid"], ["leadgen_id_2", "created_time_2", "ctid_2"]),
        (["is_test_2", "is_test"], ["is_test_2", "is_test_3"]),
        ([""], ["question"]),
        (["", "question"], ["question", "question_2"]),
        (["email", "email", "Email"], ["email", "Email"]),
    ],
)
def test_names_are_cut_to_63_bytes_and_told_apart(keys: list[str], expected: list[str]) -> None:
    """A cut ends between characters; what clashes gets a number within the 63 bytes; one key is one column."""
    assert names(*keys) == expected


def test_a_checkbox_and_a_question_may_have_the_same_key() -> None:
    """They stand in different places of a lead, so they are two columns."""
    found = columns(asks("optional_1"), None, {"checkboxes": asks("optional_1", "optional_1")})
    assert [(column.name, column.kind) for column in found] == [
        ("optional_1", Kind.QUESTION),
        ("optional_1_2", Kind.DISCLAIMER),
    ]


def test_a_tracking_parameter_that_is_a_question_too_is_that_question() -> None:
    """Both are the same entry of field_data."""
    found = columns([{"key": "utm", "label": "UTM"}], asks("utm", "other"))
    assert [(column.key, column.kind) for column in found] == [
        ("utm", Kind.QUESTION),
        ("other", Kind.TRACKING),
    ]


def test_no_form_has_more_columns_than_a_view() -> None:
    """What a form asks beyond a thousand has no column."""
    assert len(columns(asks(*map(str, range(MOST_COLUMNS + 5))))) == MOST_COLUMNS


def test_options_without_a_label_say_nothing() -> None:
    """Only pairs of texts are options; of two with a key the first holds."""
    options = [5, {"key": "a"}, {"key": "b", "value": ""}, {"key": 1, "value": "x"}, {"key": "c", "value": "C"},
               {"key": "c", "value": "D"}]  # fmt: skip
    (column,) = columns([{"key": "q", "options": options}])  # type: ignore[dict-item, list-item]
    assert column.options == (("c", "C"), ("c", "D"))
    assert answer_text([{"name": "q", "values": ["a", "c"]}], column) == "a, C"


@pytest.mark.parametrize(
    ("field_data", "text"),
    [
        ([{"name": "q", "values": ["s", "zz"]}, {"name": "q", "values": ["l"]}], "klein, zz, groß"),
        ([{"name": "q", "values": []}], None),
        ([{"name": "q"}], None),
        ([{"name": "other", "values": ["s"]}], None),
        (None, None),
        ("s", None),
    ],
)
def test_an_answer_is_read_by_its_labels(field_data: Any, text: str | None) -> None:
    """All values of all entries of a key count; one without a label stands for itself; a skipped question is None."""
    column = Column("q", "q", "Q", Kind.QUESTION, (("s", "klein"), ("l", "groß")))
    assert answer_text(field_data, column) == text


def test_the_sandbox_s_forms_have_columns() -> None:
    """Every key of a simulated form is a column, even two that agree in their first 63 bytes."""
    for number in range(60):
        told = [question.as_json("1") for question in questions_of(7, number)]
        tracking: Any = [{"key": key, "value": value} for key, value in tracking_of(7, number)]
        found = columns(told, tracking)  # type: ignore[arg-type]
        assert [column.key for column in found] == [*(q["key"] for q in told), *(t["key"] for t in tracking)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*LEAD_COLUMNS, "", "a", "a_2", "x" * 63, "x" * 70, "ü" * 40]) | st.text(max_size=200)
ASKED = st.lists(
    JSON | st.fixed_dictionaries({"key": KEYS | JSON}, optional={"label": JSON, "options": JSON}), max_size=12
)


@given(JSON | ASKED, JSON | ASKED, JSON | st.fixed_dictionaries({"checkboxes": ASKED}))
def test_names_are_distinct_fit_and_stay(questions: Any, tracking: Any, disclaimers: Any) -> None:
    """Of any definition: no name is empty, longer than 63 bytes, taken twice or fixed; asked twice, the same."""
    found = columns(questions, tracking, disclaimers)
    taken = [column.name for column in found]
    assert len(set(taken)) == len(taken)
    assert not set(taken) & set(LEAD_COLUMNS)
    assert all(0 < len(name.encode()) <= NAME_BYTES for name in taken)
    assert columns(questions, tracking, disclaimers) == found
