"""Settings of the sandbox, its orders, and what it may import."""

import ast
from pathlib import Path

import pytest

import sandbox as package
from sandbox.config import ConfigRefused, SandboxConfig, from_words
from sandbox.given import OrderRefused
from sandbox.orders import create_leads, run_from, set_limits, truth_numbers
from tests.fakes.sandboxes import NOW, made


def test_words_become_settings_of_their_type() -> None:
    """`name=value` words are read as the types that the settings have."""
    config = from_words(
        [
            "port=0",
            "seed=5",
            "latency_seconds=0.15",
            "require_proof=yes",
            "limit_calls=9",
            'faults={"class":"5xx"}',
            "cursor_seconds=1.5",
        ]
    )
    assert config.cursor_seconds == 1.5
    assert (config.port, config.seed, config.latency_seconds) == (0, 5, 0.15)
    assert (config.require_proof, config.limit_calls, config.faults[0].name) == (True, 9, "5xx")


def test_all_bad_words_are_named_at_once() -> None:
    """A wrong start tells every problem in one go."""
    with pytest.raises(ConfigRefused) as refused:
        from_words(["nonsense", "port=x", 'faults={"class":"?"}'])
    assert all(name in str(refused.value) for name in ("nonsense", "port", "faults"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"pages": 0},
        {"leads": -1},
        {"app_secret": ""},
        {"order": "random"},
        {"usage_rounding": "up"},
        {"cursor_seconds": -1.0},
        {"kept_leads": -1},
        {"export_encoding": "latin-1"},
        {"export_separator": ";"},
        {"export_zone": "CEST"},
        {"export_flags": "yes"},
        {"app_limit_calls": -1},
        {"hour_seconds": 0},
        {"block_penalty_seconds": -1.0},
        {"user_kind": "robot"},
        {"second_test_lead": "both"},
        {"short_token_seconds": 0},
    ],
)
def test_a_config_that_cannot_be_served_does_not_exist(wrong: dict[str, object]) -> None:
    """Values out of range are refused where the config is made."""
    with pytest.raises(ConfigRefused):
        SandboxConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "order",
    [
        {"count": -1},
        {"count": "5"},
        {"count": True},
        {"page": "1"},
        {"forms": ["1"]},
        {"kind": "strange"},
        {"nonsense": 1},
        {"age_seconds": float("inf")},
    ],
)
def test_an_order_that_cannot_be_carried_out_makes_no_lead(order: dict[str, object]) -> None:
    """An order is checked in full before anything is made."""
    sandbox = made(leads=0)
    with pytest.raises(OrderRefused):
        create_leads(sandbox, order, NOW)
    assert len(sandbox.world) == 0


def test_leads_are_dealt_to_the_pages_in_turn() -> None:
    """Without a Page named, leads go round all Pages and all their forms."""
    sandbox = made(leads=0, pages=3, forms_per_page=2)
    forms = [lead.form.form_id for lead in create_leads(sandbox, {"count": 6}, NOW)]
    assert len(set(forms)) == 6
    only = sandbox.world.pages[1].page_id
    assert {lead.page_id for lead in create_leads(sandbox, {"count": 4, "page": only}, NOW)} == {only}


def test_a_run_can_announce_known_leads_again() -> None:
    """`leads` names leads that exist; no new one is made."""
    sandbox = made(leads=5)
    ids = [sandbox.world.lead(number).leadgen_id for number in (3, 1)]
    run = run_from(sandbox, {"leads": ids, "variants": ["integers"]})
    assert [run.make(place).leadgen_id for place in range(run.mix.count)] == ids
    assert len(sandbox.world) == 5
    with pytest.raises(OrderRefused):
        run_from(sandbox, {"leads": ["7"]})


def test_limits_are_set_and_given_back() -> None:
    """A limit set by hand holds until it is set to null."""
    sandbox = made(leads=0)
    page_id = sandbox.world.pages[0].page_id
    set_limits(sandbox, {"page": page_id, "limit": 3, "used": 2}, NOW)
    assert (sandbox.graph.meters.limit(page_id, NOW), sandbox.graph.meters.used(page_id, NOW)) == (3, 2)
    set_limits(sandbox, {"page": page_id, "limit": None, "reset": True}, NOW)
    assert (sandbox.graph.meters.limit(page_id, NOW), sandbox.graph.meters.used(page_id, NOW)) == (4_800, 0)


def test_a_drop_is_a_share() -> None:
    """`drop` beyond the whole is refused before any lead is made."""
    sandbox = made(leads=0)
    assert run_from(sandbox, {"count": 4, "drop": 0.5}).mix.drop == 0.5
    with pytest.raises(OrderRefused):
        run_from(sandbox, {"count": 4, "drop": 1.5})


def test_the_truth_is_told_of_a_page_a_form_or_an_origin() -> None:
    """What is asked for narrows the truth, and what is not known is refused."""
    sandbox = made(leads=30)
    form = sandbox.world.forms[1]
    lead = sandbox.world.create(form, now=NOW)
    told = list(truth_numbers(sandbox, {"form": form.form_id}))
    assert told == [number for number in range(31) if sandbox.world.lead(number).form is form]
    assert list(truth_numbers(sandbox, {"origin": "created"})) == [lead.number]
    assert list(truth_numbers(sandbox, {"page": form.page_id, "origin": "created"})) == [lead.number]
    other = sandbox.world.pages[1].page_id
    assert list(truth_numbers(sandbox, {"page": other, "form": form.form_id})) == []
    for query in ({"origin": "nowhere"}, {"pages": other}):
        with pytest.raises(OrderRefused):
            truth_numbers(sandbox, query)


def test_the_sandbox_knows_nothing_of_the_rest() -> None:
    """Of leadsync the sandbox imports the log set-up alone, so that it cannot share a mistake with the worker."""
    for path in Path(package.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                top, names = node.module.split(".")[0], {each.name for each in node.names}
            elif isinstance(node, ast.Import):
                top, names = node.names[0].name.split(".")[0], set()
            else:
                continue
            assert top != "receiver", path
            assert top != "worker" or names == {"logs"}, path
