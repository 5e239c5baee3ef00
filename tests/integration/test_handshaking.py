"""The handshake with a real HTTP server: who passes, and that the verify token goes to nobody else."""

import asyncio

import pytest
from aiohttp import web

from worker.handshaking import handshake

TOKEN = "verify_hunter2"


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (200, None),
        (302, "answers the handshake with 302"),
        (307, "answers the handshake with 307"),
        (403, "answers the handshake with 403"),
    ],
)
def test_only_the_callback_itself_is_asked(status: int, found: str | None) -> None:
    """Meta follows no redirect, and the verify token would go with it to whomever that names."""
    elsewhere: list[str] = []

    async def callback(request: web.Request) -> web.Response:
        assert request.query["hub.verify_token"] == TOKEN
        location = {"Location": f"/elsewhere?{request.query_string}"}
        return web.Response(status=status, text=request.query["hub.challenge"], headers=location)

    async def other(request: web.Request) -> web.Response:
        elsewhere.append(request.query_string)
        return web.Response(text=request.query["hub.challenge"])

    async def scenario() -> str | None:
        app = web.Application()
        app.router.add_get("/webhook", callback)
        app.router.add_get("/elsewhere", other)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        try:
            return await handshake(f"http://{host}:{port}/webhook", TOKEN)
        finally:
            await runner.cleanup()

    assert asyncio.run(scenario()) == found
    assert elsewhere == []
