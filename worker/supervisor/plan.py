"""What to start after what, when to try again, how long an end may take. Pure: no process, no clock.

    ProcessSpecs -> stages;  failures, run time -> delay;  stages still to end, time left -> bound

Invariant: the bounds of all stages together never exceed the time that was given for the whole end.
"""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from worker.embedded.server import Account, ServerProcess

# Started from low to high and ended from high to low: the door closes before the house is emptied, and what
# everybody else leans on goes last.
SERVERS: Final = 0
WORKERS: Final = 10
BEAT: Final = 20
RECEIVER: Final = 30

FIRST_DELAY_SECONDS: Final = 1.0
LONGEST_DELAY_SECONDS: Final = 10.0
GOOD_RUN_SECONDS: Final = 60.0
"""Who ran this long had recovered; its next end counts as the first again."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to keep running. `env` None is ours; the next stage starts once `is_ready` says so."""

    name: str
    argv: Sequence[str | Path]
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    account: Account | None = None
    order: int = WORKERS
    restart: bool = True
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 10.0
    is_ready: Callable[[], bool] | None = None
    ready_seconds: float = 60.0

    @classmethod
    def of_server(cls, server: ServerProcess) -> "ProcessSpec":
        """The spec that runs an embedded server."""
        return cls(
            name=server.name,
            argv=server.argv,
            env=server.env,
            cwd=server.cwd,
            account=server.account,
            order=SERVERS,
            stop_signal=server.stop_signal,
            is_ready=server.is_ready,
        )


def stages(specs: Sequence[ProcessSpec]) -> list[list[ProcessSpec]]:
    """Specs of the same order together, in the order in which they start."""
    by_order = sorted(specs, key=lambda spec: spec.order)
    return [list(stage) for _, stage in groupby(by_order, key=lambda spec: spec.order)]


def stage_bound(ahead: Sequence[Sequence[ProcessSpec]], seconds_left: float) -> float:
    """How long the first stage of `ahead` may take to end, if all of them are to end in `seconds_left`.

    Each stage gets what its slowest process asks for, or its share of what is left where that is not enough.
    """
    wanted = [max((spec.stop_seconds for spec in stage), default=0.0) for stage in ahead]
    left = max(0.0, seconds_left)
    return wanted[0] if sum(wanted) <= left else left * wanted[0] / sum(wanted)


def failures_after(failures: int, ran_seconds: float) -> int:
    """How many ends in a row there were, now that a process ended which had run `ran_seconds`."""
    return 1 if ran_seconds >= GOOD_RUN_SECONDS else failures + 1


def restart_delay(failures: int) -> float:
    """Seconds to wait before the next try after `failures` ends in a row."""
    return float(min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** min(failures - 1, 16)))


def end_in_words(code: int) -> str:
    """A return code as subprocess tells it, for a person."""
    if code >= 0:
        return f"code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
