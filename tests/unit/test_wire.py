"""Requests as Graph wants them, answers as Graph gives them; all without a socket.

https://developers.facebook.com/docs/graph-api/batch-requests
"""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.leads import graph_lead
from tests.fakes.time import NOW
from worker.errors import (
    GraphUnavailable,
    ItemUnanswered,
    LeadSyncError,
    NotVisibleYet,
    PermissionRefused,
    RequestRefused,
    Throttled,
    TokenRefused,
)
from worker.graph.usage import APP_HEADER, BUSINESS_HEADER
from worker.graph.wire import (
    BATCH_LIMIT,
    FORM_COUNT_FIELDS,
    FORM_FIELDS,
    FULL_FIELDS,
    REDUCED_FIELDS,
    FormRead,
    GraphAnswer,
    GraphRequest,
    LeadsRead,
    ResultPage,
    appsecret_proof,
    form_request,
    form_text,
    forms_request,
    lead_request,
    leads_request,
    read_answer,
    read_form,
    read_result_page,
)
from worker.lead import Lead

TOKEN = "EAABtoken"
PROOF = "f00dproof"
TWO = ["1", "2"]
THROTTLED = {"message": "(#80005)", "type": "OAuthException", "code": 80005}


def asked(*leadgen_ids: str) -> GraphRequest:
    return lead_request(leadgen_ids, FULL_FIELDS, version="v26.0", token=TOKEN, proof=PROOF)


def read(body: bytes | str | Any, ids: list[str], *, status: int = 200, **headers: str) -> LeadsRead:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_answer(
        GraphAnswer(status, {name.replace("_", "-"): v for name, v in headers.items()}, raw), ids, NOW
    )


def item(body: Any, code: object = 200, **more: Any) -> dict[str, Any]:
    return {"code": code, "body": body if isinstance(body, str) else json.dumps(body), **more}


@pytest.mark.parametrize(
    ("token", "proof"),
    [
        ("TOKEN", "6bf65044b322f55f0e53897e2f620d3d765d3f7e6fafce27d7df8dc533430f02"),
        ("TOKEN|1700000000", "bdfadba4b0c03b551b265fcc0afbfcfdf6966c8eaa8e99ef07191e0a11546bb8"),
    ],
)
def test_the_proof_is_the_one_that_meta_computes(token: str, proof: str) -> None:
    """Known vectors: HMAC-SHA256 of the token under the app's secret, lower-case hex."""
    assert appsecret_proof("test_app_secret", token) == proof


def test_one_lead_is_a_plain_get() -> None:
    """A single lead is read by its node, with the fields named and the proof beside them."""
    request = asked("5")
    assert (request.method, request.path, request.form) == ("GET", "/v26.0/5", ())
    assert dict(request.query) == {"fields": ",".join(FULL_FIELDS), "appsecret_proof": PROOF}
    assert request.token == TOKEN


@pytest.mark.parametrize("count", [2, 3, BATCH_LIMIT])
def test_several_leads_are_one_batch(count: int) -> None:
    """Up to 50 leads are one POST, one item each in the order asked, every item with its fields."""
    ids = [str(n) for n in range(1, count + 1)]
    request = asked(*ids)
    form = dict(request.form)
    assert (request.method, request.path, request.query) == ("POST", "/v26.0/", ())
    assert (form["access_token"], form["appsecret_proof"], form["include_headers"]) == (TOKEN, PROOF, "true")
    assert json.loads(form["batch"]) == [
        {"method": "GET", "relative_url": f"{leadgen_id}?fields={','.join(FULL_FIELDS)}"}
        for leadgen_id in ids
    ]


@given(st.lists(st.tuples(st.text(), st.text() | st.text("%+ &=~é\x00", max_size=9)), max_size=3))
def test_a_form_is_written_as_browsers_write_it(form: list[tuple[str, str]]) -> None:
    """Every character comes out as urllib quotes it, the percent sign and the space too."""
    assert form_text(form) == urlencode(form).encode()


@pytest.mark.parametrize("count", [0, BATCH_LIMIT + 1])
def test_a_batch_that_graph_refuses_is_not_built(count: int) -> None:
    """None and more than 50 are a fault of ours, found before anything is sent."""
    with pytest.raises(ValueError, match=str(BATCH_LIMIT)):
        asked(*map(str, range(count)))


@pytest.mark.parametrize("count", [1, 2, BATCH_LIMIT])
def test_the_token_is_never_in_a_url(count: int) -> None:
    """Neither path, query nor an item's relative URL holds the token, and no repr does."""
    request = asked(*(str(n) for n in range(1, count + 1)))
    assert TOKEN not in request.path
    assert TOKEN not in str(request.query)
    assert TOKEN not in dict(request.form).get("batch", "")
    assert TOKEN not in repr(request)


def test_the_reduced_list_holds_no_ad_field() -> None:
    """What needs rights on the ad account is not in the reduced list, and nothing is in it that the full one lacks."""
    assert set(REDUCED_FIELDS) < set(FULL_FIELDS)
    assert not [name for name in REDUCED_FIELDS if name.startswith(("ad", "campaign"))]
    assert {"id", "created_time", "field_data", "form_id", "custom_disclaimer_responses"} <= set(
        REDUCED_FIELDS
    )


def test_one_lead_is_read() -> None:
    """The answer to a plain GET is the lead itself."""
    assert read(graph_lead("5"), ["5"]).leads == (graph_lead("5"),)


def test_a_batch_is_read_in_the_order_asked() -> None:
    """The n-th item answers the n-th id, since Graph's items carry no other name."""
    found = read([item(graph_lead("2")), item(graph_lead("1"))], ["2", "1"])
    assert found.leads == (graph_lead("2"), graph_lead("1"))


def test_items_fail_alone() -> None:
    """An item's error is that item's, inside a batch that is HTTP 200."""
    gone = {"error": {"message": "x", "code": 100, "error_subcode": 33}}
    secret = {"error": {"message": "x", "code": 200}}
    found = read([item(gone, 400), item(graph_lead("2")), item(secret, 403)], ["1", "2", "3"])
    assert [type(lead) for lead in found.leads] == [NotVisibleYet, dict, PermissionRefused]


def test_an_error_in_an_item_counts_at_code_200_too() -> None:
    """`error` in a body is an error, whatever code stands beside it."""
    (first, second) = read([item({"error": THROTTLED}), item(graph_lead("2"))], TWO).leads
    assert isinstance(first, Throttled)
    assert second == graph_lead("2")


def test_an_error_at_http_200_is_an_error() -> None:
    """A plain answer with `error` in it is no lead."""
    with pytest.raises(TokenRefused):
        read({"error": {"code": 190, "message": "x"}}, ["5"])


@pytest.mark.parametrize("ids", [["5"], TWO])
def test_an_error_of_the_whole_request_is_raised(ids: list[str]) -> None:
    """An answer that is one error is the whole batch's."""
    with pytest.raises(RequestRefused):
        read({"error": {"code": 100, "message": "x"}}, ids, status=400)


@pytest.mark.parametrize("nothing", [None, False, 0, "", []])
def test_an_item_that_graph_had_no_time_for_is_told_from_a_failed_one(nothing: object) -> None:
    """A null item is to be asked again at once; its neighbours have their leads."""
    first, second = read([nothing, item(graph_lead("2"))], TWO).leads
    assert type(first) is ItemUnanswered
    assert second == graph_lead("2")


@pytest.mark.parametrize(
    "odd",
    [{}, {"code": 200}, {"code": "200", "body": "{}"}, {"body": "{}"}, {"code": 200, "body": {"id": "1"}}],
)
def test_an_item_of_another_shape_may_pass(odd: object) -> None:
    """An item that lacks code or body condemns no lead."""
    first, second = read([odd, item(graph_lead("2"))], TWO).leads
    assert type(first) is GraphUnavailable
    assert second == graph_lead("2")


@pytest.mark.parametrize("text", ["", "{", "<html>", '{"id":"1"', "Service Unavailable", "[" * 100_000])
def test_a_broken_body_in_an_item_is_that_item_s(text: str) -> None:
    """A truncated item costs its neighbours nothing."""
    first, second = read([item(text), item(graph_lead("2"))], TWO).leads
    assert type(first) is GraphUnavailable
    assert second == graph_lead("2")


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_a_batch_of_another_length_is_no_answer(count: int) -> None:
    """Where items are missing or too many nobody knows whose they are, so none is believed."""
    with pytest.raises(GraphUnavailable, match=f"{count} items"):
        read([item(graph_lead("1"))] * count, TWO)


@pytest.mark.parametrize("ids", [["5"], TWO])
@pytest.mark.parametrize("status", [200, 500, 502])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>ann@example.org 502</body></html>",
        b'{"id":"5","field_data":[{"name":"email","val',
        b"\xff\xfe\x00",
        b"\x80abc",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"Service Unavailable",
    ],
)
def test_what_is_no_json_may_pass_and_is_not_quoted(body: bytes, status: int, ids: list[str]) -> None:
    """A truncated, foreign or bottomless body is an unavailable Graph, whose message quotes none of it."""
    with pytest.raises(GraphUnavailable) as told:
        read(body, ids, status=status)
    assert str(told.value) == f"Graph answered HTTP {status} with a body that is no JSON"
    assert told.value.__suppress_context__


@pytest.mark.parametrize("body", [None, 5, "text", {"success": False}, {"data": []}])
def test_a_batch_answered_by_no_list_may_pass(body: object) -> None:
    """HTTP 200 with something else than a list of items condemns no lead."""
    with pytest.raises(GraphUnavailable):
        read(body, TWO)


@pytest.mark.parametrize("sign", ["", "-"])
def test_numbers_of_any_length_are_read(sign: str) -> None:
    """An integer that Python refuses to convert is kept as its digits, and costs nobody the lead."""
    digits = sign + "7" * 5_000
    single = read(f'{{"id":"1","x":{digits}}}'.encode(), ["1"]).leads[0]
    assert single == {"id": "1", "x": digits}
    batched = read([item(f'{{"id":"1","x":{digits}}}'), item("{}")], TWO).leads[0]
    assert batched == single


def test_a_huge_code_decides_nothing() -> None:
    """An item whose code is a number without end is no success and no crash."""
    body = b'[{"code":' + b"9" * 5_000 + b',"body":"{}"},{"code":200,"body":"{\\"id\\":7}"}]'
    first, second = read(body, TWO).leads
    assert type(first) is GraphUnavailable
    assert second == {"id": 7}


def test_meta_s_escapes_are_read() -> None:
    """Escaped slashes and surrogate pairs come out as the person typed them."""
    assert read(rb'{"id":"1","x":"a\/b \ud83d\ude00 \u0040"}', ["1"]).leads == ({"id": "1", "x": "a/b 😀 @"},)


NUL = rb"\\u0000"
"""As Graph writes it in an item's text, which is JSON in JSON."""


@pytest.mark.parametrize(
    ("written", "is_clean"),
    [
        (b"J\\u00fcrgen", True),
        (NUL, False),
        (rb"\u005cu0000", False),
        (rb"\\ud800", False),
        (rb"\ud800", False),
        (b"\\\\u0041", True),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_batch_is_clean_where_each_of_its_leads_is(written: bytes, is_clean: bool, place: int) -> None:
    """Whatever Postgres cannot hold is seen in whichever item it stands, and however it is escaped twice."""
    texts = [b'{\\"id\\":\\"1\\"}', b'{\\"id\\":\\"2\\"}']
    texts[place] = texts[place].replace(b"}", b',\\"x\\":\\"' + written + b'\\"}')
    found = read(b"[" + b",".join(b'{"code":200,"body":"%s"}' % text for text in texts) + b"]", TWO)
    assert found.is_clean is is_clean
    told = found.leads[place]
    assert Lead.from_graph(told, leadgen_id=TWO[place], in_part=False).cleaned is not is_clean


def test_one_lead_is_clean_where_its_answer_is() -> None:
    """A plain answer is looked at as an item is."""
    assert read(b'{"id":"5","x":"y"}', ["5"]).is_clean
    assert not read(rb'{"id":"5","x":"\u0000"}', ["5"]).is_clean


def test_an_item_without_a_lead_makes_nobody_else_be_looked_through() -> None:
    """An error and an item that was left out are no rows."""
    gone = {"error": {"message": "x", "code": 100, "error_subcode": 33}}
    assert read([item(gone, 400), None, item(graph_lead("3"))], ["1", "2", "3"]).is_clean


def test_each_item_s_usage_counts_where_they_differ() -> None:
    """The last word counts, also where it is what was said before."""
    usage = '{"7":[{"type":"leadgen","call_count":%d,"total_cputime":0,"total_time":0}]}'
    items = [
        item(graph_lead(str(n)), headers=[{"name": BUSINESS_HEADER, "value": usage % percent}])
        for n, percent in enumerate([10, 10, 20, 10])
    ]
    assert [u.call_count for u in read(items, ["0", "1", "2", "3"]).usages] == [10]
    assert [u.call_count for u in read(items[:3], ["0", "1", "2"]).usages] == [20]


def test_usage_of_the_answer_and_of_its_items_is_read() -> None:
    """A batch tells usage in its items' headers, each limit once, the last word counting."""
    usage = '{"7":[{"type":"leadgen","call_count":%d,"total_cputime":0,"total_time":0}]}'
    headers = [
        {"name": "X-Business-Use-Case-Usage", "value": usage % 90},
        {"name": "Etag", "value": "x"},
        None,
    ]
    found = read(
        [item(graph_lead("1"), headers=headers), item(graph_lead("2"), headers="odd")],
        TWO,
        **{BUSINESS_HEADER: usage % 10, APP_HEADER: '{"call_count":5}'},
    )
    assert {(u.scope_id, u.kind): u.call_count for u in found.usages} == {
        ("7", "leadgen"): 90,
        (None, "app"): 5,
    }


def test_an_item_s_throttle_ends_when_its_own_headers_say() -> None:
    """The wait that Meta names for an item is taken from that item."""
    usage = '{"7":[{"type":"leadgen","estimated_time_to_regain_access":11}]}'
    headers = [{"name": "x-business-use-case-usage", "value": usage}]
    first, second = read(
        [item({"error": THROTTLED}, 400, headers=headers), item({"error": THROTTLED}, 400)], TWO
    ).leads
    assert isinstance(first, Throttled)
    assert isinstance(second, Throttled)
    assert (first.until - NOW).total_seconds() == 11 * 60
    assert second.until < first.until


def test_an_answer_s_repr_tells_no_lead() -> None:
    """Neither what came nor what was read of it shows an answer when it is printed."""
    answer = GraphAnswer(200, {}, json.dumps(graph_lead("5")).encode())
    assert "ann@" not in repr(answer)
    assert "ann@" not in repr(read_answer(answer, ["5"], NOW))


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["code", "body", "headers", "error", "name", "value", "message"]), inner
        )
    ),
    max_leaves=10,
)


@given(st.binary(max_size=20) | ODD, st.sampled_from([200, 400, 500]), st.sampled_from([["1"], TWO]))
def test_no_answer_raises_anything_else(body: Any, status: int, ids: list[str]) -> None:
    """Whatever comes is as many leads or errors as were asked for, or one error of the tree."""
    try:
        found = read(body, ids, status=status)
    except LeadSyncError:
        return
    assert len(found.leads) == len(ids)


@pytest.mark.parametrize("body", [b"null", b"{}", b"[]", b"7", b'{"data":[]}'])
def test_an_answer_without_an_id_is_asked_for_again(body: bytes) -> None:
    """A 200 that holds no lead says nothing of the lead: it is no reason to give it up."""
    with pytest.raises(GraphUnavailable):
        read(body, ["1"])


def listed(after: str | None = None, fields: tuple[str, ...] = FULL_FIELDS) -> GraphRequest:
    return leads_request(
        "77", 1_000, 1_060, fields, limit=500, after=after, version="v26.0", token=TOKEN, proof=PROOF
    )


def forms_listed(after: str | None = None, fields: Sequence[str] = FORM_FIELDS) -> GraphRequest:
    return forms_request("88", fields, limit=100, after=after, version="v26.0", token=TOKEN, proof=PROOF)


def result_page(body: Any, *, status: int = 200, **headers: str) -> ResultPage:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_result_page(
        GraphAnswer(status, {name.replace("_", "-"): v for name, v in headers.items()}, raw), NOW
    )


@pytest.mark.parametrize("fields", [FULL_FIELDS, REDUCED_FIELDS])
def test_a_form_s_leads_are_listed_between_two_seconds(fields: tuple[str, ...]) -> None:
    """A listing is a GET of the form's leads, created at `since` or later and before `until`, with its fields."""
    request = listed(fields=fields)
    query = dict(request.query)
    assert (request.method, request.path, request.form) == ("GET", "/v26.0/77/leads", ())
    assert json.loads(query.pop("filtering")) == [
        {"field": "time_created", "operator": "GREATER_THAN_OR_EQUAL", "value": 1_000},
        {"field": "time_created", "operator": "LESS_THAN", "value": 1_060},
    ]
    assert query == {"fields": ",".join(fields), "limit": "500", "appsecret_proof": PROOF}
    assert request.token == TOKEN


@pytest.mark.parametrize("fields", [FORM_FIELDS, FORM_COUNT_FIELDS])
def test_a_page_s_forms_are_listed_with_their_fields(fields: tuple[str, ...]) -> None:
    """Forms are asked for with what a limit follows from, and with their definition unless that was refused."""
    request = forms_listed(fields=fields)
    assert (request.method, request.path, request.form) == ("GET", "/v26.0/88/leadgen_forms", ())
    assert dict(request.query) == {"fields": ",".join(fields), "limit": "100", "appsecret_proof": PROOF}
    assert {"id", "leads_count", "expired_leads_count"} <= set(fields)
    assert {"name", "questions", "legal_content", "tracking_parameters"} <= set(FORM_FIELDS)
    assert request.token == TOKEN


def test_a_form_is_asked_for_by_its_id() -> None:
    """One GET of the form with its fields; no URL holds the token."""
    request = form_request("77", FORM_FIELDS, version="v26.0", token=TOKEN, proof=PROOF)
    assert (request.method, request.path, request.form) == ("GET", "/v26.0/77", ())
    assert dict(request.query) == {"fields": ",".join(FORM_FIELDS), "appsecret_proof": PROOF}
    assert request.token == TOKEN
    assert TOKEN not in request.path + str(request.query) + repr(request)


def test_a_form_is_what_graph_answers_for_it() -> None:
    """The form's JSON comes as it is, usage beside it; an error is its error, and what has no id is no form."""
    usage = {BUSINESS_HEADER: '{"7":[{"type":"leadgen","call_count":9}]}'}

    def read(body: Any, status: int = 200) -> FormRead:
        return read_form(GraphAnswer(status, usage, json.dumps(body).encode()), NOW)

    found = read({"id": "77", "name": "F", "questions": [{"key": "email"}]})
    assert found.form == {"id": "77", "name": "F", "questions": [{"key": "email"}]}
    assert [u.call_count for u in found.usages] == [9]
    assert "email" not in repr(found)
    with pytest.raises(NotVisibleYet):
        read({"error": {"code": 100, "error_subcode": 33}}, 400)
    for odd in ([], {}, "x", None, {"success": True}):
        with pytest.raises(GraphUnavailable):
            read(odd)


@pytest.mark.parametrize("build", [listed, forms_listed])
def test_a_cursor_is_in_the_request_where_there_is_one(build: Any) -> None:
    """The first result page names no cursor, each later one the cursor before it, and nothing else differs."""
    first, later = build(), build("QVFI==")
    assert "after" not in dict(first.query)
    assert dict(later.query) == {**dict(first.query), "after": "QVFI=="}


@pytest.mark.parametrize("build", [listed, forms_listed])
def test_a_listing_s_url_holds_no_token(build: Any) -> None:
    """The token of a listing goes into a header; neither URL nor repr shows it."""
    request = build("QVFI")
    assert TOKEN not in request.path + str(request.query) + repr(request)


def test_a_result_page_is_its_entries_and_a_cursor() -> None:
    """Entries come as they are, in their order; the cursor is Meta's own; usage is read beside them."""
    usage = '{"7":[{"type":"leadgen","call_count":9}]}'
    body = {
        "data": [graph_lead("2"), graph_lead("1"), None],
        "paging": {
            "cursors": {"before": "b4", "after": "QVFI"},
            "next": f"https://evil/?access_token={TOKEN}",
        },
    }
    found = result_page(body, **{BUSINESS_HEADER: usage})
    assert found.entries == (graph_lead("2"), graph_lead("1"), None)
    assert found.after == "QVFI"
    assert [u.call_count for u in found.usages] == [9]


@pytest.mark.parametrize(
    "paging",
    [
        None,
        {},
        [],
        "x",
        {"cursors": {"before": "a", "after": "b"}},
        {"cursors": {"after": "b"}, "next": None},
        {"cursors": {"after": "b"}, "next": ""},
        {"cursors": {"after": "b"}, "previous": "https://x"},
    ],
)
@pytest.mark.parametrize("entries", [[], [{"id": "1"}]])
def test_a_listing_ends_where_no_next_is(paging: object, entries: list[object]) -> None:
    """Meta gives a cursor on the last result page too: only an absent `next` ends a listing."""
    assert result_page({"data": entries, "paging": paging}) == ResultPage(tuple(entries), None, ())
    assert result_page({"data": entries}).after is None


def test_an_empty_result_page_may_go_on() -> None:
    """A result page that filters left nothing of says that there is more, and is believed."""
    assert result_page({"data": [], "paging": {"cursors": {"after": "b"}, "next": "https://x"}}).after == "b"


@pytest.mark.parametrize(
    "cursors", [None, {}, [], {"after": None}, {"after": ""}, {"after": 5}, {"before": "b"}]
)
def test_a_listing_that_goes_on_from_nowhere_may_pass(cursors: object) -> None:
    """`next` without a cursor is no end: believing one would lose whatever comes after."""
    with pytest.raises(GraphUnavailable):
        result_page({"data": [{"id": "1"}], "paging": {"cursors": cursors, "next": "https://x"}})


@pytest.mark.parametrize("body", [None, [], 5, "x", {}, {"data": None}, {"data": {}}, {"id": "5"}])
def test_what_is_no_listing_may_pass(body: object) -> None:
    """An answer without a list of entries is no empty result page."""
    with pytest.raises(GraphUnavailable):
        result_page(body)


@pytest.mark.parametrize("status", [200, 400, 500])
def test_an_error_of_a_listing_is_raised(status: int) -> None:
    """A listing's error is what the codes say, with the wait that its own headers tell."""
    usage = '{"7":[{"type":"leadgen","estimated_time_to_regain_access":11}]}'
    with pytest.raises(Throttled) as told:
        result_page({"error": THROTTLED, "data": []}, status=status, **{BUSINESS_HEADER: usage})
    assert (told.value.until - NOW).total_seconds() == 11 * 60
    with pytest.raises(RequestRefused):
        result_page({"error": {"code": 100, "message": "x"}}, status=status)


def test_a_result_page_s_repr_tells_no_lead() -> None:
    """What was listed shows no answer when it is printed."""
    assert "ann@" not in repr(result_page({"data": [graph_lead("5")]}))


@given(st.binary(max_size=20) | ODD | st.fixed_dictionaries({"data": ODD, "paging": ODD}))
def test_no_listing_raises_anything_else(body: Any) -> None:
    """Whatever comes is a result page, or one error of the tree."""
    try:
        found = result_page(body)
    except LeadSyncError:
        return
    assert found.after is None or found.after


@pytest.mark.parametrize("number", ["1e400", "-1E999", "NaN", "-Infinity", "1" + "0" * 400 + ".0"])
def test_a_result_page_with_a_number_that_is_none_is_not_clean(number: str) -> None:
    """Postgres refuses such numbers, so its leads are looked through."""
    told = read_result_page(
        GraphAnswer(200, {}, b'{"data": [{"id": "1", "n": ' + number.encode() + b"}]}"), NOW
    )
    assert not told.is_clean


@pytest.mark.parametrize(
    ("text", "is_clean"),
    [
        (r"J\u00fcrgen \ud83d\ude00", True),
        (r"a\u0000b", False),
        (r"\ud83d", False),
        (r"\ude00", False),
        (r"\ud83d\ud83d\ude00", False),
        (r"\ud83d\ude00\ude00", False),
    ],
)
def test_a_result_page_is_clean_where_postgres_can_hold_all_of_it(text: str, is_clean: bool) -> None:
    """Whole pairs of surrogates are letters; a NUL or a lone surrogate is none."""
    body = b'{"data": [{"id": "1", "name": "' + text.encode() + b'", "n": 12.5}]}'
    assert read_result_page(GraphAnswer(200, {}, body), NOW).is_clean == is_clean


@pytest.mark.parametrize(
    ("code", "kind"),
    [(200, PermissionRefused), (80004, Throttled), (190, TokenRefused), (100, RequestRefused)],
)
@pytest.mark.parametrize("usage", [{}, {APP_HEADER: '{"call_count":28}'}])
def test_an_error_carries_what_its_answer_said_of_usage(
    code: int, kind: type[LeadSyncError], usage: dict[str, str]
) -> None:
    """Of leads, listings and forms; and that there was an answer is told even where it said nothing."""
    answer = GraphAnswer(400, usage, json.dumps({"error": {"code": code}}).encode())
    for read in (
        lambda: read_answer(answer, ["1"], NOW),
        lambda: read_answer(answer, TWO, NOW),
        lambda: read_result_page(answer, NOW),
        lambda: read_form(answer, NOW),
    ):
        with pytest.raises(kind) as told:
            read()
        assert [u.percent for u in told.value.usages or ()] == [28] * len(usage)
        assert told.value.usages is not None


@pytest.mark.parametrize(("usage", "told"), [({}, None), ({APP_HEADER: '{"call_count":28}'}, [28])])
def test_an_outage_without_usage_may_be_no_word_of_graph(
    usage: dict[str, str], told: list[float] | None
) -> None:
    """A gateway's page says nothing of throttles, so it is taken for no answer; usage comes from Meta alone."""
    with pytest.raises(GraphUnavailable) as error:
        read_answer(GraphAnswer(502, usage, b"<html>"), ["1"], NOW)
    usages = error.value.usages
    assert (usages and [u.percent for u in usages]) == told
