"""A seed -> the plan of a soak: which fault befalls what, when and for how long. Pure, and the same for the same seed.

It strikes nothing: strikes.py does. Invariant: a plan that is written as text and read again is the same plan.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

PARENTS: Final = ("receiver", "worker", "upkeep", "backfill", "schedule", "metrics")
CHILDREN: Final = ("worker child", "upkeep child", "backfill child")
WIRES: Final = ("redis", "postgres", "graph", "webhook")
"""Where a proxy stands; `webhook` is between Meta and the receiver."""

PASSING: Final = ("5xx", "html_5xx", "html_200", "not_json", "truncated", "cut_body", "ok_with_error", "timeout",
    "slow_body", "huge_body", "redirect", "reset", "close", "null_items", "not_visible", "1", "1/99", "1/reduce", "2",
    "2/503", "stale_cursor", "stale_cursor/1", "stale_cursor/33", "ad_fields_refused")  # fmt: skip
"""Faults of Graph that cost a call and no more; classes of sandbox/faults.py."""
DEADLY: Final = ("100", "803", "2500", "100/33", "15")
"""Those of which a lead dies, until a listing brings it after all."""
BLOCKING: Final = (
    "190",
    "190/463",
    "102",
    "104",
    "10",
    "200",
    "103",
    "103/as_200",
    "103/as_100",
    "3",
    "100/bad_proof",
)
"""Those that park a Page."""
THROTTLING: Final = ("80005", "32", "613", "4", "80001")
"""Those that close a Page, or the app, for a minute."""
TOKEN_DEATHS: Final = ("190", "190/458", "190/460", "190/463", "102")
LEAD_ACCESS: Final = ("103", "as_200", "as_100")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `at` seconds after the start, for `seconds` (0: a moment); `amount` is its rate, size or number."""

    at: float
    kind: str
    target: str = ""
    seconds: float = 0.0
    amount: float = 0.0

    @property
    def text(self) -> str:
        """As a plan's line."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Recipe:
    """A kind of fault: how often beside others, whom it may befall, how long and how strongly (from, to)."""

    weight: int
    targets: tuple[str, ...]
    seconds: tuple[float, float] = (0.0, 0.0)
    amount: tuple[float, float] = (0.0, 0.0)
    calm_after: float = 0.0
    """Seconds that must be left to the end of the plan, since it holds up leads for so long."""


RECIPES: Final = {
    "kill": Recipe(6, (*PARENTS, *CHILDREN)),
    "term": Recipe(3, PARENTS),
    "stop": Recipe(3, (*PARENTS, *CHILDREN), seconds=(2, 20)),
    "redis_kill": Recipe(1, ("redis",)),
    "redis_term": Recipe(1, ("redis",)),
    "redis_stop": Recipe(1, ("redis",), seconds=(1, 8)),
    "redis_flush": Recipe(1, ("redis",)),
    "redis_full": Recipe(1, ("refusing", "to the limit"), seconds=(2, 8)),
    "postgres_quit": Recipe(1, ("postgres",)),
    "postgres_restart": Recipe(1, ("postgres",)),
    "postgres_terminate": Recipe(1, ("postgres",)),
    "postgres_readonly": Recipe(1, ("postgres",), seconds=(1, 6)),
    "cut": Recipe(2, WIRES),
    "refuse": Recipe(1, WIRES, seconds=(1, 6)),
    "delay": Recipe(2, WIRES, seconds=(3, 12), amount=(0.02, 0.4)),
    "freeze": Recipe(2, WIRES, seconds=(1, 9)),
    "lose_replies": Recipe(3, WIRES, amount=(1, 6)),
    "graph": Recipe(6, PASSING, seconds=(3, 12), amount=(0.05, 0.8)),
    "graph_deadly": Recipe(2, DEADLY, seconds=(2, 6), amount=(0.05, 0.3)),
    # A listing that Graph does not know, or refuses, is asked for again after ten minutes.
    "graph_listing": Recipe(1, DEADLY, seconds=(1, 4), calm_after=800),
    "graph_blocking": Recipe(2, BLOCKING, seconds=(2, 8)),
    "graph_throttling": Recipe(1, THROTTLING, seconds=(1, 4), calm_after=90),
    "graph_slow": Recipe(1, ("sandbox",), seconds=(3, 12), amount=(0.5, 3)),
    "token": Recipe(1, ("page", "account"), seconds=(4, 12)),
    "lead_access": Recipe(1, LEAD_ACCESS, seconds=(6, 12)),
    "forget": Recipe(2, ("stored", "waiting", "unannounced"), amount=(1, 4)),
    "delete": Recipe(1, ("sandbox",), amount=(1, 3), calm_after=45),
    "clock": Recipe(2, ("ahead", "behind"), seconds=(4, 20), amount=(2, 90)),
}  # fmt: skip
"""What may happen, by kind. A rolling restart is no recipe: there is one a plan."""
MENDED_BY_RECONCILING: Final = frozenset(
    {"redis_flush", "graph_deadly", "graph_listing", "graph_blocking", "token", "lead_access", "delete"}
)
"""Kinds after which leads are missing, or Pages are read anew, by right: not for a soak without reconciling."""
MENDED_CLASSES: Final = frozenset({"ad_fields_refused"})
"""The same of faults that pass: a lead is read in part, and completed by a listing."""
ROLL: Final = "roll"
ROLL_AFTER: Final = 1 / 3
"""The share of the plan after which the former commit gives way."""
QUIET_SECONDS: Final = 8.0
"""Before the first fault: everything has begun to move."""


def make_plan(
    *,
    seconds: float,
    faults: int,
    seed: int,
    only: Sequence[str] = (),
    roll: bool = False,
    reconciling: bool = True,
) -> tuple[Fault, ...]:
    """`faults` faults spread over `seconds`; every kind of `only` (by default of RECIPES) comes before any comes twice
    as often as its weight says. Without `reconciling`, none that only a reconciliation mends."""
    luck = random.Random(seed)
    barred = frozenset() if reconciling else MENDED_BY_RECONCILING
    names = [kind for kind in only or RECIPES if kind not in barred]
    kinds = _kinds(luck, names)
    spared = frozenset() if reconciling else MENDED_CLASSES
    targets = {
        kind: _round(luck, tuple(each for each in recipe.targets if each not in spared))
        for kind, recipe in RECIPES.items()
    }
    step = (seconds - QUIET_SECONDS) / max(1, faults)
    plan = []
    for number in range(faults):
        at = round(QUIET_SECONDS + (number + luck.random() * 0.9) * step, 1)
        if not any(RECIPES[name].calm_after <= seconds - at for name in names):
            break
        kind = next(k for k in kinds if RECIPES[k].calm_after <= seconds - at)
        recipe = RECIPES[kind]
        plan.append(
            Fault(
                at,
                kind,
                next(targets[kind]),
                round(luck.uniform(*recipe.seconds), 1),
                round(luck.uniform(*recipe.amount), 2),
            )
        )
    if roll:
        plan.append(Fault(round(seconds * ROLL_AFTER, 1), ROLL, "all"))
    return tuple(sorted(plan, key=lambda fault: fault.at))


def _kinds(luck: random.Random, only: Sequence[str]) -> Iterator[str]:
    """Kinds for ever, in decks: each deck holds every kind as often as it weighs. The first holds each kind once."""
    names = [kind for kind in RECIPES if kind in only]
    if not names:
        raise ValueError(f"there is no such kind of fault here; they are {', '.join(RECIPES)}")
    yield from luck.sample(names, len(names))
    while True:
        deck = [kind for kind in names for _ in range(RECIPES[kind].weight)]
        luck.shuffle(deck)
        yield from deck


def _round(luck: random.Random, targets: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from luck.sample(targets, len(targets))


def write_plan(plan: Iterable[Fault]) -> str:
    """One JSON object a line."""
    return "".join(f"{fault.text}\n" for fault in plan)


def read_plan(text: str) -> tuple[Fault, ...]:
    """The plan of such a text. Raises ValueError naming the line."""
    plan = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            fault = Fault(**json.loads(line))
        except (ValueError, TypeError):
            raise ValueError(
                f"line {number} of the plan is no fault: at, kind, target, seconds, amount"
            ) from None
        if fault.kind not in (*RECIPES, ROLL):
            raise ValueError(f"line {number} of the plan: no such kind: {fault.kind}")
        plan.append(fault)
    return tuple(sorted(plan, key=lambda fault: fault.at))
