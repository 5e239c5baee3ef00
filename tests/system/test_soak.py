"""The small form of tests/system/soak: every neighbour is hit within two minutes; the long form is `make soak`."""

import pytest

from tests.system.soak.plan import make_plan
from tests.system.soak.report import report
from tests.system.soak.run import run
from tests.system.soak.shape import Shape
from tests.system.soak.waves import make_waves

SEED = 11
SECONDS = 120.0
RATE = 10.0
FAULTS = 36
QUICK = (
    "kill", "term", "stop", "redis_kill", "redis_flush", "postgres_quit", "postgres_terminate", "cut", "refuse",
    "delay", "freeze", "lose_replies", "graph", "graph_deadly", "graph_blocking", "token", "forget", "delete", "clock",
)  # fmt: skip
"""Those that hold nothing up for longer than the test may take."""


def test_two_minutes_of_faults_cost_no_lead(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each lead is a row as Graph has it or erased by order, no Page went above its limit, nothing waits or shows."""
    shape = Shape(
        seconds=SECONDS,
        rate=RATE,
        window=20,
        settle=300,
        seed=SEED,
        poor_calls=60,
        # Machines that run tests are busy with others; the long form holds the receiver to its second.
        answer=5.0,
        most_age=360.0,
        keep=tmp_path_factory.getbasetemp(),
    )
    plan = make_plan(seconds=SECONDS, faults=FAULTS, seed=SEED, only=QUICK)
    finding = run(shape, plan, make_waves(seconds=SECONDS, rate=RATE, seed=SEED))
    assert finding.good, report(finding, SEED)
    assert finding.leads >= SECONDS * RATE
    assert sum(finding.struck.values()) > FAULTS / 2
