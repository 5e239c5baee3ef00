"""Facts about Postgres and Redis -> findings. Pure.

It asks nobody. Invariant: each check gives exactly one finding whatever is known.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from worker.doctor.facts import PostgresFacts, RedisFacts
from worker.doctor.findings import Finding, Unknown, Verdict, fail, none_checked, not_checked, ok, size, warn

OLDEST_POSTGRES: Final = 14
OLDEST_REDIS: Final = (6, 2)
SPACE_WARN, SPACE_FAIL = 2 * 2**30, 2**28
CONNECTIONS_WARN: Final = 10
"""A worker process takes up to four."""
MEMORY_WARN, MEMORY_FAIL = 0.6, 0.8
"""At the latter the receiver answers 503 (REDIS_MEMORY_SHARE)."""

POSTGRES: Final = tuple(
    f"postgres.{each}" for each in ("schema", "privileges", "space", "connections", "fsync")
)
REDIS: Final = tuple(f"redis.{each}" for each in ("persistence", "fsync", "writing", "eviction", "memory"))


def of_postgres(facts: PostgresFacts | Unknown, *, is_set: bool) -> Iterator[Finding]:
    """All about the database. `is_set`: it is known where it is."""
    if isinstance(facts, Unknown):
        yield _away("postgres.reachable", "Postgres", "DATABASE_URL", facts.why, is_set=is_set)
        yield from none_checked(POSTGRES, "Postgres was not reached")
        return
    yield _postgres_version(facts)
    yield _schema(facts)
    yield _privileges(facts)
    yield _space(facts)
    yield _connections(facts)
    yield _commits(facts)


def of_redis(facts: RedisFacts | Unknown, *, is_set: bool) -> Iterator[Finding]:
    """All about the Redis server."""
    if isinstance(facts, Unknown):
        yield _away("redis.reachable", "Redis", "REDIS_URL", facts.why, is_set=is_set)
        yield from none_checked(REDIS, "Redis was not reached")
        return
    yield _redis_version(facts)
    yield _persistence(facts)
    yield _fsync(facts)
    yield _writing(facts)
    yield _eviction(facts)
    yield _memory(facts)


def why_full(findings: Sequence[Finding]) -> str | None:
    """The check, of these about Redis, for which the receiver takes nothing."""
    refusing = ("redis.reachable", "redis.writing", "redis.memory")
    return next(
        (each.check for each in findings if each.verdict is Verdict.FAIL and each.check in refusing), None
    )


def _away(check: str, server: str, setting: str, why: str, *, is_set: bool) -> Finding:
    if not is_set:
        return not_checked(check, f"{setting} is not set")
    remedy = f"start {server} (`leadsync up`, or `docker compose up -d {server.lower()}`), or correct {setting} in .env"
    return fail(check, f"{server} cannot be asked: {why}", remedy)


def _postgres_version(facts: PostgresFacts) -> Finding:
    check, version = "postgres.reachable", f"Postgres {facts.version // 10_000}.{facts.version % 10_000}"
    if facts.version < OLDEST_POSTGRES * 10_000:
        return fail(
            check,
            f"{version} is too old",
            f"move to Postgres {OLDEST_POSTGRES} or newer (pg_upgrade, or a dump)",
        )
    if facts.is_read_only:
        return fail(
            check,
            f"{version} takes no writes (a standby, or read-only)",
            "set DATABASE_URL to the primary server",
        )
    return ok(check, f"{version} answers and takes writes")


def _schema(facts: PostgresFacts) -> Finding:
    check = "postgres.schema"
    if isinstance(facts.revision, Unknown):
        return not_checked(check, facts.revision.why)
    if facts.revision == facts.head:
        return ok(check, f"revision {facts.head}, this version's")
    if facts.revision is not None and facts.revision > facts.head:
        told = f"revision {facts.revision} is newer than this leadsync knows ({facts.head})"
        remedy = "finish the upgrade: install the newer leadsync that wrote it, here and wherever it runs"
        return warn(check, told, remedy)
    told = f"revision {facts.revision or 'none'}, and this leadsync needs {facts.head}"
    return fail(check, told, "`leadsync migrate`")


def _privileges(facts: PostgresFacts) -> Finding:
    check = "postgres.privileges"
    remedy = "make the role of DATABASE_URL the owner: psql: `alter database NAME owner to ROLE` and `reassign owned`"
    if facts.lacking:
        return fail(check, f"the role may not read and write {', '.join(facts.lacking)}", remedy)
    if not facts.may_create:
        return fail(
            check, "the role may not create tables and views, as migrations and forms' views do", remedy
        )
    return ok(check, "the role may read, write and create")


def _space(facts: PostgresFacts) -> Finding:
    check = "postgres.space"
    if isinstance(facts.free, Unknown):
        return not_checked(check, f"{facts.free.why}; the database takes {size(facts.size)}")
    told = f"{size(facts.free)} are free, the database takes {size(facts.size)}"
    remedy = "make room on the disk of Postgres, or move it to a larger one"
    if facts.free < SPACE_FAIL:
        return fail(check, told, remedy)
    return warn(check, told, remedy) if facts.free < SPACE_WARN else ok(check, told)


def _connections(facts: PostgresFacts) -> Finding:
    check = "postgres.connections"
    told = f"{max(0, facts.connections_left)} of {facts.connections_most} are left"
    remedy = "raise max_connections in postgresql.conf, run fewer workers, or put pgbouncer (session mode) before it"
    if facts.connections_left <= 0:
        return fail(check, told, remedy)
    return warn(check, told, remedy) if facts.connections_left < CONNECTIONS_WARN else ok(check, told)


def _commits(facts: PostgresFacts) -> Finding:
    check = "postgres.fsync"
    off = [
        name for name, is_on in (("fsync", facts.fsync), ("full_page_writes", facts.whole_pages)) if not is_on
    ]
    if not off:
        return ok(check, "what is committed is on disk")
    told = f"{' and '.join(off)} is off: a crash of the machine may lose rows that are acknowledged, or all of them"
    return fail(
        check, told, f"psql: {'; '.join(f'`alter system set {name} = on`' for name in off)}, then reload"
    )


def _redis_version(facts: RedisFacts) -> Finding:
    check = "redis.reachable"
    parts = facts.version.split(".")
    if tuple(int(part) for part in parts[:2] if part.isdigit()) < OLDEST_REDIS:
        return fail(check, f"Redis {facts.version} is too old", "move to Redis 6.2 or newer")
    if facts.is_replica:
        return fail(
            check, f"Redis {facts.version} is a replica and takes no writes", "set REDIS_URL to the primary"
        )
    if facts.is_loading:
        return fail(
            check, f"Redis {facts.version} is still loading its data", "wait, then `leadsync doctor` again"
        )
    return ok(check, f"Redis {facts.version} answers")


def _persistence(facts: RedisFacts) -> Finding:
    if facts.appends:
        return ok("redis.persistence", "it keeps an append-only file")
    told = "it keeps no append-only file: a restart loses announced leads until they are reconciled"
    return fail("redis.persistence", told, _set_redis("appendonly", "yes"))


def _fsync(facts: RedisFacts) -> Finding:
    check = "redis.fsync"
    if not facts.appends:
        return not_checked(check, "there is no append-only file to sync")
    if facts.fsync is None:
        return not_checked(check, "this Redis does not tell (CONFIG GET is refused); it should be `always`")
    if facts.fsync == "always":
        return ok(check, "a write is on disk before it is answered")
    told = f"appendfsync is {facts.fsync}: a crash loses up to seconds of what was answered with 200"
    return fail(check, told, _set_redis("appendfsync", "always"))


def _writing(facts: RedisFacts) -> Finding:
    check = "redis.writing"
    if not facts.append_ok:
        remedy = "make room on the disk of Redis; its log says what failed"
        return fail(check, "its last write to the append-only file failed, so deliveries get 503", remedy)
    if not facts.rewrite_ok:
        remedy = "make room on the disk of Redis; redis-cli: `BGREWRITEAOF`"
        return warn(check, "its last rewrite of the append-only file failed", remedy)
    return ok(check, "its last writes to disk succeeded")


def _eviction(facts: RedisFacts) -> Finding:
    if facts.eviction == "noeviction":
        return ok("redis.eviction", "maxmemory-policy is noeviction")
    told = f"maxmemory-policy is {facts.eviction}: a full Redis throws announced leads away"
    return fail("redis.eviction", told, _set_redis("maxmemory-policy", "noeviction"))


def _memory(facts: RedisFacts) -> Finding:
    check = "redis.memory"
    if not facts.max_memory:
        told = f"{size(facts.used_memory)} used, and no maxmemory: the machine's memory is the limit"
        return warn(check, told, _set_redis("maxmemory", "512mb"))
    share = facts.used_memory / facts.max_memory
    told = f"{size(facts.used_memory)} of {size(facts.max_memory)} used ({share:.0%})"
    remedy = f"let workers drain the stream (see work.stream), or {_set_redis('maxmemory', '1gb')}"
    if share >= MEMORY_FAIL:
        return fail(check, f"{told}: the receiver answers 503", remedy)
    return warn(check, told, remedy) if share >= MEMORY_WARN else ok(check, told)


def _set_redis(name: str, value: str) -> str:
    return f"redis-cli: `CONFIG SET {name} {value}`, and write it into redis.conf"
