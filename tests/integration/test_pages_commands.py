"""`leadsync pages ...` on a real Postgres: what is printed, what is done, and the exit status."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from psycopg_pool import AsyncConnectionPool

from tests.fakes.leads import OTHER_PAGE, PAGE, in_flight
from tests.fakes.time import NOW
from worker.cli import main
from worker.health import DISCONNECTED
from worker.outcomes import Park
from worker.store.leads import LeadStore, StoreSettings

NEVER = "9" * 15


@pytest.fixture
def command(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs a command on a database where PAGE is parked for its token and OTHER_PAGE is disconnected."""

    async def prepare() -> None:
        async with AsyncConnectionPool(database, min_size=1, max_size=1, open=False) as pool:
            store = LeadStore(pool, StoreSettings())
            await store.settle([(in_flight(1), Park("token_refused"))], NOW)
            await store.park(OTHER_PAGE, DISCONNECTED, NOW)

    asyncio.run(prepare())
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(
        main, ["pages", *words, "--data-dir", "none"], env={"DATABASE_URL": database, "REDIS_URL": ""}
    )


def objects(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]


def test_pages_are_listed_with_state_and_reason(command: Any) -> None:
    """One JSON object a line, or a table."""
    told = {page["page_id"]: page for page in objects(command("list", "--json"))}
    assert told[PAGE]["parked"]["reason"] == "token_refused"
    assert told[PAGE]["leads"] == {"stored": 0, "waiting": 1, "dead": 0}
    assert PAGE in command("list").stdout


def test_a_page_is_shown_with_remedy_and_events(command: Any) -> None:
    """One that is not known is an error of one line."""
    (page,) = objects(command("show", PAGE, "--json"))
    assert PAGE in page["parked"]["remedy"]
    assert [(event["aspect"], event["became"]) for event in page["events"]] == [("page", "parked")]
    assert "leadsync connect" in command("show", PAGE).stdout
    unknown = command("show", NEVER)
    assert (unknown.exit_code, unknown.output.count("\n")) == (1, 1)


def test_a_page_is_parked_by_hand_and_taken_up_again(command: Any) -> None:
    """By hand also where it was parked already; one that was disconnected is not taken up like that: exit status 1."""
    assert objects(command("park", PAGE, NEVER, "--json")) == [
        {"page_id": PAGE, "result": "parked"},
        {"page_id": NEVER, "result": "parked"},
    ]
    assert {page["parked"]["reason"] for page in objects(command("show", PAGE, "--json"))} == {"by_hand"}
    unparked = command("unpark", PAGE, OTHER_PAGE, "77", "--json")
    assert unparked.exit_code == 1
    told = {each["page_id"]: each["result"] for each in map(json.loads, unparked.stdout.splitlines()[-3:])}
    assert told[PAGE] == "taken up again"
    assert told[OTHER_PAGE].startswith("is disconnected")
    assert told["77"] == "was not parked"


def test_an_order_for_a_page_that_nobody_knows_is_obeyed_and_doubted(command: Any) -> None:
    """It may be connected later; more often its id was mistyped. What is printed for machines stays as it is."""
    typed = command("park", PAGE, NEVER)
    assert (typed.exit_code, typed.stdout) == (0, f"{PAGE}  parked\n{NEVER}  parked\n")
    assert [line for line in typed.stderr.splitlines() if "is its id right?" in line] == [
        f"leadsync: nothing was known here of Page {NEVER} so far; is its id right?"
    ]
    assert "is its id right?" not in command("park", NEVER).stderr


def test_what_is_no_page_s_id_is_refused(command: Any) -> None:
    """Exit status 2, as for every wrong argument."""
    assert command("park", "my page").exit_code == 2
