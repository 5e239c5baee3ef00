"""Tokens revoked and lead access withdrawn under traffic, on real processes: parked once, quiet, healed by itself."""

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg_pool import AsyncConnectionPool

from tests.system.whole import APP_SECRET, VERIFY_TOKEN, Whole, whole
from worker.cli import main
from worker.clock import now
from worker.graph.account import Caller, GraphRequest, set_webhook_request
from worker.neighbours import create_keys
from worker.sealing import of_account, of_page
from worker.store.tokens import Account, TokenStore

APP_ID = "1234567890123456"
SUBCODES = ("190", "190/458", "190/459", "190/460", "190/463", "190/464", "190/467", "190/492", "102")
QUICK = {
    "META_APP_ID": APP_ID,
    "RING_EVERY_SECONDS": "1",
    "PARKED_PROBE_EVERY_SECONDS": "3",
    "HEALTH_EVERY_SECONDS": "600",
    "NOT_VISIBLE_FIRST_SECONDS": "0.3",
    "NOT_VISIBLE_LONGEST_SECONDS": "1",
    "NOT_VISIBLE_FOR_SECONDS": "600",
    "RECONCILE_LAG_SECONDS": "0",
    "LOG_STYLE": "json",
}
CHECK_KINDS = {"page", "subscribed_apps", "page_forms", "form_leads", "form"}
"""Calls that a check makes; waiting leads it reads only of a Page that was parked for its leads."""
PATIENCE_SECONDS = 150.0
"""For what comes by itself: a machine may be busy, and a worker that is stuck is ended after a minute."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Whole]:
    """A stack whose Pages' tokens lie sealed in Postgres, derived from one account; the file of tokens is empty."""
    with whole(sandbox={"pages": len(SUBCODES) + 3, "forms_per_page": 1}, env=QUICK) as running:
        (running.folder / "page_tokens.json").write_text("{}")
        told = running.get("pages")
        keep(running, told["user_token"], {page["page_id"]: page["token"] for page in told["pages"]})
        caller = Caller(APP_ID, "v26.0", APP_SECRET)
        graph(
            running,
            set_webhook_request(
                caller, callback_url=running.webhook_url, verify_token=VERIFY_TOKEN, fields=["leadgen"]
            ),
        )
        yield running


def graph(stack: Whole, request: GraphRequest) -> Any:
    """Ask the sandbox as Graph is asked."""
    body = urllib.parse.urlencode(request.form).encode()
    with urllib.request.urlopen(f"{stack.sandbox_url}{request.path}", data=body, timeout=20) as response:
        return json.load(response)


def keep(stack: Whole, user_token: str, page_tokens: dict[str, str]) -> None:
    """As `leadsync connect` keeps an account and its Pages' tokens."""

    async def seal(_: Any) -> None:
        settings = stack.settings
        async with AsyncConnectionPool(settings.database_url, min_size=1, max_size=1, open=False) as pool:
            rows, ring = TokenStore(pool), create_keys(settings).ring()
            user = "3000424242424242"
            sealed = ring.seal(user_token, of_account(user))
            await rows.keep_account(Account(user, "USER", sealed, (), None, None), now())
            for page_id, token in page_tokens.items():
                await rows.keep_page_token(page_id, user, ring.seal(token, of_page(page_id)), now())

    stack.ask_store(seal)


def parked(stack: Whole) -> dict[str, str]:
    return {
        row["page_id"]: row["parked_reason"]
        for row in stack.ask_store(lambda store: store.pages())
        if row["parked_at"]
    }


def logged(stack: Whole, event: str, page_id: str) -> int:
    lines = [line for line in stack.log().splitlines() if f'"{event}"' in line]
    return sum(page_id in line for line in lines)


def stored_of(stack: Whole, page_id: str) -> tuple[int, int]:
    """How many leads Meta has of the Page, and how many of them are rows."""
    leads = [i for i, lead in stack.truth().items() if lead["page_id"] == page_id]
    return len(leads), len(stack.rows(leads))


def compared_forms(stack: Whole) -> int:
    """How many forms are known and compared with Meta's listing from some moment on."""
    with psycopg.connect(stack.settings.database_url) as connection:
        row = connection.execute("select count(*) from forms where watermark is not null").fetchone()
    assert row is not None
    return int(row[0])


def calls_of(stack: Whole, page_id: str) -> dict[str, int]:
    kinds: dict[str, int] = stack.get("calls")["pages"].get(page_id, {}).get("kinds", {})
    return kinds


def test_a_dead_token_parks_its_page_once_and_heals_by_itself_in_every_subcode(stack: Whole) -> None:
    """Page tokens die in every way under traffic: derived anew without a loss. Then the account dies too: all are
    parked, one alarm each, no call but checks; a fresh account heals them all, waiting and unannounced leads stored."""
    pages = [page["page_id"] for page in stack.get("pages")["pages"]]
    dying, others = pages[: len(SUBCODES)], pages[len(SUBCODES) :]
    for page_id in pages:
        stack.send(count=4, pages=[page_id], batch=2)
    for page_id, error in zip(dying, SUBCODES, strict=True):
        stack.post("tokens", {"revoke": "page", "pages": [page_id], "error": error})
        stack.send(count=6, pages=[page_id], batch=2)
    assert stack.wait_for(lambda: stack.all_stored(4 * len(pages) + 6 * len(dying)), PATIENCE_SECONDS)
    assert stack.wait_for(lambda: parked(stack) == {}, PATIENCE_SECONDS)
    # The stack reads new forms from now on: of one that is found later nobody would miss an unannounced lead.
    assert stack.wait_for(lambda: compared_forms(stack) == len(pages), PATIENCE_SECONDS)

    alarms = {page_id: logged(stack, "page_parked", page_id) for page_id in pages}
    stack.post("tokens", {"revoke": "user", "error": "190/460"})
    for page_id in pages:
        stack.send(count=6, pages=[page_id], batch=2)
    assert stack.wait_for(lambda: parked(stack) == dict.fromkeys(pages, "token_refused"), PATIENCE_SECONDS)
    assert stack.wait_for(lambda: stack.ask_stream(lambda stream: stream.length()) == 0, PATIENCE_SECONDS)
    missed = stack.post("leads", {"count": len(others), "pages": others})["leads"]  # announced by nobody
    before = {page_id: calls_of(stack, page_id) for page_id in pages}
    time.sleep(5)
    for page_id in pages:
        after = calls_of(stack, page_id)
        assert {kind for kind in after if after[kind] > before[page_id].get(kind, 0)} <= CHECK_KINDS
        assert logged(stack, "page_parked", page_id) == alarms[page_id] + 1

    fresh = stack.post("tokens", {"fresh": "long"})["user_token"]
    keep(stack, fresh, {})
    assert stack.wait_for(lambda: parked(stack) == {}, PATIENCE_SECONDS)
    assert stack.wait_for(
        lambda: all(have == all_ for all_, have in (stored_of(stack, p) for p in pages)),
        PATIENCE_SECONDS,
    )
    assert len(stack.rows(missed)) == len(missed)
    assert stack.differing() == {}
    assert logged(stack, "page_unparked", pages[0]) >= 1


@pytest.mark.parametrize(("number", "wording"), [(0, "103"), (1, "as_200"), (2, "as_100")])
def test_withdrawn_lead_access_parks_its_page_and_giving_it_back_heals(
    stack: Whole, number: int, wording: str
) -> None:
    """In each of Meta's wordings, though one is that of a lead that is not there; nothing is lost."""
    page_id = stack.get("pages")["pages"][number]["page_id"]
    stack.post("tokens", {"lead_access": wording, "pages": [page_id]})
    try:
        stack.send(count=6, pages=[page_id], batch=2)
        assert stack.wait_for(lambda: set(parked(stack)) == {page_id}, PATIENCE_SECONDS)
    finally:
        stack.post("tokens", {"restore": True})
    assert stack.wait_for(lambda: parked(stack) == {}, PATIENCE_SECONDS)
    assert stack.wait_for(lambda: len(set(stored_of(stack, page_id))) == 1, PATIENCE_SECONDS)


def test_a_check_by_command_tells_how_a_page_is(stack: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit status 0 where it is well, and its budget and token told."""
    page_id = stack.get("pages")["pages"][-1]["page_id"]
    monkeypatch.chdir(stack.folder)
    env = {
        **QUICK,
        "DATABASE_URL": stack.settings.database_url,
        "REDIS_URL": stack.settings.redis_url,
        "META_APP_SECRET": APP_SECRET,
        "GRAPH_URL": stack.sandbox_url,
        "TOKEN_KEYS_FILE": str(stack.settings.token_keys_file),
    }
    assert stack.wait_for(lambda: parked(stack) == {}, PATIENCE_SECONDS)
    assert stack.wait_for(
        lambda: page_id in {row["page_id"] for row in stack.ask_store(lambda s: s.pages())}, 20
    )
    ended = CliRunner().invoke(main, ["pages", "check", page_id, "--json"], env=env)
    assert ended.exit_code == 0, ended.output
    (page,) = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    assert {aspect: page["health"][aspect]["word"] for aspect in ("token", "subscription")} == {
        "token": "ok",
        "subscription": "ok",
    }
    assert page["budget"]["left"] > 0


def test_no_token_is_in_any_log_or_in_the_rows_of_health(stack: Whole) -> None:
    """After all of the above."""
    told = stack.get("pages")
    tokens = [told["user_token"], *(page["token"] for page in told["pages"])]
    log = stack.log()
    assert [token for token in tokens if token and token in log] == []
