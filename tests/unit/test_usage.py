"""Meta's usage headers -> usages; a broken header costs nothing.

https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.graph.usage import ACCOUNT_HEADER, APP_HEADER, BUSINESS_HEADER, Usage, read_usage

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


@pytest.mark.parametrize(
    ("told", "percent", "minutes"),
    [
        ({"acc_id_util_pct": 9.67}, 9.67, 0),
        ({"acc_id_util_pct": 9.67, "reset_time_duration": 300}, 9.67, 0),
        ({"acc_id_util_pct": 99.9, "reset_time_duration": 300}, 99.9, 0),
        ({"acc_id_util_pct": 100, "reset_time_duration": 300}, 100, 5),
        ({"acc_id_util_pct": 101.5, "reset_time_duration": 90}, 101.5, 1.5),
        ({"acc_id_util_pct": 100}, 100, 0),
        ({"acc_id_util_pct": "100", "reset_time_duration": 300}, 0, 0),
        ({"acc_id_util_pct": 100, "reset_time_duration": -1}, 100, 0),
        ({"reset_time_duration": 300, "ads_api_access_tier": "standard_access"}, 0, 0),
    ],
)
def test_an_ad_account_s_seconds_are_a_wait_only_where_it_is_used_up(
    told: dict[str, Any], percent: float, minutes: float
) -> None:
    """The ad account's header has one percentage, and its seconds to the next period close nothing below 100."""
    (usage,) = read_usage({ACCOUNT_HEADER: json.dumps(told)})
    assert (usage.scope_id, usage.kind, usage.scope) == (None, "ad_account", "ad_account")
    assert (usage.percent, usage.regain_minutes) == (percent, minutes)


def test_one_answer_may_carry_all_three_headers() -> None:
    """Page, app and ad account are told beside one another."""
    headers = {
        BUSINESS_HEADER: json.dumps({"7": [LEADGEN]}),
        APP_HEADER: '{"call_count":28}',
        ACCOUNT_HEADER: '{"acc_id_util_pct":3}',
    }
    assert [(u.scope, u.scope_id) for u in read_usage(headers)] == [
        ("page", "7"),
        ("app", None),
        ("ad_account", None),
    ]


@pytest.mark.parametrize(
    ("kind", "scope"),
    [
        ("leadgen", "page"),
        ("pages", "page"),
        ("ads_management", "ad_account"),
        ("ads_insights", "ad_account"),
        ("custom_audience", "ad_account"),
        ("instagram", ""),
        ("messenger", ""),
        ("", ""),
        ("LEADGEN", ""),
    ],
)
def test_meta_s_type_says_what_the_limit_belongs_to(kind: str, scope: str) -> None:
    """The types of calls that we make are of a Page or an ad account; any other says nothing of ours."""
    (usage,) = business(a=[{**LEADGEN, "type": kind}])
    assert usage.scope == scope


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
    if not header.startswith('{"a":'):
        assert read_usage({ACCOUNT_HEADER: header}) == ()


def test_missing_headers_give_nothing() -> None:
    """Most answers carry no usage at all."""
    assert read_usage({"content-type": "application/json"}) == ()


@settings(deadline=None)
@given(
    st.text(),
    st.recursive(st.none() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)),
)
def test_no_header_raises(text: str, value: object) -> None:
    """A lead never fails by the header beside it."""
    for header in (text, json.dumps(value), json.dumps({"7": [value]})):
        headers = {BUSINESS_HEADER: header, APP_HEADER: header, ACCOUNT_HEADER: header}
        assert all(usage.percent >= 0 for usage in read_usage(headers))
