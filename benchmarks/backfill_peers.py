"""The peers of backfill_speed.py: what a user does without leadsync, and the least that anybody can do.

    sdk:   for each form, the official SDK's `get_leads` to its end -> one COPY a form
    bare:  slices side by side, aiohttp -> json.loads -> one COPY a result page
    dlt:   dlt_peer.py, in an environment of its own that `make peers` makes

Each is one process that is told its job on standard input, says that it is ready, waits for a line, works, tells what
it did as one line of JSON, and stays until its input is closed, so that its CPU can be read meanwhile.

    the SDK is used as its own examples show it: one form after the other, all fields, its cursor left alone.
    `bare` holds up nothing but the reading: no limits, no retries, no look at what is stored, no checkpoint, no index.

What they do not do, and leadsync does: count calls against Meta's limit, go on where they were killed, tell a wait
from an end, leave alone what is stored already. `bare` and dlt follow `next` as leadsync does; the SDK's cursor ends at
an empty result page.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import psycopg
from psycopg_pool import AsyncConnectionPool

from benchmarks.report import ROOT
from worker.errors import LeadSyncError
from worker.graph.wire import FULL_FIELDS, appsecret_proof

TEXTS: Final = (
    "id", "form_id", "created_time", "ad_id", "ad_name", "adset_id", "adset_name", "campaign_id", "campaign_name",
    "is_organic", "platform", "partner_name", "retailer_item_id",
)  # fmt: skip
JSONS: Final = ("field_data", "custom_disclaimer_responses")
COLUMNS: Final = """leadgen_id text {key}, form_id text, created_time timestamptz, ad_id text, ad_name text,
    adset_id text, adset_name text, campaign_id text, campaign_name text, is_organic boolean, platform text,
    partner_name text, retailer_item_id text, field_data jsonb, custom_disclaimer_responses jsonb, extra jsonb"""
TABLES: Final = {"sdk": "sdk_leads", "bare": "bare_leads"}
IDS: Final = {
    **{kind: f"select leadgen_id from {table}" for kind, table in TABLES.items()},
    "dlt": "select id from dlt_leads.leads",
}
"""Which leads a peer stored."""
DROPS: Final = {
    **{kind: f"drop table {table}" for kind, table in TABLES.items()},
    # With the tables in which dlt remembers which tables it made.
    "dlt": "drop schema dlt_leads cascade",
}
DLT_FOLDER: Final = Path(f"{sys.prefix}-peers")
"""Where `make peers` installs, beside the environment of whoever asks."""
KEYS: Final = {"sdk": "primary key", "bare": ""}
"""A user wants each lead once; the limit wants nothing. dlt has one index too, on a number that it gives each row."""
CONNECTIONS: Final = 4
TIMEOUT_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """What a peer did. `leads` are those that it wrote, `cpu` user and system seconds of its process."""

    leads: int
    seconds: float
    cpu: float


class PeerFailed(LeadSyncError):
    """A peer ended before it had done its job."""

    reason = "peer_failed"


class PeerProcess:
    """A peer that is ready, from the side of whoever measures it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def work(self) -> Done:
        """Let it do its job, once."""
        self._say("go")
        return Done(**json.loads(self._hear()))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerFailed(f"a peer ended with status {self._process.wait(10)}")
        return line


@contextmanager
def peer(kind: str, env: Mapping[str, str], job: Mapping[str, object]) -> Iterator[PeerProcess]:
    """`sdk`, `bare` or `dlt`, with its table empty; ended with the block."""
    command = [sys.executable, "-m", "benchmarks.backfill_peers", kind]
    if kind == "dlt":
        command = [str(DLT_FOLDER / "bin" / "python"), "-I", str(ROOT / "benchmarks" / "dlt_peer.py")]
    process = subprocess.Popen(
        command, cwd=ROOT, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        running = PeerProcess(process)
        running._say(json.dumps(job))
        running._hear()
        yield running
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def has_dlt() -> bool:
    """Whether dlt's environment is there, whole."""
    return (DLT_FOLDER / ".ready").exists()


def copy_row(lead: Mapping[str, Any]) -> list[str | None]:
    """A lead as COPY's text columns; what has no column is kept as JSON, as leadsync keeps it."""
    extra = {name: value for name, value in lead.items() if name not in _COLUMNED}
    row = [None if (value := lead.get(name)) is None else str(value) for name in TEXTS]
    row += [json.dumps(lead[name], ensure_ascii=False) if name in lead else None for name in JSONS]
    row.append(json.dumps(extra, ensure_ascii=False) if extra else None)
    return row


_COLUMNED: Final = frozenset((*TEXTS, *JSONS))


def _sdk(job: Mapping[str, Any]) -> Iterator[int]:
    """Ready, then done."""
    from facebook_business.adobjects.leadgenform import LeadgenForm
    from facebook_business.api import FacebookAdsApi
    from facebook_business.session import FacebookSession

    FacebookSession.GRAPH = job["graph_url"]
    secret = os.environ["META_APP_SECRET"]
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        _create(connection, "sdk")
        yield 0
        stored = 0
        for token, form_ids in job["pages"]:
            api = FacebookAdsApi.init(
                job["app_id"], secret, token, api_version=job["version"], crash_log=False
            )
            for form_id in form_ids:
                form = LeadgenForm(form_id, api=api)
                leads = form.get_leads(fields=list(FULL_FIELDS), params={"limit": job["limit"]})
                rows = [copy_row(lead.export_all_data()) for lead in leads]
                _copy(connection, rows)
                stored += len(rows)
        yield stored


def _copy(connection: "psycopg.Connection[Any]", rows: Iterable[Sequence[str | None]]) -> None:
    with connection.cursor() as cursor, cursor.copy(b"copy sdk_leads from stdin") as copy:
        for row in rows:
            copy.write_row(row)


def _create(connection: "psycopg.Connection[Any]", kind: str) -> None:
    table, columns = TABLES[kind], COLUMNS.format(key=KEYS[kind])
    connection.execute(f"drop table if exists {table}".encode())
    connection.execute(f"create table {table} ({columns})".encode())


class _Bare:
    """Walks slices side by side."""

    def __init__(
        self, job: Mapping[str, Any], session: aiohttp.ClientSession, pool: AsyncConnectionPool
    ) -> None:
        self._job, self._session, self._pool = job, session, pool
        self._secret = os.environ["META_APP_SECRET"]
        self._todo = list(reversed(job["slices"]))
        self.stored = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(self._job["in_flight"]):
                group.create_task(self._walk_on())

    async def _walk_on(self) -> None:
        while self._todo:
            form_id, since, until, token = self._todo.pop()
            await self._walk(form_id, since, until, token)

    async def _walk(self, form_id: str, since: int, until: int, token: str) -> None:
        within = [("GREATER_THAN_OR_EQUAL", since), ("LESS_THAN", until)]
        filtering = [{"field": "time_created", "operator": how, "value": value} for how, value in within]
        query = {
            "fields": ",".join(FULL_FIELDS),
            "filtering": json.dumps(filtering, separators=(",", ":")),
            "limit": str(self._job["limit"]),
            "appsecret_proof": appsecret_proof(self._secret, token),
        }
        headers = {"Authorization": f"Bearer {token}"}
        while True:
            path = f"/{self._job['version']}/{form_id}/leads"
            async with self._session.get(path, params=query, headers=headers) as response:
                response.raise_for_status()
                body = json.loads(await response.read())
            await self._store(body["data"])
            if "next" not in body.get("paging", {}):
                return
            query["after"] = body["paging"]["cursors"]["after"]

    async def _store(self, leads: Sequence[Mapping[str, Any]]) -> None:
        rows = [copy_row(lead) for lead in leads]
        async with (
            self._pool.connection() as connection,
            connection.cursor() as cursor,
            cursor.copy(b"copy bare_leads from stdin") as copy,
        ):
            for row in rows:
                await copy.write_row(row)
        self.stored += len(rows)


async def _run_bare(job: Mapping[str, Any]) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        _create(connection, "bare")
    async with (
        aiohttp.ClientSession(
            base_url=job["graph_url"],
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        ) as session,
        AsyncConnectionPool(
            os.environ["DATABASE_URL"], min_size=CONNECTIONS, max_size=CONNECTIONS, open=False
        ) as pool,
    ):
        await pool.wait()
        bare = _Bare(job, session, pool)
        _ready()
        began, cpu = time.monotonic(), time.process_time()
        await bare.run()
        _tell(bare.stored, time.monotonic() - began, time.process_time() - cpu)


def _run_sdk(job: Mapping[str, Any]) -> None:
    steps = _sdk(job)
    next(steps)
    _ready()
    began, cpu = time.monotonic(), time.process_time()
    stored = next(steps)
    _tell(stored, time.monotonic() - began, time.process_time() - cpu)
    steps.close()


def _ready() -> None:
    print(json.dumps({"ready": True}), flush=True)
    sys.stdin.readline()


def _tell(leads: int, seconds: float, cpu: float) -> None:
    print(json.dumps({"leads": leads, "seconds": seconds, "cpu": cpu}), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    told = json.loads(sys.stdin.readline())
    if sys.argv[1] == "sdk":
        _run_sdk(told)
    else:
        asyncio.run(_run_bare(told))
