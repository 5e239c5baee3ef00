"""Leads as JSON: from prepared pieces, kept, and with all that forms ask."""

import json
from typing import Any

from sandbox.leadtext import LEAD_FIELDS, graph_time
from sandbox.mixing import mix, mixer
from sandbox.parts import Sandbox
from sandbox.wire import encode
from tests.fakes.sandboxes import NOW, asked, made, read


def listed(sandbox: Sandbox, **params: str) -> str:
    form = sandbox.world.forms[0]
    return asked(sandbox, f"/{form.form_id}/leads", {"limit": "200", **params}).body


def forms_of(sandbox: Sandbox) -> list[dict[str, Any]]:
    fields = "id,questions,legal_content,tracking_parameters"
    return [
        read(asked(sandbox, f"/{form.form_id}", {"fields": fields}, page=number))
        for number, page in enumerate(sandbox.world.pages)
        for form in page.forms
    ]


def test_a_listing_is_written_as_one_encoder_would() -> None:
    """Joined from pieces, a lead is byte for byte what encoding it whole would give, hostile text too."""
    for hostile in (False, True):
        sandbox = made(leads=600, hostile_text=hostile)
        for number in range(600):
            lead = sandbox.world.lead(number)
            text = sandbox.graph.reads.lead(lead, LEAD_FIELDS)
            assert encode(json.loads(text)) == text


def test_a_lead_is_the_same_alone_and_in_a_listing() -> None:
    """A lead read by its id and the same lead in a listing agree in every field."""
    sandbox = made(leads=400)
    fields = ",".join(LEAD_FIELDS)
    for lead in json.loads(listed(sandbox, fields=fields))["data"]:
        assert read(asked(sandbox, f"/{lead['id']}", {"fields": fields})) == lead


def test_kept_leads_are_told_as_others_are() -> None:
    """With kept_leads listings are the same, whatever fields are asked for in between and however few are kept."""
    plain, keeping, full = made(leads=400), made(leads=400, kept_leads=7), made(leads=400, kept_leads=1_000)
    for fields in ("id", "id,field_data", ",".join(LEAD_FIELDS), "platform", "id,post", "form_id", "id"):
        for sandbox in (keeping, full, full):
            ours = json.loads(listed(sandbox, fields=fields))["data"]
            assert ours == json.loads(listed(plain, fields=fields))["data"]


def test_a_kept_lead_that_is_deleted_is_gone() -> None:
    """What is kept is text and no lead: after DELETE it is not listed."""
    sandbox = made(leads=60, kept_leads=100)
    first, *rest = [lead["id"] for lead in json.loads(listed(sandbox))["data"]]
    asked(sandbox, f"/{first}", method="DELETE")
    assert [lead["id"] for lead in json.loads(listed(sandbox))["data"]] == rest


def test_a_mixer_mixes_as_mix_does() -> None:
    """Mixing the first parts beforehand changes no number."""
    for parts in ((), (1,), (3, 2**70)):
        assert [mixer(*parts)(last) for last in (0, 5, 2**63)] == [
            mix(*parts, last) for last in (0, 5, 2**63)
        ]


def test_times_are_graphs() -> None:
    """A time has an offset without colon, before and after the epoch."""
    assert graph_time(1_790_000_000) == "2026-09-21T14:13:20+0000"
    assert graph_time(-1) == "1969-12-31T23:59:59+0000"


def test_forms_ask_what_real_forms_ask() -> None:
    """Keys have spaces, accents, emoji and 200 characters, and two of one form agree in their first 63 bytes."""
    forms = forms_of(made(pages=10, forms_per_page=8))
    keys = [[question["key"] for question in form["questions"]] for form in forms]
    every = {key for form in keys for key in form}
    assert any(" " in key and not key.isascii() for key in every)
    assert any("\U0001f3e0" in key for key in every)
    assert any(len(key) >= 200 for key in every)
    cut = [[key.encode()[:63] for key in form] for form in keys]
    assert any(len(set(form)) < len(form) for form in cut)
    assert all(len(set(form)) == len(form) for form in keys)
    types = {question["type"] for form in forms for question in form["questions"]}
    assert {"STORE_LOOKUP", "WHATSAPP_NUMBER", "DATE_TIME", "POST_CODE"} <= types
    for form in forms:
        assert len({question["id"] for question in form["questions"]}) == len(form["questions"])
        for question in form["questions"]:
            assert question["label"]
            assert all(option.keys() == {"key", "value"} for option in question.get("options", []))


def test_tracking_parameters_stand_among_the_answers() -> None:
    """What a form tracks comes behind the answers of each of its leads, and is no question of it."""
    sandbox = made(pages=3, forms_per_page=4, leads=300)
    tracked = {
        form["id"]: {each["key"]: [each["value"]] for each in form["tracking_parameters"]}
        for form in forms_of(sandbox)
        if "tracking_parameters" in form
    }
    assert 0 < len(tracked) < 12
    for number in range(300):
        lead: dict[str, Any] = sandbox.graph.reads.truth(sandbox.world.lead(number))
        named = {entry["name"]: entry.get("values") for entry in lead["field_data"]}
        assert tracked.get(lead["form_id"], {}).items() <= named.items()
        assert len(named) == len(lead["field_data"])


def test_consent_is_told_by_the_keys_that_the_form_asks_with() -> None:
    """The keys of custom_disclaimer_responses are those of the checkboxes; forms without boxes tell none."""
    sandbox = made(leads=200)
    boxes = {
        form["id"]: {box["key"] for box in form["legal_content"]["custom_disclaimer"]["checkboxes"]}
        for form in forms_of(sandbox)
        if "legal_content" in form
    }
    for number in range(200):
        lead: dict[str, Any] = sandbox.graph.reads.truth(sandbox.world.lead(number))
        given = {each["checkbox_key"] for each in lead.get("custom_disclaimer_responses", [])}
        assert given == boxes.get(lead["form_id"], set())


def test_a_million_leads_are_listed_from_their_place() -> None:
    """Any second of a huge history is found at once: no listing walks to its place."""
    sandbox = made(pages=1, forms_per_page=1, leads=1_000_000, short_pages=0)
    form = sandbox.world.forms[0]
    middle = sandbox.world.historic_key(form, 500_000)[0]
    filtering = [{"field": "time_created", "operator": "LESS_THAN", "value": middle}]
    looked_at = 0
    accepts = sandbox.world.listed

    def counted(key: tuple[int, int], now: float) -> bool:
        nonlocal looked_at
        looked_at += 1
        return accepts(key, now)

    sandbox.world.listed = counted  # type: ignore[method-assign]
    answer = asked(
        sandbox, f"/{form.form_id}/leads", {"limit": "500", "filtering": json.dumps(filtering)}, now=NOW
    )
    assert len(read(answer)["data"]) == 500
    assert looked_at == 501
