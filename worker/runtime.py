"""The composition root: settings -> one event loop, one aiohttp session, one Postgres pool, one Redis client a process.

Everything meets here; nothing is decided here. Invariant: nothing is opened before `Runtime.open`, which a process
calls after its fork, so no socket is ever shared by two processes.
"""

import asyncio
import mmap
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, Final, TypeVar

import redis.asyncio as aioredis
import structlog

from worker.alerts import LONGEST_PAUSE, Alerts, AlertSettings
from worker.backfill import BackfillRun, WalkLimits
from worker.budget.policy import Lane, Window
from worker.clock import now
from worker.collector import keep_all
from worker.erased import ErasedList
from worker.errors import LeadSyncError
from worker.giving_way import LIVE_SECONDS, Turns
from worker.graph.client import GraphClient
from worker.inbox import BACKFILL_QUEUE, LIVE_QUEUE, UPKEEP_QUEUE
from worker.limits import LimitKeeper
from worker.metrics import RECOVERED, REFERENCES, SLICES, WEBHOOK_TO_ROW, Meter
from worker.neighbours import (
    create_checker,
    create_forgetter,
    create_form_finder,
    create_granter,
    create_ledger,
    create_pool,
    create_tokens,
    graph_settings,
    store_settings,
)
from worker.outcomes import RetryPolicy
from worker.reading import LeadReader
from worker.reconcile import Reconciler, ReconcileSettings
from worker.redis_packing import pack_by_hiredis
from worker.settings import Settings, environment
from worker.sources import DueSource, StreamSource
from worker.steady import machine, steady
from worker.store.ahead import AheadStore
from worker.store.backfills import BackfillStore
from worker.store.budget import BudgetStore
from worker.store.erasures import ErasureStore
from worker.store.forms import FormStore
from worker.store.health import HealthStore
from worker.store.leads import LeadStore
from worker.store.reconciliations import ReconciliationStore
from worker.store.slices import LeasedSlice, SliceStore
from worker.stream import LeadStream, consumer_name
from worker.sync import Limits, Run
from worker.totals import Totals, add_quietly
from worker.walking import SliceWalker

T = TypeVar("T")

log = structlog.get_logger("runtime")

POOL_SIZE: Final = 4
FORGET_CONSUMERS_SECONDS: Final = 3_600.0
CLOSE_SECONDS: Final = 5.0
QUICK_RUNS_KEPT: Final = timedelta(days=1)
RUNS_KEPT: Final = timedelta(days=90)
"""How long backfills that ended are listed; those of the quick reconciliations are many, and the sums of all stay."""
TOTALS_EVERY_SECONDS: Final = 5.0
"""What a process counted reaches the totals within this; a process that is killed takes as much with it."""
BLOCKS_KEPT_WINDOWS: Final = 2.0
"""Reserved calls are kept for so many windows, twice what a seed looks at."""


class Family:
    """What a worker's main process and its children tell each other: anonymous memory that outlives the fork.

    The main process says once that it is time to stop (children never see its SIGTERM); each child says when it last
    made progress.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def stop(self) -> None:
        """Say that it is time to stop."""
        self._memory[0] = 1

    def is_stopping(self) -> bool:
        """Whether that was said."""
        return self._memory[0] == 1

    def note_progress(self) -> None:
        """Say that some child is alive and working."""
        struct.pack_into("d", self._memory, 8, time.monotonic())

    def idle_seconds(self) -> float:
        """For how long no child has said so."""
        (at,) = struct.unpack_from("d", self._memory, 8)
        return time.monotonic() - float(at)


def reconcile_settings(settings: Settings) -> ReconcileSettings:
    """Reconciling's part of the settings."""
    return ReconcileSettings(
        soonest=timedelta(seconds=settings.reconcile_every),
        overlap=timedelta(seconds=settings.reconcile_overlap),
        lag=timedelta(seconds=settings.reconcile_lag),
        deep=timedelta(seconds=settings.reconcile_deep),
        read_new_forms=settings.backfill_new_forms,
        window=Window(settings.budget_window),
    )


def longest_wait(settings: Settings) -> timedelta:
    """What anything may wait by right: for a lease, a pause, calls of the window."""
    pauses = (settings.transient_longest, settings.not_visible_longest, settings.lease_seconds)
    return max(timedelta(seconds=max(settings.budget_window, *pauses)), LONGEST_PAUSE)


class Runtime:
    """One process' loop and neighbours. `run` is called from the process' other threads."""

    def __init__(self, settings: Settings, family: Family) -> None:
        self._settings = settings
        self._family = family
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="leadsync-loop", daemon=True)
        self._neighbours = AsyncExitStack()
        self._besides: dict[str, Future[None]] = {}
        self._ring: Callable[[], None] = lambda: None
        self.pid = os.getpid()

    def open(self) -> "Runtime":
        """Start the loop and build the neighbours; none of them has to answer yet."""
        self._thread.start()
        self.run(self._build())
        # Leads are trees without cycles: looking through them again and again costs a sixth of the CPU.
        keep_all()
        return self

    def close(self) -> None:
        """Close the neighbours and end the loop."""
        for running in self._besides.values():
            running.cancel()
        self._loop.call_soon_threadsafe(self._adding.cancel)
        self.run(self.add_totals())
        self.run(self._neighbours.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _build(self) -> None:
        settings = self._settings
        pool = create_pool(settings, POOL_SIZE)
        await pool.open(wait=False)
        self._neighbours.push_async_callback(pool.close)
        client = aioredis.Redis.from_url(
            settings.redis_url, protocol=2, socket_timeout=10, socket_connect_timeout=3, socket_keepalive=True
        )
        pack_by_hiredis(client)
        self._neighbours.push_async_callback(client.aclose)
        consumer = consumer_name(socket.gethostname(), os.getpid())
        self._meter = Meter()
        self._totals = Totals(client, self._meter, consumer)
        self._adding = asyncio.create_task(self._keep_adding())
        graph = await self._neighbours.enter_async_context(
            GraphClient(graph_settings(settings), steady, self._meter)
        )
        tokens = create_tokens(pool, settings)
        self._ledger = create_ledger(client, settings)
        self._budget_store = BudgetStore(pool)
        budget = create_granter(self._ledger, self._budget_store, settings)
        self._limits = LimitKeeper(
            budget=budget, rows=self._budget_store, age=timedelta(seconds=settings.budget_refresh), clock=now
        )
        self._tokens = tokens
        self._form_store = FormStore(pool)
        self._forms = create_form_finder(graph, budget, self._form_store, tokens, settings)
        self._store = LeadStore(pool, store_settings(settings))
        self._slices = SliceStore(pool, self._store, lease_seconds=settings.lease_seconds)
        self._backfills = BackfillStore(pool)
        self._reconciler = Reconciler(
            ReconciliationStore(pool), self._backfills.open, reconcile_settings(settings), now
        )
        self._turns = Turns(settings.backfill_share_beside_live, time.monotonic)
        self._walker = SliceWalker(
            graph=graph,
            budget=budget,
            store=self._slices,
            tokens=tokens,
            policy=_policy(settings),
            clock=now,
            dice=random.random,
            stop=self._family.is_stopping,
            turns=self._turns,
        )
        self._stream = LeadStream(
            client,
            consumer,
            claim_after=settings.claim_after,
            on_progress=self._family.note_progress,
            on_claimed=lambda entries: self._meter.count(RECOVERED, by=entries),
        )
        self._forgetter = create_forgetter(ErasureStore(pool), ErasedList(client), client)
        self._ahead = AheadStore(pool, longest_wait(settings))
        self._checker = create_checker(graph, budget, pool, tokens, settings, self._ring_healed)
        alerts = AlertSettings(
            settings.alert_url, settings.alert_secret, settings.alert_command, environment()
        )
        self._health_store = HealthStore(pool)
        self._alerts = Alerts(self._health_store, alerts, now)
        self._reader = LeadReader(
            graph=graph,
            budget=budget,
            tokens=tokens,
            policy=_policy(settings),
            clock=now,
        )

    async def _keep_adding(self) -> None:
        while True:
            await asyncio.sleep(TOTALS_EVERY_SECONDS)
            await add_quietly(self._totals)

    async def add_totals(self) -> None:
        """Add what this process has counted to the totals of all, as far as that is quick."""
        await add_quietly(self._totals)

    async def drain(self) -> tuple[Counter[str], bool]:
        """Work on the stream until it stays empty or the time is up; and whether references are left."""
        # At once, since whoever rang waits for the first look. With Postgres away, references are better left in the
        # stream than read and held.
        await asyncio.gather(
            self._stream.create_group(),
            self._stream.progress(LIVE_QUEUE),
            self._stream.unhush(),
            self._store.ping(),
        )
        source = StreamSource(
            self._stream,
            drain_seconds=self._settings.drain_seconds,
            linger_seconds=self._settings.linger_seconds,
        )
        counts = await self._run(source, Lane.LIVE, slow_page_calls=0)
        return counts, not self._family.is_stopping() and await self._stream.backlog() > 0

    async def resume(self) -> Counter[str]:
        """Work on the waiting rows that are due."""
        await self._stream.create_group()
        await self._stream.progress(UPKEEP_QUEUE)
        source = DueSource(self._store, self._stream, now, drain_seconds=self._settings.drain_seconds)
        return await self._run(source, Lane.WAITING, slow_page_calls=2)

    async def backfill(self) -> Counter[str]:
        """Walk the slices of the past that are due."""
        await self._stream.progress(BACKFILL_QUEUE)
        run: BackfillRun[LeasedSlice] = BackfillRun(
            store=self._slices,
            close=self._backfills.close,
            walk=self._walker.walk,
            limits=WalkLimits(
                slices=self._settings.backfill_slices_per_process,
                per_page=self._settings.backfill_slices_per_page,
                lease_seconds=self._settings.lease_seconds,
            ),
            clock=now,
            stop=self._family.is_stopping,
            alive=self._look_around,
        )
        try:
            with self._meter.following(SLICES, run.counts):
                return await run.run()
        finally:
            await add_quietly(self._totals)

    async def _look_around(self) -> None:
        """Tell that backfills are worked on, and see whether live leads come in beside them."""
        await self._stream.progress(BACKFILL_QUEUE)
        self._turns.beside_live = await self._stream.delivered_within(LIVE_SECONDS)

    async def reconcile(self) -> dict[str, int]:
        """Begin the comparisons of forms that are due, those first of which a webhook came without its ids."""
        # Their leads are as old as the announcement: by then the lag is over for them.
        before = time.time() - self._settings.reconcile_lag
        wanted = await self._stream.reconcile_wanted(before)
        counts = await self._reconciler.reconcile(tuple(wanted))
        # Pages that are parked, or whose forms are not known yet, stay wanted.
        taken_up = self._reconciler.taken_up
        await self._stream.reconcile_begun(
            {page: wanted[page] for page in wanted if page in taken_up}, before
        )
        return counts

    async def reconcile_deep(self) -> dict[str, int]:
        """Begin the full comparisons that are due."""
        return await self._reconciler.reconcile_deep()

    async def tidy(self) -> dict[str, int]:
        """Forget what is long over: consumers, reserved calls, what Meta said of scopes, runs that ended, changes of
        health; and make due what a wrong clock put far ahead.
        """
        await self._backfills.forget(now(), quick=QUICK_RUNS_KEPT, others=RUNS_KEPT)
        return {
            "brought_back": await self._ahead.bring_back(now()),
            "consumers_forgotten": await self._stream.forget_consumers(FORGET_CONSUMERS_SECONDS),
            "blocks_forgotten": await self._budget_store.forget_blocks(
                BLOCKS_KEPT_WINDOWS * self._settings.budget_window, machine=machine(), steady=steady()
            ),
            "scopes_forgotten": await self._ledger.forget_scopes(),
            "health_events_forgotten": await self._health_store.forget(
                now() - timedelta(seconds=self._settings.health_events_kept)
            ),
        }

    def refresh_limits(self) -> None:
        """Work out the limits that are due, beside whatever else this process does."""
        self._beside("limits", self._limits.run)

    def forget(self) -> None:
        """Keep erased what is, and erase what was kept long enough, beside whatever else this process does."""
        self._beside("erasures", self._forgetter.run)

    def discover_forms(self) -> None:
        """List the forms of Pages that are due, beside whatever else this process does: it may wait for slow Pages."""
        self._beside("forms", self._discover)

    async def _discover(self, stop: Callable[[], bool]) -> dict[str, int]:
        await self._backfills.know_pages(await self._tokens.page_ids(), now())
        counts = await self._forms.run(stop)
        # Limits follow from Meta's counts, which have just come.
        return counts | await self._limits.run(stop)

    def check_pages(self, ring: Callable[[], None]) -> None:
        """Look at the Pages that are due, and send alerts that are, beside whatever else this process does.

        `ring` lets the workers look at once at what waits for a Page that has healed.
        """
        self._ring = ring
        self._beside("health", self._checker.run)
        self._beside("alerts", self._alerts.run)

    async def _ring_healed(self) -> None:
        await asyncio.to_thread(self._ring)

    def _beside(self, what: str, work: Callable[[Callable[[], bool]], Awaitable[dict[str, int]]]) -> None:
        running = self._besides.get(what)
        if running is None or running.done():
            self._besides[what] = asyncio.run_coroutine_threadsafe(self._counted(what, work), self._loop)

    async def _counted(
        self, what: str, work: Callable[[Callable[[], bool]], Awaitable[dict[str, int]]]
    ) -> None:
        try:
            await self._told(what, work)
        finally:
            await add_quietly(self._totals)

    async def _told(self, what: str, work: Callable[[Callable[[], bool]], Awaitable[dict[str, int]]]) -> None:
        ends_at = time.monotonic() + self._settings.drain_seconds
        try:
            counts = await work(lambda: self._family.is_stopping() or time.monotonic() > ends_at)
        except ExceptionGroup as group:
            # A fault of ours shows by its type only: its text may quote an answer.
            for error in group.exceptions:
                told = str(error) if isinstance(error, LeadSyncError) else type(error).__name__
                log.warning("not_refreshed", what=what, error=told)
            return
        except LeadSyncError as error:
            log.warning("not_refreshed", what=what, error=str(error))
            return
        except Exception as error:
            # Nobody waits for it, so nobody else would tell.
            log.error("not_refreshed", what=what, error=type(error).__name__)
            return
        if any(counts.values()):
            log.info("refreshed", what=what, **counts)

    async def _run(
        self, source: StreamSource | DueSource, lane: Lane, *, slow_page_calls: int
    ) -> Counter[str]:
        settings = self._settings
        run = Run(
            source=source,
            reader=self._reader,
            store=self._store,
            lane=lane,
            limits=Limits(
                references=settings.references_in_flight,
                calls_per_page=settings.calls_per_page,
                calls_per_process=settings.calls_per_process,
                slow_page_calls=slow_page_calls,
                keep_every=settings.claim_after / 4,
            ),
            clock=now,
            stop=self._family.is_stopping,
            landed=lambda each: self._meter.observe_all(WEBHOOK_TO_ROW, each),
        )
        try:
            with self._meter.following(REFERENCES, run.counts, lane.value):
                return await run.run()
        finally:
            await add_quietly(self._totals)


def _policy(settings: Settings) -> RetryPolicy:
    return RetryPolicy(
        transient_first=settings.transient_first,
        transient_longest=settings.transient_longest,
        transient_attempts=settings.transient_attempts,
        not_visible_first=settings.not_visible_first,
        not_visible_longest=settings.not_visible_longest,
        not_visible_for=settings.not_visible_for,
    )
