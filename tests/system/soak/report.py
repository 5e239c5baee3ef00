"""A finding -> text for a person: figures, and of a broken promise the seed, the plan and the log's tail."""

from collections import Counter
from pathlib import Path

from tests.system.soak.figures import tail
from tests.system.soak.finding import Finding
from tests.system.soak.plan import write_plan

SHOWN = 8
"""Violations of each rule."""
LOG_LINES = 60


def report(finding: Finding, seed: int) -> str:
    """All of it."""
    lines = [
        f"{finding.leads:,} leads, rows {dict(finding.states)}",
        f"struck {sum(finding.struck.values())}: {_counts(finding.struck)}",
    ]
    if finding.missed:
        lines.append(f"nobody was there for {sum(finding.missed.values())}: {_counts(finding.missed)}")
    lines += [f"  {name:<42} {_figure(value):>14}" for name, value in finding.told.items()]
    if finding.good:
        return "\n".join([*lines, "no violation"])
    lines += ["", f"VIOLATIONS: {len(finding.violations)}, seed {seed}"]
    by_rule = Counter(violation.rule for violation in finding.violations)
    lines += [f"  {rule}: {number}" for rule, number in by_rule.items()]
    for rule in by_rule:
        shown = [violation for violation in finding.violations if violation.rule == rule][:SHOWN]
        lines += [f"  {rule}: {v.leadgen_id} {v.told}" for v in shown]
    lines += ["", "the plan (keep it in a file, and --plan FILE carries it out again):"]
    lines.append(write_plan(finding.plan_so_far))
    if isinstance(finding.log, Path):
        lines += [f"the log of all processes is in {finding.log}; its end:", tail(finding.log, LOG_LINES)]
    return "\n".join(lines)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))


def _figure(value: float) -> str:
    return f"{value:,.2f}" if isinstance(value, float) and value % 1 else f"{value:,.0f}"
