"""Commands that look at Pages, and take those up again that are parked."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli.command import answer_of, data_dir_option, print_rows, settings_for
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.store.statements import Row


@click.group()
def pages() -> None:
    """Look at Pages, and take those up again that are parked."""


@pages.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@data_dir_option
def list_pages(as_json: bool, data_dir: Path) -> None:
    """List the Pages: parked since when and why, held by the budget until when, and what waits for them."""

    from worker.runtime import open_store

    async def ask(settings: Settings) -> "list[Row]":
        async with open_store(settings) as store:
            return await store.pages()

    print_rows(answer_of(ask(settings_for(data_dir, "DATABASE_URL"))), as_json, empty="no Page is known yet")


@pages.command("unpark")
@click.argument("page_ids", nargs=-1, required=True)
@data_dir_option
def unpark(page_ids: tuple[str, ...], data_dir: Path) -> None:
    """Take Pages up again once their token or permission is mended; what waits for them is read at once."""

    from worker.runtime import open_store

    async def ask(settings: Settings) -> tuple[str, ...]:
        async with open_store(settings) as store:
            return await store.unpark(page_ids, datetime.now(UTC))

    freed = answer_of(ask(settings_for(data_dir, "DATABASE_URL")))
    for page_id in page_ids:
        click.echo(f"{page_id}  {'taken up again' if page_id in freed else 'was not held'}")
