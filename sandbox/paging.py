"""The paging of a listing: result page -> its `paging` member, with links that carry the token as Graph's do.

Which leads, forms or Pages stand on a result page is decided where they are listed.

Invariant: `next` stands there exactly where more follows.
"""

from typing import Final
from urllib.parse import urlencode

from sandbox.listing import ResultPage
from sandbox.request import Request, split_path
from sandbox.wire import encode


def paging_json(page: ResultPage, request: Request, version: str) -> str:
    """The `paging` member with its comma, or nothing where there is nothing to point at."""
    if page.before is None or page.after is None:
        return ""
    paging: dict[str, object] = {"cursors": {"before": page.before.opaque(), "after": page.after.opaque()}}
    if page.has_next:
        paging["next"] = _link(request, version, "after", page.after.opaque())
    if page.has_previous:
        paging["previous"] = _link(request, version, "before", page.before.opaque())
    return f',"paging":{encode(paging)}'


_NOT_IN_LINKS: Final = ("after", "before", "appsecret_proof", "appsecret_time")


def _link(request: Request, version: str, name: str, cursor: str) -> str:
    """A full URL that carries the token, as Graph's do: whoever logs it, leaks."""
    params = {key: value for key, value in request.params.items() if key not in _NOT_IN_LINKS}
    node = "/".join(split_path(request.path)[1])
    return f"{request.base_url}/{version}/{node}?{urlencode({**params, name: cursor}, errors='replace')}"
