"""Settings -> everything that can be found out, side by side, each within its time -> findings.

    neighbours asked -> then what rests upon them: rows, stream, callback, each Page -> facts -> checks

The only file here that knows how all is opened; it judges nothing itself. Invariant: whatever hangs, raises or is away
becomes an Unknown, so that everything else is told all the same.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

from worker.clock import now
from worker.desks import Clinic, open_clinic
from worker.doctor import meta_checks, page_checks, server_checks, settings_checks, work_checks
from worker.doctor.ask_meta import ask_callback, ask_meta
from worker.doctor.ask_postgres import ask_page_rows, ask_postgres, ask_rows
from worker.doctor.ask_redis import ask_server, ask_stream
from worker.doctor.facts import (
    CallbackFacts,
    Everything,
    Given,
    MetaFacts,
    PageFacts,
    PageRows,
    PageTold,
    PostgresFacts,
    RedisFacts,
    StreamFacts,
)
from worker.doctor.findings import Finding, Unknown, not_checked, ok, warn
from worker.errors import LeadSyncError
from worker.graph.account import AppSubscription
from worker.health import DISCONNECTED
from worker.neighbours import create_keys
from worker.settings import Settings
from worker.store.doctor import DoctorStore, why_away
from worker.tokens import GivenTokens, TokensUnreadable

SERVER_SECONDS: Final = 15.0
ROWS_SECONDS: Final = 60.0
META_SECONDS: Final = 25.0
CALLBACK_SECONDS: Final = 25.0
PAGE_SECONDS: Final = 45.0
PAGES_SECONDS: Final = 120.0
"""So long for all Pages together; of those not begun by then nothing is known."""
PAGES_AT_ONCE: Final = 8

T = TypeVar("T")


async def examine(settings: Settings, *, page_id: str | None = None, offline: bool = False) -> list[Finding]:
    """All findings; of one Page with `page_id`. `offline`: neither Meta nor the callback is asked."""
    async with open_clinic(settings) as clinic:
        facts = await _everything(clinic, settings, page_id, offline=offline)
    return list(judge(facts))


def judge(facts: Everything) -> Iterator[Finding]:
    """The findings that facts give. Pure."""
    given = facts.given
    yield from settings_checks.of_given(given)
    yield work_checks.of_keys(facts.rows, given.key_ids)
    yield from server_checks.of_postgres(facts.postgres, is_set=given.has_database)
    redis = list(server_checks.of_redis(facts.redis, is_set=given.has_redis))
    yield from redis
    yield from meta_checks.of_meta(
        facts.meta, version=given.version, webhook_url=given.webhook_url, is_asked=given.asks_meta
    )
    yield meta_checks.of_accounts(facts.rows, facts.now)
    yield from meta_checks.of_callback(facts.callback, full=server_checks.why_full(redis))
    yield from work_checks.of_stream(facts.stream, facts.now)
    yield work_checks.of_rows(facts.rows, facts.now)
    if not facts.pages and isinstance(facts.rows, Unknown):
        yield not_checked("page.known", f"Postgres tells nothing of it: {facts.rows.why}")
        return
    if not facts.pages:
        yield warn(
            "page.known", "no Page is known here", "`leadsync connect` connects Pages (docs/connect.md)"
        )
        return
    yield ok("page.known", f"{len(facts.pages):,} looked at")
    for page in facts.pages:
        yield from page_checks.of_page(page, facts.now, app_refused=meta_checks.is_app_refused(facts.meta))


async def _everything(
    clinic: Clinic, settings: Settings, page_id: str | None, *, offline: bool
) -> Everything:
    unasked = Unknown("Meta was not asked (--offline)") if offline else None
    postgres, redis, stream, meta = await asyncio.gather(
        _postgres(clinic, settings), _server(clinic), _stream(clinic), _meta(clinic, unasked)
    )
    at = now()
    rows, page_rows, callback = await asyncio.gather(
        _of_store(clinic, postgres, lambda store: ask_rows(store, at)),
        _of_store(clinic, postgres, lambda store: ask_page_rows(store, page_id, at)),
        _callback(settings, meta, unasked),
    )
    page_ids = (page_id,) if page_id else await _page_ids(clinic, settings, postgres, page_rows)
    told = await _pages(clinic, page_ids, unasked or _without_budget(postgres, redis))
    pages = tuple(
        PageFacts(each, _rows_of(page_rows, each), each_told)
        for each, each_told in zip(page_ids, told, strict=True)
    )
    given = _given(settings, asks_meta=not offline and clinic.graph is not None)
    return Everything(now(), given, postgres, rows, redis, stream, meta, callback, pages)


def _without_budget(postgres: PostgresFacts | Unknown, redis: RedisFacts | Unknown) -> Unknown | None:
    """Why no call can be made for a Page."""
    away = [name for name, facts in (("Postgres", postgres), ("Redis", redis)) if isinstance(facts, Unknown)]
    return Unknown(f"no call is made without a grant, and {away[0]} was not reached") if away else None


async def bounded(seconds: float, work: Awaitable[T]) -> T | Unknown:
    """What `work` finds out, or why it does not; what is raised is told by its type alone where it is not ours."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        return Unknown(f"it did not answer within {seconds:g} s")
    except LeadSyncError as error:
        return Unknown(str(error))
    except Exception as error:
        return Unknown(f"a fault of leadsync, please report it: {type(error).__name__}")


async def _postgres(clinic: Clinic, settings: Settings) -> PostgresFacts | Unknown:
    if clinic.store is None:
        return Unknown("DATABASE_URL is not set")
    why = await bounded(SERVER_SECONDS, why_away(settings.database_url))
    if why is not None:
        return why if isinstance(why, Unknown) else Unknown(why)
    return await bounded(SERVER_SECONDS, ask_postgres(clinic.store))


async def _server(clinic: Clinic) -> RedisFacts | Unknown:
    if clinic.redis is None:
        return Unknown("REDIS_URL is not set")
    return await bounded(SERVER_SECONDS, ask_server(clinic.redis))


async def _stream(clinic: Clinic) -> StreamFacts | Unknown:
    if clinic.redis is None:
        return Unknown("REDIS_URL is not set")
    return await bounded(SERVER_SECONDS, ask_stream(clinic.redis))


async def _meta(clinic: Clinic, unasked: Unknown | None) -> MetaFacts | Unknown:
    if unasked is not None:
        return unasked
    if clinic.graph is None or clinic.caller is None:
        return Unknown("META_APP_SECRET is not set")
    return await bounded(META_SECONDS, ask_meta(clinic.graph, clinic.caller, now))


async def _callback(
    settings: Settings, meta: MetaFacts | Unknown, unasked: Unknown | None
) -> CallbackFacts | Unknown:
    if unasked is not None:
        return unasked
    app = meta.app if isinstance(meta, MetaFacts) else None
    url = app.callback_url if isinstance(app, AppSubscription) else settings.webhook_url
    if not url:
        return Unknown("its address is not known: Meta tells of no webhook, and WEBHOOK_URL is not set")
    secret: str | Unknown = (
        settings.app_secrets[0] if settings.app_secrets else Unknown("META_APP_SECRET is not set")
    )
    if meta_checks.is_app_refused(meta):
        secret = Unknown("META_APP_SECRET may be wrong, see meta.app_token")
    return await bounded(CALLBACK_SECONDS, ask_callback(url, settings.verify_token, secret))


async def _of_store(
    clinic: Clinic, postgres: PostgresFacts | Unknown, ask: Callable[[DoctorStore], Awaitable[T]]
) -> T | Unknown:
    if clinic.store is None or isinstance(postgres, Unknown):
        return Unknown("Postgres was not reached")
    return await bounded(ROWS_SECONDS, ask(clinic.store))


async def _page_ids(
    clinic: Clinic,
    settings: Settings,
    postgres: PostgresFacts | Unknown,
    rows: dict[str, PageRows] | Unknown,
) -> tuple[str, ...]:
    """Pages with a token, and those of which rows tell, but for the disconnected ones."""
    found = {*GivenTokens(settings.page_tokens, settings.page_tokens_file).page_ids()}
    if clinic.tokens is not None and not isinstance(postgres, Unknown):
        stored = await bounded(SERVER_SECONDS, clinic.tokens.page_ids())
        found |= set() if isinstance(stored, Unknown) else {*stored}
    if not isinstance(rows, Unknown):
        found |= {each for each, row in rows.items() if row.parked_reason != DISCONNECTED}
    return tuple(sorted(found))


async def _pages(
    clinic: Clinic, page_ids: tuple[str, ...], unasked: Unknown | None
) -> list[PageTold | Unknown]:
    room, loop = asyncio.Semaphore(PAGES_AT_ONCE), asyncio.get_running_loop()
    ends_at = loop.time() + PAGES_SECONDS

    async def one(page_id: str) -> PageTold | Unknown:
        if unasked is not None:
            return unasked
        if clinic.pages is None:
            return Unknown("without DATABASE_URL, REDIS_URL and META_APP_SECRET no call is made for a Page")
        async with room:
            if loop.time() > ends_at:
                return Unknown(f"time ran out; `leadsync doctor --page {page_id}` looks at it alone")
            return await bounded(PAGE_SECONDS, clinic.pages.ask(page_id))

    return await asyncio.gather(*map(one, page_ids))


def _rows_of(rows: dict[str, PageRows] | Unknown, page_id: str) -> PageRows | Unknown:
    return rows if isinstance(rows, Unknown) else rows.get(page_id, PageRows())


def _given(settings: Settings, *, asks_meta: bool) -> Given:
    have = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "META_APP_SECRET": settings.app_secrets,
        "META_VERIFY_TOKEN": settings.verify_token,
    }
    return Given(
        lacking=tuple(name for name, value in have.items() if not value),
        has_database=bool(settings.database_url),
        has_redis=bool(settings.redis_url),
        has_app=bool(settings.app_id),
        version=settings.graph_version,
        webhook_url=settings.webhook_url,
        token_file=_token_file(settings),
        key_ids=_key_ids(settings),
        asks_meta=asks_meta,
    )


def _token_file(settings: Settings) -> str | None:
    try:
        GivenTokens({}, settings.page_tokens_file).find("")
    except TokensUnreadable as error:
        return str(error)
    return None


def _key_ids(settings: Settings) -> frozenset[str] | Unknown:
    try:
        return frozenset(key.key_id for key in create_keys(settings).ring())
    except LeadSyncError as error:
        return Unknown(str(error))
