"""Redis and Postgres for a machine that has neither.

    data directory -> lock -> binary -> leftover ended -> configuration or cluster -> ServerProcess

`prepare_redis` and `prepare_postgres` leave the data directory ready and say what is to be run, as whom and
under which URL. Nothing is started or watched here: that is worker/supervisor.py, or a test. Both servers
answer on this machine alone, Redis behind a password and Postgres on a socket in a folder of its own account.

Invariant: one owner a data directory. A ServerProcess holds the directory's lock until `release` or the end
of this process, so a server that still runs there when the lock was free is a leftover, and is ended first.

Where this is weak: it is made for one machine, without replicas and without backups. Started by root,
Postgres runs as the account `postgres`, or as `nobody` where there is none; that account's other programs
can read it.
"""

from worker.embedded.postgres_server import find_postgres, prepare_postgres
from worker.embedded.redis_server import REDIS_MAXMEMORY, find_redis, prepare_redis
from worker.embedded.server import (
    Account,
    DataInUse,
    NotReady,
    ServerMissing,
    ServerProcess,
    wait_ready,
)

__all__ = [
    "REDIS_MAXMEMORY",
    "Account",
    "DataInUse",
    "NotReady",
    "ServerMissing",
    "ServerProcess",
    "find_postgres",
    "find_redis",
    "prepare_postgres",
    "prepare_redis",
    "wait_ready",
]
