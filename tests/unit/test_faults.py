"""The one table from Meta's error answers to our errors, row by row; codes decide, HTTP statuses do not.

https://developers.facebook.com/docs/graph-api/guides/error-handling
https://developers.facebook.com/docs/graph-api/overview/rate-limiting
"""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.time import NOW
from worker.errors import (
    CallbackRefused,
    GraphUnavailable,
    LeadSyncError,
    NotVisibleYet,
    PermissionRefused,
    ProofRefused,
    RequestRefused,
    Throttled,
    TokenRefused,
    TooMuchAsked,
)
from worker.graph.faults import UNTOLD_REGAIN, fault_of, read_error
from worker.graph.usage import Usage

SECRET = "EAAB-token-that-Meta-echoes ann@example.org"
STATUSES = [200, 400, 403, 500, 503]


def fault(
    code: object, subcode: object = None, *, status: int = 400, usages: tuple[Usage, ...] = (), **told: object
) -> LeadSyncError:
    """What an error answer of this code means."""
    error: dict[str, object] = {"message": SECRET, "type": "OAuthException", "fbtrace_id": SECRET, **told}
    if code is not None:
        error["code"] = code
    if subcode is not None:
        error["error_subcode"] = subcode
    answer = read_error(status, {"error": error})
    assert answer is not None
    return fault_of(answer, usages, NOW)


def usage(minutes: float) -> Usage:
    return Usage("7", "leadgen", 100, 1, 1, minutes)


THROTTLES: list[tuple[int, int | None, str]] = [
    (4, None, "app"),
    (17, None, "user"),
    (17, 2_446_079, "user"),
    (32, None, "page"),
    (341, None, "app"),
    (613, None, "page"),
    (613, 1_996, "page"),
    (80_000, 2_446_079, "ad_account"),
    (80_001, None, "page"),
    (80_002, None, "page"),
    (80_003, 2_446_079, "ad_account"),
    (80_004, 2_446_079, "ad_account"),
    (80_005, None, "page"),
    (80_006, None, "page"),
    (80_008, None, "page"),
    (80_009, None, "page"),
    (80_014, None, "page"),
    (368, None, "page"),
]
REFUSALS: list[tuple[int, int | None, type[LeadSyncError]]] = [
    (190, None, TokenRefused),
    (190, 2_069_032, TokenRefused),
    (190, 458, TokenRefused),
    (190, 459, TokenRefused),
    (190, 460, TokenRefused),
    (190, 463, TokenRefused),
    (190, 464, TokenRefused),
    (190, 467, TokenRefused),
    (190, 492, TokenRefused),
    (102, None, TokenRefused),
    (104, None, TokenRefused),
    (10, None, PermissionRefused),
    (200, None, PermissionRefused),
    (278, None, PermissionRefused),
    (299, None, PermissionRefused),
    (103, None, PermissionRefused),
    (3, None, PermissionRefused),
    (100, 33, NotVisibleYet),
    (2200, None, CallbackRefused),
    (100, None, RequestRefused),
    (100, 1_487_390, RequestRefused),
    (803, None, RequestRefused),
    (506, None, RequestRefused),
    (2500, None, RequestRefused),
    (300, None, RequestRefused),
    (199, None, RequestRefused),
    (999_999, None, RequestRefused),
    (0, None, RequestRefused),
    (1, None, GraphUnavailable),
    (2, None, GraphUnavailable),
    (1, 99, TooMuchAsked),
]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(("code", "subcode", "scope"), THROTTLES)
def test_throttles_close_their_scope(code: int, subcode: int | None, scope: str, status: int) -> None:
    """Every throttle code is a throttle of its scope, whatever the HTTP status."""
    error = fault(code, subcode, status=status)
    assert isinstance(error, Throttled)
    assert (error.scope, error.until) == (scope, NOW + UNTOLD_REGAIN)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(("code", "subcode", "kind"), REFUSALS)
def test_codes_decide(code: int, subcode: int | None, kind: type[LeadSyncError], status: int) -> None:
    """Every code of Meta's tables has its error, whatever the HTTP status."""
    assert type(fault(code, subcode, status=status)) is kind


def test_the_lead_access_manager_s_revocation_is_a_permission() -> None:
    """Revoked CRM access parks the Page in each of the forms in which it has been seen."""
    text = "CRM access has been revoked from Lead Access Manager"
    assert type(fault(103, status=403, message=text)) is PermissionRefused
    assert type(fault(200, status=400, message=text)) is PermissionRefused


def test_ids_in_a_query_are_refused_and_not_retried() -> None:
    """The removed `GET /?ids=` answers HTTP 500, and a client that believed the status would loop for ever."""
    text = "The ids query parameter is deprecated in v26.0+."
    assert type(fault(100, status=500, message=text)) is RequestRefused


@pytest.mark.parametrize(
    ("code", "subcode", "told"),
    [
        (1, None, {"message": "Please reduce the amount of data you're asking for, then retry your request"}),
        (1, 99, {}),
        (1, 99, {"error_user_msg": "Please Reduce The Amount Of Data you're asking for"}),
        (2, None, {"error_user_msg": "please reduce the amount of data"}),
        (1, None, {"message": "REDUCE THE AMOUNT OF DATA", "is_transient": True}),
    ],
)
def test_too_much_asked_is_told_in_three_ways(code: int, subcode: int | None, told: dict[str, Any]) -> None:
    """Subcode 99 or the phrase, in the message or only in the user's message, asks for less."""
    assert type(fault(code, subcode, status=500, **told)) is TooMuchAsked


@pytest.mark.parametrize(
    "text",
    [
        "Invalid appsecret_proof provided in the API argument",
        "API calls from the server require an appsecret_proof argument",
    ],
)
def test_a_refused_proof_is_the_page_s_trouble_and_not_the_lead_s(text: str) -> None:
    """A wrong or missing proof has code 100 like a bad request, but no lead dies of it."""
    assert type(fault(100, message=text, type="GraphMethodException")) is ProofRefused


def test_the_phrases_say_nothing_under_other_codes() -> None:
    """A phrase that a lead or a Page's name may quote decides only where the code leaves it open."""
    text = "please reduce the amount of data; appsecret_proof"
    assert type(fault(190, message=text)) is TokenRefused
    assert type(fault(80_005, message=text)) is Throttled
    assert type(fault(803, message=text)) is RequestRefused
    assert type(fault(2, message="appsecret_proof")) is GraphUnavailable


@pytest.mark.parametrize("code", [None, 100, 12_345])
def test_meta_s_own_word_that_it_will_pass_counts(code: int | None) -> None:
    """`is_transient` makes an otherwise unknown failure one that is tried again."""
    assert type(fault(code, is_transient=True)) is GraphUnavailable


@pytest.mark.parametrize("untrue", [False, None, "true", 1])
def test_only_a_true_is_transient_is_believed(untrue: object) -> None:
    """A word that merely looks like truth does not keep a refused request going."""
    assert type(fault(100, is_transient=untrue)) is RequestRefused


@pytest.mark.parametrize(("code", "kind"), [(4, Throttled), (190, TokenRefused), (200, PermissionRefused)])
def test_a_known_code_beats_is_transient(code: int, kind: type[LeadSyncError]) -> None:
    """A throttle that calls itself transient (code 4 does) stays a throttle."""
    assert type(fault(code, is_transient=True)) is kind


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        ((), UNTOLD_REGAIN),
        ((0,), UNTOLD_REGAIN),
        ((7,), timedelta(minutes=7)),
        ((3, 20, 0), timedelta(minutes=20)),
    ],
)
def test_meta_says_in_minutes_when_it_lets_us_in(minutes: tuple[int, ...], expected: timedelta) -> None:
    """The longest of the told times counts, in minutes; where none is told we wait our own."""
    error = fault(80_005, usages=tuple(usage(m) for m in minutes))
    assert isinstance(error, Throttled)
    assert error.until == NOW + expected


def told(kind: str, minutes: float) -> Usage:
    return Usage("7", kind, 100, 1, 1, minutes)


@pytest.mark.parametrize(
    ("code", "usages", "minutes"),
    [
        (80_005, (told("leadgen", 3), told("app", 20), told("ads_management", 60)), 3),
        (80_005, (told("app", 20), told("leadgen", 3), told("pages", 4)), 4),
        (4, (told("leadgen", 30), told("app", 2)), 2),
        (80_004, (told("leadgen", 30), told("ads_insights", 7)), 7),
        (80_005, (told("leadgen", 0), told("app", 20)), 20),
        (80_005, (told("instagram", 9), told("app", 20)), 20),
        (17, (told("leadgen", 30), told("app", 40)), 40),
    ],
)
def test_the_wait_of_the_scope_that_was_closed_wins(
    code: int, usages: tuple[Usage, ...], minutes: float
) -> None:
    """Of several waits the longest of the throttled scope's own counts; where none is its own, the longest of all."""
    error = fault(code, usages=usages)
    assert isinstance(error, Throttled)
    assert error.regain == timedelta(minutes=minutes)
    assert error.until == NOW + timedelta(minutes=minutes)


def test_where_meta_names_no_wait_none_is_made_up() -> None:
    """The budget backs off by itself: what Meta did not say is not handed on as its word."""
    error = fault(80_005, usages=(told("leadgen", 0),))
    assert isinstance(error, Throttled)
    assert (error.regain, error.until) == (None, NOW + UNTOLD_REGAIN)


@pytest.mark.parametrize("code", ["190", "80005", "100"])
def test_a_code_may_come_as_text(code: str) -> None:
    """A code in quotes is the same code."""
    assert type(fault(code)) is type(fault(int(code)))


@pytest.mark.parametrize(
    "code", [None, True, False, "", "x", "-1", "\uff11\uff19\uff10", "9" * 5_000, 190.0, [190], {"code": 190}]
)
def test_an_error_without_a_readable_code_may_pass(code: object) -> None:
    """An error that names no code condemns nothing: it is tried again."""
    assert type(fault(code, status=500)) is GraphUnavailable


@pytest.mark.parametrize("body", [None, [], "text", 5, {}, {"error": None}, {"data": []}])
def test_a_failed_status_without_an_error_may_pass(body: object) -> None:
    """A proxy's answer has no code; it says nothing about the lead."""
    answer = read_error(502, body)
    assert answer is not None
    assert type(fault_of(answer, (), NOW)) is GraphUnavailable


@pytest.mark.parametrize("body", [{"id": "5"}, {"error": None, "id": "5"}, [], None, "text", {}])
def test_a_success_carries_no_error(body: object) -> None:
    """HTTP 200 without an `error` object is an answer."""
    assert read_error(200, body) is None


@pytest.mark.parametrize("odd", ["text", 5, True, False, [], ""])
def test_an_error_that_is_no_object_is_an_error_all_the_same(odd: object) -> None:
    """Whatever stands under `error` means that this is no lead, even at HTTP 200."""
    answer = read_error(200, {"error": odd, "id": "5"})
    assert answer is not None
    assert type(fault_of(answer, (), NOW)) is GraphUnavailable


@pytest.mark.parametrize(
    "told", [{"message": None}, {"message": [1]}, {"error_user_msg": {"x": 1}}, {"message": 5}]
)
def test_texts_of_an_odd_type_do_no_harm(told: dict[str, Any]) -> None:
    """The code is read beside a message that is no text."""
    assert type(fault(190, **told)) is TokenRefused


CODES = st.one_of(
    st.sampled_from([code for code, *_ in THROTTLES] + [code for code, *_ in REFUSALS]),
    st.integers(),
    st.none(),
    st.text(),
)


@given(CODES, CODES, st.sampled_from(STATUSES), st.booleans())
def test_no_message_holds_meta_s_text(code: object, subcode: object, status: int, transient: bool) -> None:
    """Every answer has one error, whose message holds numbers of Meta's and words of ours."""
    error = fault(code, subcode, status=status, error_user_msg=SECRET, is_transient=transient)
    for text in (str(error), repr(error)):
        assert "EAAB" not in text
        assert "ann@" not in text
