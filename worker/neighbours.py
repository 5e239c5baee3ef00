"""Settings -> the neighbours, and who works with them: each built here in one way, for workers and commands alike.

It opens nothing, keeps nothing and decides nothing (runtime.py and desks.py open what they need). Invariant: building
asks nobody, so it never fails because a server is away.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import redis.asyncio as aioredis
from psycopg_pool import AsyncConnectionPool

from worker.believed import BelievedClock
from worker.budget.granting import Granter, LimitSettings
from worker.budget.ledger import Ledger
from worker.budget.policy import Shares, Window
from worker.calls import Calls
from worker.checking import CheckSettings, PageChecker
from worker.clock import now
from worker.clock_notes import ClockNotes
from worker.erased import ErasedList
from worker.forgetting import Forgetter
from worker.forms import FormAges, FormFinder
from worker.graph.account import Caller
from worker.graph.client import GraphClient, GraphSettings
from worker.page_calls import PageCalls
from worker.probing import Prober
from worker.sealing import Keys
from worker.settings import Settings
from worker.steady import machine, steady
from worker.store.budget import BudgetStore
from worker.store.erasures import ErasureStore
from worker.store.forms import FormStore
from worker.store.health import HealthStore
from worker.store.leads import LeadStore, StoreSettings
from worker.store.statements import commit_to_disk
from worker.store.tokens import TokenStore
from worker.tokens import GivenTokens, StoredTokens


def store_settings(settings: Settings) -> StoreSettings:
    """The store's part of the settings."""
    return StoreSettings(settings.park_after_deaths, settings.parked_probe_every, settings.lease_seconds)


def create_pool(settings: Settings, size: int, *, options: str = "") -> AsyncConnectionPool:
    """A pool, not yet open. A statement that hangs ends after a minute; a peer that vanished is noticed.

    What is not one statement says where its transaction begins and ends. Commits are on disk before they are answered,
    whatever the server, the database or the role has set.
    """
    return AsyncConnectionPool(
        settings.database_url,
        min_size=1,
        max_size=size,
        open=False,
        timeout=5.0,
        reconnect_timeout=10.0,
        configure=commit_to_disk,
        kwargs={
            "autocommit": True,
            "connect_timeout": 5,
            "options": f"-c statement_timeout=60000 -c idle_in_transaction_session_timeout=60000 {options}",
            "keepalives_idle": 30,
            "tcp_user_timeout": 20_000,
            "application_name": "leadsync",
        },
    )


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


def create_forgetter(rows: ErasureStore, listed: ErasedList, client: "aioredis.Redis") -> Forgetter:
    """Whoever forgets people, and erases by a clock that can be believed."""
    believed = BelievedClock(ClockNotes(client), rows.clock, clock=now, steady=steady, machine=machine())
    return Forgetter(rows, listed, now, believed=believed, steady=steady)


def create_keys(settings: Settings) -> Keys:
    """The keys that seal tokens."""
    return Keys(settings.token_keys, settings.token_keys_file)


def create_tokens(pool: AsyncConnectionPool, settings: Settings) -> StoredTokens:
    """The Pages' tokens."""
    given = GivenTokens(settings.page_tokens, settings.page_tokens_file)
    return StoredTokens(TokenStore(pool), create_keys(settings), given, steady)


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


def graph_settings(settings: Settings) -> GraphSettings:
    """The Graph client's part of the settings."""
    return GraphSettings(
        settings.graph_url, settings.graph_version, settings.app_secrets[0], settings.graph_timeout
    )
