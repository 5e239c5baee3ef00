"""`leadsync keys` as a user types it: on a real database, with a key file or with TOKEN_KEYS, killed and run again."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg_pool import AsyncConnectionPool

from worker.cli import main
from worker.sealing import Key, KeyRing, Keys, new_key, of_account, of_page, parse_keys
from worker.store.tokens import TokenStore
from worker.tokens import GivenTokens, StoredTokens

ROOT = Path(__file__).parents[2]
OLD = new_key()
UNSET = dict.fromkeys(("TOKEN_KEYS", "TOKEN_KEYS_FILE", "REDIS_URL", "DATABASE_URL", "PAGE_TOKENS"), "")


def leadsync(folder: Path, *words: str, **env: str) -> Result:
    """Run a command to its end in this process."""
    runner = CliRunner(env={**UNSET, "COLUMNS": "200", **env})
    return runner.invoke(main, [*words, "--data-dir", str(folder)] if words[1] != "generate" else list(words))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token.keys"
    path.write_text(f"# ours\n{OLD.text}  # the first one\n")
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env of this folder counts."""
    monkeypatch.chdir(tmp_path)


def fill(database: str, key: Key, pages: int = 3, accounts: int = 1) -> None:
    """Tokens `page N` and `user N`, sealed with `key`."""
    ring = KeyRing((key,))
    with psycopg.connect(database) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into page_tokens (page_id, key_id, sealed, derived_at) values (%s, %s, %s, now())",
            [
                (str(n), key.key_id, ring.seal(f"page {n}", of_page(str(n))).box)
                for n in range(100, 100 + pages)
            ],
        )
        cursor.executemany(
            "insert into accounts (user_id, kind, key_id, sealed, connected_at) values (%s, 'USER', %s, %s, now())",
            [
                (str(n), key.key_id, ring.seal(f"user {n}", of_account(str(n))).box)
                for n in range(100, 100 + accounts)
            ],
        )


def sealed_with(database: str) -> dict[str, int]:
    with psycopg.connect(database) as connection:
        return dict(
            connection.execute(
                "select key_id, count(*) from (select key_id from page_tokens union all select key_id from accounts) s"
                " group by key_id"
            ).fetchall()
        )


def all_open(database: str, file: Path) -> bool:
    """Whether every token opens to itself with the keys of the file."""
    ring = KeyRing(parse_keys(file.read_text()))
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "select 'page', page_id, key_id, sealed from page_tokens union all"
            " select 'user', user_id, key_id, sealed from accounts"
        ).fetchall()
    from worker.sealing import Sealed

    return bool(rows) and all(
        ring.open(Sealed(key_id, box), of_page(i) if kind == "page" else of_account(i)) == f"{kind} {i}"
        for kind, i, key_id, box in rows
    )


def test_a_key_is_printed_and_nothing_else(tmp_path: Path) -> None:
    """Standard output goes into a file or a secret store as it is; each key is another one."""
    first, second = (leadsync(tmp_path, "keys", "generate") for _ in range(2))
    assert len(parse_keys(first.stdout)) == 1
    assert first.stdout == parse_keys(first.stdout)[0].text + "\n" != second.stdout
    assert first.stderr == ""


def test_keys_are_listed_with_what_they_seal(tmp_path: Path, file: Path, database: str) -> None:
    """Ids, settings and counts; a key that is needed and missing is warned of; no key is shown."""
    spare, lost = new_key(), new_key()
    fill(database, OLD, pages=2, accounts=1)
    with psycopg.connect(database) as connection:
        connection.execute("update page_tokens set key_id = %s where page_id = '101'", (lost.key_id,))
    env = {"DATABASE_URL": database, "TOKEN_KEYS_FILE": str(file), "TOKEN_KEYS": f"{spare.text},{OLD.text}"}
    told = leadsync(tmp_path, "keys", "list", "--json", **env)
    assert told.exit_code == 0, told.stderr
    assert [json.loads(line) for line in told.stdout.splitlines()] == [
        {
            "key_id": OLD.key_id,
            "from": "TOKEN_KEYS_FILE, TOKEN_KEYS",
            "seals_now": True,
            "pages": 1,
            "accounts": 1,
        },
        {"key_id": spare.key_id, "from": "TOKEN_KEYS", "seals_now": False, "pages": 0, "accounts": 0},
        {"key_id": lost.key_id, "from": "missing", "seals_now": False, "pages": 1, "accounts": 0},
    ]
    assert told.stderr == (
        f"leadsync: 1 token cannot be opened without key {lost.key_id}: put that key back, or run `leadsync connect`"
        " again for their Pages\n"
    )
    table = leadsync(tmp_path, "keys", "list", **env)
    assert OLD.key_id in table.stdout
    assert OLD.text not in table.output + told.output


def test_a_rotation_seals_with_a_new_key_and_takes_the_former_out(
    tmp_path: Path, file: Path, database: str
) -> None:
    """First the file, then the tokens, then the file again; what the operator wrote in it stays."""
    fill(database, OLD)
    env = {"DATABASE_URL": database, "TOKEN_KEYS_FILE": str(file)}
    told = leadsync(tmp_path, "keys", "rotate", "--json", **env)
    assert told.exit_code == 0, told.output
    new, old = parse_keys(file.read_text())
    assert old == OLD
    assert json.loads(told.stdout) == {
        "seals_now": new.key_id, "new": new.key_id, "sealed": 4, "locked": {}, "dropped": [],
    }  # fmt: skip
    assert sealed_with(database) == {new.key_id: 4}
    assert all_open(database, file)
    again = leadsync(tmp_path, "keys", "rotate", "--drop-old", "--settle", "0", **env)
    (newer,) = parse_keys(file.read_text())
    assert newer not in (new, old)
    assert file.read_text().endswith("# ours\n")
    assert f"key {old.key_id} is taken out" in again.stdout
    assert all_open(database, file)
    assert newer.text not in again.output


def test_what_an_interrupted_rotation_left_is_finished_first(
    tmp_path: Path, file: Path, database: str
) -> None:
    """The key that is in the file and seals too little is used; no further key is made."""
    fill(database, OLD)
    new = new_key()
    file.write_text(f"{new.text}\n{file.read_text()}")
    told = leadsync(tmp_path, "keys", "rotate", DATABASE_URL=database, TOKEN_KEYS_FILE=str(file))
    assert told.stdout == f"4 tokens are sealed with key {new.key_id} now\n"
    assert parse_keys(file.read_text()) == (new, OLD)
    dropped = leadsync(
        tmp_path, "keys", "drop", "--settle", "0", DATABASE_URL=database, TOKEN_KEYS_FILE=str(file)
    )
    assert dropped.stdout == f"{OLD.key_id}  taken out\n"
    assert all_open(database, file)


def test_a_token_that_cannot_be_opened_is_told(tmp_path: Path, file: Path, database: str) -> None:
    """The others move; exit status 1 and one line say which key is missing."""
    lost = new_key()
    fill(database, lost, pages=2, accounts=0)
    told = leadsync(tmp_path, "keys", "rotate", DATABASE_URL=database, TOKEN_KEYS_FILE=str(file))
    assert told.exit_code == 1
    assert f"2 tokens cannot be opened without key {lost.key_id}" in told.stderr


def test_former_keys_stay_until_the_file_has_settled(tmp_path: Path, file: Path, database: str) -> None:
    """Who has just sealed with a former key stores it first; the wait is told."""
    fill(database, OLD)
    began = time.time()
    told = leadsync(
        tmp_path, "keys", "rotate", "--drop-old", "--settle", "1.2",
        DATABASE_URL=database, TOKEN_KEYS_FILE=str(file),
    )  # fmt: skip
    assert time.time() - began >= 1.1
    assert "waits 1 s for whoever" in told.stderr
    assert len(parse_keys(file.read_text())) == 1


def test_a_file_that_cannot_be_replaced_is_told_and_nothing_sealed(
    tmp_path: Path, file: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that has the file mounted read-only: one line says what to do by hand."""
    import worker.key_file

    def read_only(*_: object, **__: object) -> int:
        raise OSError(30, "Read-only file system")

    fill(database, OLD)
    monkeypatch.setattr(worker.key_file.Path, "replace", read_only)
    told = leadsync(tmp_path, "keys", "rotate", DATABASE_URL=database, TOKEN_KEYS_FILE=str(file))
    assert told.exit_code == 2
    assert told.stderr.count("\n") == 1
    assert "leadsync keys generate" in told.stderr
    assert sealed_with(database) == {OLD.key_id: 4}
    assert parse_keys(file.read_text()) == (OLD,)


def test_with_keys_of_the_environment_it_says_what_to_put_where(tmp_path: Path, database: str) -> None:
    """A new key, the order of the steps, and nothing sealed; then --yes, once all processes have the key."""
    fill(database, OLD)
    first = leadsync(tmp_path, "keys", "rotate", DATABASE_URL=database, TOKEN_KEYS=OLD.text)
    assert first.exit_code == 0
    (line,) = [line for line in first.stderr.splitlines() if line.startswith("1. ")]
    new = line.split("TOKEN_KEYS=")[1].split(",")[0]
    assert len(parse_keys(new)) == 1
    assert OLD.text not in first.output
    both = f"{new},{OLD.text}"
    refused = leadsync(tmp_path, "keys", "rotate", DATABASE_URL=database, TOKEN_KEYS=both)
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    assert "restart every process" in refused.stderr
    assert sealed_with(database) == {OLD.key_id: 4}
    done = leadsync(tmp_path, "keys", "rotate", "--yes", DATABASE_URL=database, TOKEN_KEYS=both)
    assert done.exit_code == 0
    assert sealed_with(database) == {parse_keys(new)[0].key_id: 4}


@pytest.mark.parametrize("words", [("rotate",), ("drop",), ("rotate", "--drop-old")])
def test_without_a_key_it_says_how_to_get_one(tmp_path: Path, database: str, words: tuple[str, ...]) -> None:
    """Exit status 2, and nothing is made."""
    told = leadsync(tmp_path, "keys", *words, DATABASE_URL=database)
    assert told.exit_code == 2
    assert "TOKEN_KEYS" in told.stderr


def test_the_key_that_up_made_is_rotated(tmp_path: Path, file: Path, database: str) -> None:
    """Without a setting, the file that `up` noted in its data directory is the one; it is read, and written, there."""
    fill(database, OLD)
    (tmp_path / "urls.json").write_text(json.dumps({"DATABASE_URL": database, "TOKEN_KEYS_FILE": str(file)}))
    assert leadsync(tmp_path, "keys", "rotate").exit_code == 0
    assert len(parse_keys(file.read_text())) == 2
    assert all_open(database, file)


def test_killed_at_any_moment_and_run_again_no_token_is_lost(
    tmp_path: Path, file: Path, database: str
) -> None:
    """Three runs, each killed somewhere; after each every token opens with the file; the last run is left to end.

    All the while a process that read the file before goes on opening tokens.
    """
    fill(database, OLD, pages=300, accounts=20)
    env: Mapping[str, str] = {
        **os.environ, **UNSET, "DATABASE_URL": database, "TOKEN_KEYS_FILE": str(file), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [sys.executable, "-m", "worker", "keys", "rotate", "--drop-old", "--settle", "0"]
    keys, dice = Keys((), file), random.Random(7)

    async def read_on(process: "subprocess.Popen[bytes]", seconds: float) -> None:
        async with AsyncConnectionPool(database, min_size=1, max_size=1, open=False) as pool:
            ends = time.monotonic() + seconds
            while process.poll() is None and time.monotonic() < ends:
                tokens = StoredTokens(TokenStore(pool), keys, GivenTokens({}, None), time.monotonic)
                page_id = str(dice.randrange(100, 400))
                assert await tokens.token_for(page_id) == f"page {page_id}"
                await asyncio.sleep(0.02)  # reading without a pause would be most of what this test costs

    def run(seconds: float) -> int:
        """Its exit status; -9 where it was killed after so long."""
        process = subprocess.Popen(
            command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        try:
            asyncio.run(read_on(process, seconds))
        finally:
            process.kill()
            _, errors = process.communicate()
        assert process.returncode in (0, -9), errors.decode()
        assert all_open(database, file)
        return process.returncode

    began = time.monotonic()
    assert run(60) == 0
    whole = time.monotonic() - began
    ends = [run(whole * part) for part in (0.6, 0.75, 0.9)]
    while -9 not in ends and len(ends) < 12:  # the machine was busier at first
        whole *= 0.7
        ends.append(run(whole))
    assert -9 in ends
    assert run(60) == 0
    assert len(parse_keys(file.read_text())) == 1
    assert sealed_with(database).keys() == {parse_keys(file.read_text())[0].key_id}
