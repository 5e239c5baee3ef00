"""Commands about Pages: how each is, what to do about it, and to park, take up and check them."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from worker.cli.command import SERVERS, answer_of, data_dir_option, doubt_ids, settings_for
from worker.errors import LeadSyncError
from worker.inbox import is_id
from worker.settings import Settings


@click.group()
def pages() -> None:
    """Show how each Page is and what to do; check, park, unpark."""


def _check_ids(_: click.Context, __: click.Parameter, page_ids: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [page_id for page_id in page_ids if not is_id(page_id)]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not a Page's id")
    return tuple(dict.fromkeys(page_ids))


_page_ids = click.argument("page_ids", metavar="PAGE...", nargs=-1, required=True, callback=_check_ids)
_as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@pages.command("list")
@_as_json
@data_dir_option
def list_pages(as_json: bool, data_dir: Path) -> None:
    """List the Pages and how each is, the parked ones first."""
    from rich.console import Console

    from worker.pages_report import gather, render

    told = answer_of(gather(settings_for(data_dir, "DATABASE_URL"), None))
    if as_json:
        for page in told:
            click.echo(json.dumps(page))
    else:
        Console().print(render(told, datetime.now(UTC)))


@pages.command("show")
@click.argument("page_id", metavar="PAGE")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
def show_page(page_id: str, as_json: bool, data_dir: Path) -> None:
    """Show one Page: what is wrong with it, and what to do."""
    from rich.console import Console

    from worker.pages_report import gather, render_one

    told = answer_of(gather(settings_for(data_dir, "DATABASE_URL"), [page_id]))
    if not told:
        raise LeadSyncError(f"Page {page_id} is not known here: connect it, or add its token to PAGE_TOKENS")
    if as_json:
        click.echo(json.dumps(told[0]))
    else:
        Console().print(render_one(told[0], datetime.now(UTC)))


@pages.command("park")
@_page_ids
@_as_json
@data_dir_option
def park(page_ids: tuple[str, ...], as_json: bool, data_dir: Path) -> None:
    """Hold Pages until `pages unpark`.

    Their leads wait, and no call is made for them but checks.
    """
    from worker.desks import open_store
    from worker.health import BY_HAND

    async def order(settings: Settings) -> tuple[list[bool], frozenset[str]]:
        async with open_store(settings) as store:
            unknown = await store.unknown_pages(page_ids)
            return [await store.park(page_id, BY_HAND, datetime.now(UTC)) for page_id in page_ids], unknown

    held, unknown = answer_of(order(settings_for(data_dir, "DATABASE_URL")))
    _tell(
        zip(page_ids, ("parked" if new else "was parked by order already" for new in held), strict=True),
        as_json,
    )
    doubt_ids(unknown)


@pages.command("unpark")
@_page_ids
@_as_json
@data_dir_option
def unpark(page_ids: tuple[str, ...], as_json: bool, data_dir: Path) -> None:
    """Take Pages up again once they are mended.

    What waits is read at once, and what was missed is looked for.

    A Page that was disconnected is connected again instead; exit status 1 where there is one.
    """
    from worker.desks import open_store
    from worker.doorbell import BACKFILL_BELL_OF, RESUME_BELL_OF
    from worker.health import DISCONNECTED
    from worker.tasks import ring_now

    async def order(settings: Settings) -> tuple[tuple[str, ...], frozenset[str]]:
        async with open_store(settings) as store:
            freed = await store.unpark(page_ids, datetime.now(UTC), but=[DISCONNECTED])
            return freed, await store.parked(page_ids)

    settings = settings_for(data_dir, "DATABASE_URL")
    freed, held = answer_of(order(settings))
    if freed and settings.redis_url:
        ring_now(settings, RESUME_BELL_OF, BACKFILL_BELL_OF)
    words = {
        **dict.fromkeys(page_ids, "was not parked"),
        **dict.fromkeys(held, "is disconnected; run `leadsync connect`"),
        **dict.fromkeys(freed, "taken up again"),
    }
    _tell([(page_id, words[page_id]) for page_id in page_ids], as_json)
    if held - set(freed):
        raise SystemExit(1)


@pages.command("check")
@_page_ids
@_as_json
@data_dir_option
def check(page_ids: tuple[str, ...], as_json: bool, data_dir: Path) -> None:
    """Check Pages now, as happens every hour anyway, and show them.

    A Page whose token or lead access is refused is parked, one that is mended is taken up again, unless it was parked
    by hand. Exit status 1 where a Page is not well.
    """
    from rich.console import Console

    from worker.pages_report import check_now, gather, is_well, render_one

    settings = settings_for(data_dir, *SERVERS, "META_APP_SECRET")
    answer_of(check_now(settings, page_ids))
    told = answer_of(gather(settings, page_ids))
    for page in told:
        if as_json:
            click.echo(json.dumps(page))
        else:
            Console().print(render_one(page, datetime.now(UTC)))
    if not all(map(is_well, told)):
        raise SystemExit(1)


def _tell(told: Any, as_json: bool) -> None:
    pairs: Sequence[tuple[str, str]] = list(told)
    for page_id, word in pairs:
        click.echo(json.dumps({"page_id": page_id, "result": word}) if as_json else f"{page_id}  {word}")
