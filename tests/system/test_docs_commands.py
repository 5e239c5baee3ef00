"""What the documents tell people to type, typed: every command that only looks, and every SQL statement.

Each command that a block of README or docs/ prints is either run against a small stack, with ids that are there in the
place of the printed ones, or stands in NOT_RUN with the reason why not. tests/unit/test_commands_told.py holds names
and options of all of them to the commands that there are.
"""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.system.whole import Whole, whole

ROOT = Path(__file__).parents[2]
PRINTED = ("measured.md", "planted.md")
"""Written by programs; nobody types what their tables hold."""
MANUALS = (
    *sorted(ROOT.glob("README*.md")),
    *sorted(path for path in ROOT.glob("docs/**/*.md") if path.name not in PRINTED),
)
TYPED = re.compile(r"(?:^|\s)(?:\.venv/bin/)?leadsync ([a-z].+)$")
INLINE = re.compile(r"`(select [^`\n]+)`")

NOT_RUN = {
    "up": "runs until it is ended; test_commands.py runs it",
    "sandbox": "runs until it is ended; tests/integration/test_sandbox_process.py runs it",
    "worker": "runs until it is ended; every stack runs it",
    "schedule": "runs until it is ended; every stack runs it",
    "status --watch": "runs until it is ended; tests/integration/test_status.py runs it",
    "metrics": "runs until it is ended; test_metrics.py runs it",
    "doctor": "finds this bare stack lacking, and says so by its status; test_doctor.py runs it",
    "connect": "changes things at Meta; test_connect.py runs it",
    "test-lead": "makes a lead; test_trace.py runs it",
    "dead-letters replay": "changes rows; test_trace.py runs it",
    "pages park": "holds a Page; tests/integration/test_pages_commands.py runs it",
    "pages unpark": "changes a Page; tests/integration/test_pages_commands.py runs it",
    "pages check": "writes what it finds, and asks Meta; test_parking.py runs it",
    "pages disconnect": "takes a Page away; test_connect.py runs it",
    "budget limit": "changes a limit; test_budget.py runs it",
    "backfill": "begins one, unless --dry-run; test_backfill.py runs it",
    "backfills follow": "shows one that runs until it ends, and here none does",
    "backfills cancel": "ends one; test_backfill.py runs it",
    "reconcile": "compares and brings, unless --report; test_backfill.py runs it",
    "forget": "erases, unless --dry-run; test_forget_command.py runs it",
    "retention set": "changes what is kept; test_forget_command.py runs it",
    "retention unset": "changes what is kept; test_forget_command.py runs it",
    "retention apply": "erases; test_forget_command.py runs it",
    "import": "reads a file of Meta's; test_import_command.py runs it",
    "export-csv": "asks www.facebook.com; test_import_command.py runs it",
    "keys generate": "makes a key, and prints it; test_keys_command.py runs it",
    "keys rotate": "changes the key; test_keys_command.py runs it",
    "keys drop": "changes the key file; test_keys_command.py runs it",
}
"""The commands that are not run here, and why."""
ONLY_LOOKS = {"backfill": "--dry-run", "forget": "--dry-run", "reconcile": "--report"}
"""With this option they are."""
PRINTED = re.compile(r"\b(?:[0-9]{9,}|PAGE_ID|FORM_ID|LEADGEN_ID|PAGE|FORM|ID)\b")


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The code blocks of a document: its language, empty where it is indented or names none, and its text."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        yield language, block
    plain = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for block in re.findall(r"(?:^ {4}.*\n(?:[ \t]*\n(?= {4}))?)+", plain + "\n", re.M):
        yield "", re.sub(r"^ {4}", "", block, flags=re.M)


@cache
def commands() -> list[tuple[str, str]]:
    """Every `leadsync` line of a block: where it is, and its words."""
    found = []
    for manual in MANUALS:
        for _, block in blocks(manual.read_text()):
            for line in block.splitlines():
                if typed := TYPED.search(line):
                    words = re.split(r"\s+#|\s+\||\s+[<>]|\s+&&", typed[1])[0]
                    found.append((manual.name, words.strip()))
    return found


@cache
def statements() -> list[tuple[str, str]]:
    """Every SQL statement of a block, or a query in a sentence: where it is, and its text."""
    found = []
    for manual in MANUALS:
        found += [(manual.name, each) for each in INLINE.findall(manual.read_text())]
        for language, block in blocks(manual.read_text()):
            bare = re.sub(r"--.*$", "", block, flags=re.M)
            if language == "sql" or re.match(r"\s*(select|create|grant|alter|with) ", bare):
                found += [(manual.name, each.strip()) for each in bare.split(";") if each.strip()]
    return found


def why_not(words: str) -> str | None:
    """Why this command is not run here; None where it is."""
    parts = shlex.split(words)
    for name in (" ".join(parts[:2]), parts[0]):
        if name in NOT_RUN and ONLY_LOOKS.get(name, "") not in parts:
            return NOT_RUN[name]
    return None


def looking() -> list[tuple[str, str]]:
    """The commands that are run here, each once, however many documents print it."""
    once = {words: where for where, words in commands() if why_not(words) is None}
    return [(where, words) for words, where in once.items()]


@pytest.fixture(scope="module")
def stack() -> Iterator[Whole]:
    """A stack with one Page, one form with its view, and a few leads."""
    with whole(
        sandbox={"pages": 1, "forms_per_page": 1},
        env={"RING_EVERY_SECONDS": "1", "WORKER_CONCURRENCY": "1"},
    ) as running:
        running.send(count=3)
        assert running.wait_for(lambda: running.all_stored(3), 60), running.states()
        assert running.wait_for(lambda: bool(views(running)), 30), running.log()
        yield running


def views(stack: Whole) -> list[Any]:
    """The forms whose view is made."""
    with psycopg.connect(stack.settings.database_url) as connection:
        return connection.execute("select form_id from forms where view_at is not null").fetchall()


@pytest.fixture(scope="module")
def ids(stack: Whole) -> dict[str, str]:
    """What is there: a lead, its Page, its form and its ad."""
    with psycopg.connect(stack.settings.database_url) as connection:
        row = connection.execute("select leadgen_id, page_id, form_id, ad_id from leads limit 1").fetchone()
    assert row is not None
    return dict(zip(("lead", "page", "form", "ad"), row, strict=True))


def real(words: str, ids: dict[str, str]) -> list[str]:
    """The command with ids that are there in the place of those that the document prints."""
    parts = shlex.split(words)
    kinds = {"--page": "page", "--form": "form", "--ad": "ad"}
    named = {"trace": "lead", "forget": "lead", "pages": "page", "budget": "page", "dead-letters": "lead"}
    for place, part in enumerate(parts):
        if PRINTED.fullmatch(part):
            parts[place] = ids[kinds.get(parts[place - 1], named.get(parts[0], "lead"))]
    return parts


def test_commands_that_only_look_run_as_printed(
    stack: Whole, ids: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each ends with status 0 where ids that are there stand in the place of the printed ones."""
    monkeypatch.chdir(tmp_path)
    trouble = []
    for where, words in looking():
        told = stack.leadsync(*real(words, ids))
        if told.exit_code != 0:
            trouble.append(f"{where}: leadsync {words}: status {told.exit_code}: {told.output}")
    assert not trouble, "\n".join(trouble)


def test_statements_run_as_printed(stack: Whole, ids: dict[str, str]) -> None:
    """Each runs in the database of a stack that has leads, one after the other, and is undone."""
    trouble = []
    with psycopg.connect(stack.settings.database_url) as connection:
        for where, statement in statements():
            text = re.sub(r"form_[0-9]{6,}", f"form_{ids['form']}", statement)
            text = text.replace(', "wie_viele_mitarbeiter_haben_sie?"', "")
            try:
                with connection.transaction():
                    connection.execute(text.encode())
            except psycopg.Error as error:
                trouble.append(f"{where}: {statement}: {error}")
        connection.rollback()
    assert not trouble, "\n".join(trouble)


def test_every_command_is_run_or_says_why_not() -> None:
    """A reason without a command that needs it goes; a document without blocks would prove nothing."""
    told = {" ".join(shlex.split(words)[: len(name.split())]) for name in NOT_RUN for _, words in commands()}
    assert not NOT_RUN.keys() - told - {"worker", "schedule"}
    assert len(commands()) > 60
    assert len(looking()) > 20
    assert len(statements()) > 25


@pytest.mark.parametrize(
    ("words", "is_run"),
    [
        ("status", True),
        ("backfill --page 1", False),
        ("backfill --page 1 --dry-run", True),
        ("backfills", True),
        ("backfills cancel 12", False),
        ("budget", True),
        ("budget limit 1 --clear", False),
        ("retention", True),
    ],
)
def test_what_changes_things_is_told_from_what_looks(words: str, is_run: bool) -> None:
    """By the command and by the option that makes it look only."""
    assert (why_not(words) is None) is is_run
