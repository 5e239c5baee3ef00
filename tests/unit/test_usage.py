"""Meta's usage headers -> usages; a broken header costs nothing.

https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.graph.usage import APP_HEADER, BUSINESS_HEADER, Usage, read_usage

LEADGEN = {
    "type": "leadgen",
    "call_count": 1,
    "total_cputime": 2,
    "total_time": 3,
    "estimated_time_to_regain_access": 4,
}


def business(**by_scope: Any) -> tuple[Usage, ...]:
    return read_usage({BUSINESS_HEADER: json.dumps(by_scope)})


def test_a_real_answer_is_read() -> None:
    """The header as captured from the live API gives the Page's usage, with no wait."""
    header = (
        '{"106777055130587":[{"type":"leadgen","call_count":1,"total_cputime":1,"total_time":1,'
        '"estimated_time_to_regain_access":0}]}'
    )
    assert read_usage({BUSINESS_HEADER: header}) == (Usage("106777055130587", "leadgen", 1, 1, 1, 0),)


def test_every_entry_of_every_scope_is_read() -> None:
    """One answer may tell of 32 objects, each with several limits."""
    scopes = {str(n): [LEADGEN, {**LEADGEN, "type": "pages"}] for n in range(32)}
    found = business(**scopes)
    assert [(usage.scope_id, usage.kind) for usage in found] == [
        (str(n), kind) for n in range(32) for kind in ("leadgen", "pages")
    ]


def test_the_app_s_usage_is_beside_it() -> None:
    """The app's limit has no scope of its own and no time to wait."""
    headers = {APP_HEADER: '{"call_count":28,"total_time":25,"total_cputime":24}'}
    assert read_usage(headers) == (Usage(None, "app", 28, 24, 25, 0),)


@pytest.mark.parametrize("tight", ["call_count", "total_cputime", "total_time"])
def test_the_tightest_percentage_counts(tight: str) -> None:
    """Any of the three at 100 throttles, so the highest is the one that matters."""
    (usage,) = business(a=[{**LEADGEN, tight: 99}])
    assert usage.percent == 99


@pytest.mark.parametrize("odd", [None, "5", True, -1, [], {}, math.nan, math.inf, 10**400, 525_601])
def test_a_number_that_is_none_is_nothing(odd: object) -> None:
    """A percentage or wait that is no sane number is taken for nothing told."""
    (usage,) = business(a=[{**LEADGEN, "call_count": odd, "estimated_time_to_regain_access": odd}])
    assert (usage.call_count, usage.regain_minutes, usage.percent) == (0, 0, 3)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        '"x"',
        "\x00",
        "[" * 100000,
        "1" * 5000,
        '{"a":' * 50000,
        '{"a":5}',
        '{"a":{}}',
        '{"a":[5,null,"x"]}',
        "{}",
    ],
)
def test_a_broken_header_costs_nothing(header: str) -> None:
    """A header of any other shape gives no usage of a scope, and no error."""
    assert read_usage({BUSINESS_HEADER: header}) == ()


def test_missing_headers_give_nothing() -> None:
    """Most answers carry no usage at all."""
    assert read_usage({"content-type": "application/json"}) == ()


@given(
    st.text(),
    st.recursive(st.none() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)),
)
def test_no_header_raises(text: str, value: object) -> None:
    """A lead never fails by the header beside it."""
    for header in (text, json.dumps(value), json.dumps({"7": [value]})):
        assert all(usage.percent >= 0 for usage in read_usage({BUSINESS_HEADER: header, APP_HEADER: header}))
