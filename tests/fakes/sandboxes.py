"""Sandboxes for tests: one to ask without a socket, one that serves on a free port.

`asked` and `read` need neither network nor clock; `serving` runs a whole sandbox in a thread of this process.
"""

import asyncio
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sandbox.app import Running, start
from sandbox.config import SandboxConfig
from sandbox.parts import Sandbox
from sandbox.request import Answer, Request

NOW = 1_790_000_000.0
"""A moment for tests that hand the clock in."""


def made(**settings: Any) -> Sandbox:
    """A sandbox at NOW that serves nobody."""
    return Sandbox(SandboxConfig(**settings), NOW)


def asked(
    sandbox: Sandbox,
    path: str,
    params: Mapping[str, str] | None = None,
    *,
    page: int | None = 0,
    method: str = "GET",
    now: float = NOW,
) -> Answer:
    """What Graph answers, with the token of page number `page` unless None."""
    token = {} if page is None else {"access_token": token_of(sandbox, page)}
    request = Request(method, path, {**token, **(params or {})}, "http://graph")
    return sandbox.answer(request, now, 0.0)


def token_of(sandbox: Sandbox, page: int = 0) -> str:
    """The token of page number `page`."""
    return sandbox.tokens.of_page[sandbox.world.pages[page].page_id]


def read(answer: Answer) -> Any:
    """The answer's body, which must be JSON."""
    return json.loads(answer.body)


def code_of(answer: Answer) -> tuple[int, int | None]:
    """The error's code and subcode."""
    error = read(answer)["error"]
    return error["code"], error.get("error_subcode")


def batch(sandbox: Sandbox, urls: list[str], *, page: int = 0, now: float = NOW, **params: str) -> Answer:
    """What Graph answers to a batch of GETs."""
    items = json.dumps([{"method": "GET", "relative_url": url} for url in urls])
    return asked(sandbox, "/v26.0/", {"batch": items, **params}, page=page, method="POST", now=now)


@dataclass(frozen=True)
class Served:
    """A sandbox that serves at `url`."""

    url: str
    sandbox: Sandbox


@contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    """A sandbox on a free port of this machine, in a thread, until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        config = SandboxConfig(**{"port": 0, **settings})
        running: Running = asyncio.run_coroutine_threadsafe(start(config), loop).result(10)
        try:
            yield Served(running.url, running.sandbox)
        finally:
            asyncio.run_coroutine_threadsafe(running.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
