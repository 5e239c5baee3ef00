"""What a soak did, what was seen meanwhile, and what is there at the end -> facts -> Finding.

It strikes nothing and waits for nothing; what is wrong is the judge's (invariants.py). Invariant: servers are asked
past every proxy, so that no fault hides what it did.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.system.soak import leaks, truth
from tests.system.soak.errands import Orders
from tests.system.soak.figures import covered, greatest
from tests.system.soak.invariants import Facts, Violation, violations
from tests.system.soak.plan import Fault
from tests.system.soak.rig import Rig
from tests.system.soak.shape import Shape
from tests.system.soak.strikes import Striker
from tests.system.soak.watch import Sample
from tests.system.whole import Whole

NOT_LIVE = "leads that only a reconciliation brought"
AGES = ("oldest entry, seconds", "oldest waiting row, seconds")


@dataclass(slots=True)
class Finding:
    """What a soak came to."""

    violations: list[Violation]
    states: Mapping[str, int]
    leads: int
    struck: Counter[str]
    missed: Counter[str]
    told: dict[str, float] = field(default_factory=dict)
    log: Path | None = None
    plan_so_far: tuple[Fault, ...] = ()

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations


@dataclass(frozen=True, slots=True)
class Seen:
    """How a soak went: whom it struck and where nobody was there, looks at the stack, and `excused`, the stretches of
    unix time in which the receiver may be late. `poor` is the Page whose limit is too small."""

    striker: Striker
    struck: Counter[str]
    missed: Counter[str]
    samples: Sequence[Sample]
    excused: Sequence[tuple[float, float]]
    poor: str


def facts_of_rows(stack: Whole, orders: Orders, *, emptied: bool) -> Facts:
    """What the rows hold beside what Meta holds. `emptied`: Redis was, meanwhile."""
    leads, rows = truth.compare(stack)
    return Facts(
        truth=leads,
        rows=rows,
        results=truth.read_results(stack, orders.deleted),
        forgotten=frozenset(orders.done),
        perhaps_forgotten=frozenset(orders.tried),
        deleted=frozenset(orders.deleted),
        emptied=emptied,
    )


def judged(rig: Rig, shape: Shape, seen: Seen) -> Finding:
    """All of it: what is wrong, and the figures."""
    stack, striker = rig.stack, seen.striker
    repaired, answers = truth.read_repaired(stack), truth.read_answers(stack)
    ages = {name: max((sample.sizes.get(name, 0.0) for sample in seen.samples), default=0.0) for name in AGES}
    facts = replace(
        facts_of_rows(stack, striker.orders, emptied=seen.struck["redis_flush"] > 0),
        moved_back=truth.moved_back(stack),
        windows=truth.read_windows(stack),
        answers=answers,
        excused=seen.excused,
        left={**truth.read_left(stack), **({} if shape.reconciling else {NOT_LIVE: repaired})},
        ages=ages,
        most_age=shape.most_age,
        answer_seconds=shape.answer,
        grown=tuple(leaks.growing(seen.samples, tables_per_minute=shape.pages * 40)),
        exposed=truth.look_for_canaries(stack),
        not_done=tuple(striker.errands.given_up),
    )
    return Finding(
        violations=violations(facts),
        states=truth.read_states(stack),
        leads=len(facts.truth | facts.deleted),
        struck=seen.struck,
        missed=seen.missed,
        told={
            "deliveries answered": len(answers),
            "answered 503": sum(a.status == "503" for a in answers),
            "slowest 200, seconds": max((a.seconds for a in answers if a.status == "200"), default=0.0),
            "stretches excused": len(seen.excused),
            "seconds excused": covered(seen.excused),
            "brought by reconciling": repaired,
            "Graph calls": stack.get("calls")["calls"],
            "calls over a limit": sum(w.over_limit for w in facts.windows),
            "most calls in the poor Page's window": next(
                (w.most for w in facts.windows if w.page_id == seen.poor), 0
            ),
            "its limit": shape.poor_calls,
            "forgotten": len(facts.forgotten),
            "deleted at Meta": len(facts.deleted),
            "replies lost": sum(proxy.lost for proxy in rig.proxies.values()),
            **ages,
            **greatest(seen.samples),
        },
    )
