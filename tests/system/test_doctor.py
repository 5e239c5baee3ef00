"""The doctor on a whole leadsync: each of many faults is named alone and with what to type, and nothing else turns red.

One stack in real processes; each fault is put in, looked at, and taken back, after which all must be well again.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from click.testing import CliRunner
from psycopg_pool import AsyncConnectionPool
from structlog.testing import capture_logs

from receiver.errors import Unsigned
from receiver.signature import HEADER, verify
from tests.system.whole import APP_SECRET, VERIFY_TOKEN, Whole, whole
from worker.cli import main
from worker.clock import now
from worker.graph.account import Caller, GraphRequest, delete_lead_request, subscribe_request
from worker.inbox import PROGRESS, RECONCILE_WANTED, SET_ASIDE
from worker.sealing import KeyRing, new_key, of_page
from worker.store.migrate import head
from worker.store.tokens import TokenStore

APP_ID = "1234567890123456"
CALLER = Caller(APP_ID, "v26.0", APP_SECRET)
QUIET = {
    "META_APP_ID": APP_ID,
    "RING_EVERY_SECONDS": "1",
    # What the workers would mend or notice by themselves stays as a test made it.
    "HEALTH_RESUBSCRIBE": "false",
    "HEALTH_EVERY_SECONDS": "86400",
    "FORMS_DISCOVER_SECONDS": "86400",
    "RECONCILE_LAG_SECONDS": "3600",
    "LOG_STYLE": "json",
}
UNTOLD = "page.webhooks"
"""Of the Page without a lead it is not known whether its webhooks come."""


@dataclass(frozen=True)
class Told:
    """What a run of the doctor told."""

    status: int
    findings: list[dict[str, Any]]

    def red(self) -> dict[tuple[str, str | None], str]:
        """What is not well, of which Page, and how."""
        return {
            (each["check"], each["page_id"]): each["verdict"]
            for each in self.findings
            if each["verdict"] in ("warn", "fail")
        }

    def is_busy(self) -> bool:
        """Whether the receiver answered 503: on a busy machine it does now and then, and no fault here makes it."""
        return any(
            (each["check"], each["verdict"]) == ("meta.delivery", "fail") and "503" in json.dumps(each)
            for each in self.findings
        )

    def remedies(self) -> str:
        """What is to be done."""
        return "\n".join(each["remedy"] for each in self.findings if each["remedy"])


@dataclass
class Ward:
    """The stack, and what a test may do to it."""

    stack: Whole
    pages: list[str]

    def doctor(self, *words: str, **env: str) -> Told:
        """As an operator types it, in this process."""
        words = ("doctor", "--json", *words)
        with capture_logs():  # which a process of its own drops below level error
            for _ in range(3):
                done = CliRunner().invoke(main, words, env=self.env() | env, catch_exceptions=False)
                told = Told(done.exit_code, json.loads(done.stdout)["findings"])
                if not told.is_busy():
                    break
        return told

    def env(self) -> dict[str, str]:
        """What the operator's shell holds."""
        return {
            **self.stack.env,
            "DATABASE_URL": self.stack.settings.database_url,
            "REDIS_URL": self.stack.settings.redis_url,
            "TOKEN_KEYS_FILE": str(self.stack.settings.token_keys_file),
            "META_APP_SECRET": APP_SECRET,
            "META_VERIFY_TOKEN": VERIFY_TOKEN,
            "GRAPH_URL": self.stack.sandbox_url,
            "PAGE_TOKENS_FILE": str(self.tokens_file),
        }

    @property
    def tokens_file(self) -> Path:
        return self.stack.folder / "page_tokens.json"

    def redis(self) -> "redis.Redis":
        return redis.Redis.from_url(self.stack.settings.redis_url)

    def sql(self, statement: str, *values: object) -> None:
        with psycopg.connect(self.stack.settings.database_url, autocommit=True) as connection:
            connection.execute(statement.encode(), values)

    def graph(self, request: GraphRequest) -> Any:
        """Ask the sandbox as Graph is asked."""
        body = urllib.parse.urlencode(request.form).encode()
        with urllib.request.urlopen(
            f"{self.stack.sandbox_url}{request.path}", data=body, timeout=20
        ) as answer:
            return json.load(answer)

    def set_webhook(self, url: str, *, fields: str = "leadgen", values: bool = True) -> None:
        form = (
            ("object", "page"), ("callback_url", url), ("fields", fields), ("verify_token", VERIFY_TOKEN),
            ("include_values", str(values).lower()),
        )  # fmt: skip
        self.graph(
            CALLER.request(
                "POST", f"{APP_ID}/subscriptions", CALLER.app_token, form=form, kind="subscriptions"
            )
        )

    def subscribe(self, page_id: str) -> None:
        token = json.loads(self.tokens_file.read_text())[page_id]
        self.graph(subscribe_request(CALLER, page_id, ["leadgen"], token))

    def give_tokens(self) -> None:
        """The Pages' living tokens, into the file."""
        self.tokens_file.write_text(json.dumps(self.stack.get("tokens")))

    def processes(self, name: str) -> list[int]:
        """A process of that name with its children."""
        pid = self.stack.pid(name)
        assert pid is not None
        return [pid, *self.stack.children(name)]


@pytest.fixture(scope="module")
def ward() -> Iterator[Ward]:
    """A stack with three Pages, all well, the last without any lead."""
    with whole(sandbox={"pages": 3, "forms_per_page": 1, "subscriptions": 1}, env=QUIET) as stack:
        running = Ward(stack, [page["page_id"] for page in stack.get("pages")["pages"]])
        running.set_webhook(stack.webhook_url)
        for page_id in running.pages:
            running.subscribe(page_id)
        stack.send(count=4, pages=running.pages[:2])
        assert stack.wait_for(lambda: stack.all_stored(4), 60)

        def checked() -> bool:
            """The first checks are over, so that none meets a fault."""
            due = {row["page_id"]: row["check_at"] for row in stack.ask_store(lambda store: store.pages())}
            soon = now() + timedelta(hours=1)
            return set(due) == set(running.pages) and all(at and at > soon for at in due.values())

        assert stack.wait_for(checked, 60)
        assert stack.wait_for(lambda: running.doctor("--offline").red() == {}, 60)  # all have begun
        yield running


Red = Mapping[tuple[str, str | None], str]
Fault = Callable[[Ward], AbstractContextManager[Mapping[str, str] | None]]
"""Puts a fault in and takes it back; gives what the operator's environment holds besides."""


def token_dies(error: str) -> Fault:
    @contextmanager
    def fault(ward: Ward) -> Iterator[None]:
        ward.stack.post("tokens", {"revoke": "page", "pages": ward.pages[:1], "error": error})
        yield
        ward.stack.post("tokens", {"fresh": "long"})
        ward.give_tokens()

    return fault


@contextmanager
def token_expires(ward: Ward) -> Iterator[None]:
    ward.stack.post("tokens", {"revoke": "page", "pages": ward.pages[:1], "fresh": "short"})
    ward.give_tokens()
    yield
    ward.stack.post("tokens", {"revoke": "page", "pages": ward.pages[:1], "fresh": "long"})
    ward.give_tokens()


def at_meta(order: Mapping[str, Any]) -> Fault:
    @contextmanager
    def fault(ward: Ward) -> Iterator[None]:
        named = {"pages": ward.pages[:1]} if "lead_access" in order else {}
        ward.stack.post("tokens", {**order, **named})
        yield
        ward.stack.post("tokens", {"restore": True})

    return fault


@contextmanager
def page_unsubscribed(ward: Ward) -> Iterator[None]:
    ward.stack.post("subscriptions", {"drop_pages": ward.pages[:1]})
    yield
    ward.subscribe(ward.pages[0])


@contextmanager
def app_unsubscribed(ward: Ward) -> Iterator[None]:
    ward.stack.post("subscriptions", {"drop_app": True})
    yield
    ward.set_webhook(ward.stack.webhook_url)


@contextmanager
def app_without_leadgen(ward: Ward) -> Iterator[None]:
    ward.stack.post("subscriptions", {"drop_app": True})
    ward.set_webhook(ward.stack.webhook_url, fields="feed")
    yield
    ward.stack.post("subscriptions", {"drop_app": True})
    ward.set_webhook(ward.stack.webhook_url)


@contextmanager
def values_off(ward: Ward) -> Iterator[None]:
    ward.set_webhook(ward.stack.webhook_url, values=False)
    ward.stack.send(count=1, pages=ward.pages[:1])
    assert ward.stack.wait_for(lambda: bool(ward.redis().hlen(RECONCILE_WANTED)), 20)
    yield
    remedy = ["connect", "--only", "webhook", "--webhook-url", ward.stack.webhook_url, "--again"]
    assert CliRunner().invoke(main, remedy, env=ward.env()).exit_code == 0
    assert ward.stack.get("subscriptions")["app"]["include_values"] is True
    ward.redis().delete(RECONCILE_WANTED)


@contextmanager
def answering(secret: str) -> Iterator[str]:
    """Somebody at a URL who passes the handshake and takes what is signed with `secret`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            words = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            self._answer(200, words["hub.challenge"][0])

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                verify(body, self.headers[HEADER], [secret.encode()])
            except Unsigned:
                self._answer(403, "unsigned")
            else:
                self._answer(200, "ok")

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/webhook"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def callback_down(ward: Ward) -> Iterator[None]:
    with answering(APP_SECRET) as url:
        ward.set_webhook(url)
    yield
    ward.set_webhook(ward.stack.webhook_url)


@contextmanager
def receiver_has_another_secret(ward: Ward) -> Iterator[None]:
    with answering("another secret") as url:
        ward.set_webhook(url)
        yield
        ward.set_webhook(ward.stack.webhook_url)


@contextmanager
def settings(**env: str) -> Iterator[Mapping[str, str]]:
    yield env


def setting(**env: str) -> Fault:
    return lambda ward: settings(**env)


@contextmanager
def page_without_token(ward: Ward) -> Iterator[None]:
    tokens = json.loads(ward.tokens_file.read_text())
    ward.tokens_file.write_text(json.dumps({page: tokens[page] for page in ward.pages[1:]}))
    yield
    ward.give_tokens()


@contextmanager
def token_of_another_page(ward: Ward) -> Iterator[None]:
    tokens = json.loads(ward.tokens_file.read_text())
    ward.tokens_file.write_text(json.dumps(tokens | {ward.pages[0]: tokens[ward.pages[1]]}))
    yield
    ward.give_tokens()


@contextmanager
def token_file_broken(ward: Ward) -> Iterator[Mapping[str, str]]:
    broken = ward.stack.folder / "broken.json"
    broken.write_text("{")
    yield {"PAGE_TOKENS_FILE": str(broken)}


@contextmanager
def key_lost(ward: Ward) -> Iterator[None]:
    """A token that lies sealed with a key that nobody has; the Page has another in the settings."""
    page_id = ward.pages[0]

    async def seal(_: Any) -> None:
        url = ward.stack.settings.database_url
        async with AsyncConnectionPool(url, min_size=1, max_size=1, open=False) as pool:
            sealed = KeyRing((new_key(),)).seal("lost", of_page(page_id))
            await TokenStore(pool).keep_page_token(page_id, None, sealed, now())

    ward.stack.ask_store(seal)
    yield
    ward.sql("delete from page_tokens")


def redis_set_to(name: str, value: str, was: str) -> Fault:
    @contextmanager
    def fault(ward: Ward) -> Iterator[None]:
        ward.redis().config_set(name, value)
        yield
        ward.redis().config_set(name, was)

    return fault


def redis_used(share: float) -> Fault:
    @contextmanager
    def fault(ward: Ward) -> Iterator[None]:
        used = int(ward.redis().info("memory")["used_memory"])
        ward.redis().config_set("maxmemory", int(used / share))
        time.sleep(1.1)  # the receiver looks at Redis once a second
        yield
        ward.redis().config_set("maxmemory", "512mb")
        time.sleep(1.1)

    return fault


def stored_otherwise(change: str, back: str) -> Fault:
    """`%(page)s` is the first Page."""

    @contextmanager
    def fault(ward: Ward) -> Iterator[None]:
        ward.sql(change.replace("PAGE", ward.pages[0]))
        yield
        ward.sql(back.replace("PAGE", ward.pages[0]))

    return fault


@contextmanager
def budget_spent(ward: Ward) -> Iterator[None]:
    """The Page's row is held meanwhile, or a larger limit that is worked out then rightly lets go what waits for it."""
    page_id = [ward.pages[0]]
    waiting = "'waiting', 'budget', now() + interval '1 day', now(), now(), %s, 'webhook', now()"
    with psycopg.connect(ward.stack.settings.database_url) as connection:
        connection.execute(f"{ROW} values ('78', {waiting})".encode(), page_id)
        connection.execute(
            "update pages set held_until = now() + interval '1 day', held_reason = 'budget' where page_id = %s",
            page_id,
        )
        connection.commit()
        connection.execute("select from pages where page_id = %s for update", page_id)
        yield
        connection.execute(
            "update pages set held_until = null, held_reason = null where page_id = %s", page_id
        )
        connection.execute("delete from leadgen where leadgen_id = '78'")


@contextmanager
def late_reconciliation(ward: Ward) -> Iterator[None]:
    """The rows are held meanwhile, or the schedule, which looks every three seconds, may reconcile first."""
    late = "update forms set reconcile_at = now() - interval '1 day' where page_id = %s"
    with psycopg.connect(ward.stack.settings.database_url) as connection:
        connection.execute(late, [ward.pages[0]])
        connection.commit()
        connection.execute("select from forms where page_id = %s for update", [ward.pages[0]])
        yield
        connection.execute(late.replace("-", "+"), [ward.pages[0]])


@contextmanager
def role_without_rights(ward: Ward) -> Iterator[Mapping[str, str]]:
    ward.sql("create role visitor login")
    told = urllib.parse.urlsplit(ward.stack.settings.database_url)
    place = told.netloc.rpartition("@")[2]
    yield {"DATABASE_URL": told._replace(netloc=f"visitor@{place}").geturl()}
    ward.sql("drop role visitor")


@contextmanager
def few_connections(ward: Ward) -> Iterator[None]:
    name = urllib.parse.urlsplit(ward.stack.settings.database_url).path.removeprefix("/")
    used = "(select count(*) from pg_stat_activity where datname = current_database())"
    with psycopg.connect(ward.stack.settings.database_url) as connection:
        row = connection.execute(f"select {used}".encode()).fetchone()
        assert row is not None
    ward.sql(f"alter database {name} connection limit {row[0] + 5}")
    yield
    ward.sql(f"alter database {name} connection limit -1")


@contextmanager
def clock_off(ward: Ward) -> Iterator[None]:
    ward.stack.post("clock", {"offset_seconds": 600})
    yield
    ward.stack.post("clock", {"offset_seconds": 0})


@contextmanager
def graph_unwell(ward: Ward) -> Iterator[None]:
    ward.stack.post("faults", {"class": "2", "kinds": ["subscriptions"]})
    yield
    ward.stack.post("faults", [])


@contextmanager
def app_throttled(ward: Ward) -> Iterator[None]:
    ward.stack.post("faults", {"class": "4", "kinds": ["subscriptions"]})
    yield
    ward.stack.post("faults", [])


def silent(process: str, who: str) -> Fault:
    """The process no longer runs; its last look was ten minutes ago."""

    @contextmanager
    def fault(ward: Ward) -> Iterator[None]:
        pids = ward.processes(process)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(0.3)  # what was on its way to Redis has arrived
            ward.redis().hset(PROGRESS, who, int((time.time() - 600) * 1000))
            yield
        finally:
            for pid in reversed(pids):
                os.kill(pid, signal.SIGCONT)
        assert ward.stack.wait_for(lambda: ward.doctor("--offline").red() == {}, 60)

    return fault


@contextmanager
def body_set_aside(ward: Ward) -> Iterator[None]:
    ward.redis().xadd(SET_ASIDE, {"reason": "not_json", "body": "{"})
    yield
    ward.redis().delete(SET_ASIDE)


@contextmanager
def parked_by_hand(ward: Ward) -> Iterator[None]:
    assert CliRunner().invoke(main, ["pages", "park", ward.pages[0]], env=ward.env()).exit_code == 0
    yield
    assert CliRunner().invoke(main, ["pages", "unpark", ward.pages[0]], env=ward.env()).exit_code == 0


@contextmanager
def lead_not_announced(ward: Ward) -> Iterator[None]:
    """Of a Page whose webhooks never came."""
    page_id = ward.pages[2]
    (lead,) = ward.stack.post("leads", {"count": 1, "page": page_id, "age_seconds": 7_200})["leads"]
    yield
    token = json.loads(ward.tokens_file.read_text())[page_id]
    request = delete_lead_request(CALLER, lead, token)
    url = f"{ward.stack.sandbox_url}{request.path}?{urllib.parse.urlencode(request.query)}"
    headers = {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, method="DELETE", headers=headers), timeout=20):
        pass


ROW = (
    "insert into leadgen"
    " (leadgen_id, state, reason, due_at, first_seen_at, last_seen_at, page_id, source, updated_at)"
)
NEVER = "http://127.0.0.1:1"
P, ALL = "first", "every"
"""Whose finding it is; None: no Page's."""

FAULTS: dict[str, tuple[Fault, dict[tuple[str, str | None], str], str]] = {
    "token 190": (token_dies("190"), {("page.token", P): "fail"}, "Connect the Page again"),
    "token 190/458": (token_dies("190/458"), {("page.token", P): "fail"}, "removed the app"),
    "token 190/459": (token_dies("190/459"), {("page.token", P): "fail"}, "log in at facebook.com"),
    "token 190/460": (token_dies("190/460"), {("page.token", P): "fail"}, "changed their password"),
    "token 190/463": (token_dies("190/463"), {("page.token", P): "fail"}, "The token expired"),
    "token 190/464": (token_dies("190/464"), {("page.token", P): "fail"}, "confirm their account"),
    "token 190/467": (token_dies("190/467"), {("page.token", P): "fail"}, "logged out"),
    "token 190/492": (token_dies("190/492"), {("page.token", P): "fail"}, "lost their role"),
    "token 102": (token_dies("102"), {("page.token", P): "fail"}, "Connect the Page again"),
    "token expires": (token_expires, {("page.token", P): "warn"}, "before the token expires"),
    "no token": (page_without_token, {("page.token", P): "fail"}, "leadsync connect --page"),
    "another Page's token": (token_of_another_page, {("page.token", P): "fail"}, "another Page's token"),
    "scope leads_retrieval": (
        at_meta({"take_scopes": ["leads_retrieval"]}), {("page.scopes", ALL): "fail"}, "make a token with them"),
    "scope pages_manage_metadata": (
        at_meta({"take_scopes": ["pages_manage_metadata"]}), {("page.scopes", ALL): "fail"}, "make a token with them"),
    "scope pages_manage_ads": (
        at_meta({"take_scopes": ["pages_manage_ads"]}), {("page.scopes", ALL): "fail"}, "make a token with them"),
    "scope ads_management": (
        at_meta({"take_scopes": ["ads_management"]}), {("page.scopes", ALL): "warn"}, "make a token with them"),
    "lead access 103": (at_meta({"lead_access": "103"}), {("page.lead_access", P): "fail"}, "Leads access > CRMs"),
    "lead access 200": (at_meta({"lead_access": "as_200"}), {("page.lead_access", P): "fail"}, "Leads access > CRMs"),
    "lead access 100/33": (at_meta({"lead_access": "as_100"}), {("page.lead_access", P): "fail"}, "> CRMs"),
    "role gone": (at_meta({"tasks": []}), {("page.token", ALL): "fail"}, "lost their role"),
    "Page's subscription gone": (page_unsubscribed, {("page.subscription", P): "fail"}, "leadsync connect --page"),
    "app's subscription gone": (app_unsubscribed, {("meta.webhook", None): "fail"}, "connect --only webhook"),
    "app without leadgen": (app_without_leadgen, {("meta.webhook", None): "fail"}, "--webhook-url http://127"),
    "webhook elsewhere": (
        setting(WEBHOOK_URL="https://elsewhere.example.com/webhook"), {("meta.webhook", None): "warn"}, "WEBHOOK_URL"),
    "values off": (values_off, {("work.values", None): "fail"}, "--again"),
    "callback down": (callback_down, {("meta.handshake", None): "fail"}, "start the receiver"),
    "receiver's secret": (receiver_has_another_secret, {("meta.delivery", None): "fail"}, "META_APP_SECRET"),
    "verify token": (setting(META_VERIFY_TOKEN="another"), {("meta.handshake", None): "fail"}, "META_VERIFY_TOKEN"),
    "wrong app secret": (setting(META_APP_SECRET="wrong"), {("meta.app_token", None): "fail"}, "App settings > Basic"),
    "wrong app id": (setting(META_APP_ID="4711"), {("meta.app_token", None): "fail"}, "App settings > Basic"),
    "no app id": (setting(META_APP_ID=""), {("settings.app_id", None): "warn"}, "META_APP_ID"),
    "settings": (setting(GRAPH_VERSION="26", GRAPH_TIMEOUT_SECONDS="0"), {("settings.values", None): "fail"}, ".env"),
    "token file": (token_file_broken, {("settings.token_file", None): "fail"}, "JSON object"),
    "key lost": (key_lost, {("settings.keys", None): "fail"}, "TOKEN_KEYS"),
    "everysec": (
        redis_set_to("appendfsync", "everysec", "always"), {("redis.fsync", None): "fail"}, "appendfsync always"),
    "evicting policy": (
        redis_set_to("maxmemory-policy", "allkeys-lru", "noeviction"), {("redis.eviction", None): "fail"},
        "maxmemory-policy noeviction"),
    "no append-only file": (
        redis_set_to("appendonly", "no", "yes"), {("redis.persistence", None): "fail"}, "appendonly yes"),
    "no maxmemory": (redis_set_to("maxmemory", "0", "512mb"), {("redis.memory", None): "warn"}, "SET maxmemory"),
    "Redis nearly full": (redis_used(0.7), {("redis.memory", None): "warn"}, "drain the stream"),
    "Redis full": (redis_used(0.88), {("redis.memory", None): "fail"}, "drain the stream"),
    "Redis away": (setting(REDIS_URL="redis://127.0.0.1:1/0"), {("redis.reachable", None): "fail"}, "start Redis"),
    "Postgres away": (
        setting(DATABASE_URL="postgresql://x@127.0.0.1:1/x"), {("postgres.reachable", None): "fail"}, "start Postgres"),
    "old migration": (
        stored_otherwise(f"update alembic_version set version_num = '{int(head()) - 1:04}'",
                         f"update alembic_version set version_num = '{head()}'"),
        {("postgres.schema", None): "fail"}, "leadsync migrate"),
    "later migration": (
        stored_otherwise(f"update alembic_version set version_num = '{int(head()) + 1:04}'",
                         f"update alembic_version set version_num = '{head()}'"),
        {("postgres.schema", None): "warn"}, "newer leadsync"),
    "role without rights": (role_without_rights, {("postgres.privileges", None): "fail"}, "owner"),
    "few connections": (few_connections, {("postgres.connections", None): "warn"}, "max_connections"),
    "clock off": (clock_off, {("meta.clock", None): "fail"}, "NTP"),
    "retired version": (setting(GRAPH_VERSION="v19.0"), {("meta.version", None): "warn"}, "GRAPH_VERSION=v26.0"),
    "Graph away": (setting(GRAPH_URL=NEVER), {("meta.reachable", None): "fail"}, "GRAPH_URL"),
    "Graph unwell": (graph_unwell, {("meta.reachable", None): "warn"}, "metastatus.com"),
    "app throttled": (app_throttled, {("meta.app_token", None): "warn"}, "leadsync budget"),
    "dead live worker": (silent("worker", "live"), {("work.worker_live", None): "fail"}, "worker --queue live"),
    "dead upkeep worker": (silent("upkeep", "upkeep"), {("work.worker_upkeep", None): "fail"}, "worker --queue upkeep"),
    "silent schedule": (silent("schedule", "schedule"), {("work.schedule", None): "fail"}, "leadsync schedule"),
    "body set aside": (body_set_aside, {("work.set_aside", None): "warn"}, "leadsync reconcile"),
    "parked by hand": (parked_by_hand, {("page.parked", P): "warn"}, "leadsync pages unpark"),
    "lead not announced": (lead_not_announced, {("page.webhooks", "last"): "fail"}, "leadsync test-lead"),
    "dead letter": (
        stored_otherwise(f"{ROW} values ('77', 'dead', 'poison', null, now(), now(), 'PAGE', 'webhook', now())",
                         "delete from leadgen where leadgen_id = '77'"),
        {("page.dead_letters", P): "warn"}, "leadsync dead-letters list"),
    "budget spent": (budget_spent, {("page.waiting", P): "warn"}, "leadsync budget"),
    "gap": (
        stored_otherwise(
            "insert into reconciliations"
            " (form_id, day, page_id, metas, ours, missing, repaired, unexplained, checked_at)"
            " values ('1', current_date, 'PAGE', 3, 1, 2, 0, 2, now())",
            "delete from reconciliations where form_id = '1'"),
        {("page.gaps", P): "warn"}, "leadsync reconcile"),
    "late reconciliation": (
        late_reconciliation,
        {("work.reconcile", None): "warn"}, "leadsync backfills"),
}  # fmt: skip


def expected(red: Red, pages: list[str]) -> Red:
    """With the Pages' ids in the place of words."""
    of = {P: pages[:1], "last": pages[-1:], ALL: pages}
    return {
        (check, page_id): verdict
        for (check, whose), verdict in red.items()
        for page_id in ([None] if whose is None else of[whose])
    }


def test_where_all_is_well_nothing_is_red(ward: Ward) -> None:
    """And but for the Page without a lead, everything was looked at."""
    told = ward.doctor()
    assert told.red() == {}
    assert told.status == 0
    unknown = {(each["check"], each["page_id"]) for each in told.findings if each["verdict"] == "not_checked"}
    assert unknown == {(UNTOLD, ward.pages[2])}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_named_alone_with_what_to_type_and_taken_back_is_not(ward: Ward, name: str) -> None:
    """Exactly the checks that the fault is about, on exactly the Pages that it befell."""
    fault, red, remedy = FAULTS[name]
    with fault(ward) as env:
        told = ward.doctor(**(env or {}))
    after = ward.doctor()
    assert dict(told.red()) == dict(expected(red, ward.pages))
    assert told.status == (1 if "fail" in red.values() else 0)
    assert remedy in told.remedies()
    assert after.red() == {}


def test_as_a_process_of_its_own_it_tells_the_same(ward: Ward) -> None:
    """Its exit status, one JSON object on stdout, nothing on stderr; and no token anywhere."""
    run = [sys.executable, "-m", "worker", "doctor"]
    env = {**os.environ, **ward.env()}
    done = subprocess.run([*run, "--json"], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verdict"] == "ok"
    wrong = {**env, "META_APP_SECRET": "wrong-secret", "GRAPH_VERSION": "v19.0"}
    shown = subprocess.run(run, env=wrong, capture_output=True, text=True, timeout=60, check=False)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert "do: " in shown.stdout
    secrets = [APP_SECRET, VERIFY_TOKEN, "wrong-secret", *ward.stack.get("tokens").values()]
    assert [secret for secret in secrets if secret in done.stdout + shown.stdout] == []


def test_a_page_alone_is_told_whole_and_offline_asks_nobody(ward: Ward) -> None:
    """`--page` looks at one Page, `--offline` makes no call."""
    told = ward.doctor("--page", ward.pages[1])
    assert {each["page_id"] for each in told.findings} == {None, ward.pages[1]}
    before = ward.stack.get("calls")["http_requests"]
    offline = ward.doctor("--offline")
    assert ward.stack.get("calls")["http_requests"] == before
    assert offline.red() == {}
