"""The simulated world: what is in it, and that it stays the same."""

import json
from typing import Any

from sandbox.leadtext import AD_FIELDS
from sandbox.world import DAY, RETENTION_SECONDS
from tests.fakes.sandboxes import NOW, asked, code_of, made, read


def truths(**settings: Any) -> list[dict[str, Any]]:
    sandbox = made(**settings)
    return [
        json.loads(json.dumps(sandbox.graph.reads.truth(sandbox.world.lead(number))))
        for number in range(len(sandbox.world))
    ]


def entries(leads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for lead in leads for entry in lead["field_data"]]


def test_the_same_seed_makes_the_same_world() -> None:
    """Pages, forms and every lead follow from the seed alone."""
    assert truths(seed=7, leads=50) == truths(seed=7, leads=50)
    assert truths(seed=7, leads=50) != truths(seed=8, leads=50)


def test_a_later_start_on_the_same_day_finds_the_same_history() -> None:
    """Historic leads hang on the day and not on the moment of the start, so a restart changes nothing."""
    early, late = (type(made())(made(leads=40).config, NOW // DAY * DAY + second) for second in (0, DAY - 1))
    assert [early.world.lead(n) for n in range(40)] == [late.world.lead(n) for n in range(40)]


def test_an_id_leads_back_to_its_lead() -> None:
    """Every leadgen_id names exactly its lead; ids next to it name nobody."""
    world = made(leads=100).world
    for number in range(100):
        lead = world.lead(number)
        assert world.find(lead.leadgen_id) == lead
        assert world.find(str(int(lead.leadgen_id) + 1)) is None


def test_historic_leads_are_all_within_the_ninety_days() -> None:
    """No historic lead is in the future, or expires on the day of the start or the next: some start before midnight."""
    world = made(leads=500).world
    times = [world.lead(number).created_time for number in range(500)]
    assert min(times) >= world.midnight + 2 * DAY - RETENTION_SECONDS
    assert max(times) < NOW


def test_several_leads_of_a_form_share_a_second() -> None:
    """Slicing by seconds is put to the test: the world has leads of the same form and second."""
    world = made(leads=500).world
    form = world.forms[0]
    times = [world.historic_key(form, place)[0] for place in range(world.history_of(form))]
    assert times == sorted(times)
    assert len(set(times)) < len(times)


def test_skipped_questions_show_up_in_all_their_ways() -> None:
    """Answers come with one value, with several, with none, with null, without `values`, or not at all."""
    sandbox = made(leads=2_000)
    leads = [sandbox.graph.reads.truth(sandbox.world.lead(number)) for number in range(2_000)]
    answers = entries(json.loads(json.dumps(leads)))
    assert any("values" not in answer for answer in answers)
    assert any(answer.get("values", 1) is None for answer in answers)
    assert any(answer.get("values") == [] for answer in answers)
    assert any(len(answer.get("values") or ()) > 1 for answer in answers)
    asked_for = [len(sandbox.world.lead(number).form.questions) for number in range(2_000)]
    assert any(
        len(lead["field_data"]) < number
        for lead, number in zip(json.loads(json.dumps(leads)), asked_for, strict=True)
    )


def test_what_does_not_apply_is_absent_and_never_null() -> None:
    """Organic leads have no ad fields at all, and no lead has a field that is null."""
    leads = truths(leads=1_000)
    organic = [lead for lead in leads if lead["is_organic"]]
    assert organic
    assert not any(AD_FIELDS & lead.keys() for lead in organic)
    assert not any(value is None for lead in leads for value in lead.values())
    for rare in ("partner_name", "retailer_item_id", "vehicle", "home_listing", "post"):
        assert any(rare in lead for lead in leads)


def test_answers_are_of_many_scripts() -> None:
    """Accents, right-to-left script and characters beyond the basic plane all occur."""
    text = "".join(value for entry in entries(truths(leads=1_000)) for value in entry.get("values") or ())
    assert "ü" in text
    assert any("\u0590" <= letter <= "\u06ff" for letter in text)
    assert any(letter > "\uffff" for letter in text)


def test_hostile_text_is_on_demand_only() -> None:
    """NUL and lone surrogates come when asked for and not otherwise."""

    def hostile(leads: list[dict[str, Any]]) -> set[str]:
        values = [value for entry in entries(leads) for value in entry.get("values") or ()]
        return {mark for mark in ("\x00", "\ud83d") for value in values if mark in value}

    assert hostile(truths(leads=500)) == set()
    assert hostile(truths(leads=500, hostile_text=True)) == {"\x00", "\ud83d"}


def test_a_test_lead_has_the_dummy_answers() -> None:
    """Leads of Meta's testing tool are organic and answer with its dummy texts."""
    sandbox = made()
    lead = sandbox.world.create(sandbox.world.forms[0], now=NOW, kind="test")
    truth = json.loads(json.dumps(sandbox.graph.reads.truth(lead)))
    values = {entry["name"]: entry["values"] for entry in truth["field_data"]}
    assert truth["is_organic"] is True
    assert values["full_name"] == ["<test lead: dummy data for full_name>"]
    assert values["email"] == ["test@meta.com"]


def test_a_lead_expires_after_ninety_days() -> None:
    """From the 90th day on a lead is as unknown as one that never was."""
    sandbox = made(leads=0)
    lead = sandbox.world.create(sandbox.world.forms[0], now=NOW)
    assert asked(sandbox, f"/v26.0/{lead.leadgen_id}", now=NOW + RETENTION_SECONDS - 1).status == 200
    gone = asked(sandbox, f"/v26.0/{lead.leadgen_id}", now=NOW + RETENTION_SECONDS)
    assert code_of(gone) == (100, 33)


def test_a_lead_is_unknown_until_it_becomes_visible() -> None:
    """Before its delay is over a new lead is neither read nor listed."""
    sandbox = made(leads=0)
    form = sandbox.world.forms[0]
    lead = sandbox.world.create(form, now=NOW, delay=10)
    assert code_of(asked(sandbox, f"/{lead.leadgen_id}", now=NOW + 9)) == (100, 33)
    assert read(asked(sandbox, f"/{form.form_id}/leads", now=NOW + 9)) == {"data": []}
    assert read(asked(sandbox, f"/{lead.leadgen_id}", now=NOW + 10))["id"] == lead.leadgen_id
    assert len(read(asked(sandbox, f"/{form.form_id}/leads", now=NOW + 10))["data"]) == 1
