"""What a process has counted and timed -> growth of totals that all processes share. Pure.

    count, observe, following -> take -> {field: growth}    (totals.py adds it up in Redis, exposition.py shows it)

It does no I/O and knows no clock. Invariants: label values are words of a closed set, anything else is `other`, so that
nothing that Meta, a person or a token says ever becomes a series; what `take` returned is never returned again.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

OTHER: Final = "other"
OK: Final = "ok"
GIVEN_UP: Final = "given_up"
"""The process ended, or a command did, before the answer came."""
SUM: Final = "sum"
INFINITE: Final = "+Inf"
MICROSECONDS: Final = 1_000_000
"""Totals are whole numbers, which Redis adds up without an error; sums of seconds are kept in millionths."""


@dataclass(frozen=True, slots=True)
class Series:
    """A counter, or with `bounds` (upper ones, in seconds) a histogram: its labels with all values that they take."""

    name: str
    help: str
    labels: Mapping[str, tuple[str, ...]]
    bounds: tuple[float, ...] = ()

    def values(self, values: tuple[str, ...]) -> tuple[str, ...]:
        """The same, with what is not in the set as `other`."""
        allowed = zip(values, self.labels.values(), strict=True)
        return tuple(value if value in known else OTHER for value, known in allowed)

    def field(self, values: tuple[str, ...], part: str = "") -> str:
        """The field of the totals that these label values are added up in; `part` of a histogram: a bound, or SUM."""
        return " ".join(filter(None, (self.name, *self.values(values), part)))


KINDS: Final = (
    "lead", "leads", "forms", "form", "batch", "page", "accounts", "debug_token", "oauth", "subscribed_apps",
    "subscriptions", "test_leads",
)  # fmt: skip
"""What a Graph call asks for. `leads` and `forms` are listings; `batch`: one that failed as a whole."""

RESULTS: Final = (
    OK, "graph_unavailable", "throttled", "too_much_asked", "not_visible", "token_refused", "permission_refused",
    "proof_refused", "request_refused", "callback_refused", "second_test_lead", "lead_malformed", GIVEN_UP,
    "answer_too_large",
)  # fmt: skip
"""How a Graph call ended: the `reason` of an error of errors.py."""

SPANS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)

CALLS: Final = Series(
    "graph_calls",
    "Graph calls by what was asked for and how it ended. An item of a batch is a call, as Meta counts.",
    {"kind": KINDS, "result": RESULTS},
)
REQUEST_SECONDS: Final = Series(
    "graph_request_seconds",
    "How long HTTP requests to Graph took, answered or not. A batch is one.",
    {"kind": KINDS},
    bounds=SPANS,
)
REFERENCES: Final = Series(
    "references",
    "What became of lead references that a worker took up; a snoozed or retried one comes again in lane waiting.",
    {
        "lane": ("live", "waiting"),
        "outcome": (
            "stored", "snoozed", "retried", "parked", "dead", "known", "joined", "left_in_part", "given_back",
        ),
    },
)  # fmt: skip
WEBHOOK_TO_ROW: Final = Series(
    "webhook_to_row_seconds",
    "From the receiver having the webhook to the lead's row being committed, of every announced lead.",
    {},
    bounds=(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 86_400.0),
)
RECOVERED: Final = Series(
    "entries_recovered", "Stream entries taken over from a worker that died or stood still.", {}
)
SLICES: Final = Series(
    "slices",
    "What became of slices of the past that a worker walked.",
    {
        "outcome": (
            "done", "divided", "put_off", "given_back", "taken_away", "refused", "parked", "failed", "crashed",
        )
    },
)  # fmt: skip
COUNTED: Final = (REFERENCES, CALLS, REQUEST_SECONDS, WEBHOOK_TO_ROW, RECOVERED, SLICES)
"""Everything that is counted in processes."""


@dataclass(slots=True)
class _Followed:
    series: Series
    values: tuple[str, ...]
    counts: Mapping[str, int]
    seen: Counter[str]


class Meter:
    """One process' counts since they were last taken. Used from one thread only."""

    def __init__(self) -> None:
        self._growth: Counter[str] = Counter()
        self._followed: list[_Followed] = []

    def count(self, series: Series, *values: str, by: int = 1) -> None:
        """One more, or `by`."""
        self._growth[series.field(values)] += by

    def observe(self, series: Series, seconds: float, *values: str) -> None:
        """Something took so long; a clock that was set back makes it nothing."""
        self.observe_all(series, (seconds,), *values)

    def observe_all(self, series: Series, each: Iterable[float], *values: str) -> None:
        """Several things took so many seconds each."""
        told = [max(0.0, seconds) for seconds in each]
        for at, count in Counter(bisect_left(series.bounds, seconds) for seconds in told).items():
            bound = f"{series.bounds[at]:g}" if at < len(series.bounds) else INFINITE
            self._growth[series.field(values, bound)] += count
        self._growth[series.field(values, SUM)] += sum(round(seconds * MICROSECONDS) for seconds in told)

    @contextmanager
    def following(self, series: Series, counts: Mapping[str, int], *values: str) -> Iterator[None]:
        """While this lasts, what is added to `counts` counts too: its keys are the series' last label."""
        followed = _Followed(series, values, counts, Counter())
        self._followed.append(followed)
        try:
            yield
        finally:
            self._catch_up(followed)
            self._followed.remove(followed)

    def take(self) -> dict[str, int]:
        """All growth since the last time; it is the caller's now."""
        for followed in self._followed:
            self._catch_up(followed)
        taken, self._growth = self._growth, Counter()
        return {field: growth for field, growth in taken.items() if growth}

    def _catch_up(self, followed: _Followed) -> None:
        for word, count in followed.counts.items():
            self.count(followed.series, *followed.values, word, by=count - followed.seen[word])
            followed.seen[word] = count
