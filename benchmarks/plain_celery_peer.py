"""The peer: what a competent user writes with Celery, requests and psycopg in an afternoon.

    one message a lead -> GET /<leadgen_id> -> one INSERT ... ON CONFLICT -> acknowledged

    celery -A benchmarks.plain_celery_peer worker -P prefork -c 16

Written as the guides write it and tuned in good faith: JSON messages, no results, no events, acknowledged late; one
kept-alive HTTP session and one database connection a process or thread; statements prepared by psycopg; no look for
proxies and netrc at each call. Pool and concurrency are found by a sweep (worker_efficiency.py).

What it does not do, and leadsync does: read several leads in one request, keep Meta's limits, tell one error from
another, keep what failed, survive a kill without losing messages. So it is given every advantage but those.
"""

import hashlib
import hmac
import json
import os
import sys
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import psycopg
import requests
from celery import Celery
from psycopg.types.json import Jsonb

from benchmarks.report import ROOT
from worker.supervisor import WORKERS, ProcessSpec

QUEUE: Final = "peer"
TASK: Final = "peer.store_lead"
TABLE: Final = """
create table if not exists peer_leads (
    leadgen_id text primary key, page_id text not null, form_id text, ad_id text, ad_name text, adset_id text,
    adset_name text, campaign_id text, campaign_name text, created_time timestamptz, is_organic boolean, platform text,
    field_data jsonb, stored_at timestamptz not null default now())
"""
FIELDS: Final = (
    "id", "created_time", "form_id", "ad_id", "ad_name", "adset_id", "adset_name", "campaign_id", "campaign_name",
    "is_organic", "platform", "field_data",
)  # fmt: skip
INSERT: Final = """
insert into peer_leads (leadgen_id, page_id, form_id, ad_id, ad_name, adset_id, adset_name, campaign_id,
    campaign_name, created_time, is_organic, platform, field_data)
values (%(id)s, %(page_id)s, %(form_id)s, %(ad_id)s, %(ad_name)s, %(adset_id)s, %(adset_name)s, %(campaign_id)s,
    %(campaign_name)s, %(created_time)s, %(is_organic)s, %(platform)s, %(field_data)s)
on conflict (leadgen_id) do update set form_id = excluded.form_id, ad_id = excluded.ad_id, ad_name = excluded.ad_name,
    adset_id = excluded.adset_id, adset_name = excluded.adset_name, campaign_id = excluded.campaign_id,
    campaign_name = excluded.campaign_name, created_time = excluded.created_time,
    is_organic = excluded.is_organic, platform = excluded.platform, field_data = excluded.field_data
"""
BROKER: Final = "PEER_BROKER_URL"
TIMEOUT_SECONDS: Final = 20

# Built at import, as `celery -A` wants it and every guide shows it.
app = Celery("plain_celery_peer", broker=os.environ.get(BROKER, "redis://127.0.0.1/1"), set_as_current=False)
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_default_queue=QUEUE,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


class _Own(threading.local):
    """What each thread, or each process, keeps for itself."""

    session: requests.Session | None = None
    connection: psycopg.Connection[Any] | None = None


_own = _Own()


@app.task(
    name=TASK,
    acks_late=True,
    autoretry_for=(requests.RequestException, psycopg.OperationalError),
    retry_backoff=True,
    max_retries=5,
)
def store_lead(leadgen_id: str, page_id: str) -> None:
    """Read one lead and store it."""
    token = _tokens()[page_id]
    answer = _session().get(
        f"{os.environ['GRAPH_URL']}/{os.environ['GRAPH_VERSION']}/{leadgen_id}",
        params={"fields": ",".join(FIELDS), "appsecret_proof": _proof(token)},
        headers={"Authorization": f"Bearer {token}"},
        timeout=TIMEOUT_SECONDS,
    )
    answer.raise_for_status()
    _connection().execute(INSERT, _row(answer.json(), page_id))


def _row(lead: Mapping[str, Any], page_id: str) -> dict[str, Any]:
    row = {name: lead.get(name) for name in FIELDS}
    return {**row, "page_id": page_id, "field_data": Jsonb(row["field_data"])}


def _session() -> requests.Session:
    """This thread's own kept-alive session."""
    if _own.session is None:
        _own.session = requests.Session()
        _own.session.trust_env = False
    return _own.session


def _connection() -> psycopg.Connection[Any]:
    """This thread's own connection; made anew where it was lost."""
    if _own.connection is None or _own.connection.closed:
        _own.connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    return _own.connection


@cache
def _tokens() -> dict[str, str]:
    tokens: dict[str, str] = json.loads(Path(os.environ["PAGE_TOKENS_FILE"]).read_text())
    return tokens


@cache
def _proof(token: str) -> str:
    return hmac.new(os.environ["META_APP_SECRET"].encode(), token.encode(), hashlib.sha256).hexdigest()


def process(
    env: Mapping[str, str], broker_url: str, *, pool: str, concurrency: int, prefetch: int
) -> ProcessSpec:
    """The peer's worker as a process to run."""
    options = ("-P", pool, "-c", str(concurrency), "--prefetch-multiplier", str(prefetch), "-l", "WARNING")
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return ProcessSpec(
        "peer",
        (sys.executable, "-m", "celery", "-A", "benchmarks.plain_celery_peer", "worker", *options, *quiet),
        env={**env, BROKER: broker_url},
        cwd=str(ROOT),
        order=WORKERS,
        restart=False,
    )
