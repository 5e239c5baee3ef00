"""Claim: leadsync's receiver answers at least 0.45 times as many deliveries a second as Flask that only says "ok".

    leadsync:  POST /webhook -> signature -> references on disk -> 200
    bare:      POST /webhook -> "ok"                                          the limit
    celery:    POST /webhook -> signature -> a Celery message a lead -> "ok"  the peer

All three stand on the same server with the same options and take the same signed bytes in turns, at 1, 8 and 64
kept-alive connections and with 1, 10 and 1,000 changes a delivery. Redis syncs its append-only file always, so both
who write to it wait for the disk. Goals: 0.45 of bare (as near 0.75 as can be had) for one change at 8 connections and
more, and twice the peer everywhere.

The load comes from prepared bytes out of one epoll (http_load.py). Each server is pinned to one core of its own, the
load generator and Redis to the others, where there are two; the table of cores says how busy each was.

What it does not show: several receiver processes, a proxy before it, TLS. Beside large deliveries bare reads nothing,
so there the ratio to it says only how long reading takes. The peer is not asked for more than 1,000 leads at once.
leadsync refuses with 503 what would be answered after Meta's patience: 64 connections that never pause come to that
with 1,000 changes each. Only a 200 counts, and the column 503 says how many were refused.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import click
import redis
from rich.console import Console
from rich.table import Table

from benchmarks.http_load import Answered, offer, post
from benchmarks.processes import Spent, Stopwatch, pin
from benchmarks.receiver_peers import BARE, CELERY, PATH, QUEUE, process
from benchmarks.report import (
    Finding,
    Spread,
    as_help,
    json_option,
    judge,
    machine,
    percentile,
    print_machine,
    ratio,
    spent_as_json,
    write_json,
)
from benchmarks.rig import Rig, build_rig, free_port, told_when_stuck
from sandbox.deliveries import signatures
from worker.inbox import STREAM

OURS: Final = "leadsync"
GOAL_BARE: Final = 0.45
GOAL_PEER: Final = 2.0
GOAL_CONNECTIONS: Final = 8
"""The goal beside bare holds from so many connections on, for deliveries of one change."""
BODIES: Final = 64
"""Different deliveries of a size; more say nothing new, since a lead announced twice is an entry each time."""
PEERS_MOST: Final = 1_000
"""Leads in flight; beyond it one turn of the peer takes minutes."""
WARM_SECONDS: Final = 0.5
MILLISECONDS: Final = 1_000

Shape = tuple[int, int]
"""Changes a delivery, connections."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one receiver did with one load."""

    answered: Answered
    spent: Spent
    server: str

    @property
    def per_second(self) -> float:
        return self.answered.per_second

    @property
    def cpu_per_thousand(self) -> float:
        """CPU seconds of the receiver for a thousand deliveries."""
        return MILLISECONDS * self.spent.by_name[self.server] / len(self.answered.latencies)


Turns = Mapping[Shape, Mapping[str, Sequence[Turn]]]


def deliveries(changes: int, app_secret: str) -> list[bytes]:
    """Signed deliveries of so many changes each, as Meta writes them, as whole requests."""
    return [_delivery(number, changes, app_secret) for number in range(BODIES if changes < 100 else 8)]


def _delivery(number: int, changes: int, app_secret: str) -> bytes:
    first, page_id, now = 10**15 + number * changes, "102030405060708", int(time.time())
    values = (
        {"leadgen_id": str(first + place), "page_id": page_id, "form_id": "403020100090807"}
        | {"adgroup_id": "120210987654321", "ad_id": "120210987654321", "created_time": now}
        for place in range(changes)
    )
    told = [{"field": "leadgen", "value": value} for value in values]
    document = {"object": "page", "entry": [{"id": page_id, "time": now, "changes": told}]}
    body = json.dumps(document, separators=(",", ":")).encode()
    return post(PATH, body, signatures(body, app_secret))


class Bench:
    """The three receivers, each up."""

    def __init__(self, rig: Rig, ports: Mapping[str, int]) -> None:
        self._rig = rig
        self._ports = ports
        self._client = redis.Redis.from_url(rig.redis_url)
        self._requests: dict[int, list[bytes]] = {}

    def pin(self) -> None:
        """One core for whichever receiver is measured, the others for who stands before and behind it."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            pids = self._rig.pids()
            for name in ("redis", "postgres", "sandbox"):
                pin(pids[name], cores[1:])
            for name in self._ports:
                pin(pids[_process(name)], cores[:1])
            os.sched_setaffinity(0, cores[1:])

    def turn(self, name: str, shape: Shape, seconds: float) -> Turn:
        """One load on one receiver; what it queued is thrown away."""
        changes, connections = shape
        if changes not in self._requests:
            self._requests[changes] = deliveries(changes, self._rig.env["META_APP_SECRET"])
        pids = self._rig.pids()
        watch = Stopwatch({each: pids[each] for each in (_process(name), "redis")})
        answered = offer(self._ports[name], self._requests[changes], connections=connections, seconds=seconds)
        spent = watch.stop()
        self._client.delete(STREAM, QUEUE)
        return Turn(answered, spent, _process(name))


def _process(name: str) -> str:
    return "receiver" if name == OURS else name


def asked(name: str, shape: Shape) -> bool:
    """Whether this receiver is measured with this load."""
    changes, connections = shape
    return name != CELERY or changes * connections <= PEERS_MOST


def measure(bench: Bench, shapes: Sequence[Shape], pairs: int, seconds: float, console: Console) -> Turns:
    """`pairs` turns of each with each load, interleaved; the order is turned round every time."""
    names = [OURS, BARE, CELERY]
    found: dict[Shape, dict[str, list[Turn]]] = {}
    for shape in shapes:
        here = [name for name in names if asked(name, shape)]
        found[shape] = {name: [] for name in here}
        for name in here:
            bench.turn(name, shape, min(seconds, WARM_SECONDS))
        for number in range(pairs):
            for name in here if number % 2 == 0 else here[::-1]:
                with console.status(f"{_load(shape)}: pair {number + 1} of {pairs}: {name}"):
                    found[shape][name].append(bench.turn(name, shape, seconds))
    return found


def _load(shape: Shape) -> str:
    changes, connections = shape
    return f"{changes:,} change{'s' * (changes > 1)}, {connections} connection{'s' * (connections > 1)}"


def show(turns: Turns, console: Console) -> list[Finding]:
    """Print the figures; what is to be told of them."""
    table = Table(title="Deliveries: median (lowest-highest)", title_justify="left")
    for heading in (
        "a delivery",
        "",
        "a second",
        "CPU s per 1,000",
        "p50 ms",
        "p99 ms",
        "503",
        "load's share",
    ):
        table.add_column(heading, justify="left" if heading in ("", "a delivery") else "right")
    for shape, by_name in turns.items():
        for place, (name, of) in enumerate(by_name.items()):
            table.add_row("" if place else _load(shape), name, *_cells(of))
        table.add_section()
    console.print(table)
    return list(findings(turns))


def _cells(of: Sequence[Turn]) -> Iterator[str]:
    yield Spread.over(turn.per_second for turn in of).show()
    yield Spread.over(turn.cpu_per_thousand for turn in of).show(2)
    for share in (0.5, 0.99):
        taken = (MILLISECONDS * percentile(turn.answered.latencies, share) for turn in of)
        yield Spread.over(taken).show(1)
    refused = sum(turn.answered.refused for turn in of)
    yield f"{refused / (refused + sum(len(turn.answered.latencies) for turn in of)):.1%}" if refused else "-"
    yield f"{Spread.over(t.answered.cpu / t.answered.seconds for t in of).median:.2f}"


def findings(turns: Turns) -> Iterator[Finding]:
    """The ratios, load by load, pair by pair."""
    for shape, by_name in turns.items():
        ours = by_name[OURS]
        speed = [turn.per_second for turn in ours]
        goal = GOAL_BARE if shape[0] == 1 and shape[1] >= GOAL_CONNECTIONS else None
        bare = [turn.per_second for turn in by_name[BARE]]
        yield Finding(f"deliveries/s, leadsync : bare Flask ({_load(shape)})", ratio(speed, bare), goal=goal)
        yield Finding(
            f"deliveries a CPU second, leadsync : bare Flask ({_load(shape)})", _costs(by_name, BARE)
        )
        if CELERY in by_name:
            theirs = [turn.per_second for turn in by_name[CELERY]]
            what = f"deliveries/s, leadsync : a Celery message a lead ({_load(shape)})"
            yield Finding(what, ratio(speed, theirs), goal=GOAL_PEER)
            what = f"deliveries a CPU second, leadsync : a Celery message a lead ({_load(shape)})"
            yield Finding(what, _costs(by_name, CELERY))


def _costs(by_name: Mapping[str, Sequence[Turn]], other: str) -> Spread:
    theirs, ours = ([turn.cpu_per_thousand for turn in by_name[name]] for name in (other, OURS))
    return ratio(theirs, ours)


@click.command(help=as_help(__doc__))
@click.option(
    "--changes", "sizes", multiple=True, type=int, default=(1, 10, 1_000), show_default=True,
    help="A delivery; repeatable.",
)  # fmt: skip
@click.option(
    "--connections", "widths", multiple=True, type=int, default=(1, 8, 64), show_default=True,
    help="Kept alive; repeatable.",
)  # fmt: skip
@click.option("--pairs", default=5, show_default=True, help="Turns of each.")
@click.option("--seconds", default=1.0, show_default=True, help="A turn.")
@click.option("--pin/--no-pin", "pinned", default=True, show_default=True, help="Each to its cores.")
@json_option
def main(
    sizes: tuple[int, ...],
    widths: tuple[int, ...],
    pairs: int,
    seconds: float,
    pinned: bool,
    json_path: Path | None,
) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    with ExitStack() as held:
        with console.status("starting Redis and the receivers"):
            # No leads are read here, and the stream is emptied after each turn.
            extra = {"STREAM_MAX_ENTRIES": "100000000"}
            rig = held.enter_context(build_rig(latency=0, extra=extra))
            ports = {name: free_port() for name in (BARE, CELERY)}
            broker = rig.redis_url.rpartition("/")[0] + "/1"
            peers = [process(kind, port, rig.env, broker) for kind, port in ports.items()]
            held.enter_context(rig.running([*rig.specs("receiver"), *peers]))
        held.enter_context(told_when_stuck(rig, console))
        bench = Bench(rig, {OURS: int(rig.env["RECEIVER_PORT"]), **ports})
        if pinned:
            bench.pin()
        turns = measure(bench, list(product(sizes, widths)), pairs, seconds, console)
    found = show(turns, console)
    spents = {
        f"{name}, {_load(shape)}": [turn.spent for turn in of]
        for shape, by_name in turns.items()
        for name, of in by_name.items()
    }
    judge(found, console)
    figures = {
        "options": {"pairs": pairs, "seconds": seconds, "pinned": pinned},
        "findings": [finding.as_json() for finding in found],
        "spent": {name: spent_as_json(of) for name, of in spents.items()},
    }
    write_json(json_path, "receiver_speed", about, figures)


if __name__ == "__main__":
    main()
