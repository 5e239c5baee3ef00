"""Commands that tell what each Page may spend of Graph's calls, and set a limit by hand."""

import json
from datetime import timedelta
from pathlib import Path

import click

from worker.cli.command import (
    SERVERS,
    ShowingGroup,
    about,
    answer_of,
    data_dir_option,
    doubt_ids,
    length,
    settings_for,
)
from worker.inbox import is_id
from worker.settings import Settings


@click.group(cls=ShowingGroup, invoke_without_command=True)
@click.option("--page", "page_id", help="Only this Page.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
@click.pass_context
def budget(ctx: click.Context, page_id: str | None, as_json: bool, data_dir: Path) -> None:
    """Show how many calls each Page may make, and has made.

    Meta allows a Page 200 x 24 x its leads of the last 90 days in any 24 hours; each lead that is read costs a call.
    `limit` is what leadsync spends of that at most. Then come the calls of the last 24 hours: `spent`, what is `left`,
    and what went to `live` leads, to those `waiting` for a second try, to `backfill` and to `upkeep`. `Meta` is the
    share that Meta itself says is used. `saved` calls were not needed, because a form's listing brought many leads at
    once. From 100,000 on numbers are rounded (k, M); --json has them exact.
    """
    if ctx.invoked_subcommand is not None:
        return
    from rich.console import Console

    from worker.budget_report import gather, render

    report = answer_of(gather(settings_for(data_dir, *SERVERS), page_id))
    if as_json:
        click.echo(json.dumps(report))
    else:
        Console().print(render(report))


@budget.command("forecast")
@click.option("--page", "page_id", required=True, help="The Page to be read.")
@click.option("--leads", type=click.IntRange(0), help="So many leads; default: all that Meta holds of it.")
@click.option(
    "--leads-a-call",
    default=100,
    show_default=True,
    type=click.IntRange(1, 500),
    help="What a call of a listing brings.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
def budget_forecast(
    page_id: str, leads: int | None, leads_a_call: int, as_json: bool, data_dir: Path
) -> None:
    """Tell what a backfill of a Page would cost, and take.

    In calls, and in time beside its live leads.
    """
    from worker.budget_report import foresee

    told = answer_of(foresee(settings_for(data_dir, *SERVERS), page_id, leads, leads_a_call))
    if as_json:
        click.echo(json.dumps(told))
        return
    lasts = told["lasts_seconds"]
    click.echo(f"{told['leads']:,} leads of {told['forms'] or 'unknown'} forms: {told['calls']:,} calls")
    click.echo(
        f"the Page may make {told['limit']:,} calls in 24 hours; {told['calls_at_once']:,} of these at once"
    )
    click.echo("it would never be done within this limit" if lasts is None else f"done after {about(lasts)}")
    click.echo(
        f"its forms can be reconciled every {length(timedelta(seconds=told['reconcile_every_seconds']))}"
    )


@budget.command("limit")
@click.argument("page_id")
@click.argument("calls", type=click.IntRange(0), required=False)
@click.option("--clear", is_flag=True, help="Work the limit out again instead.")
@data_dir_option
def budget_limit(page_id: str, calls: int | None, clear: bool, data_dir: Path) -> None:
    """Set the limit of a Page by hand, until cleared.

    CALLS in any 24 hours, in force at once.
    One call less is spent, since at Meta's own limit the Page would be closed. With 0 no call is made for the Page.
    """
    if clear == (calls is not None):
        raise click.UsageError("give CALLS, or --clear")
    if not is_id(page_id):
        raise click.BadParameter("is not a Page's id", param_hint="PAGE_ID")
    from worker.budget.policy import Limit
    from worker.clock import now
    from worker.desks import open_budget, open_store

    async def ask(settings: Settings) -> tuple[Limit, frozenset[str]]:
        async with open_store(settings) as store:
            unknown = await store.unknown_pages([page_id])
        async with open_budget(settings) as (_, granter, rows):
            await rows.override(page_id, calls, now())
            return await granter.refresh(page_id), unknown

    limit, unknown = answer_of(ask(settings_for(data_dir, *SERVERS)))
    click.echo(f"{page_id}  limit {limit.calls:,} calls, from {limit.origin}")
    doubt_ids(unknown)
