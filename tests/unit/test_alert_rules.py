"""Each alarm of deploy/prometheus/alerts.yml, from the exporter's own series: it fires in its fault and only there.

A history is half an hour of a leadsync that is well, a fault, and what comes after; each minute of it is what the
exporter would have served. Where promtool is installed, Prometheus itself judges the same histories.
"""

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.facts import budgets, facts, families_of, redis_facts, row_facts
from tests.promql import At, Labels, parse
from worker.budget.ledger import ScopeState
from worker.exposition import Facts

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yml"
STEP = 60.0
WELL = 30
"""Minutes before the fault."""
AFTER = 65
"""Minutes after it: the longest look back of a rule, and a little."""
EPOCH = 0.0
"""promtool's histories begin at 0."""
DAY = 86_400.0
MEMORY = 512_000_000

Fault = Callable[[float, int], Facts | None]
"""What the exporter sees at a moment, so many minutes into the fault; None: it does not answer."""


def _redis(**changed: Any) -> Fault:
    return lambda at, _: replace(facts(at), redis=redis_facts(at, **changed))


def _rows(**changed: Any) -> Fault:
    return lambda at, _: replace(facts(at), rows=row_facts(at, **changed))


def _progress(who: str) -> Fault:
    def fault(at: float, minute: int) -> Facts:
        seen = dict.fromkeys(("live", "backfill", "upkeep", "schedule"), at - 1)
        return replace(facts(at), redis=redis_facts(at, progress={**seen, who: at - 60.0 * minute}))

    return fault


def _set_back(*, hours: float) -> Fault:
    """Everybody stands still since a clock was set back by so much."""
    return lambda at, minute: replace(
        facts(at),
        redis=redis_facts(
            at,
            progress=dict.fromkeys(
                ("live", "backfill", "upkeep", "schedule"), at - 60.0 * minute + hours * 3_600
            ),
        ),
    )


def _deliveries(**growing: int) -> Fault:
    """So many more each minute; the others stand still."""
    return lambda at, minute: replace(
        facts(at),
        redis=redis_facts(
            at, deliveries={"deliveries": 100, **{name: each * minute for name, each in growing.items()}}
        ),
    )


def _overdue(at: float, minute: int) -> Facts:
    since = datetime.fromtimestamp(at - 60.0 * minute, UTC)
    waiting = ({"reason": "graph_unavailable", "count": 3, "oldest": since},)
    return replace(facts(at), rows=row_facts(at, overdue_since=since, waiting=waiting))


def _parked(reason: str) -> Fault:
    def fault(at: float, minute: int) -> Facts:
        parked_at = datetime.fromtimestamp(at - 60.0 * minute, UTC)
        (page,) = row_facts(at).health
        ill = {**page, "token": "refused"}
        pages = {"known": 1, "parked": 1, "held": 0}
        parked = ({"page_id": "7", "reason": reason, "parked_at": parked_at},)
        return replace(facts(at), rows=row_facts(at, pages=pages, parked=parked, health=(ill,)))

    return fault


def _health(**changed: Any) -> Fault:
    def fault(at: float, _: int) -> Facts:
        (page,) = row_facts(at).health
        expires = {
            name: datetime.fromtimestamp(at, UTC) + v for name, v in changed.items() if name == "expires_at"
        }
        return replace(facts(at), rows=row_facts(at, health=({**page, **changed, **expires},)))

    return fault


def _closed(at: float, _: int) -> Facts:
    return replace(facts(at), budgets=replace(budgets(), scopes=(ScopeState("app", 900.0, 3, 100.0, 5.0),)))


def _spent(share: float) -> Fault:
    spent = {"live": int(4_560 * 0.05), "backfill": int(4_560 * (share - 0.05))}
    return lambda at, _: replace(facts(at), budgets=budgets(spent))


def _reconciled(**found: int) -> dict[str, int]:
    return {"listed": 100, "missing": 0, "repaired": 0, "unexplained": 0, **found}


@dataclass(frozen=True)
class History:
    """A fault, for how many minutes it lasts, and the alarms that it raises."""

    fault: Fault
    minutes: int
    raises: tuple[str, ...]


HISTORIES: dict[str, History] = {
    "the exporter dies": History(lambda at, _: None, 10, ("LeadsyncExporterAway",)),
    "Redis is away": History(
        lambda at, _: replace(facts(at), redis=None, budgets=None), 10, ("LeadsyncNeighbourAway",)
    ),
    "Postgres is away": History(lambda at, _: replace(facts(at), rows=None), 10, ("LeadsyncNeighbourAway",)),
    "the schedule dies": History(_progress("schedule"), 10, ("LeadsyncScheduleSilent",)),
    "the live workers die": History(_progress("live"), 12, ("LeadsyncWorkersSilent",)),
    "the upkeep workers die": History(_progress("upkeep"), 12, ("LeadsyncWorkersSilent",)),
    "all stand still since the clock was set back": History(
        _set_back(hours=2), 10, ("LeadsyncScheduleSilent", "LeadsyncWorkersSilent")
    ),
    "references lie in the stream": History(
        lambda at, minute: replace(
            facts(at), redis=redis_facts(at, entries=50, oldest_at=at - 60.0 * minute)
        ),
        10,
        ("LeadsyncOldestPending",),
    ),
    "waiting leads are not read": History(_overdue, 20, ("LeadsyncWaitingOverdue",)),
    "leads die": History(_rows(dead=({"reason": "not_visible", "count": 1},)), 30, ("LeadsyncDeadLetters",)),
    "a lead is listed and cannot be stored": History(
        _rows(reconciled=_reconciled(missing=1, unexplained=1)), 40, ("LeadsyncReconcileGap",)
    ),
    "a webhook was lost": History(
        _rows(reconciled=_reconciled(missing=2, repaired=2)), 70, ("LeadsyncReconcileRepaired",)
    ),
    "a token is revoked": History(_parked("token_refused"), 20, ("LeadsyncPageParked",)),
    "a Page's subscription is gone": History(
        _health(subscription="missing"), 20, ("LeadsyncPageNotAnnounced",)
    ),
    "a Page's webhooks are silent": History(_health(webhooks="silent"), 20, ("LeadsyncPageNotAnnounced",)),
    "a token ends in five days": History(
        _health(token="expiring", expires_at=timedelta(days=5)), 20, ("LeadsyncTokenExpiring",)
    ),
    "a Page's calls are spent": History(_spent(0.99), 20, ("LeadsyncBudgetNearlyGone",)),
    "Meta keeps the app closed": History(_closed, 40, ("LeadsyncClosedByMeta",)),
    "Redis fills": History(_redis(memory=int(0.7 * MEMORY)), 10, ("LeadsyncStreamFilling",)),
    "half a million references": History(_redis(entries=500_001), 10, ("LeadsyncStreamFilling",)),
    "deliveries get 503": History(_deliveries(queue_unavailable=2), 15, ("LeadsyncDeliveriesRefused",)),
    "the app secret is wrong": History(_deliveries(unsigned=2), 20, ("LeadsyncSecretRefused",)),
    "a body cannot be read": History(_deliveries(set_aside=1, deliveries=1), 5, ("LeadsyncSetAside",)),
    "alerts do not go out": History(
        _rows(alerts={"waiting": 1, "oldest": None}), 70, ("LeadsyncAlertsNotSent",)
    ),
    # What is as it should be raises nothing.
    "all is well": History(lambda at, _: facts(at), 70, ()),
    "a Page is parked by hand": History(_parked("by_hand"), 20, ()),
    "a backfill spends its share": History(_spent(0.95), 20, ()),
    "a stranger sends what is unsigned": History(_deliveries(unsigned=2, deliveries=1), 20, ()),
    "Redis is emptied": History(_redis(totals={}, deliveries={}), 20, ()),
    "a neighbour is away for a minute": History(lambda at, _: replace(facts(at), rows=None), 1, ()),
}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def seconds(duration: str) -> float:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3_600}[duration[-1]]


def scraped(shown: Facts | None) -> dict[Labels, float]:
    """What Prometheus has of one scrape: the exporter's series, and whether there was an answer."""
    up = {frozenset({"__name__": "up", "job": "leadsync"}.items()): float(shown is not None)}
    if shown is None:
        return up
    return up | {
        frozenset({"__name__": sample.name, "job": "leadsync", **sample.labels}.items()): sample.value
        for family in families_of(shown)
        for sample in family.samples
        if sample.name in asked_for()
    }


@cache
def asked_for() -> set[str]:
    """The series that the rules ask for."""
    return {name for rule in rules() for name in re.findall(r"\bleadsync_[a-z_]+", rule["expr"])}


@cache
def well(minute: int) -> Mapping[Labels, float]:
    return scraped(facts(EPOCH + STEP * minute))


def recorded(history: History) -> list[Mapping[Labels, float]]:
    """What each minute's scrape brought."""
    ill = [
        scraped(history.fault(EPOCH + STEP * (WELL + minute), minute)) for minute in range(history.minutes)
    ]
    after = range(WELL + history.minutes, WELL + history.minutes + AFTER)
    return [*map(well, range(WELL)), *ill, *map(well, after)]


def raised(scrapes: Sequence[Mapping[Labels, float]]) -> dict[str, set[int]]:
    """The minutes in which each alarm was firing."""
    samples: defaultdict[str, defaultdict[Labels, list[tuple[float, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for minute, scrape in enumerate(scrapes):
        for labels, value in scrape.items():
            samples[dict(labels)["__name__"]][labels].append((EPOCH + STEP * minute, value))
    firing: defaultdict[str, set[int]] = defaultdict(set)
    for rule in rules():
        tree, lasts = parse(rule["expr"]), seconds(rule.get("for", "0s"))
        since: dict[Labels, int] = {}
        for minute in range(len(scrapes)):
            told = At(samples, EPOCH + STEP * minute, STEP).value(tree)
            assert isinstance(told, dict)
            keys = {frozenset(pair for pair in labels if pair[0] != "__name__") for labels in told}
            since = {key: since.get(key, minute) for key in keys}
            if any((minute - began) * STEP >= lasts for began in since.values()):
                firing[rule["alert"]].add(minute)
    return dict(firing)


@cache
def outcome(name: str) -> dict[str, set[int]]:
    return raised(recorded(HISTORIES[name]))


@pytest.mark.parametrize("name", HISTORIES)
def test_each_alarm_fires_in_its_fault_and_only_there(name: str) -> None:
    """Exactly the alarms of this fault, none before it began, and none any more at the end."""
    history = HISTORIES[name]
    firing = outcome(name)
    assert set(firing) == set(history.raises)
    for minutes in firing.values():
        assert min(minutes) >= WELL
        assert WELL + history.minutes + AFTER - 1 not in minutes


def test_every_alarm_has_a_fault() -> None:
    """No rule is there that was not seen to fire."""
    assert {rule["alert"] for rule in rules()} == {alarm for h in HISTORIES.values() for alarm in h.raises}


def test_rules_ask_for_series_that_the_exporter_has() -> None:
    """A misspelt series would never fire; all names but Prometheus' own `up` are served."""
    served = {f"{family.name}{'_total' * (family.type == 'counter')}" for family in families_of(facts(EPOCH))}
    assert asked_for() <= served


def test_each_alarm_says_what_is_wrong_and_what_to_do_and_is_documented() -> None:
    """A severity, a summary and something to type; and a paragraph in docs/metrics.md."""
    told = (ROOT / "docs/metrics.md").read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "action"}
        assert f"`{rule['alert']}`" in told


def test_prometheus_itself_judges_the_same(tmp_path: Path) -> None:
    """promtool on the same histories: each alarm fires from the same minute on, and not before."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("this machine has no promtool; tests/promql.py stands for it")
    tests = [_unit_test(name) for name in HISTORIES]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    told = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, text=True, timeout=120)
    assert told.returncode == 0, told.stdout[-3_000:] + told.stderr[-3_000:]


def _unit_test(name: str) -> dict[str, Any]:
    """A history in promtool's own words. https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/"""
    scrapes, firing = recorded(HISTORIES[name]), outcome(name)
    series = sorted({labels for scrape in scrapes for labels in scrape}, key=sorted)
    checks: list[tuple[str, int, bool]] = []
    for rule in rules():
        minutes = sorted(firing.get(rule["alert"], ()))
        moments = {WELL - 1, len(scrapes) - 1, *(minutes[:1]), *(m - 1 for m in minutes[:1])}
        checks += [(rule["alert"], minute, minute in minutes) for minute in sorted(moments)]
    return {
        "interval": "1m",
        "name": name,
        "input_series": [
            {"series": _written(labels), "values": " ".join(_value(scrape.get(labels)) for scrape in scrapes)}
            for labels in series
        ],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) > 0',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
            for alert, minute, fires in checks
        ],
    }


def _written(labels: Labels) -> str:
    about = dict(labels)
    name = about.pop("__name__")
    inner = ",".join(f'{label}="{value}"' for label, value in sorted(about.items()))
    return f"{name}{{{inner}}}"


def _value(value: float | None) -> str:
    return "stale" if value is None else repr(value)
