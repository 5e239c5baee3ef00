"""Forms that appear and are archived while the sandbox runs."""

import json
from typing import Any

import pytest

from sandbox.formorders import change_forms
from sandbox.given import OrderRefused
from sandbox.orders import create_leads
from sandbox.parts import Sandbox
from tests.fakes.sandboxes import NOW, asked, made, read


def forms_of(sandbox: Sandbox, page: int = 0) -> list[dict[str, Any]]:
    page_id = sandbox.world.pages[page].page_id
    fields = "id,name,status,questions,created_time,leads_count"
    found = []
    params = {"fields": fields, "limit": "2"}
    while True:
        told = read(asked(sandbox, f"/{page_id}/leadgen_forms", params, page=page))
        found += told["data"]
        if "next" not in told["paging"]:
            return found
        params["after"] = told["paging"]["cursors"]["after"]


def test_a_new_form_is_listed_and_takes_leads() -> None:
    """A form that appears stands in its Page's listing, has ads and leads of its own, and upsets no other."""
    sandbox = made(leads=120)
    before = [sandbox.world.lead(number) for number in range(120)]
    page_id = sandbox.world.pages[1].page_id
    form = change_forms(sandbox, {"page": page_id, "name": "Neu / new"}, NOW)
    assert [sandbox.world.lead(number) for number in range(120)] == before
    told = forms_of(sandbox, 1)[-1]
    assert (told["id"], told["name"], told["status"]) == (form.form_id, "Neu / new", "ACTIVE")
    assert told["leads_count"] == 0
    ids = {sandbox.world.create(form, now=NOW, kind="ad").leadgen_id for _ in range(4)}
    listed = read(asked(sandbox, f"/{form.form_id}/leads", page=1))["data"]
    of_ads = [lead for ad in form.ads for lead in read(asked(sandbox, f"/{ad.ad_id}/leads", page=1))["data"]]
    assert {lead["id"] for lead in listed} == {lead["id"] for lead in of_ads} == ids


def test_a_copy_has_the_same_keys_and_new_ids() -> None:
    """A duplicated form asks the same questions under the same keys; its id and those of its questions are new."""
    sandbox = made()
    old = sandbox.world.pages[0].forms[0]
    new = change_forms(sandbox, {"page": old.page_id, "copy_of": old.form_id}, NOW)
    first, last = (
        next(form for form in forms_of(sandbox) if form["id"] == node) for node in (old.form_id, new.form_id)
    )
    assert first["id"] != last["id"]
    assert [each["key"] for each in first["questions"]] == [each["key"] for each in last["questions"]]
    assert not {each["id"] for each in first["questions"]} & {each["id"] for each in last["questions"]}
    assert (new.tracking, new.disclaimers) == (old.tracking, old.disclaimers)


def test_a_form_asks_the_questions_that_the_order_lists() -> None:
    """Questions are given as Graph shows them, and the leads answer exactly these."""
    sandbox = made(leads=0)
    questions = [
        {"key": "email", "label": "E-mail", "type": "EMAIL"},
        {"key": "größe 📏", "options": ["s", {"key": "l", "value": "Large"}], "several": True},
        {"key": "x" * 250},
    ]
    page_id = sandbox.world.pages[0].page_id
    form = change_forms(sandbox, {"page": page_id, "questions": questions, "age_seconds": 60}, NOW)
    told = forms_of(sandbox)[-1]
    assert [each["key"] for each in told["questions"]] == ["email", "größe 📏", "x" * 250]
    assert told["questions"][1]["options"] == [{"key": "s", "value": "s"}, {"key": "l", "value": "Large"}]
    lead = sandbox.world.create(form, now=NOW)
    answers = read(asked(sandbox, f"/{lead.leadgen_id}"))["field_data"]
    assert [each["name"] for each in answers] == ["email", "größe 📏", "x" * 250]
    assert set(answers[1]["values"]) <= {"s", "l"}
    assert form.created_time == int(NOW) - 60


def test_an_archived_form_is_listed_and_read_but_no_longer_filled_in() -> None:
    """Archiving hides nothing; new leads go to the others unless the form is named."""
    sandbox = made(leads=60)
    page = sandbox.world.pages[0]
    form = page.forms[0]
    change_forms(sandbox, {"form": form.form_id, "status": "ARCHIVED"}, NOW)
    assert [each["status"] for each in forms_of(sandbox)] == ["ARCHIVED", "ACTIVE"]
    assert read(asked(sandbox, f"/{form.form_id}/leads"))["data"]
    leads = create_leads(sandbox, {"count": 6, "page": page.page_id}, NOW)
    assert {lead.form.form_id for lead in leads} == {page.forms[1].form_id}
    (named,) = create_leads(sandbox, {"forms": [form.form_id]}, NOW)
    assert named.form is form
    change_forms(sandbox, {"form": form.form_id, "status": "ACTIVE"}, NOW)
    assert {lead.form for lead in create_leads(sandbox, {"count": 6, "page": page.page_id}, NOW)} == set(
        page.forms
    )


def test_a_page_whose_forms_are_all_archived_takes_no_leads() -> None:
    """Where nothing is left to fill in, an order for leads is refused."""
    sandbox = made(pages=1, forms_per_page=1, leads=0)
    (form,) = sandbox.world.forms
    change_forms(sandbox, {"form": form.form_id, "status": "DELETED"}, NOW)
    with pytest.raises(OrderRefused):
        create_leads(sandbox, {}, NOW)


def test_a_pages_token_still_reads_no_other_pages_new_form() -> None:
    """A form that appeared belongs to its Page alone."""
    sandbox = made()
    form = change_forms(sandbox, {"page": sandbox.world.pages[1].page_id}, NOW)
    assert asked(sandbox, f"/{form.form_id}", page=0).status == 400
    assert asked(sandbox, f"/{form.form_id}", page=1).status == 200


@pytest.mark.parametrize(
    "order",
    [
        {},
        {"page": "1"},
        {"form": "1", "status": "ARCHIVED"},
        {"form": "{form}"},
        {"form": "{form}", "status": "GONE"},
        {"form": "{form}", "status": "ACTIVE", "name": "x"},
        {"page": "{page}", "copy_of": "1"},
        {"page": "{page}", "name": 5},
        {"page": "{page}", "status": "x"},
        {"page": "{page}", "questions": []},
        {"page": "{page}", "questions": [1]},
        {"page": "{page}", "questions": [{"label": "no key"}]},
        {"page": "{page}", "questions": [{"key": "a"}, {"key": "a"}]},
        {"page": "{page}", "questions": [{"key": "a", "options": [5]}]},
        {"page": "{page}", "age_seconds": -1},
        {"page": "{page}", "unknown": 1},
    ],
)
def test_an_order_that_cannot_be_carried_out_makes_no_form(order: dict[str, Any]) -> None:
    """An order about a form is checked in full before anything changes."""
    sandbox = made()
    page = sandbox.world.pages[0]
    text = json.dumps(order).replace("{form}", page.forms[0].form_id).replace("{page}", page.page_id)
    with pytest.raises(OrderRefused):
        change_forms(sandbox, json.loads(text), NOW)
    assert [each["status"] for each in forms_of(sandbox)] == ["ACTIVE", "ACTIVE"]
