"""The download of a form's export file: who asks, form, span of time -> the file, piece by piece.

    GET /ads/lead_gen/export_csv/ -> logged in? -> form -> its leads of the span -> lines -> bytes

It is no call of Graph's: it counts for no limit, no fault befalls it, and who is not logged in is led to a login
page as a browser would be. What a line looks like is told in exportfile.py.

Invariant: no more than one piece of the file is in memory at a time.
"""

import asyncio
import json
import time
from collections.abc import Iterator
from itertools import islice
from typing import Final

from aiohttp import web

from sandbox.exportfile import ExportStyle, ExportTable
from sandbox.leadtext import LEAD_FIELDS
from sandbox.ordering import Key, Ordered
from sandbox.parts import Sandbox
from sandbox.request import TimeRange
from sandbox.world import Form

_LINES_A_PIECE: Final = 200
_PAGE: Final = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The export file, and the page that asks to log in."""
    download = _Download(sandbox)
    return [
        web.get("/ads/lead_gen/export_csv/", download.file),
        web.get("/ads/lead_gen/export_csv", download.file),
        web.get("/login", download.login),
    ]


class _Download:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        config = sandbox.config
        self._style = ExportStyle(
            config.export_encoding,
            config.export_separator,
            config.export_zone,
            config.export_flags,
            config.export_status,
        )

    async def login(self, _: web.Request) -> web.Response:
        return _html("Log in to Facebook")

    async def file(self, http: web.Request) -> web.StreamResponse:
        form = self._sandbox.world.form_by_id.get(http.query.get("id", ""))
        if not self._logged_in(http, form):
            raise web.HTTPFound("/login")
        if form is None or http.query.get("type", "form") != "form":
            return _html("This content isn't available right now", status=404)
        now = time.time()
        span = span_of(form, http.query.get("from_date", ""), http.query.get("to_date", ""), now)
        response = web.StreamResponse(
            headers={
                "Content-Type": "text/csv; charset=" + self._style.encoding.removesuffix("-sig"),
                "Content-Disposition": f'attachment; filename="leads_{form.form_id}.csv"',
            }
        )
        await response.prepare(http)
        table = ExportTable(form, self._style)
        await response.write(self._style.encode(table.header(), first=True))
        last: Key | None = None
        while piece := list(islice(self._leads(form, span, last, now), _LINES_A_PIECE)):
            last = piece[-1]
            text = "".join([self._line(table, key) for key in piece])
            await response.write(self._style.encode(text, first=False))
            await asyncio.sleep(0)
        return response

    def _leads(self, form: Form, span: TimeRange, last: Key | None, now: float) -> Iterator[Key]:
        """The leads behind `last`. Found anew for each piece, for leads are made and deleted meanwhile."""
        keys = Ordered(self._sandbox.world, form, span).above(last)
        return (key for key in keys if self._sandbox.world.listed(key, now))

    def _line(self, table: ExportTable, key: Key) -> str:
        lead = self._sandbox.world.lead(key[1])
        return table.line(json.loads(self._sandbox.graph.reads.rendered.lead(lead, LEAD_FIELDS)), key[0])

    def _logged_in(self, http: web.Request, form: Form | None) -> bool:
        """Whether a token of the form's Page or the user's comes along, or a browser's session."""
        authorization = http.headers.get("Authorization", "")
        token = authorization[7:].strip() if authorization[:7].lower() == "bearer " else ""
        tokens, now = self._sandbox.tokens, time.time()
        holder = tokens.alive(token or http.query.get("access_token", ""), now)
        if holder is not None and (
            holder.kind == "user" or (form is not None and holder.page_id == form.page_id)
        ):
            return True
        session = tokens.alive(http.cookies.get("session", ""), now)
        return session is not None and session.kind == "user"


def span_of(form: Form, from_date: str, to_date: str, now: float) -> TimeRange:
    """The time that the file covers, both ends in it: from the form's creation and to this moment, unless less
    is asked for. What is no unix time is as if it were missing."""
    since, until = _unix(from_date), _unix(to_date)
    first = form.created_time if since is None else max(since, form.created_time)
    last = int(now) if until is None else min(until, int(now))
    return TimeRange(first, last + 1)


def _unix(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None


def _html(title: str, status: int = 200) -> web.Response:
    return web.Response(status=status, text=_PAGE.format(title), content_type="text/html")
