"""The command: options -> plan -> soak -> report, exit status 0 only without a violation.

python -m tests.system.soak --minutes 30 --seed 1 --leads-per-second 111
"""

import json
import socket
import sys
import tempfile
from pathlib import Path

import click

from tests.system.soak.plan import RECIPES, make_plan, read_plan, write_plan
from tests.system.soak.report import report
from tests.system.soak.run import run
from tests.system.soak.shape import Shape
from tests.system.soak.waves import make_waves

FAULTS_A_MINUTE = 10.0
POOR_SHARE = 0.5
"""Calls of the poor Page's window, by the leads that it gets in one."""
PAGES = 5
EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)
FRESH = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(help=f"{__doc__}")
@click.option(
    "--minutes", default=5.0, show_default=True, type=click.FloatRange(0.2), help="Of load and faults."
)
@click.option("--seed", default=1, show_default=True, help="Of plan, waves and sandbox.")
@click.option("--leads-per-second", "rate", default=20.0, show_default=True, type=click.FloatRange(0.1))
@click.option("--faults", default=None, type=click.IntRange(0), help="How many; by default ten a minute.")
@click.option(
    "--window", default=300.0, show_default=True, help="Seconds of a Page's limit; Meta's is a day."
)
@click.option(
    "--only", multiple=True, type=click.Choice(sorted(RECIPES)), help="Only these kinds; repeatable."
)
@click.option("--plan", "plan_file", type=EXISTING, help="Carry out the plan in this file.")
@click.option(
    "--without-reconciling",
    is_flag=True,
    help="Nothing mends what is lost on the way; no fault that needs it.",
)
@click.option("--show-plan", is_flag=True, help="Print the plan and end.")
@click.option("--former", default="", help="Begin with the code of this commit and roll over to this one.")
@click.option(
    "--answer-seconds", default=1.0, show_default=True, help="How long a 200 of the receiver may take."
)
@click.option("--settle-seconds", default=420.0, show_default=True, help="How long until all must be stored.")
@click.option(
    "--keep",
    default=Path(tempfile.gettempdir()),
    type=FOLDER,
    help="Where a failed soak leaves its log; made if it is not there.",
)
@click.option("--json", "json_file", type=FRESH, help="Write the figures here.")
def main(
    minutes: float, seed: int, rate: float, faults: int | None, window: float, only: tuple[str, ...],
    plan_file: Path | None, without_reconciling: bool, show_plan: bool, former: str, answer_seconds: float,
    settle_seconds: float, keep: Path, json_file: Path | None,
) -> None:  # fmt: skip
    seconds, reconciling = minutes * 60, not without_reconciling
    if plan_file:
        plan = read_plan(plan_file.read_text())
    else:
        number = round(minutes * FAULTS_A_MINUTE) if faults is None else faults
        plan = make_plan(
            seconds=seconds, faults=number, seed=seed, only=only, roll=bool(former), reconciling=reconciling
        )
    if show_plan:
        click.echo(write_plan(plan), nl=False)
        return
    shape = Shape(
        seconds=seconds,
        rate=rate,
        window=window,
        settle=settle_seconds,
        seed=seed,
        pages=PAGES,
        poor_calls=max(60, round(rate / PAGES * window * POOR_SHARE)),
        deep=max(60.0, seconds / 8),
        reconciling=reconciling,
        answer=answer_seconds,
        revision=former or None,
        metrics_port=_free_port(),
        keep=keep,
    )
    # Before the soak, not after hours of it.
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"{keep} cannot be made: {error.strerror}", param_hint="--keep") from None
    click.echo(f"seed {seed}: {len(plan)} faults, {round(rate * seconds):,} leads in {minutes:g} minutes")
    waves = make_waves(seconds=seconds, rate=rate, seed=seed, reconciling=reconciling)
    finding = run(shape, plan, waves, click.echo)
    click.echo(report(finding, seed))
    if json_file:
        json_file.write_text(
            json.dumps({**finding.told, "violations": len(finding.violations)}, indent=1) + "\n"
        )
    sys.exit(0 if finding.good else 1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
