"""The command that compares our rows with Meta's own listing, and tells what was missing.

It decides nothing and reads no lead itself: the workers of the queue `backfill` do. Invariant: the exit status is 0
only where every lead that Meta lists is stored.
"""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from worker.cli.arguments import ids
from worker.cli.backfill import follow_all
from worker.cli.command import SERVERS, answer_of, data_dir_option, length, settings_for
from worker.errors import LeadSyncError


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
        ended = follow_all(settings, begun, quiet=as_json)
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
        table.add_row(str(row["day"]), row["form_id"], *counts, length(row["latest"]))
    Console().print(table)


def _show_repaired(late: list[dict[str, Any]]) -> None:
    for row in late:
        click.echo(
            f"{row['leadgen_id']}  form {row['form_id']}  created {row['created_time']:%Y-%m-%d %H:%M:%S}"
            f"  was {row['was']}, late by {length(row['late'])}"
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


def _plain(value: object) -> object:
    return value.total_seconds() if isinstance(value, timedelta) else str(value)
