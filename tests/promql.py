"""The part of PromQL that deploy/prometheus/alerts.yml uses, for machines without Prometheus.

    expression -> tree;  tree, samples of each series, a moment -> a vector {labels: value}, or a number

What it does not know it refuses. It is held to Prometheus' own promtool where that is installed
(tests/unit/test_alert_rules.py). https://prometheus.io/docs/prometheus/latest/querying/
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TypeAlias

Labels: TypeAlias = frozenset[tuple[str, str]]
"""A series' labels; its name is the label `__name__`."""
Samples: TypeAlias = Mapping[str, Mapping[Labels, Sequence[tuple[float, float]]]]
"""Moments in unix seconds and values of each series, in order; by the series' names."""
Vector: TypeAlias = dict[Labels, float]
Value: TypeAlias = Vector | float

LOOK_BACK_SECONDS: Final = 300.0
"""A series whose newest sample is older is no more; so is one that a later scrape did not bring (`stale`)."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TOKEN: Final = re.compile(
    r'\s*(\d+(?:\.\d+)?|[a-zA-Z_:][\w:]*|"[^"]*"|==|!=|<=|>=|=~|!~|[-+*/<>=(){},\[\]])'
)
_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    "==": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
}  # fmt: skip
_CALCULATE: Final[dict[str, Callable[[float, float], float]]] = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a),
}  # fmt: skip
_STRENGTH: Final = {"or": 1, "and": 2, **dict.fromkeys(_COMPARE, 3), "+": 4, "-": 4, "*": 5, "/": 5}


@dataclass(slots=True)
class Node:
    """A step: `what` is number, select, call, sum or a binary operator."""

    what: str
    parts: list["Node"] = field(default_factory=list)
    about: Any = None


def parse(expression: str) -> Node:
    """The tree of an expression. Raises ValueError for what is not known here."""
    reader = _Reader(expression)
    tree = reader.binary(0)
    if reader.peek() is not None:
        raise ValueError(f"not known here: {reader.peek()} in {expression}")
    return tree


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = list(self._split(text.strip()))
        self._at = 0

    def _split(self, text: str) -> Iterator[str]:
        at = 0
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"not known here: {text[at:]}")
            yield found[0].strip()
            at = found.end()

    def peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def next(self, wanted: str | None = None) -> str:
        token = self.peek()
        if token is None or (wanted is not None and token != wanted):
            raise ValueError(f"{wanted or 'more'} expected, not {token}")
        self._at += 1
        return token

    def has(self, token: str) -> bool:
        if self.peek() != token:
            return False
        self._at += 1
        return True

    def binary(self, weakest: int) -> Node:
        left = self.single()
        while (operator := self.peek()) in _STRENGTH and _STRENGTH[operator or ""] > weakest:
            self.next()
            left = Node(operator or "", [left, self.binary(_STRENGTH[operator or ""])])
        return left

    def single(self) -> Node:
        token = self.next()
        if token == "(":
            inner = self.binary(0)
            self.next(")")
            return inner
        if token[0].isdigit():
            return Node("number", about=float(token))
        if token == "sum":
            return self.sum()
        if token in ("time", "absent", "delta", "increase"):
            self.next("(")
            parts = [] if self.peek() == ")" else [self.binary(0)]
            self.next(")")
            return Node("call", parts, token)
        return self.selector(token)

    def sum(self) -> Node:
        by: list[str] = []
        if self.has("by"):
            self.next("(")
            while not self.has(")"):
                by.append(self.next())
                self.has(",")
        self.next("(")
        inner = self.binary(0)
        self.next(")")
        return Node("sum", [inner], by)

    def selector(self, name: str) -> Node:
        matchers = [("__name__", "=", name)]
        if self.has("{"):
            while not self.has("}"):
                matchers.append((self.next(), self.next(), self.next().strip('"')))
                self.has(",")
        seconds = 0
        if self.has("["):
            seconds = int(self.next()) * _UNITS[self.next()]
            self.next("]")
        return Node("select", about=(matchers, seconds))


@dataclass(frozen=True, slots=True)
class At:
    """Samples as they are seen at a moment; each series' last sample is `stale` once a scrape did not bring it."""

    samples: Samples
    moment: float
    step: float

    def value(self, node: Node) -> Value:
        """What the expression is at that moment."""
        match node.what:
            case "number":
                return float(node.about)
            case "select":
                return self._now(*node.about)
            case "call":
                return self._call(node)
            case "sum":
                return self._sum(node)
        return _binary(node.what, *map(self.value, node.parts))

    def _chosen(self, matchers: Sequence[tuple[str, str, str]]) -> Iterator[Labels]:
        for labels in self.samples.get(matchers[0][2], ()):
            about = dict(labels)
            if all(_matches(about.get(name, ""), how, wanted) for name, how, wanted in matchers):
                yield labels

    def _now(self, matchers: Sequence[tuple[str, str, str]], _: int) -> Vector:
        found: Vector = {}
        for labels in self._chosen(matchers):
            known = self.samples[matchers[0][2]][labels]
            newest = bisect_right(known, (self.moment, math.inf)) - 1
            if newest >= 0 and self.moment - known[newest][0] < min(self.step, LOOK_BACK_SECONDS):
                found[labels] = known[newest][1]
        return found

    def _call(self, node: Node) -> Value:
        if node.about == "time":
            return self.moment
        (part,) = node.parts
        if node.about == "absent":
            told = self.value(part)
            equal = {(n, v) for n, how, v in part.about[0] if how == "=" and n != "__name__"}
            return {} if told else {frozenset(equal): 1.0}
        matchers, seconds = part.about
        grown: Vector = {}
        for labels in self._chosen(matchers):
            known = self.samples[matchers[0][2]][labels]
            first = bisect_left(known, (self.moment - seconds, -math.inf))
            window = known[first : bisect_right(known, (self.moment, math.inf))]
            if len(window) > 1:
                begins = self.moment - seconds
                grown[_unnamed(labels)] = _growth(
                    window, begins, self.moment, counter=node.about == "increase"
                )
        return grown

    def _sum(self, node: Node) -> Vector:
        sums: Vector = {}
        told = self.value(node.parts[0])
        assert isinstance(told, dict)
        for labels, value in told.items():
            key = frozenset((name, text) for name, text in labels if name in node.about)
            sums[key] = sums.get(key, 0.0) + value
        return sums


def _matches(text: str, how: str, wanted: str) -> bool:
    if how in ("=", "!="):
        return (text == wanted) == (how == "=")
    return bool(re.fullmatch(wanted, text)) == (how == "=~")


def _unnamed(labels: Labels) -> Labels:
    return frozenset(pair for pair in labels if pair[0] != "__name__")


def _growth(window: Sequence[tuple[float, float]], begins: float, ends: float, *, counter: bool) -> float:
    """https://github.com/prometheus/prometheus/blob/v2.42.0/promql/functions.go extrapolatedRate"""
    grown = window[-1][1] - window[0][1]
    if counter:
        grown += sum(before[1] for before, after in pairwise(window) if after[1] < before[1])
    sampled = window[-1][0] - window[0][0]
    apart = sampled / (len(window) - 1)
    to_start, to_end = window[0][0] - begins, ends - window[-1][0]
    if counter and grown > 0 and window[0][1] >= 0:
        to_start = min(to_start, sampled * window[0][1] / grown)
    span = sampled + sum(gap if gap < apart * 1.1 else apart / 2 for gap in (to_start, to_end))
    return grown * span / sampled


def _binary(operator: str, left: Value, right: Value) -> Value:
    if operator in ("and", "or"):
        assert isinstance(left, dict)
        assert isinstance(right, dict)
        keys = {_unnamed(labels) for labels in (right if operator == "and" else left)}
        if operator == "and":
            return {labels: value for labels, value in left.items() if _unnamed(labels) in keys}
        return left | {labels: value for labels, value in right.items() if _unnamed(labels) not in keys}
    if isinstance(left, float) and isinstance(right, float):
        if operator in _COMPARE:
            raise ValueError("comparing two numbers needs bool, which is not known here")
        return _CALCULATE[operator](left, right)
    return _over_vectors(operator, left, right)


def _over_vectors(operator: str, left: Value, right: Value) -> Vector:
    pairs: list[tuple[Labels, float, float, float]] = []
    if isinstance(left, dict) and isinstance(right, dict):
        others = {_unnamed(labels): value for labels, value in right.items()}
        pairs = [
            (labels, a, others[_unnamed(labels)], a)
            for labels, a in left.items()
            if _unnamed(labels) in others
        ]
    elif isinstance(left, dict):
        assert isinstance(right, float)
        pairs = [(labels, a, right, a) for labels, a in left.items()]
    elif isinstance(right, dict):
        pairs = [(labels, left, b, b) for labels, b in right.items()]
    if operator in _COMPARE:
        return {labels: kept for labels, a, b, kept in pairs if _COMPARE[operator](a, b)}
    return {_unnamed(labels): _CALCULATE[operator](a, b) for labels, a, b, _ in pairs}
