"""The sandbox as a server: config -> one HTTP server for Graph and for the control routes.

This file wires the parts and holds the clock; it answers nothing itself.

Invariant: SIGTERM or SIGINT ends `run` within a few seconds, whatever answers are held or deliveries under
way.
"""

import asyncio
import gc
import signal
import time
from dataclasses import dataclass, replace

import structlog
from aiohttp import web

from sandbox import control, download
from sandbox.config import SandboxConfig
from sandbox.parts import Sandbox
from sandbox.transport import read_request, send

log = structlog.stdlib.get_logger()

_MAX_BODY_BYTES = 16 * 1024 * 1024
_SHUTDOWN_SECONDS = 1.0
_FREEZE_EVERY_SECONDS = 2.0


async def _answer(sandbox: Sandbox, http: web.Request) -> web.StreamResponse:
    """Answer one HTTP request to Graph. It counts when it comes in, and is answered after the latency."""
    journal = sandbox.journal
    journal.request_began()
    page_id: str | None = None
    try:
        request = await read_request(http, sandbox.config.public_url)
        holder = sandbox.tokens.holder(request.params.get("access_token", ""))
        page_id = holder.page_id if holder else None
        if page_id:
            journal.page_began(page_id)
        if wanted := sandbox.graph.handshake(request, time.time()):
            _, verified = await sandbox.sender.verify(wanted.callback_url, wanted.verify_token)
            request = replace(request, verified=verified)
        delay = sandbox.delay(page_id)
        answer = sandbox.answer(request, time.time(), delay)
        sandbox.announce_test_leads()
        if delay > 0:
            await asyncio.sleep(delay)
        return await send(http, answer, sandbox.graph.trace())
    finally:
        journal.request_ended()
        if page_id:
            journal.page_ended(page_id)


def application(sandbox: Sandbox) -> web.Application:
    """The routes: /sandbox/... are ours, the export file is www.facebook.com's, every other path is Graph's."""

    async def answer(http: web.Request) -> web.StreamResponse:
        return await _answer(sandbox, http)

    made = web.Application(client_max_size=_MAX_BODY_BYTES, middlewares=[control.refusals])
    made.add_routes([*control.routes(sandbox), *download.routes(sandbox)])
    made.router.add_route("*", "/{path:.*}", answer)
    return made


@dataclass(frozen=True, slots=True)
class Running:
    """A sandbox that serves."""

    sandbox: Sandbox
    url: str
    _runner: web.AppRunner

    async def stop(self) -> None:
        """End everything: runs of the sender, held answers, the server."""
        await self.sandbox.sender.stop()
        await self._runner.cleanup()


async def start(config: SandboxConfig) -> Running:
    """Serve in the running event loop."""
    sandbox = Sandbox(config, time.time())
    runner = web.AppRunner(
        application(sandbox), access_log=None, handler_cancellation=True, shutdown_timeout=_SHUTDOWN_SECONDS
    )
    await runner.setup()
    site = web.TCPSite(runner, config.host, config.port, backlog=1024)
    await site.start()
    host, port = runner.addresses[0][:2]
    url = f"http://{host}:{port}"
    log.info("sandbox_listening", url=url, pages=config.pages, leads=config.leads, seed=config.seed)
    return Running(sandbox, url, runner)


def run(config: SandboxConfig) -> None:
    """Serve until SIGTERM or SIGINT."""
    asyncio.run(_serve(config))


async def _freeze_what_is_known() -> None:
    """Have the garbage collector look at what is new once more, and never again.

    What is known of leads stays. With 130,000 of them a full collection took 0.9 s, in which the sandbox answered
    nobody, and deliveries seemed to be answered late.
    """
    while True:
        gc.collect()
        gc.freeze()
        await asyncio.sleep(_FREEZE_EVERY_SECONDS)


async def _serve(config: SandboxConfig) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    running = await start(config)
    freezing = asyncio.create_task(_freeze_what_is_known())
    await ended.wait()
    freezing.cancel()
    await running.stop()
    log.info("sandbox_stopped")
