"""Commands about how long answers are kept: by Page, and by form, which goes first.

They erase nothing themselves but by `apply`, which does at once what the schedule does every hour.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.arguments import an_id
from worker.cli.command import SERVERS, ShowingGroup, answer_of, data_dir_option, print_rows, settings_for
from worker.errors import LeadSyncError
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.store.statements import Row


_page = click.option(
    "--page", "page_id", callback=an_id, help="All forms of this Page that have no time set."
)
_form = click.option("--form", "form_id", callback=an_id, help="One form.")
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@click.group(cls=ShowingGroup, invoke_without_command=True)
@data_dir_option
@click.pass_context
def retention(ctx: click.Context, data_dir: Path) -> None:
    """Set how long answers are kept; by default for ever.

    What is older is erased every hour, as by `leadsync forget`: the id stays, the answers go, and nothing brings them
    back. A form's time goes before that of its Page.
    """
    if ctx.invoked_subcommand is None:
        _list(data_dir, as_json=False)


@retention.command("list")
@_json
@data_dir_option
def list_(as_json: bool, data_dir: Path) -> None:
    """List the Pages and forms whose answers are erased in time."""
    _list(data_dir, as_json=as_json)


@retention.command("set")
@_page
@_form
@click.option(
    "--days",
    required=True,
    type=click.IntRange(1, 36_500),
    help="Erase so many days after a lead's creation.",
)
@data_dir_option
def set_(page_id: str | None, form_id: str | None, days: int, data_dir: Path) -> None:
    """Erase answers once a lead is so old.

    Those that are so old already go within the hour.
    """
    what, object_id = _change(page_id, form_id, days, data_dir)
    click.echo(f"{what} {object_id}: answers are erased {days} days after a lead's creation")


@retention.command("unset")
@_page
@_form
@data_dir_option
def unset(page_id: str | None, form_id: str | None, data_dir: Path) -> None:
    """Keep answers from now on; what was erased stays erased.

    A form's are then kept as long as its Page's are.
    """
    what, object_id = _change(page_id, form_id, None, data_dir)
    click.echo(f"{what} {object_id}: no time is set any more")


@retention.command("apply")
@data_dir_option
def apply(data_dir: Path) -> None:
    """Erase now what was kept long enough, rather than within the hour. It can be stopped and run again.

    Only where this machine's clock has run evenly for an hour, as far as leadsync has looked at it.
    """
    from worker.desks import open_erasures

    async def ask(settings: Settings) -> int | None:
        async with open_erasures(settings) as oblivion:
            return await oblivion.forgetter.retain()

    erased = answer_of(ask(settings_for(data_dir, *SERVERS)))
    if erased is None:
        raise LeadSyncError(
            "nothing is erased by age yet: this machine's clock was set, or has been watched for less than an hour;"
            " the schedule erases once it can be believed, or run this again then"
        )
    click.echo(f"{erased:,} erased")


def _list(data_dir: Path, *, as_json: bool) -> None:
    from worker.desks import open_erasures

    async def ask(settings: Settings) -> "list[Row]":
        async with open_erasures(settings) as oblivion:
            return await oblivion.rows.retention()

    rows: list[dict[str, Any]] = answer_of(ask(settings_for(data_dir, *SERVERS)))
    print_rows(rows, as_json, empty="answers are kept for ever; `leadsync retention set` changes that")


def _change(page_id: str | None, form_id: str | None, days: int | None, data_dir: Path) -> tuple[str, str]:
    from worker.clock import now
    from worker.desks import open_erasures

    if (page_id is None) == (form_id is None):
        raise click.UsageError("give --page or --form")
    what, object_id = ("page", page_id) if page_id else ("form", form_id)
    assert object_id is not None

    async def ask(settings: Settings) -> bool:
        async with open_erasures(settings) as oblivion:
            return await oblivion.rows.set_retention(what, object_id, days, now())

    if not answer_of(ask(settings_for(data_dir, *SERVERS))):
        remedy = {
            "form": "it is once its Page's forms were listed, or set the time of its Page",
            "page": "see `leadsync pages list`; it is once it was connected, or one of its leads has come",
        }
        raise LeadSyncError(
            f"{'Page' if what == 'page' else what} {object_id} is not known here; {remedy[what]}"
        )
    return what.capitalize(), object_id
