"""The Batch API: up to fifty calls in one request."""

import json

import pytest

from sandbox.faults import parse_rules
from sandbox.parts import Sandbox
from sandbox.proofs import proof
from tests.fakes.sandboxes import NOW, asked, batch, code_of, made, read, token_of


@pytest.fixture
def sandbox() -> Sandbox:
    return made(leads=0)


def leads(sandbox: Sandbox, count: int, page: int = 0) -> list[str]:
    form = sandbox.world.pages[page].forms[0]
    return [sandbox.world.create(form, now=NOW).leadgen_id for _ in range(count)]


def test_items_come_back_in_order(sandbox: Sandbox) -> None:
    """Each item's answer stands where the item stood, with a body that is JSON within JSON."""
    ids = leads(sandbox, 50)
    items = read(batch(sandbox, [f"{leadgen_id}?fields=id" for leadgen_id in ids]))
    assert [json.loads(item["body"])["id"] for item in items] == ids


def test_an_item_says_what_the_single_call_says(sandbox: Sandbox) -> None:
    """The body of an item is, to the byte, the answer to the same call alone."""
    (leadgen_id,) = leads(sandbox, 1)
    alone = asked(sandbox, f"/v26.0/{leadgen_id}").body
    assert read(batch(sandbox, [leadgen_id]))[0]["body"] == alone


def test_one_bad_item_does_not_harm_the_others(sandbox: Sandbox) -> None:
    """An item's error is its own; the whole is 200."""
    ids = leads(sandbox, 2)
    answer = batch(sandbox, [ids[0], "123", ids[1]])
    assert answer.status == 200
    assert [item["code"] for item in read(answer)] == [200, 400, 200]


def test_each_item_has_its_usage_unless_headers_are_declined(sandbox: Sandbox) -> None:
    """Items carry headers with the usage of their Page, or none with include_headers=false."""
    ids = leads(sandbox, 1)
    with_headers = read(batch(sandbox, ids))[0]
    assert "X-Business-Use-Case-Usage" in {header["name"] for header in with_headers["headers"]}
    assert set(read(batch(sandbox, ids, include_headers="false"))[0]) == {"code", "body"}


def test_an_items_own_token_goes_before_the_batchs(sandbox: Sandbox) -> None:
    """An item may bring the token of another Page, and is counted for that Page."""
    (theirs,) = leads(sandbox, 1, page=1)
    items = [
        {"method": "GET", "relative_url": theirs},
        {"method": "GET", "relative_url": f"{theirs}?access_token={token_of(sandbox, 1)}"},
    ]
    answer = read(asked(sandbox, "/me", {"batch": json.dumps(items)}, method="POST"))
    assert [item["code"] for item in answer] == [400, 200]
    assert sandbox.graph.meters.used(sandbox.world.pages[1].page_id, NOW) == 1


def test_the_batchs_proof_covers_its_items(sandbox: Sandbox) -> None:
    """With proofs required, one proof of the batch's token is enough for items without a token of their own."""
    sandbox = made(leads=0, require_proof=True)
    ids = leads(sandbox, 2)
    right = proof(sandbox.config.app_secret, token_of(sandbox))
    assert [item["code"] for item in read(batch(sandbox, ids, appsecret_proof=right))] == [200, 200]
    assert code_of(batch(sandbox, ids)) == (100, None)


def test_more_than_fifty_items_are_refused(sandbox: Sandbox) -> None:
    """The 51st item makes the whole batch fail."""
    answer = batch(sandbox, leads(sandbox, 51))
    assert answer.status == 400
    assert "Maximum batch size is 50" in read(answer)["error"]["message"]


@pytest.mark.parametrize("given", ["", "{}", "nonsense", "[" * 100_000])
def test_a_batch_that_is_no_array_is_refused(sandbox: Sandbox, given: str) -> None:
    """What is not a JSON array is code 100 and harms nothing."""
    assert code_of(asked(sandbox, "/", {"batch": given}, method="POST")) == (100, None)


def test_a_bad_token_fails_the_whole_batch(sandbox: Sandbox) -> None:
    """Without a good token of the batch itself no item is looked at."""
    answer = asked(sandbox, "/v26.0/", {"batch": "[]", "access_token": "x"}, method="POST")
    assert (answer.status, code_of(answer)) == (400, (190, None))


@pytest.mark.parametrize("name", ["null_items", "timeout"])
def test_unfinished_items_are_null(sandbox: Sandbox, name: str) -> None:
    """An item that did not come in time is null, in its place, and was counted all the same."""
    sandbox.plan.give(parse_rules(json.dumps({"class": name, "via": "batch", "count": 1})), NOW)
    answer = read(batch(sandbox, leads(sandbox, 2)))
    assert answer[0] is None
    assert answer[1]["code"] == 200
    assert sandbox.graph.meters.used(sandbox.world.pages[0].page_id, NOW) == 2


def test_leads_of_a_lost_batch_were_not_read(sandbox: Sandbox) -> None:
    """Where the batch's answer never arrives whole, its items count as calls but not as reads."""
    (leadgen_id,) = leads(sandbox, 1)
    sandbox.plan.give(parse_rules('{"class": "reset"}'), NOW)
    batch(sandbox, [leadgen_id])
    assert sandbox.journal.lead(leadgen_id).reads == 0
    assert sandbox.graph.meters.used(sandbox.world.pages[0].page_id, NOW) == 1
