"""Options of a group that shows something by itself, typed before one of its commands."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from worker.cli import main
from worker.cli.command import ShowingGroup, data_dir_option


@click.group(cls=ShowingGroup, invoke_without_command=True)
@click.option("--page")
@click.option("--json", "as_json", is_flag=True)
@data_dir_option
@click.pass_context
def shows(ctx: click.Context, page: str | None, as_json: bool, data_dir: Path) -> None:
    """Show."""
    if ctx.invoked_subcommand is None:
        click.echo(f"shown {page} {as_json} {data_dir}")


@shows.command()
@click.argument("page")
@click.option("--json", "as_json", is_flag=True)
@data_dir_option
def does(page: str, as_json: bool, data_dir: Path) -> None:
    """Do."""
    click.echo(f"done {page} {as_json} {data_dir}")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("--json --data-dir there", "shown None True there"),
        ("does 1", "done 1 False .leadsync"),
        ("--data-dir there does 1", "done 1 False there"),
        ("--json --data-dir there does 1", "done 1 True there"),
        ("--data-dir there does 1 --data-dir here", "done 1 False here"),
    ],
)
def test_options_typed_before_a_command_are_its_own(typed: str, told: str) -> None:
    """Whoever looks into another folder acts there too."""
    assert CliRunner().invoke(shows, typed.split()).output == f"{told}\n"


def test_an_option_that_the_command_has_not_is_refused() -> None:
    """It would have been ignored: `--page 7 does 8` acts on 8."""
    done = CliRunner().invoke(shows, ["--page", "7", "does", "8"])
    assert done.exit_code == 2
    assert "`does` has no option --page" in done.output


@pytest.mark.parametrize(
    "typed",
    ["budget --data-dir {} limit 7 5", "backfills --data-dir {} cancel 1", "retention --data-dir {} list"],
)
def test_each_group_looks_where_it_was_told(typed: str, tmp_path: Path) -> None:
    """The folder in the error is the one that was typed."""
    done = CliRunner().invoke(main, typed.format(tmp_path).split(), env={"DATABASE_URL": "", "REDIS_URL": ""})
    assert done.exit_code == 2
    assert str(tmp_path) in done.output.replace("\n", "")
