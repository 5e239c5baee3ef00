"""Claim: a Page with one lead and 60 forms gets its live leads at once, and is reconciled as often as is left.

The Page may make 4,800 calls a day; polling its forms every 15 minutes wants 5,760. Here a day is `--window` seconds:
the sandbox allows 4,800 calls in it, a poller asks for each of the forms every `window / 96`, in the lane of backfill
through the same ledger and Graph client as the workers, and live leads are announced all the time.

Printed: the live leads' p50 and p99 from webhook to row with the poller, and before it without; throttle answers (goal
0); how often each form was polled, beside what policy.cadence says; calls of the poller and of all.

What it does not show: reconciling itself; the poller asks for one lead of each form and throws it away.
"""

import asyncio
import dataclasses
import heapq
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.report import as_help, json_option, machine, print_machine, write_json
from benchmarks.rig import WEBHOOK_PATH, Rig, build_rig, told_when_stuck, wait_until
from worker.budget.policy import Lane, Refusal, Shares, Window, cadence
from worker.clock import now
from worker.desks import open_budget
from worker.errors import Throttled
from worker.graph.client import GraphClient, GraphSettings
from worker.steady import steady

LIMIT: Final = 4_800
FORMS: Final = 60
POLLS_A_DAY: Final = 96
AT_ONCE: Final = 12
"""Polls in flight."""


@click.command(help=as_help(__doc__))
@click.option("--window", default=120, show_default=True, type=click.IntRange(30), help="Seconds of a day.")
@click.option("--days", default=3, show_default=True, type=click.IntRange(1), help="Days with the poller.")
@click.option("--rate", default=1.0, show_default=True, help="Live leads a second.")
@click.option("--latency", default=0.05, show_default=True, help="Graph's, in seconds.")
@json_option
def main(window: int, days: int, rate: float, latency: float, json_path: Path | None) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    sandbox = {"forms_per_page": FORMS, "limit_window_seconds": window, "limit_calls": LIMIT}
    extra = {"BUDGET_WINDOW_SECONDS": str(window)}
    with (
        build_rig(latency=latency, pages=1, extra=extra, sandbox=sandbox) as rig,
        told_when_stuck(rig, console),
        rig.running(rig.specs(*WEBHOOK_PATH)),
    ):
        figures = asyncio.run(_measure(rig, window, days, rate, console))
    table = Table("", "with the poller", "without", "goal")
    for name in ("p50", "p99"):
        table.add_row(
            f"live leads' {name}",
            f"{figures['with'][name] * 1000:.0f} ms",
            f"{figures['without'][name] * 1000:.0f} ms",
            "",
        )
    table.add_row("throttle answers", f"{figures['throttles']:,}", "", "0")
    table.add_row("live leads that waited", f"{figures['waited']:,}", "", "0")
    table.add_row("calls, of the poller", f"{figures['polls']:,}", "", "")
    table.add_row("most calls in any window", f"{figures['most']:,}", "", f"at most {LIMIT:,}")
    told = f"{figures['polled_every']:.2f} s"
    table.add_row("each form polled every", told, "", f"cadence: {figures['cadence']:.2f} s")
    console.print(table)
    write_json(json_path, "poor_page", about, figures)
    if figures["throttles"]:
        raise click.ClickException("a throttle was provoked")


async def _measure(rig: Rig, window: int, days: int, rate: float, console: Console) -> dict[str, Any]:
    (page,) = rig.get("/sandbox/pages")["pages"]
    page_id, forms = page["page_id"], [form["form_id"] for form in page["forms"]]
    # One lead of 90 days at Meta, as far as the ledger is told; the sandbox's limit is the same.
    override = "insert into pages (page_id, limit_override, updated_at) values (%s, %s, now())"
    await asyncio.to_thread(_execute, rig, override, page_id, LIMIT)
    without = await _live(rig, page_id, rate, window / 2)
    polls = [0] * len(forms)
    began_at = time.monotonic()
    poller = asyncio.create_task(_poll(rig, page_id, page["token"], forms, window, polls))
    beside = []
    for _ in range(days):
        beside += await _live(rig, page_id, rate, window)
        console.print(f"{sum(polls):,} polls, {len(beside):,} live leads")
    lasted = time.monotonic() - began_at
    poller.cancel()
    await asyncio.gather(poller, return_exceptions=True)
    told = rig.get("/sandbox/calls")
    results = told["pages"][page_id]["results"]
    live = rate * window
    wanted = cadence(
        calls_a_round=FORMS, limit=LIMIT - 1, live=round(live), window=Window(window), shares=Shares(),
        soonest=timedelta(seconds=window / POLLS_A_DAY),
    )  # fmt: skip
    return {
        "with": _quantiles(beside),
        "without": _quantiles(without),
        "throttles": sum(count for code, count in results.items() if code == "80005"),
        "waited": _execute(rig, "select count(*) from leadgen where page_id = %s and turn > 0", page_id)[0],
        "polls": sum(polls),
        "calls": told["calls"],
        "most": told["windows"][page_id]["most"],
        "polled_every": lasted / (sum(polls) / FORMS),
        "cadence": wanted.total_seconds(),
    }


async def _poll(rig: Rig, page_id: str, token: str, forms: list[str], window: int, polls: list[int]) -> None:
    """Each form every `window / 96`, as long as the budget grants it; the oldest first."""
    settings = dataclasses.replace(rig.settings, budget_window=float(window))
    graph = GraphSettings(rig.graph_url, "v26.0", rig.env["META_APP_SECRET"])
    async with open_budget(settings) as (_, budget, _), GraphClient(graph, steady) as client:
        due = [(time.monotonic(), number) for number in range(len(forms))]

        async def poll_next() -> None:
            while True:
                at, number = heapq.heappop(due)
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                answer = await budget.request(page_id, 1, Lane.BACKFILL)
                if isinstance(answer, Refusal):
                    heapq.heappush(due, (at, number))
                    await asyncio.sleep(max(0.001, (answer.not_before - now()).total_seconds()))
                    continue
                try:
                    found = await client.list_leads(
                        forms[number], 0, int(time.time()), ("id",), token, answer, limit=1, after=None
                    )
                    await budget.heard(page_id, answer, found.usages)
                except Throttled as error:
                    await budget.throttled(page_id, error.scope, (), error.regain)
                polls[number] += 1
                heapq.heappush(due, (max(at, time.monotonic() - window) + window / POLLS_A_DAY, number))

        await asyncio.gather(*(poll_next() for _ in range(AT_ONCE)))


async def _live(rig: Rig, page_id: str, rate: float, seconds: float) -> list[float]:
    """Announce live leads for so long; each one's seconds from webhook to row."""
    since = (await asyncio.to_thread(_execute, rig, "select clock_timestamp()"))[0]
    count = round(rate * seconds)
    await asyncio.to_thread(rig.post, "/sandbox/send", {"count": count, "page": page_id, "rate": rate})
    await asyncio.sleep(seconds)
    query = (
        "select coalesce(jsonb_agg(extract(epoch from stored_at - received_at)), '[]') from leads"
        " where page_id = %s and received_at >= %s"
    )
    found: list[float] = []

    def landed() -> bool:
        found[:] = _execute(rig, query, page_id, since)[0]
        return len(found) >= count

    await asyncio.to_thread(wait_until, "the live leads", landed, patience=60.0)
    return found


def _quantiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
    }


def _execute(rig: Rig, query: str, *values: object) -> Any:
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchone() if cursor.description else None


if __name__ == "__main__":
    main()
