"""The limit of worker_efficiency.py: the least that reads these leads from Graph and writes them to Postgres.

    ids, given at once -> batches of 50 of one Page, as many side by side as leadsync has -> one COPY a batch

    python -m benchmarks.bare_reader 8002

One asyncio process, aiohttp and psycopg, the same batch requests as leadsync's, no index on its table. Nothing is
queued, so nothing is promised: no limits, no retries, no look at what is stored, no states, no second process.

A job is one line of JSON on a connection, `[[leadgen_id, page_id], ...]`; one byte comes back once all is committed.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
from psycopg_pool import AsyncConnectionPool

from benchmarks.backfill_peers import COLUMNS, CONNECTIONS, TIMEOUT_SECONDS, copy_row
from benchmarks.report import ROOT
from worker.graph.wire import BATCH_LIMIT, FULL_FIELDS, appsecret_proof, lead_request
from worker.supervisor import WORKERS, ProcessSpec

TABLE: Final = "bare_reads"
CREATE: Final = f"drop table if exists {TABLE}; create table {TABLE} ({COLUMNS.format(key='')})"
CALLS_PER_PAGE: Final = 8
"""As many as leadsync has in flight; see worker.sync.Limits."""
LINE_LIMIT: Final = 64 * 1024 * 1024


class Reader:
    """Reads and writes; used for many jobs."""

    def __init__(self, session: aiohttp.ClientSession, pool: AsyncConnectionPool) -> None:
        self._session, self._pool = session, pool
        self._tokens: dict[str, str] = json.loads(Path(os.environ["PAGE_TOKENS_FILE"]).read_text())

    async def run(self, job: Sequence[tuple[str, str]]) -> None:
        """Read and store all of these."""
        async with asyncio.TaskGroup() as group:
            for page_id in {page_id for _, page_id in job}:
                batches = _batches([leadgen_id for leadgen_id, of in job if of == page_id])
                for _ in range(CALLS_PER_PAGE):
                    group.create_task(self._read_on(page_id, batches))

    async def _read_on(self, page_id: str, batches: Iterator[list[str]]) -> None:
        for ids in batches:
            await self._store(await self._read(page_id, ids))

    async def _read(self, page_id: str, ids: Sequence[str]) -> list[Mapping[str, Any]]:
        token = self._tokens[page_id]
        proof = appsecret_proof(os.environ["META_APP_SECRET"], token)
        asked = lead_request(ids, FULL_FIELDS, version=os.environ["GRAPH_VERSION"], token=token, proof=proof)
        headers = {"Authorization": f"Bearer {token}"}
        async with self._session.request(
            asked.method, asked.path, params=asked.query, data=asked.form or None, headers=headers
        ) as response:
            response.raise_for_status()
            body = json.loads(await response.read())
        return [body] if len(ids) == 1 else [json.loads(item["body"]) for item in body]

    async def _store(self, leads: Sequence[Mapping[str, Any]]) -> None:
        rows = [copy_row(lead) for lead in leads]
        async with (
            self._pool.connection() as connection,
            connection.cursor() as cursor,
            cursor.copy(f"copy {TABLE} from stdin".encode()) as copy,
        ):
            for row in rows:
                await copy.write_row(row)


def _batches(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), BATCH_LIMIT):
        yield list(ids[start : start + BATCH_LIMIT])


def process(env: Mapping[str, str], port: int) -> ProcessSpec:
    """The bare reader as a process to run."""
    return ProcessSpec(
        "bare",
        (sys.executable, "-m", "benchmarks.bare_reader", str(port)),
        env=dict(env),
        cwd=str(ROOT),
        order=WORKERS,
        restart=False,
        is_ready=lambda: _listens(port),
    )


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


async def serve(port: int) -> None:
    """Take jobs until SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with AsyncExitStack() as held:
        session = await held.enter_async_context(
            aiohttp.ClientSession(
                base_url=os.environ["GRAPH_URL"],
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            )
        )
        url = os.environ["DATABASE_URL"]
        pool = await held.enter_async_context(
            AsyncConnectionPool(url, min_size=CONNECTIONS, max_size=CONNECTIONS, open=False)
        )
        async with pool.connection() as connection:
            await connection.execute(CREATE.encode())
        reader = Reader(session, pool)

        async def take(line: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
            job = await line.readline()
            if job:
                await reader.run([(leadgen_id, page_id) for leadgen_id, page_id in json.loads(job)])
                answer.write(b"1")
            answer.close()

        await held.enter_async_context(await asyncio.start_server(take, "127.0.0.1", port, limit=LINE_LIMIT))
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
