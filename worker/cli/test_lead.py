"""The command that makes a test lead at Meta and follows it into Postgres. It prints no answer of a person."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.arguments import an_id
from worker.cli.command import SERVERS, answer_of, data_dir_option, settings_for
from worker.errors import LeadSyncError
from worker.foreign_text import clean
from worker.settings import Settings

if TYPE_CHECKING:
    from rich.table import Table

    from worker.desks import TraceDesk
    from worker.proving import Proof


@click.command("test-lead")
@click.option(
    "--form", "form_id", callback=an_id, help="The form; default: an active one of --page, or the only one."
)
@click.option("--page", "page_id", callback=an_id, help="Any active form of this Page; with --form its Page.")
@click.option(
    "--timeout", default=60, show_default=True, type=click.IntRange(1, 3_600), help="Seconds to wait for it."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
def test_lead(form_id: str | None, page_id: str | None, timeout: int, as_json: bool, data_dir: Path) -> None:
    """Make a test lead at Meta and time each hop to its row.

    The form's former test lead is deleted, as a form has one at a time. Where the lead does not arrive it is told at
    which hop it is missing and what to look at: the Page's subscription, the app's webhook, the receiver, the workers,
    or the Page's token. Exit status 1 then.
    """
    settings = settings_for(data_dir, *SERVERS, "META_APP_SECRET")
    proof = answer_of(_run(settings, form_id, page_id, timeout, live=not as_json))
    if as_json:
        click.echo(json.dumps(_told(proof)))
    elif proof.missing is None:
        click.echo("it is a row; `leadsync trace` tells the same of any lead: " + proof.leadgen_id)
    else:
        click.echo(f"missing: {proof.missing}")
        for reason in proof.why:
            click.echo(f"-> {reason}")
    if proof.missing is not None:
        raise click.exceptions.Exit(1)


async def _run(
    settings: Settings, form_id: str | None, page_id: str | None, seconds: float, *, live: bool
) -> "Proof":
    from rich.console import Console
    from rich.live import Live

    from worker.clock import now
    from worker.desks import open_trace
    from worker.graph.account import Caller
    from worker.handshaking import handshake
    from worker.proving import Neighbours, prove

    async with open_trace(settings) as witnesses:
        assert witnesses.graph is not None
        form_id, page_id = await _choose(witnesses, form_id, page_id)
        near = Neighbours(
            graph=witnesses.graph,
            budget=witnesses.budget,
            tokens=witnesses.tokens,
            rows=witnesses.rows,
            find=lambda leadgen_id, since_ms: witnesses.find(
                leadgen_id, since_ms, lambda looked, length: None
            ),
            condition=witnesses.stream.condition,
            shake=lambda url: handshake(url, settings.verify_token),
            caller=Caller(settings.app_id, settings.graph_version, settings.app_secrets[0]),
            clock=now,
        )
        console = Console()
        if not live or not console.is_terminal:
            proof = await prove(form_id, page_id, near=near, seconds=seconds)
            if live:
                console.print(_table(proof.passed, proof.began_at, proof.missing))
            return proof
        began_at = now()
        with Live(console=console, refresh_per_second=5) as display:
            proof = await prove(
                form_id, page_id, near=near, seconds=seconds,
                told=lambda passed: display.update(_table(passed, began_at)),
            )  # fmt: skip
            display.update(_table(proof.passed, proof.began_at, proof.missing))
        return proof


async def _choose(witnesses: "TraceDesk", form_id: str | None, page_id: str | None) -> tuple[str, str]:
    """The form and its Page."""
    if form_id is None:
        active = [
            row for row in await witnesses.rows.active_forms() if page_id is None or row["page_id"] == page_id
        ]
        # Of a named Page any form shows whether its leads arrive.
        if not active or (page_id is None and len(active) > 1):
            known = "".join(
                f"\n  {row['form_id']}  {clean(row['name'] or '')}  Page {row['page_id']}" for row in active
            )
            there = (
                f"these are active:{known}"
                if active
                else "no active form is known yet; `leadsync connect` finds them"
            )
            raise click.UsageError(f"name a form by --form, or a Page by --page; {there}")
        return active[0]["form_id"], active[0]["page_id"]
    if page_id is not None:
        return form_id, page_id
    known_pages = await witnesses.backfills.pages_of("form", form_id) or await witnesses.tokens.page_ids()
    if len(known_pages) != 1:
        raise LeadSyncError(f"it is not known here to which Page form {form_id} belongs; say so with --page")
    return form_id, known_pages[0]


def _table(passed: Mapping[str, datetime | None], began_at: datetime, missing: str | None = None) -> "Table":
    from rich.table import Table

    from worker.missing import HOPS, first_missing

    table = Table("hop", "at", "after", box=None, pad_edge=False)
    waits = first_missing(passed)
    for hop in HOPS:
        if hop in passed:
            at = passed[hop]
            after = f"{(at - began_at).total_seconds():.2f} s" if at else "too quick to see"
            table.add_row(f"[green]{hop}", f"{at:%H:%M:%S.%f}"[:-3] if at else "", after)
        elif hop == waits:
            table.add_row(
                f"[red]{hop}" if missing else f"[yellow]{hop} ...", "", "missing" if missing else ""
            )
    return table


def _told(proof: "Proof") -> dict[str, Any]:
    hops = [
        {
            "hop": hop,
            "at": at.isoformat() if at else None,
            "seconds": round((at - proof.began_at).total_seconds(), 3) if at else None,
        }
        for hop, at in proof.passed.items()
    ]
    return {
        "leadgen_id": proof.leadgen_id,
        "page_id": proof.page_id,
        "form_id": proof.form_id,
        "arrived": proof.missing is None,
        "hops": hops,
        "missing": proof.missing,
        "why": list(proof.why),
    }
