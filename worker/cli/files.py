"""Commands that take Meta's lead export: read a file that was downloaded, or download it.

They open files, show progress and print; what is imported is decided elsewhere. Invariant: no answer of a person is
printed; a row that was kept aside is told by line and reason, and makes the exit status 1.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from worker.cli.command import answer_of, data_dir_option, settings_for
from worker.errors import ConfigurationError, LeadSyncError, StoreUnavailable
from worker.export_download import ExportAccess, Span, download, span_of
from worker.export_file import ExportedLead, ExportFile
from worker.export_text import NotAnExport
from worker.importing import Importer, Summary
from worker.inbox import is_id
from worker.rejected import RejectedRows
from worker.settings import Settings
from worker.when import UnknownZone, UnreadableTime, parse_when, zone_of

STDIN: Final = Path("-")
AD_IDS: Final = ("ad_id", "adset_id", "campaign_id")


def _zone(_: click.Context, __: click.Parameter, name: str) -> tzinfo:
    try:
        return zone_of(name)
    except UnknownZone as error:
        raise click.BadParameter(str(error)) from None


def _an_id(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    if text is not None and not is_id(text):
        raise click.BadParameter("is not an id: 1 to 32 digits")
    return text


_page_option = click.option(
    "--page", "page_id", callback=_an_id, help="The Page of rows whose form is not known here."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a file.")


@dataclass(frozen=True, slots=True)
class _Wish:
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
@_page_option
@click.option(
    "--zone",
    default="UTC",
    show_default=True,
    callback=_zone,
    help="Where times without an offset were told, as Europe/Berlin.",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where rows go that cannot be imported; default FILE.rejected.tsv.",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be imported, and write no row.")
@_json_option
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
    sys.exit(answer_of(_import_all(settings, files, _Wish(zone, page_id, rejects, dry_run, as_json))))


@click.command("export-csv")
@click.option("--form", "form_id", required=True, callback=_an_id, help="The form whose leads are exported.")
@click.option("--from", "since", metavar="WHEN", help="Default: when the form was made.")
@click.option("--to", "until", metavar="WHEN", help="Default: now. A day is taken in whole.")
@click.option(
    "--zone",
    default="UTC",
    show_default=True,
    callback=_zone,
    help="Where WHEN, and times without an offset in the file, are told.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Default: leads-FORM_ID.tsv.",
)
@click.option("--import", "then_import", is_flag=True, help="Import the file afterwards.")
@_page_option
@_json_option
@data_dir_option
def export_csv(
    form_id: str,
    since: str | None,
    until: str | None,
    zone: tzinfo,
    output: Path | None,
    then_import: bool,
    page_id: str | None,
    as_json: bool,
    data_dir: Path,
) -> None:
    """Download a form's lead export from Meta, 90 days of leads.

    It is a TSV file, despite its name.

    WHEN is 2026-10-01, "2026-10-01 14:30", ISO 8601, unix seconds, "30 days ago", yesterday, today or now.

    Meta documents no token for this address and may want a browser's session: set EXPORT_COOKIE to the Cookie header
    of a browser that is logged in there, or try EXPORT_TOKEN, a Page's or user's token. The file holds personal data
    and is readable by you only.
    """
    from worker.clock import now

    asked_at = now()
    first = _moment(since, "--from", zone, asked_at, end=False)
    last = _moment(until, "--to", zone, asked_at, end=True)
    settings = settings_for(data_dir, *(["DATABASE_URL"] if then_import else []))
    access = export_access(settings)
    target = output or Path(f"leads-{form_id}.tsv")

    async def work() -> int:
        span = span_of(first, last, await _created(settings, form_id), asked_at)
        await _save(access, form_id, span, target)
        _tell_export(target, zone, as_json)
        if not then_import:
            return 0
        return await _import_all(settings, (target,), _Wish(zone, page_id, None, False, as_json))

    sys.exit(answer_of(work()))


def export_access(settings: Settings) -> ExportAccess:
    """By what right the export is asked for. Raises ConfigurationError where there is none."""
    access = ExportAccess(
        settings.export_url,
        settings.export_cookie,
        settings.export_token,
    )
    if not (access.cookie or access.token):
        raise ConfigurationError(
            "EXPORT_COOKIE: is not set, nor is EXPORT_TOKEN; without a login Meta gives no export"
        )
    return access


def _moment(text: str | None, option: str, zone: tzinfo, now: datetime, *, end: bool) -> datetime | None:
    if text is None:
        return None
    try:
        return parse_when(text, zone, now, end=end)
    except UnreadableTime as error:
        raise click.BadParameter(str(error), param_hint=option) from None


async def _created(settings: Settings, form_id: str) -> datetime | None:
    """When the form was made, where there is a database that knows it: a download needs none."""
    from worker.neighbours import create_pool
    from worker.store.imports import ImportStore

    if not settings.database_url:
        return None
    try:
        async with create_pool(settings, 1) as pool:
            return await ImportStore(pool).form_created(form_id)
    except StoreUnavailable:
        return None


async def _save(access: ExportAccess, form_id: str, span: Span, target: Path) -> None:
    from worker.destination import whole_file

    async with download(access, form_id, span) as export:
        with _progress(str(target), export.size) as advance, whole_file(target) as sink:
            done = 0
            async for block in export.blocks:
                sink.write(block)
                done += len(block)
                advance(done)


def _tell_export(path: Path, zone: tzinfo, as_json: bool) -> None:
    counts: Counter[str] = Counter()
    with path.open("rb") as stream:
        for row in ExportFile(stream, zone):
            counts["rows"] += 1
            if isinstance(row, ExportedLead):
                lacks = not all(getattr(row.lead, name) for name in AD_IDS)
                counts["without_ad_ids"] += lacks
                counts["organic"] += lacks and row.lead.is_organic is True
            else:
                counts["unreadable"] += 1
    if as_json:
        names = ("rows", "without_ad_ids", "organic", "unreadable")
        click.echo(json.dumps({"file": str(path), **{name: counts[name] for name in names}}))
        return
    click.echo(f"{path}: {_many(counts['rows'], 'row')}")
    if lacking := counts["without_ad_ids"]:
        click.echo(
            f"  {lacking:,} without ad ids, {counts['organic']:,} of them organic; the others were sent from an ad's"
            " preview, or this login may not advertise on the ad account"
        )
    if counts["unreadable"]:
        click.echo(f"  {counts['unreadable']:,} cannot be read; `leadsync import --dry-run` tells why")


async def _import_all(settings: Settings, files: tuple[Path, ...], wish: _Wish) -> int:
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
    store: Any, path: Path, wish: _Wish, clock: Callable[[], datetime]
) -> tuple[Summary, Path]:
    rejects = wish.rejects or Path("stdin.rejected.tsv" if path == STDIN else f"{path}.rejected.tsv")
    with _opened(path) as (stream, size), _progress(_name(path), size) as advance:
        export = ExportFile(stream, wish.zone)
        with RejectedRows(rejects, export.header) as kept:
            importer = Importer(store, kept.keep, clock, page_id=wish.page_id, dry_run=wish.dry_run)
            try:
                return await importer.run(export, lambda: advance(export.bytes_read)), rejects
            except StoreUnavailable as error:
                done = importer.summary.new + importer.summary.completed
                raise LeadSyncError(
                    f"{error}. {_many(done, 'row')} of {_name(path)} {'would be' if wish.dry_run else 'are'} written;"
                    " import the file again, those are then unchanged"
                ) from None


def _tell_import(path: Path, summary: Summary, rejects: Path, wish: _Wish) -> None:
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
        f"{_name(path)}: {_many(summary.rows, 'row')}: {summary.new:,} new, {summary.completed:,} completed,"
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
def _progress(name: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """Shows bytes on a terminal; elsewhere nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    with ExitStack() as held:
        if not console.is_terminal:
            yield lambda _: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        bar = held.enter_context(Progress(*columns, console=console, transient=True))
        task = bar.add_task(name, total=size)
        yield lambda done: bar.update(task, completed=done)


def _name(path: Path) -> str:
    return "standard input" if path == STDIN else str(path)


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
