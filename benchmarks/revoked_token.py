"""Claim: a token that is revoked under the traffic of three Pages delays no other Page's leads, and loses none.

    three Pages at the same rate; in turn all healthy, then the third one's token revoked in one of Meta's ways, then
    mended (a working token is put in the token file), ...

For each subcode of 190: the other two Pages' p50 from webhook to row while the third is refused, over their p50 in the
healthy stretch right before it; the goal is at most 1.5. Then: seconds from mending until every lead of the third is a
row, how many are missing in the end (none may be; else it fails), and how many calls were made for it while it was
parked.

What it does not show: many Pages revoked at once; broken_page.py shows other troubles than tokens.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks.broken_page import GOAL, PATIENCE_SECONDS, stretch
from benchmarks.report import Spread, as_help, json_option, machine, print_machine, ratio, write_json
from benchmarks.rig import WEBHOOK_PATH, Rig, build_rig, told_when_stuck, wait_until

SUBCODES: Final = (
    "190", "190/458", "190/459", "190/460", "190/463", "190/464", "190/467", "190/492", "102",
)  # fmt: skip


def revoke(rig: Rig, page_id: str, error: str) -> None:
    """The Page's token is dead from now on."""
    rig.post("/sandbox/tokens", {"revoke": "page", "pages": [page_id], "error": error})


def mend(rig: Rig, page_id: str) -> float:
    """Put working tokens in the file; seconds until all leads of the Page are rows."""
    Path(rig.env["PAGE_TOKENS_FILE"]).write_text(json.dumps(rig.get("/sandbox/tokens")))
    began = time.monotonic()
    query = "select count(*) from leadgen where page_id = %s and state <> 'stored'"
    with psycopg.connect(rig.database_url, autocommit=True) as connection:

        def healed() -> bool:
            row = connection.execute(query, (page_id,)).fetchone()
            return row is not None and row[0] == 0

        wait_until("the revoked Page's leads", healed, patience=PATIENCE_SECONDS)
    return time.monotonic() - began


def stored(rig: Rig, page_id: str) -> int:
    """Rows of the Page."""
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        row = connection.execute(
            "select count(*) from leadgen where page_id = %s and state = 'stored'", (page_id,)
        ).fetchone()
        return int(row[0]) if row else 0


def calls(rig: Rig, page_id: str) -> int:
    """Calls under the Page's token so far."""
    kinds: dict[str, int] = rig.get("/sandbox/calls")["pages"].get(page_id, {}).get("kinds", {})
    return sum(kinds.values())


@click.command(help=as_help(__doc__))
@click.option("--latency", default=0.15, show_default=True, help="Graph's, in seconds.")
@click.option("--seconds", default=8.0, show_default=True, help="One stretch.")
@click.option("--rate", default=5.0, show_default=True, help="Leads a second a Page.")
@click.option("--subcode", "subcodes", multiple=True, type=click.Choice(SUBCODES), help="Only these.")
@click.option("--pairs", default=2, show_default=True, help="Healthy and revoked stretches a subcode.")
@json_option
def main(
    latency: float, seconds: float, rate: float, subcodes: tuple[str, ...], pairs: int, json_path: Path | None
) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    figures: dict[str, dict[str, Any]] = {}
    env = {"PARKED_PROBE_EVERY_SECONDS": "5"}
    with build_rig(latency=latency, pages=3, extra=env) as rig, told_when_stuck(rig, console):
        first, second, third = (page["page_id"] for page in rig.get("/sandbox/pages")["pages"])
        with rig.running(rig.specs(*WEBHOOK_PATH)):
            stretch(rig, [first, second], third, 3.0, rate)
            sent = round(3.0 * rate)
            for subcode in subcodes or SUBCODES:
                alone, beside, healing, quiet = [], [], [], []
                for _ in range(pairs):
                    alone.append(stretch(rig, [first, second], third, seconds, rate))
                    revoke(rig, third, subcode)
                    before = calls(rig, third)
                    beside.append(stretch(rig, [first, second], third, seconds, rate))
                    quiet.append(calls(rig, third) - before)
                    healing.append(mend(rig, third))
                    sent += 2 * round(seconds * rate)
                figures[subcode] = {
                    "ratio": asdict(ratio(beside, alone)),
                    "healed_seconds": max(healing),
                    "calls_while_revoked": max(quiet),
                    "missing": sent - stored(rig, third),
                }
                p50 = f"{Spread.over(alone).median * 1000:.0f} ms"
                console.print(f"{subcode}: others alone {p50}, {figures[subcode]}")
    table = Table(
        "error", "others' p50, over alone", f"at most {GOAL}", "healed in", "missing", "calls meanwhile"
    )
    for subcode, told in figures.items():
        median = told["ratio"]["median"]
        table.add_row(
            subcode,
            f"{median:.2f}",
            "yes" if median <= GOAL else "[red]no[/]",
            f"{told['healed_seconds']:.1f} s",
            str(told["missing"]),
            str(told["calls_while_revoked"]),
        )
    console.print(table)
    write_json(json_path, "revoked_token", about, figures)
    if any(told["missing"] for told in figures.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
