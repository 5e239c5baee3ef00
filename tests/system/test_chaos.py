"""The small form of tests/system/chaos.py; by hand it runs for as long and as hard as wanted."""

from tests.system.chaos import Plan, run


def test_kills_restarts_and_graph_errors_cost_no_lead() -> None:
    """Whatever is killed or restarted, and though Graph fails at times, each lead is one stored row as Graph has it."""
    finding = run(Plan(leads=1_200, kills=6, redis_restarts=1, postgres_restarts=1, rate=150, seed=3))
    assert finding.states == {"stored": 1_200}
    assert finding.differing == {}
    assert finding.moved_back == 0
