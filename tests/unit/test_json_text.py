"""worker/json_text.py: orjson is quicker than json, and nothing else is different."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.json_text import read_json, write_json
from worker.lead import Lead

TEXTS = st.text(
    st.characters() | st.characters(categories=["Cs"]) | st.sampled_from("\x00\\u0dDe8E9NaIf\U0001f600"),
    max_size=8,
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.integers().map(str))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
BIG = 10**19


@settings(max_examples=600)
@given(VALUES, st.booleans(), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_what_is_read_is_what_json_reads(
    value: object, ascii_only: bool, indent: Any, as_bytes: bool
) -> None:
    """However it was written, and with NaN, lone surrogates and numbers of any size in it."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    told, _ = read_json(text.encode("utf-8", "surrogatepass") if as_bytes else text)
    assert repr(told) == repr(json.loads(text))


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1, 2**64, BIG, 12345678901234567890123])
@pytest.mark.parametrize(
    "around", ["{}", "[{}]", "[1,{}]", "[1, {}]", '{{"a":{}}}', '{{"a":\n{}}}', "[\t{}]", "[\r{}]"]
)
def test_an_integer_keeps_every_digit(sign: str, number: int, around: str) -> None:
    """Wherever it stands, and where 64 bits do not hold it."""
    text = around.format(sign + str(number))
    assert repr(read_json(text.encode())[0]) == repr(json.loads(text))


def test_long_digits_in_a_text_are_no_number() -> None:
    """An account's number costs no second look."""
    told, is_clean = read_json(b'{"iban": "DE89370400440532013000000", "card": "4111111111111111111"}')
    assert is_clean
    assert told == {"iban": "DE89370400440532013000000", "card": "4111111111111111111"}


def test_of_two_equal_names_the_last_counts() -> None:
    """As json has it, and in the place of the first."""
    assert str(read_json(b'{"a":1,"b":2,"a":3}')[0]) == "{'a': 3, 'b': 2}"


@pytest.mark.parametrize("text", [b"", b"nul", b"[1,]", b'"\x01"', b"01", b"\xff", b'{"a":1}x'])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    """By either reader."""
    with pytest.raises(ValueError):  # noqa: PT011  json names no closer error
        read_json(text)


@settings(max_examples=600)
@given(VALUES, st.booleans())
def test_nothing_that_postgres_refuses_passes_for_clean(value: object, ascii_only: bool) -> None:
    """What is told to be clean, the look at each value finds clean too, however it was written."""
    body = json.dumps({"id": "1", "extra": value}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    told, is_clean = read_json(body)
    careful = Lead.from_graph(told, leadgen_id="1", in_part=False)
    if is_clean:
        assert not careful.cleaned
        assert Lead.from_graph(told, leadgen_id="1", in_part=False, is_clean=True) == careful


def test_what_meta_usually_sends_is_clean() -> None:
    """Escaped letters and whole pairs of surrogates are no reason for a second look."""
    assert read_json(b'{"id":"1","name":"J\\u00fcrgen \\ud83d\\ude00","n":12.5}')[1]


FINITE = VALUES.filter(lambda value: not any(odd in json.dumps(value) for odd in ("NaN", "Infinity")))


@given(FINITE)
def test_what_is_written_reads_back(value: object) -> None:
    """Integers beyond 64 bits and lone surrogates too."""
    assert repr(json.loads(write_json(value))) == repr(value)


@given(st.datetimes(timezones=st.just(UTC)), st.sampled_from([1, 2**70]))
def test_a_time_is_written_as_its_iso_text(value: datetime, beside: int) -> None:
    """Whichever of the two writes it: Postgres reads both alike."""
    assert json.loads(write_json([value, beside])) == [value.isoformat(), beside]


def test_too_deep_a_value_is_refused() -> None:
    """It is a value's fault, and told as json tells it."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RecursionError):
        write_json(value)
    del value
    with pytest.raises(RecursionError):
        read_json(b"[" * 100_000 + b"]" * 100_000)
