"""Commands that read the past: begin a backfill and watch it, list and stop backfills.

They decide nothing and read no lead themselves: the workers of the queue `backfill` do.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from worker.cli.arguments import a_zone, an_id, moment
from worker.cli.command import (
    SERVERS,
    ShowingGroup,
    about,
    answer_of,
    data_dir_option,
    print_rows,
    settings_for,
)
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.orders import Planned
    from worker.store.backfills import BackfillStore

LOOK_SECONDS: Final = 0.5
IDLE_SECONDS: Final = 15.0
"""Without any progress for so long, a watcher is told where to look."""

zone_option = click.option(
    "--zone", default="UTC", show_default=True, callback=a_zone, help="Time zone of dates without an offset."
)


@click.command()
@click.option(
    "--page", "page_id", callback=an_id, help="All forms of this Page; or the Page of --form or --ad."
)
@click.option("--form", "form_id", callback=an_id, help="One form.")
@click.option(
    "--ad", "ad_id", callback=an_id, help="One ad; --page says whose, where no lead of it is stored yet."
)
@click.option("--since", help="Leads created at or after this: 2026-10-01, '30 days ago', unix seconds ...")
@click.option("--until", help="Leads created before this; a date alone takes in its day.")
@zone_option
@click.option("--dry-run", is_flag=True, help="Tell what it would cost and take, and begin nothing.")
@click.option(
    "--follow/--no-follow", default=None, help="Show the progress until it is done; default: on a terminal."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
def backfill(
    page_id: str | None,
    form_id: str | None,
    ad_id: str | None,
    since: str | None,
    until: str | None,
    zone: tzinfo,
    dry_run: bool,
    follow: bool | None,
    as_json: bool,
    data_dir: Path,
) -> None:
    """Bring the leads that Meta holds of a Page, a form or an ad.

    Meta holds leads for 90 days. What is stored already stays as it is; live leads go first, and no call is made beyond
    the Page's limit. The same backfill asked twice is one. Ctrl-C stops showing, not reading: `leadsync backfills
    cancel` stops it.
    """
    from worker.budget.policy import Window
    from worker.clock import now
    from worker.desks import open_desk
    from worker.doorbell import BACKFILL_BELL_OF
    from worker.orders import Order, plan_order
    from worker.tasks import ring_now

    if (form_id is not None) + (ad_id is not None) > 1 or not (page_id or form_id or ad_id):
        raise click.UsageError("give --page, --form or --ad")
    edge, object_id = ("form", form_id) if form_id else ("ad", ad_id) if ad_id else ("page", page_id)
    assert object_id is not None
    at = now()
    first, last = moment(since, "--since", zone, at), moment(until, "--until", zone, at, end=True)
    order = Order(edge, object_id, page_id, first, last)
    settings = settings_for(data_dir, *SERVERS, "META_APP_SECRET")

    async def ask() -> "tuple[Planned, int | None, bool]":
        async with open_desk(settings) as desk:
            planned = await plan_order(
                desk, order, lag=timedelta(seconds=settings.reconcile_lag), window=Window(settings.budget_window),
                at_once=settings.backfill_slices_per_page,
            )  # fmt: skip
            if dry_run:
                return planned, None, False
            return planned, *await desk.backfills.open(planned.plan, now())

    planned, backfill_id, is_new = answer_of(ask())
    if is_new:
        ring_now(settings, BACKFILL_BELL_OF)
    told = _forecast(planned, zone)
    if as_json:
        click.echo(json.dumps(told | {"backfill_id": backfill_id, "is_new": is_new}))
    else:
        _tell(told)
        if backfill_id is not None:
            click.echo(
                f"backfill {backfill_id} " + ("has begun" if is_new else "is the same, and runs already")
            )
    if backfill_id is not None and (follow if follow is not None else _is_terminal() and not as_json):
        follow_all(settings, [backfill_id])


@click.group(cls=ShowingGroup, invoke_without_command=True)
@click.option("--running", is_flag=True, help="Only those that run.")
@click.option("--all", "everything", is_flag=True, help="Also those that reconciling began.")
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 10_000), help="At most so many."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@data_dir_option
@click.pass_context
def backfills(
    ctx: click.Context, running: bool, everything: bool, limit: int, as_json: bool, data_dir: Path
) -> None:
    """List backfills: how far they are, and what they wait for."""
    if ctx.invoked_subcommand is not None:
        return
    from worker.desks import open_backfills

    async def ask(settings: Settings) -> list[dict[str, Any]]:
        async with open_backfills(settings) as rows:
            purposes = None if everything else ["backfill"]
            return await rows.progress(purposes=purposes, running=running, most=limit)

    rows = answer_of(ask(settings_for(data_dir, "DATABASE_URL")))
    if as_json or not rows:
        print_rows(rows, as_json, empty="no backfill yet; `leadsync backfill --page ID` begins one")
    for row in () if as_json else rows:
        for line in _short(row):
            click.echo(line)


@backfills.command()
@click.argument("backfill_ids", nargs=-1, required=True, type=int)
@data_dir_option
def cancel(backfill_ids: tuple[int, ...], data_dir: Path) -> None:
    """Stop backfills; the leads that they brought stay."""
    from worker.clock import now
    from worker.desks import open_backfills

    async def ask(settings: Settings) -> frozenset[int]:
        async with open_backfills(settings) as rows:
            return await rows.cancel(backfill_ids, now())

    stopped = answer_of(ask(settings_for(data_dir, "DATABASE_URL")))
    for backfill_id in backfill_ids:
        click.echo(f"{backfill_id}  {'stopped' if backfill_id in stopped else 'was not running'}")


@backfills.command()
@click.argument("backfill_ids", nargs=-1, required=True, type=int)
@data_dir_option
def follow(backfill_ids: tuple[int, ...], data_dir: Path) -> None:
    """Show how far backfills are until they are done.

    Ctrl-C stops showing, not reading.
    """
    follow_all(settings_for(data_dir, "DATABASE_URL"), list(backfill_ids))


def _is_terminal() -> bool:
    import sys

    return sys.stderr.isatty()


def _forecast(planned: "Planned", zone: tzinfo) -> dict[str, Any]:
    plan, lasts = planned.plan, planned.forecast.lasts
    return {
        "page_id": plan.page_id,
        "edge": plan.edge,
        "object_id": plan.object_id,
        "since": datetime.fromtimestamp(plan.since, zone).isoformat(),
        "until": datetime.fromtimestamp(plan.until, zone).isoformat(),
        "forms": len({object_id for edge, object_id, _ in plan.slices if edge == "form"}),
        "slices": len(plan.slices),
        "leads": plan.expected_leads,
        "calls": planned.forecast.calls,
        "calls_at_once": planned.forecast.now,
        "limit": planned.limit,
        "spent": planned.spent,
        "lasts_seconds": None if lasts == timedelta.max else round(lasts.total_seconds()),
    }


def _tell(told: dict[str, Any]) -> None:
    forms = f" of {told['forms']} form{'s' * (told['forms'] != 1)}" if told["forms"] else ""
    leads = "an unknown number of leads" if told["leads"] is None else f"about {told['leads']:,} leads"
    click.echo(
        f"{leads}{forms} of Page {told['page_id']}, created {_day(told['since'])} to {_day(told['until'])}"
    )
    click.echo(
        f"about {told['calls']:,} calls; the Page may make {told['limit']:,} in 24 hours and has made {told['spent']:,}"
    )
    lasts = told["lasts_seconds"]
    click.echo("it would never be done within this limit" if lasts is None else f"done after {about(lasts)}")


def _day(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M}"


def follow_all(settings: Settings, backfill_ids: list[int], *, quiet: bool = False) -> list[dict[str, Any]]:
    """Show how far they are until all have ended; what they then are. Ctrl-C ends the showing."""
    if not backfill_ids:
        return []
    try:
        return answer_of(_watch(settings, backfill_ids, quiet=quiet))
    except KeyboardInterrupt:
        ids = " ".join(map(str, backfill_ids))
        click.echo(f"\nit goes on without you; `leadsync backfills follow {ids}` shows it again", err=True)
        raise click.exceptions.Exit(130) from None


async def _watch(settings: Settings, backfill_ids: list[int], *, quiet: bool) -> list[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from worker.desks import open_backfills

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[leads]} leads, {task.fields[rate]}/s, {task.fields[calls]} calls"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    console = Console(stderr=True)
    async with open_backfills(settings) as rows:
        with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
            task = progress.add_task("reading", total=None, leads="0", rate="0", calls="0", note="")
            return await _until_ended(
                rows, backfill_ids, lambda **told: progress.update(task, **told), console, quiet=quiet
            )


async def _until_ended(
    rows: "BackfillStore", backfill_ids: list[int], show: Callable[..., None], console: Any, *, quiet: bool
) -> list[dict[str, Any]]:
    began = moved = time.monotonic()
    last, warned = -1, False
    while True:
        found = await rows.progress(backfill_ids, most=len(backfill_ids))
        leads, calls = sum(row["leads"] for row in found), sum(row["calls"] for row in found)
        expected = [row["expected_leads"] for row in found]
        total = None if None in expected else sum(expected)
        waits = next((row["waits_for"] for row in found if row["waits_for"]), "")
        passed = max(0.001, time.monotonic() - began)
        show(
            completed=leads, total=max(total, leads) if total is not None else None, leads=f"{leads:,}",
            rate=f"{leads / passed:,.0f}", calls=f"{calls:,}", note=f"waits: {waits}" if waits else "",
        )  # fmt: skip
        running = [row for row in found if row["state"] == "running"]
        if not running:
            _told_end(found, passed, console, quiet=quiet)
            return found
        if leads + calls != last:
            last, moved, warned = leads + calls, time.monotonic(), False
        elif time.monotonic() - moved > IDLE_SECONDS and not warned and not quiet:
            warned = True
            why = (
                f"waits: {waits}"
                if waits
                else "is a worker of the queue `backfill` running? `leadsync status`"
            )
            console.print(
                f"no progress for {IDLE_SECONDS:.0f} s ({why}); `leadsync backfills` tells more", markup=False
            )
        await asyncio.sleep(LOOK_SECONDS)


def _told_end(found: list[dict[str, Any]], seconds: float, console: Any, *, quiet: bool) -> None:
    if quiet:
        return
    leads, stored = sum(row["leads"] for row in found), sum(row["stored"] for row in found)
    calls = sum(row["calls"] for row in found)
    states = sorted({row["state"] for row in found})
    console.print(
        f"{', '.join(states)}: {leads:,} leads read in {calls:,} calls, {stored:,} of them new here; watched"
        f" for {seconds:.1f} s"
    )
    for row in found:
        if row["state"] == "failed":
            console.print(
                f"backfill {row['backfill_id']}: {row['slices_failed']} slices failed: {row['reason']}",
                markup=False,
            )


def _short(row: dict[str, Any]) -> Iterator[str]:
    """A backfill in two lines, which fit a terminal of 80 columns."""
    what = f"{row['edge']} {row['object_id']}" + (
        "" if row["purpose"] == "backfill" else f" ({row['purpose']})"
    )
    ended = f", ended {row['finished_at']:%m-%d %H:%M}" if row["finished_at"] else ""
    yield f"{row['backfill_id']:>5}  {row['state']:<9}  {what}, begun {row['requested_at']:%m-%d %H:%M}{ended}"
    waits = row["waits_for"] or (row["reason"] if row["state"] == "failed" else None)
    why = f"; {'waits' if row['waits_for'] else 'failed'}: {waits}" if waits else ""
    yield (
        f"       {row['leads']:,} leads read, {row['stored']:,} new, {row['calls']:,} calls,"
        f" {row['slices_done']} of {row['slices']} slices{why}"
    )
