"""A form and a span of time -> Meta's lead export of it, as a stream of bytes.

The only file that asks www.facebook.com; it names no file and retries nothing. Meta documents this address without a
word on how to log in, so whoever is not logged in gets a login page instead. Invariants: nothing is handed on that is
no export; no redirect is followed, so that cookie and token go to no other host; neither is in the URL or in an error;
the download ends within its time.
"""

import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import aiohttp

from worker.errors import ConfigurationError, LeadSyncError
from worker.export_file import ExportFile
from worker.export_text import NotAnExport

PATH: Final = "/ads/lead_gen/export_csv/"
CONNECT_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 120.0
"""Meta gathers the whole export before it sends the first byte."""
_BLOCK_BYTES: Final = 64 * 1_024
_HEADER_BYTES: Final = 256 * 1_024
"""The first line of an export is in so many bytes."""

LOG_IN: Final = (
    "log in to Meta in a browser with access to the form's leads, copy the Cookie header of a request to"
    " www.facebook.com into EXPORT_COOKIE, or download the file there and `leadsync import` it"
)


class ExportNotGiven(LeadSyncError):
    """Meta did not answer with an export."""

    reason = "export_not_given"


@dataclass(frozen=True, slots=True)
class ExportAccess:
    """Where the export is and by what right. The cookie goes before the token; times in seconds."""

    url: str
    cookie: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    timeout_seconds: float = 900.0


@dataclass(frozen=True, slots=True)
class Span:
    """What is asked for; None leaves it to Meta, which takes the form's creation."""

    since: datetime | None
    until: datetime


@dataclass(slots=True)
class Download:
    """An export under way: its size where Meta says so, and its bytes, once."""

    size: int | None
    blocks: AsyncIterator[bytes]


def span_of(since: datetime | None, until: datetime | None, created: datetime | None, now: datetime) -> Span:
    """The span as Meta would understand it: from the form's creation at the earliest, up to now at the latest.

    Raises LeadSyncError where nothing is in it.
    https://developers.facebook.com/docs/marketing-api/guides/lead-ads/retrieving/
    """
    if since is not None and created is not None:
        since = max(since, created)
    until = now if until is None else min(until, now)
    if (since or created or until) > until or since == until:
        raise LeadSyncError(
            "there is no time in this span: it ends before it begins, or before the form was made"
        )
    return Span(since or created, until)


@asynccontextmanager
async def download(access: ExportAccess, form_id: str, span: Span) -> AsyncIterator[Download]:
    """The export of a form. Raises ExportNotGiven, and while it is read as well."""
    query = {"id": form_id, "type": "form", "to_date": str(int(span.until.timestamp()))}
    if span.since is not None:
        query["from_date"] = str(int(span.since.timestamp()))
    timeout = aiohttp.ClientTimeout(
        total=access.timeout_seconds, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS
    )
    try:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=timeout) as session,
            session.get(
                access.url + PATH, params=query, headers=_headers(access), allow_redirects=False
            ) as response,
        ):
            _check(response)
            blocks = response.content.iter_chunked(_BLOCK_BYTES)
            yield Download(_size(response), _export_only(blocks))
    except TimeoutError:
        raise ExportNotGiven(
            f"Meta did not send the export in time ({access.timeout_seconds:g} s in all, {SILENT_SECONDS:g} s"
            " without a word); ask for a shorter span"
        ) from None
    except aiohttp.ClientError as error:
        # Their texts may quote the request, cookie and all.
        raise ExportNotGiven(f"the download from Meta failed: {type(error).__name__}; try again") from None


def _headers(access: ExportAccess) -> dict[str, str]:
    told = {"User-Agent": "leadsync", "Accept": "text/csv, text/tab-separated-values, */*"}
    if re.search(r"[\x00-\x1f\x7f]", access.cookie + access.token):
        raise ConfigurationError(
            "EXPORT_COOKIE, EXPORT_TOKEN: hold a control character, such as a line break"
        )
    if access.cookie:
        return {**told, "Cookie": access.cookie}
    return {**told, "Authorization": f"Bearer {access.token}"} if access.token else told


def _size(response: aiohttp.ClientResponse) -> int | None:
    """None where what is sent is packed: the bytes that are read are then more."""
    return None if "Content-Encoding" in response.headers else response.content_length


def _check(response: aiohttp.ClientResponse) -> None:
    """That this may be an export, as far as status and headers tell."""
    status = response.status
    if 300 <= status < 400 or status in (401, 403):
        raise ExportNotGiven(f"Meta wants a login instead of giving the export (HTTP {status}): {LOG_IN}")
    if status == 404:
        raise ExportNotGiven("Meta knows no such form, or none that this login may see (HTTP 404)")
    if status != 200:
        raise ExportNotGiven(f"Meta did not give the export (HTTP {status}); try again later")
    if response.content_type in ("text/html", "application/xhtml+xml"):
        raise ExportNotGiven(
            f"Meta answered with a web page, most likely its login, instead of the export: {LOG_IN}"
        )


async def _export_only(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The blocks, once their beginning has proved to be that of an export."""
    head = b""
    async for block in blocks:
        head += block
        if len(head) >= _HEADER_BYTES:
            break
    try:
        ExportFile(io.BytesIO(head), UTC)
    except NotAnExport as error:
        raise ExportNotGiven(f"what Meta sent {error}. If this was not expected: {LOG_IN}") from None
    yield head
    async for block in blocks:
        yield block
