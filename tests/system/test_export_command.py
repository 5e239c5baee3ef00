"""`leadsync export` as a user types it: what goes to a pipe, a file and the terminal, and how it ends."""

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from tests.servers import short_folder
from worker.cli import main
from worker.cli.export import FORMATS

SECRET = "ann-hunter2@example.org"
FILL = """
insert into leadgen (leadgen_id, state, first_seen_at, last_seen_at, page_id, form_id, created_time, field_data,
    source, stored_at, updated_at)
select n::text, 'stored', now(), now(), '5', '11', timestamptz '2026-11-20 12:00+00' + n * interval '1 second',
    jsonb_build_array(
        jsonb_build_object('name', 'email', 'values', jsonb_build_array(%s::text)),
        jsonb_build_object('name', 'color', 'values', jsonb_build_array('r'))),
    'webhook', now(), now()
from generate_series(1, %s) as n
"""


class Shop:
    """A folder to run the command in, and its database."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.database = database
        self.env = {
            "DATABASE_URL": database,
            "COLUMNS": "120",
        }

    def fill(self, leads: int) -> None:
        self.sql(FILL, SECRET, leads)

    def sql(self, statement: str, *parameters: object) -> None:
        with psycopg.connect(self.database) as connection:
            connection.execute(statement.encode(), parameters)

    def start(self, *words: str, **how: Any) -> "subprocess.Popen[bytes]":
        """The command as a process, for what only a process has: signals, pipes, a terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "worker", "export", *words],
            cwd=self.folder,
            env={**os.environ, **self.env, "PYTHONPATH": str(Path(__file__).parents[2])},
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how},
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Status, stdout and stderr, line ends as they are."""
        told = CliRunner().invoke(main, ["export", *words], env=self.env, catch_exceptions=False)
        return told.exit_code, told.stdout_bytes.decode(), told.stderr_bytes.decode()

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def shop(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """An empty folder and an empty database."""
    with short_folder() as folder:
        monkeypatch.chdir(folder)
        yield Shop(folder, database)


def read(text: str, dialect: str = "excel") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline=""), dialect=dialect))


def test_leads_go_to_standard_output_in_each_format(shop: Shop) -> None:
    """Without FILE the leads are all that is on stdout, and nothing is on stderr."""
    shop.fill(3)
    for name in FORMATS:
        status, out, err = shop.run("--format", name)
        assert (status, err) == (0, "")
        if name == "jsonl":
            told = [json.loads(line) for line in out.splitlines()]
            assert [lead["field_data"] for lead in told] == [{"email": [SECRET], "color": ["r"]}] * 3
        else:
            told = read(out, "excel" if name == "csv" else "excel-tab")
            assert [lead["email"] for lead in told] == [SECRET] * 3
        assert [lead["leadgen_id"] for lead in told] == ["1", "2", "3"]


def test_a_file_is_private_and_its_ending_tells_the_format(shop: Shop) -> None:
    """-o writes a file of mode 0600, says how many leads are in it, and tells none of them."""
    shop.fill(3)
    process = shop.start("-o", "leads.tsv", "--bom")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, b"", b"leadsync: 3 leads in leads.tsv\n")
    path = shop.folder / "leads.tsv"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"\xef\xbb\xbfleadgen_id\t")
    assert shop.files() == ["leads.tsv"]


def test_a_span_is_read_in_the_zone(shop: Shop) -> None:
    """--since and --until are moments of --zone, in which times are told, too."""
    shop.fill(3)
    span = ("--since", "2026-11-20 13:00:02", "--until", "2026-11-20 13:00:03", "--zone", "Europe/Berlin")
    (lead,) = read(shop.run(*span)[1])
    assert (lead["leadgen_id"], lead["created_time"]) == ("2", "2026-11-20T13:00:02+01:00")
    assert len(read(shop.run("--until", "2026-11-20")[1])) == 3, "a bare date is included whole"


def test_labels_come_from_the_definition(shop: Shop) -> None:
    """--labels tells the form's own words; a lead of another form is not chosen."""
    shop.fill(1)
    questions = [{"key": "color", "label": "Which color?", "options": [{"key": "r", "value": "Red"}]}]
    shop.sql(
        "insert into forms (form_id, page_id, name, questions) values ('11', '5', 'N', %s)",
        json.dumps(questions),
    )
    (lead,) = read(shop.run("--labels", "--form", "11")[1])
    assert (lead["Which color?"], lead["form_name"], lead["email"]) == ("Red", "N", SECRET)


def test_nothing_that_matches_is_said(shop: Shop) -> None:
    """An empty export is its header, status 0, and a line on stderr; what is not known at all is named."""
    shop.fill(1)
    status, out, err = shop.run("--since", "2027-01-01")
    assert (status, out.count("\r\n"), err) == (0, 1, "leadsync: no stored lead matches\n")
    status, out, err = shop.run("--form", "99", "--form", "11", "--page", "98")
    assert (status, out.count("\r\n")) == (0, 1)
    assert err.splitlines() == [
        "leadsync: form 99 is not known here",
        "leadsync: page 98 is not known here",
        "leadsync: no stored lead matches",
    ]


@pytest.mark.parametrize(
    "words",
    [
        ("--since", "01/02/2026"),
        ("--zone", "Mars/Base"),
        ("--form", "eleven"),
        ("--format", "jsonl", "--labels"),
        ("--since", "2026-11-21", "--until", "2026-11-20"),
        ("-o", "."),
    ],
)
def test_arguments_that_mean_nothing_are_refused(shop: Shop, words: tuple[str, ...]) -> None:
    """A wrong argument is status 2 and writes nothing."""
    status, out, err = shop.run(*words)
    assert (status, out) == (2, "")
    assert "Error: " in err
    assert shop.files() == []


def test_a_reader_that_has_enough_ends_it_quietly(shop: Shop) -> None:
    """`| head -1` gets its line; nothing is said, and the status is that of any command whose reader left."""
    shop.fill(30_000)
    process = shop.start()
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline().startswith(b"leadgen_id,")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 128 + signal.SIGPIPE


def test_postgres_that_goes_away_leaves_no_file(shop: Shop) -> None:
    """A connection lost midway is one line without an answer, status 1, and the old file as it was."""
    shop.fill(60_000)
    (shop.folder / "leads.csv").write_text("old")
    process = shop.start("-o", "leads.csv")
    _wait_for_part(shop)
    _end_connections(shop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    (line,) = err.decode().splitlines()
    assert line.startswith("leadsync: Postgres cannot do this now")
    assert line.endswith("leads.csv was not written")
    assert "hunter2" not in line
    assert shop.files() == ["leads.csv"]
    assert (shop.folder / "leads.csv").read_text() == "old"


def test_postgres_that_is_away_is_one_line(shop: Shop, free_port: int) -> None:
    """Without Postgres there is one line, status 1, and no file."""
    shop.env["DATABASE_URL"] = f"postgresql://x@127.0.0.1:{free_port}/x"
    status, out, err = shop.run("-o", "leads.csv")
    assert (status, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("leadsync: Postgres ")
    assert line.endswith("; leads.csv was not written")
    assert shop.files() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_file(shop: Shop, number: signal.Signals) -> None:
    """Whoever ends the command midway finds nothing half done, and no answer on stderr."""
    if number is signal.SIGTERM and "coverage" in sys.modules:
        pytest.skip("coverage has a handler for SIGTERM, and a command leaves another's handler alone")
    shop.fill(60_000)
    process = shop.start("-o", "leads.csv")
    _wait_for_part(shop)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (1 if number is signal.SIGINT else 128 + number)
    assert err.decode().strip() in ("", "Aborted!")
    assert shop.files() == []


def test_a_terminal_sees_how_far_it_is(shop: Shop) -> None:
    """A terminal on stderr shows rows of all rows and the rate, and no answer."""
    shop.fill(2_000)
    ours, theirs = pty.openpty()
    process = shop.start("-o", "leads.csv", stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    told = b""
    try:
        while block := os.read(ours, 4_096):
            told += block
    except OSError:  # Linux says so that the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(60) == 0
    assert b"2,000 of 2,000 leads" in told
    assert b"/s" in told
    assert b"hunter2" not in told


def _wait_for_part(shop: Shop) -> None:
    """Until the command has begun to write rows."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if any(path.stat().st_size > 100_000 for path in shop.folder.glob(".*.part")):
            return
    pytest.fail("nothing was written")


def _end_connections(shop: Shop) -> None:
    with psycopg.connect(shop.database, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'leadsync' and datname = current_database()"
        )
