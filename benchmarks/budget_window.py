"""Claim: whatever is killed or emptied, no window of a Page holds more calls than its limit, and hardly fewer.

    more leads than calls are announced for one Page -> four worker processes read them under a binding limit, window
    after window, while processes are killed and Redis is emptied -> the sandbox's exact log of calls

The limit is the sandbox's own and our override at once, so one call too many is a throttle. Every call is by id: the
sandbox refuses the Page's listings, and those refused calls count too. A second Page with few leads is read all along.
Printed: the most calls that any window held, throttle answers and calls into a block (all three as the sandbox counted
them), and the calls made in the windows, over limit x windows. The goal is: limit, 0, 0, at least 99%.

What it does not show: clocks that jump, which the tests of the ledger do.
"""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any, Final

import click
import psycopg
import redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.report import as_help, json_option, machine, print_machine, write_json
from benchmarks.rig import WEBHOOK_PATH, Rig, build_rig, told_when_stuck, wait_until

PATIENCE_SECONDS: Final = 120.0
SECOND_RATE: Final = 0.5
"""Leads a second of the second Page."""


@click.command(help=as_help(__doc__))
@click.option("--window", default=300, show_default=True, type=click.IntRange(5), help="Seconds.")
@click.option("--windows", default=10, show_default=True, type=click.IntRange(2), help="How many.")
@click.option("--limit", default=1_200, show_default=True, help="Calls a window of the first Page.")
@click.option("--latency", default=0.1, show_default=True, help="Graph's, in seconds.")
@click.option("--kill-every", default=20.0, show_default=True, help="Seconds between two kills; 0: none.")
@click.option("--flushes", default=5, show_default=True, help="How often Redis is emptied.")
@click.option(
    "--rounding", default="floor", type=click.Choice(["floor", "nearest", "ceil"]), help="Of Meta's headers."
)
@click.option("--seed", default=4, show_default=True, help="Of kills and flushes.")
@json_option
def main(
    window: int, windows: int, limit: int, latency: float, kill_every: float, flushes: int, rounding: str, seed: int,
    json_path: Path | None,
) -> None:  # fmt: skip
    console = Console()
    about = machine()
    print_machine(about, console)
    extra = {
        "BUDGET_WINDOW_SECONDS": str(window),
        "WORKER_CONCURRENCY": "3",
        "CLAIM_AFTER_SECONDS": "6",
        "LEASE_SECONDS": "10",
        "RING_EVERY_SECONDS": "1",
        "LOG_LEVEL": "info",
    }
    sandbox = {"limit_window_seconds": window, "limit_floor": 1_000_000, "usage_rounding": rounding}
    with (
        build_rig(latency=latency, pages=2, extra=extra, sandbox=sandbox) as rig,
        told_when_stuck(rig, console),
    ):
        first, second = (page["page_id"] for page in rig.get("/sandbox/pages")["pages"])
        rig.post("/sandbox/limits", {"page": first, "limit": limit})
        rig.post("/sandbox/faults", {"rules": [{"class": "100", "kinds": ["form_leads"], "pages": [first]}]})
        _override(rig, first, limit)
        with rig.running(rig.specs(*WEBHOOK_PATH)):
            figures = _measure(rig, first, second, window, windows, limit, kill_every, flushes, seed, console)
    table = Table("", "seen", "goal")
    table.add_row("most calls in any window", f"{figures['most']:,}", f"at most {limit:,}")
    table.add_row("throttle answers", f"{figures['throttles']:,}", "0")
    table.add_row("calls into a block", f"{figures['into_block']:,}", "0")
    table.add_row("calls of the allowance", f"{figures['share']:.2%}", "at least 99%")
    table.add_row("kills, flushes", f"{figures['kills']}, {figures['flushes']}", "")
    table.add_row("second Page's p50", f"{figures['second_p50'] * 1000:.0f} ms", "")
    console.print(table)
    write_json(json_path, "budget_window", about, figures)
    if figures["most"] > limit or figures["throttles"] or figures["into_block"]:
        raise click.ClickException("a window held more calls than its limit, or a throttle was provoked")


def _override(rig: Rig, page_id: str, limit: int) -> None:
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        connection.execute(
            "insert into pages (page_id, limit_override, updated_at) values (%s, %s, now())", (page_id, limit)
        )


def _measure(
    rig: Rig, first: str, second: str, window: int, windows: int, limit: int, kill_every: float, flushes: int,
    seed: int, console: Console,
) -> dict[str, Any]:  # fmt: skip
    dice = random.Random(seed)
    seconds = float(window * windows)
    # Enough that work waits to the end; all of it is in the rows before Redis is emptied for the first time.
    announced = int(limit * (windows + 2))
    rig.post("/sandbox/send", {"count": announced, "page": first, "batch": 50, "rate": 500})
    began_at = time.time()
    rig.post("/sandbox/send", {"count": int(seconds * SECOND_RATE), "page": second, "rate": SECOND_RATE})
    kills = emptied = 0
    next_kill = began_at + kill_every if kill_every else float("inf")
    spread = seconds / (flushes + 1) if flushes else float("inf")
    next_flush = began_at + spread
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with (
        redis.Redis.from_url(rig.redis_url, protocol=2) as client,
        Progress(*columns, console=console) as progress,
    ):
        task = progress.add_task("windows", total=seconds)
        while (now := time.time()) < began_at + seconds:
            if now >= next_kill:
                kills += _kill(rig, dice)
                next_kill = now + kill_every * (0.5 + dice.random())
            if now >= next_flush and emptied < flushes:
                wait_until(
                    "an empty stream",
                    lambda: client.xlen("leadsync:references") == 0,
                    patience=PATIENCE_SECONDS,
                )
                client.flushall()
                emptied += 1
                next_flush = now + spread
            told = rig.get("/sandbox/calls")["windows"][first]
            progress.update(
                task, completed=now - began_at, description=f"{told['used']:,} of {told['limit']:,} calls"
            )
            time.sleep(0.5)
    ended_at = time.time()
    calls = [line for line in rig.lines(f"/sandbox/calls/log?page={first}") if line[0] <= ended_at]
    report = rig.get("/sandbox/calls")
    results = report["pages"][first]["results"]
    throttles = sum(
        count
        for code, count in results.items()
        if code.split("/")[0] in ("4", "17", "32", "613", "80004", "80005")
    )
    return {
        "window_seconds": window,
        "windows": windows,
        "limit": limit,
        "calls": sum(line[1] for line in calls),
        "most": max(report["windows"][first]["most"], _most_in_a_window(calls, window)),
        "throttles": throttles,
        "into_block": report["windows"][first]["into_block"],
        "share": sum(line[1] for line in calls) / (limit * (ended_at - calls[0][0]) / window),
        "kills": kills,
        "flushes": emptied,
        "second_p50": _p50(rig, second),
    }


def _kill(rig: Rig, dice: random.Random) -> int:
    """kill -9 of a worker's main process or of one of its children."""
    mains = [pid for name, pid in rig.pids().items() if name in ("worker", "upkeep")]
    victims = [victim for pid in mains for victim in (pid, *_children(pid))]
    if not victims:
        return 0
    try:
        os.kill(dice.choice(victims), signal.SIGKILL)
    except ProcessLookupError:
        return 0
    return 1


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _most_in_a_window(calls: list[Any], window: float) -> int:
    """The most calls that any window of the log holds, counted here as well, from the log alone."""
    most = held = first = 0
    for at, count, *_ in calls:
        held += count
        while calls[first][0] <= at - window:
            held -= calls[first][1]
            first += 1
        most = max(most, held)
    return most


def _p50(rig: Rig, page_id: str) -> float:
    query = (
        "select percentile_cont(0.5) within group (order by extract(epoch from stored_at - received_at))"
        " from leads where page_id = %s"
    )
    with psycopg.connect(rig.database_url) as connection:
        row = connection.execute(query, (page_id,)).fetchone()
    return float(row[0]) if row and row[0] is not None else float("nan")


if __name__ == "__main__":
    main()
