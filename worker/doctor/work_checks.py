"""Facts about the stream, the workers, the schedule, keys and webhooks without values -> findings. Pure.

It asks nobody. Invariant: a schedule that is silent is told as that, and not once more as every worker that it does not
ring for.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from worker.doctor.facts import RowsFacts, StreamFacts
from worker.doctor.findings import (
    Finding,
    Unknown,
    ago,
    fail,
    none_checked,
    not_checked,
    ok,
    set_webhook,
    span,
    warn,
)
from worker.inbox import QUEUES, SET_ASIDE
from worker.looks import is_ahead

SILENT_SECONDS: Final = 120.0
"""A worker looks at its work every 30 seconds even with nothing to do."""
OLDEST_WARN, OLDEST_FAIL = 120.0, 900.0
RECONCILE_LATE: Final = 3_600.0
SET_ASIDE_SECONDS: Final = 7 * 86_400.0
NAMED: Final = 3
JUST_STARTED: Final = "if it has just been started, look again in half a minute"
"""A process looks at its work for the first time some ten seconds after its start."""

SCHEDULE: Final = "work.schedule"
WORK: Final = (
    "work.stream",
    SCHEDULE,
    *(f"work.worker_{queue}" for queue in QUEUES),
    "work.values",
    "work.set_aside",
)


def of_stream(facts: StreamFacts | Unknown, now: datetime) -> Iterator[Finding]:
    """All about what Redis knows of the work."""
    if isinstance(facts, Unknown):
        yield from none_checked(WORK, f"Redis tells nothing of it: {facts.why}")
        return
    at_ms = now.timestamp() * 1000
    yield _stream(facts, at_ms)
    yield _schedule(facts, at_ms)
    for queue in QUEUES:
        yield _worker(facts, queue, at_ms)
    yield _values(facts, at_ms)
    yield _set_aside(facts, at_ms)


def of_rows(facts: RowsFacts | Unknown, now: datetime) -> Finding:
    """Whether forms are compared with Meta's listing in time."""
    check = "work.reconcile"
    if isinstance(facts, Unknown):
        return not_checked(check, f"Postgres tells nothing of it: {facts.why}")
    due_at = facts.reconcile_due_at
    late = (now - due_at).total_seconds() if due_at else 0.0
    if late > RECONCILE_LATE:
        remedy = "look at work.worker_upkeep, work.worker_backfill and `leadsync backfills --running --all`"
        return warn(check, f"the comparison of some form with Meta's listing is {span(late)} late", remedy)
    return ok(check, "forms are compared with Meta's listing in time")


def of_keys(rows: RowsFacts | Unknown, key_ids: frozenset[str] | Unknown) -> Finding:
    """Whether each sealed token can be opened."""
    check = "settings.keys"
    if isinstance(key_ids, Unknown):
        remedy = "correct TOKEN_KEYS_FILE in .env: a file that leadsync may read, with one key a line"
        return fail(check, key_ids.why, remedy)
    if isinstance(rows, Unknown):
        return not_checked(check, f"Postgres tells nothing of it: {rows.why}")
    lacking = {key_id: counts for key_id, counts in rows.keys_used.items() if key_id not in key_ids}
    sealed = sum(sum(counts) for counts in rows.keys_used.values())
    if not lacking:
        return ok(check, f"the keys open all sealed tokens ({sealed})" if sealed else "no token is sealed")
    named = ", ".join(sorted(lacking)[:NAMED])
    tokens = sum(sum(counts) for counts in lacking.values())
    told = f"{tokens} of {sealed} sealed tokens need key {named}, which is not among TOKEN_KEYS"
    return fail(
        check, told, "put that key back into TOKEN_KEYS (after the first), or `leadsync connect --all` again"
    )


def _stream(facts: StreamFacts, at_ms: float) -> Finding:
    check = "work.stream"
    if facts.oldest_ms is None:
        return ok(check, "no announced lead waits in the stream")
    age = (at_ms - facts.oldest_ms) / 1000
    told = f"{facts.length:,} announced leads in the stream, the oldest came {ago(age)}"
    remedy = "look at work.worker_live and at Postgres above; the worker's log says what stops it"
    if age >= OLDEST_FAIL:
        return fail(check, told, remedy)
    return warn(check, told, remedy) if age >= OLDEST_WARN else ok(check, told)


def _schedule(facts: StreamFacts, at_ms: float) -> Finding:
    if (silent := _silent(facts, "schedule", at_ms)) is None:
        return ok(SCHEDULE, "it rings")
    remedy = (
        f"start it: `leadsync up`, or `docker compose up -d beat`, or `leadsync schedule`; {JUST_STARTED}"
    )
    return fail(SCHEDULE, f"the schedule {silent}", remedy)


def _worker(facts: StreamFacts, queue: str, at_ms: float) -> Finding:
    check = f"work.worker_{queue}"
    if (silent := _silent(facts, queue, at_ms)) is None:
        return ok(check, "it looks at its work")
    if _silent(facts, "schedule", at_ms) is not None:
        return not_checked(check, f"it {silent}, and the schedule that would ring for it is silent")
    compose = f"docker compose up -d worker-{queue}"
    remedy = f"start it: `leadsync up`, or `{compose}`, or `leadsync worker --queue {queue}`; {JUST_STARTED}"
    return fail(check, f"no worker of the queue {queue} works: it {silent}", remedy)


def _silent(facts: StreamFacts, who: str, at_ms: float) -> str | None:
    """What to say of someone who has not looked at its work for too long."""
    looked = facts.progress.get(who)
    if looked is None:
        return "has never looked at its work"
    age = (at_ms - looked) / 1000
    if is_ahead(age):
        return f"last looked at its work {span(-age)} ahead of this clock: some clock is, or was, wrong"
    return f"last looked at its work {ago(age)}" if age > SILENT_SECONDS else None


def _values(facts: StreamFacts, at_ms: float) -> Finding:
    check = "work.values"
    if facts.lacking_values:
        pages = sorted(facts.lacking_values)
        newest = ago((at_ms - max(facts.lacking_values.values())) / 1000)
        told = f"webhooks come without the leads' ids, last {newest}: Page {', '.join(pages[:NAMED])}"
        told += f" and {len(pages) - NAMED} more" if len(pages) > NAMED else ""
        remedy = f"include the values: `{set_webhook()} --again`; the leads themselves come by reconciling"
        return fail(check, told, remedy)
    if not facts.deliveries.get("references"):
        return not_checked(check, "no webhook has announced a lead yet")
    return ok(check, "webhooks come with the leads' ids")


def _set_aside(facts: StreamFacts, at_ms: float) -> Finding:
    check = "work.set_aside"
    if facts.set_aside_ms is None:
        return ok(check, "every signed delivery could be read")
    age = (at_ms - facts.set_aside_ms) / 1000
    told = f"{facts.set_aside:,} signed deliveries could not be read, the last {ago(age)}; they lie in {SET_ASIDE}"
    if age > SET_ASIDE_SECONDS:
        return ok(check, told)
    return warn(
        check, told, "`leadsync reconcile --days 7` brings their leads; then please report the log's reasons"
    )
