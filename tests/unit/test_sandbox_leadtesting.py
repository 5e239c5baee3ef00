"""Test leads of the sandbox: one a form, made of dummies, deleted like any other."""

import json
from typing import Any

import pytest

from sandbox.parts import Sandbox
from sandbox.tokenorders import order_tokens
from sandbox.world import Form
from tests.fakes.sandboxes import NOW, asked, code_of, made, read


@pytest.fixture
def sandbox() -> Sandbox:
    return made(leads=60, pages=2)


def form_of(sandbox: Sandbox) -> Form:
    return sandbox.world.pages[0].forms[0]


def path(sandbox: Sandbox) -> str:
    return f"/v26.0/{form_of(sandbox).form_id}/test_leads"


def test_a_test_lead_is_organic_and_made_of_dummies(sandbox: Sandbox) -> None:
    """POST answers the id of a lead without ad whose answers are Meta's dummies, and GET lists it with its fields."""
    leadgen_id = read(asked(sandbox, path(sandbox), method="POST"))["id"]
    lead = read(asked(sandbox, f"/{leadgen_id}", {"fields": "field_data,is_organic,ad_id,form_id"}))
    answers = {each["name"]: each["values"] for each in lead["field_data"]}
    assert (lead["is_organic"], "ad_id" in lead) == (True, False)
    assert answers["email"] == ["test@meta.com"]
    assert answers["full_name"] == ["<test lead: dummy data for full_name>"]
    [listed] = read(asked(sandbox, path(sandbox), {"fields": "field_data,is_organic,form_id"}))["data"]
    assert listed == lead
    found = sandbox.world.find(leadgen_id)
    assert found is not None
    assert (found.kind, found.form) == ("test", form_of(sandbox))


@pytest.mark.parametrize(("second", "code"), [("subcode", (100, 1892058)), ("code", (1892058, None))])
def test_a_form_has_one_test_lead_at_a_time(second: str, code: tuple[int, int | None]) -> None:
    """A second one is refused until the first is deleted; another form has its own."""
    sandbox = made(leads=60, second_test_lead=second)
    first = read(asked(sandbox, path(sandbox), method="POST"))["id"]
    assert code_of(asked(sandbox, path(sandbox), method="POST")) == code
    other = f"/{sandbox.world.pages[0].forms[1].form_id}/test_leads"
    assert asked(sandbox, other, method="POST").status == 200
    assert read(asked(sandbox, f"/{first}", method="DELETE")) == {"success": True}
    assert read(asked(sandbox, path(sandbox))) == {"data": []}
    assert read(asked(sandbox, path(sandbox), method="POST"))["id"] != first


def test_each_test_lead_is_announced_once(sandbox: Sandbox) -> None:
    """What was made waits for the sender; a refused call, and one of a batch that reads, adds nothing."""
    leadgen_id = read(asked(sandbox, path(sandbox), method="POST"))["id"]
    asked(sandbox, path(sandbox), method="POST")
    asked(sandbox, path(sandbox))
    assert [lead.leadgen_id for lead in sandbox.graph.testing.unannounced] == [leadgen_id]


def test_a_test_lead_can_be_made_in_a_batch(sandbox: Sandbox) -> None:
    """An item of a batch makes one too."""
    items = json.dumps([{"method": "POST", "relative_url": path(sandbox)}])
    [item] = read(asked(sandbox, "/v26.0/", {"batch": items}, method="POST"))
    assert item["code"] == 200
    assert len(sandbox.graph.testing.unannounced) == 1


def test_test_leads_are_refused_like_leads(sandbox: Sandbox) -> None:
    """They want the Page's token, leads_retrieval and lead access, and nothing is made without."""
    user: Any = {"access_token": sandbox.tokens.of_user}
    assert code_of(asked(sandbox, path(sandbox), user, method="POST")) == (190, None)
    assert code_of(asked(sandbox, path(sandbox), page=1, method="POST")) == (100, 33)
    order_tokens(sandbox, {"take_scopes": ["leads_retrieval"]}, NOW)
    assert code_of(asked(sandbox, path(sandbox), method="POST")) == (200, None)
    order_tokens(sandbox, {"restore": True, "lead_access": "103"}, NOW)
    assert code_of(asked(sandbox, path(sandbox), method="POST")) == (103, None)
    assert sandbox.graph.testing.unannounced == []
