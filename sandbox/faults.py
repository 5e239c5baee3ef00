"""Faults on demand: a plan of rules + one call -> the fault that befalls it, or none.

A rule names a class (an error of errors.CATALOG, or one of the classes below), whom it befalls (pages,
leads, kinds of call), how often, and for how long. Rules are tried in order and the first that strikes
wins. Nothing is answered here: graph.py turns a fault into an answer, transport.py sends it the wrong way.

Invariant: with the same seed, rules and calls in the same order, the same calls are struck.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final
from zlib import crc32

from sandbox.errors import CATALOG, STALE_CURSORS
from sandbox.mixing import share

TRANSPORT: Final = frozenset(
    {
        "5xx",
        "html_5xx",
        "html_200",
        "not_json",
        "truncated",
        "cut_body",
        "ok_with_error",
        "timeout",
        "slow_body",
        "huge_body",
        "redirect",
        "reset",
        "close",
    }
)
"""Classes that befall a whole HTTP answer. With `"via": "batch"` they befall single batch items instead."""
BEHAVIOUR: Final = STALE_CURSORS.keys() | {
    "null_items",
    "not_visible",
    "ad_fields_refused",
    "ad_fields_missing",
}
"""Classes that befall one Graph call: a null item; an unknown lead; ad fields refused or left out; a listing's
cursor that no longer holds."""
CLASSES: Final = TRANSPORT | BEHAVIOUR | CATALOG.keys()

LEAD_READS: Final = frozenset({"lead", "form_leads", "ad_leads"})
LISTINGS: Final = frozenset({"form_leads", "ad_leads", "page_forms"})
KINDS: Final = LEAD_READS | {
    "batch",
    "page_forms",
    "page",
    "form",
    "ad",
    "user",
    "accounts",
    "debug_token",
    "oauth",
    "test_leads",
    "subscribed_apps",
    "subscriptions",
    "other",
}


class PlanRefused(ValueError):
    """A fault plan that cannot be carried out; the message names every problem."""


@dataclass(frozen=True, slots=True)
class FaultRule:
    """Whom one class of fault befalls, how often and how long. Empty sets mean everyone."""

    name: str
    rate: float = 1.0
    pages: frozenset[str] = frozenset()
    leads: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    via: str = ""
    """`single` or `batch`: only calls made that way."""
    count: int | None = None
    """Strike at most so often."""
    seconds: float | None = None
    """Strike only for so long after the rule was given."""
    sticky: bool = False
    """Draw once per lead instead of once per call: the same leads are struck each time."""
    hold_seconds: float = 60.0
    """timeout: how long the answer is held before the connection is closed."""
    bytes_per_second: int = 200
    """slow_body: the speed of the drip."""
    size: int = 64 * 1024 * 1024
    """huge_body: bytes of the answer."""
    status: int = 0
    """5xx, html_5xx, redirect: the status, if not the usual one."""
    minutes: int | None = None
    """Throttles: estimated_time_to_regain_access; by default what is left of `seconds`."""
    for_seconds: float = 30.0
    """not_visible: how long after its creation a struck lead stays unknown."""
    fields: frozenset[str] = frozenset()
    """ad_fields_missing: which are left out; by default all ad fields."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that strikes now."""

    rule: FaultRule
    minutes: int

    @property
    def name(self) -> str:
        """The class."""
        return self.rule.name


@dataclass(frozen=True, slots=True)
class Target:
    """One call as the plan sees it."""

    kind: str
    page_id: str | None
    lead_id: str | None = None
    lead_age: float = 0.0
    via: str = "single"
    paged: bool = False
    """Whether it comes with a cursor."""


@dataclass(slots=True)
class _Active:
    rule: FaultRule
    given_at: float
    seed: int
    draws: int = 0
    strikes: int = 0


@dataclass(slots=True)
class FaultPlan:
    """The rules in force, and how often each has struck."""

    seed: int
    _active: list[_Active] = field(default_factory=list)

    def give(self, rules: Iterable[FaultRule], now: float, *, merge: bool = False) -> None:
        """Put `rules` in force, instead of the present ones or (merge) behind them."""
        kept = self._active if merge else []
        new = [_Active(rule, now, crc32(f"{len(kept)}:{rule.name}".encode())) for rule in rules]
        self._active = [*kept, *new]

    def clear(self) -> None:
        """No more faults."""
        self._active = []

    @property
    def in_force(self) -> bool:
        """Whether there is any rule; most calls need not be looked at closer."""
        return bool(self._active)

    def strike(self, target: Target, now: float) -> Fault | None:
        """The fault that befalls this call."""
        for active in self._active:
            if _concerns(active, target, now) and self._drawn(active, target):
                active.strikes += 1
                return Fault(active.rule, _minutes(active, now))
        return None

    def report(self, now: float) -> list[dict[str, object]]:
        """The rules in force as JSON, with how often each struck."""
        return [
            {**rule_json(active.rule), "strikes": active.strikes, "active": not _over(active, now)}
            for active in self._active
        ]

    def _drawn(self, active: _Active, target: Target) -> bool:
        rule = active.rule
        if rule.rate >= 1:
            return True
        if target.lead_id is not None and (rule.sticky or rule.name == "not_visible"):
            return share(self.seed, active.seed, int(target.lead_id)) < rule.rate
        active.draws += 1
        return share(self.seed, active.seed, active.draws) < rule.rate


def _over(active: _Active, now: float) -> bool:
    rule = active.rule
    if rule.seconds is not None and now >= active.given_at + rule.seconds:
        return True
    return rule.count is not None and active.strikes >= rule.count


def _concerns(active: _Active, target: Target, now: float) -> bool:
    rule = active.rule
    if _over(active, now) or not _reaches(rule, target):
        return False
    if rule.pages and target.page_id not in rule.pages:
        return False
    return not rule.leads or target.lead_id in rule.leads


def _reaches(rule: FaultRule, target: Target) -> bool:
    """Whether the rule's class and kinds fit this kind of call."""
    if rule.kinds and target.kind not in rule.kinds:
        return False
    if rule.via and target.via != rule.via:
        return False
    if rule.name == "not_visible":
        return target.kind == "lead" and target.lead_age < rule.for_seconds
    if rule.name == "null_items":
        return target.via == "batch"
    if rule.name in STALE_CURSORS:
        return target.paged and target.kind in LISTINGS
    if rule.name in BEHAVIOUR:
        return target.kind in LEAD_READS
    if rule.name in TRANSPORT:
        return bool(rule.via) or target.via == "single"
    return bool(rule.kinds) or target.kind != "batch"


def _minutes(active: _Active, now: float) -> int:
    rule = active.rule
    if rule.minutes is not None:
        return rule.minutes
    left = 60.0 if rule.seconds is None else active.given_at + rule.seconds - now
    return max(1, -(-int(left) // 60))


def parse_rules(text: str) -> tuple[FaultRule, ...]:
    """The rules in a JSON text: one rule, a list of them, or {"rules": [...]}."""
    try:
        plan = json.loads(text)
    except (ValueError, RecursionError):
        raise PlanRefused("a fault plan is JSON") from None
    if isinstance(plan, dict):
        plan = plan.get("rules", [plan])
    if not isinstance(plan, Sequence) or isinstance(plan, str):
        raise PlanRefused("a fault plan is a list of rules")
    return tuple(rule_from(rule) for rule in plan)


def rule_from(given: object) -> FaultRule:
    """One rule as JSON -> FaultRule; the class may be written `class` or `name`."""
    if not isinstance(given, Mapping):
        raise PlanRefused("a fault rule is an object")
    known = {each.name: each.default for each in fields(FaultRule)}
    values: dict[str, object] = {}
    problems = []
    for key, value in given.items():
        name = "name" if key == "class" else key
        if name not in known:
            problems.append(f"{key}: no such setting of a rule")
        elif isinstance(known[name], frozenset):
            values[name] = _texts(value)
        else:
            values[name] = value
    if values.get("name") not in CLASSES:
        problems.append(f"class must be one of {', '.join(sorted(CLASSES))}")
    problems += [f"{name} must be a number" for name in _NUMBERS if not _is_number(values.get(name))]
    kinds = values.get("kinds", frozenset())
    if isinstance(kinds, frozenset) and not kinds <= KINDS:
        problems.append(f"kinds must be among {', '.join(sorted(KINDS))}")
    if values.get("via", "") not in ("", "single", "batch"):
        problems.append("via must be single or batch")
    if problems:
        raise PlanRefused("; ".join(problems))
    return FaultRule(**values)  # type: ignore[arg-type]


_NUMBERS: Final = (
    "rate", "count", "seconds", "hold_seconds", "bytes_per_second", "size", "status", "minutes",
    "for_seconds",
)  # fmt: skip


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _texts(value: object) -> frozenset[str]:
    if isinstance(value, str | int):
        return frozenset({str(value)})
    if isinstance(value, Iterable):
        return frozenset(str(each) for each in value)
    raise PlanRefused("pages, leads, kinds and fields are lists")


def rule_json(rule: FaultRule) -> dict[str, object]:
    """The rule as one gives it; what is as by default is left out."""
    shown: dict[str, object] = {"class": rule.name, "rate": rule.rate}
    for each in fields(FaultRule):
        value = getattr(rule, each.name)
        if each.name not in ("name", "rate") and value != each.default:
            shown[each.name] = sorted(value) if isinstance(value, frozenset) else value
    return shown
