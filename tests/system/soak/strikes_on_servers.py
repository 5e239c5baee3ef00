"""Faults of Redis and Postgres, and of the wires to all neighbours -> struck, and how each is undone."""

import contextlib
import signal

import psycopg
import redis

from tests.system.soak.hand import Hand, Struck
from tests.system.soak.plan import Fault


class ServerStrikes(Hand):
    """Kills, empties, fills and cuts off."""

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
