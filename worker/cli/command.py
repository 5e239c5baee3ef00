"""What every command needs: the settings of this machine or of a running `up`, an event loop, rows on the screen.

It holds no command. Invariant: an error of leadsync is one line that says what to do, and exit status 1, or 2 where
settings or arguments are wrong.
"""

import asyncio
import dataclasses
import io
import json
import logging
import sys
from collections.abc import Coroutine, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
from click.core import ParameterSource

from worker import logs
from worker.collector import collect_seldom
from worker.errors import ConfigurationError, LeadSyncError
from worker.foreign_text import clean
from worker.settings import Settings, read_settings

if TYPE_CHECKING:
    from worker.store.statements import Row

T = TypeVar("T")

DATA_DIR: Final = ".leadsync"
SERVERS: Final = ("DATABASE_URL", "REDIS_URL")
data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DATA_DIR,
    show_default=True,
    help="The folder in which `leadsync up` keeps its data, and says where its Redis and Postgres are.",
)


class CommandGroup(click.Group):
    """Turns leadsync's own errors into one line and an exit status, and lists its commands by what they are for."""

    def __init__(self, *args: Any, sections: Mapping[str, Iterable[str]], **kwargs: Any) -> None:
        """`sections`: title -> names of commands, each in one of them."""
        super().__init__(*args, **kwargs)
        self._sections = sections

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section; the names stand in one column throughout."""
        width = max(len(name) for name in self.commands)
        for title, names in self._sections.items():
            rows = [
                (name.ljust(width), self.commands[name].get_short_help_str(formatter.width)) for name in names
            ]
            with formatter.section(title):
                formatter.write_dl(rows)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Names are in all scripts; where an output's encoding lacks a sign, its number is shown."""
        collect_seldom()
        for output in (sys.stdout, sys.stderr):
            if isinstance(output, io.TextIOWrapper):
                output.reconfigure(errors="backslashreplace")
        return super().main(*args, **kwargs)

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


class ShowingGroup(click.Group):
    """A group that shows something by itself. Options typed before one of its commands are that command's."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Also raises click.UsageError for an option that the command has not: it would change nothing."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None:
            typed = [option for option in self.params if _is_typed(ctx, option.name)]
            known = {option.name for option in command.params if isinstance(option, click.Option)}
            for option in typed:
                if option.name not in known:
                    raise click.UsageError(f"`{name}` has no option {option.opts[0]}", ctx)
            ctx.default_map = {name: {option.name: ctx.params[option.name or ""] for option in typed}}
        return name, command, rest


def _is_typed(ctx: click.Context, name: str | None) -> bool:
    return name in ctx.params and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def settings_for(data_dir: Path | str, *needed: str) -> Settings:
    """The settings, with the servers of a running `leadsync up` where none are set."""
    from worker.stack import remembered

    settings = read_settings()
    found = remembered(Path(data_dir))
    settings = dataclasses.replace(
        settings,
        database_url=settings.database_url or found.get("DATABASE_URL", ""),
        redis_url=settings.redis_url or found.get("REDIS_URL", ""),
    )
    if not settings.token_keys and settings.token_keys_file is None and "TOKEN_KEYS_FILE" in found:
        settings = dataclasses.replace(settings, token_keys_file=Path(found["TOKEN_KEYS_FILE"]))
    logs.configure(settings.log_style, "warning")
    # A server that is away is the command's own error, in one line.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    have = {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "META_APP_SECRET": settings.app_secrets,
        "META_APP_ID": settings.app_id,
    }
    lacking = [name for name in needed if not have[name]]
    if lacking:
        hints = dict.fromkeys(("META_APP_ID", "META_APP_SECRET"), "set it in the environment or in .env")
        elsewhere = (
            f"and no `leadsync up` keeps its data in {data_dir}: set it in .env, or run this in the folder of your"
            " `leadsync up`, or with its --data-dir"
        )
        raise ConfigurationError(
            "\n".join(
                f"{name}: is not set{', ' + hints[name] if name in hints else ', ' + elsewhere}"
                for name in lacking
            )
        )
    return settings


def answer_of(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def doubt_ids(page_ids: Iterable[str]) -> None:
    """Say of Pages that nothing was known of here that their ids may be wrong; what was ordered of them stands."""
    for page_id in sorted(page_ids):
        click.echo(f"leadsync: nothing was known here of Page {page_id} so far; is its id right?", err=True)


def print_rows(rows: "list[Row]", as_json: bool, *, empty: str) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(row, default=str))
        return
    if not rows:
        click.echo(empty)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(Text(clean(cell(value))) for value in row.values()))
    Console().print(table)


def cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S %Z")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def length(late: timedelta | None) -> str:
    """A length of time in its largest unit; nothing where there is none."""
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


def about(seconds: float) -> str:
    """A length of time that was foreseen."""
    return "a few seconds" if seconds < 10 else f"about {length(timedelta(seconds=seconds))}"
