"""Commands that run or watch something: up, demo, sandbox, worker, schedule, migrate, status, health.

They unwrap arguments, call what does the work, and print. What a command needs is imported in it: a health check every
few seconds should not load all of Celery.
"""

import dataclasses
import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from worker import logs
from worker.cli.command import SERVERS, answer_of, data_dir_option, settings_for
from worker.errors import ConfigurationError, LeadSyncError
from worker.inbox import BACKFILL_QUEUE, QUEUES
from worker.looks import is_ahead
from worker.settings import read_settings
from worker.stream import last_look

BACKFILL_NICENESS: Final = 10
"""Where processors are short, the past waits for live leads."""
WATCH_EVERY_SECONDS: Final = 2.0


@click.command()
@data_dir_option
def up(data_dir: Path) -> None:
    """Run everything on this machine, missing servers included.

    That is the receiver, the workers and the schedule, and Redis and Postgres where you have none.

    DATABASE_URL and REDIS_URL are used where they are set; otherwise Redis and Postgres are started here and keep
    their data in --data-dir. One Ctrl-C ends all of it in order.
    """
    from worker.stack import build_stack, refuse_taken_ports, remember
    from worker.supervisor import run as supervise

    settings = read_settings("META_APP_SECRET", "META_VERIFY_TOKEN")
    refuse_taken_ports(settings)
    with ExitStack() as held:
        stack = build_stack(settings, data_dir, held=held)
        remember(stack, data_dir)
        ready = f"leadsync is up: webhook at {stack.webhook_url}; `leadsync status` tells how it goes"
        sys.exit(supervise(stack.specs, on_ready=lambda: ready))


@click.command()
@click.option(
    "--leads", default=500, show_default=True, type=click.IntRange(1, 1_000_000), help="Leads to send."
)
@click.option(
    "--latency",
    default=0.15,
    show_default=True,
    type=click.FloatRange(0, 30),
    help="Seconds of each answer of Graph.",
)
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep data and logs in this folder."
)
def demo(leads: int, latency: float, keep: Path | None) -> None:
    """Show the whole path with simulated leads; nothing stays.

    Sends signed webhook deliveries (duplicates, sample pings, organic leads, all kinds of letters) through
    receiver, Redis, Celery and Graph into Postgres, and compares every row with what Graph holds.
    Exit status 0 only if every lead is there and equal.
    """
    from rich.console import Console

    from worker import demo as demonstration

    sys.exit(demonstration.run(leads=leads, latency=latency, keep=keep, console=Console(stderr=False)))


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("settings", nargs=-1, metavar="[NAME=VALUE]...")
def sandbox(settings: tuple[str, ...]) -> None:
    """Serve a simulated Graph API and webhook sender.

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


@click.command()
@click.option("--queue", "queues", multiple=True, type=click.Choice(QUEUES), help="Work on this queue only.")
@click.option("--concurrency", type=click.IntRange(1, 64), help="Processes; default WORKER_CONCURRENCY.")
def worker(queues: tuple[str, ...], concurrency: int | None) -> None:
    """Run a worker, which reads leads from Graph and stores them. Ends on SIGTERM, giving work back."""
    from worker.app import create_app, run_worker
    from worker.runtime import Family
    from worker.store.migrate import migrate_when_up
    from worker.tasks import Tasks

    settings = read_settings(*SERVERS, "META_APP_SECRET")
    if concurrency is not None:
        settings = dataclasses.replace(settings, worker_concurrency=concurrency)
    logs.configure(settings.log_style, settings.log_level)
    migrate_when_up(settings.database_url)
    if queues == (BACKFILL_QUEUE,):
        os.nice(BACKFILL_NICENESS)
    app = create_app(settings)
    Tasks(app, settings, queues or QUEUES, Family()).register()
    run_worker(app, settings, queues or QUEUES)


@click.command()
def schedule() -> None:
    """Run the schedule, which rings for work. Run exactly one."""
    from worker.app import create_app, run_schedule

    settings = read_settings("REDIS_URL")
    logs.configure(settings.log_style, settings.log_level)
    run_schedule(create_app(settings), settings)


@click.command()
@data_dir_option
def migrate(data_dir: Path) -> None:
    """Bring the database's schema up to this version. Workers also do it when they start."""
    from worker.store.migrate import head, is_newer
    from worker.store.migrate import migrate as migrate_schema

    settings = settings_for(data_dir, "DATABASE_URL")
    before, after = migrate_schema(settings.database_url)
    told = "" if before == after else f" (was {before or 'empty'})"
    if is_newer(after):
        told = f", of a later version: this leadsync knows {head()}, and goes on with it; finish the upgrade"
    click.echo(f"schema at {after}{told}")


@click.command()
@click.option("--watch", "is_watching", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--every",
    type=click.FloatRange(0.5, 3_600),
    help=f"Seconds between two looks; default {WATCH_EVERY_SECONDS:g}.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with --watch one a line.")
@data_dir_option
def status(is_watching: bool, every: float | None, as_json: bool, data_dir: Path) -> None:
    """Show what came in, what waits and why, and who works.

    With --watch a screen is drawn anew every few seconds: what comes in and is stored a second, how far behind it is,
    the Pages with the least budget left, backfills, health. Where there is no terminal, each look is one line. A look
    is cheap however many rows there are: `~` stands before an estimate, `+` behind what is at least so many.
    """
    from rich.console import Console

    from worker.status import gather, render
    from worker.status_watch import watch

    if every is not None and not is_watching:
        raise click.UsageError("--every goes with --watch")
    settings = settings_for(data_dir, *SERVERS)
    if is_watching:
        answer_of(watch(settings, Console(), every=every or WATCH_EVERY_SECONDS, as_json=as_json))
        return
    report = answer_of(gather(settings))
    if as_json:
        click.echo(json.dumps(report, default=str))
    else:
        Console().print(render(report, time.time()))


@click.command()
@click.argument("who", type=click.Choice([*QUEUES, "schedule"]))
@click.option("--within", default=120, show_default=True, type=click.IntRange(1), help="So many seconds.")
@data_dir_option
def health(who: str, within: int, data_dir: Path) -> None:
    """Exit 0 if a queue's workers, or the schedule, are at work.

    For health checks of single processes. At work is who has looked at its work within so many seconds.
    """
    # Health checks are many, and find their server set.
    looked_at = last_look(read_settings().redis_url or settings_for(data_dir, "REDIS_URL").redis_url, who)
    age = None if looked_at is None else time.time() - looked_at
    if age is not None and is_ahead(age):
        raise LeadSyncError(
            f"{who} looked at its work {-age:.0f} s ahead of this clock: some clock is, or was, wrong;"
            " `leadsync doctor` says what to do"
        )
    if age is None or age > within:
        raise LeadSyncError(
            f"{who} has not looked at its work {'yet' if age is None else f'for {age:.0f} s'};"
            " `leadsync doctor` says what is wrong"
        )
    click.echo(f"{who} looked at its work {max(0.0, age):.0f} s ago")
