"""Subscriptions of the sandbox: what the calls change, what they are refused with, what vanishes."""

from collections.abc import Callable
from typing import Any

import pytest

from sandbox.given import OrderRefused
from sandbox.parts import Sandbox
from sandbox.request import Answer, Request
from sandbox.subscriptionorders import drop_subscriptions
from sandbox.tokenorders import order_tokens
from tests.fakes.sandboxes import NOW, asked, code_of, made, read

CALLBACK = "https://example.com/webhook"


@pytest.fixture
def sandbox() -> Sandbox:
    return made(leads=0, pages=2)


def page_call(sandbox: Sandbox, method: str = "GET", page: int = 0, **params: str) -> Answer:
    path = f"/v26.0/{sandbox.world.pages[page].page_id}/subscribed_apps"
    return asked(sandbox, path, params, page=page, method=method)


def app_call(sandbox: Sandbox, method: str = "GET", *, verified: bool = True, **params: str) -> Answer:
    """A call about the app's subscription, whose callback has echoed or not."""
    query = {"access_token": sandbox.config.app_token, **params}
    path = f"/v26.0/{sandbox.config.app_id}/subscriptions"
    return sandbox.answer(Request(method, path, query, verified=verified), NOW, 0.0)


def subscribed(sandbox: Sandbox, **params: str) -> Answer:
    wanted = {"object": "page", "callback_url": CALLBACK, "fields": "leadgen", "verify_token": "v", **params}
    return app_call(sandbox, "POST", **wanted)


def listed(sandbox: Sandbox, page: int = 0) -> Any:
    return read(page_call(sandbox, page=page))["data"]


def test_a_page_is_subscribed_seen_and_dropped(sandbox: Sandbox) -> None:
    """POST subscribes that Page alone, GET tells app and fields, DELETE ends it."""
    assert listed(sandbox) == []
    assert read(page_call(sandbox, "POST", subscribed_fields="leadgen")) == {"success": True}
    [app] = listed(sandbox)
    assert list(app) == ["category", "link", "name", "id", "subscribed_fields"]
    assert (app["id"], app["subscribed_fields"]) == (sandbox.config.app_id, ["leadgen"])
    assert listed(sandbox, page=1) == []
    assert read(page_call(sandbox, "DELETE")) == {"success": True}
    assert listed(sandbox) == []


def test_subscribing_a_page_again_replaces_its_fields(sandbox: Sandbox) -> None:
    """The last POST's fields hold, as a list or with commas; those of before are gone."""
    page_call(sandbox, "POST", subscribed_fields='["feed", "leadgen"]')
    assert listed(sandbox)[0]["subscribed_fields"] == ["feed", "leadgen"]
    page_call(sandbox, "POST", subscribed_fields="leadgen_update")
    assert listed(sandbox)[0]["subscribed_fields"] == ["leadgen_update"]


@pytest.mark.parametrize("fields", ["", "leads", "[]", "[", "[[1]]", ","])
def test_fields_must_be_named_and_known(sandbox: Sandbox, fields: str) -> None:
    """No field, an unknown one or none that can be read is code 100, and nothing changes."""
    assert code_of(page_call(sandbox, "POST", subscribed_fields=fields)) == (100, None)
    assert listed(sandbox) == []


def test_a_page_is_subscribed_with_its_own_token(sandbox: Sandbox) -> None:
    """The user's token is 190, another Page's and the app's see no such Page."""
    path = f"/{sandbox.world.pages[0].page_id}/subscribed_apps"
    assert code_of(asked(sandbox, path, {"access_token": sandbox.tokens.of_user})) == (190, None)
    for token in (sandbox.config.app_token, sandbox.tokens.of_page[sandbox.world.pages[1].page_id]):
        assert code_of(asked(sandbox, path, {"access_token": token})) == (100, 33)


@pytest.mark.parametrize(
    ("scope", "fields", "text"),
    [
        ("pages_manage_metadata", "feed", "Requires pages_manage_metadata permission"),
        ("leads_retrieval", "leadgen", "one of these permissions is needed: leads_retrieval"),
    ],
)
def test_a_page_is_subscribed_only_with_the_scope(
    sandbox: Sandbox, scope: str, fields: str, text: str
) -> None:
    """Without the scope subscribing is 200 with HTTP 403 and says which one is missing."""
    order_tokens(sandbox, {"take_scopes": [scope]}, NOW)
    refused = page_call(sandbox, "POST", subscribed_fields=fields)
    assert (refused.status, code_of(refused)) == (403, (200, None))
    assert text in read(refused)["error"]["message"]
    order_tokens(sandbox, {"take_scopes": []}, NOW)
    assert page_call(sandbox, "POST", subscribed_fields=fields).status == 200


def test_leads_retrieval_is_missed_for_leadgen_alone(sandbox: Sandbox) -> None:
    """Other fields are subscribed without it."""
    order_tokens(sandbox, {"take_scopes": ["leads_retrieval"]}, NOW)
    assert page_call(sandbox, "POST", subscribed_fields="feed").status == 200


def test_the_app_is_subscribed_seen_and_dropped(sandbox: Sandbox) -> None:
    """POST gives the app its one callback, GET tells it without the verify token, DELETE takes fields or all."""
    assert read(app_call(sandbox)) == {"data": []}
    assert read(subscribed(sandbox, fields="leadgen,feed", verify_token="secret")) == {"success": True}
    answer = app_call(sandbox)
    [told] = read(answer)["data"]
    assert list(told) == ["object", "callback_url", "active", "fields"]
    assert (told["object"], told["callback_url"], told["active"]) == ("page", CALLBACK, True)
    assert [field["name"] for field in told["fields"]] == ["leadgen", "feed"]
    assert (
        "secret"
        not in f"{answer.body}{sandbox.graph.subscriptions.report()}{sandbox.graph.subscriptions.app}"
    )
    app_call(sandbox, "DELETE", object="page", fields="feed")
    assert [field["name"] for field in read(app_call(sandbox))["data"][0]["fields"]] == ["leadgen"]
    assert read(app_call(sandbox, "DELETE", object="page")) == {"success": True}
    assert read(app_call(sandbox)) == {"data": []}


def test_the_app_drops_nothing_of_another_object(sandbox: Sandbox) -> None:
    """DELETE of an object that the sandbox does not have is code 100, and the subscription stays."""
    subscribed(sandbox)
    assert code_of(app_call(sandbox, "DELETE", object="instagram")) == (100, None)
    assert read(app_call(sandbox))["data"][0]["callback_url"] == CALLBACK


@pytest.mark.parametrize("call", [page_call, app_call])
def test_subscriptions_are_read_made_and_dropped_and_nothing_else(
    sandbox: Sandbox, call: Callable[..., Answer]
) -> None:
    """Another method is refused by the name of Page or app, and changes nothing."""
    page_call(sandbox, "POST", subscribed_fields="leadgen")
    subscribed(sandbox)
    told = read(call(sandbox))
    refused = call(sandbox, "PUT")
    assert code_of(refused) == (100, 33)
    node_id = sandbox.config.app_id if call is app_call else sandbox.world.pages[0].page_id
    assert f"Unsupported post request. Object with ID '{node_id}'" in read(refused)["error"]["message"]
    assert read(call(sandbox)) == told


def test_a_callback_that_does_not_echo_is_refused(sandbox: Sandbox) -> None:
    """Without the handshake the answer is 2200, and the subscription there was stays."""
    subscribed(sandbox)
    wanted = {"object": "page", "callback_url": "https://example.org/", "fields": "feed", "verify_token": "v"}
    assert code_of(app_call(sandbox, "POST", verified=False, **wanted)) == (2200, None)
    assert read(app_call(sandbox))["data"][0]["callback_url"] == CALLBACK


@pytest.mark.parametrize(
    "wrong",
    [
        {"object": ""},
        {"object": "instagram"},
        {"callback_url": ""},
        {"callback_url": "ftp://example.com/"},
        {"callback_url": "https://[::1"},
        {"fields": "leads"},
        {"fields": ""},
        {"verify_token": ""},
    ],
)
def test_a_subscription_of_the_app_is_whole(sandbox: Sandbox, wrong: dict[str, str]) -> None:
    """A missing or wrong parameter is code 100, and no callback is asked for it."""
    assert code_of(subscribed(sandbox, **wrong)) == (100, None)
    wanted = {"object": "page", "callback_url": CALLBACK, "fields": "leadgen", "verify_token": "v", **wrong}
    token = {"access_token": sandbox.config.app_token}
    path = f"/{sandbox.config.app_id}/subscriptions"
    assert sandbox.graph.handshake(Request("POST", path, {**wanted, **token}), NOW) is None


def test_the_callback_is_asked_for_the_app_alone(sandbox: Sandbox) -> None:
    """A handshake takes place for a POST with the app's own token, and for nothing else."""
    wanted = {"object": "page", "callback_url": CALLBACK, "fields": "leadgen", "verify_token": "v"}
    path, app = f"/v26.0/{sandbox.config.app_id}/subscriptions", sandbox.config.app_token

    def handshake(method: str, path: str, token: str) -> bool:
        request = Request(method, path, {**wanted, "access_token": token})
        return sandbox.graph.handshake(request, NOW) is not None

    assert handshake("POST", path, app)
    assert not handshake("GET", path, app)
    assert not handshake("POST", "/v26.0/1/subscriptions", app)
    for token in (sandbox.tokens.of_user, "7|guessed"):
        assert not handshake("POST", path, token)
    assert code_of(asked(sandbox, path, {"access_token": sandbox.tokens.of_user})) == (15, None)
    assert code_of(asked(sandbox, path)) == (15, None)


def test_a_change_goes_where_app_and_page_both_want_it(sandbox: Sandbox) -> None:
    """The field must be subscribed by the app and on the Page."""
    page_id, other = (page.page_id for page in sandbox.world.pages)
    subscriptions = sandbox.graph.subscriptions
    page_call(sandbox, "POST", subscribed_fields="leadgen,feed")
    assert subscriptions.callback(page_id, "leadgen") is None
    subscribed(sandbox)
    assert subscriptions.callback(page_id, "leadgen") is subscriptions.app
    assert subscriptions.callback(page_id, "feed") is subscriptions.callback(other, "leadgen") is None


def test_subscriptions_vanish_by_order(sandbox: Sandbox) -> None:
    """A dropped subscription is gone from Meta's own listing, and an order that names no Page changes nothing."""
    for page in (0, 1):
        page_call(sandbox, "POST", page=page, subscribed_fields="leadgen")
    subscribed(sandbox)
    for wrong in ({"drop_pages": ["1"], "drop_app": True}, {"drop_app": "yes"}, {"drop": True}):
        with pytest.raises(OrderRefused):
            drop_subscriptions(sandbox, wrong)
    drop_subscriptions(sandbox, {"drop_pages": [sandbox.world.pages[0].page_id]})
    assert (listed(sandbox), len(listed(sandbox, page=1)), len(read(app_call(sandbox))["data"])) == ([], 1, 1)
    drop_subscriptions(sandbox, {"drop_pages": True, "drop_app": True})
    assert listed(sandbox, page=1) == read(app_call(sandbox))["data"] == []


def test_calls_about_subscriptions_are_charged_to_page_and_app(sandbox: Sandbox) -> None:
    """subscribed_apps counts for the Page, subscriptions for the app alone."""
    page_call(sandbox)
    app_call(sandbox)
    page_id = sandbox.world.pages[0].page_id
    shared: Any = sandbox.graph.meters.windows(NOW, {})["shared_windows"]
    used = (sandbox.graph.meters.used(page_id, NOW), shared["user"]["used"], shared["app"]["used"])
    assert used == (1, 0, 2)
    logged = [tuple(call[1:]) for call in sandbox.journal.logged(0)]
    assert logged == [(page_id, 1, "subscribed_apps", "200"), ("", 1, "subscriptions", "200")]
