"""The command that writes stored leads into a file or to standard output.

It unwraps arguments, shows how far it is, and lets store/export.py, export.py and destination.py do the work. What a
person answered goes where it was ordered to go and nowhere else: stderr has counts and ids only.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

import click

from worker.cli.arguments import a_zone, ids, moment
from worker.cli.command import answer_of, data_dir_option, settings_for
from worker.destination import ReaderGone, Sink, standard_output, whole_file
from worker.errors import StoreUnavailable
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.export import Contents, Lines
    from worker.store.export import Selection

Format: TypeAlias = Literal["csv", "tsv", "jsonl"]

FORMATS: Final = ("csv", "tsv", "jsonl")
BATCH_ROWS: Final = 256
"""Rows held at once; a lead with long answers has some ten thousand bytes."""
BYTE_ORDER_MARK: Final = "\ufeff".encode()

Advance: TypeAlias = Callable[[int, int], None]
"""Told how many rows are written, and of how many."""

# What a shell tells of a process that this signal ended.
_PIPE_CLOSED: Final = 128 + signal.SIGPIPE


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the leads are told."""

    format: Format
    zone: tzinfo
    labels: bool
    bom: bool
    raw: bool


@dataclass(frozen=True, slots=True)
class _Written:
    """What became of it: leads written, and what was named and is not known, as kind and id."""

    leads: int
    unknown: tuple[tuple[str, str], ...]


@click.command()
@click.option(
    "--form", "forms", multiple=True, metavar="ID", callback=ids, help="Only this form; repeatable."
)
@click.option(
    "--page", "pages", multiple=True, metavar="ID", callback=ids, help="Only this Page; repeatable."
)
@click.option("--since", metavar="WHEN", help="Only leads created at WHEN or later.")
@click.option(
    "--until", metavar="WHEN", help="Only leads created before WHEN; a bare date is included whole."
)
@click.option(
    "--zone",
    metavar="ZONE",
    default="UTC",
    show_default=True,
    callback=a_zone,
    help="Time zone of WHEN, and in which times are written, such as Europe/Berlin.",
)
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), help="Default: by the ending of FILE, otherwise csv."
)
@click.option(
    "--labels/--keys", default=False, help="Questions and choices as people read them. Default: keys."
)
@click.option("--no-tests", is_flag=True, help="Leave test leads out.")
@click.option("--bom", is_flag=True, help="Begin with a byte order mark, by which Excel knows UTF-8.")
@click.option(
    "--raw",
    is_flag=True,
    help="Alter no cell. WARNING: a spreadsheet may then run what a stranger wrote into a form.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write FILE, readable by you only, once all is there. Default: standard output.",
)
@data_dir_option
@click.pass_context
def export(
    ctx: click.Context, forms: tuple[str, ...], pages: tuple[str, ...], since: str | None, until: str | None,
    zone: tzinfo, format_: str | None, labels: bool, no_tests: bool, bom: bool, raw: bool, output: Path | None,
    data_dir: Path,
) -> None:  # fmt: skip
    """Write the stored leads as CSV, TSV or JSON lines.

    As they are at this moment, by form and time of creation.

    One line a lead: its own fields, then a column a question. Several answers to one question are joined by " | ".
    WHEN is 2026-10-01, "2026-10-01 14:30", "30 days ago", yesterday, today, now and the like.

    In csv and tsv a cell that a spreadsheet would take for a formula gets a leading apostrophe.
    """
    from worker.clock import now
    from worker.store.export import Selection

    path = None if output is None or str(output) == "-" else output
    layout = _Layout(cast(Format, format_ or _format_of(path)), zone, labels, bom, raw)
    if layout.format == "jsonl" and (labels or bom or raw):
        raise click.UsageError(
            "jsonl has keys, no byte order mark, and is never altered: leave --labels, --bom, --raw"
        )
    at = now()
    selection = Selection(
        forms=forms,
        pages=pages,
        since=moment(since, "--since", zone, at),
        until=moment(until, "--until", zone, at, end=True),
        tests=not no_tests,
    )
    if selection.since and selection.until and selection.since >= selection.until:
        raise click.UsageError("--since is not before --until, so no lead can match")
    settings = settings_for(data_dir, "DATABASE_URL")
    # Its warnings of a lost connection would stand beside the one line that says what that means.
    logging.getLogger("psycopg").setLevel(logging.ERROR)

    try:
        with _destination(path) as sink, _progress(to_file=path is not None) as advance:
            written = answer_of(_write(settings, selection, layout, sink, advance))
    except ReaderGone:
        # The interpreter flushes standard output once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        ctx.exit(_PIPE_CLOSED)
    except StoreUnavailable as error:
        left = f"{path} was not written" if path else "what was written is not all"
        raise StoreUnavailable(f"{error}; {left}") from None
    for kind, asked in written.unknown:
        click.echo(f"leadsync: {kind} {asked} is not known here", err=True)
    if not written.leads:
        click.echo("leadsync: no stored lead matches", err=True)
    elif path:
        click.echo(f"leadsync: {written.leads:,} leads in {path}", err=True)


async def _write(
    settings: Settings, selection: "Selection", layout: _Layout, sink: Sink, advance: Advance
) -> _Written:
    from worker.export import Contents
    from worker.neighbours import create_pool
    from worker.store.export import ExportStore

    async with create_pool(settings, 1) as pool, ExportStore(pool).snapshot(selection) as snapshot:
        forms = await snapshot.forms()
        total = sum(form["leads"] for form in forms)
        advance(0, total)
        unseen = [
            form for form in selection.forms if not any(f["form_id"] == form and f["leads"] for f in forms)
        ]
        unknown = await snapshot.unknown(unseen) if unseen or selection.pages else []
        if layout.format == "jsonl":
            contents = Contents.of(forms, (), ())
        else:
            contents = Contents.of(forms, await snapshot.keys(), await snapshot.checkboxes())
        lines = _lines(contents, layout)
        if layout.bom:
            sink.write(BYTE_ORDER_MARK)
        sink.write(lines.header().encode())
        leads = 0
        async for rows in snapshot.rows(BATCH_ROWS):
            sink.write(lines.text(rows).encode())
            leads += len(rows)
            advance(leads, total)
    return _Written(leads, tuple((row["kind"], row["id"]) for row in unknown))


def _lines(contents: "Contents", layout: _Layout) -> "Lines":
    from worker.export import JsonLines, Table

    if layout.format == "jsonl":
        return JsonLines(contents, layout.zone)
    return Table(contents, layout.zone, format=layout.format, labels=layout.labels, raw=layout.raw)


def _format_of(path: Path | None) -> str:
    ending = path.suffix.lower().removeprefix(".") if path else ""
    return ending if ending in FORMATS else "csv"


def _destination(path: Path | None) -> AbstractContextManager[Sink]:
    if path:
        return whole_file(path)
    return standard_output(sys.stdout.buffer)


@contextmanager
def _progress(*, to_file: bool) -> Iterator[Advance]:
    """A bar where somebody is looking: at a terminal that does not show the leads themselves."""
    if not sys.stderr.isatty() or (sys.stdout.isatty() and not to_file):
        yield lambda written, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        BarColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with bar:
        task = bar.add_task("counting", total=None)
        began = time.monotonic()

        def advance(written: int, total: int) -> None:
            nonlocal began
            if not written:
                # The rate is of writing, without the first look at all keys.
                began = time.monotonic()
            rate = written / max(time.monotonic() - began, 0.001)
            told = f"{written:,} of {total:,} leads  {rate:,.0f}/s"
            bar.update(task, completed=written, total=total or None, description=told)

        yield advance
