"""`leadsync trace` and `leadsync test-lead` on real processes: they tell the truth at each stage of a lead's life."""

import json
import signal
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from tests.system.whole import APP_SECRET, VERIFY_TOKEN, Whole, whole
from worker.cli import main
from worker.graph.wire import appsecret_proof
from worker.stream import LeadStream

APP_ID = "4242424242"
QUICK = {
    "META_APP_ID": APP_ID,
    "NOT_VISIBLE_FIRST_SECONDS": "0.3",
    "NOT_VISIBLE_LONGEST_SECONDS": "1",
    "NOT_VISIBLE_FOR_SECONDS": "12",
    "RING_EVERY_SECONDS": "1",
    "RECONCILE_LAG_SECONDS": "0",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Whole]:
    """One stack for the module, the app and all Pages subscribed; each test has Pages of its own."""
    sandbox = {
        "pages": 7,
        "forms_per_page": 1,
        "app_id": APP_ID,
        "subscriptions": 1,
        "redelivery_span_seconds": 20,
    }
    with whole(sandbox=sandbox, env=QUICK) as running:
        to_app = {
            "object": "page",
            "callback_url": running.webhook_url,
            "fields": "leadgen",
            "include_values": "true",
        }
        graph(
            running, f"{APP_ID}/subscriptions", f"{APP_ID}|{APP_SECRET}", verify_token=VERIFY_TOKEN, **to_app
        )
        for page in running.get("pages")["pages"]:
            graph(running, f"{page['page_id']}/subscribed_apps", page["token"], subscribed_fields="leadgen")
        looked = {"live", "upkeep", "backfill"}
        assert running.wait_for(
            lambda: looked <= running.ask_stream(LeadStream.condition)["progress"].keys(), 60
        )
        yield running


@pytest.fixture
def page(stack: Whole) -> dict[str, Any]:
    """A Page that no other test uses."""
    page: dict[str, Any] = next(stack.__dict__.setdefault("taken", iter(stack.get("pages")["pages"])))
    return page


def graph(stack: Whole, path: str, token: str, **form: str) -> None:
    """A call that connects something at Meta."""
    body = {"access_token": token, "appsecret_proof": appsecret_proof(APP_SECRET, token), **form}
    with urllib.request.urlopen(
        f"{stack.sandbox_url}/v26.0/{path}", urllib.parse.urlencode(body).encode(), timeout=20
    ) as answer:
        assert json.loads(answer.read())["success"] in (True, "true")


def leadsync(stack: Whole, *words: str) -> tuple[int, str]:
    """A command's exit status and what it printed."""
    env = {
        "DATABASE_URL": stack.settings.database_url,
        "REDIS_URL": stack.settings.redis_url,
        "GRAPH_URL": stack.sandbox_url,
        "PAGE_TOKENS_FILE": str(stack.folder / "page_tokens.json"),
        "META_APP_SECRET": APP_SECRET,
        "META_VERIFY_TOKEN": VERIFY_TOKEN,
        "COLUMNS": "160",
        **QUICK,
    }
    told = CliRunner().invoke(main, [*words, "--data-dir", str(stack.folder)], env=env)
    assert told.exception is None or isinstance(told.exception, SystemExit), told.exception
    return told.exit_code, told.stdout


def trace(stack: Whole, leadgen_id: str, *words: str) -> dict[str, Any]:
    """What `leadsync trace` tells as JSON; its exit status says whether the lead is known."""
    status, told = leadsync(stack, "trace", leadgen_id, "--json", *words)
    report: dict[str, Any] = json.loads(told)
    assert status == (0 if report["known"] else 1)
    return report


def stage(stack: Whole, leadgen_id: str) -> str:
    return str(trace(stack, leadgen_id, "--offline")["stage"])


def made(stack: Whole, page: dict[str, Any], **words: object) -> str:
    """A lead of the Page that is not announced."""
    return str(stack.post("leads", {"count": 1, "page": page["page_id"], **words})["leads"][0])


@contextmanager
def stopped(stack: Whole, name: str) -> Iterator[None]:
    """A worker and its children hold still for a while."""
    pids = [stack.pid(name), *stack.children(name)]
    for pid in pids:
        assert stack.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            stack.kill(pid, signal.SIGCONT)


def words_of(report: dict[str, Any]) -> list[str]:
    return [entry["word"] for entry in report["trail"]]


def test_not_announced_then_in_the_stream_then_stored(stack: Whole, page: dict[str, Any]) -> None:
    """Before its webhook only Meta knows it; while workers hold still it lies in the stream; then it is a row."""
    lead = made(stack, page)
    told = trace(stack, lead)
    assert (told["stage"], told["known"]) == ("not_announced", False)
    assert told["meta"]["page_id"] == page["page_id"]
    assert told["advice"] == [f"`leadsync reconcile --form {told['meta']['form_id']}` brings it now"]
    with stopped(stack, "worker"):
        stack.send(leads=[lead])
        assert stack.wait_for(lambda: stage(stack, lead) in ("in_stream", "taken"), 10)
        (entry,) = trace(stack, lead)["stream"]["entries"]
        assert (entry["deliveries"] > 0) == (entry["taken_by"] is not None)
    assert stack.wait_for(lambda: stage(stack, lead) == "stored", 20)
    stack.send(leads=[lead])
    assert stack.wait_for(lambda: trace(stack, lead)["announced"]["times"] == 2, 20)
    told = trace(stack, lead)
    assert [hop["hop"] for hop in told["hops"]] == ["webhook", "taken up", "Graph's answer", "row"]
    moments = [hop["seconds"] for hop in told["hops"]]
    assert moments == sorted(moments)
    assert 0 < moments[-1] < 30
    assert (told["trail"], told["calls"], told["stream"]["entries"]) == ([], 1, [])
    status, text = leadsync(stack, "trace", lead)
    assert status == 0
    assert "stored" in text
    assert "Graph's answer" in text
    answers = [v for each in stack.truth()[lead]["field_data"] for v in each.get("values") or ()]
    assert answers
    assert not any(answer in text + json.dumps(told) for answer in answers if len(answer) > 6)


def test_waiting_then_dead_then_replayed(stack: Whole, page: dict[str, Any]) -> None:
    """A lead that Graph does not show waits, dies of it, is put back, and all that is in its trail."""
    stack.post("faults", [{"class": "100/33", "pages": [page["page_id"]], "kinds": ["lead"]}])
    lead = made(stack, page)
    stack.send(leads=[lead])
    assert stack.wait_for(lambda: stage(stack, lead) in ("waiting", "reading"), 30)
    told = trace(stack, lead)
    assert told["row"]["reason"] == "not_visible"
    assert words_of(told) == ["failed"]
    assert stack.wait_for(lambda: stage(stack, lead) == "dead", 60)
    told = trace(stack, lead)
    assert words_of(told) == ["failed", "died"]
    assert told["calls"] >= 3
    assert told["calls"] == sum(entry["times"] for entry in told["trail"])
    stack.post("faults", [])
    assert leadsync(stack, "dead-letters", "replay", lead)[0] == 0
    assert stack.wait_for(lambda: stage(stack, lead) == "stored", 20)
    assert words_of(trace(stack, lead)) == ["failed", "died", "replayed"]


def test_parked(stack: Whole, page: dict[str, Any]) -> None:
    """A lead of a Page whose token is refused says so, and what to do; afterwards that it was so."""
    stack.post("faults", [{"class": "190/460", "pages": [page["page_id"]]}])
    lead = made(stack, page)
    stack.send(leads=[lead])
    assert stack.wait_for(lambda: stage(stack, lead) == "parked", 20)
    told = trace(stack, lead)
    assert "Meta refuses the Page's token" in told["told"]
    assert page["page_id"] in told["advice"][0]
    stack.post("faults", [])
    leadsync(stack, "pages", "unpark", page["page_id"])
    assert stack.wait_for(lambda: stage(stack, lead) == "stored", 20)
    assert words_of(trace(stack, lead)) == ["refused"]


def test_repaired_by_reconciling_then_erased(stack: Whole, page: dict[str, Any]) -> None:
    """Who came without a webhook is said to have been repaired; who was erased is said to be that, and no more."""
    lead = made(stack, page, age_seconds=5)
    assert leadsync(stack, "reconcile", "--page", page["page_id"], "--days", "2")[0] == 0
    told = trace(stack, lead)
    assert (told["stage"], told["announced"]["times"], told["trail"]) == ("stored", 0, [])
    assert told["repaired"]["was"] == "missing"
    assert told["repaired"]["late_seconds"] > 4
    assert told["day"]["repaired"] >= 1
    with psycopg.connect(stack.settings.database_url) as connection:
        connection.execute(
            "update leadgen set state = 'erased', due_at = null where leadgen_id = %s", (lead,)
        )
    told = trace(stack, lead)
    assert told.keys() == {"leadgen_id", "known", "stage", "told", "advice"}
    assert told["stage"] == "erased"
    assert told["told"].startswith("erased by an order")


def test_expired_at_meta(stack: Whole) -> None:
    """Of a lead that Meta does not show to any of our Pages it is said so, after one call a Page."""
    told = trace(stack, "999999999999999")
    assert (told["stage"], told["known"]) == ("unknown", False)
    assert len(told["meta"]["pages_asked"]) == 7
    assert "90 days" in told["advice"][0]
    told = trace(stack, "999999999999999", "--offline")
    assert told["stage"] == "not_announced"
    assert told["meta"] is None


def prove(stack: Whole, page: dict[str, Any], seconds: int) -> tuple[int, dict[str, Any]]:
    words = (
        "--form",
        page["forms"][0]["form_id"],
        "--page",
        page["page_id"],
        "--timeout",
        str(seconds),
        "--json",
    )
    status, told = leadsync(stack, "test-lead", *words)
    return status, json.loads(told)


def test_a_test_lead_passes_every_hop_twice(stack: Whole, page: dict[str, Any]) -> None:
    """It is made, arrives, and can be made again, since the former one is deleted."""
    leads = []
    for _ in range(2):
        status, told = prove(stack, page, 20)
        assert (status, told["arrived"]) == (0, True), told
        seconds = [hop["seconds"] for hop in told["hops"] if hop["seconds"] is not None]
        assert len(told["hops"]) == 6
        assert seconds
        assert max(seconds) < 20
        assert trace(stack, told["leadgen_id"])["row"]["is_test"]
        leads.append(told["leadgen_id"])
    assert leads[0] != leads[1]


def test_a_test_lead_that_is_missing_says_where(stack: Whole, page: dict[str, Any]) -> None:
    """A Page without a subscription and a worker that holds still are told apart."""
    assert leadsync(stack, "test-lead")[0] == 2, "with several forms, or none, one must be named"
    with stopped(stack, "worker"):
        status, told = prove(stack, page, 10)
    assert (status, told["missing"]) == (1, "taken up")
    assert "has not answered" in told["why"][0] or "no worker has looked" in told["why"][0]
    stack.post("subscriptions", {"drop_pages": [page["page_id"]]})
    status, told = prove(stack, page, 2)
    assert (status, told["missing"]) == (1, "webhook received")
    subscribes = f"`leadsync connect --page {page['page_id']}` subscribes it"
    assert told["why"] == [f"the app is not installed on the Page: {subscribes}"]
