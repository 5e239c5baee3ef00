"""Commands that read the past: begin a backfill and watch it, list and stop backfills, compare with Meta's listing.

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

from worker.cli.arguments import a_zone, an_id, ids, moment
from worker.cli.command import SERVERS, answer_of, data_dir_option, print_rows, settings_for
from worker.errors import LeadSyncError
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
        _follow(settings, [backfill_id])


@click.group(invoke_without_command=True)
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
    _follow(settings_for(data_dir, "DATABASE_URL"), list(backfill_ids))


@click.command()
@click.option("--form", "form_ids", multiple=True, callback=ids, help="Only this form; may be given again.")
@click.option(
    "--page", "page_ids", multiple=True, callback=ids, help="Only this Page's forms; may be given again."
)
@click.option("--days", default=7, show_default=True, type=click.IntRange(1, 91), help="So many days back.")
@click.option("--report", "report_only", is_flag=True, help="Compare nothing; print what was found so far.")
@click.option("--every-day", is_flag=True, help="Print the days on which nothing was missing, too.")
@click.option("--repaired", is_flag=True, help="List the leads that reconciling brought, and how late.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
def reconcile(
    form_ids: tuple[str, ...],
    page_ids: tuple[str, ...],
    days: int,
    report_only: bool,
    every_day: bool,
    repaired: bool,
    as_json: bool,
    data_dir: Path,
) -> None:
    """Compare our rows with Meta's listing; bring what is missing.

    Id by id, and printed by form and day.

    This also happens by itself: active forms every RECONCILE_EVERY_SECONDS, all of them in full every
    RECONCILE_DEEP_SECONDS. The newest leads (RECONCILE_LAG_SECONDS) are left to their webhooks. `missing` counts leads
    that Meta listed and no row held; `repaired` those that now have one; `unexplained` is what is left. Exit status 1
    where something is unexplained.
    """
    from worker.clock import now
    from worker.desks import open_desk, open_reconciliations
    from worker.doorbell import BACKFILL_BELL_OF
    from worker.orders import order_comparison
    from worker.tasks import ring_now

    settings = settings_for(data_dir, *(("DATABASE_URL",) if report_only else (*SERVERS, "META_APP_SECRET")))
    since = (now() - timedelta(days=days - 1)).replace(hour=0, minute=0, second=0, microsecond=0)

    async def begin() -> list[int]:
        async with open_desk(settings) as desk:
            pages = page_ids or (() if form_ids else await desk.tokens.page_ids())
            if not pages and not form_ids:
                raise LeadSyncError("no Page has a token; run `leadsync connect`, or set PAGE_TOKENS")
            return await order_comparison(
                desk, page_ids=pages, form_ids=form_ids, since=since,
                lag=timedelta(seconds=settings.reconcile_lag),
            )  # fmt: skip

    failed: list[dict[str, Any]] = []
    if not report_only:
        begun = answer_of(begin())
        ring_now(settings, BACKFILL_BELL_OF)
        ended = _follow(settings, begun, quiet=as_json)
        failed = [row for row in ended if row["state"] != "done"]

    async def look() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        async with open_reconciliations(settings) as rows:
            forms = form_ids or None
            found = await rows.report(forms, since, page_ids=page_ids or None)
            late = await rows.repaired(forms, since, 100_000 if repaired else 0, page_ids=page_ids or None)
            return found, late

    found, late = answer_of(look())
    unexplained = sum(row["unexplained"] for row in found)
    if as_json:
        told = {"days": found, "repaired": late, "failed": failed, "unexplained": unexplained}
        click.echo(json.dumps(told, default=_plain))
    else:
        _show_report(found, every_day=every_day)
        if repaired:
            _show_repaired(late)
        _sum_up(found, failed)
    if unexplained or failed:
        raise click.exceptions.Exit(1)


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


def about(seconds: float) -> str:
    """A length of time that was foreseen."""
    return "a few seconds" if seconds < 10 else f"about {_span(timedelta(seconds=seconds))}"


def _day(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M}"


def _follow(settings: Settings, backfill_ids: list[int], *, quiet: bool = False) -> list[dict[str, Any]]:
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
        TextColumn("{task.fields[note]}"),
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
                else "is a worker of the queue `backfill` running? `leadsync health backfill`"
            )
            console.print(f"no progress for {IDLE_SECONDS:.0f} s ({why}); `leadsync backfills` tells more")
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
                f"backfill {row['backfill_id']}: {row['slices_failed']} slices failed: {row['reason']}"
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


def _show_report(found: list[dict[str, Any]], *, every_day: bool) -> None:
    """The days on which something was missing, or all."""
    from rich.console import Console
    from rich.table import Table

    shown = [row for row in found if every_day or row["missing"] or row["unexplained"]]
    if not found:
        click.echo("Meta lists no lead of this time")
    elif not shown:
        click.echo(
            f"nothing was missing on any of {len(found)} days of {len({r['form_id'] for r in found})} forms"
        )
    if not shown:
        return
    table = Table("day (UTC)", "form", "Meta's", "ours", "missing", "repaired", "unexpl.", "late by")
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[2:]:
        column.justify = "right"
    for row in shown:
        counts = (f"{row[name]:,}" for name in ("metas", "ours", "missing", "repaired", "unexplained"))
        table.add_row(str(row["day"]), row["form_id"], *counts, _span(row["latest"]))
    Console().print(table)


def _show_repaired(late: list[dict[str, Any]]) -> None:
    for row in late:
        click.echo(
            f"{row['leadgen_id']}  form {row['form_id']}  created {row['created_time']:%Y-%m-%d %H:%M:%S}"
            f"  was {row['was']}, late by {_span(row['late'])}"
        )
    if not late:
        click.echo("no lead was missing")


def _sum_up(found: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
    sums = {
        name: sum(row[name] for row in found)
        for name in ("metas", "ours", "missing", "repaired", "unexplained")
    }
    click.echo(
        f"{sums['metas']:,} leads at Meta, {sums['ours']:,} here; {sums['missing']:,} were missing,"
        f" {sums['repaired']:,} of them repaired, {sums['unexplained']:,} unexplained"
    )
    for row in failed:
        click.echo(
            f"form {row['object_id']} could not be compared: {row['reason'] or row['state']}", err=True
        )


def _span(late: timedelta | None) -> str:
    if late is None:
        return ""
    seconds = round(late.total_seconds())
    days, hours, minutes = seconds // 86_400, seconds // 3_600, seconds // 60
    return (
        f"{days} d"
        if days > 1
        else f"{hours} h"
        if hours > 1
        else f"{minutes} min"
        if minutes > 1
        else f"{seconds} s"
    )


def _plain(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else str(value)
