"""Changes of health that are to be told -> signed POSTs, or runs of a command; each once, retried with backoff.

    due event -> JSON -> ALERT_URL, signed as Meta signs, or the stdin of ALERT_COMMAND -> told, or due again

What is told, and when an alert is due, lies in Postgres (store/health.py), so a killed worker loses none; one that was
killed between sending and noting it sends again, with the same `event_id`. Invariants: an alert holds ids and fixed
words, no token, no answer and no name; the secrets of this process are not in the command's environment; no shell.
"""

import asyncio
import hashlib
import hmac
import json
import os
import shlex
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import aiohttp
import structlog

from worker.health import remedy

log = structlog.get_logger("alerts")

SIGNATURE_HEADER: Final = "X-Leadsync-Signature-256"
SEND_SECONDS: Final = 10.0
LEASE: Final = timedelta(seconds=60)
AT_MOST: Final = 20
"""Alerts sent in one go."""
FIRST_PAUSE: Final = timedelta(seconds=30)
LONGEST_PAUSE: Final = timedelta(hours=1)
TRIES: Final = 30
"""About a day; then it is given up and stays in health_events untold."""
PASSED_ON: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""Of our environment, the command sees these."""


class Rows(Protocol):
    """What this file needs of the events' rows."""

    async def lease_alerts(self, now: datetime, lease: timedelta, most: int) -> list[dict[str, Any]]: ...
    async def alert_told(self, event_id: int, now: datetime) -> None: ...
    async def alert_failed(self, event_id: int, again: datetime | None) -> None: ...
    async def alerts_unwanted(self, now: datetime) -> None: ...


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """Where alerts go; nowhere, where both are empty. `environment` is that of this process."""

    url: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    command: str = field(default="", repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


class NotTold(Exception):
    """The alert did not arrive. The message holds no URL, which may hold a key."""


class Alerts:
    """Sends what is due. `clock` gives aware UTC."""

    def __init__(self, rows: Rows, settings: AlertSettings, clock: Callable[[], datetime]) -> None:
        self._rows = rows
        self._settings = settings
        self._clock = clock

    async def run(self, stop: Callable[[], bool]) -> dict[str, int]:
        """Send the alerts that are due, until `stop`; counts. Raises StoreUnavailable."""
        counts = {"alerts": 0, "alerts_failed": 0}
        if not (self._settings.url or self._settings.command):
            await self._rows.alerts_unwanted(self._clock())
            return counts
        due = await self._rows.lease_alerts(self._clock(), LEASE, AT_MOST)
        told = await asyncio.gather(*(self._tell(event) for event in due if not stop()))
        counts["alerts"], counts["alerts_failed"] = sum(told), len(told) - sum(told)
        return counts

    async def _tell(self, event: Mapping[str, Any]) -> bool:
        body = body_of(event)
        try:
            async with asyncio.timeout(SEND_SECONDS):
                if self._settings.url:
                    await _post(self._settings, body)
                if self._settings.command:
                    await _run(self._settings, body)
        except (NotTold, TimeoutError) as error:
            await self._failed(event, str(error) or f"no answer in {SEND_SECONDS:g} s")
            return False
        await self._rows.alert_told(event["event_id"], self._clock())
        return True

    async def _failed(self, event: Mapping[str, Any], error: str) -> None:
        pause = pause_after(event["tries"])
        log.warning("alert_failed", event_id=event["event_id"], error=error, again=pause is not None)
        await self._rows.alert_failed(event["event_id"], self._clock() + pause if pause else None)


def pause_after(tries: int) -> timedelta | None:
    """How long to wait after so many tries; None: it is given up."""
    if tries >= TRIES:
        return None
    return min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(max(tries, 1) - 1, 16)))


def body_of(event: Mapping[str, Any]) -> bytes:
    """The JSON object that goes out: `event_id` (the same when sent again), `at`, `page_id`, the change, what to do.

    `summary` and `remedy` are sentences, everything else ids and fixed words.
    """
    page_id, reason = event["page_id"], event["reason"]
    summary = f"Page {page_id}: {event['aspect']} was {event['was']}, is {event['became']}"
    told = {
        "event_id": event["event_id"],
        "at": event["at"].isoformat(),
        "page_id": page_id,
        "aspect": event["aspect"],
        "was": event["was"],
        "became": event["became"],
        "reason": reason,
        "summary": f"{summary} ({reason})" if reason else summary,
        "remedy": remedy(reason, page_id or "") if event["became"] not in ("ok", "open") else None,
    }
    return json.dumps(told, separators=(",", ":")).encode()


def signature(secret: str, body: bytes) -> str:
    """As Meta signs its webhooks, over the bytes of the body."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def _post(settings: AlertSettings, body: bytes) -> None:
    headers = {"Content-Type": "application/json", SIGNATURE_HEADER: signature(settings.secret, body)}
    try:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(settings.url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            status = response.status
    except (aiohttp.ClientError, ValueError, OSError) as error:
        raise NotTold(f"the POST to ALERT_URL failed: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise NotTold(f"ALERT_URL answered HTTP {status}")


async def _run(settings: AlertSettings, body: bytes) -> None:
    environment = {name: settings.environment[name] for name in PASSED_ON if name in settings.environment}
    quiet = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(settings.command),
            stdin=asyncio.subprocess.PIPE,
            stdout=quiet,
            stderr=quiet,
            env=environment,
            start_new_session=True,
        )
    except OSError as error:
        raise NotTold(f"ALERT_COMMAND cannot be run: {type(error).__name__}") from None
    try:
        await process.communicate(body)
    finally:
        if process.returncode is None:
            # It hung; what it started goes with it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        raise NotTold(f"ALERT_COMMAND ended with {process.returncode}")
