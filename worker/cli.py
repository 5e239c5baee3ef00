"""The operator's commands. They unwrap arguments, call what does the work, and print; they decide nothing.

Invariant: results go to stdout, everything else to stderr; an error is one line that says what to do, and exit
status 1, or 2 where the settings or arguments are wrong. No command but `demo` prints an answer of a person, and none
a token. What a command needs is imported in it: a health check every few seconds should not load all of Celery.
"""

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Coroutine
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from worker import logs
from worker.errors import ConfigurationError, LeadSyncError
from worker.inbox import QUEUES, is_id
from worker.settings import Settings, read_settings
from worker.stream import last_look

if TYPE_CHECKING:
    from worker.store.statements import Row

T = TypeVar("T")

DATA_DIR: Final = ".leadsync"
_SERVERS: Final = ("DATABASE_URL", "REDIS_URL")
_data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DATA_DIR,
    show_default=True,
    help="Where embedded Redis and Postgres keep their data.",
)


class _Group(click.Group):
    """Turns leadsync's own errors into one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            for problem in str(error).splitlines():
                click.echo(f"leadsync: {problem}", err=True)
            ctx.exit(2)
        except LeadSyncError as error:
            click.echo(f"leadsync: {error}", err=True)
            ctx.exit(1)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="leadsync")
def main() -> None:
    """Every announced Meta lead becomes one row in Postgres.

    `leadsync demo` shows the whole path against a simulated Graph API; `leadsync up` runs it for real with the
    settings in .env (see .env.example).
    """


@main.command()
@_data_dir
def up(data_dir: Path) -> None:
    """Run everything on this machine: receiver, workers, schedule, and the servers that are missing.

    DATABASE_URL and REDIS_URL are used where they are set; otherwise Redis and Postgres are started here and keep
    their data in --data-dir. One Ctrl-C ends all of it in order.
    """
    from worker.stack import build_stack, remember
    from worker.supervisor import run as supervise

    settings = read_settings("META_APP_SECRET", "META_VERIFY_TOKEN")
    with ExitStack() as held:
        stack = build_stack(settings, data_dir, held=held)
        remember(stack, data_dir)
        ready = f"leadsync is up: webhook at {stack.webhook_url}; `leadsync status` tells how it goes"
        sys.exit(supervise(stack.specs, on_ready=lambda: click.secho(ready, fg="green", err=True)))


@main.command()
@click.option(
    "--leads", default=500, show_default=True, type=click.IntRange(1, 1_000_000), help="Leads to send."
)
@click.option(
    "--latency", default=0.15, show_default=True, type=click.FloatRange(0, 30), help="Graph's, in seconds."
)
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep data and logs in this folder."
)
def demo(leads: int, latency: float, keep: Path | None) -> None:
    """Show the whole path on this machine, against a simulated Graph API; nothing is left behind.

    Sends signed webhook deliveries (duplicates, sample pings, organic leads, all kinds of letters) through
    receiver, Redis, Celery and Graph into Postgres, and compares every row with what Graph holds.
    Exit status 0 only if every lead is there and equal.
    """
    from rich.console import Console

    from worker import demo as demonstration

    sys.exit(demonstration.run(leads=leads, latency=latency, keep=keep, console=Console(stderr=False)))


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
def sandbox(settings: tuple[str, ...]) -> None:
    """Serve the simulated Graph API and webhook sender, to develop against.

    NAME=VALUE are its settings, for example `leadsync sandbox port=9900 leads=1000 latency_seconds=0.15`;
    docs/sandbox.md lists them all.
    """
    from sandbox.app import run
    from sandbox.config import ConfigRefused, from_words

    logs.configure("console", "info")
    try:
        config = from_words(settings)
    except ConfigRefused as error:
        raise ConfigurationError(str(error)) from None
    run(config)


@main.command()
@click.option("--queue", "queues", multiple=True, type=click.Choice(QUEUES), help="Work on this queue only.")
@click.option("--concurrency", type=click.IntRange(1, 64), help="Processes; default WORKER_CONCURRENCY.")
def worker(queues: tuple[str, ...], concurrency: int | None) -> None:
    """Run a worker: reads announced leads from Graph and stores them. Ends on SIGTERM, giving work back."""
    from worker.app import create_app, run_worker
    from worker.runtime import Family
    from worker.store.migrate import migrate_when_up
    from worker.tasks import Tasks

    settings = read_settings(*_SERVERS, "META_APP_SECRET")
    if concurrency is not None:
        settings = dataclasses.replace(settings, worker_concurrency=concurrency)
    logs.configure(settings.log_style, settings.log_level)
    migrate_when_up(settings.database_url)
    app = create_app(settings)
    Tasks(app, settings, queues or QUEUES, Family()).register()
    run_worker(app, settings, queues or QUEUES)


@main.command()
def schedule() -> None:
    """Run the schedule, which rings for work. Run exactly one."""
    from worker.app import create_app, run_schedule

    settings = read_settings("REDIS_URL")
    logs.configure(settings.log_style, settings.log_level)
    run_schedule(create_app(settings), settings)


@main.command()
def migrate() -> None:
    """Bring the database's schema up to this version. Workers also do it when they start."""
    from worker.store.migrate import migrate as migrate_schema

    settings = _settings(DATA_DIR, "DATABASE_URL")
    before, after = migrate_schema(settings.database_url)
    click.echo(f"schema at {after}" + ("" if before == after else f" (was {before or 'empty'})"))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_data_dir
def status(as_json: bool, data_dir: Path) -> None:
    """Tell how it goes: what came in, what waits and why, what is dead, who works."""
    from rich.console import Console

    from worker.status import gather, render

    settings = _settings(data_dir, *_SERVERS)
    report = _ask(gather(settings))
    if as_json:
        click.echo(json.dumps(report, default=str))
    else:
        Console().print(render(report, time.time()))


@main.command()
@click.argument("who", type=click.Choice([*QUEUES, "schedule"]))
@click.option("--within", default=120, show_default=True, type=click.IntRange(1), help="Seconds.")
def health(who: str, within: int) -> None:
    """Exit 0 if the workers of a queue, or the schedule, have lately looked at their work; for health checks."""
    looked_at = last_look(read_settings("REDIS_URL").redis_url, who)
    age = None if looked_at is None else time.time() - looked_at
    if age is None or age > within:
        raise LeadSyncError(
            f"{who} has not looked at its work {'yet' if age is None else f'for {age:.0f} s'}"
        )
    click.echo(f"{who} looked at its work {age:.0f} s ago")


@main.group("dead-letters")
def dead_letters() -> None:
    """Look at references that ended without a lead, and put them back."""


_reason = click.option("--reason", help="Only those that died of this reason.")
_page = click.option("--page", "page_id", help="Only those of this Page.")


@dead_letters.command("list")
@_reason
@_page
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="At most so many."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_data_dir
def list_dead(reason: str | None, page_id: str | None, limit: int, as_json: bool, data_dir: Path) -> None:
    """List dead letters, the newest first."""

    from worker.runtime import open_store

    async def ask(settings: Settings) -> "list[Row]":
        async with open_store(settings) as store:
            return await store.dead_letters(reason=reason, page_id=page_id, limit=limit)

    rows = _ask(ask(_settings(data_dir, "DATABASE_URL")))
    _print_rows(rows, as_json, empty="no dead letters")


@dead_letters.command("show")
@click.argument("leadgen_id")
@_data_dir
def show_dead(leadgen_id: str, data_dir: Path) -> None:
    """Show all that is known of one reference, but its answers."""

    from worker.runtime import open_store

    async def ask(settings: Settings) -> "Row | None":
        async with open_store(settings) as store:
            return await store.show(leadgen_id)

    row = _ask(ask(_settings(data_dir, "DATABASE_URL")))
    if row is None:
        raise LeadSyncError(
            f"lead {leadgen_id} is not known here: no webhook that announced it has been read"
        )
    for name, value in row.items():
        click.echo(f"{name:>16}  {_cell(value)}")


@dead_letters.command("replay")
@click.argument("leadgen_ids", nargs=-1)
@_reason
@_page
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@_data_dir
def replay(
    leadgen_ids: tuple[str, ...], reason: str | None, page_id: str | None, everything: bool, data_dir: Path
) -> None:
    """Put dead letters back: those named, or all that --reason, --page or --all choose."""
    if not (leadgen_ids or reason or page_id or everything):
        raise click.UsageError("name LEADGEN_IDS, or choose by --reason, --page or --all")

    from worker.runtime import open_store

    async def ask(settings: Settings) -> tuple[str, ...]:
        async with open_store(settings) as store:
            return await store.replay(
                datetime.now(UTC), ids=leadgen_ids or None, reason=reason, page_id=page_id
            )

    replayed = _ask(ask(_settings(data_dir, "DATABASE_URL")))
    click.echo(f"{len(replayed)} put back; the workers read them within seconds")


@main.group()
def pages() -> None:
    """Look at Pages, and take those up again that are parked."""


@pages.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@_data_dir
def list_pages(as_json: bool, data_dir: Path) -> None:
    """List the Pages: parked since when and why, held by the budget until when, and what waits for them."""

    from worker.runtime import open_store

    async def ask(settings: Settings) -> "list[Row]":
        async with open_store(settings) as store:
            return await store.pages()

    _print_rows(_ask(ask(_settings(data_dir, "DATABASE_URL"))), as_json, empty="no Page is known yet")


@pages.command("unpark")
@click.argument("page_ids", nargs=-1, required=True)
@_data_dir
def unpark(page_ids: tuple[str, ...], data_dir: Path) -> None:
    """Take Pages up again once their token or permission is mended; what waits for them is read at once."""

    from worker.runtime import open_store

    async def ask(settings: Settings) -> tuple[str, ...]:
        async with open_store(settings) as store:
            return await store.unpark(page_ids, datetime.now(UTC))

    freed = _ask(ask(_settings(data_dir, "DATABASE_URL")))
    for page_id in page_ids:
        click.echo(f"{page_id}  {'taken up again' if page_id in freed else 'was not held'}")


@main.group(invoke_without_command=True)
@click.option("--page", "page_id", help="Only this Page.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_data_dir
@click.pass_context
def budget(ctx: click.Context, page_id: str | None, as_json: bool, data_dir: Path) -> None:
    """Tell what each Page may spend of Graph's calls, what it has spent, and what waits for it.

    Meta allows a Page 200 x 24 x its leads of the last 90 days in any 24 hours; each lead that is read costs a call.
    `limit` is what leadsync spends of that at most, `from` where it comes from: our rows, Meta's own counts of its
    forms, the floor of a Page without a known lead, or your override. `saved` calls were not needed, because a form's
    listing brought many leads at once.
    """
    if ctx.invoked_subcommand is not None:
        return
    from rich.console import Console

    from worker.budget_report import gather, render

    report = _ask(gather(_settings(data_dir, *_SERVERS), page_id))
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
@_data_dir
def budget_forecast(
    page_id: str, leads: int | None, leads_a_call: int, as_json: bool, data_dir: Path
) -> None:
    """Tell what a backfill of a Page would cost in calls and how long it would take beside its live leads."""
    from worker.budget_report import foresee

    told = _ask(foresee(_settings(data_dir, *_SERVERS), page_id, leads, leads_a_call))
    if as_json:
        click.echo(json.dumps(told))
        return
    lasts = told["lasts_seconds"]
    click.echo(f"{told['leads']:,} leads of {told['forms'] or 'unknown'} forms: {told['calls']:,} calls")
    click.echo(f"limit {told['limit']:,} calls; {told['calls_at_once']:,} of them can be made at once")
    click.echo(
        "never done within this limit" if lasts is None else f"done after about {timedelta(seconds=lasts)}"
    )
    click.echo(f"reconciling all forms: every {timedelta(seconds=told['reconcile_every_seconds'])}")


@budget.command("limit")
@click.argument("page_id")
@click.argument("calls", type=click.IntRange(0), required=False)
@click.option("--clear", is_flag=True, help="Work the limit out again instead.")
@_data_dir
def budget_limit(page_id: str, calls: int | None, clear: bool, data_dir: Path) -> None:
    """Set the limit of a Page by hand: CALLS in any 24 hours, in force at once, until cleared.

    One call less is spent, since at Meta's own limit the Page would be closed. With 0 no call is made for the Page.
    """
    if clear == (calls is not None):
        raise click.UsageError("give CALLS, or --clear")
    if not is_id(page_id):
        raise click.BadParameter("is not a Page's id", param_hint="PAGE_ID")
    from worker.budget.policy import Limit
    from worker.runtime import now, open_budget

    async def ask(settings: Settings) -> Limit:
        async with open_budget(settings) as (_, granter, rows):
            await rows.override(page_id, calls, now())
            return await granter.refresh(page_id)

    limit = _ask(ask(_settings(data_dir, *_SERVERS)))
    click.echo(f"{page_id}  limit {limit.calls:,} calls, from {limit.origin}")


def _settings(data_dir: Path | str, *needed: str) -> Settings:
    """The settings, with the servers of a running `leadsync up` where none are set."""
    from worker.stack import remembered

    settings = read_settings()
    found = remembered(Path(data_dir))
    settings = dataclasses.replace(
        settings,
        database_url=settings.database_url or found.get("DATABASE_URL", ""),
        redis_url=settings.redis_url or found.get("REDIS_URL", ""),
    )
    logs.configure(settings.log_style, "warning")
    have = {"DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url}
    missing = [name for name in needed if not have[name]]
    if missing:
        raise ConfigurationError(
            "\n".join(
                f"{name}: is not set, and no `leadsync up` keeps its data in {data_dir}" for name in missing
            )
        )
    return settings


def _ask(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _print_rows(rows: "list[Row]", as_json: bool, *, empty: str) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, default=str))
        return
    if not rows:
        click.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S %Z")
    return "" if value is None else str(value)
