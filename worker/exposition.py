"""Facts of Redis and Postgres -> series in Prometheus' data model. Pure.

It asks nobody (scraping.py does) and writes no text (prometheus_client does). Invariants: no label holds anything but
words of closed sets, ids of Pages and scopes, and reasons; at most MOST_PAGES Pages have series of their own, those
that need it most, and what can be summed is summed for the rest as `other`.
https://prometheus.io/docs/practices/naming/
https://prometheus.io/docs/instrumenting/writing_exporters/
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product
from typing import Final, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from worker.budget.ledger import Account, ScopeState
from worker.budget.policy import Lane
from worker.health import ASPECTS, OK
from worker.inbox import QUEUES
from worker.metrics import COUNTED, INFINITE, MICROSECONDS, OTHER, SUM, Series
from worker.redis_facts import RedisFacts
from worker.store.metrics import MOST_PAGES, RowFacts

PREFIX: Final = "leadsync_"
SCHEDULE: Final = "schedule"

DELIVERIES: Final = {
    "deliveries": "accepted",
    "unsigned": "unsigned",
    "too_large": "too_large",
    "queue_unavailable": "queue_unavailable",
}
"""Of the receiver's counts, those of whole deliveries, with the word for what became of them."""
CHANGES: Final = ("references", "duplicates", "tests", "updates", "ignored", "lacking_values")
"""Those of what accepted deliveries held."""
EVENTS: Final = ("set_aside", "set_aside_dropped", "handshake_refused", "bells_rung", "bells_failed")
MOST_SCOPES: Final = 200
MOST_REASONS: Final = 50

Samples: TypeAlias = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True)
class Budgets:
    """What the ledger has of Pages, and what Meta said of scopes."""

    accounts: Mapping[str, Account]
    scopes: Sequence[ScopeState]


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one scrape. None stands for a neighbour that could not be asked."""

    redis: RedisFacts | None
    rows: RowFacts | None
    budgets: Budgets | None


def series_of(facts: Facts, *, version: str) -> Iterator[Metric]:
    """Every series that the facts tell of."""
    yield _gauge("build_info", "The version that is running; always 1.", ("version",), [((version,), 1)])
    if facts.redis is not None:
        yield from _of_stream(facts.redis)
        yield from _of_receiver(facts.redis.deliveries)
        yield from _of_totals(facts.redis.totals)
    if facts.budgets is not None:
        yield from _of_budgets(facts.budgets)
    if facts.rows is not None:
        yield from _of_references(facts.rows)
        yield from _of_pages(facts.rows)
        yield from _of_the_past(facts.rows)


def _of_stream(redis: RedisFacts) -> Iterator[Metric]:
    yield _one("stream_entries", "Lead references in the stream, not yet committed.", redis.entries)
    yield _one("stream_taken_entries", "Of these, taken up by some worker.", redis.taken)
    age = 0.0 if redis.oldest_at is None else max(0.0, redis.at - redis.oldest_at)
    yield _one("stream_oldest_seconds", "Age of the stream's oldest entry; 0 where it is empty.", age)
    yield _one("set_aside_bodies", "Signed bodies that could not be read and are kept.", redis.set_aside)
    yield _one("reconcile_wanted_pages", "Pages whose webhook came without its ids.", redis.wanted)
    if redis.memory is not None:
        yield _one("redis_memory_bytes", "Memory that Redis uses.", redis.memory)
    if redis.memory_limit:
        yield _one("redis_memory_limit_bytes", "Its maxmemory; absent where none is set.", redis.memory_limit)
    yield _gauge(
        "last_progress_timestamp_seconds",
        "When a worker of the queue, or the schedule, last looked at its work; 0: never.",
        ("who",),
        [((who,), redis.progress.get(who, 0.0)) for who in (*QUEUES, SCHEDULE)],
    )


def _of_receiver(deliveries: Mapping[str, int]) -> Iterator[Metric]:
    yield _counter(
        "deliveries",
        "Webhook deliveries by what became of them.",
        ("verdict",),
        [((word,), deliveries.get(name, 0)) for name, word in DELIVERIES.items()],
    )
    yield _counter(
        "changes",
        "What accepted deliveries held; `references` is what went into the stream.",
        ("kind",),
        [((name,), deliveries.get(name, 0)) for name in CHANGES],
    )
    yield _counter(
        "receiver_events",
        "What else the receiver counted.",
        ("event",),
        [((name,), deliveries.get(name, 0)) for name in EVENTS],
    )


def _of_totals(totals: Mapping[str, int]) -> Iterator[Metric]:
    found: defaultdict[str, dict[tuple[str, ...], int]] = defaultdict(dict)
    for field, total in totals.items():
        name, *words = field.split(" ")
        found[name][tuple(words)] = total
    for series in COUNTED:
        yield _histogram(series, found[series.name]) if series.bounds else _total(series, found[series.name])


def _total(series: Series, found: Mapping[tuple[str, ...], int]) -> Metric:
    # A series that begins at 0 lets an alert see its first count as growth.
    known = dict.fromkeys(product(*series.labels.values()), 0)
    return _counter(series.name, series.help, tuple(series.labels), (known | dict(found)).items())


def _histogram(series: Series, found: Mapping[tuple[str, ...], int]) -> Metric:
    family = HistogramMetricFamily(PREFIX + series.name, series.help, labels=tuple(series.labels))
    parts = [*(f"{bound:g}" for bound in series.bounds), INFINITE]
    for values in sorted({words[:-1] for words in found} or ({()} if not series.labels else set())):
        at_most, buckets = 0, []
        for part in parts:
            at_most += found.get((*values, part), 0)
            buckets.append((part if part == INFINITE else str(float(part)), float(at_most)))
        family.add_metric(values, buckets, found.get((*values, SUM), 0) / MICROSECONDS)
    return family


def _of_budgets(budgets: Budgets) -> Iterator[Metric]:
    shown = sorted(budgets.accounts, key=lambda page_id: (-_share(budgets.accounts[page_id]), page_id))
    own = set(shown[:MOST_PAGES])
    limits, spent, saved = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    for page_id, account in budgets.accounts.items():
        page = page_id if page_id in own else OTHER
        limits[page] += account.limit.calls
        saved[page] += account.saved
        for lane in Lane:
            spent[page, lane.value] += account.spent.get(lane.value, 0)
    yield _gauge(
        "budget_limit_calls", "Calls a window that a Page may be granted.", ("page",), _single(limits)
    )
    yield _gauge(
        "budget_spent_calls", "Calls in the Page's window, by lane.", ("page", "lane"), spent.items()
    )
    yield _gauge(
        "budget_saved_calls", "Calls of the window that a listing made needless.", ("page",), _single(saved)
    )
    yield from _of_scopes(sorted(budgets.scopes, key=lambda state: -state.seconds)[:MOST_SCOPES])


def _of_scopes(scopes: Sequence[ScopeState]) -> Iterator[Metric]:
    closed: dict[str, float] = {}
    used: dict[str, float] = {}
    for state in scopes:
        scope = _scope(state.scope)
        closed[scope] = max(state.seconds, closed.get(scope, 0.0))
        used[scope] = max(state.percent / 100, used.get(scope, 0.0))
    yield _gauge(
        "budget_closed_seconds",
        "For how long Meta keeps a scope closed: a Page, an ad account, the user or the app.",
        ("scope",),
        _single(closed),
    )
    yield _gauge(
        "budget_used_ratio",
        "What Meta last said is used of a scope's limit; at 1 it is closed.",
        ("scope",),
        _single(used),
    )


def _scope(name: str) -> str:
    """A scope's name; that of a person without the id."""
    kind, _, scope_id = name.partition(":")
    return name if kind in ("page", "ad_account") and scope_id else kind


def _share(account: Account) -> float:
    return sum(account.spent.values()) / account.limit.calls if account.limit.calls else 1.0


def _of_references(rows: RowFacts) -> Iterator[Metric]:
    waiting = _reasons((row["reason"], row["count"]) for row in rows.waiting)
    yield _gauge("waiting_references", "References that wait, by reason.", ("reason",), _single(waiting))
    yield _gauge(
        "waiting_oldest_timestamp_seconds",
        "When the oldest reference that waits for the reason was first seen.",
        ("reason",),
        [((word,), at) for word, at in _oldest(rows).items()],
    )
    yield _gauge(
        "waiting_due_timestamp_seconds",
        "Since when the longest overdue reference of a Page that is neither parked nor held is due.",
        (),
        [] if rows.overdue_since is None else [((), rows.overdue_since.timestamp())],
    )
    dead = _reasons((row["reason"], row["count"]) for row in rows.dead)
    yield _one("dead_letters", "Dead letters.", dead.total())
    yield _gauge("dead_letters_by_reason", "Dead letters by reason.", ("reason",), _single(dead))
    yield _one("leads_estimate", "About how many rows there are, as Postgres estimates.", rows.estimate)


def _reasons(counted: Iterable[tuple[str, int]]) -> Counter[str]:
    sums = Counter[str]()
    for reason, count in counted:
        sums[_word(reason)] += count
    kept = Counter(dict(sums.most_common(MOST_REASONS)))
    rest = sums.total() - kept.total()
    return kept + Counter({OTHER: rest}) if rest else kept


def _oldest(rows: RowFacts) -> dict[str, float]:
    oldest: dict[str, float] = {}
    for row in rows.waiting[:MOST_REASONS]:
        word = _word(row["reason"])
        oldest[word] = min(row["oldest"].timestamp(), oldest.get(word, float("inf")))
    return oldest


def _word(reason: str) -> str:
    """A reason without what follows it where that is open: the SQLSTATE of `row_refused_...`."""
    return "row_refused" if reason.startswith("row_refused") else reason or "none"


def _of_pages(rows: RowFacts) -> Iterator[Metric]:
    pages = rows.pages
    yield _one("pages", "Pages that are known.", pages["known"])
    yield _one(
        "parked_pages", "Pages that are parked: nothing but their health check calls.", pages["parked"]
    )
    yield _one("held_pages", "Pages that wait for their budget, or for what Meta closed.", pages["held"])
    yield _gauge(
        "page_parked_timestamp_seconds",
        "Since when a Page is parked, and why.",
        ("page", "reason"),
        [((row["page_id"], row["reason"]), row["parked_at"].timestamp()) for row in rows.parked],
    )
    yield _gauge(
        "page_health",
        "1 where the Page's last check found the aspect in order, 0 where not; absent where it could not tell.",
        ("page", "aspect"),
        [
            ((row["page_id"], aspect), float(row[aspect] == OK))
            for row in rows.health
            for aspect in ASPECTS
            if row[aspect] != "unknown"
        ],
    )
    yield _gauge(
        "pages_by_health",
        "All Pages by aspect and how it was found.",
        ("aspect", "health"),
        [((row["aspect"], row["word"]), row["count"]) for row in rows.health_counts],
    )
    yield _times(
        "page_checked_timestamp_seconds",
        "When the Page was last checked.",
        [(row["page_id"], row["checked_at"]) for row in rows.health],
    )
    yield _times(
        "page_access_expires_timestamp_seconds",
        "When the Page's token, or its data access, ends; absent where neither does.",
        [(row["page_id"], row["expires_at"]) for row in rows.health],
    )
    yield _one("alerts_waiting", "Alerts that have not gone out yet.", rows.alerts["waiting"])


def _of_the_past(rows: RowFacts) -> Iterator[Metric]:
    running = Counter({"backfill": 0, "reconcile": 0, "deep": 0})
    running.update({row["purpose"]: row["count"] for row in rows.running})
    yield _gauge(
        "backfills_running", "Readings of the past that are not over.", ("purpose",), _single(running)
    )
    yield _one("slices_waiting", "Slices of the past that wait or are being read.", rows.slices["waiting"])
    yield _one("slices_due", "Of these, those that could be read now.", rows.slices["due"])
    yield _gauge(
        "reconcile_leads",
        "Leads created in the last 7 days by what their last comparison with Meta's listing found; `missing` is all"
        " that no webhook or read had brought, `unexplained` what is still not stored.",
        ("result",),
        [((word,), rows.reconciled[word]) for word in ("listed", "missing", "repaired", "unexplained")],
    )


def _one(name: str, text: str, value: float) -> Metric:
    return _gauge(name, text, (), [((), value)])


def _times(name: str, text: str, times: Iterable[tuple[str, datetime | None]]) -> Metric:
    samples = [((page_id,), at.timestamp()) for page_id, at in times if at is not None]
    return _gauge(name, text, ("page",), samples)


def _single(counts: Mapping[str, float]) -> Samples:
    return [((label,), count) for label, count in counts.items()]


def _gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
