"""Redis and Postgres -> one report of how it goes -> something to look at. It changes nothing and judges little.

Invariant: one of the two neighbours away is part of the report, not an error.
"""

from collections.abc import Mapping
from typing import Any, Final

from rich.console import Group
from rich.table import Table

from worker.errors import LeadSyncError
from worker.runtime import open_store, open_stream
from worker.settings import Settings

SILENT_SECONDS: Final = 60
"""Who has not looked at its work for so long is not working."""


async def gather(settings: Settings) -> dict[str, Any]:
    """`stream`: what Redis tells; `rows`: counts by state and reason; `pages`: held Pages; `error` in their place."""
    report: dict[str, Any] = {}
    try:
        async with open_stream(settings) as stream:
            report["stream"] = await stream.condition()
    except LeadSyncError as error:
        report["stream"] = {"error": str(error)}
    try:
        async with open_store(settings) as store:
            report["rows"] = await store.counts()
            report["pages"] = [page for page in await store.pages() if page["parked_at"]]
    except LeadSyncError as error:
        report["rows"] = {"error": str(error)}
    return report


def render(report: Mapping[str, Any], now: float) -> Group:
    """The report as tables; `now` in unix seconds."""
    return Group(_stream(report["stream"], now), _rows(report["rows"]), *_pages(report.get("pages", [])))


def _plain_table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)


def _stream(stream: Mapping[str, Any], now: float) -> Table:
    table = _plain_table("[bold]Redis")
    if "error" in stream:
        table.add_row("[red]away", stream["error"])
        return table
    table.add_row("references in the stream", f"{stream['length']:,}")
    for name in ("live", "upkeep", "schedule"):
        table.add_row(f"{name} last looked", _age(stream["progress"].get(name), now))
    for verdict, count in sorted(stream["deliveries"].items()):
        table.add_row(f"webhook: {verdict.replace('_', ' ')}", f"{count:,}")
    if stream["reconcile_wanted"]:
        table.add_row(
            "[yellow]subscription lacks values",
            f"Pages {', '.join(stream['reconcile_wanted'])}: include the values",
        )
    if stream["set_aside"]:
        table.add_row("[yellow]bodies set aside", f"{stream['set_aside']:,}")
    return table


def _age(at_ms: int | None, now: float) -> str:
    if at_ms is None:
        return "[red]never"
    age = max(0.0, now - at_ms / 1000)
    return f"[red]{age:,.0f} s ago" if age > SILENT_SECONDS else f"{age:.0f} s ago"


def _rows(rows: Any) -> Table:
    table = _plain_table("\n[bold]Postgres")
    if isinstance(rows, Mapping):
        table.add_row("[red]away", rows["error"])
        return table
    colours = {"stored": "green", "waiting": "yellow", "dead": "red"}
    for row in rows:
        name = " ".join(filter(None, (row["state"], row["reason"])))
        table.add_row(f"[{colours.get(row['state'], 'white')}]{name}", f"{row['count']:,}")
    return table


def _pages(pages: Any) -> list[Table]:
    if not pages:
        return []
    table = _plain_table("\n[bold]Pages held")
    for page in pages:
        table.add_row(f"[red]{page['page_id']}", f"{page['parked_reason']}, {page['waiting']:,} waiting")
    return [table]
