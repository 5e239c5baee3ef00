"""What the doctor finds out, as values; `Unknown` stands where something could not be found out.

It asks nobody (the files named ask_... do) and judges nothing (the checks do). Times are aware UTC, sizes bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from worker.doctor.findings import Unknown
from worker.errors import LeadSyncError
from worker.graph.account import AppSubscription
from worker.handshaking import Trouble
from worker.health import Facts


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """Of the database. `version` as Postgres counts, 140000 and up; `revision` None: no schema yet. `lacking`: tables
    that the role may not read and write; `free`: bytes left where its data lie. `whole_pages`: full_page_writes."""

    version: int
    is_read_only: bool
    revision: str | Unknown | None
    head: str
    lacking: tuple[str, ...]
    may_create: bool
    size: int
    free: int | Unknown
    connections_left: int
    connections_most: int
    fsync: bool
    whole_pages: bool


@dataclass(frozen=True, slots=True)
class RowsFacts:
    """Of the rows that are about no one Page. `keys_used`: key id -> how many Pages' and accounts' tokens it seals.

    Of the accounts whose tokens connect Pages: how many there are, how many of them Meta refuses, and when the first of
    the others ends.
    """

    keys_used: Mapping[str, tuple[int, int]]
    accounts: int
    accounts_refused: int
    account_ends_at: datetime | None
    reconcile_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """Of the server. `fsync` None: it does not tell. `max_memory` 0: none is set."""

    version: str
    is_replica: bool
    is_loading: bool
    appends: bool
    fsync: str | None
    eviction: str
    used_memory: int
    max_memory: int
    append_ok: bool
    rewrite_ok: bool


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """Of what waits in Redis and who works. Moments in unix milliseconds. `lacking_values`: Pages whose webhooks came
    without ids lately, and when; `progress`: queue, or schedule -> last look."""

    length: int
    oldest_ms: int | None
    progress: Mapping[str, int]
    deliveries: Mapping[str, int]
    lacking_values: Mapping[str, int]
    set_aside: int
    set_aside_ms: int | None


@dataclass(frozen=True, slots=True)
class MetaFacts:
    """Of one call under the app's own token. `offset`: Meta's clock less ours, None where it tells none; `app`: the
    app's webhook for Pages or None, or the error of the call; Unknown without META_APP_ID."""

    served: str | None
    offset: timedelta | None
    app: AppSubscription | LeadSyncError | Unknown | None


@dataclass(frozen=True, slots=True)
class CallbackFacts:
    """Of whoever answers at the callback; None where all is well."""

    url: str
    handshake: Trouble | Unknown | None
    delivery: Trouble | Unknown | None


@dataclass(frozen=True, slots=True)
class PageRows:
    """What the rows tell of a Page."""

    parked_at: datetime | None = None
    parked_reason: str | None = None
    held_until: datetime | None = None
    held_reason: str | None = None
    waiting: int = 0
    waiting_since: datetime | None = None
    waiting_for: str | None = None
    overdue_since: datetime | None = None
    dead: int = 0
    dead_lately: int = 0
    dead_of: str | None = None
    unexplained: int = 0
    gap_days: int = 0


@dataclass(frozen=True, slots=True)
class PageTold:
    """What Meta tells of a Page. `health` is for health.judge; `forms`: how many it has, or why that is not known."""

    health: Facts
    forms: int | LeadSyncError | None = None


@dataclass(frozen=True, slots=True)
class PageFacts:
    """All about a Page."""

    page_id: str
    rows: PageRows | Unknown
    told: PageTold | Unknown


@dataclass(frozen=True, slots=True)
class Given:
    """Of the settings. `lacking`: names of those that are needed and not set; `token_file`: why PAGE_TOKENS_FILE cannot
    be read, if so; `key_ids`: the keys that there are."""

    lacking: tuple[str, ...]
    has_database: bool
    has_redis: bool
    has_app: bool
    version: str
    webhook_url: str
    token_file: str | None
    key_ids: frozenset[str] | Unknown
    asks_meta: bool


@dataclass(frozen=True, slots=True)
class Everything:
    """All of it."""

    now: datetime
    given: Given
    postgres: PostgresFacts | Unknown
    rows: RowsFacts | Unknown
    redis: RedisFacts | Unknown
    stream: StreamFacts | Unknown
    meta: MetaFacts | Unknown
    callback: CallbackFacts | Unknown
    pages: tuple[PageFacts, ...]
