"""GraphRequest -> HTTP -> GraphAnswer: the only file that opens a socket to Meta.

It builds no request and reads no meaning into an answer (wire.py does both), it retries nothing and follows no
redirect. Invariant: whatever goes wrong on the wire leaves as GraphUnavailable, whose message names the fault and
neither URL nor token; a body is read up to its bound and no further, and a larger one leaves as AnswerTooLarge; no
byte of a request leaves after its grant's deadline, nor a second time under the same grant (aiohttp sends a GET again
where a kept connection was dropped).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from types import SimpleNamespace
from typing import Final

import aiohttp
import structlog

from worker.budget.policy import Grant
from worker.errors import AnswerTooLarge, GrantLapsed, GraphUnavailable, LeadSyncError
from worker.graph.counting import Call, calls_of, each, failed, given_up
from worker.graph.wire import (
    FORM_FIELDS,
    FormRead,
    GraphAnswer,
    GraphRequest,
    LeadsRead,
    ResultPage,
    appsecret_proof,
    form_request,
    form_text,
    forms_request,
    lead_request,
    leads_request,
    read_answer,
    read_form,
    read_result_page,
    reading,
)
from worker.metrics import CALLS, OK, REQUEST_SECONDS, Meter

log = structlog.get_logger("graph")

CONNECT_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class GraphSettings:
    """Where Graph is and how long it may take. `app_secret` signs each token (appsecret_proof)."""

    url: str
    version: str
    app_secret: str
    timeout_seconds: float = 20.0
    max_body_bytes: int = 16 * 1024 * 1024

    def __repr__(self) -> str:
        return f"GraphSettings(url={self.url!r}, version={self.version!r})"


class GraphClient:
    """Reads leads from Graph over one aiohttp session. Use as an async context manager, in one event loop.

    `meter` counts each call, by what it asked for and how it ended.
    """

    def __init__(
        self,
        settings: GraphSettings,
        steady: Callable[[], float] = monotonic,
        meter: Meter | None = None,
    ) -> None:
        self._settings = settings
        self._steady = steady
        self._meter = Meter() if meter is None else meter
        self._session: aiohttp.ClientSession | None = None
        self._told_version: str | None = None

    async def __aenter__(self) -> "GraphClient":
        self._session = aiohttp.ClientSession(
            base_url=self._settings.url,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=self._settings.timeout_seconds, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "leadsync"},
            trace_configs=[_before_sending()],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def read_leads(
        self, leadgen_ids: Sequence[str], fields: Sequence[str], token: str, grant: Grant
    ) -> LeadsRead:
        """One HTTP request for 1 to 50 leads of one Page, a call each. Raises what the request as a whole met."""
        request = lead_request(
            leadgen_ids,
            fields,
            version=self._settings.version,
            token=token,
            proof=self._proof(token),
        )
        with self._counted(request) as calls:
            read = read_answer(await self._send(request, grant), leadgen_ids, datetime.now(UTC))
            calls[:] = each(request.kind, read.leads)
            return read

    async def list_leads(
        self, form_id: str, since: int, until: int, fields: Sequence[str], token: str, grant: Grant, *,
        limit: int, after: str | None,
    ) -> ResultPage:  # fmt: skip
        """One result page, a call, of a form's leads created in the whole seconds [since, until)."""
        request = leads_request(
            form_id, since, until, fields, limit=limit, after=after, version=self._settings.version, token=token,
            proof=self._proof(token),
        )  # fmt: skip
        with self._counted(request):
            return read_result_page(await self._send(request, grant), datetime.now(UTC))

    async def list_forms(
        self, page_id: str, token: str, grant: Grant, *, limit: int, after: str | None,
        fields: Sequence[str] = FORM_FIELDS,
    ) -> ResultPage:  # fmt: skip
        """One result page, a call, of a Page's forms."""
        request = forms_request(
            page_id, fields, limit=limit, after=after, version=self._settings.version, token=token,
            proof=self._proof(token),
        )  # fmt: skip
        with self._counted(request):
            return read_result_page(await self._send(request, grant), datetime.now(UTC))

    async def read_form(
        self, form_id: str, token: str, grant: Grant, *, fields: Sequence[str] = FORM_FIELDS
    ) -> FormRead:
        """One form by its id, a call."""
        request = form_request(
            form_id, fields, version=self._settings.version, token=token, proof=self._proof(token)
        )
        with self._counted(request):
            return read_form(await self._send(request, grant), datetime.now(UTC))

    async def ask(self, request: GraphRequest, grant: Grant) -> GraphAnswer:
        """Send a request that another file built and will read."""
        with self._counted(request) as calls:
            answer = await self._send(request, grant)
            calls[:] = calls_of(request, answer, datetime.now(UTC))
            return answer

    @contextmanager
    def _counted(self, request: GraphRequest) -> Iterator[list[Call]]:
        """Count what is made in here: a call of the request's kind, or those that the list then holds."""
        calls: list[Call] = [(request.kind, OK)]
        try:
            yield calls
        except GrantLapsed:
            calls.clear()  # nothing was sent
            raise
        except LeadSyncError as error:
            calls[:] = [failed(request, error)]
            raise
        except BaseException:
            calls[:] = [given_up(request)]
            raise
        finally:
            for (kind, result), number in Counter(calls).items():
                self._meter.count(CALLS, kind, result, by=number)

    def _proof(self, token: str) -> str:
        return appsecret_proof(self._settings.app_secret, token)

    async def _send(self, request: GraphRequest, grant: Grant) -> GraphAnswer:
        assert self._session is not None, "the client is used before `async with`"
        began_at, leave = monotonic(), _Leave(grant, self._steady)
        headers = {"Authorization": f"Bearer {request.token}"} if request.token else {}
        if request.form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        try:
            async with self._session.request(
                request.method,
                request.path,
                params=request.query or None,
                data=form_text(request.form) if request.form else None,
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=leave,
            ) as response:
                told = {name.lower(): value for name, value in response.headers.items()}
                with reading(told):
                    body = await self._read_bounded(response)
        except TimeoutError:
            raise GraphUnavailable(f"Graph did not answer in {self._settings.timeout_seconds:g} s") from None
        except (aiohttp.ClientError, ValueError, OSError) as error:
            # The chained exception could print the request; its type says enough.
            raise GraphUnavailable(f"the call to Graph failed: {type(error).__name__}") from None
        finally:
            if leave.sent:
                self._meter.observe(REQUEST_SECONDS, monotonic() - began_at, request.kind)
        self._watch_version(told.get("facebook-api-version"))
        return GraphAnswer(response.status, told, body)

    async def _read_bounded(self, response: aiohttp.ClientResponse) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > self._settings.max_body_bytes:
                response.close()
                raise AnswerTooLarge(
                    f"Graph answered more than {self._settings.max_body_bytes} bytes; ask for less at once"
                )
        return b"".join(parts)

    def _watch_version(self, served: str | None) -> None:
        """A retired version is not refused: Graph serves another one and says so in a header only."""
        if served is not None and served not in (self._settings.version, self._told_version):
            self._told_version = served
            log.warning("graph_version_differs", asked=self._settings.version, served=served)


@dataclass(slots=True)
class _Leave:
    """Leave to send one request under a grant."""

    grant: Grant
    steady: Callable[[], float]
    sent: bool = False

    def use(self) -> None:
        """The request is about to be written. Raises GrantLapsed where it may not be."""
        if self.sent:
            raise GrantLapsed("the kept connection was dropped; sending again is another call")
        if self.steady() >= self.grant.deadline:
            raise GrantLapsed("the grant ran out before the call was sent")
        self.sent = True


def _before_sending() -> aiohttp.TraceConfig:
    """aiohttp's last stop before it writes a request: the connection is there, and an error here closes it unused."""

    async def use_leave(
        _: aiohttp.ClientSession, about: SimpleNamespace, __: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        about.trace_request_ctx.use()

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(use_leave)
    return trace
