"""`leadsync import` and `leadsync export-csv` as a user types them, against Postgres and a Meta of a few lines."""

import asyncio
import csv
import io
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from aiohttp import web
from click.testing import CliRunner, Result
from psycopg.rows import dict_row

from tests.fakes.sandboxes import serving as sandbox_serving
from worker.cli import export_csv, import_leads
from worker.cli.command import CommandGroup
from worker.export_download import ExportAccess

PAGE = "153125381133"
FORM = "12312312312"
SECRET = "hunter2"
HEADER = (
    "id",
    "created_time",
    "ad_id",
    "adset_id",
    "campaign_id",
    "form_id",
    "is_organic",
    "platform",
    "email",
)
COOKIE = "c_user=1; xs=cookie_of_the_test"
CREATED = datetime(2026, 9, 1, tzinfo=UTC)


@click.group(cls=CommandGroup, sections={})
def main() -> None:
    """The commands under test."""


main.add_command(import_leads.import_)
main.add_command(export_csv.export_csv)


def row(
    leadgen_id: object, *, ad: bool = True, organic: bool = False, email: str = SECRET
) -> tuple[str, ...]:
    """A row of an export."""
    ads = ("ag:1", "as:2", "c:3") if ad else ("", "", "")
    return (
        f"l:{leadgen_id}", "2026-11-01T12:00:00+01:00", *ads, f"f:{FORM}", str(int(organic)), "fb", email
    )  # fmt: skip


def table(*rows: tuple[str, ...], encoding: str = "utf-16") -> bytes:
    """An export as bytes."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([HEADER, *rows])
    return text.getvalue().encode(encoding)


@dataclass
class Shell:
    """A folder and the settings in which commands are typed."""

    folder: Path
    url: str

    def __call__(self, *words: str, stdin: bytes | None = None) -> Result:
        told = CliRunner().invoke(main, words, input=stdin, env={"COLUMNS": "200"}, catch_exceptions=False)
        assert SECRET not in told.output
        assert "cookie_of_the_test" not in told.output
        return told

    def file(self, name: str, content: bytes) -> str:
        (self.folder / name).write_bytes(content)
        return name

    def rows(self) -> list[dict[str, Any]]:
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return connection.execute("select * from leadgen order by leadgen_id::bigint").fetchall()

    def run(self, statement: str) -> None:
        with psycopg.connect(self.url) as connection:
            connection.execute(statement.encode())


@pytest.fixture
def shell(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """An empty folder and a database with the schema."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database)
    return Shell(tmp_path, database)


def test_a_file_is_imported_and_told(shell: Shell) -> None:
    """One line a file on stdout, nothing on stderr, status 0, no file beside it."""
    name = shell.file("leads.csv", table(row(1), row(2)))
    told = shell("import", name, "--page", PAGE)
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout == "leads.csv: 2 rows: 2 new, 0 completed, 0 unchanged, 0 kept aside\n"
    assert [(r["leadgen_id"], r["page_id"], r["source"]) for r in shell.rows()] == [
        ("1", PAGE, "import"),
        ("2", PAGE, "import"),
    ]
    assert [path.name for path in shell.folder.iterdir()] == ["leads.csv"]
    assert "0 new, 0 completed, 2 unchanged" in shell("import", name, "--page", PAGE).stdout


def test_rows_that_cannot_be_imported_are_kept_and_make_the_status_1(shell: Shell) -> None:
    """The others are imported; the file of them is the owner's alone; mended, it is imported like any other."""
    name = shell.file("leads.csv", table(row(1), row("x"), row(""), row("y"), row(5)))
    told = shell("import", name, "--page", PAGE)
    assert told.exit_code == 1
    assert told.stdout.splitlines() == [
        "leads.csv: 5 rows: 2 new, 0 completed, 0 unchanged, 3 kept aside",
        "  2  id is not an id",
        "  1  has no id",
        "  kept aside in leads.csv.rejected.tsv, which holds personal data",
    ]
    rejects = shell.folder / "leads.csv.rejected.tsv"
    assert rejects.stat().st_mode & 0o777 == 0o600
    text = rejects.read_text()
    assert [line.split("\t")[:2] for line in text.splitlines()[1:]] == [
        ["3", "id is not an id"],
        ["4", "has no id"],
        ["5", "id is not an id"],
    ]
    mended = text.replace("l:x", "l:2").replace("\tl:\t", "\tl:3\t").replace("l:y", "l:4")
    told = shell("import", shell.file("mended.tsv", mended.encode()), "--page", PAGE)
    assert (told.exit_code, len(shell.rows())) == (0, 5)
    assert {json.dumps(r["field_data"]) for r in shell.rows()} == {
        json.dumps([{"name": "email", "values": [SECRET]}])
    }


def test_rejects_go_where_the_operator_says(shell: Shell) -> None:
    """Never over the file itself, and not of several files into one."""
    name = shell.file("leads.csv", table(row("x")))
    other = shell.file("other.csv", table(row(1)))
    assert shell("import", name, "--rejects", "aside.tsv").exit_code == 1
    assert (shell.folder / "aside.tsv").exists()
    assert shell("import", name, "--rejects", f"./{name}").exit_code == 2
    assert shell("import", name, other, "--rejects", "aside.tsv").exit_code == 2


def test_a_page_that_nobody_knows_is_asked_for(shell: Shell) -> None:
    """The reason says what to give."""
    told = shell("import", shell.file("leads.csv", table(row(1))))
    assert told.exit_code == 1
    assert "  1  page unknown; give --page\n" in told.stdout
    shell.run(f"insert into forms (form_id, page_id) values ('{FORM}', '{PAGE}')")
    assert shell("import", "leads.csv").exit_code == 0
    assert shell.rows()[0]["page_id"] == PAGE


@pytest.mark.parametrize("content", [b"", b"<html>Log in</html>", b"name\temail\n", b"PK\x03\x04"])
def test_a_file_that_is_no_export_is_one_line_and_status_2(shell: Shell, content: bytes) -> None:
    """The other files are imported all the same."""
    bad, good = shell.file("bad.csv", content), shell.file("good.csv", table(row(1)))
    told = shell("import", bad, good, "--page", PAGE)
    assert told.exit_code == 2
    assert told.stderr.startswith("leadsync: bad.csv is ")
    assert len(told.stderr.splitlines()) == 1
    assert len(shell.rows()) == 1


def test_a_dry_run_writes_no_row(shell: Shell) -> None:
    """It tells the same counts, and says that it was one."""
    told = shell("import", shell.file("leads.csv", table(row(1))), "--page", PAGE, "--dry-run")
    assert "1 new" in told.stdout
    assert "(dry run: nothing was written)" in told.stdout
    assert shell.rows() == []


def test_json_is_one_object_a_file(shell: Shell) -> None:
    """With all counts, the reasons, and where the rejects are."""
    one, two = shell.file("1.csv", table(row(1), row("x"))), shell.file("2.csv", table(row(2)))
    told = shell("import", one, two, "--page", PAGE, "--json")
    assert [json.loads(line) for line in told.stdout.splitlines()] == [
        {
            "file": "1.csv", "dry_run": False, "rows": 2, "new": 1, "completed": 0, "unchanged": 0,
            "kept_aside": 1, "reasons": {"id is not an id": 1}, "rejects": "1.csv.rejected.tsv",
        },
        {
            "file": "2.csv", "dry_run": False, "rows": 1, "new": 1, "completed": 0, "unchanged": 0,
            "kept_aside": 0, "reasons": {}, "rejects": None,
        },
    ]  # fmt: skip


def test_standard_input_is_a_file_too(shell: Shell) -> None:
    """Its rejects have a name of their own."""
    told = shell("import", "-", "--page", PAGE, stdin=table(row(1), row("x")))
    assert told.exit_code == 1
    assert told.stdout.startswith("standard input: 2 rows: 1 new")
    assert (shell.folder / "stdin.rejected.tsv").exists()


def test_times_without_an_offset_are_told_in_the_zone(shell: Shell) -> None:
    """--zone takes IANA names only."""
    content = table(("l:1", "2026-11-01 12:00:00", *row(1)[2:]))
    assert (
        shell("import", shell.file("a.csv", content), "--page", PAGE, "--zone", "Asia/Kolkata").exit_code == 0
    )
    assert shell.rows()[0]["created_time"] == datetime(2026, 11, 1, 6, 30, tzinfo=UTC)
    refused = shell("import", "a.csv", "--zone", "IST+5")
    assert refused.exit_code == 2
    assert "is no time zone" in refused.stderr


def test_without_postgres_the_import_says_how_far_it_came(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line and status 1; nothing is lost by importing again."""
    monkeypatch.setattr(
        "worker.store.imports.WRITE", "select 1 from pg_sleep(0), pg_terminate_backend(pg_backend_pid())"
    )
    told = shell("import", shell.file("leads.csv", table(row(1))), "--page", PAGE)
    assert told.exit_code == 1
    assert "0 rows of leads.csv are written; import the file again" in told.stderr.splitlines()[-1]


# ---- export-csv ----


@dataclass
class Meta:
    """The address of the export; `answer` makes the answer."""

    url: str = ""
    asked: list[web.Request] = field(default_factory=list)
    answer: Callable[[web.Request], Any] = lambda _: web.Response()

    async def serve(self, http: web.Request) -> web.StreamResponse:
        self.asked.append(http)
        made = self.answer(http)
        return await made if asyncio.iscoroutine(made) else made


@contextmanager
def serving(meta: Meta) -> Iterator[None]:
    """A server of this process, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/ads/lead_gen/export_csv/", meta.serve)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        meta.url = "http://{}:{}".format(*runner.addresses[0][:2])
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def meta() -> Iterator[Meta]:
    """Meta's address on loopback."""
    served = Meta()
    with serving(served):
        yield served


@pytest.fixture
def logged_in(meta: Meta, monkeypatch: pytest.MonkeyPatch) -> Meta:
    """The same, and a browser's cookie in the settings."""
    allow(monkeypatch, ExportAccess(meta.url, cookie=COOKIE))
    return meta


def allow(monkeypatch: pytest.MonkeyPatch, access: ExportAccess) -> None:
    """Settings with this access."""
    monkeypatch.setattr(export_csv, "export_access", lambda _: access)


def gives(content: bytes, **headers: str) -> Callable[[web.Request], web.Response]:
    """An answer with an export."""
    return lambda _: web.Response(body=content, content_type="text/csv", headers=headers)


def test_an_export_is_downloaded_and_told(shell: Shell, logged_in: Meta) -> None:
    """The file is there whole, its owner's alone; the summary says which rows lack ad ids, and why they may."""
    content = table(row(1), row(2, ad=False, organic=True), row(3, ad=False))
    logged_in.answer = gives(content)
    told = shell("export-csv", "--form", FORM)
    assert (told.exit_code, told.stderr) == (0, "")
    name = f"leads-{FORM}.tsv"
    assert told.stdout.splitlines()[0] == f"{name}: 3 rows"
    assert "2 without ad ids, 1 of them organic; the others were sent from an ad's preview" in told.stdout
    assert (shell.folder / name).read_bytes() == content
    assert (shell.folder / name).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in shell.folder.iterdir()] == [name]
    (asked,) = logged_in.asked
    assert asked.headers["Cookie"] == COOKIE
    assert "Authorization" not in asked.headers
    assert shell.rows() == []


def test_a_token_is_a_header_and_never_in_the_address(
    shell: Shell, meta: Meta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used where there is no cookie."""
    allow(monkeypatch, ExportAccess(meta.url, token=SECRET))
    meta.answer = gives(table(row(1)))
    assert shell("export-csv", "--form", FORM).exit_code == 0
    (asked,) = meta.asked
    assert asked.headers["Authorization"] == f"Bearer {SECRET}"
    assert SECRET not in str(asked.rel_url)


def test_the_span_is_asked_for_in_unix_seconds(shell: Shell, logged_in: Meta) -> None:
    """WHEN is told in the zone; a day as --to is taken in whole; what lies ahead is now."""
    logged_in.answer = gives(table(row(1)))
    words = ["--from", "2026-10-01", "--to", "2026-10-02", "--zone", "Europe/Berlin"]
    assert shell("export-csv", "--form", FORM, *words).exit_code == 0
    first = datetime(2026, 9, 30, 22, tzinfo=UTC).timestamp()
    asked = dict(logged_in.asked[0].query)
    assert asked.pop("to_date") <= str(int(first) + 2 * 86_400)
    assert asked == {"id": FORM, "type": "form", "from_date": str(int(first))}


def test_without_from_the_forms_creation_is_sent_where_it_is_known(shell: Shell, logged_in: Meta) -> None:
    """Else nothing is, and Meta takes it by itself."""
    logged_in.answer = gives(table(row(1)))
    long_ago = "2026-01-01"
    shell("export-csv", "--form", FORM)
    shell("export-csv", "--form", FORM, "--from", long_ago)
    shell.run(
        f"insert into forms (form_id, page_id, created_time) values ('{FORM}', '{PAGE}', '2025-09-01T00:00Z')"
    )
    shell("export-csv", "--form", FORM)
    shell("export-csv", "--form", FORM, "--from", "2024-01-01")
    created = str(int(datetime(2025, 9, 1, tzinfo=UTC).timestamp()))
    since = [http.query.get("from_date") for http in logged_in.asked]
    assert [since[0], *since[2:]] == [None, created, created]


def test_a_download_needs_no_database(shell: Shell, logged_in: Meta, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without one gets the file; importing it there is refused before anything is asked."""
    monkeypatch.setenv("DATABASE_URL", "")
    logged_in.answer = gives(table(row(1)))
    assert shell("export-csv", "--form", FORM).exit_code == 0
    told = shell("export-csv", "--form", FORM, "--import")
    assert (told.exit_code, len(logged_in.asked)) == (2, 1)


def test_an_export_may_be_imported_at_once(shell: Shell, logged_in: Meta) -> None:
    """As by `leadsync import`, with its exit status."""
    logged_in.answer = gives(table(row(1), row("x")))
    told = shell("export-csv", "--form", FORM, "-o", "out.tsv", "--import", "--page", PAGE, "--json")
    assert told.exit_code == 1
    exported, imported = map(json.loads, told.stdout.splitlines())
    assert exported == {"file": "out.tsv", "rows": 2, "without_ad_ids": 0, "organic": 0, "unreadable": 1}
    assert (imported["new"], imported["kept_aside"]) == (1, 1)


def login_redirect(_: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": f"https://www.facebook.com/login/?next={SECRET}"})


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (login_redirect, "Meta wants a login"),
        (lambda _: web.Response(status=401), "Meta wants a login"),
        (lambda _: web.Response(text=f"<html>{SECRET}</html>", content_type="text/html"), "a web page"),
        (gives(b"<!doctype html><html>"), "a web page"),
        (gives(b'for (;;);{"error":1}'), "an error message of Meta"),
        (gives(b""), "is empty"),
        (lambda _: web.Response(status=404), "no such form"),
        (lambda _: web.Response(status=500, text=SECRET), "HTTP 500"),
    ],
)
def test_what_is_no_export_is_never_a_file(
    shell: Shell, logged_in: Meta, answer: Callable[[web.Request], web.Response], told: str
) -> None:
    """One line that says what to do, status 1, and the file of an earlier download stays as it was."""
    name = shell.file(f"leads-{FORM}.tsv", b"earlier")
    logged_in.answer = answer
    found = shell("export-csv", "--form", FORM)
    assert found.exit_code == 1
    assert told in found.stderr
    assert len(found.stderr.splitlines()) == 1
    assert (shell.folder / name).read_bytes() == b"earlier"
    assert len(list(shell.folder.iterdir())) == 1
    if "login" in told or "web page" in told:
        assert "EXPORT_COOKIE" in found.stderr


async def broken_off(http: web.Request) -> web.StreamResponse:
    """Less than was announced."""
    response = web.StreamResponse(headers={"Content-Length": "500000", "Content-Type": "text/csv"})
    await response.prepare(http)
    await response.write(table(*(row(n) for n in range(1, 3_000)), encoding="utf-8"))
    assert http.transport is not None
    http.transport.close()
    return response


async def silent(http: web.Request) -> web.StreamResponse:
    """A header, and then nothing."""
    response = web.StreamResponse()
    await response.prepare(http)
    await response.write(table(row(1)))
    await asyncio.Event().wait()
    return response


def test_a_download_that_breaks_off_leaves_nothing(shell: Shell, logged_in: Meta) -> None:
    """Half a file would look like all there is."""
    logged_in.answer = broken_off
    told = shell("export-csv", "--form", FORM)
    assert told.exit_code == 1
    assert "the download from Meta failed: ClientPayloadError" in told.stderr
    assert list(shell.folder.iterdir()) == []


def test_a_download_ends_within_its_time(shell: Shell, meta: Meta, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long Meta holds the line."""
    allow(monkeypatch, ExportAccess(meta.url, cookie=COOKIE, timeout_seconds=0.5))
    meta.answer = silent
    told = shell("export-csv", "--form", FORM)
    assert told.exit_code == 1
    assert "did not send the export in time" in told.stderr
    assert list(shell.folder.iterdir()) == []


def test_a_cookie_with_a_line_break_is_refused_unread(
    shell: Shell, meta: Meta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error does not show it."""
    allow(monkeypatch, ExportAccess(meta.url, cookie=f"{COOKIE}\n"))
    told = shell("export-csv", "--form", FORM)
    assert (told.exit_code, meta.asked) == (2, [])
    assert "control character" in told.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("--from", "soon"),
        ("--to", "01/02/2026"),
        ("--from", "2026-10-02", "--to", "2026-10-01"),
        ("--zone", "Mars"),
        ("--form", "x"),
    ],
)
def test_words_that_cannot_be_read_are_told_before_anything_is_asked(
    shell: Shell, logged_in: Meta, words: tuple[str, ...]
) -> None:
    """What forms are accepted is in the error."""
    told = shell("export-csv", "--form", FORM, *words)
    assert told.exit_code in (1, 2)
    assert told.stderr
    assert logged_in.asked == []


def test_without_any_right_the_settings_are_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta would only lead to its login."""
    for name in ("EXPORT_COOKIE", "EXPORT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    told = shell("export-csv", "--form", FORM)
    assert told.exit_code == 2
    assert "EXPORT_COOKIE: is not set, nor is EXPORT_TOKEN" in told.stderr


@pytest.mark.parametrize("by", ["cookie", "token"])
def test_the_sandboxes_export_is_what_its_graph_tells(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Every lead that Graph lists comes by the file too, equal but for skipped questions and what is joined."""
    style: dict[str, Any] = (
        {"export_encoding": "utf-16", "export_zone": "+05:30", "export_flags": "words", "export_status": True}
        if by == "cookie"
        else {"export_separator": "comma"}
    )
    with sandbox_serving(leads=200, pages=1, **style) as served:
        world, tokens = served.sandbox.world, served.sandbox.tokens
        form = next(iter(world.form_by_id.values()))
        token = tokens.of_page[form.page_id]
        access = (
            ExportAccess(served.url, cookie=f"session={tokens.of_user}")
            if by == "cookie"
            else ExportAccess(served.url, token=token)
        )
        allow(monkeypatch, access)
        told = shell("export-csv", "--form", form.form_id, "--import", "--page", form.page_id)
        assert told.exit_code == 0, told.output
        listed = list_leads(f"{served.url}/v26.0/{form.form_id}/leads", token)
    rows = {row["leadgen_id"]: row for row in shell.rows()}
    assert rows.keys() == listed.keys()
    assert rows
    for leadgen_id, lead in listed.items():
        row = rows[leadgen_id]
        for name in ("form_id", "ad_id", "ad_name", "adset_id", "campaign_name", "is_organic", "platform"):
            assert row[name] == lead.get(name), name
        assert row["created_time"] == datetime.fromisoformat(lead["created_time"])
        asked = {entry["name"]: ", ".join(entry.get("values") or []) for entry in lead["field_data"]}
        found = {entry["name"]: "".join(entry["values"]) for entry in row["field_data"]}
        # Only columns of questions are in the file; what a question was not asked is skipped.
        assert {name: value for name, value in found.items() if value} == {
            name: value for name, value in asked.items() if value
        }


def list_leads(url: str, token: str) -> dict[str, dict[str, Any]]:
    """All leads of a listing by id."""
    fields = "id,created_time,form_id,ad_id,ad_name,adset_id,campaign_name,is_organic,platform,field_data"
    address = f"{url}?limit=500&fields={fields}&access_token={token}"
    leads: dict[str, dict[str, Any]] = {}
    while address:
        with urllib.request.urlopen(address) as answer:
            told = json.load(answer)
        leads |= {lead["id"]: lead for lead in told["data"]}
        address = told.get("paging", {}).get("next", "")
    return leads
