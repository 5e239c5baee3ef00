"""The composition root: settings -> one event loop, one aiohttp session, one Postgres pool, one Redis client a process.

Everything meets here; nothing is decided here. Invariant: nothing is opened before `Runtime.open`, which a process
calls after its fork, so no socket is ever shared by two processes.
"""

import asyncio
import gc
import mmap
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import redis.asyncio as aioredis
import structlog
from psycopg_pool import AsyncConnectionPool

from worker.account_pages import AccountPages
from worker.account_token import AccountTokens
from worker.alerts import Alerts, AlertSettings
from worker.backfill import BackfillRun, WalkLimits
from worker.budget.granting import Granter, LimitSettings
from worker.budget.ledger import Ledger
from worker.budget.policy import Lane, Shares, Window
from worker.calls import Calls
from worker.checking import CheckSettings, PageChecker
from worker.connecting import Connector
from worker.disconnecting import Disconnector
from worker.doctor.ask_page import PageAsker
from worker.erased import ErasedList
from worker.errors import LeadSyncError, LedgerUnavailable
from worker.forgetting import Forgetter
from worker.forms import FormAges, FormFinder
from worker.graph.account import Caller
from worker.graph.client import GraphClient, GraphSettings
from worker.inbox import BACKFILL_QUEUE, LIVE_QUEUE, UPKEEP_QUEUE
from worker.limits import LimitKeeper
from worker.metrics import RECOVERED, REFERENCES, SLICES, WEBHOOK_TO_ROW, Meter
from worker.outcomes import RetryPolicy
from worker.page_calls import PageCalls
from worker.probing import Prober
from worker.reading import LeadReader
from worker.reconcile import Reconciler, ReconcileSettings
from worker.redis_facts import read_redis
from worker.scraping import Neighbours, Scraper
from worker.sealing import Keys
from worker.settings import Settings, environment
from worker.sources import DueSource, StreamSource
from worker.steady import machine, steady
from worker.store.backfills import BackfillStore, LeasedSlice
from worker.store.budget import BudgetStore
from worker.store.connections import ConnectionStore
from worker.store.doctor import DoctorStore
from worker.store.erasures import ErasureStore
from worker.store.forms import FormStore
from worker.store.health import HealthStore
from worker.store.leads import LeadStore, StoreSettings
from worker.store.metrics import MetricStore
from worker.store.status import StatusStore
from worker.store.tokens import TokenStore
from worker.store.trace import TraceStore
from worker.stream import LeadStream, consumer_name
from worker.stream_search import Standing, search
from worker.subscribing import Subscriber
from worker.sync import Limits, Run
from worker.tokens import GivenTokens, StoredTokens
from worker.totals import Totals
from worker.walking import SliceWalker

T = TypeVar("T")

log = structlog.get_logger("runtime")

POOL_SIZE: Final = 4
FORGET_CONSUMERS_SECONDS: Final = 3_600.0
CLOSE_SECONDS: Final = 5.0
QUICK_RUNS_KEPT: Final = timedelta(days=1)
RUNS_KEPT: Final = timedelta(days=90)
"""How long backfills that ended are listed; those of the quick reconciliations are many, and the sums of all stay."""
LOOKING: Final = (
    "-c enable_bitmapscan=off -c enable_seqscan=off -c jit=off -c max_parallel_workers_per_gather=0"
)
"""For counts that end at a bound: a bitmap or a sequential scan reads everything before it counts the first row."""
GC_THRESHOLD: Final = 50_000
"""Objects made and not freed before the garbage collector looks at the young ones."""
TOTALS_EVERY_SECONDS: Final = 5.0
"""What a process counted reaches the totals within this; a process that is killed takes as much with it."""
TOTALS_SECONDS: Final = 2.0
"""How long the end of a run or of a process waits for Redis to take its counts."""
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


def now() -> datetime:
    """This machine's clock, aware UTC."""
    return datetime.now(UTC)


def store_settings(settings: Settings) -> StoreSettings:
    """The store's part of the settings."""
    return StoreSettings(settings.park_after_deaths, settings.parked_probe_every, settings.lease_seconds)


def create_pool(settings: Settings, size: int, *, options: str = "") -> AsyncConnectionPool:
    """A pool, not yet open. A statement that hangs ends after a minute; a peer that vanished is noticed.

    What is not one statement says where its transaction begins and ends.
    """
    return AsyncConnectionPool(
        settings.database_url,
        min_size=1,
        max_size=size,
        open=False,
        timeout=5.0,
        reconnect_timeout=10.0,
        kwargs={
            "autocommit": True,
            "connect_timeout": 5,
            "options": f"-c statement_timeout=60000 -c idle_in_transaction_session_timeout=60000 {options}",
            "keepalives_idle": 30,
            "tcp_user_timeout": 20_000,
            "application_name": "leadsync",
        },
    )


def command_client(settings: Settings) -> "aioredis.Redis":
    """A command's own client of Redis, which gives up sooner than that of a process."""
    return aioredis.Redis.from_url(settings.redis_url, protocol=2, socket_timeout=5)


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[LeadStore]:
    """The rows, for a command that asks a few questions and ends."""
    async with create_pool(settings, 1) as pool:
        yield LeadStore(pool, store_settings(settings))


@asynccontextmanager
async def open_stream(settings: Settings) -> AsyncIterator[LeadStream]:
    """The stream, for a command that asks a few questions and ends."""
    async with command_client(settings) as client:
        yield LeadStream(client, "command", claim_after=settings.claim_after)


@asynccontextmanager
async def open_budget(settings: Settings) -> AsyncIterator[tuple[Ledger, Granter, BudgetStore]]:
    """Ledger, budget and its rows, for a command that asks a few questions and ends."""
    async with (
        create_pool(settings, 1) as pool,
        command_client(settings) as client,
    ):
        ledger, rows = create_ledger(client, settings), BudgetStore(pool)
        yield ledger, create_granter(ledger, rows, settings), rows


@dataclass(frozen=True, slots=True)
class Lookout:
    """What a command needs that looks at everything and changes nothing."""

    stream: LeadStream
    ledger: Ledger
    rows: StatusStore


@asynccontextmanager
async def open_lookout(settings: Settings) -> AsyncIterator[Lookout]:
    """Stream, ledger and rows, for a command that looks once or again and again; either server may be away."""
    async with (
        create_pool(settings, 1, options=LOOKING) as pool,
        command_client(settings) as client,
    ):
        stream = LeadStream(client, "command", claim_after=settings.claim_after)
        yield Lookout(stream, create_ledger(client, settings), StatusStore(pool))


def create_ledger(client: "aioredis.Redis", settings: Settings) -> Ledger:
    """The ledger, with this machine's name."""
    return Ledger(client, Window(settings.budget_window), Shares(), machine=machine())


def create_granter(ledger: Ledger, rows: BudgetStore, settings: Settings) -> Granter:
    """The budget over ledger and rows."""
    return Granter(
        ledger,
        rows,
        window=Window(settings.budget_window),
        limits=LimitSettings(settings.budget_floor, settings.budget_share),
        machine=machine(),
        clock=now,
        steady=steady,
    )


@asynccontextmanager
async def open_graph(client: "aioredis.Redis", settings: Settings) -> AsyncIterator[GraphClient]:
    """Graph for a command; its calls are added to the totals at the end, if Redis is there."""
    meter = Meter()
    totals = Totals(client, meter, consumer_name(socket.gethostname(), os.getpid()))
    async with GraphClient(graph_settings(settings), steady, meter) as graph:
        try:
            yield graph
        finally:
            await add_quietly(totals)


async def add_quietly(totals: Totals) -> bool:
    """Add what this process counted, within TOTALS_SECONDS; false where it is kept for the next time."""
    try:
        await asyncio.wait_for(totals.add(), TOTALS_SECONDS)
    except (LedgerUnavailable, TimeoutError):
        return False
    return True


def create_keys(settings: Settings) -> Keys:
    """The keys that seal tokens."""
    return Keys(settings.token_keys, settings.token_keys_file)


def create_tokens(pool: AsyncConnectionPool, settings: Settings) -> StoredTokens:
    """The Pages' tokens."""
    given = GivenTokens(settings.page_tokens, settings.page_tokens_file)
    return StoredTokens(TokenStore(pool), create_keys(settings), given, steady)


@asynccontextmanager
async def open_token_store(settings: Settings) -> AsyncIterator[TokenStore]:
    """The sealed tokens, for a command that asks a few questions and ends."""
    async with create_pool(settings, 1) as pool:
        yield TokenStore(pool)


def create_backfill_store(pool: AsyncConnectionPool, leads: LeadStore, settings: Settings) -> BackfillStore:
    """The rows of backfills."""
    return BackfillStore(pool, leads, lease_seconds=settings.lease_seconds)


def create_form_finder(
    graph: GraphClient, budget: Granter, rows: FormStore, tokens: StoredTokens, settings: Settings
) -> FormFinder:
    """Whoever asks Graph for forms."""
    ages = FormAges(usual=timedelta(seconds=settings.forms_discover))
    return FormFinder(graph=graph, budget=budget, rows=rows, tokens=tokens, ages=ages, clock=now)


def create_checker(
    graph: GraphClient,
    budget: Granter,
    pool: AsyncConnectionPool,
    tokens: StoredTokens,
    settings: Settings,
    ring: Callable[[], Awaitable[None]],
) -> PageChecker:
    """Whoever looks at the Pages' health."""
    caller = Caller(settings.app_id, settings.graph_version, settings.app_secrets[0])
    calls, rows = Calls(graph, budget, now), HealthStore(pool)
    page_calls = PageCalls(
        calls=calls,
        caller=caller,
        tokens=tokens,
        token_rows=TokenStore(pool),
        keys=create_keys(settings),
        clock=now,
    )
    return PageChecker(
        prober=Prober(
            calls=calls,
            page_calls=page_calls,
            caller=caller,
            rows=rows,
            resubscribe=settings.health_resubscribe,
            clock=now,
        ),
        rows=rows,
        pages=LeadStore(pool, store_settings(settings)),
        settings=CheckSettings(
            every=timedelta(seconds=settings.health_every),
            parked_every=timedelta(seconds=settings.parked_probe_every),
        ),
        clock=now,
        ring=ring,
    )


@dataclass(frozen=True, slots=True)
class Ward:
    """What a command needs that looks at Pages' health: the rows, and who asks Graph."""

    leads: LeadStore
    health: HealthStore
    checker: PageChecker


@asynccontextmanager
async def open_ward(settings: Settings, ring: Callable[[], Awaitable[None]]) -> AsyncIterator[Ward]:
    """Rows, ledger and Graph, for a command that checks Pages and ends."""
    async with (
        create_pool(settings, 1) as pool,
        command_client(settings) as client,
        open_graph(client, settings) as graph,
    ):
        budget = create_granter(create_ledger(client, settings), BudgetStore(pool), settings)
        tokens = create_tokens(pool, settings)
        yield Ward(
            LeadStore(pool, store_settings(settings)),
            HealthStore(pool),
            create_checker(graph, budget, pool, tokens, settings, ring),
        )


@dataclass(frozen=True, slots=True)
class Desk:
    """What a command needs that begins backfills and looks at them."""

    backfills: BackfillStore
    form_rows: FormStore
    forms: FormFinder
    ledger: Ledger
    budget: Granter
    tokens: StoredTokens


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    """Rows, ledger and Graph, for a command that begins a backfill and ends."""
    async with (
        create_pool(settings, 1) as pool,
        command_client(settings) as client,
        open_graph(client, settings) as graph,
    ):
        yield _create_desk(pool, client, graph, settings)


def _create_desk(
    pool: AsyncConnectionPool, client: "aioredis.Redis", graph: GraphClient, settings: Settings
) -> Desk:
    tokens = create_tokens(pool, settings)
    ledger, rows, form_rows = create_ledger(client, settings), BudgetStore(pool), FormStore(pool)
    budget = create_granter(ledger, rows, settings)
    return Desk(
        create_backfill_store(pool, LeadStore(pool, store_settings(settings)), settings),
        form_rows,
        create_form_finder(graph, budget, form_rows, tokens, settings),
        ledger,
        budget,
        tokens,
    )


@dataclass(frozen=True, slots=True)
class ConnectingDesk:
    """What a command needs that connects Pages, or disconnects them."""

    desk: Desk
    connector: Connector
    disconnector: Disconnector


@asynccontextmanager
async def open_connecting(settings: Settings) -> AsyncIterator[ConnectingDesk]:
    """Rows, ledger, keys and Graph, for a command that connects Pages and ends."""
    async with (
        create_pool(settings, 1) as pool,
        command_client(settings) as client,
        open_graph(client, settings) as graph,
    ):
        desk = _create_desk(pool, client, graph, settings)
        caller = Caller(settings.app_id, settings.graph_version, settings.app_secrets[0])
        calls, keys, token_rows = Calls(graph, desk.budget, now), create_keys(settings), TokenStore(pool)
        subscriber, page_rows = Subscriber(calls, caller), ConnectionStore(pool)
        parking = LeadStore(pool, store_settings(settings))
        connector = Connector(
            account_tokens=AccountTokens(calls=calls, caller=caller, rows=token_rows, keys=keys, clock=now),
            account_pages=AccountPages(calls, caller),
            subscriber=subscriber,
            tokens=desk.tokens,
            token_rows=token_rows,
            page_rows=page_rows,
            parking=parking,
            forms=desk.forms,
            form_rows=desk.form_rows,
            keys=keys,
            clock=now,
        )
        disconnector = Disconnector(
            subscriber=subscriber,
            tokens=desk.tokens,
            token_rows=token_rows,
            page_rows=page_rows,
            parking=parking,
            clock=now,
        )
        yield ConnectingDesk(desk, connector, disconnector)


@asynccontextmanager
async def open_backfills(settings: Settings) -> AsyncIterator[BackfillStore]:
    """The rows of backfills, for a command that asks a few questions and ends."""
    async with create_pool(settings, 1) as pool:
        yield create_backfill_store(pool, LeadStore(pool, store_settings(settings)), settings)


@dataclass(frozen=True, slots=True)
class ErasureDesk:
    """What a command needs that forgets people."""

    rows: ErasureStore
    listed: ErasedList
    forgetter: Forgetter


@asynccontextmanager
async def open_erasures(settings: Settings) -> AsyncIterator[ErasureDesk]:
    """Erased rows and the list in Redis, for a command that carries out an order and ends."""
    async with (
        create_pool(settings, 1) as pool,
        command_client(settings) as client,
    ):
        rows, listed = ErasureStore(pool), ErasedList(client)
        yield ErasureDesk(rows, listed, Forgetter(rows, listed, now))


@dataclass(frozen=True, slots=True)
class TraceDesk:
    """What a command needs that looks for one lead. `graph` is None where there is no app secret to sign with.

    `find` looks for a lead in Redis, among what came since (unix milliseconds), and says how far it is.
    """

    rows: TraceStore
    find: Callable[[str, int, Callable[[int, int], None]], Awaitable[Standing]]
    stream: LeadStream
    graph: GraphClient | None
    budget: Granter
    tokens: StoredTokens
    backfills: BackfillStore


@asynccontextmanager
async def open_trace(settings: Settings) -> AsyncIterator[TraceDesk]:
    """Rows, stream and Graph, for a command that looks for one lead and ends."""
    async with (
        create_pool(settings, 1) as pool,
        command_client(settings) as client,
        AsyncExitStack() as opened,
    ):
        graph = open_graph(client, settings) if settings.app_secrets else None

        async def find(leadgen_id: str, since_ms: int, told: Callable[[int, int], None]) -> Standing:
            return await search(client, leadgen_id, since_ms=since_ms, told=told)

        yield TraceDesk(
            TraceStore(pool),
            find,
            LeadStream(client, "command", claim_after=settings.claim_after),
            await opened.enter_async_context(graph) if graph else None,
            create_granter(create_ledger(client, settings), BudgetStore(pool), settings),
            create_tokens(pool, settings),
            create_backfill_store(pool, LeadStore(pool, store_settings(settings)), settings),
        )


@dataclass(frozen=True, slots=True)
class Clinic:
    """What a command needs that looks for what is wrong; None where the settings name no such neighbour."""

    store: DoctorStore | None
    tokens: StoredTokens | None
    redis: "aioredis.Redis | None"
    graph: GraphClient | None
    caller: Caller | None
    pages: PageAsker | None


@asynccontextmanager
async def open_clinic(settings: Settings) -> AsyncIterator[Clinic]:
    """Rows, Redis and Graph as far as the settings name them; none of them has to answer."""
    async with AsyncExitStack() as opened:
        store = tokens = client = graph = caller = pages = None
        if settings.database_url:
            pool = create_pool(settings, 2)
            await pool.open(wait=False)
            opened.push_async_callback(pool.close)
            store, tokens = DoctorStore(pool), create_tokens(pool, settings)
        if settings.redis_url:
            client = aioredis.Redis.from_url(
                settings.redis_url, protocol=2, socket_timeout=5, socket_connect_timeout=3
            )
            opened.push_async_callback(client.aclose)
        if settings.app_secrets:
            graph = await opened.enter_async_context(GraphClient(graph_settings(settings), steady))
            caller = Caller(settings.app_id, settings.graph_version, settings.app_secrets[0])
        if graph is not None and caller is not None and tokens is not None and client is not None:
            budget = create_granter(create_ledger(client, settings), BudgetStore(pool), settings)
            pages = PageAsker(
                graph=graph,
                calls=Calls(graph, budget, now),
                caller=caller,
                tokens=tokens,
                rows=HealthStore(pool),
                clock=now,
            )
        yield Clinic(store, tokens, client, graph, caller, pages)


def graph_settings(settings: Settings) -> GraphSettings:
    """The Graph client's part of the settings."""
    return GraphSettings(
        settings.graph_url, settings.graph_version, settings.app_secrets[0], settings.graph_timeout
    )


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


@asynccontextmanager
async def open_scraper(settings: Settings) -> AsyncIterator[Scraper]:
    """Whoever asks Redis and Postgres for the exporter; neither has to answer yet."""
    async with (
        aioredis.Redis.from_url(
            settings.redis_url, protocol=2, socket_timeout=5, socket_connect_timeout=2
        ) as client,
        AsyncExitStack() as opened,
    ):
        pool = create_pool(settings, 1)
        await pool.open(wait=False)
        opened.push_async_callback(pool.close)
        rows, ledger = MetricStore(pool), create_ledger(client, settings)
        yield Scraper(Neighbours(lambda: read_redis(client), lambda: rows.facts(now()), ledger))


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
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 50)
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
        self._backfills = create_backfill_store(pool, self._store, settings)
        self._reconciler = Reconciler(self._backfills, reconcile_settings(settings), now)
        self._walker = SliceWalker(
            graph=graph,
            budget=budget,
            store=self._backfills,
            tokens=tokens,
            policy=_policy(settings),
            clock=now,
            dice=random.random,
            stop=self._family.is_stopping,
        )
        self._stream = LeadStream(
            client,
            consumer,
            claim_after=settings.claim_after,
            on_progress=self._family.note_progress,
            on_claimed=lambda entries: self._meter.count(RECOVERED, by=entries),
        )
        self._forgetter = Forgetter(ErasureStore(pool), ErasedList(client), now)
        self._checker = create_checker(graph, budget, pool, tokens, settings, self._ring_healed)
        alerts = AlertSettings(
            settings.alert_url, settings.alert_secret, settings.alert_command, environment()
        )
        self._alerts = Alerts(HealthStore(pool), alerts, now)
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
            store=self._backfills,
            walk=self._walker.walk,
            limits=WalkLimits(
                slices=self._settings.backfill_slices_per_process,
                per_page=self._settings.backfill_slices_per_page,
                lease_seconds=self._settings.lease_seconds,
            ),
            clock=now,
            stop=self._family.is_stopping,
            alive=lambda: self._stream.progress(BACKFILL_QUEUE),
        )
        try:
            with self._meter.following(SLICES, run.counts):
                return await run.run()
        finally:
            await add_quietly(self._totals)

    async def reconcile(self) -> dict[str, int]:
        """Begin the comparisons of forms that are due, those first of which a webhook came without its ids."""
        # Their leads are as old as the announcement: by then the lag is over for them.
        wanted = await self._stream.reconcile_wanted(time.time() - self._settings.reconcile_lag)
        counts = await self._reconciler.reconcile(tuple(wanted))
        # Pages that are parked, or whose forms are not known yet, stay wanted.
        taken_up = self._reconciler.taken_up
        await self._stream.reconcile_begun({page: at for page, at in wanted.items() if page in taken_up})
        return counts

    async def reconcile_deep(self) -> dict[str, int]:
        """Begin the full comparisons that are due."""
        return await self._reconciler.reconcile_deep()

    async def tidy(self) -> dict[str, int]:
        """Forget what is long over: consumers, reserved calls, what Meta said of scopes, runs that ended."""
        await self._backfills.forget(now(), quick=QUICK_RUNS_KEPT, others=RUNS_KEPT)
        return {
            "consumers_forgotten": await self._stream.forget_consumers(FORGET_CONSUMERS_SECONDS),
            "blocks_forgotten": await self._budget_store.forget_blocks(
                BLOCKS_KEPT_WINDOWS * self._settings.budget_window, machine=machine(), steady=steady()
            ),
            "scopes_forgotten": await self._ledger.forget_scopes(),
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
            landed=lambda seconds: self._meter.observe(WEBHOOK_TO_ROW, seconds),
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
