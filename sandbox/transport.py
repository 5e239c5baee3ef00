"""HTTP in and out for the simulated Graph: aiohttp request -> Request, Answer -> aiohttp response.

Here the faults of time and connection are carried out: held, dripped, cut, oversized, reset. An answer
without a fault leaves in one buffered write. What is answered was decided before.

Invariant: no answer is held longer than its rule says, and none outlives its caller.
"""

import asyncio
import json
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import web

from sandbox.faults import Fault
from sandbox.request import Answer, Request
from sandbox.spoiled import spoil

_HTML_FAULTS: Final = frozenset({"html_5xx", "html_200"})
_CHUNK: Final = b"0" * 65_536
REDIRECT_TARGET: Final = "/sandbox/redirected"


async def read_request(http: web.Request, public_url: str) -> Request:
    """The call that an HTTP request makes: query and body together, since `curl -X GET -d` sends a body."""
    params = dict(http.query)
    if http.body_exists:
        params |= await _body_params(http)
    authorization = http.headers.get("Authorization", "")
    if authorization[:7].lower() == "bearer ":
        params["access_token"] = authorization[7:].strip()
    return Request(http.method, http.path, params, public_url or f"{http.scheme}://{http.host}")


async def _body_params(http: web.Request) -> dict[str, str]:
    if http.content_type == "multipart/form-data":
        return {name: value for name, value in (await http.post()).items() if isinstance(value, str)}
    text = (await http.read()).decode("utf-8", "replace")
    if http.content_type != "application/json":
        return dict(parse_qsl(text, keep_blank_values=True, errors="replace"))
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(given, dict):
        return {}
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in given.items()}


async def send(http: web.Request, answer: Answer, trace: str) -> web.StreamResponse:
    """The response, sent the way the answer's fault says."""
    fault = answer.fault
    if fault is None:
        return _whole(http, answer)
    match fault.name:
        case "timeout":
            await asyncio.sleep(fault.rule.hold_seconds)
            return _gone(http)
        case "reset":
            return _gone(http, reset=True)
        case "close":
            return _gone(http)
        case "slow_body":
            return await _drip(http, answer, fault)
        case "cut_body":
            return await _cut(http, answer)
        case "huge_body":
            return await _flood(http, answer, fault)
    response = _whole(http, spoil(answer, fault, trace), html=fault.name in _HTML_FAULTS)
    if fault.name == "redirect":
        response.headers["Location"] = f"{http.scheme}://{http.host}{REDIRECT_TARGET}"
    return response


def _headers(answer: Answer, *, html: bool = False) -> dict[str, str]:
    headers = {
        "Content-Type": "text/html; charset=utf-8" if html else "application/json; charset=UTF-8",
        "facebook-api-version": answer.version,
        "x-fb-request-id": "A1b2C3d4E5f6G7h8",
        "x-fb-trace-id": "Sandbox0000",
        "x-fb-rev": "1000000001",
        "x-fb-debug": "c2FuZGJveA==",
        "Cache-Control": "private, no-cache, no-store, must-revalidate",
        "Access-Control-Allow-Origin": "*",
    }
    if answer.status >= 400:
        headers["WWW-Authenticate"] = 'OAuth "Facebook Platform" "invalid_request" "An error occurred"'
    return headers | dict(answer.headers)


def _whole(http: web.Request, answer: Answer, *, html: bool = False) -> web.Response:
    return web.Response(status=answer.status, body=answer.body.encode(), headers=_headers(answer, html=html))


def _gone(http: web.Request, *, reset: bool = False) -> web.StreamResponse:
    """Close the connection without an answer; with `reset` the caller sees RST instead of the end."""
    transport = http.transport
    if transport is not None:
        transport.abort() if reset else transport.close()
    return web.Response(status=500)


async def _start(http: web.Request, answer: Answer, length: int) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_headers(answer))
    response.content_length = length
    await response.prepare(http)
    return response


async def _drip(http: web.Request, answer: Answer, fault: Fault) -> web.StreamResponse:
    body = answer.body.encode()
    response = await _start(http, answer, len(body))
    step = max(1, fault.rule.bytes_per_second // 10)
    for start in range(0, len(body), step):
        await response.write(body[start : start + step])
        await asyncio.sleep(0.1)
    return response


async def _cut(http: web.Request, answer: Answer) -> web.StreamResponse:
    body = answer.body.encode()
    response = await _start(http, answer, len(body))
    await response.write(body[: len(body) // 2])
    if http.transport is not None:
        http.transport.close()
    return response


async def _flood(http: web.Request, answer: Answer, fault: Fault) -> web.StreamResponse:
    opening, closing = b'{"id":"', b'"}'
    length = max(fault.rule.size, len(opening) + len(closing))
    response = await _start(http, answer, length)
    await response.write(opening)
    left = length - len(opening) - len(closing)
    while left > 0:
        await response.write(_CHUNK[: min(left, len(_CHUNK))])
        left -= len(_CHUNK)
    await response.write(closing)
    return response
