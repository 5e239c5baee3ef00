"""The command that reads Meta's lead exports from files; import_all does the same for whoever has downloaded one.

It opens files, shows progress and prints; what is imported is decided elsewhere. Invariant: no answer of a person is
printed; a row that was kept aside is told by line and reason, and makes the exit status 1.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from worker.cli.arguments import a_zone, an_id
from worker.cli.command import answer_of, data_dir_option, settings_for
from worker.errors import LeadSyncError, StoreUnavailable
from worker.export_file import ExportFile
from worker.export_text import NotAnExport
from worker.importing import Importer, Summary
from worker.rejected import RejectedRows
from worker.settings import Settings

STDIN: Final = Path("-")


page_option = click.option(
    "--page", "page_id", callback=an_id, help="The Page of rows whose form is not known here."
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a file.")


@dataclass(frozen=True, slots=True)
class Wish:
    """How files are to be imported."""

    zone: tzinfo
    page_id: str | None
    rejects: Path | None
    dry_run: bool
    as_json: bool


@click.command("import")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
)
@page_option
@click.option(
    "--zone",
    default="UTC",
    show_default=True,
    callback=a_zone,
    help="Time zone of times in the file that have no offset, such as Europe/Berlin.",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where rows go that cannot be imported; default FILE.rejected.tsv.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be imported, and write no row.")
@json_option
@data_dir_option
def import_(
    files: tuple[Path, ...],
    page_id: str | None,
    zone: tzinfo,
    rejects: Path | None,
    dry_run: bool,
    as_json: bool,
    data_dir: Path,
) -> None:
    """Import lead exports of Ads Manager or Leads Centre.

    FILE is TSV or CSV, in UTF-8 or UTF-16; - is standard input.

    A lead that is stored already is only filled where it lacks something, so importing twice changes nothing. Rows
    that cannot be imported go to --rejects, which holds personal data; mended, that file can be imported itself.
    Exit status 1 if there are any, 2 if a file is no lead export. docs/import.md tells more.
    """
    if rejects is not None and len(files) > 1:
        raise click.UsageError("--rejects goes with one FILE")
    if rejects is not None and rejects.resolve() in {path.resolve() for path in files}:
        raise click.UsageError("--rejects would take the place of FILE")
    settings = settings_for(data_dir, "DATABASE_URL")
    sys.exit(answer_of(import_all(settings, files, Wish(zone, page_id, rejects, dry_run, as_json))))


async def import_all(settings: Settings, files: tuple[Path, ...], wish: Wish) -> int:
    """Import each file; the exit status."""
    from worker.clock import now
    from worker.neighbours import create_pool
    from worker.store.imports import ImportStore

    status = 0
    async with create_pool(settings, 1) as pool:
        for path in files:
            try:
                summary, rejects = await _import_file(ImportStore(pool), path, wish, now)
            except NotAnExport as error:
                click.echo(f"leadsync: {_name(path)} {error}", err=True)
                status = 2
                continue
            _tell_import(path, summary, rejects, wish)
            if summary.kept_aside:
                status = max(status, 1)
    return status


async def _import_file(
    store: Any, path: Path, wish: Wish, clock: Callable[[], datetime]
) -> tuple[Summary, Path]:
    rejects = wish.rejects or Path("stdin.rejected.tsv" if path == STDIN else f"{path}.rejected.tsv")
    with _opened(path) as (stream, size), progress(_name(path), size) as advance:
        export = ExportFile(stream, wish.zone)
        with RejectedRows(rejects, export.header) as kept:
            importer = Importer(store, kept.keep, clock, page_id=wish.page_id, dry_run=wish.dry_run)
            try:
                return await importer.run(export, lambda: advance(export.bytes_read)), rejects
            except StoreUnavailable as error:
                done = importer.summary.new + importer.summary.completed
                raise LeadSyncError(
                    f"{error}. {many(done, 'row')} of {_name(path)} {'would be' if wish.dry_run else 'are'} written;"
                    " import the file again, those are then unchanged"
                ) from None


def _tell_import(path: Path, summary: Summary, rejects: Path, wish: Wish) -> None:
    if wish.as_json:
        told = {
            "file": _name(path),
            "dry_run": wish.dry_run,
            "rows": summary.rows,
            "new": summary.new,
            "completed": summary.completed,
            "unchanged": summary.unchanged,
            "kept_aside": summary.kept_aside,
            "reasons": dict(summary.reasons.most_common()),
            "rejects": str(rejects) if summary.kept_aside else None,
        }
        click.echo(json.dumps(told))
        return
    click.echo(
        f"{_name(path)}: {many(summary.rows, 'row')}: {summary.new:,} new, {summary.completed:,} completed,"
        f" {summary.unchanged:,} unchanged, {summary.kept_aside:,} kept aside"
        + (" (dry run: nothing was written)" if wish.dry_run else "")
    )
    for reason, count in summary.reasons.most_common():
        click.echo(f"  {count:,}  {reason}")
    if summary.kept_aside:
        click.echo(f"  kept aside in {rejects}, which holds personal data")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    if path == STDIN:
        yield sys.stdin.buffer, None
        return
    try:
        stream = path.open("rb")
    except OSError as error:
        raise LeadSyncError(f"{path} cannot be read: {error.strerror}") from None
    with stream:
        yield stream, path.stat().st_size


@contextmanager
def progress(name: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """Shows bytes on a terminal; elsewhere nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    with ExitStack() as held:
        if not console.is_terminal:
            yield lambda _: None
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
        )
        bar = held.enter_context(Progress(*columns, console=console, transient=True))
        task = bar.add_task(name, total=size)
        yield lambda done: bar.update(task, completed=done)


def _name(path: Path) -> str:
    return "standard input" if path == STDIN else str(path)


def many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
