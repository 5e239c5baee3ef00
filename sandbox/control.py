"""The control routes under /sandbox: orders and questions of whoever tests -> the parts of the sandbox.

They ask for no password, so a sandbox belongs on a private network. docs/sandbox.md lists them with
examples. Each route reads its body, calls one part and answers JSON; what the parts do is told there.

Invariant: a body that cannot be carried out is answered with 400 and a sentence, and changes nothing.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice

from aiohttp import web

from sandbox.config import MOST_OFF
from sandbox.faults import PlanRefused, parse_rules
from sandbox.formorders import change_forms, form_json
from sandbox.given import OrderRefused, number, only
from sandbox.journal import LeadRecord
from sandbox.orders import create_leads, log_range, run_from, set_limits, truth_numbers
from sandbox.parts import Sandbox
from sandbox.subscriptionorders import drop_subscriptions
from sandbox.tokenorders import order_tokens
from sandbox.wire import plain

_LINES_A_WRITE = 200

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """All control routes of this sandbox."""
    it = _Control(sandbox)
    return [
        web.get("/sandbox/health", it.health),
        web.get("/sandbox/env", it.env),
        web.get("/sandbox/pages", it.pages),
        web.get("/sandbox/tokens", it.tokens),
        web.post("/sandbox/tokens", it.order_tokens),
        web.get("/sandbox/truth", it.truth),
        web.post("/sandbox/forms", it.change_forms),
        web.post("/sandbox/leads", it.create_leads),
        web.get("/sandbox/leads", it.lead_records),
        web.get("/sandbox/leads/{leadgen_id}", it.lead_record),
        web.get("/sandbox/calls", it.calls),
        web.delete("/sandbox/calls", it.clear_calls),
        web.get("/sandbox/calls/log", it.call_log),
        web.post("/sandbox/limits", it.set_limits),
        web.get("/sandbox/faults", it.faults),
        web.post("/sandbox/faults", it.give_faults),
        web.delete("/sandbox/faults", it.clear_faults),
        web.get("/sandbox/latency", it.latency),
        web.post("/sandbox/latency", it.set_latency),
        web.post("/sandbox/clock", it.set_clock),
        web.post("/sandbox/send", it.send),
        web.get("/sandbox/send", it.progress),
        web.delete("/sandbox/send", it.stop_sending),
        web.get("/sandbox/send/log", it.attempts),
        web.get("/sandbox/subscriptions", it.subscriptions),
        web.post("/sandbox/subscriptions", it.drop_subscriptions),
        web.post("/sandbox/verify", it.verify),
        web.route("*", "/sandbox/redirected", it.redirected),
    ]


class _Control:
    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    async def health(self, _: web.Request) -> web.Response:
        return _json({"ok": True})

    async def env(self, http: web.Request) -> web.Response:
        config = self._sandbox.config
        told = {
            "GRAPH_URL": str(http.url.origin()),
            "META_APP_ID": config.app_id,
            "META_APP_SECRET": config.app_secret,
            "META_VERIFY_TOKEN": config.verify_token,
            "META_USER_TOKEN": self._sandbox.tokens.of_user,
            "WEBHOOK_URL": config.webhook_url,
        }
        return web.Response(text="".join(f"{name}={value}\n" for name, value in told.items()))

    async def pages(self, _: web.Request) -> web.Response:
        tokens = self._sandbox.tokens
        working = tokens.working(time.time())
        pages = [
            {
                "page_id": page.page_id,
                "name": page.name,
                "token": working.get(page.page_id),
                "forms": [form_json(self._sandbox, form) for form in page.forms],
            }
            for page in self._sandbox.world.pages
        ]
        return _json({"pages": pages, "user_token": tokens.of_user, "app_id": self._sandbox.config.app_id})

    async def tokens(self, _: web.Request) -> web.Response:
        return _json(self._sandbox.tokens.working(time.time()))

    async def order_tokens(self, http: web.Request) -> web.Response:
        return _json(order_tokens(self._sandbox, await _body(http), time.time()))

    async def truth(self, http: web.Request) -> web.StreamResponse:
        world, now = self._sandbox.world, time.time()
        leads = map(world.lead, truth_numbers(self._sandbox, http.query))
        told = (self._sandbox.graph.reads.rendered.truth(lead) for lead in leads if world.kept(lead, now))
        return await _send_lines(http, told)

    async def change_forms(self, http: web.Request) -> web.Response:
        form = change_forms(self._sandbox, await _body(http), time.time())
        return _json({"page_id": form.page_id, "name": form.name, **form_json(self._sandbox, form)})

    async def create_leads(self, http: web.Request) -> web.Response:
        leads = create_leads(self._sandbox, await _body(http), time.time())
        return _json({"leads": [lead.leadgen_id for lead in leads]})

    async def lead_records(self, http: web.Request) -> web.StreamResponse:
        records = self._sandbox.journal.leads
        told = ({"id": leadgen_id, **_record(records[leadgen_id])} for leadgen_id in list(records))
        return await _lines(http, told)

    async def lead_record(self, http: web.Request) -> web.Response:
        leadgen_id = http.match_info["leadgen_id"]
        lead = self._sandbox.world.find(leadgen_id) if leadgen_id.isascii() and leadgen_id.isdigit() else None
        if lead is None:
            return _json({"error": "no such lead"}, status=404)
        told = {
            "id": lead.leadgen_id,
            "page_id": lead.page_id,
            "form_id": lead.form.form_id,
            "kind": lead.kind,
            "created_time": lead.created_time,
            "visible_at": lead.visible_at,
            **_record(self._sandbox.journal.lead(leadgen_id)),
        }
        return _json(told)

    async def calls(self, _: web.Request) -> web.Response:
        journal, meters = self._sandbox.journal, self._sandbox.graph.meters
        return _json({**journal.report(), **meters.windows(time.time(), journal.into_block)})

    async def clear_calls(self, _: web.Request) -> web.Response:
        self._sandbox.journal.clear()
        self._sandbox.graph.meters.clear_most()
        return _json({"ok": True})

    async def call_log(self, http: web.Request) -> web.StreamResponse:
        page_id, since = log_range(self._sandbox, http.query)
        logged = self._sandbox.journal.logged(since, page_id)
        return await _lines(http, ([at, count, kind, result] for at, _, count, kind, result in logged))

    async def set_limits(self, http: web.Request) -> web.Response:
        set_limits(self._sandbox, await _body(http), time.time())
        return await self.calls(http)

    async def faults(self, _: web.Request) -> web.Response:
        return _json({"rules": self._sandbox.plan.report(time.time())})

    async def give_faults(self, http: web.Request) -> web.Response:
        text = await http.text()
        rules, plan = parse_rules(text), json.loads(text)
        merge = isinstance(plan, dict) and plan.get("merge") is True
        self._sandbox.plan.give(rules, time.time(), merge=merge)
        return await self.faults(http)

    async def clear_faults(self, http: web.Request) -> web.Response:
        self._sandbox.plan.clear()
        return await self.faults(http)

    async def latency(self, _: web.Request) -> web.Response:
        return _json(asdict(self._sandbox.latency))

    async def set_latency(self, http: web.Request) -> web.Response:
        order = await _body(http)
        latency = self._sandbox.latency
        given = order.get("pages", latency.pages)
        if not isinstance(given, dict):
            raise OrderRefused("pages is an object of page id -> seconds")
        pages = {page_id: number(given, page_id) for page_id in given}
        seconds, jitter = number(order, "seconds", latency.seconds), number(order, "jitter", latency.jitter)
        latency.seconds, latency.jitter, latency.pages = seconds, jitter, pages
        return await self.latency(http)

    async def set_clock(self, http: web.Request) -> web.Response:
        order = await _body(http)
        only(order, {"offset_seconds"})
        offset = order.get("offset_seconds", 0)
        if isinstance(offset, bool) or not isinstance(offset, int | float) or not abs(offset) <= MOST_OFF:
            raise OrderRefused(f"offset_seconds is a number from -{MOST_OFF} to {MOST_OFF}")
        self._sandbox.clock_offset = float(offset)
        return _json({"offset_seconds": self._sandbox.clock_offset})

    async def send(self, http: web.Request) -> web.Response:
        self._sandbox.sender.start(run_from(self._sandbox, await _body(http)))
        return _json(self._sandbox.sender.progress.report(), status=202)

    async def progress(self, _: web.Request) -> web.Response:
        return _json(self._sandbox.sender.progress.report())

    async def stop_sending(self, http: web.Request) -> web.Response:
        await self._sandbox.sender.stop()
        return await self.progress(http)

    async def attempts(self, http: web.Request) -> web.StreamResponse:
        # Over a copy, as the log of calls.
        return await _lines(http, list(self._sandbox.journal.attempts))

    async def subscriptions(self, _: web.Request) -> web.Response:
        return _json(self._sandbox.graph.subscriptions.report())

    async def drop_subscriptions(self, http: web.Request) -> web.Response:
        drop_subscriptions(self._sandbox, await _body(http))
        return await self.subscriptions(http)

    async def verify(self, http: web.Request) -> web.Response:
        config = self._sandbox.config
        url = (await _body(http)).get("url", config.webhook_url)
        status, verified = await self._sandbox.sender.verify(str(url), config.verify_token)
        return _json({"verified": verified, "status": status})

    async def redirected(self, _: web.Request) -> web.Response:
        self._sandbox.journal.redirects_followed += 1
        return _json({"id": "0"})


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer an order that cannot be carried out with 400."""
    try:
        return await handler(request)
    except (OrderRefused, PlanRefused) as refused:
        return _json({"error": str(refused)}, status=400)


async def _body(http: web.Request) -> Mapping[str, object]:
    text = await http.text()
    try:
        order = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        raise OrderRefused("the body is JSON") from None
    if not isinstance(order, dict):
        raise OrderRefused("the body is a JSON object")
    return order


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, text=plain(value) + "\n", content_type="application/json")


async def _lines(http: web.Request, values: Iterable[object]) -> web.StreamResponse:
    return await _send_lines(http, map(plain, values))


async def _send_lines(http: web.Request, texts: Iterable[str]) -> web.StreamResponse:
    """JSON lines, a few hundred a write, so that a long list neither fills memory nor holds up Graph."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(http)
    lines: Iterator[str] = (text + "\n" for text in texts)
    while chunk := "".join(islice(lines, _LINES_A_WRITE)):
        await response.write(chunk.encode())
        await asyncio.sleep(0)
    return response


def _record(record: LeadRecord) -> dict[str, object]:
    return {
        "created_at": record.created_at,
        "pinged_at": record.pinged_at,
        "pings": record.pings,
        "accepted_at": record.accepted_at,
        "first_read_at": record.first_read_at,
        "reads": record.reads,
        "results": record.results,
    }
