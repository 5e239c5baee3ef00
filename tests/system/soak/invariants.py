"""Facts of a settled soak -> violations of what leadsync promises. Pure; truth.py gathers the facts.

Every lead of Meta's is one stored row as Graph has it, or erased where somebody ordered that; what Meta no longer has
may be a dead letter for a reason that Graph gave. No Page went above its limit, the receiver answered in time, nothing
is left over.
Invariant: without a violation each fact was looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

SAMPLE_ID = "444444444444"
"""Of the dashboard's sample, which is no lead."""
TRUE_OF: Mapping[str, frozenset[str]] = {
    "not_visible": frozenset({"100/33", "103/as_100", "not_visible"}),
    "request_refused": frozenset({"100", "803", "2500", "15", "100/1487390"}),
}
"""The reason of a dead letter -> results of which one makes it true, by the sandbox's own record of that lead."""
DROPPED = frozenset({"ServerDisconnectedError", "ClientOSError", "ClientConnectionResetError"})
DROPPED_SECONDS = 0.1
DROPPED_SHARE = 0.005
"""Of all attempts: a kept connection may be closed by one end in the moment in which the other uses it. Beyond this it
is more than that."""
GOOD_STATUSES = frozenset({"200", "503"})


@dataclass(frozen=True, slots=True)
class Found:
    """One row: its state and reason, and the fields in which a stored one differs from Graph's answer."""

    state: str
    reason: str | None = None
    differs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PageWindow:
    """One Page's window as the sandbox counted it: the most calls it held, and calls that found it full."""

    page_id: str
    limit: int
    most: int
    over_limit: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One attempt to deliver: when, how long it took, and its status or the error's name."""

    at: float
    seconds: float
    status: str


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known once the load and the faults are over."""

    truth: frozenset[str]
    rows: Mapping[str, Found]
    results: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    forgotten: frozenset[str] = frozenset()
    perhaps_forgotten: frozenset[str] = frozenset()
    deleted: frozenset[str] = frozenset()
    emptied: bool = False
    """Whether Redis lost what it had taken: what Meta does not list either is then gone."""
    moved_back: tuple[str, ...] = ()
    windows: tuple[PageWindow, ...] = ()
    answers: Sequence[Answer] = ()
    excused: Sequence[tuple[float, float]] = ()
    """Stretches of time in which the receiver, or the machine, could not answer."""
    left: Mapping[str, float] = field(default_factory=dict)
    """What is still to be done, by name; all of it should be 0."""
    ages: Mapping[str, float] = field(default_factory=dict)
    """The greatest age that something waiting ever had, in seconds, by name."""
    most_age: float = 600.0
    answer_seconds: float = 1.0
    grown: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    """Places where a token, a secret or an answer lay that ought not to lie there."""
    not_done: tuple[str, ...] = ()
    """Orders that were given again and again and never carried out."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken; `leadgen_id` where it is about one lead."""

    rule: str
    told: str
    leadgen_id: str = ""


def violations(facts: Facts) -> list[Violation]:
    """All of them; empty where every promise was kept."""
    return [
        *_leads(facts),
        *_strangers(facts),
        *(Violation("a stored lead stays stored", i, i) for i in facts.moved_back),
        *_windows(facts.windows),
        *_answers(facts),
        *(Violation("everything ends", f"{name}: {n:,.0f} left") for name, n in facts.left.items() if n),
        *(
            Violation("what waits is taken up", f"{name}: {age:.0f} s, more than {facts.most_age:.0f} s")
            for name, age in facts.ages.items()
            if age > facts.most_age
        ),
        *(Violation("nothing grows without bound", told) for told in facts.grown),
        *(Violation("no token, no answer in sight", told) for told in facts.exposed),
        *(Violation("an order is carried out in the end", told) for told in facts.not_done),
    ]


def _leads(facts: Facts) -> Iterable[Violation]:
    for leadgen_id in sorted(facts.truth | facts.deleted):
        found = facts.rows.get(leadgen_id)
        if told := _wrong(leadgen_id, found, facts):
            yield Violation("every lead is one row, or a true end", told, leadgen_id)


def _wrong(leadgen_id: str, found: Found | None, facts: Facts) -> str:
    """What is wrong with this lead; empty where it is right."""
    if found is None:
        gone = facts.emptied and leadgen_id in facts.deleted and leadgen_id not in facts.truth
        return "" if gone else "no row"
    if leadgen_id in facts.forgotten:
        return "" if found.state == "erased" else f"forgotten by order, and {found.state}"
    if found.state == "erased":
        return "" if leadgen_id in facts.perhaps_forgotten else "erased, and nobody ordered it"
    if found.state == "stored":
        differs = "" if leadgen_id in facts.deleted else ", ".join(found.differs)
        return f"differs from Graph's answer in {differs}" if differs else ""
    if found.state == "dead" and leadgen_id in facts.deleted:
        true = TRUE_OF.get(found.reason or "", frozenset())
        return (
            ""
            if true & facts.results.get(leadgen_id, {}).keys()
            else f"dead of {found.reason}, which Graph never said"
        )
    return f"{found.state} ({found.reason}), and Meta has it"


def _strangers(facts: Facts) -> Iterable[Violation]:
    known = facts.truth | facts.deleted
    for leadgen_id in sorted(facts.rows.keys() - known):
        yield Violation("no row that Graph did not give", f"{facts.rows[leadgen_id].state}", leadgen_id)


def _windows(windows: Iterable[PageWindow]) -> Iterable[Violation]:
    for each in windows:
        if each.over_limit or each.most > each.limit:
            told = f"Page {each.page_id}: {each.most} calls in a window of {each.limit}, {each.over_limit} too many"
            yield Violation("no window above its limit", told)


def _answers(facts: Facts) -> Iterable[Violation]:
    dropped = []
    for each in facts.answers:
        if _within(each, facts.excused):
            continue
        told = f"{each.status} after {each.seconds:.2f} s, at {each.at:.2f}"
        if each.status in DROPPED and each.seconds < DROPPED_SECONDS:
            dropped.append(Violation("the receiver keeps its connections", told))
        elif each.status not in GOOD_STATUSES:
            yield Violation("the receiver answers", told)
        elif each.status == "200" and each.seconds > facts.answer_seconds:
            yield Violation("the receiver answers in time, or 503", told)
    if len(dropped) > DROPPED_SHARE * len(facts.answers):
        yield from dropped


def _within(answer: Answer, stretches: Sequence[tuple[float, float]]) -> bool:
    """Whether some of the time from question to answer lies in one of them."""
    return any(since <= answer.at + answer.seconds and answer.at <= until for since, until in stretches)
