"""What is known of a lead, told: each stage in one sentence, and nothing of an erased one."""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from tests.fakes.leads import FORM, PAGE, at
from tests.fakes.time import NOW
from worker.stream_search import Lying, Standing
from worker.trace_report import plain, render, report
from worker.tracing import MetaSays, Trace

LEAD = "900000000000001"
NOWHERE = Standing((), None, 0, (), whole=True)
ENTRY = Lying("1-0", PAGE, FORM, int(NOW.timestamp() * 1000) - 9_000, int(NOW.timestamp() * 1000) - 9_005)


def a_row(state: str = "stored", **changed: Any) -> dict[str, Any]:
    return {
        "leadgen_id": LEAD,
        "state": state,
        "reason": None,
        "attempts": 0,
        "failed_for": None,
        "due_at": None,
        "leases": 0,
        "first_seen_at": at(-60),
        "last_seen_at": at(-60),
        "page_id": PAGE,
        "form_id": FORM,
        "ad_id": None,
        "created_time": at(-62),
        "is_test": False,
        "in_part": False,
        "cleaned": False,
        "source": "webhook",
        "received_at": at(-60),
        "stored_at": at(-59) if state == "stored" else None,
        "updated_at": at(-59),
        "announced": 1,
        "taken_ms": 20,
        "read_ms": 310 if state == "stored" else None,
        "trail": None,
        **changed,
    }


def a_form(**changed: Any) -> dict[str, Any]:
    told = {"watermark": at(-3_600), "reconcile_at": at(600), "compared_at": at(-300), "reading": None}
    return {"form_id": FORM, "name": "Autumn", **told, **changed}


def a_page(**changed: Any) -> dict[str, Any]:
    free = dict.fromkeys(("parked_at", "parked_reason", "check_at", "held_until", "held_reason"))
    return {"page_id": PAGE, **free, **changed}


def told_of(trace: Trace, now: datetime = NOW) -> dict[str, Any]:
    """The report, which JSON can hold and a screen can show."""
    told = report(trace, now)
    json.dumps(told, default=plain)
    console = Console(width=160, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(render(told))
    assert told["told"].split(";")[0][:60] in shown.get().replace("\n", " ")
    return told


def of(state: str, page: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    return told_of(Trace(LEAD, a_row(state, **changed), NOWHERE, form=a_form(), page=page or a_page()))


PARKED = a_page(parked_at=at(-50), parked_reason="token_refused", check_at=at(60))
HELD = a_page(held_until=at(50), held_reason="budget")
WAITING: dict[str, Any] = {"reason": "not_visible", "due_at": at(4), "attempts": 2}


@pytest.mark.parametrize(
    ("told", "stage", "says"),
    [
        (lambda: of("stored"), "stored", "brought by its webhook"),
        (lambda: of("stored", in_part=True, due_at=at(60)), "stored", "in part"),
        (lambda: of("dead", reason="lead_malformed"), "dead", "Graph's answer was not that lead"),
        (lambda: of("waiting", **WAITING), "waiting", "attempt 2"),
        (lambda: of("waiting", PARKED, **WAITING), "parked", "Meta refuses the Page's token"),
        (lambda: of("waiting", HELD, **WAITING), "held", "calls of 24 hours are spent"),
        (lambda: of("waiting", **{**WAITING, "leases": 1}), "reading", "being read now"),
    ],
)
def test_a_row_says_at_which_stage_it_is(told: Any, stage: str, says: str) -> None:
    """Its state, and for a waiting one what it waits for."""
    found = told()
    assert (found["stage"], found["known"]) == (stage, True)
    assert says in found["told"]


@pytest.mark.parametrize(
    ("reason", "advice"),
    [("by_hand", f"`leadsync pages unpark {PAGE}`"), ("disconnected", f"`leadsync connect --page {PAGE}`")],
)
def test_a_page_that_is_held_by_order_is_not_said_to_heal(reason: str, advice: str) -> None:
    """No check takes it up, its token needs no mending, and what takes it up again is said."""
    told = of("waiting", {**PARKED, "parked_reason": reason}, **WAITING)
    assert "checked again" not in told["told"]
    (says,) = told["advice"]
    assert advice in says
    assert "mend" not in says


def test_a_page_whose_check_is_due_says_so() -> None:
    """A check without a time is due at once."""
    assert of("waiting", {**PARKED, "check_at": None}, **WAITING)["told"].endswith("checked again at once")


def test_a_stream_that_was_looked_through_in_part_is_not_said_to_lack_it() -> None:
    """It may lie further back, so it is not said that nobody announced it."""
    told = told_of(Trace(LEAD, None, replace(NOWHERE, whole=False)))
    assert "never announced" not in told["told"]
    assert "longer than was looked through" in told["told"]


def test_an_overdue_row_says_where_to_look() -> None:
    """Waiting beyond its time is not normal."""
    assert of("waiting", **WAITING)["advice"] == []
    assert "upkeep" in of("waiting", **{**WAITING, "due_at": at(-600)})["advice"][0]


def test_the_way_is_told_in_seconds_after_the_webhook() -> None:
    """Each hop that is known, in order."""
    hops = of("stored")["hops"]
    assert [(hop["hop"], hop["seconds"]) for hop in hops] == [
        ("webhook", 0.0),
        ("taken up", 0.02),
        ("Graph's answer", 0.31),
        ("row", 1.0),
    ]
    assert of("stored", received_at=None, taken_ms=None, read_ms=None, announced=0)["hops"] == []


def test_the_trail_is_told_in_words() -> None:
    """What, why, how often, and the calls that it cost."""
    trail = [f"{int(at(-50).timestamp())} failed not_visible 3 {int(at(-40).timestamp())}"]
    told = of("stored", trail=trail)
    (entry,) = told["trail"]
    assert (entry["times"], entry["first_at"], entry["last_at"]) == (3, at(-50), at(-40))
    assert entry["told"] == "read in vain, to be tried again: Graph does not show the lead (100/33)"
    assert told["calls"] == 4


def test_a_repaired_lead_says_how_late() -> None:
    """From its creation to the reconciliation that brought it."""
    repaired = {"was": "missing", "backfill_id": 7, "created_time": at(-7_262), "repaired_at": at(-62)}
    told = told_of(Trace(LEAD, a_row(source="reconcile"), NOWHERE, repaired=repaired, page=a_page()))
    assert "repaired by a reconciliation, 2:00:00 after it was created" in told["told"]
    assert told["repaired"]["late_seconds"] == 7_200


def test_an_erased_lead_tells_how_and_when_and_nothing_else() -> None:
    """Neither ids of form and Page nor moments of its way."""
    for order, says in (("id", "named it"), ("retention", "retention"), ("restore", "restore")):
        erasure = {"by_order_of": order, "at": at(-5)}
        told = told_of(Trace(LEAD, a_row("erased", reason="by_order"), NOWHERE, erasure=erasure))
        assert told.keys() == {"leadgen_id", "known", "stage", "told", "advice"}
        assert says in told["told"]
        assert told["known"]
    assert PAGE not in json.dumps(told)
    assert FORM not in json.dumps(told)


def test_what_lies_in_the_stream_says_with_whom() -> None:
    """Not taken up; or taken up, by whom, how long ago and how often."""
    lying = told_of(Trace(LEAD, None, replace(NOWHERE, entries=(ENTRY,)), asked_form=FORM))
    assert (lying["stage"], lying["known"]) == ("in_stream", True)
    assert "for 9.0 s, not yet taken up" in lying["told"]
    assert lying["announced"]["times"] == 1
    taken = replace(ENTRY, taken_by="host-1", idle_ms=4_000, deliveries=2)
    held = told_of(Trace(LEAD, None, replace(NOWHERE, entries=(taken,), reserved_by="host-1")))
    assert held["stage"] == "taken"
    assert "taken up by host-1 4.0 s ago, delivered twice, being read now" in held["told"]


def test_a_body_set_aside_that_names_it_is_told() -> None:
    """Its announcement came and could not be read."""
    aside = replace(NOWHERE, set_aside=(("not_json", int(NOW.timestamp() * 1000)),))
    told = told_of(Trace(LEAD, None, aside))
    assert (told["stage"], told["known"]) == ("set_aside", True)
    assert "not_json" in told["told"]


META = MetaSays(PAGE, FORM, at(-7_200))


@pytest.mark.parametrize(
    ("trace", "stage", "says", "advice"),
    [
        (
            Trace(LEAD, None, NOWHERE, meta=META, form=a_form()),
            "not_announced",
            "should have brought it",
            "reconcile",
        ),
        (
            Trace(LEAD, None, NOWHERE, meta=replace(META, created_time=at(-60)), form=a_form()),
            "not_announced",
            "compared next 2026-11-20 12:10:00 UTC",
            f"`leadsync reconcile --form {FORM}` brings it now",
        ),
        (Trace(LEAD, None, NOWHERE, meta=META), "not_announced", "that form is not known here", "reconcile"),
        (
            Trace(LEAD, None, NOWHERE, meta=MetaSays(asked=(PAGE,))),
            "unknown",
            "Meta does not show it to 1 Page of ours",
            "older than 90 days, deleted, of a Page without a token here, or lead access is missing",
        ),
        (
            Trace(LEAD, None, NOWHERE, meta=MetaSays(troubles={PAGE: "token_refused"}, left_out=3)),
            "unknown",
            f"Meta could not be asked; 3 Pages were not asked, name one by --page; Page {PAGE}: Meta refuses the Page's"
            " token",
            "`leadsync doctor` says what is in the way",
        ),
        (
            Trace(LEAD, None, NOWHERE, form=a_form(), asked_form=FORM),
            "not_announced",
            "reconciled up to",
            "reconcile",
        ),
        (
            Trace(LEAD, None, NOWHERE, form=a_form(watermark=None), asked_form=FORM),
            "not_announced",
            "was never reconciled",
            "reconcile",
        ),
        (Trace(LEAD, None, NOWHERE), "not_announced", "Meta was not asked", "--offline"),
        (Trace(LEAD, None, "Redis cannot be asked"), "not_announced", "Redis cannot be asked", "--offline"),
    ],
)
def test_who_was_never_announced_is_told_apart(trace: Trace, stage: str, says: str, advice: str) -> None:
    """Meta has it, or does not, or was not asked; and what would bring it."""
    told = told_of(trace)
    assert (told["stage"], told["known"]) == (stage, False)
    assert says in told["told"]
    assert advice in told["advice"][0]


def test_a_lead_announced_before_that_was_counted_was_announced_once() -> None:
    """Rows of older versions have no count."""
    assert of("stored", announced=0)["announced"]["times"] == 1
    again = of("stored", announced=3, last_seen_at=NOW - timedelta(seconds=1))["announced"]
    assert (again["times"], again["first_at"], again["last_at"]) == (3, at(-60), at(-1))
