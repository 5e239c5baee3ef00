"""A seed and a rate -> the orders to the sandbox's sender that bring the leads of a soak. Pure.

Every wave is a few seconds of leads: duplicated, reordered, in all payload variants, some never announced, some long
after they were made or not visible at first, with other changes and the dashboard's samples among them.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

WAVE_SECONDS = 12.0


@dataclass(frozen=True, slots=True)
class Wave:
    """So many leads from `at` seconds on. `late`: made at once and announced only so many seconds later."""

    at: float
    count: int
    order: Mapping[str, object]
    late: float = 0.0


def make_waves(*, seconds: float, rate: float, seed: int, reconciling: bool = True) -> tuple[Wave, ...]:
    """Waves that bring `rate` leads a second for `seconds`, in all `round(rate * seconds)`. Without `reconciling`
    each of them is announced, and nothing asks for a reconciliation."""
    luck = random.Random(seed * 7 + 1)
    number = max(1, round(seconds / WAVE_SECONDS))
    step = seconds / number
    total, sent = round(rate * seconds), 0
    waves = []
    for place in range(number):
        count = round(total * (place + 1) / number) - sent
        sent += count
        if count:
            waves += _parts(
                luck, place * step, count, rate, last=place == number - 1, reconciling=reconciling
            )
    return tuple(waves)


def _parts(
    luck: random.Random, at: float, count: int, rate: float, *, last: bool, reconciling: bool
) -> list[Wave]:
    """One wave; about one in five leaves a tenth of its leads for a late announcement."""
    late = 0 if last or luck.random() > 0.2 else max(1, count // 10)
    order = {
        "count": count - late,
        "rate": rate * luck.choice((1.0, 1.2, 3.0)),
        "batch": luck.choice((1, 5, 20, 100)),
        "vary_batch": True,
        "duplicates": round(luck.uniform(0, 0.4), 2),
        "reorder": luck.random() < 0.7,
        "drop": luck.choice((0.0, 0.0, 0.02, 0.1)) * reconciling,
        "visible_in": luck.choice((0.0, 0.0, 0.0, 2.0)),
        "variants": True,
        "sample_pings": luck.randint(0, 1),
        "updates": luck.randint(0, 3),
        "other_fields": luck.randint(0, 3),
        "changed_fields": luck.randint(0, 1) * reconciling,
        "seed": luck.randint(1, 1_000_000),
    }
    waves = [Wave(at, count - late, order)] if count > late else []
    if late:
        waves.append(Wave(at, late, {"batch": 20, "variants": True}, late=round(luck.uniform(3, 20), 1)))
    return waves
