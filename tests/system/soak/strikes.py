"""One fault of a plan -> struck, and how it is undone.

    Fault -> Struck(hit, undo);  what must be seen through, however often it fails -> errands.py

What is hit is only what the plan says; it decides nothing. Invariant: `undo` may be called at any time, twice, and
while the thing that it mends is away.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import redis

from tests.system.soak.errands import Errands, Orders
from tests.system.soak.plan import TOKEN_DEATHS, Fault
from tests.system.soak.rig import Rig
from tests.system.whole import APP_SECRET, VERIFY_TOKEN
from worker.graph.wire import appsecret_proof
from worker.settings import environment

BACK_SECONDS = 20.0
"""After it was hit the receiver may be away so long: the supervisor waits up to ten seconds, and it has to start."""
Undo = Callable[[], None]


def nothing() -> None:
    """There is nothing to undo."""


@dataclass(frozen=True, slots=True)
class Struck:
    """Whether somebody was hit, and what ends it."""

    hit: bool
    undo: Undo = nothing


class Striker:
    """Strikes. `luck` chooses among what is there at that moment, such as which child; only `pages` have troubles of
    their own; `latency` is the sandbox's in seconds when nothing slows it."""

    def __init__(self, rig: Rig, luck: random.Random, pages: tuple[str, ...], latency: float) -> None:
        self.rig, self.stack = rig, rig.stack
        self.orders, self.errands = Orders(), Errands()
        self._luck = luck
        self._pages, self._latency = pages, latency
        self._graph_faults = 0
        self.away: list[tuple[float, float]] = []
        """Stretches of unix time in which the receiver cannot answer, since it was hit."""
        self.slowed: list[tuple[float, float]] = []
        """The same in which Redis answers it, but late."""

    def strike(self, fault: Fault) -> Struck:
        """Carry out one fault."""
        if fault.target in ("receiver", "webhook"):
            self._receiver_is_hit(fault.seconds)
        if fault.kind == "delay" and fault.target == "redis":
            self.slowed.append((time.time() - 1, time.time() + fault.seconds + 1))
        return getattr(self, f"_{fault.kind}")(fault)  # type: ignore[no-any-return]

    def _receiver_is_hit(self, seconds: float = 0.0) -> None:
        self.away.append((time.time() - 1, time.time() + seconds + BACK_SECONDS))

    # ---- processes

    def _pid(self, target: str) -> int | None:
        name, _, child = target.partition(" ")
        if not child:
            return self.stack.pid(name)
        children = self.stack.children(name)
        return self._luck.choice(children) if children else None

    def _kill(self, fault: Fault) -> Struck:
        return Struck(self.stack.kill(self._pid(fault.target)))

    def _term(self, fault: Fault) -> Struck:
        return Struck(self.stack.kill(self._pid(fault.target), signal.SIGTERM))

    def _stop(self, fault: Fault) -> Struck:
        return self._stopped(self._pid(fault.target))

    def _stopped(self, pid: int | None) -> Struck:
        hit = self.stack.kill(pid, signal.SIGSTOP)
        return Struck(hit, lambda: (self.stack.kill(pid, signal.SIGCONT), None)[1])

    def _roll(self, fault: Fault) -> Struck:
        release = self.rig.release
        if release is None:
            return Struck(False)
        release.move_on()
        names = [
            name for name in self.stack.supervisor.pids() if name not in ("redis", "postgres", "sandbox")
        ]
        waiting = list(names)

        def next_one() -> bool:
            name = waiting[0]
            pid = self.stack.pid(name)
            cwd = os.readlink(f"/proc/{pid}/cwd") if pid else ""
            if pid and Path(cwd).name == "former":
                if name == "receiver":
                    self._receiver_is_hit()
                self.stack.kill(pid, signal.SIGTERM)
                return False
            if pid:
                waiting.pop(0)
            return not waiting

        self.errands.see_through("rolling restart", next_one)
        return Struck(True)

    # ---- servers

    def _redis_kill(self, fault: Fault) -> Struck:
        return Struck(self.stack.kill(self.stack.pid("redis")))

    def _redis_term(self, fault: Fault) -> Struck:
        return Struck(self.stack.kill(self.stack.pid("redis"), signal.SIGTERM))

    def _redis_stop(self, fault: Fault) -> Struck:
        return self._stopped(self.stack.pid("redis"))

    def _redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self.stack.settings.redis_url, protocol=2, socket_timeout=5, retry=None)

    def _redis_flush(self, fault: Fault) -> Struck:
        with contextlib.suppress(redis.RedisError), self._redis() as client:
            client.flushall()
            return Struck(True)
        return Struck(False)

    def _redis_full(self, fault: Fault) -> Struck:
        """Little more room than is used: above the receiver's own bound, or not even for what draining needs."""
        with contextlib.suppress(redis.RedisError), self._redis() as client:
            former = client.config_get("maxmemory")["maxmemory"]
            share = 1.1 if fault.target == "refusing" else 0.95
            client.config_set("maxmemory", int(client.info("memory")["used_memory"] * share))

            def undo() -> None:
                def give_room() -> bool:
                    with self._redis() as again:
                        return bool(again.config_set("maxmemory", former))

                self.errands.see_through("room in Redis", give_room)

            return Struck(True, undo)
        return Struck(False)

    def _postgres_quit(self, fault: Fault) -> Struck:
        # What `pg_ctl stop -m immediate` sends: no checkpoint, recovery at the next start.
        return Struck(self.stack.kill(self.stack.pid("postgres"), signal.SIGQUIT))

    def _postgres_restart(self, fault: Fault) -> Struck:
        return Struck(self.stack.kill(self.stack.pid("postgres"), signal.SIGINT))

    def _sql(self, *statements: str) -> bool:
        with contextlib.suppress(psycopg.Error), self._postgres() as connection:
            for statement in statements:
                connection.execute(statement.encode())
            return True
        return False

    def _postgres(self) -> "psycopg.Connection":
        return psycopg.connect(self.stack.settings.database_url, autocommit=True, connect_timeout=3)

    def _postgres_terminate(self, fault: Fault) -> Struck:
        ours = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'leadsync'"
        return Struck(self._sql(ours))

    def _postgres_readonly(self, fault: Fault) -> Struck:
        hit = self._sql("alter system set default_transaction_read_only = on", "select pg_reload_conf()")

        def undo() -> None:
            mend = (
                "set default_transaction_read_only = off",
                "alter system reset default_transaction_read_only",
                "select pg_reload_conf()",
            )
            self.errands.see_through("writing to Postgres", lambda: self._sql(*mend))

        return Struck(hit, undo)

    # ---- wires

    def _cut(self, fault: Fault) -> Struck:
        self.rig.proxies[fault.target].cut()
        return Struck(True)

    def _refuse(self, fault: Fault) -> Struck:
        self.rig.proxies[fault.target].refuse(True)
        return Struck(True, lambda: self.rig.proxies[fault.target].refuse(False))

    def _delay(self, fault: Fault) -> Struck:
        self.rig.proxies[fault.target].delay(fault.amount)
        return Struck(True, lambda: self.rig.proxies[fault.target].delay(0))

    def _freeze(self, fault: Fault) -> Struck:
        self.rig.proxies[fault.target].freeze(True)
        return Struck(True, lambda: self.rig.proxies[fault.target].freeze(False))

    def _lose_replies(self, fault: Fault) -> Struck:
        self.rig.proxies[fault.target].lose(max(1, round(fault.amount)))
        return Struck(True)

    # ---- Graph

    def _rule(self, **rule: object) -> Struck:
        """A rule that ends by itself; once the last has, all are taken away."""
        self.stack.post("faults", {"rules": [rule], "merge": True})
        self._graph_faults += 1
        done: list[bool] = []

        def undo() -> None:
            if not done:
                done.append(True)
                self._graph_faults -= 1
                if self._graph_faults == 0:
                    urllib.request.urlopen(
                        urllib.request.Request(f"{self.stack.sandbox_url}/sandbox/faults", method="DELETE"),
                        timeout=30,
                    ).close()

        return Struck(True, undo)

    def _graph(self, fault: Fault) -> Struck:
        more: dict[str, object] = {}
        if fault.target == "huge_body":
            more = {"count": 2}
        elif fault.target in ("timeout", "slow_body"):
            more = {"hold_seconds": 8}
        elif fault.target == "not_visible":
            more = {"for_seconds": fault.seconds}
        return self._rule(**{"class": fault.target}, rate=fault.amount, seconds=fault.seconds, **more)

    def _graph_deadly(self, fault: Fault) -> Struck:
        return self._rule(**{"class": fault.target}, kinds=["lead"], rate=fault.amount, seconds=fault.seconds)

    def _graph_listing(self, fault: Fault) -> Struck:
        return self._rule(**{"class": fault.target}, kinds=["form_leads"], seconds=fault.seconds, count=2)

    def _graph_blocking(self, fault: Fault) -> Struck:
        # A listing that is refused once, while its Page is not parked, waits an hour: people have to grant it.
        return self._rule(
            **{"class": fault.target}, kinds=["lead"], pages=[self._page()], seconds=fault.seconds
        )

    def _graph_throttling(self, fault: Fault) -> Struck:
        return self._rule(
            **{"class": fault.target}, pages=[self._page()], seconds=fault.seconds, count=2, minutes=1
        )

    def _page(self) -> str:
        return self._luck.choice(self._pages)

    def _graph_slow(self, fault: Fault) -> Struck:
        self.stack.post("latency", {"seconds": fault.amount})
        return Struck(True, lambda: (self.stack.post("latency", {"seconds": self._latency}), None)[1])

    # ---- tokens and people

    def _token(self, fault: Fault) -> Struck:
        error = self._luck.choice(TOKEN_DEATHS)
        if fault.target == "page":
            # It is derived anew by itself.
            self.stack.post("tokens", {"revoke": "page", "pages": [self._page()], "error": error})
            return Struck(True)
        self.stack.post("tokens", {"revoke": "user", "error": error})

        def undo() -> None:
            self.stack.post("tokens", {"fresh": "long"})
            self.errands.see_through("a fresh token", lambda: (self.rig.connect(), True)[1])

        return Struck(True, undo)

    def _lead_access(self, fault: Fault) -> Struck:
        self.stack.post("tokens", {"lead_access": fault.target, "pages": [self._page()]})
        return Struck(True, lambda: (self.stack.post("tokens", {"restore": True}), None)[1])

    def _forget(self, fault: Fault) -> Struck:
        """People among those stored last, or that wait, or whose lead nobody has announced yet."""
        number = max(1, round(fault.amount))
        page_id = self._page()
        if fault.target == "unannounced":
            chosen = self.stack.post("leads", {"count": number, "page": page_id})["leads"]
        else:
            chosen = self._some(fault.target, number)
        if not chosen:
            return Struck(False)
        self.orders.tried.update(chosen)

        def order() -> bool:
            page = ("--page", page_id) if fault.target == "unannounced" else ()
            if not self._command("forget", *chosen, *page, "--json"):
                return False
            self.orders.done.update(chosen)
            if fault.target == "unannounced":
                self.stack.send(leads=chosen)
            return True

        self.errands.see_through(f"forgetting {len(chosen)}", order)
        return Struck(True)

    def _some(self, state: str, number: int) -> list[str]:
        query = "select leadgen_id from leadgen where state = %s order by first_seen_at desc limit 50"
        with contextlib.suppress(psycopg.Error), self._postgres() as connection:
            ids = [str(row[0]) for row in connection.execute(query, (state,)).fetchall()]
            return self._luck.sample(ids, min(number, len(ids)))
        return []

    def _command(self, *words: str) -> bool:
        settings = self.stack.settings
        env = {
            **environment(),
            **self.stack.env,
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": settings.redis_url,
            "META_APP_SECRET": APP_SECRET,
            "META_VERIFY_TOKEN": VERIFY_TOKEN,
            "GRAPH_URL": self.stack.sandbox_url,
        }
        words = (sys.executable, "-m", "worker", *words)
        return subprocess.run(words, env=env, capture_output=True, check=False, timeout=60).returncode == 0

    def _delete(self, fault: Fault) -> Struck:
        """Leads are announced and taken away at Meta before or after they were read."""
        page_id = self._page()
        chosen = self.stack.post("leads", {"count": max(1, round(fault.amount)), "page": page_id})["leads"]
        self.orders.deleted.update(chosen)
        self.stack.send(leads=chosen)

        def take_away() -> bool:
            token = self.stack.get("tokens").get(page_id)
            if not token:
                return False
            for leadgen_id in chosen:
                query = urllib.parse.urlencode({"appsecret_proof": appsecret_proof(APP_SECRET, token)})
                request = urllib.request.Request(
                    f"{self.stack.sandbox_url}/v26.0/{leadgen_id}?{query}",
                    headers={"Authorization": f"Bearer {token}"},
                    method="DELETE",
                )
                urllib.request.urlopen(request, timeout=20).close()
            return True

        self.errands.see_through(f"deleting {len(chosen)} at Meta", take_away)
        return Struck(True)

    # ---- the clock

    def _clock(self, fault: Fault) -> Struck:
        clock = self.rig.clock
        if clock is None:
            return Struck(False)
        clock.jump(fault.amount if fault.target == "ahead" else -fault.amount)
        return Struck(True, lambda: clock.jump(0))
