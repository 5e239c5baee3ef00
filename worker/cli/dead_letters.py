"""Commands that look at references which ended without a lead, and put them back.

They print no answer of a person.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli.command import answer_of, cell, data_dir_option, print_rows, settings_for
from worker.errors import LeadSyncError
from worker.foreign_text import clean
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.store.statements import Row


@click.group("dead-letters")
def dead_letters() -> None:
    """List references that ended without a lead; put them back."""


_reason = click.option("--reason", help="Only those that died of this reason.")
_page = click.option("--page", "page_id", help="Only those of this Page.")


@dead_letters.command("list")
@_reason
@_page
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="At most so many."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@data_dir_option
def list_dead(reason: str | None, page_id: str | None, limit: int, as_json: bool, data_dir: Path) -> None:
    """List dead letters, the newest first."""

    from worker.desks import open_store

    async def ask(settings: Settings) -> "list[Row]":
        async with open_store(settings) as store:
            return await store.dead_letters(reason=reason, page_id=page_id, limit=limit)

    rows = answer_of(ask(settings_for(data_dir, "DATABASE_URL")))
    print_rows(rows, as_json, empty="no dead letters")


@dead_letters.command("show")
@click.argument("leadgen_id")
@data_dir_option
def show_dead(leadgen_id: str, data_dir: Path) -> None:
    """Show all that is known of one reference, but its answers."""

    from worker.desks import open_store

    async def ask(settings: Settings) -> "Row | None":
        async with open_store(settings) as store:
            return await store.show(leadgen_id)

    row = answer_of(ask(settings_for(data_dir, "DATABASE_URL")))
    if row is None:
        raise LeadSyncError(
            f"lead {leadgen_id} has no row here; `leadsync trace {leadgen_id}` looks in the stream and at Meta"
        )
    for name, value in row.items():
        click.echo(f"{name:>16}  {clean(cell(value))}")


@dead_letters.command("replay")
@click.argument("leadgen_ids", nargs=-1)
@_reason
@_page
@click.option("--all", "everything", is_flag=True, help="All dead letters.")
@data_dir_option
def replay(
    leadgen_ids: tuple[str, ...], reason: str | None, page_id: str | None, everything: bool, data_dir: Path
) -> None:
    """Put dead letters back: by id, --reason, --page or --all."""
    if not (leadgen_ids or reason or page_id or everything):
        raise click.UsageError("name LEADGEN_IDS, or choose by --reason, --page or --all")

    from worker.desks import open_store

    async def ask(settings: Settings) -> tuple[str, ...]:
        async with open_store(settings) as store:
            return await store.replay(
                datetime.now(UTC), ids=leadgen_ids or None, reason=reason, page_id=page_id
            )

    replayed = answer_of(ask(settings_for(data_dir, "DATABASE_URL")))
    click.echo(f"{len(replayed)} put back; the workers read them within seconds")
