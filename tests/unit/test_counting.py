"""Requests that other files build and read: how many calls each was, of which kind, and how they ended."""

import json
from typing import Any

import pytest

from tests.fakes.time import NOW
from worker.graph.account import Caller, debug_request, subscribed_apps_request
from worker.graph.counting import calls_of, given_up
from worker.graph.wire import GraphAnswer
from worker.metrics import CALLS, KINDS

CALLER = Caller("1", "v26.0", "secret")


def answered(body: Any, status: int = 200) -> GraphAnswer:
    return GraphAnswer(status, {}, json.dumps(body).encode())


def test_a_plain_request_is_one_call() -> None:
    """Of its kind, and with the fixed word for what it met."""
    request = subscribed_apps_request(CALLER, "7", "token")
    assert calls_of(request, answered({"data": []}), NOW) == [("subscribed_apps", "ok")]
    refused = answered({"error": {"code": 200, "message": "a token EAAB"}}, 403)
    assert calls_of(request, refused, NOW) == [("subscribed_apps", "permission_refused")]
    assert calls_of(request, GraphAnswer(502, {}, b"<html>"), NOW) == [
        ("subscribed_apps", "graph_unavailable")
    ]


def test_a_batch_is_a_call_an_item() -> None:
    """One that is answered counts its items, one that is refused as a whole is one of kind batch."""
    request = debug_request(CALLER, ["a", "b"])
    good = {"code": 200, "body": json.dumps({"data": {"is_valid": True}})}
    assert calls_of(request, answered([good, None]), NOW) == [
        ("debug_token", "ok"),
        ("debug_token", "graph_unavailable"),
    ]
    refused = answered({"error": {"code": 4, "message": "x"}}, 400)
    assert calls_of(request, refused, NOW) == [("batch", "throttled")]
    assert calls_of(request, answered([good]), NOW) == [("batch", "graph_unavailable")]


def test_a_request_that_nobody_waited_for_is_one_call() -> None:
    """Of a batch nobody knows then which of its calls were made."""
    assert given_up(subscribed_apps_request(CALLER, "7", "token")) == ("subscribed_apps", "given_up")
    assert given_up(debug_request(CALLER, ["a", "b"])) == ("batch", "given_up")


@pytest.mark.parametrize("result", ["ok", "throttled", "graph_unavailable", "second_test_lead", "given_up"])
def test_words_are_those_of_the_series(result: str) -> None:
    """What a call can be and how it can end is in the closed sets, so nothing of it shows as other."""
    assert result in CALLS.labels["result"]
    assert {debug_request(CALLER, ["a"]).kind, subscribed_apps_request(CALLER, "7", "t").kind} < set(KINDS)
