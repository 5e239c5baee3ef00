"""Claim: no window of a Page ever holds more calls than Meta allows, and 99% of what may be spent is, where work waits.

    budget_model.py: simulated Pages -> the real ledger in a real Redis -> an exact log of calls -> judged here

First some dozens of Pages for days: backfill that wants everything, live leads in a daily rhythm, bursts within the
limit, floods far above it, limits that move, crashes, grants used at the last moment, a Redis whose clock is put wrong.
Then thousands of Pages for hours. It ends with status 1 if any window of 24 hours held more than Meta allows.

What is allowed, at a moment t at which the same lane's work had waited without a break since t - 24 h: where waiting
references waited, limit - kept + L, at most 99.8% of the limit; kept is 4 times the live leads of the last hour.
Else, where backfill waited, limit - kept + L + Wt; kept is 5% of the limit, 1.1 times (L + Wt), or 4 times
what was announced in the last hour, 90% of the limit at most. L and Wt are the live and waiting calls made in
(t - 24 h, t]. Calls that were granted and lost in a crash are taken off. What is spent is all calls made in
(t - 24 h, t], by the exact log and never more than what is allowed, so that no moment makes up for another. Both are
summed over every minute, a Page's ratio is its figure, and each minute of each Page counts the same. `limit` is the
same against the bare limit in force x time / 24 h, nothing taken off.

What was not spent is split in three: `held`, calls that have left Meta's window but not yet the ledger's (buckets,
life of a grant, a clock's jump, late use); `slowed`, while Meta's last word of the hour was 90% or more; `idle`, room
that the ledger had and nobody was given.

A live request is refused `within the limit` if no more leads came in the 24 hours before than the limit. Why: in an
hour, or in a day, more came than was kept for live leads and than left the window meanwhile; or the Page had no day
of live leads yet by which to keep anything.

What it does not show: throttles, several apps on one Page, Redis' keys running out (they do by real time), and a
Redis that is emptied, unless `--forget` says so. How long a request takes is Redis' own time, without the network.
"""

import asyncio
import logging
import math
import statistics
import subprocess
import sys
import tempfile
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final
from zlib import crc32

import click
import structlog
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.budget_model import (
    EPOCH,
    NOW,
    Page,
    PipedRedis,
    Plan,
    SimulatedLedger,
    Simulation,
)
from benchmarks.report import Spread, as_help, json_option, machine, print_machine, ratio, write_json
from worker.budget.ledger import CALLS_PREFIX, PAGE_PREFIX, Granted, Refused, Unknown
from worker.budget.policy import CALLS_PER_LEAD, Lane, Limit, Shares, Spent, Window
from worker.embedded import ServerProcess, prepare_redis, wait_ready

WINDOW: Final = Window()
SHARES: Final = Shares()
GOAL: Final = 0.99
SAMPLE_SECONDS: Final = 60.0
DAY: Final = 86_400.0
ROUNDS: Final = 5
ROLES: Final = {
    "backfill only": 3,
    "live, at once": 2,
    "live, later": 6,
    "bursts, later": 4,
    "floods, at once": 3,
    "live only": 1,
    "limit moves": 1,
}
"""Of twenty Pages so many; their backfill begins at once, or a day later."""


def cast_of(count: int, seed: int) -> list[Plan]:
    """The Pages of the long run."""
    of_twenty = [role for role, share in ROLES.items() for _ in range(share)]
    roles = [of_twenty[7 * place % len(of_twenty)] for place in range(len(of_twenty))]
    dice = Random(f"cast {seed}")
    return [_plan(roles[number % len(roles)], number, dice) for number in range(count)]


def _plan(role: str, number: int, dice: Random) -> Plan:
    leads: int = dice.choices((1, 3, 10, 40), (50, 30, 16, 4))[0]
    live = dice.uniform(0.05, 0.6)
    bursts: list[tuple[float, int, float]] = []
    ages_out: tuple[float, ...] = ()
    override = dice.random() < 0.2
    backfill_from: float | None = 0.0
    if role == "backfill only":
        live = 0.0
    elif role == "live, later":
        backfill_from = DAY
    elif role.startswith("bursts"):
        live, backfill_from = dice.uniform(0.05, 0.35), DAY
        for day in range(3):
            starts, lasts = DAY * (day + dice.random()), dice.uniform(300, 3_600)
            bursts.append((starts, round(CALLS_PER_LEAD * leads * dice.uniform(0.02, 0.25)), lasts))
    elif role.startswith("floods"):
        leads, live = min(leads, 10), dice.uniform(0.05, 0.3)
        flood = round(CALLS_PER_LEAD * leads * dice.uniform(1.8, 3.5))
        bursts.append((DAY * dice.uniform(0.02, 0.5), flood, dice.uniform(300, 7_200)))
    elif role == "live only":
        backfill_from = None
    elif role == "limit moves":
        leads, override = dice.randint(4, 12), False
        live = dice.uniform(2, 40) / CALLS_PER_LEAD / leads
        ages_out = tuple(dice.uniform(DAY, 4 * DAY) for _ in range(leads - 2))
    calls = live * CALLS_PER_LEAD * leads
    return Plan(
        name=f"long {number}",
        role=role,
        leads=leads,
        live=calls,
        live_together=max(1, min(50, round(calls / 350))),
        bursts=tuple(bursts),
        backfill_from=backfill_from,
        backfill=math.inf,
        upkeep_every=1_800.0,
        override=override,
        hears=dice.choice(("floor", "nearest", "ceil")) if dice.random() < 0.5 else None,
        ages_out=ages_out,
    )


def crowd_of(count: int, hours: float, seed: int) -> list[Plan]:
    """The Pages of the wide run: most small, some with a backfill, a burst or a flood."""
    dice = Random(f"crowd {seed}")
    plans: list[Plan] = []
    for number in range(count):
        leads = dice.choices((1, 3, 10), (80, 18, 2))[0]
        allowed, kind = CALLS_PER_LEAD * leads, dice.random()
        bursts: tuple[tuple[float, int, float], ...] = ()
        if kind < 0.05:
            size = dice.uniform(0.01, 0.1) if kind < 0.045 else dice.uniform(1.1, 1.5)
            bursts = ((3_600 * hours * dice.random() * 0.7, round(allowed * size), 900.0),)
        live = allowed * dice.uniform(0.02, 0.3)
        plans.append(
            Plan(
                name=f"wide {number}",
                role="wide",
                leads=leads,
                live=live,
                live_together=max(1, round(live / 140)),
                bursts=bursts,
                backfill_from=3_600 * hours * dice.random() if dice.random() < 0.08 else None,
                backfill=dice.choice((500.0, math.inf)),
                upkeep_every=3_600.0,
                override=dice.random() < 0.1,
                hears="nearest" if number % 5 == 0 else None,
            )
        )
    return plans


@dataclass(slots=True)
class Spending:
    """What a Page spent over the minutes in which work waited, each summed over them; the last three are losses."""

    minutes: int = 0
    spent: float = 0.0
    allowed: float = 0.0
    made: float = 0.0
    limit: float = 0.0
    told: float = 0.0
    held: float = 0.0
    slowed: float = 0.0
    idle: float = 0.0

    @property
    def of_policy(self) -> float:
        return self.spent / self.allowed


def kept_from_backfill(page: Page, moment: float) -> tuple[int, int]:
    """What the policy keeps from backfill, and the announced calls of the window that it follows from."""
    live, waiting = page.lanes[Lane.LIVE], page.lanes[Lane.WAITING]
    announced = sum(log.within(moment - WINDOW.seconds, moment) for log in (live, waiting))
    lately = sum(log.within(moment - WINDOW.recent, moment) for log in (live, waiting))
    kept = max(math.ceil(SHARES.live * page.limit), math.ceil(1.1 * announced), 4 * lately)
    return min(kept, math.floor(SHARES.most * page.limit)), announced


def allowed_at(page: Page, moment: float, *, waiting: bool) -> int:
    """Calls that the policy allows in the window that ends now, as the docstring above says."""
    if not waiting:
        kept, announced = kept_from_backfill(page, moment)
        return min(page.limit, page.limit - kept + announced)
    live = page.lanes[Lane.LIVE]
    lately = page.wanted.within(moment - WINDOW.recent, moment)
    kept = min(4 * lately, math.floor(SHARES.most * page.limit))
    left = max(1, math.ceil(SHARES.over_waiting * page.limit))
    return min(page.limit - left, page.limit - kept + live.within(moment - WINDOW.seconds, moment))


def held_at(page: Page, moment: float) -> int:
    """Calls that the ledger still holds: of the buckets that have not left, by a clock that is right."""
    bucket = WINDOW.bucket
    phase = crc32(page.page_id.encode()) % round(bucket * 1000) / 1000
    first = math.floor((moment - WINDOW.hold - phase) / bucket) * bucket + phase
    return page.granted.within(first - 0.001, moment) - page.lost.within(first - 0.001, moment)


def is_slowed(page: Page, moment: float) -> bool:
    """Whether Meta's last word of the hour makes the ledger slow down, or close."""
    last = bisect_right(page.heard_at, moment) - 1
    return last >= 0 and page.heard[last] >= 90 and page.heard_at[last] > moment - WINDOW.recent


def spending(page: Page, ends: float) -> Spending:
    """Judge a Page minute by minute."""
    found = Spending()
    if page.plan.ages_out:
        return found
    backfill_from = math.inf if page.plan.backfill_from is None else EPOCH + page.plan.backfill_from
    moment = EPOCH + WINDOW.seconds + page.dice.uniform(0, SAMPLE_SECONDS)
    while moment < ends:
        since = moment - WINDOW.seconds
        waited = any(a <= since and moment <= b for a, b in page.waiting_since)
        if waited or (backfill_from <= since and moment <= page.backfilled_until):
            lost = page.lost.within(since, moment)
            allowed = allowed_at(page, moment, waiting=waited) - lost
            made = page.made.within(since, moment)
            loss = max(0, allowed - made)
            held = max(0, min(loss, held_at(page, moment) - made))
            found.minutes += 1
            found.spent += min(made, allowed)
            found.allowed += allowed
            found.made += made
            found.limit += page.limit
            found.told += page.told(moment)
            found.held += held
            if is_slowed(page, moment):
                found.slowed += loss - held
            else:
                found.idle += loss - held
        moment += SAMPLE_SECONDS
    return found


REASONS: Final = ("in an hour", "in a day", "no day yet", "otherwise")
REASON_HEADS: Final = ("hour", "day", "no day", "other")


def why_refused(page: Page, at: float) -> str:
    """Why leads that had just come were refused, though no more came in a window than the limit."""
    if at < EPOCH + WINDOW.seconds:
        return "no day yet"
    for hours in range(1, 25):
        before = at - hours * WINDOW.recent
        kept, announced = kept_from_backfill(page, before)
        left = sum(
            page.lanes[lane].within(before - WINDOW.seconds, at - WINDOW.seconds)
            for lane in (Lane.LIVE, Lane.WAITING)
        )
        if page.wanted.within(before, at) > kept - announced + left:
            return "in an hour" if hours == 1 else "in a day"
    return "otherwise"


def live_figures(pages: Sequence[Page]) -> Counter[str]:
    """Live requests within the limit, and those of them that were refused, by why."""
    counts: Counter[str] = Counter()
    for page in pages:
        for request in page.live:
            if page.plan.ages_out or page.wanted.within(request.at - WINDOW.seconds, request.at) > page.limit:
                continue
            counts["within"] += 1
            counts["calls"] += request.calls
            if request.refused:
                counts["refused"] += 1
                counts["calls refused"] += request.refused
                counts[why_refused(page, request.at)] += 1
    return counts


# ---------------------------------------------------------------------------------------------- Redis and its costs


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis of its own; its URL."""
    with tempfile.TemporaryDirectory(prefix="leadsync-bench-") as folder:
        server: ServerProcess = prepare_redis(Path(folder), maxmemory="2gb")
        process = subprocess.Popen(
            server.argv, env=server.env, cwd=server.cwd, stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            wait_ready(server, has_ended=lambda: process.poll() is not None)
            yield server.url
        finally:
            process.terminate()
            process.wait()
            server.release()


async def _told(client: PipedRedis, section: str, name: str) -> str:
    lines = (await client.execute("INFO", section)).decode().splitlines()
    return next((line.partition(":")[2] for line in lines if line.startswith(f"{name}:")), "")


async def used_memory(client: PipedRedis) -> int:
    return int(await _told(client, "memory", "used_memory"))


async def script_time(client: PipedRedis) -> tuple[int, int]:
    """How often the script ran, and for how many microseconds in all."""
    told = await _told(client, "commandstats", "cmdstat_evalsha")
    found = dict(part.split("=") for part in told.split(",")) if told else {}
    return int(found.get("calls", 0)), int(found.get("usec", 0))


async def bytes_a_page(client: PipedRedis, page_ids: Sequence[str]) -> tuple[Spread, Spread]:
    """Bytes of each Page's two keys, and its live buckets."""
    sizes: list[int] = []
    buckets: list[int] = []
    for page_id in page_ids:
        keys = PAGE_PREFIX + page_id, CALLS_PREFIX + page_id
        asked = [client.execute("MEMORY", "USAGE", key, "SAMPLES", 0) for key in keys]
        *found, length = await asyncio.gather(*asked, client.execute("LLEN", keys[1]))
        if all(found):
            sizes.append(sum(found))
            buckets.append(length)
    return Spread.over(sizes or [0]), Spread.over(buckets or [0])


@dataclass(frozen=True, slots=True)
class Case:
    """Some Pages of one Redis that are alike."""

    client: PipedRedis
    ledger: SimulatedLedger
    page_ids: tuple[str, ...]


async def _case(client: PipedRedis, name: str, pages: int, full: bool, limit: int, dice: Random) -> Case:
    """Pages whose ledger has one live bucket, or as many as a day can have."""
    ledger = SimulatedLedger(client, WINDOW, "one", lambda now: 0.0)
    ids = tuple(f"{name}{number:014d}" for number in range(1, pages + 1))
    known = await ledger.request(ids[0], 1, Lane.LIVE, (), 0.0)
    known = await ledger.request(ids[0], 1, Lane.LIVE, (), 0.0)
    assert isinstance(known, Unknown)
    lanes = (Lane.LIVE, Lane.BACKFILL, Lane.WAITING)
    buckets = math.ceil(WINDOW.hold / WINDOW.bucket) if full else 0
    spent = [Spent(each * WINDOW.bucket, lanes[each % 3], dice.randint(20, 200)) for each in range(buckets)]
    await ledger.seed(ids[0], known.epoch, Limit(limit, limit + 1, ""), spent)
    await ledger.request(ids[0], 1, Lane.LIVE, (), 0.0)
    prefixes = (PAGE_PREFIX, CALLS_PREFIX)
    for first in range(1, pages, 100):
        # Seeding each with 289 buckets would take longer than all that is measured.
        copies = ((prefix, each) for each in ids[first : first + 100] for prefix in prefixes)
        await asyncio.gather(
            *(client.execute("COPY", prefix + ids[0], prefix + each) for prefix, each in copies)
        )
    return Case(client, ledger, ids)


async def _microseconds(case: Case, requests: int, lane: Lane, kind: type, dice: Random) -> float:
    """Redis' own time for a request of this lane."""
    calls, spent = await script_time(case.client)
    for first in range(0, requests, 50):
        some = range(min(50, requests - first))
        asked = (case.ledger.request(dice.choice(case.page_ids), 5, lane, (), 0.0) for _ in some)
        answers = await asyncio.gather(*asked)
        assert all(isinstance(answer, kind) for answer in answers)
    calls_now, spent_now = await script_time(case.client)
    return (spent_now - spent) / (calls_now - calls)


async def measure_costs(pages: int, requests: int, tick: Callable[[float], object]) -> dict[str, Any]:
    """Bytes and microseconds, with one and with all live buckets, with one and with `pages` Pages."""
    NOW.set(EPOCH)
    dice = Random("costs")
    figures: dict[str, Any] = {"microseconds": {}, "ratios": {}, "bytes": {}}
    with redis_server() as small_url, redis_server() as big_url:
        small, big = await PipedRedis.connect(small_url), await PipedRedis.connect(big_url)
        cases: dict[str, Case] = {}
        for client, count in ((small, 1), (big, pages)):
            for full in (False, True):
                before = await used_memory(client)
                case = await _case(client, f"{1 + full}", count, full, 10**9, dice)
                await _microseconds(case, min(500, requests), Lane.LIVE, Granted, dice)
                sizes, buckets = await bytes_a_page(client, case.page_ids[:500])
                label = f"{count:,} Page{'s' * (count > 1)}, {buckets.median:.0f}"
                cases[label] = case
                figures["bytes"][label] = asdict(sizes)
                if count > 1:
                    figures["bytes"][label]["used_memory"] = (await used_memory(client) - before) / count
                tick(0.5 * len(cases) / 4)
        full_one = await _case(small, "3", 1, True, 1, dice)
        for lane in (Lane.LIVE, Lane.BACKFILL):
            told: defaultdict[str, list[float]] = defaultdict(list)
            for round_ in range(ROUNDS):
                for label, case in cases.items():
                    told[label].append(await _microseconds(case, requests, lane, Granted, dice))
                if lane is Lane.BACKFILL:
                    label = "refused, all seen"
                    told[label].append(await _microseconds(full_one, requests, lane, Refused, dice))
                tick(0.5 + 0.25 * (lane is Lane.BACKFILL) + 0.25 * (round_ + 1) / ROUNDS)
            least = told[next(iter(cases))]
            figures["microseconds"][lane.value] = {label: asdict(Spread.over(v)) for label, v in told.items()}
            figures["ratios"][lane.value] = {label: asdict(ratio(v, least)) for label, v in told.items()}
        await small.close()
        await big.close()
    return figures


# --------------------------------------------------------------------------------------------------- runs and tables


async def simulate(
    plans: Sequence[Plan],
    seconds: float,
    *,
    seed: int,
    skew: float,
    forget: int,
    tick: Callable[[float], object],
) -> tuple[list[Page], dict[str, Any]]:
    """Run it on a Redis of its own; the Pages, and what it cost."""
    with redis_server() as url:
        client = await PipedRedis.connect(url)
        before = await used_memory(client)
        simulation = Simulation(client, plans, WINDOW, seed, skew)
        losses = [seconds * (each + 1) / (forget + 1) for each in range(forget)]
        await simulation.run(seconds, losses, tick)
        calls, spent = await script_time(client)
        grown = await used_memory(client) - before
        sizes, buckets = await bytes_a_page(client, [page.page_id for page in simulation.pages])
        await client.close()
    pages, counts = simulation.pages, asdict(simulation.counts)
    figures = {
        **counts,
        "windows": sum(len(page.made.times) for page in pages),
        "above": sum(page.above_told for page in pages),
        "above_own_limit": sum(page.above_limit for page in pages if not page.plan.ages_out),
        "fullest": max(page.most for page in pages),
        "fullest_with_override": max((page.most for page in pages if page.plan.override), default=0.0),
        "bytes_a_page": asdict(sizes),
        "live_buckets": asdict(buckets),
        "used_memory_a_page": grown / len(pages),
        "script_runs": calls,
        "microseconds_a_run": spent / max(1, calls),
    }
    return pages, figures


def utilisation(pages: Sequence[Page], ends: float, tick: Callable[[float], object]) -> dict[str, Any]:
    """Figures by role and by whether Meta's percentages are heard; each minute of each Page counts the same."""
    groups: defaultdict[str, list[Spending]] = defaultdict(list)
    for number, page in enumerate(pages):
        found = spending(page, ends)
        if found.minutes:
            heard = "yes" if page.plan.hears else "no"
            for group in (f"{page.plan.role}; {heard}", f"all; {heard}", "all"):
                groups[group].append(found)
        tick((number + 1) / len(pages))
    order = {name: place for place, name in enumerate((*ROLES, "all"))}
    return {name: _mean(groups[name]) for name in sorted(groups, key=lambda n: (order[n.split(";")[0]], n))}


def _mean(group: Sequence[Spending]) -> dict[str, float]:
    minutes = sum(page.minutes for page in group)

    def over(part: str, whole: str) -> float:
        ratios = (page.minutes * float(getattr(page, part)) / float(getattr(page, whole)) for page in group)
        return sum(ratios) / minutes

    return {
        "pages": len(group),
        "page_days": minutes * SAMPLE_SECONDS / DAY,
        "of_policy": over("spent", "allowed"),
        "worst": min(page.of_policy for page in group),
        "median": statistics.median(page.of_policy for page in group),
        "held": over("held", "allowed"),
        "slowed": over("slowed", "allowed"),
        "idle": over("idle", "allowed"),
        "of_limit": over("made", "limit"),
        "of_metas": over("made", "told"),
        "weighted_by_calls": sum(page.spent for page in group) / sum(page.allowed for page in group),
    }


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, head in enumerate(heads):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    return table


def show_utilisation(figures: dict[str, Any], console: Console) -> None:
    heads = ("", "told", "Pages", "policy", "worst", "held", "slowed", "idle", "limit")
    table = _table("Spent, of what policy and limit allowed while work waited", *heads)
    for name, f in figures.items():
        figure = f"{f['of_policy']:.2%}"
        role, _, told = name.partition("; ")
        table.add_row(
            role,
            told,
            f"{f['pages']}",
            figure if f["of_policy"] >= GOAL else f"[red]{figure}[/]",
            f"{f['worst']:.1%}",
            f"{f['held']:.2%}",
            f"{f['slowed']:.2%}",
            f"{f['idle']:.2%}",
            f"{f['of_limit']:.2%}",
        )
    console.print(table)


def show_live(figures: dict[str, Counter[str]], console: Console) -> None:
    heads = ("", "requests", "refused", "calls", *REASON_HEADS)
    table = _table("Live requests within the limit, and why they were refused", *heads)
    for name, counts in figures.items():
        if counts["within"]:
            shares = (counts["refused"] / counts["within"], counts["calls refused"] / counts["calls"])
            told = (f"{counts[reason]:,}" for reason in REASONS)
            table.add_row(name, f"{counts['within']:,}", *(f"{share:.2%}" for share in shares), *told)
    console.print(table)


def show_run(title: str, pages: int, run: dict[str, Any], console: Console) -> None:
    table = Table(title=title, title_justify="left", show_header=False, box=SIMPLE_HEAD)
    numbers = (pages, run["requests"], run["granted"], run["calls"])
    table.add_row("Pages; requests; granted; calls", "; ".join(f"{number:,}" for number in numbers))
    table.add_row("grants lost in a crash", f"{run['crashes']:,}")
    table.add_row("percentages heard; of these 100", f"{run['heard']:,}; {run['closed']:,}")
    above = f"{run['above']:,} of {run['windows']:,}"
    table.add_row("windows above what Meta allows", above if run["above"] == 0 else f"[red]{above}[/]")
    table.add_row("windows above the limit in force", f"{run['above_own_limit']:,}")
    table.add_row(
        "fullest window, of Meta's limit; by order",
        f"{run['fullest']:.2%}; {run['fullest_with_override']:.2%}",
    )
    size, buckets = run["bytes_a_page"], run["live_buckets"]
    table.add_row("bytes of a Page's two keys, median", Spread(**size).show())
    table.add_row("live buckets of a Page, median", Spread(**buckets).show())
    table.add_row("used_memory a Page", f"{run['used_memory_a_page']:,.0f} bytes")
    table.add_row("the script's time a run, of all steps", f"{run['microseconds_a_run']:.0f} us")
    console.print(table)


def show_costs(figures: dict[str, Any], console: Console) -> None:
    heads = ("Pages, buckets", "bytes", "live", "ratio", "backfill", "ratio")
    table = _table("Bytes a Page; Redis' microseconds a request, and their ratio to the first row", *heads)
    for label in figures["microseconds"][Lane.BACKFILL.value]:
        size = figures["bytes"].get(label)
        cells = [f"{size['median']:,.0f}" if size else ""]
        for lane in (Lane.LIVE.value, Lane.BACKFILL.value):
            if label in figures["microseconds"][lane]:
                cells.append(f"{figures['microseconds'][lane][label]['median']:.0f}")
                cells.append(Spread(**figures["ratios"][lane][label]).show(1))
            else:
                cells += ["", ""]
        table.add_row(label, *cells)
    console.print(table)


@click.command(help=as_help(__doc__))
@click.option("--pages", default=60, show_default=True, help="Pages of the long run.")
@click.option(
    "--days", default=3.0, show_default=True, help="How long it is; two and more, or nothing is judged."
)
@click.option("--many", default=2_000, show_default=True, help="Pages of the wide run, and of its costs.")
@click.option("--hours", default=3.0, show_default=True, help="How long it is.")
@click.option("--requests", default=2_000, show_default=True, help="Requests timed for a figure, five times.")
@click.option(
    "--skew", default=14.0, show_default=True, help="Redis' clock is at most so many seconds wrong."
)
@click.option(
    "--forget", default=0, show_default=True, help="So often the ledger loses all it knows in the long run."
)
@click.option("--seed", default=1, show_default=True, help="The same seed, the same calls.")
@click.option("--quick", is_flag=True, help="Few Pages: does it work.")
@json_option
def main(
    pages: int,
    days: float,
    many: int,
    hours: float,
    requests: int,
    skew: float,
    forget: int,
    seed: int,
    quick: bool,
    json_path: Path | None,
) -> None:
    if quick:
        pages, days, many, hours, requests = 10, 2.1, 200, 1.0, 100
    # The ledger's own warnings of Pages that it closes would fill the screen.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console = Console()
    about = machine()
    print_machine(about, console)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, refresh_per_second=2) as progress:

        def bar(label: str, total: float) -> Callable[[float], object]:
            task = progress.add_task(label, total=total)
            return lambda done: progress.update(task, completed=done)

        tick = bar(f"{pages:,} Pages for {days:g} days", days * DAY)
        cast = asyncio.run(
            simulate(cast_of(pages, seed), days * DAY, seed=seed, skew=skew, forget=forget, tick=tick)
        )
        spent = utilisation(cast[0], EPOCH + days * DAY, bar("judging them minute by minute", 1))
        live = {role: live_figures([page for page in cast[0] if page.plan.role == role]) for role in ROLES}
        tick = bar(f"{many:,} Pages for {hours:g} hours", hours * 3_600)
        plans = crowd_of(many, hours, seed)
        crowd = asyncio.run(simulate(plans, hours * 3_600, seed=seed, skew=skew, forget=0, tick=tick))
        live["wide, with backfill"] = live_figures([p for p in crowd[0] if p.plan.backfill_from is not None])
        live["wide, without"] = live_figures([p for p in crowd[0] if p.plan.backfill_from is None])
        costs = asyncio.run(measure_costs(many, requests, bar("what it costs Redis", 1)))
    show_run(f"{days:g} days", pages, cast[1], console)
    show_utilisation(spent, console)
    show_run(f"{hours:g} hours", many, crowd[1], console)
    show_live(live, console)
    show_costs(costs, console)
    good = not cast[1]["above"] and not crowd[1]["above"]
    console.print("[green]no window was above" if good else "[red]windows were above what Meta allows")
    options = {
        "pages": pages,
        "days": days,
        "many": many,
        "hours": hours,
        "skew": skew,
        "forget": forget,
        "seed": seed,
    }
    figures = {"long": cast[1], "utilisation": spent, "wide": crowd[1], "live": live, "costs": costs}
    write_json(json_path, "budget_simulation", about, {"options": options, **figures})
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
