"""One target and inputs that are known -> whether any of them, stretched, takes more than its share of time.

    python -m tests.fuzz.growing TARGET FOLDER --seconds S --seed X

It stretches what a guided run has collected in FOLDER, and the samples; figures go to `grown.json` there.
"""

import argparse
import json
import logging
import time
from pathlib import Path
from random import Random

import structlog

from tests.fuzz.finding import Finds
from tests.fuzz.growth import Runaway, outgrows, stretches
from tests.fuzz.mutating import mutate
from tests.fuzz.quiet import dropped
from tests.fuzz.samples import FOLDER, samples_of
from tests.fuzz.table import TARGETS
from tests.fuzz.target import Target


def main() -> None:
    """Stretch inputs of one target for a while."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.disable()
    structlog.configure(processors=[dropped])
    target = TARGETS[args.target]
    looked = look(target, args.folder, args.seconds, Random(args.seed)) if target.is_stretched else 0
    (args.folder / "grown.json").write_text(json.dumps({"stretches": looked}))


def look(target: Target, folder: Path, seconds: float, dice: Random) -> int:
    """How many stretches were timed in so many seconds."""
    finds = Finds(target, folder / "finds")
    known = [*samples_of(target.name), *samples_of("corpus", folder)]
    samples = samples_of(target.name, FOLDER)
    until, looked = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        data = dice.choice(samples if dice.random() < 0.5 else known)
        if dice.random() < 0.5:
            data = mutate(data, dice, target.words, dice.choice(known))
        stretch = next(stretches(data, dice))
        looked += 1
        try:
            told = outgrows(target, stretch)
        except Runaway as error:
            told = str(error)
        if told:
            finds.keep(f"grows with {stretch.part[:20]!r}", stretch.of_size(4_096), told)
    return looked


if __name__ == "__main__":
    main()
