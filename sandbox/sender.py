"""The webhook sender: asks for leads -> deliveries on the wire, until they are accepted or given up.

    run -> leads made -> delivery -> POST -> 200, or the same bytes again later

Runs in the background of the sandbox's event loop. What the bytes are is decided in deliveries.py.

Invariant: a delivery is sent again, unchanged, until it was answered with 200 or its schedule is over.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, fields, replace

import aiohttp
import structlog

from sandbox.config import SandboxConfig
from sandbox.deliveries import FIELDS, Change, Mix, delivery_body, plan, redelivery_delays, signatures
from sandbox.journal import Journal
from sandbox.subscriptions import Subscriptions
from sandbox.world import Lead

log = structlog.stdlib.get_logger()

_HEADERS = {"Content-Type": "application/json", "User-Agent": "facebookexternalua"}


@dataclass(frozen=True, slots=True)
class Run:
    """One order to create leads and announce them."""

    mix: Mix
    make: Callable[[int], Lead]
    """ordinal -> the lead, made when it is first announced."""
    url: str
    secret: str
    rate: float = 0.0
    """Announcements a second; 0 is as fast as they are taken."""
    concurrency: int = 8
    subscriptions: Subscriptions | None = None
    """Deliver only what is subscribed, to the app's callback instead of `url`; None delivers all."""


@dataclass(slots=True)
class Progress:
    """What became of the runs so far."""

    created: int = 0
    announced: int = 0
    """Changes in all deliveries, each delivery counted once."""
    dropped: int = 0
    """Announcements that stand in no delivery."""
    unsubscribed: int = 0
    """Announcements that nobody had subscribed to."""
    deliveries: int = 0
    attempts: int = 0
    accepted: int = 0
    failed: int = 0
    """Attempts that were not answered with 200."""
    pending: int = 0
    """Deliveries neither accepted nor given up."""
    redeliveries_pending: int = 0
    given_up: int = 0
    running: int = 0
    statuses: Counter[str] = field(default_factory=Counter)

    def report(self) -> dict[str, object]:
        """The counts as JSON."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(slots=True)
class _Delivery:
    url: str
    body: bytes
    headers: dict[str, str]
    leads: tuple[Lead, ...]
    delays: Iterator[float]


class Sender:
    """Carries out runs."""

    def __init__(self, journal: Journal, config: SandboxConfig) -> None:
        self.progress = Progress()
        self._journal, self._config = journal, config
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, run: Run) -> None:
        """Begin a run in the background."""
        task = asyncio.create_task(self._run(run))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def verify(self, url: str, verify_token: str) -> tuple[str, bool]:
        """The subscription handshake: the status that came back, and whether the challenge was echoed."""
        challenge = str(time.time_ns())
        params = {
            "hub.mode": "subscribe",
            "hub.challenge": challenge,
            "hub.verify_token": verify_token,
        }
        timeout = aiohttp.ClientTimeout(total=self._config.delivery_timeout_seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.get(url, params=params, allow_redirects=False) as response,
            ):
                echoed = (await response.content.read(1_024)).decode("utf-8", "replace") == challenge
                return str(response.status), response.status == 200 and echoed
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            return type(error).__name__, False

    async def stop(self) -> None:
        """Give up everything that is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.progress.running = self.progress.pending = self.progress.redeliveries_pending = 0

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("sandbox_send_failed", error=type(task.exception()).__name__)

    async def _run(self, run: Run) -> None:
        timeout = aiohttp.ClientTimeout(total=self._config.delivery_timeout_seconds)
        connector = aiohttp.TCPConnector(limit=run.concurrency)
        self.progress.running += 1
        try:
            async with aiohttp.ClientSession(
                connector=connector, timeout=timeout, headers=_HEADERS
            ) as session:
                slots = asyncio.Semaphore(run.concurrency)
                async with asyncio.TaskGroup() as group:
                    async for delivery in self._deliveries(run):
                        await slots.acquire()
                        group.create_task(self._deliver(session, run, delivery, slots))
        finally:
            self.progress.running -= 1

    async def _deliveries(self, run: Run) -> AsyncIterator[_Delivery]:
        made: dict[int, Lead] = {}
        began = time.monotonic()
        announced = 0
        variants = run.mix.variants
        for group in plan(run.mix):
            changes = []
            for announcement in group:
                lead = made.get(announcement.ordinal)
                if lead is None and announcement.what != "sample":
                    lead = made[announcement.ordinal] = run.make(announcement.ordinal)
                    self.progress.created += 1
                if announcement.dropped:
                    self.progress.dropped += 1
                    continue
                variant = variants[(announced // 7) % len(variants)]
                changes.append(Change(announcement.what, lead, variant))
                announced += 1
            if run.rate > 0:
                await asyncio.sleep(max(0.0, began + announced / run.rate - time.monotonic()))
            if wanted := self._subscribed(run, changes):
                yield self._delivery(run, wanted)

    def _subscribed(self, run: Run, changes: list[Change]) -> list[Change]:
        """The changes that are wanted at this moment, told as the subscription wants them."""
        if run.subscriptions is None:
            return changes
        wanted = []
        for change in changes:
            page_id = change.lead.page_id if change.lead and change.what != "sample" else None
            app = run.subscriptions.callback(page_id, FIELDS[change.what])
            self.progress.unsubscribed += app is None
            if app is not None:
                wanted.append(replace(change, values=app.include_values))
        return wanted

    def _delivery(self, run: Run, changes: list[Change]) -> _Delivery:
        now = time.time()
        body = delivery_body(changes, int(now))
        leads = tuple(change.lead for change in changes if change.lead is not None and change.what == "lead")
        self.progress.deliveries += 1
        self.progress.announced += len(changes)
        self.progress.pending += 1
        delays = redelivery_delays(self._config.redelivery_span_seconds)
        app = run.subscriptions and run.subscriptions.app
        return _Delivery(
            app.callback_url if app else run.url, body, signatures(body, run.secret), leads, delays
        )

    async def _deliver(
        self, session: aiohttp.ClientSession, run: Run, delivery: _Delivery, slots: asyncio.Semaphore
    ) -> None:
        """Send until accepted; the slot is held only while a request is out."""
        now = time.time()
        for lead in delivery.leads:
            record = self._journal.lead(lead.leadgen_id)
            record.pings += 1
            if record.pinged_at is None:
                record.pinged_at = now
        while True:
            try:
                accepted = await self._attempt(session, run, delivery)
            finally:
                slots.release()
            delay = None if accepted else next(delivery.delays, None)
            if delay is None:
                break
            self.progress.redeliveries_pending += 1
            try:
                await asyncio.sleep(delay)
                await slots.acquire()
            finally:
                self.progress.redeliveries_pending -= 1
        self.progress.pending -= 1
        self.progress.given_up += not accepted

    async def _attempt(self, session: aiohttp.ClientSession, run: Run, delivery: _Delivery) -> bool:
        self.progress.attempts += 1
        sent_at, began = time.time(), time.monotonic()
        try:
            async with session.post(
                delivery.url, data=delivery.body, headers=delivery.headers, allow_redirects=False
            ) as response:
                await response.read()
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.progress.failed += 1
            self.progress.statuses[type(error).__name__] += 1
            self._journal.attempts.append((sent_at, time.monotonic() - began, type(error).__name__))
            return False
        self._journal.attempts.append((sent_at, time.monotonic() - began, str(status)))
        self.progress.statuses[str(status)] += 1
        if status != 200:
            self.progress.failed += 1
            return False
        self.progress.accepted += 1
        now = time.time()
        for lead in delivery.leads:
            record = self._journal.lead(lead.leadgen_id)
            if record.accepted_at is None:
                record.accepted_at = now
        return True
