"""What is asked of Graph about tokens, Pages and subscriptions, and whatever it answers to that."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.time import NOW
from worker.errors import GraphUnavailable, LeadSyncError, RequestRefused
from worker.graph import account
from worker.graph.account import (
    AppSubscription,
    Caller,
    PageAccount,
    TokenFacts,
    accounts_request,
    debug_request,
    delete_lead_request,
    exchange_request,
    make_test_lead_request,
    page_request,
    read_account,
    read_debug,
    read_exchange,
    read_ids,
    read_made,
    read_subscribed,
    read_subscriptions,
    read_success,
    set_webhook_request,
    subscribe_request,
    subscribed_apps_request,
    subscriptions_request,
    test_leads_request,
    unsubscribe_request,
)
from worker.graph.wire import BATCH_LIMIT, GraphAnswer, GraphRequest, appsecret_proof

test_leads_request.__test__ = False  # type: ignore[attr-defined]  # it is no test of ours

TOKEN, OTHER, SECRET, VERIFY = "EAAG-hunter2", "EAAU hunter2&é=%", "hunter2-secret", "hunter2-verify"
APP, PAGE, FORM, LEAD = "1234567890123456", "153125381133", "777", "888"
CALLER = Caller(APP, "v26.0", SECRET)

REQUESTS: dict[str, tuple[GraphRequest, str | None]] = {
    "exchange_request": (exchange_request(CALLER, TOKEN), None),
    "debug_request": (debug_request(CALLER, [TOKEN, OTHER]), CALLER.app_token),
    "accounts_request": (accounts_request(CALLER, TOKEN, after="cursor"), TOKEN),
    "page_request": (page_request(CALLER, PAGE, ["name", "access_token"], TOKEN), TOKEN),
    "subscribed_apps_request": (subscribed_apps_request(CALLER, PAGE, TOKEN), TOKEN),
    "subscribe_request": (subscribe_request(CALLER, PAGE, ["feed", "leadgen"], TOKEN), TOKEN),
    "unsubscribe_request": (unsubscribe_request(CALLER, PAGE, TOKEN), TOKEN),
    "subscriptions_request": (subscriptions_request(CALLER), CALLER.app_token),
    "set_webhook_request": (
        set_webhook_request(
            CALLER, callback_url="https://x.example/w", verify_token=VERIFY, fields=["leadgen"]
        ),
        CALLER.app_token,
    ),
    "test_leads_request": (test_leads_request(CALLER, FORM, TOKEN), TOKEN),
    "make_test_lead_request": (make_test_lead_request(CALLER, FORM, TOKEN), TOKEN),
    "delete_lead_request": (delete_lead_request(CALLER, LEAD, TOKEN), TOKEN),
}
"""Each builder's request, and under whose token it is made."""


def answer(body: object, status: int = 200) -> GraphAnswer:
    return GraphAnswer(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


def test_every_builder_is_looked_at() -> None:
    """A request that is added here is held to the rules below."""
    assert set(REQUESTS) == {name for name in vars(account) if name.endswith("_request")}


@pytest.mark.parametrize("name", REQUESTS)
def test_no_secret_is_in_a_path_or_query(name: str) -> None:
    """Tokens and secrets travel in a header or a body alone, for URLs are written into logs everywhere."""
    request, _ = REQUESTS[name]
    url = request.path + repr(request.query)
    assert not [secret for secret in ("hunter2", OTHER, VERIFY, CALLER.app_token) if secret in url]
    assert "access_token" not in dict(request.query)
    assert "hunter2" not in repr(request)


@pytest.mark.parametrize("name", [name for name, (_, token) in REQUESTS.items() if token])
def test_each_request_proves_its_token(name: str) -> None:
    """With the app's secret, for the very token that it is made under, once."""
    request, token = REQUESTS[name]
    assert token is not None
    sent = [*request.query, *request.form]
    assert [value for key, value in sent if key == "appsecret_proof"] == [appsecret_proof(SECRET, token)]
    assert [request.token, *(v for k, v in request.form if k == "access_token")].count(token) == 1


def test_a_token_is_looked_into_by_batch() -> None:
    """debug_token takes it as a parameter, so it stands, escaped, in the body's batch and in no URL of ours."""
    request, _ = REQUESTS["debug_request"]
    items = json.loads(dict(request.form)["batch"])
    assert (request.method, request.path) == ("POST", "/v26.0/")
    assert items[1] == {
        "method": "GET", "relative_url": "debug_token?input_token=EAAU+hunter2%26%C3%A9%3D%25",
    }  # fmt: skip


@pytest.mark.parametrize("tokens", [0, BATCH_LIMIT + 1])
def test_a_batch_of_tokens_is_bounded(tokens: int) -> None:
    """And the error quotes none."""
    with pytest.raises(ValueError, match="a batch asks about") as told:
        debug_request(CALLER, [TOKEN] * tokens)
    assert "hunter2" not in str(told.value)


def test_no_repr_tells_a_secret() -> None:
    """Neither a caller nor a Page's account shows what it holds."""
    shown = repr(CALLER) + repr(PageAccount(PAGE, "Page", (), TOKEN))
    assert "hunter2" not in shown


ODD = (None, True, 0, 5, -1, 2**70, 1.5, "", "x", "5", [], [5], [[]], [None, {}], {}, {"x": 5})
"""What may stand in any place of an answer."""


def spoiled(value: object) -> Iterator[object]:
    """The answer with each of its values, one at a time, replaced by each odd one, or taken away."""
    yield from ODD
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: each for name, each in value.items() if name != key}
            yield from ({**value, key: odd} for odd in spoiled(inner))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from ([*value[:place], odd, *value[place + 1 :]] for odd in spoiled(inner))


FACTS = {
    "app_id": APP, "type": "PAGE", "user_id": "9", "profile_id": PAGE, "is_valid": True,
    "expires_at": 0, "data_access_expires_at": 1_800_000_000, "scopes": ["leads_retrieval"],
    "granular_scopes": [{"scope": "leads_retrieval", "target_ids": [PAGE]}, {"scope": "all"}],
}  # fmt: skip
DEAD = {**FACTS, "is_valid": False, "error": {"code": 190, "subcode": 463, "message": "hunter2"}}
SUBSCRIPTION = {
    "object": "page", "callback_url": "https://x.example", "active": True,
    "fields": [{"name": "leadgen", "version": "v26.0"}, "feed"],
}  # fmt: skip
PAGE_ENTRY = {"id": PAGE, "name": "Ours", "tasks": ["MANAGE"], "access_token": TOKEN}
GOOD: dict[str, object] = {
    "exchange": {"access_token": TOKEN, "token_type": "bearer", "expires_in": 5_183_944},
    "debug": [{"code": 200, "body": "{}"}, {"code": 400, "body": json.dumps({"error": {"code": 100}})}],
    "subscribed": {"data": [{"id": "1"}, {"id": APP, "subscribed_fields": ["feed", "leadgen"]}]},
    "subscriptions": {"data": [SUBSCRIPTION]},
    "ids": {"data": [{"id": LEAD, "created_time": "2026-11-24T22:00:00+0000"}]},
    "success": {"success": True},
    "made": {"id": LEAD},
}
READERS: dict[str, Callable[[GraphAnswer], Any]] = {
    "exchange": lambda it: read_exchange(it, NOW),
    "debug": lambda it: read_debug(it, 2, NOW),
    "subscribed": lambda it: read_subscribed(it, APP, NOW),
    "subscriptions": lambda it: read_subscriptions(it, NOW),
    "ids": lambda it: read_ids(it, NOW),
    "success": lambda it: read_success(it, NOW),
    "made": lambda it: read_made(it, NOW),
}


def test_every_reader_is_looked_at() -> None:
    """Those of whole answers; `read_account` reads an entry."""
    readers = {name.removeprefix("read_") for name in vars(account) if name.startswith("read_")}
    assert readers - {"account", "error", "items", "object"} == set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_whatever_graph_answers_is_a_value_or_an_error_of_ours(name: str) -> None:
    """An answer with anything in any place, and an error of any status with anything in it."""
    error = {"error": {"code": 190, "error_subcode": 463, "message": "x", "is_transient": False}}
    told = [(200, body) for body in spoiled(GOOD[name])] + [(400, body) for body in spoiled(error)]
    assert len(told) > 100
    for status, body in told:
        with suppress(LeadSyncError):
            READERS[name](answer(body, status))


def test_whatever_graph_knows_of_a_token_is_told_or_an_error_of_ours() -> None:
    """Each item of the batch by itself; the other one is told all the same."""
    good = {"code": 200, "body": json.dumps({"data": FACTS})}
    for body in spoiled({"data": DEAD}):
        first, second = read_debug(answer([{"code": 200, "body": json.dumps(body)}, good]), 2, NOW)
        assert isinstance(first, TokenFacts | LeadSyncError)
        assert isinstance(second, TokenFacts)


@pytest.mark.parametrize("name", READERS)
@given(body=st.binary(max_size=30), status=st.sampled_from([200, 400, 500]))
def test_what_is_no_json_is_an_error_of_ours(name: str, body: bytes, status: int) -> None:
    """A proxy's page, half an answer, nothing at all."""
    with suppress(LeadSyncError):
        READERS[name](answer(body, status))


def test_any_entry_is_a_page_or_none() -> None:
    """A listing of Pages may hold anything."""
    for entry in spoiled(PAGE_ENTRY):
        found = read_account(entry)
        assert found is None or (found.page_id.isdigit() and found.token != "")


def test_a_page_is_read_with_its_token() -> None:
    """One without a token, as where a task is missing, is listed without."""
    assert read_account(PAGE_ENTRY) == PageAccount(PAGE, "Ours", ("MANAGE",), TOKEN)
    assert read_account({"id": PAGE}) == PageAccount(PAGE, "", (), None)
    assert read_account({"id": "x1"}) is None


def test_a_token_is_read_with_all_that_meta_knows() -> None:
    """Times are aware, 0 is never, scopes with their targets."""
    facts = TokenFacts(
        APP, "PAGE", "9", PAGE, True, None, datetime.fromtimestamp(1_800_000_000, UTC), ("leads_retrieval",),
        {"leads_retrieval": (PAGE,)},
    )  # fmt: skip
    items = [{"code": 200, "body": json.dumps({"data": each})} for each in (FACTS, DEAD)]
    assert read_debug(answer(items), 2, NOW) == (facts, replace(facts, is_valid=False, code=190, subcode=463))


def test_an_item_that_failed_is_its_own_error() -> None:
    """The other token's facts are there; Meta's text is not."""
    refused = {"error": {"code": 100, "message": "hunter2 is malformed"}}
    items = [
        {"code": 400, "body": json.dumps(refused)},
        {"code": 200, "body": '{"data": {"is_valid": true}}'},
    ]
    first, second = read_debug(answer(items), 2, NOW)
    assert isinstance(first, LeadSyncError)
    assert "hunter2" not in str(first)
    assert isinstance(second, TokenFacts)


@pytest.mark.parametrize("body", [{}, {"access_token": None}, {"access_token": ""}, {"access_token": 5}])
def test_an_exchange_without_a_token_may_work_later(body: object) -> None:
    """It is no token and no refusal."""
    with pytest.raises(GraphUnavailable):
        read_exchange(answer(body), NOW)
    assert read_exchange(answer({"access_token": TOKEN}), NOW) == TOKEN


def test_the_app_s_own_installation_is_found_among_others() -> None:
    """Other apps on the Page are not ours; installed without a field is not the same as not installed."""
    others = [{"id": "1", "subscribed_fields": ["leadgen"]}, "x"]
    assert read_subscribed(answer({"data": others}), APP, NOW) is None
    assert read_subscribed(answer({"data": [*others, {"id": APP}]}), APP, NOW) == ()
    ours = {"id": APP, "subscribed_fields": ["feed", "leadgen"]}
    assert read_subscribed(answer({"data": [*others, ours]}), APP, NOW) == ("feed", "leadgen")


def test_webhooks_are_read_with_their_fields() -> None:
    """Fields come as objects with a version, and in old answers as names."""
    (found,) = read_subscriptions(answer({"data": [SUBSCRIPTION]}), NOW)
    assert found == AppSubscription("page", "https://x.example", True, ("leadgen", "feed"))


def test_what_was_not_done_is_an_error() -> None:
    """An answer without the word is taken as done, as Graph answers a lead that was made."""
    read_success(answer({"success": True}), NOW)
    read_success(answer({"id": LEAD}), NOW)
    with pytest.raises(RequestRefused):
        read_success(answer({"success": False}), NOW)


def test_ids_are_digits() -> None:
    """Whatever else a listing holds is left out."""
    assert read_ids(answer({"data": [{"id": LEAD}, {"id": "x"}, {"id": None}, 5, {"id": 9}]}), NOW) == (
        LEAD,
        "9",
    )
