"""Graph's answer -> a Lead that Postgres can hold, with everything that Graph said still in it."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.leads import graph_lead
from worker.errors import LeadMalformed
from worker.lead import TEXT_FIELDS, Answer, Lead, answers

ID = "900000000000001"
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(
        st.characters(codec=None, categories=["Cs", "Cc", "L", "So"]) | st.sampled_from("\x00\ud800\udfff"),
        max_size=8,
    ),
    st.sampled_from(["", "NaN", "Infinity", "\\u0000", "2026-11-20T11:59:00+0000"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | SCALARS.map(str), inner, max_size=3)
    ),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        *TEXT_FIELDS,
        "created_time",
        "is_organic",
        "field_data",
        "custom_disclaimer_responses",
        "vehicle",
        "x\x00",
    ]
)


def lead(**changed: Any) -> Lead:
    return Lead.from_graph(graph_lead(ID, **changed), leadgen_id=ID, in_part=False)


def everything(found: Lead) -> list[object]:
    """All of a lead that Postgres is given."""
    time = found.created_time.isoformat() if found.created_time else None
    texts = [getattr(found, name) for name in TEXT_FIELDS]
    return [time, *texts, found.is_organic, found.field_data, found.custom_disclaimer_responses, found.extra]


def test_every_documented_field_is_read() -> None:
    """What Graph says lands in the field of its name."""
    found = lead(partner_name="Partner", retailer_item_id="sku-1")
    raw = graph_lead(ID, partner_name="Partner", retailer_item_id="sku-1")
    assert {name: getattr(found, name) for name in TEXT_FIELDS} == {name: raw[name] for name in TEXT_FIELDS}
    assert found.created_time == datetime(2026, 11, 20, 11, 59, tzinfo=UTC)
    assert found.field_data == raw["field_data"]
    assert (found.leadgen_id, found.is_organic, found.extra) == (ID, False, {})
    assert not (found.cleaned)
    assert not (found.in_part)
    assert not (found.is_test)


def test_what_graph_left_out_is_none() -> None:
    """An organic lead has no ad fields, and none are made up."""
    found = Lead.from_graph({"id": ID}, leadgen_id=ID, in_part=True)
    assert all(getattr(found, name) is None for name in TEXT_FIELDS)
    assert (found.created_time, found.is_organic, found.field_data, found.extra) == (None, None, None, {})
    assert found.in_part


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        ({"name": "q"}, ()),
        ({"name": "q", "values": []}, ()),
        ({"name": "q", "values": None}, ()),
        ({"name": "q", "values": ["a"]}, ("a",)),
        ({"name": "q", "values": ["a", "b", "c"]}, ("a", "b", "c")),
        ({"name": "q", "values": [""]}, ("",)),
        ({"name": "q", "values": "bare"}, ("bare",)),
        ({"name": "q", "values": [1, True, None, {"k": "v"}]}, ("1", "true", "null", '{"k": "v"}')),
    ],
)
def test_values_come_in_every_form(entry: dict[str, Any], values: tuple[str, ...]) -> None:
    """Values that are missing, empty, null, single or several are all read, and all are kept as they came."""
    found = lead(field_data=[entry])
    assert list(answers(found.field_data)) == [Answer("q", values)]
    assert found.field_data == [entry]


@pytest.mark.parametrize(
    "odd", [None, {}, "text", 5, [None], ["text"], [{}], [{"name": None}], [{"name": 5}], [[[]]]]
)
def test_field_data_of_an_unknown_shape_is_kept(odd: Any) -> None:
    """Field data that has no answers is kept word for word and gives no answers."""
    found = lead(field_data=odd)
    assert list(answers(found.field_data)) == []
    assert found.field_data == odd


def test_unknown_fields_land_in_extra() -> None:
    """A field that leadsync has no column for is kept, unless Graph sent only null."""
    vehicle = {"make": "Trabant", "years": [1964, None]}
    found = lead(vehicle=vehicle, brand_new="x")
    assert found.extra == {"vehicle": vehicle, "brand_new": "x"}


@pytest.mark.parametrize("name", TEXT_FIELDS)
def test_a_text_that_is_none_is_kept_in_extra(name: str) -> None:
    """A known field of an unexpected type is not dropped: the column is empty and extra holds what was said."""
    found = lead(**{name: {"odd": True}})
    assert getattr(found, name) is None
    assert found.extra == {name: {"odd": True}}


@pytest.mark.parametrize(
    ("said", "kept"), [(5, "5"), (0, "0"), (10**17, str(10**17)), ("", None), (None, None)]
)
def test_ids_may_be_numbers(said: Any, kept: str | None) -> None:
    """A number becomes its digits, and an empty text is no id."""
    found = lead(ad_id=said)
    assert found.ad_id == kept
    assert found.extra == {}


@pytest.mark.parametrize("raw", [None, [], "text", 5, True, 1.5])
def test_an_answer_that_is_no_object_is_malformed(raw: object) -> None:
    """Graph's answer for a lead is an object or no lead."""
    with pytest.raises(LeadMalformed, match=ID):
        Lead.from_graph(raw, leadgen_id=ID, in_part=False)


@pytest.mark.parametrize("other", ["1", "", None, 900000000000002, [ID], f"{ID}\x00", f" {ID}"])
def test_another_lead_than_asked_for_is_malformed(other: object) -> None:
    """The answers of another person never land under this id, and the message quotes nothing of them."""
    with pytest.raises(LeadMalformed) as told:
        Lead.from_graph(graph_lead(ID) | {"id": other}, leadgen_id=ID, in_part=False)
    assert str(told.value) == f"Graph's answer for lead {ID} carries another id"


def test_an_answer_without_an_id_is_malformed() -> None:
    """An answer that does not say which lead it is, is not taken for the one that was asked for."""
    with pytest.raises(LeadMalformed):
        Lead.from_graph({"field_data": []}, leadgen_id=ID, in_part=False)


def test_the_id_may_be_a_number() -> None:
    """Graph's id as a number is the same id."""
    assert Lead.from_graph({"id": int(ID)}, leadgen_id=ID, in_part=False).leadgen_id == ID


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        ("2015-02-28T08:49:14+0000", datetime(2015, 2, 28, 8, 49, 14, tzinfo=UTC)),
        ("2015-02-28T08:49:14+00:00", datetime(2015, 2, 28, 8, 49, 14, tzinfo=UTC)),
        ("2015-02-28T08:49:14Z", datetime(2015, 2, 28, 8, 49, 14, tzinfo=UTC)),
        ("2025-09-12T15:05:13+05:30", datetime(2025, 9, 12, 9, 35, 13, tzinfo=UTC)),
        ("2015-02-28T08:49:14", datetime(2015, 2, 28, 8, 49, 14, tzinfo=UTC)),
        (1_440_120_384, datetime(2015, 8, 21, 1, 26, 24, tzinfo=UTC)),
    ],
)
def test_times_are_utc(said: Any, moment: datetime) -> None:
    """Every form of a moment that is told becomes the same aware UTC."""
    found = lead(created_time=said)
    assert found.created_time == moment
    assert found.created_time is not None
    assert found.created_time.utcoffset() == timedelta(0)
    assert found.extra == {}


@pytest.mark.parametrize(
    "said",
    [
        "yesterday",
        "",
        "0001-01-01T00:00:00+2300",
        "9999-12-31T23:59:59-2300",
        10**30,
        -(10**30),
        True,
        1.5,
        [],
        {},
        "2015-02-28T25:00:00+0000",
        "2015-02-28�08:49:14+99:99",
    ],
)
def test_a_time_that_is_none_is_kept_in_extra(said: Any) -> None:
    """What is no moment leaves the column empty and stays readable in extra."""
    found = lead(created_time=said)
    assert found.created_time is None
    assert found.extra == {"created_time": said}


@pytest.mark.parametrize(
    ("said", "organic"),
    [
        (True, True),
        (False, False),
        ("1", True),
        ("0", False),
        ("true", True),
        ("false", False),
        ("", False),
        (1, True),
        (0, False),
        (None, None),
    ],
)
def test_is_organic_in_its_spellings(said: Any, organic: bool | None) -> None:
    """Meta writes truth as a bool, a digit or a word."""
    found = lead(is_organic=said)
    assert found.is_organic is organic
    assert found.extra == {}


@pytest.mark.parametrize("said", ["maybe", 2, [], {}, [True]])
def test_an_unreadable_truth_is_kept_in_extra(said: Any) -> None:
    """What is neither true nor false is not guessed."""
    found = lead(is_organic=said)
    assert found.is_organic is None
    assert found.extra == {"is_organic": said}


@pytest.mark.parametrize(
    ("name", "value", "is_test"),
    [
        ("full_name", "<test lead: dummy data for full_name>", True),
        ("email", "test@fb.com", True),
        ("email", "test@meta.com", True),
        ("email", "ann@example.org", False),
        ("comment", "test@fb.com", False),
        ("comment", "my <test lead: dummy data for", False),
    ],
)
def test_meta_s_own_test_leads_are_marked(name: str, value: str, is_test: bool) -> None:
    """A lead of Meta's testing tool is told by its dummy answers, and by nothing that a person writes."""
    assert lead(field_data=[{"name": name, "values": ["x", value]}]).is_test is is_test


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("a\x00b", "a\ufffdb"),
        ("\ud800", "\ufffd\ufffd\ufffd"),
        ("x\udfffy", "x\ufffd\ufffd\ufffdy"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
    ],
)
def test_what_postgres_refuses_is_cleaned_and_marked(said: Any, kept: str) -> None:
    """NUL, lone surrogates and numbers that are none are replaced wherever they stand, and the lead says so."""
    found = lead(field_data=[{"name": "q", "values": [said]}], vehicle={"k": [said]}, ad_name=said)
    assert found.cleaned
    assert found.field_data == [{"name": "q", "values": [kept]}]
    assert found.extra == {"vehicle": {"k": [kept]}}
    assert found.ad_name == kept


def test_only_dirty_leads_are_called_cleaned() -> None:
    """Emoji, escapes and words that look like a constant are left as they are."""
    texts = ["😀", "\\u0000", "NaN", "-Infinity", "é\u2028", "\ufffd", "\x07", "5\\"]
    found = lead(field_data=[{"name": "q", "values": texts}], vehicle={"Infinity": "NaN"})
    assert not found.cleaned
    assert found.field_data == [{"name": "q", "values": texts}]


def test_a_dirty_name_is_cleaned_too() -> None:
    """The names of fields are as hostile as their contents."""
    found = lead(**{"x\x00": {"y\ud800": 1}})
    assert found.cleaned
    assert found.extra == {"x\ufffd": {"y\ufffd\ufffd\ufffd": 1}}


def test_names_that_cleaning_makes_equal_are_both_kept() -> None:
    """Two fields whose names differ only in what Postgres refuses stay two fields."""
    found = lead(**{"x\x00": 1, "x\ufffd": 2, "x\x00\x00": 3})
    assert sorted(found.extra.values()) == [1, 2, 3]


def test_names_that_cleaning_makes_equal_stay_short() -> None:
    """Thousands of them cost a few letters each: a longer name for each would take their number cubed."""
    names = [f"{chr(0xD800 + n % 64)}{chr(0xD800 + n // 64)}" for n in range(3_000)]
    found = lead(**{name: n for n, name in enumerate(names)})
    assert sorted(found.extra.values()) == list(range(3_000))
    assert max(map(len, found.extra)) < 16


@pytest.mark.parametrize("bottom", [1, "\x00", math.inf])
@pytest.mark.parametrize("depth", [200, 400, 800, 100_000])
def test_bottomless_nesting_is_a_lead_or_malformed(depth: int, bottom: object) -> None:
    """An answer nested too deeply to be read is malformed and never a fault of ours."""
    nested = bottom
    for _ in range(depth):
        nested = [nested]
    try:
        found = lead(vehicle=nested)
    except LeadMalformed:
        assert depth > 200
    else:
        assert "vehicle" in found.extra


def test_a_huge_number_stays_exact() -> None:
    """An integer of any size is kept to the last digit."""
    huge = 10**3_999 + 7
    assert lead(vehicle=huge).extra == {"vehicle": huge}


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=6), st.booleans())
def test_any_object_with_the_right_id_becomes_a_lead_that_postgres_can_hold(raw: Any, in_part: bool) -> None:
    """Whatever JSON Graph answers under the right id is a lead, and its text is one that jsonb accepts."""
    found = Lead.from_graph({**raw, "id": ID}, leadgen_id=ID, in_part=in_part)
    text = json.dumps(everything(found), ensure_ascii=False, allow_nan=False)
    assert "\x00" not in text.encode().decode()
    assert "\\u0000" not in text.replace("\\\\", "")


@given(st.dictionaries(NAMES, JSON, max_size=6))
def test_nothing_that_was_said_is_dropped(raw: Any) -> None:
    """Every field that Graph sent with a value is in its column or in extra."""
    found = Lead.from_graph({**raw, "id": ID}, leadgen_id=ID, in_part=False)
    for name, value in raw.items():
        if value not in (None, ""):
            clean = name.replace("\x00", "\ufffd")
            assert getattr(found, name, None) is not None or clean in found.extra, name
