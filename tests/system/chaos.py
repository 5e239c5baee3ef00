"""Leads under fire: a seeded plan of kills, restarts and Graph errors -> nothing lost, doubled or wrongly dead.

    python -m tests.system.chaos --leads 100000 --kills 60 --seed 1

Real processes on this machine; the plan, not its moments, is the same for the same seed. Exit status 0 only if every
lead that the sandbox made is exactly one stored row, equal field by field.
"""

import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import psycopg
import redis

from tests.system.whole import Whole, whole
from worker.inbox import GROUP, STREAM

TARGETS = ("receiver", "worker", "worker child", "upkeep", "upkeep child", "schedule")
SETTLE_SECONDS = 240.0
FREEZE_SECONDS = 25.0
ZOMBIE_SECONDS = 6.0
"""What a thawed process does, it has done after this."""
QUICK = {"CLAIM_AFTER_SECONDS": "8", "LEASE_SECONDS": "10", "GRAPH_TIMEOUT_SECONDS": "5"}
"""Claims and calls that end sooner, so that a freeze outlasts them."""
GRAPH_FAULTS = ("5xx", "html_5xx", "truncated", "reset", "null_items", "ok_with_error", "not_json")


@dataclass(frozen=True, slots=True)
class Plan:
    """How many leads, and what befalls the processes while they come."""

    leads: int = 2_000
    kills: int = 8
    redis_restarts: int = 1
    postgres_restarts: int = 1
    freezes: int = 1
    error_rate: float = 0.05
    latency: float = 0.2
    rate: float = 400.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """What the run came to."""

    leads: int
    states: dict[str, int]
    differing: dict[str, tuple[str, ...]]
    moved_back: int
    faults: dict[str, int]
    calls: int
    seconds: float
    settled_after: float

    @property
    def good(self) -> bool:
        """Every lead exactly one stored row that was never anything else again, and nothing besides."""
        return self.states == {"stored": self.leads} and not self.differing and not self.moved_back


def faults_of(plan: Plan) -> list[str]:
    """What is hit, in order."""
    luck = random.Random(plan.seed)
    hits = [luck.choice(TARGETS) for _ in range(plan.kills)]
    hits += (
        ["redis"] * plan.redis_restarts + ["postgres"] * plan.postgres_restarts + ["freeze"] * plan.freezes
    )
    luck.shuffle(hits)
    return hits


def run(plan: Plan, tell: Callable[[str], None] = lambda _line: None) -> Finding:
    """Carry the plan out."""
    luck = random.Random(plan.seed + 1)
    done: Counter[str] = Counter()
    thaws: list[threading.Timer] = []
    sandbox = {"latency_seconds": plan.latency, "pages": 5, "seed": plan.seed, "redelivery_span_seconds": 300}
    with whole(sandbox=sandbox, env=QUICK) as stack:
        watch_states(stack)
        began = time.monotonic()
        rules = [{"class": name, "rate": plan.error_rate / len(GRAPH_FAULTS)} for name in GRAPH_FAULTS]
        if plan.error_rate:
            stack.post("faults", {"rules": rules})
        stack.send(
            count=plan.leads,
            batch=40,
            vary_batch=True,
            duplicates=0.2,
            reorder=True,
            rate=plan.rate,
            sample_pings=5,
        )
        hits = faults_of(plan)
        pause = plan.leads * 1.2 / plan.rate / (len(hits) + 1)
        for hit in hits:
            time.sleep(pause * luck.uniform(0.5, 1.5))
            done[hit] += strike(stack, hit, luck, thaws)
            tell(f"{time.monotonic() - began:6.1f} s  {hit:<13} {progress(stack)}")
        stack.wait_for(lambda: not stack.get("send")["running"], plan.leads * 2.4 / plan.rate + 60)
        sent_at = time.monotonic()
        stack.wait_for(lambda: stack.all_stored(plan.leads), SETTLE_SECONDS)
        settled_after = time.monotonic() - sent_at
        for thaw in thaws:
            thaw.join()
        if thaws:
            time.sleep(ZOMBIE_SECONDS)
            stack.wait_for(lambda: stack.all_stored(plan.leads), SETTLE_SECONDS)
        finding = Finding(
            leads=len(stack.truth()),
            states=stack.states(),
            differing=stack.differing(),
            moved_back=moves_back(stack),
            faults=dict(done),
            calls=stack.get("calls")["calls"],
            seconds=time.monotonic() - began,
            settled_after=settled_after,
        )
        if not finding.good:
            (path := stack.folder.parent / f"chaos-{plan.seed}.log").write_text(stack.log())
            tell(f"the log of all processes is in {path}")
    return finding


def strike(stack: Whole, hit: str, luck: random.Random, thaws: list[threading.Timer]) -> int:
    """One fault; 1 where somebody was hit."""
    if hit.endswith(" child"):
        children = stack.children(hit.removesuffix(" child"))
        return int(bool(children) and stack.kill(luck.choice(children)))
    if hit == "freeze":
        return freeze(stack, thaws)
    if hit == "postgres":
        # What `pg_ctl stop -m immediate` sends: no checkpoint, recovery at the next start.
        return int(stack.kill(stack.pid("postgres"), signal.SIGQUIT))
    return int(stack.kill(stack.pid(hit)))


def freeze(stack: Whole, thaws: list[threading.Timer]) -> int:
    """Stop the child that holds most for longer than its claims and calls last, then let it go on as a zombie."""
    held = {int(pid): pending for pid in stack.children("worker") if (pending := pending_of(stack, pid))}
    if not held:
        return 0
    pid = max(held, key=lambda each: held[each])
    stack.kill(pid, signal.SIGSTOP)
    thaw = threading.Timer(FREEZE_SECONDS, stack.kill, (pid, signal.SIGCONT))
    thaw.daemon = True
    thaw.start()
    thaws.append(thaw)
    return 1


def pending_of(stack: Whole, pid: int) -> int:
    """How many references this process has taken and not settled."""
    with redis.Redis.from_url(stack.settings.redis_url, protocol=2) as client:
        try:
            consumers: list[dict[str, Any]] = client.xinfo_consumers(STREAM, GROUP)  # type: ignore[assignment]
        except redis.RedisError:
            return 0
    return sum(each["pending"] for each in consumers if f"-{pid}-" in each["name"].decode())


def watch_states(stack: Whole) -> None:
    """Let Postgres itself note every row that stops being stored."""
    with psycopg.connect(stack.settings.database_url, autocommit=True) as connection:
        connection.execute("create table moved_back (leadgen_id text)")
        connection.execute(
            "create function note_move() returns trigger language plpgsql as"
            " $$ begin insert into moved_back values (old.leadgen_id); return null; end $$"
        )
        connection.execute(
            "create trigger note_move after update on leadgen for each row"
            " when (old.state = 'stored' and new.state <> 'stored') execute function note_move()"
        )


def moves_back(stack: Whole) -> int:
    """How many rows stopped being stored."""
    with psycopg.connect(stack.settings.database_url) as connection:
        row = connection.execute("select count(*) from moved_back").fetchone()
        return int(row[0]) if row else 0


def progress(stack: Whole) -> str:
    """A line on how far it is."""
    try:
        told: Any = stack.get("send")
        return f"created {told['created']:,}, {stack.states()}"
    except Exception as error:
        return f"({type(error).__name__}: a server is down)"


@click.command()
@click.option("--leads", default=2_000, show_default=True)
@click.option(
    "--kills", default=8, show_default=True, help="kill -9 of receiver, workers, their children, schedule."
)
@click.option("--redis-restarts", default=1, show_default=True)
@click.option("--postgres-restarts", default=1, show_default=True)
@click.option(
    "--freezes", default=1, show_default=True, help="SIGSTOP of a worker's child for longer than its claims."
)
@click.option("--error-rate", default=0.05, show_default=True, help="Share of Graph calls that fail.")
@click.option("--latency", default=0.2, show_default=True, help="Graph's, in seconds.")
@click.option("--rate", default=400.0, show_default=True, help="Announcements a second.")
@click.option("--seed", default=1, show_default=True)
def main(**options: Any) -> None:
    """Send leads while processes are killed, and compare what landed with what Graph holds."""
    finding = run(Plan(**options), click.echo)
    click.echo(f"{finding.leads:,} leads, states {finding.states}")
    click.echo(
        f"{len(finding.differing):,} missing or different, {finding.moved_back:,} moved back from stored"
    )
    click.echo(f"hit: {finding.faults}; {finding.calls:,} Graph calls; {finding.seconds:.0f} s in all,")
    click.echo(f"settled {finding.settled_after:.0f} s after the last announcement")
    for leadgen_id, fields in list(finding.differing.items())[:10]:
        click.echo(f"  {leadgen_id}: {', '.join(fields)}")
    click.echo("1 passed, 0 failed" if finding.good else "0 passed, 1 failed")
    sys.exit(0 if finding.good else 1)


if __name__ == "__main__":
    main()
