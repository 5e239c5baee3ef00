"""Settings -> what a command works with: opened for it, closed when it ends.

Workers have theirs in runtime.py; how each neighbour is built is in neighbours.py. Nothing is decided here. Invariant:
whatever a command has opened is closed before it ends, however it ends.
"""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import redis.asyncio as aioredis
from psycopg_pool import AsyncConnectionPool

from worker.account_pages import AccountPages
from worker.account_token import AccountTokens
from worker.budget.granting import Granter
from worker.budget.ledger import Ledger
from worker.calls import Calls
from worker.checking import PageChecker
from worker.clock import now
from worker.connecting import Connector
from worker.disconnecting import Disconnector
from worker.doctor.ask_page import PageAsker
from worker.erased import ErasedList
from worker.forgetting import Forgetter
from worker.forms import FormFinder
from worker.graph.account import Caller
from worker.graph.client import GraphClient
from worker.metrics import Meter
from worker.neighbours import (
    create_checker,
    create_forgetter,
    create_form_finder,
    create_granter,
    create_keys,
    create_ledger,
    create_pool,
    create_tokens,
    graph_settings,
    store_settings,
)
from worker.redis_facts import read_redis
from worker.scraping import Neighbours, Scraper
from worker.settings import Settings
from worker.steady import steady
from worker.store.backfills import BackfillStore
from worker.store.budget import BudgetStore
from worker.store.connections import ConnectionStore
from worker.store.doctor import DoctorStore
from worker.store.erasures import ErasureStore
from worker.store.forms import FormStore
from worker.store.health import HealthStore
from worker.store.leads import LeadStore
from worker.store.metrics import MetricStore
from worker.store.reconciliations import ReconciliationStore
from worker.store.status import StatusStore
from worker.store.tokens import TokenStore
from worker.store.trace import TraceStore
from worker.stream import LeadStream, consumer_name
from worker.stream_search import Standing, search
from worker.subscribing import Subscriber
from worker.tokens import StoredTokens
from worker.totals import Totals, add_quietly

LOOKING: Final = (
    "-c enable_bitmapscan=off -c enable_seqscan=off -c jit=off -c max_parallel_workers_per_gather=0"
)
"""For counts that end at a bound: a bitmap or a sequential scan reads everything before it counts the first row."""


def _client(settings: Settings) -> "aioredis.Redis":
    """A command's own client of Redis, which gives up sooner than that of a process."""
    return aioredis.Redis.from_url(settings.redis_url, protocol=2, socket_timeout=5)


@asynccontextmanager
async def _servers(
    settings: Settings, *, options: str = ""
) -> AsyncIterator[tuple[AsyncConnectionPool, "aioredis.Redis"]]:
    """Postgres and Redis for a command; `options` are those of Postgres' sessions."""
    async with create_pool(settings, 1, options=options) as pool, _client(settings) as client:
        yield pool, client


@asynccontextmanager
async def _graph(client: "aioredis.Redis", settings: Settings) -> AsyncIterator[GraphClient]:
    """Graph for a command; its calls are added to the totals at the end, if Redis is there."""
    meter = Meter()
    totals = Totals(client, meter, consumer_name(socket.gethostname(), os.getpid()))
    async with GraphClient(graph_settings(settings), steady, meter) as graph:
        try:
            yield graph
        finally:
            await add_quietly(totals)


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[LeadStore]:
    """The rows, for a command that asks a few questions and ends."""
    async with create_pool(settings, 1) as pool:
        yield LeadStore(pool, store_settings(settings))


@asynccontextmanager
async def open_stream(settings: Settings) -> AsyncIterator[LeadStream]:
    """The stream, for a command that asks a few questions and ends."""
    async with _client(settings) as client:
        yield LeadStream(client, "command", claim_after=settings.claim_after)


@asynccontextmanager
async def open_budget(settings: Settings) -> AsyncIterator[tuple[Ledger, Granter, BudgetStore]]:
    """Ledger, budget and its rows, for a command that asks a few questions and ends."""
    async with _servers(settings) as (pool, client):
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
    async with _servers(settings, options=LOOKING) as (pool, client):
        stream = LeadStream(client, "command", claim_after=settings.claim_after)
        yield Lookout(stream, create_ledger(client, settings), StatusStore(pool))


@asynccontextmanager
async def open_token_store(settings: Settings) -> AsyncIterator[TokenStore]:
    """The sealed tokens, for a command that asks a few questions and ends."""
    async with create_pool(settings, 1) as pool:
        yield TokenStore(pool)


@dataclass(frozen=True, slots=True)
class Ward:
    """What a command needs that looks at Pages' health: the rows, and who asks Graph."""

    leads: LeadStore
    health: HealthStore
    checker: PageChecker


@asynccontextmanager
async def open_ward(settings: Settings, ring: Callable[[], Awaitable[None]]) -> AsyncIterator[Ward]:
    """Rows, ledger and Graph, for a command that checks Pages and ends."""
    async with _servers(settings) as (pool, client), _graph(client, settings) as graph:
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
    async with _servers(settings) as (pool, client), _graph(client, settings) as graph:
        yield _create_desk(pool, client, graph, settings)


def _create_desk(
    pool: AsyncConnectionPool, client: "aioredis.Redis", graph: GraphClient, settings: Settings
) -> Desk:
    tokens = create_tokens(pool, settings)
    ledger, rows, form_rows = create_ledger(client, settings), BudgetStore(pool), FormStore(pool)
    budget = create_granter(ledger, rows, settings)
    return Desk(
        BackfillStore(pool),
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
    async with _servers(settings) as (pool, client), _graph(client, settings) as graph:
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
        yield BackfillStore(pool)


@asynccontextmanager
async def open_reconciliations(settings: Settings) -> AsyncIterator[ReconciliationStore]:
    """What comparing found, for a command that asks a few questions and ends."""
    async with create_pool(settings, 1) as pool:
        yield ReconciliationStore(pool)


@dataclass(frozen=True, slots=True)
class ErasureDesk:
    """What a command needs that forgets people."""

    rows: ErasureStore
    listed: ErasedList
    forgetter: Forgetter


@asynccontextmanager
async def open_erasures(settings: Settings) -> AsyncIterator[ErasureDesk]:
    """Erased rows and the list in Redis, for a command that carries out an order and ends."""
    async with _servers(settings) as (pool, client):
        rows, listed = ErasureStore(pool), ErasedList(client)
        yield ErasureDesk(rows, listed, create_forgetter(rows, listed, client))


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
    async with _servers(settings) as (pool, client), AsyncExitStack() as opened:
        graph = _graph(client, settings) if settings.app_secrets else None

        async def find(leadgen_id: str, since_ms: int, told: Callable[[int, int], None]) -> Standing:
            return await search(client, leadgen_id, since_ms=since_ms, told=told)

        yield TraceDesk(
            TraceStore(pool),
            find,
            LeadStream(client, "command", claim_after=settings.claim_after),
            await opened.enter_async_context(graph) if graph else None,
            create_granter(create_ledger(client, settings), BudgetStore(pool), settings),
            create_tokens(pool, settings),
            BackfillStore(pool),
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
