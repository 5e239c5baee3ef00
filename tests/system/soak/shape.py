"""How long and how hard a soak is -> the settings of leadsync and of the sandbox that go with it. Pure."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

LATENCY_SECONDS = 0.1
NEVER = "86400"
"""Seconds that no soak lasts."""
HISTORY = 400
"""Leads that Meta holds from before: a backfill brings them, under the same faults."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How long and how hard; seconds. `poor_calls`: the limit of one Page's window, so that it binds."""

    seconds: float
    rate: float
    window: float
    settle: float
    seed: int = 1
    pages: int = 5
    poor_calls: int = 0
    deep: float = 60.0
    reconciling: bool = True
    """Without it nothing mends what the live path loses: nothing is read from Meta's listing but to save calls."""
    answer: float = 1.0
    most_age: float = 300.0
    clock: bool = True
    revision: str | None = None
    metrics_port: int = 0
    keep: Path = Path(tempfile.gettempdir())


def environment_of(shape: Shape) -> dict[str, str]:
    """Claims, leases and reconciliations that come round often enough to matter within the soak."""
    return {
        "BUDGET_WINDOW_SECONDS": str(shape.window),
        "BUDGET_REFRESH_SECONDS": "5",
        "CLAIM_AFTER_SECONDS": "8",
        "LEASE_SECONDS": "10",
        "GRAPH_TIMEOUT_SECONDS": "5",
        "RING_EVERY_SECONDS": "1",
        "TRANSIENT_FIRST_SECONDS": "0.5",
        "TRANSIENT_LONGEST_SECONDS": "15",
        "NOT_VISIBLE_FIRST_SECONDS": "0.5",
        "NOT_VISIBLE_LONGEST_SECONDS": "5",
        "NOT_VISIBLE_FOR_SECONDS": "30" if shape.reconciling else "600",
        "PARKED_PROBE_EVERY_SECONDS": "3",
        "FORMS_DISCOVER_SECONDS": "20",
        "BACKFILL_NEW_FORMS": str(shape.reconciling).lower(),
        "RECONCILE_EVERY_SECONDS": "15" if shape.reconciling else NEVER,
        "RECONCILE_OVERLAP_SECONDS": "60",
        "RECONCILE_LAG_SECONDS": "5",
        "RECONCILE_DEEP_SECONDS": str(shape.deep) if shape.reconciling else NEVER,
    }


def sandbox_of(shape: Shape) -> dict[str, object]:
    """A Meta with exact short windows, which delivers again for so long that no receiver is away for longer."""
    return {
        "pages": shape.pages,
        "leads": HISTORY if shape.reconciling else 0,
        "seed": shape.seed,
        "latency_seconds": LATENCY_SECONDS,
        "limit_window_seconds": round(shape.window),
        "limit_floor": 4_800,
        "redelivery_span_seconds": 300,
        "delivery_concurrency": 16,
    }
