"""Whatever tells people what to type tells a command that is there: docs, help, errors, remedies."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from worker.cli import PLACES, main

ROOT = Path(__file__).parents[2]
QUOTED = re.compile(r"`+leadsync ([a-z][^`\n]*)`+")
TYPED = re.compile(
    r"^(?:\$ |(?:[A-Z_]+=\S+ )*)?(?:docker compose (?:exec|run)[^\n]*? )?leadsync ([a-z][^\n#|<>]*)", re.M
)


def told() -> Iterator[tuple[str, str]]:
    """Where a command is told, and its words after `leadsync`."""
    for path in sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))):
        text = path.read_text()
        fenced = "\n".join(re.findall(r"^```.*?^```", text, re.M | re.S))
        blocks = fenced + "\n".join(line.strip() for line in text.splitlines() if line.startswith("    "))
        for words in {*QUOTED.findall(text), *TYPED.findall(blocks)}:
            yield path.name, words
    for package in ("worker", "receiver"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for words in {*QUOTED.findall(path.read_text())}:
                yield str(path.relative_to(ROOT)), words


def wrong(words: str) -> str | None:
    """What is wrong with a command line, or None."""
    command: click.Command = main
    try:
        parts = shlex.split(words.replace("[", " ").replace("]", " ").rstrip(".,;:)"))
    except ValueError:
        parts = words.split()
    is_value = False
    for part in parts:
        if is_value:
            is_value = False
        elif part.startswith("-") and part != "-":  # that is standard input
            named = {name: param for param in command.params for name in (*param.opts, *param.secondary_opts)}
            option = named.get(part.split("=")[0])
            if option is None and part not in {"--help", "-h", "--version"}:
                return f"{command.name} has no option {part}"
            is_value = isinstance(option, click.Option) and not option.is_flag and "=" not in part
        elif isinstance(command, click.Group) and command.name != "leadsync" and "|" not in part:
            found = command.commands.get(part)
            if found is None:
                return f"there is no command {command.name} {part}" if part.islower() else None
            command = found
    return None


def test_commands_that_are_told_exist() -> None:
    """Names and options are those of the commands, so that what is copied from a text works."""
    found = [f"{where}: leadsync {words}: {trouble}" for where, words in told() if (trouble := wrong(words))]
    assert not found, "\n".join(found)


def groups(group: click.Group) -> Iterator[click.Group]:
    """A group and all below it."""
    yield group
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from groups(command)


def test_each_command_says_in_one_line_what_it_does() -> None:
    """In the list of its group, on 80 columns: nothing is cut, and none is left out."""
    for group in groups(main):
        context = click.Context(group, info_name=group.name, terminal_width=78)
        shown = group.get_help(context).splitlines()
        for name, command in group.commands.items():
            told = command.get_short_help_str(1_000)
            assert any(line.split() == [name, *told.split()] for line in shown), f"{name}: {told}"


@pytest.mark.parametrize(
    "words", ["conect --all", "pages lst", "connect --url x", "backfill --form 1 --sinc x"]
)
def test_a_command_that_does_not_exist_is_noticed(words: str) -> None:
    """The look itself can fail."""
    assert wrong(words) is not None


def test_each_command_is_where_the_table_says() -> None:
    """They are loaded by name when they are asked for, so a wrong place would be found only by who types it."""
    assert {name: command.name for name, command in main.commands.items()} == {name: name for name in PLACES}


def test_a_command_loads_no_other() -> None:
    """To load all of them took half a second of CPU at each start; HTTP and Postgres are for those that need them."""
    loaded = "import sys; from worker.cli import PLACES, main; main.commands['schedule']; print(*sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"aiohttp", "psycopg", "celery", "worker.cli.backfill"} & set(told.stdout.split())
