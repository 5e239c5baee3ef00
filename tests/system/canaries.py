"""A running stack -> where a token, a secret or an answer of a person lies that ought not to lie there.

    log, Redis and all that was ever written to it, processes' arguments and environment, every table -> places

Tokens and answers of the sandbox are made so that they are known wherever they turn up: TOKEN and ANSWER below, which
tests/unit/test_canaries.py holds to what the sandbox makes. It changes nothing. Invariant: it names the place and never
shows what it found; servers that a test has ended are passed over.
"""

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import psycopg
import redis
from psycopg import sql

_AT = rb"(?:@|%40|\\u0040)"
TOKEN: Final = re.compile(
    rb"EAA[A-Z][0-9a-f]{40}"  # as it is, in bytes of any kind
    rb"|454141(?:4[1-9a-f]|5[0-9a])(?:3[0-9]|6[1-6]){40}"  # as Postgres shows such bytes
)
"""A token of the sandbox, whoever it is for."""
ANSWER: Final = re.compile(
    rb"(?i:lead\.?[0-9]+(?:\+ads|%2Bads)?" + _AT + rb"example\.(?:com|org))"
    rb"|(?i:[0-9]" + _AT + rb"b.{1,8}cher\.example)"
    rb"|(?:\+|%2B)4915[0-9]{8}"
    rb"|0151 [0-9]{7}"
)
"""An e-mail address or telephone number of the sandbox's people; nearly every lead has one."""

ANSWERS_LIE_IN: Final = frozenset({"leadgen"})
"""Tables that hold answers; all others hold none."""
ROWS_LOOKED_AT: Final = 2_000
"""Of the table with the leads, which may be long; of the others, all."""
LONGEST: Final = 500
"""Elements of one key of Redis that are looked at."""


def look(
    *,
    log: Path,
    redis_url: str,
    redis_folder: Path,
    database_url: str,
    pids: Iterable[int],
    secrets: Collection[str] = (),
    given: Collection[str] = (),
) -> list[str]:
    """The places where something lies that ought not to; empty where all is well.

    `secrets` may be in processes' arguments and environment and nowhere else; `given` are variables that the test
    itself set.
    """
    kept = re.compile(b"|".join(re.escape(secret.encode()) for secret in secrets) or b"(?!)")
    found = [f"log: {line}" for line in _log(log, kept)]
    found += [f"Redis: {place}" for place in (*_redis(redis_url, kept), *_redis_files(redis_folder, kept))]
    found += [f"Postgres: {place}" for place in _postgres(database_url, kept)]
    found += [f"process: {place}" for place in _processes(pids, given)]
    return found


def _kinds(text: bytes, *patterns: tuple[str, "re.Pattern[bytes]"]) -> Iterator[str]:
    for kind, pattern in patterns:
        if pattern.search(text):
            yield kind


def _all(kept: "re.Pattern[bytes]") -> tuple[tuple[str, "re.Pattern[bytes]"], ...]:
    return ("a token", TOKEN), ("an answer", ANSWER), ("a secret", kept)


def _log(log: Path, kept: "re.Pattern[bytes]") -> Iterator[str]:
    text = log.read_bytes()
    for kind, pattern in _all(kept):
        if match := pattern.search(text):
            line = text.count(b"\n", 0, match.start()) + 1
            yield f"{kind} in line {line}"


def _redis(url: str, kept: "re.Pattern[bytes]") -> Iterator[str]:
    with (
        contextlib.suppress(redis.RedisError),
        redis.Redis.from_url(url, socket_timeout=5, retry=None) as client,
    ):
        keys = list(client.scan_iter(count=1_000))
        with client.pipeline(transaction=False) as types:
            for key in keys:
                types.type(key)
            kinds = types.execute()
        with client.pipeline(transaction=False) as values:
            for key, kind in zip(keys, kinds, strict=True):
                _ask(values, key, kind.decode())
            contents = values.execute(raise_on_error=False)
        for key, content in zip(keys, contents, strict=True):
            for kind in _kinds(key + repr(content).encode() + b"".join(_bytes(content)), *_all(kept)):
                yield f"{kind} in key {_shown(key)}"


def _ask(pipeline: "redis.client.Pipeline", key: bytes, kind: str) -> None:  # type: ignore[type-arg]
    match kind:
        case "hash":
            pipeline.hgetall(key)  # type: ignore[arg-type]
        case "list":
            pipeline.lrange(key, -LONGEST, -1)  # type: ignore[arg-type]
        case "set":
            pipeline.srandmember(key, LONGEST)  # type: ignore[arg-type]
        case "zset":
            pipeline.zrange(key, -LONGEST, -1)
        case "stream":
            pipeline.xrevrange(key, count=LONGEST)
        case _:
            pipeline.get(key)


def _bytes(content: object) -> Iterator[bytes]:
    """Every byte string of an answer, as it is: its repr would escape what is not ASCII."""
    if isinstance(content, bytes):
        yield content + b"\n"
    elif isinstance(content, Mapping):
        for pair in content.items():
            yield from _bytes(pair)
    elif isinstance(content, list | tuple | set):
        for each in content:
            yield from _bytes(each)


def _redis_files(folder: Path, kept: "re.Pattern[bytes]") -> Iterator[str]:
    """The append-only file holds what was there for a moment only, such as a task that has run."""
    for path in sorted(folder.rglob("*.aof")):
        with contextlib.suppress(OSError):
            for kind in _kinds(path.read_bytes(), *_all(kept)):
                yield f"{kind} in {path.name}"


def _postgres(url: str, kept: "re.Pattern[bytes]") -> Iterator[str]:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=3) as connection:
        tables = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
        for (table,) in tables:
            limit = ROWS_LOOKED_AT if table in ANSWERS_LIE_IN else None
            query = sql.SQL("copy (select * from {} limit {}) to stdout").format(
                sql.Identifier(table), sql.Literal(limit)
            )
            with connection.cursor() as cursor, cursor.copy(query) as copy:
                text = b"".join(bytes(part) for part in copy)
            patterns = _all(kept)
            for kind in _kinds(
                text, *(p for p in patterns if table not in ANSWERS_LIE_IN or p[0] != "an answer")
            ):
                yield f"{kind} in table {table}"


def _processes(pids: Iterable[int], given: Collection[str]) -> Iterator[str]:
    for pid in _descendants(pids):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            named = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            seen = [word for word in named if word.partition(b"=")[0].decode(errors="replace") not in given]
            name = _shown(b" ".join(words[:3]))
            for place, text in (("arguments", words), ("environment", seen)):
                for kind in _kinds(b"\n".join(text), ("a token", TOKEN), ("an answer", ANSWER)):
                    yield f"{kind} in the {place} of {name}"


def _shown(name: bytes) -> str:
    """A name that may itself hold what nobody may see."""
    return ANSWER.sub(b"...", TOKEN.sub(b"...", name))[:60].decode("ascii", "replace")


def _descendants(pids: Iterable[int]) -> Iterator[int]:
    for pid in pids:
        yield pid
        with contextlib.suppress(OSError):
            yield from _descendants(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
