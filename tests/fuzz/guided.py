"""One target, fed by a fuzzer that goes where new code is reached -> figures and finds. A process of its own.

    python -m tests.fuzz.guided TARGET FOLDER --inputs N --seconds S --seed X

libFuzzer ends its process as it likes, so figures are written to `figures.json` in FOLDER while it runs, and a process
that died of memory or of a crash leaves its last input there. It needs the packages of requirements-fuzz.lock.
https://github.com/google/atheris
"""

import argparse
import json
import logging
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from time import thread_time
from typing import Final

import atheris
import structlog

from tests.fuzz.finding import Finds
from tests.fuzz.mutating import LONGEST, mutate
from tests.fuzz.quiet import dropped
from tests.fuzz.samples import FOLDER, samples_of
from tests.fuzz.target import Target, allowed_seconds

MOST_MEGABYTES: Final = 1_024
MOST_SECONDS: Final = 60
"""Wall clock for one input: what hangs without using the processor."""
OWN_MUTATIONS: Final = 0.4
WRITTEN_EVERY: Final = 1_000


@dataclass(slots=True)
class Figures:
    """What a run has come to so far. Seconds of CPU time."""

    inputs: int = 0
    longest_seconds: float = 0.0
    longest_bytes: int = 0
    seconds: float = 0.0


class Runner:
    """Gives inputs to a target and keeps the figures."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._finds = Finds(target, folder / "finds")
        self._path = folder / "figures.json"
        self._figures = Figures()

    def __call__(self, data: bytes) -> None:
        began_at = thread_time()
        self._finds.run(data)
        took = thread_time() - began_at
        figures = self._figures
        figures.inputs += 1
        figures.seconds += took
        if took > figures.longest_seconds:
            figures.longest_seconds, figures.longest_bytes = took, len(data)
        if took > allowed_seconds(len(data)):
            self._finds.keep("slow", data, f"{took:.2f} s of CPU time for {len(data)} bytes")
        if figures.inputs % WRITTEN_EVERY == 0:
            self.write()

    def write(self) -> None:
        """Write the figures down."""
        self._path.write_text(json.dumps(asdict(self._figures)))


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--inputs", type=int, default=-1)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with atheris.instrument_imports(include=["worker", "receiver"], enable_loader_override=False):
        from tests.fuzz.table import TARGETS
    logging.disable()
    structlog.configure(processors=[dropped])
    target = TARGETS[args.target]
    corpus = args.folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    words = args.folder / "words"
    # libFuzzer refuses a dictionary without a word.
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words or (b"\0",)))
    runner = Runner(target, args.folder)
    options = [
        f"-runs={args.inputs}", f"-max_total_time={args.seconds}", f"-seed={args.seed}", f"-max_len={LONGEST}",
        f"-rss_limit_mb={MOST_MEGABYTES}", f"-timeout={MOST_SECONDS}", f"-artifact_prefix={args.folder}/died-",
        # Of slow ones it counts the wall's seconds, and where processors are short all are slow: we count CPU time.
        f"-dict={words}", "-print_final_stats=1", "-len_control=0", f"-report_slow_units={MOST_SECONDS}",
    ]  # fmt: skip
    atheris.Setup(
        [sys.argv[0], *options, str(corpus), str(FOLDER / target.name)],
        runner,
        custom_mutator=_mutator(target, args.seed),
    )
    atheris.Fuzz()


def _mutator(target: Target, seed: int):  # type: ignore[no-untyped-def]
    dice = Random(seed)
    samples = samples_of(target.name)

    def alter(data: bytes, most: int, seed: int) -> bytes:
        if dice.random() > OWN_MUTATIONS:
            return atheris.Mutate(data, most)
        return mutate(data, dice, target.words, dice.choice(samples))[:most]

    return alter


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


if __name__ == "__main__":
    main()
