"""Claim: leadsync's worker stores at least 30 times as many leads a CPU second as a plain Celery worker does.

    leadsync:  references into the stream   -> worker -> result pages of 500  -> table leadgen
    by id:     the same without a time      -> worker -> batches of 50        -> table leadgen
    the peer:  one Celery message a lead    -> worker -> one GET a lead       -> table peer_leads
    the limit: ids given at once            -> one process, batches of 50     -> COPY, a table without an index

Meta's webhook says of which form a lead is and when it was created, so leadsync lists the leads of a form of which many
are waiting, as it does here; where the webhook says no time, or few leads of many forms are waiting, it reads by id.
The leads of a turn have been created ten a second.

All are up and warm, in one run on one machine, with the same Redis, Postgres and simulated Graph API, and take turns at
each of Graph's latencies, with leadsync's worker of one and of two processes. Goals: 30 times the peer's leads a CPU
second and 0.6 of the limit's. The peer's pool and concurrency are those that did best in a sweep just before: the
leanest (leads a CPU second) and, where that is another one, the fastest (leads a second).
Worker CPU is the worker's main process and all of its children, from the first lead offered to the last one
acknowledged. Rows are compared with what the sandbox holds after every turn; a turn that lacks a row is no figure.

The limit holds nothing up, but is no faster at the work itself than its libraries are as they come: json reads its
answers and aiohttp writes its forms. leadsync reads by orjson and writes forms in fewer steps, so it may come near the
limit, or past it, though it does more; where it lists, it reads in another way than the limit does.

What it does not show: the receiver (neither side has one here), what Redis and Postgres spend for each side (told
in the table of cores), latency at low load (webhook_latency.py), what happens when something breaks. leads/s
means little where sandbox, servers and workers share two cores; CPU seconds a lead is what carries over to other
machines. The peer is given fewer leads a turn, since each costs it so much more.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import click
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks import plain_celery_peer as peer
from benchmarks.contenders import (
    LEADSYNC,
    LEADSYNC_BY_ID,
    Bare,
    Contender,
    Leadsync,
    Peer,
    Turn,
    take_turn,
    warm_up,
)
from benchmarks.report import (
    Finding,
    Spread,
    as_help,
    json_option,
    judge,
    machine,
    print_machine,
    ratio,
    remark_full_machine,
    shares,
    spent_as_json,
    write_json,
)
from benchmarks.rig import Rig, build_rig, told_when_stuck

OURS: Final = (LEADSYNC, LEADSYNC_BY_ID)
GOAL_PEER: Final = 30.0
GOAL_LIMIT: Final = 0.6
SWEEP: Final = "prefork:8,prefork:16,threads:32,threads:80"
"""Postgres takes 100 connections as it comes, and each thread of the peer has its own."""
ENOUGH_CALLS: Final = 1_000_000
SWEEP_LATENCY: Final = 0.15
TICKS_WORTH_READING: Final = 0.3
"""CPU seconds; less than that is a few dozen ticks of the kernel's clock."""


@dataclass(frozen=True, slots=True)
class Setting:
    """`latency` of Graph in seconds, `processes` of leadsync's worker."""

    latency: float
    processes: int

    @property
    def told(self) -> str:
        """In words."""
        return f"Graph at {self.latency * 1000:.0f} ms, {self.processes} process{'es' * (self.processes > 1)}"


Turns = Mapping[Setting, Mapping[str, Sequence[Turn]]]


def sweep(
    rig: Rig, candidates: Sequence[Peer], leads: int, console: Console
) -> tuple[list[Peer], dict[str, Turn]]:
    """The leanest and, if it is another one, the fastest of these."""
    turns: dict[str, Turn] = {}
    table = Table(title="The peer's pool and concurrency", title_justify="left")
    for heading in ("", "leads per worker CPU second", "leads/s"):
        table.add_column(heading, justify="right" if heading else "left")
    for candidate in candidates:
        with console.status(f"sweep: {candidate.name}"), candidate.running():
            warm_up(rig, candidate)
            turn = turns[candidate.name] = take_turn(rig, candidate, leads)
        table.add_row(candidate.name, f"{turn.per_cpu_second:,.0f}", f"{turn.per_second:,.0f}")
    console.print(table)
    leanest = max(candidates, key=lambda c: turns[c.name].per_cpu_second)
    fastest = max(candidates, key=lambda c: turns[c.name].per_second)
    return list(dict.fromkeys((leanest, fastest))), turns


def measure(
    rig: Rig, contenders: Mapping[Contender, int], pairs: int, console: Console
) -> dict[str, list[Turn]]:
    """`pairs` turns of each with its number of leads, interleaved; the order is turned round every time."""
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in contenders}
    order = list(contenders)
    for number in range(pairs):
        for contender in order if number % 2 == 0 else order[::-1]:
            with console.status(f"pair {number + 1} of {pairs}: {contender.name}"):
                turns[contender.name].append(take_turn(rig, contender, contenders[contender]))
                time.sleep(0.2)
    return turns


def show(turns: Turns, console: Console) -> list[Finding]:
    """Print the figures; what is to be told of them."""
    table = Table(title="median (lowest-highest)", title_justify="left")
    for heading in ("", "leads per worker CPU second", "CPU ms a lead", "leads/s"):
        table.add_column(heading, justify="right" if heading else "left")
    for setting, by_name in turns.items():
        table.add_row(f"[bold]{setting.told}")
        for name, of in by_name.items():
            table.add_row(f"  {name}, {of[0].leads:,} leads a turn", *_cells(of))
        table.add_section()
    console.print(table)
    return [finding for setting, by_name in turns.items() for finding in findings(setting, by_name)]


def _cells(of: Sequence[Turn]) -> Iterator[str]:
    yield Spread.over(turn.per_cpu_second for turn in of).show()
    yield Spread.over(1_000 / turn.per_cpu_second for turn in of).show(3)
    yield Spread.over(turn.per_second for turn in of).show()


def findings(setting: Setting, by_name: Mapping[str, Sequence[Turn]]) -> Iterator[Finding]:
    """The ratios of one setting, pair by pair."""
    for name in by_name:
        if name not in OURS:
            goal = GOAL_LIMIT if name == Bare.name else GOAL_PEER
            for ours in OURS:
                lean = _ratio(by_name[ours], by_name[name], lambda turn: turn.per_cpu_second)
                fast = _ratio(by_name[ours], by_name[name], lambda turn: turn.per_second)
                yield Finding(f"leads a CPU second, {ours} : {name} ({setting.told})", lean, goal=goal)
                yield Finding(f"leads/s, {ours} : {name} ({setting.told})", fast)


def _ratio(ours: Sequence[Turn], theirs: Sequence[Turn], of: Callable[[Turn], float]) -> Spread:
    return ratio([of(turn) for turn in ours], [of(turn) for turn in theirs])


def _candidates(rig: Rig, words: str, prefetch: int) -> list[Peer]:
    split = (word.partition(":") for word in words.split(","))
    return [Peer(rig, pool.strip(), int(concurrency), prefetch) for pool, _, concurrency in split]


class Bench:
    """Everything but leadsync's worker is up; that one is started anew for each number of processes."""

    def __init__(self, rig: Rig, others: Mapping[Contender, int], leads: int, console: Console) -> None:
        self._rig, self._others, self._leads, self._console = rig, others, leads, console

    def run(self, latencies: Sequence[float], processes: Sequence[int], pairs: int) -> Turns:
        """All settings, one after the other; each its own pairs."""
        found: dict[Setting, dict[str, list[Turn]]] = {}
        for number, latency in product(processes, latencies):
            setting = Setting(latency, number)
            self._rig.post("/sandbox/latency", {"seconds": latency})
            specs = [
                dataclasses.replace(spec, env={**(spec.env or {}), "WORKER_CONCURRENCY": str(number)})
                for spec in self._rig.specs("worker")
            ]
            with self._rig.running(specs):
                ours = (Leadsync(self._rig), Leadsync(self._rig, by_id=True))
                for each in ours:
                    warm_up(self._rig, each)
                self._console.print(f"[dim]{setting.told}")
                contenders = {**dict.fromkeys(ours, self._leads), **self._others}
                found[setting] = measure(self._rig, contenders, pairs, self._console)
        return found


@click.command(help=as_help(__doc__))
@click.option(
    "--latency", "latencies", multiple=True, type=float, default=(0.0, 0.15, 0.6), show_default=True,
    help="Graph's, in seconds; repeatable.",
)  # fmt: skip
@click.option(
    "--processes", multiple=True, type=int, default=(1, 2), show_default=True,
    help="Of leadsync's worker; repeatable.",
)  # fmt: skip
@click.option("--leads", default=3_000, show_default=True, help="Leads a turn.")
@click.option("--peer-leads", default=300, show_default=True, help="Leads a turn of the peer.")
@click.option("--pairs", default=5, show_default=True, help="Turns of each.")
@click.option(
    "--peers", default=SWEEP, show_default=True, help="Pools and concurrencies to try for the peer."
)
@click.option("--prefetch", default=4, show_default=True, help="The peer's prefetch multiplier.")
@click.option("--sweep-leads", default=600, show_default=True, help="Leads a candidate of the sweep.")
@json_option
def main(
    latencies: tuple[float, ...],
    processes: tuple[int, ...],
    leads: int,
    peer_leads: int,
    pairs: int,
    peers: str,
    prefetch: int,
    sweep_leads: int,
    json_path: Path | None,
) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    with ExitStack() as held:
        with console.status("starting Redis, Postgres and sandbox"):
            # Thirty thousand leads a setting: a Page's daily limit is not what is measured.
            rig = held.enter_context(
                build_rig(
                    latency=SWEEP_LATENCY,
                    extra={"BUDGET_FLOOR_CALLS": str(ENOUGH_CALLS)},
                    sandbox={"limit_floor": ENOUGH_CALLS},
                )
            )
        held.enter_context(told_when_stuck(rig, console))
        with psycopg.connect(rig.database_url, autocommit=True) as connection:
            connection.execute(peer.TABLE)
        candidates = _candidates(rig, peers, prefetch)
        swept: dict[str, Turn] = {}
        if len(candidates) > 1:
            candidates, swept = sweep(rig, candidates, sweep_leads, console)
        bare = Bare(rig)
        for other in (bare, *candidates):
            held.enter_context(other.running())
            warm_up(rig, other)
        others: dict[Contender, int] = {bare: leads, **dict.fromkeys(candidates, peer_leads)}
        turns = Bench(rig, others, leads, console).run(latencies, processes, pairs)
    found = show(turns, console)
    spents = {
        f"{name} ({setting.told})": [turn.spent for turn in of]
        for setting, by_name in turns.items()
        for name, of in by_name.items()
    }
    for setting, by_name in turns.items():
        console.print(
            shares({name: [turn.spent for turn in of] for name, of in by_name.items()}, setting.told)
        )
    remark_full_machine(spents, console)
    least = min(turn.worker_seconds for by_name in turns.values() for of in by_name.values() for turn in of)
    if least < TICKS_WORTH_READING:
        console.print(f"[yellow]a turn took only {least:.2f} CPU s of its worker: too few leads for a figure")
    judge(found, console)
    figures = {
        "options": {"leads": leads, "peer_leads": peer_leads, "pairs": pairs, "prefetch": prefetch},
        "sweep": {
            name: {"per_cpu_second": t.per_cpu_second, "per_second": t.per_second}
            for name, t in swept.items()
        },
        "findings": [finding.as_json() for finding in found],
        "turns": {
            f"{name} ({setting.told})": [
                {"per_cpu_second": turn.per_cpu_second, "per_second": turn.per_second} for turn in of
            ]
            for setting, by_name in turns.items()
            for name, of in by_name.items()
        },
        "spent": {name: spent_as_json(of) for name, of in spents.items()},
    }
    write_json(json_path, "worker_efficiency", about, figures)


if __name__ == "__main__":
    main()
