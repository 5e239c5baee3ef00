"""The command that tells what is wrong and what to type. It prints no token and no answer of a person."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker import logs
from worker.cli.arguments import an_id
from worker.cli.command import answer_of, data_dir_option, settings_for
from worker.errors import ConfigurationError

if TYPE_CHECKING:
    from worker.doctor.findings import Finding


@click.command()
@click.option(
    "--page", "page_id", callback=an_id, help="Of the Pages look at this one only, and tell all of it."
)
@click.option("--offline", is_flag=True, help="Ask neither Meta nor the public callback.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
def doctor(page_id: str | None, offline: bool, as_json: bool, data_dir: Path) -> None:
    """Tell what is wrong, on what evidence, and what to type.

    Looks at settings, Postgres, Redis, Graph, the app's webhook and its public callback, workers and schedule, and at
    each Page. It changes nothing: it makes about four calls a Page within the Page's budget, and sends one empty
    delivery through the callback. What cannot be found out is told as not checked. Exit status 1 where anything is
    wrong, 0 otherwise; docs/doctor.md explains each check.
    """
    from rich.console import Console

    from worker.clock import now
    from worker.doctor.findings import Verdict, worst
    from worker.doctor.show import as_json as told
    from worker.doctor.show import render

    findings = _findings(data_dir, page_id, offline=offline)
    if as_json:
        click.echo(json.dumps(told(findings, now())))
    else:
        console = Console()
        utf8 = console.encoding.lower().startswith("utf")
        console.print(render(findings, utf8=utf8, whole_pages=page_id is not None))
    if worst(findings) is Verdict.FAIL:
        raise click.exceptions.Exit(1)


def _findings(data_dir: Path, page_id: str | None, *, offline: bool) -> "list[Finding]":
    from worker.doctor.examination import examine
    from worker.doctor.settings_checks import of_problems

    try:
        settings = settings_for(data_dir)
    except ConfigurationError as error:
        return list(of_problems(str(error).splitlines()))
    # What is worth a line of the log is a finding here.
    logs.configure(settings.log_style, "error")
    return answer_of(examine(settings, page_id=page_id, offline=offline))
