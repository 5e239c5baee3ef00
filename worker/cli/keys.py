"""Commands for the keys that seal tokens: make one, tell what each seals, rotate them, take spare ones out."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from worker.cli.command import answer_of, data_dir_option, print_rows, settings_for
from worker.errors import ConfigurationError, LeadSyncError
from worker.key_file import SETTLE_SECONDS, unchanged_for

if TYPE_CHECKING:
    from worker.rotation import Resealed, Tell
    from worker.settings import Settings
    from worker.store.tokens import TokenStore

_wait_option = click.option(
    "--settle",
    type=click.FloatRange(0),
    default=SETTLE_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="Take keys out only so long after the file last changed; who had just sealed with one has stored it then.",
)


@click.group()
def keys() -> None:
    """Make, list and change the keys that seal tokens in Postgres.

    docs/tokens.md tells where tokens lie, who can open them, and what to keep a copy of.
    """


@keys.command("generate")
def generate() -> None:
    """Print a new key and nothing else; nobody keeps it but you."""
    from worker.sealing import new_key

    click.echo(new_key().text)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a key.")
@data_dir_option
def list_keys(as_json: bool, data_dir: Path) -> None:
    """List the keys by id: where from, and how many tokens each seals.

    A key that is `missing` is needed to open tokens and is in no setting; those tokens are locked.
    """
    settings = settings_for(data_dir, "DATABASE_URL")
    rows = answer_of(_listed(settings))
    print_rows(
        rows, as_json, empty="no key is set and no token is sealed; `leadsync keys generate` makes a key"
    )
    for row in rows:
        if row["from"] == "missing":
            click.echo(f"leadsync: {_locked_by(row['key_id'], row['pages'] + row['accounts'])}", err=True)


@keys.command("rotate")
@click.option("--drop-old", is_flag=True, help="Afterwards take the keys out of the file that seal nothing.")
@click.option(
    "--yes", is_flag=True, help="All processes have the new key of TOKEN_KEYS: seal with it (no key file)."
)
@_wait_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@data_dir_option
def rotate(drop_old: bool, yes: bool, settle: float, as_json: bool, data_dir: Path) -> None:
    """Seal every token with a new key while everything runs on.

    With a key file (TOKEN_KEYS_FILE, or the one that `leadsync up` made) a new key goes first into the file, then every
    token is sealed with it; the former keys stay in the file until --drop-old or `leadsync keys drop`. A run that was
    interrupted is finished by the next one, which then makes no further key. With TOKEN_KEYS it tells you what to put
    where, and seals once you say --yes.
    """
    settings = settings_for(data_dir, "DATABASE_URL")
    if settings.token_keys_file is not None:
        told = answer_of(_rotate_file(settings, settle if drop_old else None))
    elif drop_old:
        raise click.UsageError(
            "--drop-old changes a key file, and keys come from TOKEN_KEYS; take it out there"
        )
    else:
        told = answer_of(_rotate_given(settings, yes=yes))
    if as_json:
        click.echo(json.dumps(told))
    else:
        _tell(told)
    if told["locked"]:
        raise click.exceptions.Exit(1)


@keys.command("drop")
@_wait_option
@data_dir_option
def drop(settle: float, data_dir: Path) -> None:
    """Take former keys that seal nothing out of the key file.

    The first one, which seals, always stays.
    """
    settings = settings_for(data_dir, "DATABASE_URL")

    async def ask() -> tuple[str, ...]:
        from worker.desks import open_token_store
        from worker.key_file import held
        from worker.rotation import drop_unused

        if settings.token_keys_file is None:
            raise ConfigurationError(
                "TOKEN_KEYS_FILE: is not set; take spare keys out of TOKEN_KEYS yourself"
            )
        async with open_token_store(settings) as rows:
            with held(settings.token_keys_file) as file:
                await _settle(file, settle)
                return await drop_unused(file, rows)

    dropped = answer_of(ask())
    for key_id in dropped:
        click.echo(f"{key_id}  taken out")
    if not dropped:
        click.echo("every key of the file seals, or is needed to open a token")


async def _listed(settings: "Settings") -> list[dict[str, Any]]:
    from worker.desks import open_token_store
    from worker.neighbours import create_keys

    async with open_token_store(settings) as rows:
        used = {row["key_id"]: row for row in await rows.keys_used()}
    listed: dict[str, dict[str, Any]] = {}
    for key, source in create_keys(settings).sources():
        if key.key_id in listed:
            others = listed[key.key_id]["from"].split(", ")
            listed[key.key_id]["from"] = ", ".join(dict.fromkeys([*others, source]))
            continue
        listed[key.key_id] = _row(key.key_id, source, used.get(key.key_id), seals=not listed)
    for key_id in used.keys() - listed.keys():
        listed[key_id] = _row(key_id, "missing", used[key_id], seals=False)
    return list(listed.values())


def _row(key_id: str, source: str, used: "dict[str, Any] | None", *, seals: bool) -> dict[str, Any]:
    counts = {"pages": used["pages"], "accounts": used["accounts"]} if used else {"pages": 0, "accounts": 0}
    return {"key_id": key_id, "from": source, "seals_now": seals, **counts}


async def _rotate_file(settings: "Settings", settle: float | None) -> dict[str, Any]:
    """`settle`: after how many seconds former keys go; None: they stay."""
    from worker.clock import now
    from worker.desks import open_token_store
    from worker.key_file import held
    from worker.neighbours import create_keys
    from worker.rotation import add_key, drop_unused

    assert settings.token_keys_file is not None
    keys = create_keys(settings)
    async with open_token_store(settings) as rows:
        with held(settings.token_keys_file) as file:
            # What an interrupted run left comes first, so that no run leaves a key more behind.
            done, new = await _seal(rows, settings), None
            if not done.moved:
                new = add_key(file, keys, f"{now():%Y-%m-%d}")
                done = await _seal(rows, settings)
            dropped: tuple[str, ...] = ()
            if settle is not None:
                await _settle(file, settle)
                await _seal(rows, settings)
                dropped = await drop_unused(file, rows)
    return _told(keys.ring().keys[0].key_id, new, done, dropped)


async def _rotate_given(settings: "Settings", *, yes: bool) -> dict[str, Any]:
    from worker.desks import open_token_store
    from worker.neighbours import create_keys
    from worker.rotation import outside

    keys = create_keys(settings).ring().keys
    if not keys:
        raise ConfigurationError(
            "TOKEN_KEYS: is not set, nor TOKEN_KEYS_FILE; `leadsync keys generate` makes a key"
        )
    first = keys[0].key_id
    async with open_token_store(settings) as rows:
        waiting = await outside(rows, first)
        if not waiting:
            _tell_how()
            return _told(first, None, None, ())
        if not yes:
            raise LeadSyncError(
                f"{waiting} tokens are to be sealed with key {first} of TOKEN_KEYS, and a process that was started"
                " without that key would find them locked: restart every process with it, then say --yes"
            )
        return _told(first, None, await _seal(rows, settings), ())


def _tell_how() -> None:
    """What the holder of TOKEN_KEYS does; the new key goes to standard error too, with the order of the steps."""
    from worker.sealing import new_key

    for line in (
        "every token is sealed with the first key of TOKEN_KEYS; to change it:",
        f"1. put a new key before it, where every process gets it: TOKEN_KEYS={new_key().text},<what is there now>",
        "2. restart every process with that (docker compose up -d)",
        "3. leadsync keys rotate --yes",
        "4. leadsync keys list: take keys out of TOKEN_KEYS that seal nothing, and restart when it suits you",
    ):
        click.echo(line, err=True)


async def _seal(rows: "TokenStore", settings: "Settings") -> "Resealed":
    from worker.neighbours import create_keys
    from worker.rotation import outside, seal_anew

    ring = create_keys(settings).ring()
    with _progress(await outside(rows, ring.keys[0].key_id)) as tell:
        return await seal_anew(rows, ring, tell)


@contextmanager
def _progress(total: int) -> "Iterator[Tell]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("sealing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not (total and console.is_terminal)) as progress:
        task = progress.add_task("sealing", total=total)
        yield lambda moved: progress.update(task, completed=moved)


async def _settle(file: Path, seconds: float) -> None:
    while (left := seconds - unchanged_for(file, time.time())) > 0:
        click.echo(f"waits {left:.0f} s for whoever has just sealed with a former key", err=True)
        await asyncio.sleep(left)


def _told(seals: str, new: str | None, done: "Resealed | None", dropped: tuple[str, ...]) -> dict[str, Any]:
    return {
        "seals_now": seals,
        "new": new,
        "sealed": done.moved if done else 0,
        "locked": dict(done.locked) if done else {},
        "dropped": list(dropped),
    }


def _tell(told: dict[str, Any]) -> None:
    key_id = told["seals_now"]
    if told["new"]:
        click.echo(f"key {key_id} is new and seals now; keep a copy of the key file apart from the database")
    if told["sealed"]:
        click.echo(f"{told['sealed']} tokens are sealed with key {key_id} now")
    elif told["new"]:
        click.echo("no token was sealed with another key")
    for dropped in told["dropped"]:
        click.echo(f"key {dropped} is taken out")
    for missing, tokens in told["locked"].items():
        click.echo(f"leadsync: {_locked_by(missing, tokens)}", err=True)


def _locked_by(key_id: str, tokens: int) -> str:
    return (
        f"{tokens} token{'s' * (tokens != 1)} cannot be opened without key {key_id}:"
        " put that key back, or run `leadsync connect` again for their Pages"
    )
