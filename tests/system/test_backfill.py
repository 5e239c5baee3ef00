"""The past, on a running stack: backfills and reconciliations through kills, lost webhooks and a lost Redis."""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.system.whole import Whole, whole

LAG_SECONDS = 1.0
KILLS = int(os.environ.get("LEADSYNC_KILLS", "3"))
"""More take longer: LEADSYNC_KILLS=20 for the long form, in which everything is killed."""
LEADS = 7_200 if KILLS < 5 else 60_000
VICTIMS = (
    ("backfill", "child") if KILLS < 5 else ("backfill", "child", "schedule", "upkeep", "redis", "postgres")
)
SLICES_AT_ONCE = 3


@pytest.fixture(scope="module")
def stack() -> Iterator[Whole]:
    """A stack, and a Meta with a past."""
    env = {
        "RECONCILE_LAG_SECONDS": str(LAG_SECONDS),
        "WORKER_CONCURRENCY": "1",
        "BACKFILL_SLICES_PER_PAGE": str(SLICES_AT_ONCE),
        "LEASE_SECONDS": "10",
    }
    past = {"leads": LEADS, "pages": 2, "forms_per_page": 3, "empty_pages": 0.2, "latency_seconds": 0.05}
    with whole(sandbox=past, env=env) as running:
        yield running


def told(stack: Whole, *words: str) -> Any:
    """What such a command prints as JSON; it has to succeed."""
    done = stack.leadsync(*words, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def sql(stack: Whole, query: str) -> list[tuple[Any, ...]]:
    """Ask Postgres."""
    with psycopg.connect(stack.settings.database_url) as connection:
        return connection.execute(query.encode()).fetchall()


def pages(stack: Whole) -> list[dict[str, Any]]:
    """The sandbox's Pages."""
    found: list[dict[str, Any]] = stack.get("pages")["pages"]
    return found


def ended(stack: Whole, backfill_id: int) -> bool:
    """Whether it is over."""
    return sql(stack, f"select state from backfills where backfill_id = {backfill_id}") != [("running",)]


def test_a_page_comes_whole_through_kills_and_only_slices_in_flight_are_read_again(stack: Whole) -> None:
    """Whatever is killed while a backfill runs, it ends complete, nothing doubled, and little is read twice."""
    page = pages(stack)[0]["page_id"]
    stack.post("latency", {"seconds": 1.5 if KILLS > 4 else 2.5, "jitter": 0.3})
    begun = told(stack, "backfill", "--page", page)
    again = told(stack, "backfill", "--page", page)
    assert (again["backfill_id"], again["is_new"]) == (begun["backfill_id"], False)
    assert begun["leads"] == LEADS // 2
    dice = random.Random(5)
    killed = []
    deadline = time.monotonic() + 60 + 20 * KILLS
    while not stack.wait_for(lambda: ended(stack, begun["backfill_id"]), 0.3) and time.monotonic() < deadline:
        time.sleep(dice.uniform(0.3, 4 if KILLS > 4 else 2))
        if len(killed) < KILLS:
            name = dice.choice(VICTIMS)
            pids = stack.children("backfill") if name == "child" else [stack.pid(name)]
            # Postgres' immediate stop: its main process alone would leave children behind.
            how = signal.SIGQUIT if name == "postgres" else signal.SIGKILL
            hit = [pid for pid in pids if stack.kill(pid, how)]
            killed += [name] if hit else []
    stack.post("latency", {"seconds": 0.05, "jitter": 0})
    assert killed
    assert stack.wait_for(lambda: ended(stack, begun["backfill_id"]), 120)
    ours = f"from slices where backfill_id = {begun['backfill_id']}"
    assert sql(stack, f"select state, count(*) {ours} group by 1") == [("done", begun["slices"])]
    truth = {i for i, lead in stack.truth().items() if lead["page_id"] == page}
    assert len(truth) == LEADS // 2
    rows = {row[0] for row in sql(stack, f"select leadgen_id from leads where page_id = '{page}'")}
    assert rows == truth
    assert not truth & stack.differing().keys()
    (readings,) = sql(stack, f"select sum(readings) {ours}")[0]
    # A kill strikes at most the slices that are walked at that moment.
    assert readings <= begun["slices"] + len(killed) * SLICES_AT_ONCE
    sys.stdout.write(
        f"killed {len(killed)}: {sorted(killed)}; {begun['slices']} slices, {readings} readings\n"
    )


def test_lost_webhooks_are_found_named_and_repaired(stack: Whole) -> None:
    """A tenth of the webhooks never comes: one reconciliation brings exactly those leads, and says which."""
    page = pages(stack)[1]["page_id"]
    # So few of each form that the live path reads them by id: a listing would bring the lost ones along.
    stack.send(count=120, page=page, drop=0.1, batch=10, vary_batch=True)
    assert stack.wait_for(lambda: not stack.get("send")["running"] and not stack.get("send")["pending"], 60)
    made = _created(stack)
    pinged = {record["id"] for record in _lines(stack, "leads") if record["pings"]}
    lost = made - pinged
    assert 3 < len(lost) < 40
    stored = len(made) - len(lost)
    assert stack.wait_for(lambda: _live_rows(stack, page) == stored, 60)
    time.sleep(LAG_SECONDS + 1.1)
    report = told(stack, "reconcile", "--page", page, "--days", "1", "--repaired")
    named = {row["leadgen_id"] for row in report["repaired"]}
    assert lost <= named
    assert named & made == lost
    assert report["unexplained"] == 0
    assert {row["was"] for row in report["repaired"]} == {"missing"}
    today = {row["form_id"]: row for row in report["days"]}
    assert sum(row["metas"] for row in today.values()) >= len(made)
    assert all(row["metas"] == row["ours"] for row in today.values())
    once_more = told(stack, "reconcile", "--page", page, "--days", "1", "--repaired")
    assert [row["leadgen_id"] for row in once_more["repaired"]] == [
        row["leadgen_id"] for row in report["repaired"]
    ]


def test_an_emptied_redis_loses_no_lead_that_meta_lists(stack: Whole) -> None:
    """What was in the stream when Redis was emptied comes back by reconciling."""
    page = pages(stack)[1]["page_id"]
    before = _created(stack)
    stack.post("latency", {"seconds": 0.5, "jitter": 0})
    stack.send(count=400, page=page, batch=20)
    assert stack.wait_for(lambda: stack.get("send")["accepted"] > 0, 30)
    import redis

    with redis.Redis.from_url(stack.settings.redis_url) as client:
        client.flushall()
    stack.post("latency", {"seconds": 0.02, "jitter": 0})
    assert stack.wait_for(lambda: not stack.get("send")["running"] and not stack.get("send")["pending"], 90)
    time.sleep(LAG_SECONDS + 1.1)
    report = told(stack, "reconcile", "--page", page, "--days", "1")
    assert report["unexplained"] == 0
    new = _created(stack) - before
    assert len(new) == 400
    rows = {row[0] for row in sql(stack, "select leadgen_id from leads")}
    assert new <= rows


def test_a_form_and_an_ad_are_read_by_themselves_and_by_time(stack: Whole) -> None:
    """Leads of one form since a date, and of one ad: those and no others."""
    page = pages(stack)[1]
    form = page["forms"][1]
    since = "2 days ago"
    begun = told(stack, "backfill", "--form", form["form_id"], "--page", page["page_id"], "--since", since)
    assert stack.wait_for(lambda: ended(stack, begun["backfill_id"]), 60)
    wanted = {
        i
        for i, lead in stack.truth().items()
        if lead["form_id"] == form["form_id"]
        and lead["created_time"] >= begun["since"].replace("+00:00", "+0000")
    }
    rows = {row[0] for row in sql(stack, f"select leadgen_id from leads where form_id = '{form['form_id']}'")}
    assert wanted <= rows
    ad = page["forms"][2]["ads"][0]
    begun = told(
        stack, "backfill", "--ad", ad if isinstance(ad, str) else ad["ad_id"], "--page", page["page_id"]
    )
    assert stack.wait_for(lambda: ended(stack, begun["backfill_id"]), 60)
    of_ad = {i for i, lead in stack.truth().items() if lead.get("ad_id") == begun["object_id"]}
    assert of_ad
    assert of_ad <= {
        row[0] for row in sql(stack, f"select leadgen_id from leads where ad_id = '{begun['object_id']}'")
    }


def test_a_throttled_ad_account_holds_up_the_ad_s_backfill_and_no_live_lead(stack: Whole) -> None:
    """An ad's listing is metered by its ad account: the Page's own calls go on."""
    page = pages(stack)[1]
    ad = page["forms"][0]["ads"][1]
    stack.post("limits", {"page": page["page_id"], "ads_limit": 0})
    begun = told(
        stack, "backfill", "--ad", ad if isinstance(ad, str) else ad["ad_id"], "--page", page["page_id"]
    )
    waits = f"select reason from slices where backfill_id = {begun['backfill_id']} and state = 'waiting'"
    assert stack.wait_for(lambda: sql(stack, waits) == [("throttled_ad",)], 30)
    (leadgen_id,) = stack.post("leads", {"count": 1, "page": page["page_id"]})["leads"]
    stack.send(leads=[leadgen_id])
    assert stack.wait_for(lambda: len(stack.rows([leadgen_id])) == 1, 30)
    stack.post("limits", {"page": page["page_id"], "ads_limit": None})
    assert "stopped" in stack.leadsync("backfills", "cancel", str(begun["backfill_id"])).stdout


def test_a_backfill_can_be_forecast_and_stopped(stack: Whole) -> None:
    """A dry run begins nothing; what is cancelled ends and stays so."""
    page = pages(stack)[0]["page_id"]
    (before,) = sql(stack, "select count(*) from backfills")[0]
    forecast = told(stack, "backfill", "--page", page, "--dry-run")
    assert forecast["backfill_id"] is None
    assert sql(stack, "select count(*) from backfills")[0] == (before,)
    stack.post("latency", {"seconds": 2, "jitter": 0})
    begun = told(stack, "backfill", "--page", page, "--since", "80 days ago", "--until", "yesterday")
    stopped = stack.leadsync("backfills", "cancel", str(begun["backfill_id"]))
    assert stopped.exit_code == 0
    assert "stopped" in stopped.stdout
    stack.post("latency", {"seconds": 0.02, "jitter": 0})
    time.sleep(3)
    assert sql(stack, f"select state from backfills where backfill_id = {begun['backfill_id']}") == [
        ("cancelled",)
    ]
    assert "cancelled" in stack.leadsync("backfills").stdout


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("backfill",), 2, "--page, --form or --ad"),
        (("backfill", "--page", "x"), 2, "is not an id"),
        (("backfill", "--page", "123", "--since", "someday"), 2, "--since"),
        (("backfill", "--page", "123", "--zone", "Mars/Base"), 2, "time zone"),
        (("backfill", "--ad", "99999"), 1, "--page"),
        (("backfill", "--page", "123"), 1, "PAGE_TOKENS"),
        (("backfills", "cancel", "99999"), 0, "was not running"),
    ],
)
def test_wrong_orders_are_told_in_one_line(
    stack: Whole, words: tuple[str, ...], status: int, says: str
) -> None:
    """Bad input gets a clear error and begins nothing."""
    done = stack.leadsync(*words)
    assert done.exit_code == status, done.stderr
    assert says in done.output


def _lines(stack: Whole, path: str) -> list[dict[str, Any]]:
    from worker.demo import get_lines

    return list(get_lines(f"{stack.sandbox_url}/sandbox/{path}"))


def _created(stack: Whole) -> set[str]:
    """The leads that came while the sandbox ran."""
    return {lead["id"] for lead in _lines(stack, "truth?origin=created")}


def _live_rows(stack: Whole, page: str) -> int:
    (count,) = sql(stack, f"select count(*) from leads where page_id = '{page}' and source = 'webhook'")[0]
    return int(count)
