"""The whole stack with proxies before its neighbours, a clock that can be moved, and code that can be rolled.

    settings of a soak -> tests/system/whole.py, its processes rewired -> Rig

It strikes nothing and judges nothing. Invariant: the soak itself asks Redis, Postgres and the sandbox directly, past
every proxy and with the true time.
"""

import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from psycopg_pool import AsyncConnectionPool

from tests.servers import short_folder
from tests.system.soak.clock import Clock, make_clock
from tests.system.soak.former import Release, unpack
from tests.system.soak.proxy import Proxy, Upstream, proxying
from tests.system.whole import APP_SECRET, VERIFY_TOKEN, Whole, whole
from worker.clock import now
from worker.graph.account import Caller, set_webhook_request
from worker.neighbours import create_keys
from worker.sealing import of_account, of_page
from worker.stack import Stack
from worker.store.tokens import Account, TokenStore
from worker.supervisor import SERVERS, ProcessSpec

APP_ID = "1234567890123456"
USER_ID = "3000424242424242"


@dataclass(frozen=True, slots=True)
class Rig:
    """What runs, and what can be done to it."""

    stack: Whole
    proxies: Mapping[str, Proxy]
    clock: Clock | None
    release: Release | None
    pages: tuple[str, ...]
    metrics_port: int

    def connect(self) -> None:
        """As `leadsync connect` does: the user's token and each Page's kept in Postgres, sealed."""
        told = self.stack.get("pages")
        tokens = {page["page_id"]: page["token"] for page in told["pages"] if page["token"]}

        async def keep(_: Any) -> None:
            settings = self.stack.settings
            async with AsyncConnectionPool(settings.database_url, min_size=1, max_size=1, open=False) as pool:
                rows, ring = TokenStore(pool), create_keys(settings).ring()
                sealed = ring.seal(told["user_token"], of_account(USER_ID))
                await rows.keep_account(Account(USER_ID, "USER", sealed, (), None, None), now())
                for page_id, token in tokens.items():
                    await rows.keep_page_token(page_id, USER_ID, ring.seal(token, of_page(page_id)), now())

        self.stack.ask_store(keep)


@contextmanager
def build_rig(
    *,
    env: Mapping[str, str],
    sandbox: Mapping[str, object],
    clock: bool,
    revision: str | None,
    metrics_port: int,
) -> Iterator[Rig]:
    """Everything running. `revision`: the commit whose code runs at first, where there is one."""
    with ExitStack() as held:
        tools = held.enter_context(short_folder())
        moved = make_clock(tools) if clock else None
        release = unpack(revision, tools) if revision else None
        proxies: dict[str, Proxy] = {}

        def rewire(stack: Stack, _folder: Path) -> Stack:
            (graph_url,) = {
                spec.env["GRAPH_URL"] for spec in stack.specs if spec.order != SERVERS and spec.env
            }
            upstreams = {
                "redis": _upstream(stack.redis_url),
                "postgres": _upstream(stack.database_url),
                "graph": _upstream(graph_url),
                "webhook": _upstream(stack.webhook_url),
            }
            proxies.update(held.enter_context(proxying(upstreams)))
            changed = {
                "REDIS_URL": _moved(stack.redis_url, proxies["redis"].port),
                "DATABASE_URL": f"postgresql://leadsync@127.0.0.1:{proxies['postgres'].port}/leadsync",
                "GRAPH_URL": _moved(graph_url, proxies["graph"].port),
                **(moved.env if moved else {}),
            }
            specs = tuple(_rewired(spec, changed, release) for spec in stack.specs)
            return replace(stack, specs=specs, webhook_url=_moved(stack.webhook_url, proxies["webhook"].port))

        variables = {"META_APP_ID": APP_ID, "METRICS_PORT": str(metrics_port), **env}
        with whole(sandbox={"app_id": APP_ID, **sandbox}, env=variables, rewire=rewire) as stack:
            (stack.folder / "page_tokens.json").write_text("{}")
            pages = tuple(page["page_id"] for page in stack.get("pages")["pages"])
            rig = Rig(stack, proxies, moved, release, pages, metrics_port)
            rig.connect()
            _set_webhook(stack)
            yield rig


def _rewired(spec: ProcessSpec, changed: Mapping[str, str], release: Release | None) -> ProcessSpec:
    if spec.order == SERVERS or spec.env is None:
        return spec
    return replace(spec, env={**spec.env, **changed}, cwd=str(release.current) if release else spec.cwd)


def _upstream(url: str) -> Upstream:
    parts = urlsplit(url)
    if parts.scheme == "postgresql" and not parts.hostname:
        return Upstream(path=f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432")
    return Upstream(host=parts.hostname or "", port=parts.port or 0)


def _moved(url: str, port: int) -> str:
    """The same URL at the proxy."""
    parts = urlsplit(url)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return parts._replace(netloc=f"{user}127.0.0.1:{port}").geturl()


def _set_webhook(stack: Whole) -> None:
    """Tell the sandbox's Graph where the app's webhook is, or each health check finds it missing."""
    caller = Caller(APP_ID, "v26.0", APP_SECRET)
    request = set_webhook_request(
        caller, callback_url=stack.webhook_url, verify_token=VERIFY_TOKEN, fields=["leadgen"]
    )
    body = urllib.parse.urlencode(request.form).encode()
    with urllib.request.urlopen(f"{stack.sandbox_url}{request.path}", data=body, timeout=20) as answer:
        answer.read()
