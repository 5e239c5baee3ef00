"""The budget on real processes: the sandbox enforces a short window by its exact log, and throttles a call too many."""

import json
import random
import signal
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis

from tests.system.whole import Whole, whole

WINDOW = 15
QUICK = {
    "BUDGET_WINDOW_SECONDS": str(WINDOW),
    "CLAIM_AFTER_SECONDS": "4",
    "LEASE_SECONDS": "6",
    "RING_EVERY_SECONDS": "1",
    "BUDGET_REFRESH_SECONDS": "3",
}
BY_ID_ONLY = {"class": "100", "kinds": ["form_leads"]}
"""The sandbox refuses listings, so that every lead costs a call; the refused call counts too."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Whole]:
    """One stack for the module; each test has a Page of its own."""
    sandbox = {
        "pages": 8,
        "forms_per_page": 1,
        "latency_seconds": 0.05,
        "limit_window_seconds": WINDOW,
        "limit_floor": 100_000,
    }
    with whole(sandbox=sandbox, env=QUICK) as running:
        yield running


@pytest.fixture
def page(stack: Whole) -> str:
    """A Page that no other test uses."""
    taken = stack.__dict__.setdefault("taken", iter(stack.get("pages")["pages"]))
    return str(next(taken)["page_id"])


def leadsync(stack: Whole, *words: str) -> str:
    """What a command prints; it must succeed."""
    told = stack.leadsync(*words)
    assert told.exit_code == 0, told.stderr
    return told.stdout


def budget_of(stack: Whole, page_id: str) -> Any:
    (told,) = json.loads(leadsync(stack, "budget", "--page", page_id, "--json"))["pages"]
    return told


def rows_of(stack: Whole, page_id: str) -> dict[str, int]:
    """Rows of a Page by state."""
    with psycopg.connect(stack.settings.database_url) as connection:
        query = "select state, count(*) from leadgen where page_id = %s group by 1"
        return dict(connection.execute(query, (page_id,)).fetchall())


def limit_to(stack: Whole, page_id: str, calls: int) -> None:
    """The same limit at the sandbox and, as override, at leadsync."""
    stack.post("limits", {"page": page_id, "limit": calls})
    leadsync(stack, "budget", "limit", page_id, str(calls))


def throttles(stack: Whole, page_id: str) -> int:
    results = stack.get("calls")["pages"][page_id]["results"]
    return sum(
        count for code, count in results.items() if code.split("/")[0] in {"4", "17", "32", "613", "80005"}
    )


def test_no_window_is_exceeded_whatever_is_killed_or_emptied(stack: Whole, page: str) -> None:
    """Workers die and Redis is emptied under a binding limit: no window above it, no throttle, and no lead lost."""
    limit_to(stack, page, 120)
    stack.post("faults", {"rules": [{**BY_ID_ONLY, "pages": [page]}]})
    dice = random.Random(4)
    stack.send(count=240, page=page, batch=40)
    assert stack.wait_for(lambda: sum(rows_of(stack, page).values()) == 240, 30)
    with redis.Redis.from_url(stack.settings.redis_url, protocol=2) as client:
        for moment in range(10):
            time.sleep(1.5)
            name = dice.choice(("worker", "upkeep"))
            stack.kill(dice.choice([stack.pid(name), *stack.children(name)]), signal.SIGKILL)
            if moment in (3, 7):
                client.flushall()
    try:
        assert stack.wait_for(lambda: rows_of(stack, page) == {"stored": 240}, 90)
    finally:
        stack.post("faults", {"rules": []})
    told = stack.get("calls")["windows"][page]
    assert told["most"] <= 120
    assert (throttles(stack, page), told["into_block"]) == (0, 0)
    assert stack.get("calls")["pages"][page]["calls"] >= 240


def test_a_lead_that_has_just_come_does_not_queue_behind_those_that_wait(stack: Whole, page: str) -> None:
    """With hundreds waiting for calls of their Page, a live lead of that Page is stored at once."""
    limit_to(stack, page, 40)
    stack.post("faults", {"rules": [{**BY_ID_ONLY, "pages": [page]}]})
    try:
        stack.send(count=300, page=page, batch=50)
        assert stack.wait_for(lambda: rows_of(stack, page).get("waiting", 0) > 200, 30)
        # One window later the calls that come back are the waiting rows', all but what is kept for a live lead.
        time.sleep(WINDOW * 1.5)
        (leadgen_id,) = stack.post("leads", {"count": 1, "page": page})["leads"]
        stack.send(leads=[leadgen_id])
        assert stack.wait_for(lambda: len(stack.rows([leadgen_id])) == 1, 20)
        assert rows_of(stack, page)["waiting"] > 100
        assert budget_of(stack, page)["spent"]["waiting"] > 0
    finally:
        stack.post("faults", {"rules": []})
        # Else its rows keep the processes busy that the next tests wait for.
        limit_to(stack, page, 100_000)


def test_what_waits_for_one_form_is_read_by_its_listing(stack: Whole, page: str) -> None:
    """Hundreds of references of one form cost a few calls, and the savings are told."""
    leadsync(stack, "budget", "limit", page, "0")
    stack.send(count=600, page=page, batch=100)
    assert stack.wait_for(lambda: rows_of(stack, page) == {"waiting": 600}, 30)
    waiting = budget_of(stack, page)
    assert (waiting["waiting"], waiting["limit"]["origin"]) == (600, "override")
    assert stack.states()["waiting budget"] >= 600
    limit_to(stack, page, 60)
    assert stack.wait_for(lambda: rows_of(stack, page) == {"stored": 600}, 40)
    assert stack.get("calls")["pages"][page]["calls"] < 60
    # Of the window: what was saved leaves it as calls do.
    assert budget_of(stack, page)["saved"] > 100
    of_page = {i for i, lead in stack.truth().items() if lead["page_id"] == page}
    assert not of_page & stack.differing().keys()


def test_the_budget_is_told_in_words_a_person_can_use(stack: Whole, page: str) -> None:
    """`leadsync budget` shows limit, origin and spending; `forecast` a backfill's cost; an override can be cleared."""
    stack.send(count=5, page=page)
    assert stack.wait_for(lambda: rows_of(stack, page) == {"stored": 5}, 20)
    assert page in leadsync(stack, "budget")
    assert "from override" in leadsync(stack, "budget", "limit", page, "777")
    assert budget_of(stack, page)["limit"]["calls"] == 776
    assert "override" not in leadsync(stack, "budget", "limit", page, "--clear")
    assert [
        "is its id right?" in stack.leadsync("budget", "limit", page_id, "--clear").stderr
        for page_id in (page, "77")
    ] == [False, True]
    # 5 leads of 90 days and a share of 95%.
    assert budget_of(stack, page)["limit"]["calls"] == 5 * 4_800 * 0.95
    told = json.loads(leadsync(stack, "budget", "forecast", "--page", page, "--leads", "1000", "--json"))
    assert (told["leads"], told["calls"], told["calls_at_once"]) == (1000, 10, 10)
    assert "10 calls" in leadsync(stack, "budget", "forecast", "--page", page, "--leads", "1000")


def test_meta_s_own_count_of_a_page_s_leads_raises_its_limit(stack: Whole, page: str) -> None:
    """Leads that were never announced are in Meta's counts of its forms, and the limit follows from the larger."""
    stack.post("leads", {"count": 30, "page": page})
    stack.send(count=1, page=page)
    assert stack.wait_for(lambda: rows_of(stack, page) == {"stored": 1}, 20)
    with psycopg.connect(stack.settings.database_url, autocommit=True) as connection:
        connection.execute(
            "update pages set limit_at = null, forms_asked_at = null where page_id = %s", (page,)
        )
    assert stack.wait_for(lambda: budget_of(stack, page)["limit"]["told"] == 31 * 4_800, 90)
    assert budget_of(stack, page)["limit"]["origin"] == "Meta's forms"


def test_a_throttle_of_the_app_closes_every_page_and_nobody_calls_into_it() -> None:
    """After one answer with code 4, which names no time, no process makes a call for any Page for five minutes."""
    with whole(sandbox={"pages": 2}, env={"RING_EVERY_SECONDS": "1"}) as stack:
        first, second = (page["page_id"] for page in stack.get("pages")["pages"])
        stack.post("faults", {"rules": [{"class": "4", "count": 1, "kinds": ["lead"]}]})
        stack.send(count=1, page=first)
        assert stack.wait_for(lambda: rows_of(stack, first) == {"waiting": 1}, 20)
        before = stack.get("calls")["calls"]
        stack.send(count=3, page=second)
        assert stack.wait_for(lambda: rows_of(stack, second) == {"waiting": 3}, 20)
        time.sleep(3)
        assert stack.get("calls")["calls"] == before
        assert budget_of(stack, second)["held_reason"] == "throttled_app"
        (closed,) = json.loads(leadsync(stack, "budget", "--json"))["scopes"]
        assert closed["scope"] == "app"
        assert 240 < closed["seconds"] <= 300
