"""Faults on demand: whom they befall, how often, how long, and what they look like."""

import json

import pytest

from sandbox.errors import CATALOG, THROTTLES
from sandbox.faults import CLASSES, TRANSPORT, FaultPlan, PlanRefused, Target, parse_rules
from sandbox.parts import Sandbox
from sandbox.spoiled import spoil
from tests.fakes.sandboxes import NOW, asked, batch, code_of, made, read


@pytest.fixture
def sandbox() -> Sandbox:
    return made(leads=120)


def give(sandbox: Sandbox, *rules: dict[str, object]) -> None:
    sandbox.plan.give(parse_rules(json.dumps(rules)), NOW)


def lead_path(sandbox: Sandbox, page: int = 0) -> str:
    return f"/{sandbox.world.create(sandbox.world.pages[page].forms[0], now=NOW, kind='ad').leadgen_id}"


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_error_comes_on_demand(sandbox: Sandbox, name: str) -> None:
    """Each named error is answered with its code, subcode and status in Graph's envelope."""
    give(sandbox, {"class": name})
    answer = asked(sandbox, lead_path(sandbox))
    error = CATALOG[name]
    assert (answer.status, code_of(answer)) == (error.status, (error.code, error.subcode))
    envelope = read(answer)["error"]
    assert {"message", "type", "code", "fbtrace_id"} <= set(envelope)
    assert "{" not in envelope["message"]


@pytest.mark.parametrize("name", sorted(THROTTLES))
def test_a_throttle_says_all_is_used_and_for_how_many_minutes(sandbox: Sandbox, name: str) -> None:
    """A throttle on demand comes with a usage header at 100 %; Page limits tell the minutes left."""
    give(sandbox, {"class": name, "seconds": 300})
    ((header, value),) = asked(sandbox, lead_path(sandbox), now=NOW + 61).headers
    told = json.loads(value)
    if header == "X-App-Usage":
        assert told["call_count"] == 100
    else:
        (usage,) = told[sandbox.world.pages[0].page_id]
        assert (usage["call_count"], usage["estimated_time_to_regain_access"]) == (100, 4)


def test_a_fault_keeps_to_its_pages_leads_and_kinds(sandbox: Sandbox) -> None:
    """Whoever is not named is not touched."""
    mine, other = lead_path(sandbox), lead_path(sandbox)
    form = sandbox.world.pages[0].forms[0]
    give(sandbox, {"class": "190/460", "pages": [sandbox.world.pages[1].page_id]})
    assert asked(sandbox, mine).status == 200
    assert code_of(asked(sandbox, lead_path(sandbox, 1), page=1)) == (190, 460)
    give(sandbox, {"class": "2", "leads": [mine.strip("/")]})
    assert [asked(sandbox, path).status for path in (mine, other)] == [500, 200]
    give(sandbox, {"class": "10", "kinds": ["form_leads"]})
    assert [asked(sandbox, path).status for path in (mine, f"/{form.form_id}/leads")] == [200, 403]


@pytest.mark.parametrize("as_number", [False, True])
def test_one_page_is_named_without_a_list_too(sandbox: Sandbox, as_number: bool) -> None:
    """A single id, as text or number, is a list of one."""
    page_id = sandbox.world.pages[1].page_id
    give(sandbox, {"class": "2", "pages": int(page_id) if as_number else page_id})
    statuses = [asked(sandbox, lead_path(sandbox, page), page=page).status for page in (0, 1)]
    assert statuses == [200, 500]


def test_a_fault_ends_by_time_or_by_count(sandbox: Sandbox) -> None:
    """`seconds` and `count` each bound a rule."""
    path = lead_path(sandbox)
    give(sandbox, {"class": "2", "seconds": 5})
    assert [asked(sandbox, path, now=NOW + second).status for second in (0, 4.9, 5)] == [500, 500, 200]
    give(sandbox, {"class": "2", "count": 2})
    assert [asked(sandbox, path).status for _ in range(3)] == [500, 500, 200]


def test_a_rate_is_met_and_repeats_with_the_seed() -> None:
    """About the asked share of calls is struck, and the same ones for the same seed."""

    def struck(seed: int) -> list[bool]:
        plan = FaultPlan(seed)
        plan.give(parse_rules('{"class": "2", "rate": 0.2}'), NOW)
        return [plan.strike(Target("lead", "1", str(number)), NOW) is not None for number in range(2_000)]

    assert 300 < sum(struck(1)) < 500
    assert struck(1) == struck(1)
    assert struck(1) != struck(2)


def test_a_sticky_fault_always_strikes_the_same_leads() -> None:
    """With `sticky` a lead is either always struck or never."""
    plan = FaultPlan(1)
    plan.give(parse_rules('{"class": "100/33", "rate": 0.3, "sticky": true}'), NOW)
    rounds = [
        [number for number in range(200) if plan.strike(Target("lead", "1", str(number)), NOW)]
        for _ in range(3)
    ]
    assert rounds[0] == rounds[1] == rounds[2]
    assert 30 < len(rounds[0]) < 90


def test_the_first_rule_that_strikes_wins_and_others_can_be_added(sandbox: Sandbox) -> None:
    """Rules are tried in order; merged ones come behind."""
    path = lead_path(sandbox)
    give(sandbox, {"class": "2", "count": 1})
    sandbox.plan.give(parse_rules('{"class": "190"}'), NOW, merge=True)
    assert [code_of(asked(sandbox, path))[0] for _ in range(2)] == [2, 190]
    sandbox.plan.clear()
    assert asked(sandbox, path).status == 200


def test_a_struck_lead_is_not_visible_for_a_while(sandbox: Sandbox) -> None:
    """not_visible hides a lead for so many seconds after it was made, from single reads and batches."""
    path = lead_path(sandbox)
    give(sandbox, {"class": "not_visible", "for_seconds": 20})
    assert code_of(asked(sandbox, path, now=NOW + 19)) == (100, 33)
    assert read(batch(sandbox, [path], now=NOW + 19))[0]["code"] == 400
    assert asked(sandbox, path, now=NOW + 20).status == 200


def test_refused_ad_fields_fail_only_reads_that_ask_for_them(sandbox: Sandbox) -> None:
    """With ad fields refused a read that names one is 403 with code 200; the reduced read works, listings too."""
    give(sandbox, {"class": "ad_fields_refused"})
    form = sandbox.world.pages[0].forms[0]
    for path in (lead_path(sandbox), f"/{form.form_id}/leads"):
        refused = asked(sandbox, path, {"fields": "id,campaign_name"})
        assert (refused.status, code_of(refused)) == (403, (200, None))
        assert asked(sandbox, path, {"fields": "id,form_id,field_data"}).status == 200


def test_missing_ad_fields_are_left_out_in_silence(sandbox: Sandbox) -> None:
    """With ad fields missing the read succeeds without them; `fields` narrows which."""
    path, fields = lead_path(sandbox), {"fields": "id,ad_id,ad_name,platform"}
    give(sandbox, {"class": "ad_fields_missing"})
    assert set(read(asked(sandbox, path, fields))) == {"id", "platform"}
    give(sandbox, {"class": "ad_fields_missing", "fields": ["ad_name"]})
    assert set(read(asked(sandbox, path, fields))) == {"id", "ad_id", "platform"}


@pytest.mark.parametrize("name", sorted(TRANSPORT))
def test_a_transport_fault_befalls_whole_answers_and_not_items(sandbox: Sandbox, name: str) -> None:
    """Faults of HTTP strike the request that carries the batch, unless they are asked for by item."""
    path = lead_path(sandbox)
    give(sandbox, {"class": name, "size": 1_000})
    whole = batch(sandbox, [path])
    assert whole.fault is not None
    assert read(whole)[0]["code"] == 200
    assert asked(sandbox, path).fault is not None
    give(sandbox, {"class": name, "size": 1_000, "via": "batch"})
    items = batch(sandbox, [path])
    assert items.fault is None
    assert items.status == 200
    item = read(items)[0]
    assert item is None or item["body"] != asked(sandbox, path).body


@pytest.mark.parametrize(
    ("name", "status", "start"),
    [
        ("5xx", 500, '{"error"'),
        ("html_5xx", 502, "<!DOCTYPE"),
        ("html_200", 200, "<!DOCTYPE"),
        ("not_json", 200, "for (;;);"),
        ("ok_with_error", 200, '{"error"'),
        ("redirect", 302, ""),
    ],
)
def test_spoiled_answers_look_as_named(sandbox: Sandbox, name: str, status: int, start: str) -> None:
    """Each class replaces status and body as its name says."""
    give(sandbox, {"class": name})
    answer = asked(sandbox, lead_path(sandbox))
    assert answer.fault is not None
    spoiled = spoil(answer, answer.fault, "trace")
    assert spoiled.status == status
    assert spoiled.body.startswith(start)


@pytest.mark.parametrize("name", ["timeout", "slow_body", "cut_body", "reset", "close"])
def test_a_fault_of_time_or_connection_leaves_the_answer_whole(sandbox: Sandbox, name: str) -> None:
    """What is sent late, or cut off on its way, is what would have been sent without the fault."""
    path = lead_path(sandbox)
    right = asked(sandbox, path)
    give(sandbox, {"class": name})
    answer = asked(sandbox, path)
    assert answer.fault is not None
    spoiled = spoil(answer, answer.fault, "trace")
    assert (spoiled.status, spoiled.body) == (200, right.body)


def test_a_truncated_answer_is_half_of_a_good_one(sandbox: Sandbox) -> None:
    """Truncated JSON begins well and does not end."""
    give(sandbox, {"class": "truncated"})
    answer = asked(sandbox, lead_path(sandbox))
    assert answer.fault is not None
    half = spoil(answer, answer.fault, "trace").body
    assert answer.body.startswith(half)
    with pytest.raises(json.JSONDecodeError):
        json.loads(half)


@pytest.mark.parametrize(
    "plan",
    [
        "nonsense",
        "1",
        '[{"rate": 1}]',
        '[{"class": "no such"}]',
        '[{"class": "2", "speed": 1}]',
        '[{"class": "2", "rate": "x"}]',
        '[{"class": "2", "kinds": ["everything"]}]',
        '[{"class": "2", "via": "pigeon"}]',
        '[{"class": "2", "pages": 1.5}]',
        "[1]",
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused(plan: str) -> None:
    """A plan is taken whole or not at all."""
    with pytest.raises(PlanRefused):
        parse_rules(plan)


def test_the_report_gives_back_the_rules_and_their_strikes(sandbox: Sandbox) -> None:
    """Rules in force are told as one gives them, with how often each struck."""
    give(sandbox, {"class": "2", "rate": 1, "count": 1, "pages": [sandbox.world.pages[0].page_id]})
    asked(sandbox, lead_path(sandbox))
    (rule,) = sandbox.plan.report(NOW)
    assert rule == {
        "class": "2",
        "rate": 1,
        "count": 1,
        "pages": [sandbox.world.pages[0].page_id],
        "strikes": 1,
        "active": False,
    }


def test_every_class_can_be_asked_for() -> None:
    """No class is named that a plan would refuse."""
    assert len(parse_rules(json.dumps([{"class": name} for name in sorted(CLASSES)]))) == len(CLASSES)
