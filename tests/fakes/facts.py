"""The facts of a leadsync that is well, and the text that its exporter then serves."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.budget.ledger import Account
from worker.budget.policy import Limit
from worker.exposition import Budgets, Facts, series_of
from worker.redis_facts import RedisFacts
from worker.store.metrics import RowFacts

HEALTHY_PAGE = {
    "page_id": "7",
    "token": "ok",
    "subscription": "ok",
    "lead_access": "ok",
    "webhooks": "ok",
}


def redis_facts(at: float, **changed: Any) -> RedisFacts:
    """A stream that is empty, workers that looked a second ago, half a gigabyte of room."""
    facts = RedisFacts(
        at=at,
        entries=0,
        taken=0,
        oldest_at=None,
        set_aside=0,
        wanted=0,
        deliveries={"deliveries": 100, "references": 100},
        totals={"references live stored": 100, "graph_calls lead ok": 100},
        progress=dict.fromkeys(("live", "backfill", "upkeep", "schedule"), at - 1),
        memory=10_000_000,
        memory_limit=512_000_000,
    )
    return replace(facts, **changed)


def row_facts(at: float, **changed: Any) -> RowFacts:
    """Nothing waits, nothing is dead, one Page that was checked lately and whose token lasts two months."""
    now = datetime.fromtimestamp(at, UTC)
    health = {**HEALTHY_PAGE, "checked_at": now, "expires_at": now + timedelta(days=60)}
    facts = RowFacts(
        waiting=(),
        overdue_since=None,
        dead=(),
        pages={"known": 1, "parked": 0, "held": 0},
        parked=(),
        budgeted=("7",),
        health=(health,),
        health_counts=(),
        alerts={"waiting": 0, "oldest": None},
        running=(),
        slices={"waiting": 0, "due": 0},
        reconciled={"listed": 100, "missing": 0, "repaired": 0, "unexplained": 0},
        estimate=100,
    )
    return replace(facts, **changed)


def budgets(spent: Mapping[str, int] | None = None, limit: int = 4_560) -> Budgets:
    """One Page that has spent little."""
    account = Account(Limit(limit, 4_800, ""), {"live": 100} if spent is None else spent, 0)
    return Budgets({"7": account}, ())


def facts(at: float) -> Facts:
    """All of it is well at `at`, unix seconds."""
    return Facts(redis_facts(at), row_facts(at), budgets())


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def families_of(shown: Facts) -> list[Metric]:
    """The series of these facts, without those of the exporter's own process."""
    up = GaugeMetricFamily("leadsync_up", "", labels=("neighbour",))
    up.add_metric(("redis",), float(shown.redis is not None))
    up.add_metric(("postgres",), float(shown.rows is not None))
    return [*series_of(shown, version="1"), up]


def text_of(shown: Facts) -> str:
    """What a scrape of them answers."""
    registry = CollectorRegistry()
    registry.register(_Families(families_of(shown)))
    return generate_latest(registry).decode()
