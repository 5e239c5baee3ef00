"""What an operator writes: environment, `.env`, files of keys and tokens, times and zones.

Input of `environment`: `NAME=value` a line each. Of `dotenv`, `tokens_file`: the file. Of `keys`: a key file. Of
`when`: a zone, a line feed, the time. Of `sealed`: the box of a token.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values

import receiver.errors
import receiver.settings
import worker.errors
import worker.settings
from tests.fuzz.holdable import check_time
from tests.fuzz.target import Target, holds
from worker.inbox import is_id
from worker.key_file import with_key, without_keys
from worker.sealing import Key, KeyRing, Sealed, TokenLocked, of_page, parse_keys
from worker.tokens import GivenTokens, TokensUnreadable
from worker.when import UnknownZone, UnreadableTime, parse_when, zone_of

NOW: Final = datetime(2026, 10, 1, 12, tzinfo=UTC)
KEY: Final = Key(bytes(range(32)))
OTHER_KEY: Final = Key(bytes(32))
TOKEN: Final = "EAAB-token"
SECRET: Final = "hunter2"


def check_environment(data: bytes) -> None:
    """Any environment gives usable settings, or all its problems in lines without a secret."""
    lines = (line.partition(b"=") for line in data.replace(b"\x00", b"").split(b"\n"))
    given = {name: value for name, equals, value in lines if equals and name.replace(b"_", b"").isalnum()}
    with _environment({os.fsdecode(name): os.fsdecode(value) for name, value in given.items()}):
        _check_settings()


def check_dotenv(data: bytes) -> None:
    """The same of a file `.env` of any bytes."""
    with _environment({}):
        Path(".env").write_bytes(data)
        try:
            _check_settings()
        finally:
            Path(".env").unlink()


def _check_settings() -> None:
    readers: tuple[tuple[Callable[[], Any], type[Exception]], ...] = (
        (worker.settings.read_settings, worker.errors.ConfigurationError),
        (receiver.settings.read_settings, receiver.errors.ConfigurationError),
    )
    for read, refusal in readers:
        try:
            settings = read()
        except refusal as error:
            holds("a problem is told in text", _is_text(str(error)))
            holds("a problem shows no secret", SECRET not in str(error))
            continue
        told = [*os.environ.items(), *dotenv_values(".env").items()]
        shown = any(SECRET in (value or "") for name, value in told if name not in _SECRET)
        holds("settings show no secret", shown or SECRET not in repr(settings))
        for each in fields(settings):
            _check_setting(each.name, getattr(settings, each.name))


def _check_setting(name: str, value: object) -> None:
    if isinstance(value, float):
        with suppress(OverflowError):
            holds("a time can be waited for", timedelta(seconds=value) > timedelta(-1))
            return
        holds(f"{name} is a number of seconds that there is", False)
    elif isinstance(value, str | Path):
        holds(f"{name} is text", _is_text(str(value)))
    elif isinstance(value, tuple):
        holds(f"{name} is text", all(_is_text(part) for part in value if isinstance(part, str)))
    elif isinstance(value, dict):
        holds("a Page is an id, its token text", all(is_id(k) and _is_text(v) for k, v in value.items()))


def check_tokens_file(data: bytes) -> None:
    """A file of Page tokens is read, or is unreadable; a token can be sent."""
    with _environment({}):
        path = Path("tokens.json")
        path.write_bytes(data)
        tokens = GivenTokens({}, path)
        for page_id in tokens.page_ids():
            holds("a token is UTF-8", _is_text((tokens.find(page_id) or "").replace("\0", "")))
        with suppress(TokensUnreadable):
            tokens.find("1")


def check_keys(data: bytes) -> None:
    """A key file gives keys or ValueError; a key more and a key less leave the others as they were."""
    text = data.decode("utf-8", "replace")
    try:
        keys = parse_keys(text)
    except ValueError as error:
        holds("a problem holds no key", len(str(error)) < 120 and str(error).isascii())
        return
    more = with_key(text, KEY, "2026-10-01")
    holds("a key more stands first", parse_keys(more) == (KEY, *keys))
    for gone in {key.key_id for key in (*keys, KEY)}:
        left = tuple(key for key in (KEY, *keys) if key.key_id != gone)
        holds("a key less leaves the others", parse_keys(without_keys(more, {gone})) == left)


def check_sealed(data: bytes) -> None:
    """A box is what was sealed for this Page, or locked."""
    ring, whose = KeyRing((OTHER_KEY, KEY)), of_page("1")
    for key_id in (KEY.key_id, OTHER_KEY.key_id, "0" * 12):
        try:
            holds("what opens is what was sealed", ring.open(Sealed(key_id, data), whose) == TOKEN)
        except TokenLocked as error:
            holds("a locked token is told in one line", len(str(error).splitlines()) == 1)


def check_when(data: bytes) -> None:
    """A moment is aware UTC and reads as itself when written out; an end is not before its beginning."""
    name, _, text = data.decode("utf-8", "surrogateescape").partition("\n")
    try:
        zone = zone_of(name)
    except UnknownZone:
        zone = UTC
    try:
        moment = parse_when(text, zone, NOW)
    except UnreadableTime:
        return
    check_time(moment)
    with suppress(UnreadableTime):  # the day after the last there is
        holds("an end is no earlier", parse_when(text, zone, NOW, end=True) >= moment)
    written = moment.isoformat()
    holds("a moment reads as itself", parse_when(written, zone, NOW) == moment)


@contextmanager
def _environment(given: dict[str, str]) -> Iterator[None]:
    """This environment alone, in an empty folder."""
    before, where = dict(os.environ), Path.cwd()
    os.chdir(_folder())
    os.environ.clear()
    os.environ.update(given)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        os.chdir(where)


@cache
def _folder() -> str:
    # In memory where there is such a place: a file is written for each input.
    return tempfile.mkdtemp(
        prefix="leadsync-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    )


def _is_text(text: str) -> bool:
    """UTF-8 without NUL."""
    try:
        return b"\x00" not in text.encode()
    except UnicodeEncodeError:
        return False


_SECRET: Final = frozenset(
    (
        *(
            "META_APP_SECRET",
            "META_VERIFY_TOKEN",
            "META_USER_TOKEN",
            "PAGE_TOKENS",
            "TOKEN_KEYS",
            "DATABASE_URL",
        ),
        *("REDIS_URL", "ALERT_URL", "ALERT_SECRET", "ALERT_COMMAND", "EXPORT_COOKIE", "EXPORT_TOKEN"),
    )
)
_SETTINGS: Final = (
    b"META_APP_ID= META_APP_SECRET= META_VERIFY_TOKEN= PAGE_TOKENS= PAGE_TOKENS_FILE= TOKEN_KEYS= GRAPH_URL=http://"
    b" GRAPH_VERSION=v26.0 GRAPH_TIMEOUT_SECONDS= DATABASE_URL=postgresql:// REDIS_URL=redis:// WORKER_CONCURRENCY="
    b" DRAIN_SECONDS= BUDGET_SHARE= BUDGET_WINDOW_SECONDS= HEALTH_RESUBSCRIBE= ALERT_URL= ALERT_SECRET= ALERT_COMMAND="
    b" REDIS_MEMORY_SHARE= METRICS_PORT= RECEIVER_PORT= RECEIVER_MAX_BODY_BYTES= LOG_STYLE=json RECONCILE_LAG_SECONDS="
    b" nan inf 1e308 -0 hunter2 7= ${ \xff".split()
)

_TIMES: Final = (
    b"UTC Europe/Berlin America/Sao_Paulo yesterday today now 2026-10-01 T14:30:00 +02:00 Z 1790000000 0001-01-01"
    b" 9999-12-31 +23:59 -23:59".split()
)

TARGETS: Final = (
    Target("environment", check_environment, _SETTINGS, share=1),
    # python-dotenv goes over the blanks behind a quote that closes too early again and again; who writes the file harms
    # himself alone.
    Target("dotenv", check_dotenv, _SETTINGS, share=1, is_stretched=False),
    Target("tokens_file", check_tokens_file, (b'{"1": "a"}', b'"\\ud800"', b"\xef\xbb\xbf"), share=2),
    Target("keys", check_keys, (KEY.text.encode(), OTHER_KEY.text.encode(), b"#", b",", b"\x85"), share=8),
    Target("sealed", check_sealed, share=10),
    Target(
        "when",
        check_when,
        (*_TIMES, b" days ago", b" weeks ago", b"2026-10-25 02:30"),
        share=10,
    ),
)
