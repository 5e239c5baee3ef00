"""The command that tells all that is known of one lead. It prints no answer of a person."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.arguments import an_id, ids
from worker.cli.command import SERVERS, answer_of, data_dir_option, settings_for
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.tracing import MetaSays


@click.command()
@click.argument("leadgen_id", callback=an_id)
@click.option(
    "--form",
    "form_id",
    callback=an_id,
    help="It is of this form: tell how far that is reconciled, and ask nobody.",
)
@click.option(
    "--page", "page_ids", multiple=True, callback=ids, help="Ask with this Page's token; may be given again."
)
@click.option("--offline", is_flag=True, help="Do not ask Meta.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
def trace(
    leadgen_id: str,
    form_id: str | None,
    page_ids: tuple[str, ...],
    offline: bool,
    as_json: bool,
    data_dir: Path,
) -> None:
    """Tell where a lead is, what befell it, and what it waits for.

    A lead that was never announced here is asked for at Meta, one call a Page and 20 Pages at most, and the last
    reconciliation of its form is told. No answer of a person is read or printed. Exit status 1 where nothing is known
    of it here.
    """
    from rich.console import Console

    from worker.clock import now
    from worker.trace_report import plain, render, report

    settings = settings_for(data_dir, *SERVERS)
    told = report(answer_of(_look(settings, leadgen_id, form_id, page_ids, offline=offline)), now())
    if as_json:
        click.echo(json.dumps(told, default=plain))
    else:
        Console().print(render(told))
    if not told["known"]:
        raise click.exceptions.Exit(1)


async def _look(
    settings: Settings, leadgen_id: str, form_id: str | None, page_ids: Sequence[str], *, offline: bool
) -> Any:
    from worker.desks import open_trace
    from worker.tracing import ask_meta
    from worker.tracing import trace as look

    async with open_trace(settings) as witnesses:
        graph = witnesses.graph

        async def ask(leadgen_id: str) -> "MetaSays":
            assert graph is not None
            pages = page_ids or await witnesses.tokens.page_ids()
            return await ask_meta(
                leadgen_id, pages, graph=graph, budget=witnesses.budget, tokens=witnesses.tokens
            )

        return await look(
            leadgen_id,
            rows=witnesses.rows,
            find=lambda leadgen_id: witnesses.find(leadgen_id, 0, _progress),
            ask=None if offline or graph is None else ask,
            form_id=form_id,
        )


def _progress(looked: int, length: int) -> None:
    click.echo(f"looked at {looked:,} of {length:,} entries of the stream", err=True)
