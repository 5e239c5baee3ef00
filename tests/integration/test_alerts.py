"""Alerts on a real Postgres, to a real HTTP server and a real command: once each, signed, retried."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from tests.fakes.leads import PAGE, at
from tests.fakes.time import NOW
from worker.alerts import (
    FIRST_PAUSE,
    LEASE,
    LONGEST_PAUSE,
    SIGNATURE_HEADER,
    TRIES,
    Alerts,
    AlertSettings,
    pause_after,
    signature,
)
from worker.store.health import HealthStore
from worker.store.leads import LeadStore, StoreSettings

SECRET = "alert_secret"


@dataclass
class World:
    """A Page that was parked, and so an alert that is due."""

    pool: AsyncConnectionPool
    rows: HealthStore
    leads: LeadStore

    async def events(self) -> list[dict[str, Any]]:
        async with self.pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
            await cursor.execute("select * from health_events order by event_id")
            return await cursor.fetchall()

    async def run(self, settings: AlertSettings, seconds: float = 0) -> dict[str, int]:
        return await Alerts(self.rows, settings, lambda: at(seconds)).run(lambda: False)


@pytest.fixture
def on_rows(database: str) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Runs a scenario."""

    def run(scenario: Callable[[World], Awaitable[None]]) -> None:
        async def inner() -> None:
            async with AsyncConnectionPool(database, min_size=1, max_size=4, open=False, timeout=30) as pool:
                leads = LeadStore(pool, StoreSettings())
                await leads.park(PAGE, "token_refused", NOW)
                await scenario(World(pool, HealthStore(pool), leads))

        asyncio.run(inner())

    return run


def test_an_alert_is_posted_once_and_signed(on_rows: Any) -> None:
    """A refused POST is tried again later with the same event_id; what went out is not sent again."""

    async def scenario(world: World) -> None:
        came: list[tuple[bytes, str]] = []
        statuses = [500, 302, 204]

        async def receive(request: web.Request) -> web.Response:
            came.append((await request.read(), request.headers[SIGNATURE_HEADER]))
            return web.Response(status=statuses[len(came) - 1], headers={"Location": "/elsewhere"})

        async def elsewhere(_: web.Request) -> web.Response:
            return web.Response(status=204)

        app = web.Application()
        app.router.add_post("/alert", receive)
        app.router.add_get("/elsewhere", elsewhere)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        settings = AlertSettings(url=f"http://{host}:{port}/alert", secret=SECRET)
        try:
            assert await world.run(settings) == {"alerts": 0, "alerts_failed": 1}
            assert await world.run(settings) == {"alerts": 0, "alerts_failed": 0}
            assert await world.run(settings, FIRST_PAUSE.total_seconds()) == {"alerts": 0, "alerts_failed": 1}
            assert await world.run(settings, 3_600) == {"alerts": 1, "alerts_failed": 0}
            assert await world.run(settings, 10**6) == {"alerts": 0, "alerts_failed": 0}
        finally:
            await runner.cleanup()
        assert len({body for body, _ in came}) == 1
        assert {signed for _, signed in came} == {signature(SECRET, came[0][0])}
        told = json.loads(came[0][0])
        assert (told["page_id"], told["aspect"], told["became"], told["reason"]) == (
            PAGE,
            "page",
            "parked",
            "token_refused",
        )
        (event,) = await world.events()
        assert (event["tries"], event["told_at"], event["due_at"]) == (3, at(3_600), None)

    on_rows(scenario)


def test_a_command_gets_the_alert_on_its_stdin_and_no_secret(on_rows: Any, tmp_path: Path) -> None:
    """No shell, no environment of ours but the path and the like; one that fails is run again."""

    async def scenario(world: World) -> None:
        out = tmp_path / "out"
        code = (
            "import json,os,sys; from pathlib import Path; p=Path(sys.argv[1]);"
            " p.write_text(json.dumps([json.load(sys.stdin), dict(os.environ)]));"
            " sys.exit(p.with_suffix('.again').exists())"
        )
        script = tmp_path / "alert.py"
        script.write_text(code)
        settings = AlertSettings(
            command=f"{sys.executable} {script} '{out}'",
            environment={"PATH": "/usr/bin", "META_APP_SECRET": "hunter2"},
        )
        out.with_suffix(".again").touch()
        assert await world.run(settings) == {"alerts": 0, "alerts_failed": 1}
        out.with_suffix(".again").unlink()
        assert await world.run(settings, 60) == {"alerts": 1, "alerts_failed": 0}
        told, environment = json.loads(out.read_text())
        assert told["event_id"]
        assert told["remedy"]
        assert "hunter2" not in out.read_text()
        assert environment["PATH"] == "/usr/bin"

    on_rows(scenario)


def test_a_command_that_hangs_is_ended(on_rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is limited, and the alert is tried again."""
    monkeypatch.setattr("worker.alerts.SEND_SECONDS", 0.2)

    async def scenario(world: World) -> None:
        settings = AlertSettings(command=f"{sys.executable} -c 'import time; time.sleep(60)'")
        assert await world.run(settings) == {"alerts": 0, "alerts_failed": 1}

    on_rows(scenario)


def test_an_alert_of_a_killed_worker_is_sent_by_another(on_rows: Any) -> None:
    """Leased once by many, and again when the lease ends."""

    async def scenario(world: World) -> None:
        asked = (world.rows.lease_alerts(NOW, LEASE, 9) for _ in range(5))
        assert sum(len(some) for some in await asyncio.gather(*asked)) == 1
        assert await world.rows.lease_alerts(NOW + LEASE / 2, LEASE, 9) == []
        assert len(await world.rows.lease_alerts(NOW + LEASE, LEASE, 9)) == 1

    on_rows(scenario)


def test_where_nobody_wants_alerts_none_is_kept_for_later(on_rows: Any) -> None:
    """Setting a URL one day does not send the past; nor does an operator's own order send anything."""

    async def scenario(world: World) -> None:
        await world.run(AlertSettings())
        await world.leads.park("77", "by_hand", NOW)
        await world.leads.unpark(["77"], NOW)
        assert [(event["due_at"], event["told_at"]) for event in await world.events()] == [(None, None)] * 3

    on_rows(scenario)


def test_pauses_grow_and_end() -> None:
    """From half a minute to an hour, for about a day."""
    pauses = [pause_after(tries) for tries in range(1, TRIES)]
    assert pauses[0] == FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE
    assert timedelta(hours=20) < sum(filter(None, pauses), timedelta()) < timedelta(hours=30)
    assert pause_after(TRIES) is None
