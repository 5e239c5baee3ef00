"""The command that downloads a form's lead export from Meta, and imports it where that is wished.

It shows progress and prints counts; which leads are asked for is decided in export_download.py. Invariant: no answer of
a person is printed, and the file is its owner's alone.
"""

import json
import sys
from collections import Counter
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Final

import click

from worker.cli.arguments import a_zone, an_id, moment
from worker.cli.command import answer_of, data_dir_option, settings_for
from worker.cli.import_leads import Wish, import_all, json_option, many, page_option, progress
from worker.errors import ConfigurationError, StoreUnavailable
from worker.export_download import ExportAccess, Span, download, span_of
from worker.export_file import ExportedLead, ExportFile
from worker.settings import Settings

AD_IDS: Final = ("ad_id", "adset_id", "campaign_id")


@click.command("export-csv")
@click.option("--form", "form_id", required=True, callback=an_id, help="The form whose leads are exported.")
@click.option(
    "--from", "since", metavar="WHEN", help="Leads created at WHEN or later; default: when the form was made."
)
@click.option(
    "--to", "until", metavar="WHEN", help="Leads created before WHEN; default: now. A day is taken in whole."
)
@click.option(
    "--zone",
    default="UTC",
    show_default=True,
    callback=a_zone,
    help="Time zone of WHEN, and of times in the file that have no offset.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; default: leads-FORM_ID.tsv in this folder.",
)
@click.option("--import", "then_import", is_flag=True, help="Import the file afterwards.")
@page_option
@json_option
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
    first = moment(since, "--from", zone, asked_at)
    last = moment(until, "--to", zone, asked_at, end=True)
    settings = settings_for(data_dir, *(["DATABASE_URL"] if then_import else []))
    access = export_access(settings)
    target = output or Path(f"leads-{form_id}.tsv")

    async def work() -> int:
        span = span_of(first, last, await _created(settings, form_id), asked_at)
        await _save(access, form_id, span, target)
        _tell_export(target, zone, as_json)
        if not then_import:
            return 0
        return await import_all(settings, (target,), Wish(zone, page_id, None, False, as_json))

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
            "EXPORT_COOKIE: is not set, nor is EXPORT_TOKEN; without a login Meta gives no export."
            " docs/import.md says where to find one; or download the file in a browser and `leadsync import` it"
        )
    return access


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
        with progress(str(target), export.size) as advance, whole_file(target) as sink:
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
    click.echo(f"{path}: {many(counts['rows'], 'row')}")
    if lacking := counts["without_ad_ids"]:
        click.echo(
            f"  {lacking:,} without ad ids, {counts['organic']:,} of them organic; the others were sent from an ad's"
            " preview, or this login may not advertise on the ad account"
        )
    if counts["unreadable"]:
        click.echo(f"  {counts['unreadable']:,} cannot be read; `leadsync import --dry-run` tells why")
