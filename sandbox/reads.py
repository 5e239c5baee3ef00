"""What is read: node or edge + parameters -> the JSON of the answer.

Assumes that the caller may: tokens, limits and faults are checked in graph.py before. Raises GraphRefusal
where Graph would answer with an error.

Invariant: what a read gives of a lead is a selection of what leadtext.py tells of it, the sandbox's truth.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlencode

from sandbox import content, errors
from sandbox.config import SandboxConfig
from sandbox.leadtext import LEAD_DEFAULTS, LEAD_FIELDS
from sandbox.listing import Cursor, Reader, ResultPage, read_cursor
from sandbox.mixing import mix, share
from sandbox.ordering import Key, Leads, Ordered, Shuffled
from sandbox.rendered import RenderedLeads
from sandbox.request import (
    GraphRefusal,
    Request,
    TimeRange,
    split_path,
    time_range,
    wanted_fields,
    whole_number,
)
from sandbox.tokens import Tokens
from sandbox.wire import encode
from sandbox.world import RETENTION_SECONDS, Ad, Form, Lead, Page, World

Node = Lead | Form | Page | Ad


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call is about."""

    kind: str
    """One of faults.KINDS."""
    node: Node | None
    form: Form | None = None
    """For an ad: the form whose leads it brought."""
    unknown_id: str = ""

    @property
    def page_id(self) -> str | None:
        """The Page that the node belongs to."""
        if self.form is not None:
            return self.form.page_id
        return None if self.node is None or isinstance(self.node, Ad) else self.node.page_id


_EDGES: Final = {
    (Form, "leads"): "form_leads",
    (Ad, "leads"): "ad_leads",
    (Page, "leadgen_forms"): "page_forms",
}
_NODES: Final = {Lead: "lead", Form: "form", Page: "page", Ad: "ad"}


class Reads:
    """Every read of one world."""

    def __init__(self, world: World, tokens: Tokens, config: SandboxConfig) -> None:
        self._world, self._tokens, self._config = world, tokens, config
        self.rendered = RenderedLeads(world, hostile=config.hostile_text, kept_leads=config.kept_leads)
        self._walks = 0

    def asked(self, parts: Sequence[str]) -> Asked:
        """What a path without its version names."""
        if not parts or len(parts) > 2:
            raise GraphRefusal(errors.UNKNOWN_PATH.about("/".join(parts[1:])))
        if not (parts[0].isascii() and parts[0].isdigit()):
            raise GraphRefusal(errors.NO_ALIAS.about(parts[0]))
        node, form = self._node(parts[0])
        if node is None:
            return Asked("lead" if len(parts) == 1 else "other", None, unknown_id=parts[0])
        kind = _NODES[type(node)] if len(parts) == 1 else _EDGES.get((type(node), parts[1]))
        if kind is None:
            raise GraphRefusal(errors.UNKNOWN_PATH.about(parts[1]))
        return Asked(kind, node, form)

    def _node(self, node_id: str) -> tuple[Node | None, Form | None]:
        if len(node_id) > 30:
            return None, None
        world = self._world
        if form := world.form_by_ad_id.get(node_id):
            return next(ad for ad in form.ads if ad.ad_id == node_id), form
        return world.form_by_id.get(node_id) or world.page_by_id.get(node_id) or world.find(node_id), None

    def delete(self, asked: Asked, now: float) -> str:
        """DELETE of a node: leads only."""
        if not isinstance(asked.node, Lead) or not self._world.readable(asked.node, now):
            raise GraphRefusal(errors.NOT_THERE.about(asked.unknown_id))
        self._world.delete(asked.node)
        return encode({"success": True})

    def read(self, asked: Asked, request: Request, version: str, now: float, without: frozenset[str]) -> str:
        """The answer's JSON; fields of leads that are in `without` are left out."""
        node = asked.node
        wanted = wanted_fields(request.params.get("fields", ""))
        match asked.kind, node:
            case "lead", Lead():
                if not self._world.readable(node, now):
                    raise GraphRefusal(errors.NOT_THERE.about(node.leadgen_id))
                return self.lead(node, wanted, without)
            case "form_leads", Form():
                return self._leads(node, None, request, version, now, without)
            case "ad_leads", Ad() if asked.form:
                return self._leads(asked.form, node, request, version, now, without)
            case "page_forms", Page():
                return self._forms(node, request, version, now)
            case "form", Form():
                return encode(self._form(node, wanted, now))
            case "page", Page():
                fields = content.page_fields(node, self._tokens.of_page[node.page_id])
                allowed, defaults = content.PAGE_FIELDS, content.PAGE_DEFAULTS
                return encode(_select(fields, wanted or defaults, allowed, "Page"))
            case "ad", Ad():
                fields = content.ad_fields(node)
                return encode(_select(fields, wanted or ("id",), content.OBJECT_FIELDS, "Ad"))
        raise GraphRefusal(errors.NOT_THERE.about(asked.unknown_id))

    def lead(self, lead: Lead, wanted: Sequence[str], without: frozenset[str] = frozenset()) -> str:
        """One lead's JSON."""
        return self.rendered.lead(lead, _names(wanted), without)

    def truth(self, lead: Lead) -> dict[str, object]:
        """Everything about one lead, as the exact list tells it."""
        told: dict[str, object] = json.loads(self.rendered.truth(lead))
        return told

    def _form(self, form: Form, wanted: Sequence[str], now: float) -> dict[str, object]:
        fields = content.form_fields(self._world, form, now)
        return _select(fields, wanted or content.FORM_DEFAULTS, content.FORM_FIELDS, "LeadGenData")

    def _leads(
        self, form: Form, ad: Ad | None, request: Request, version: str, now: float, without: frozenset[str]
    ) -> str:
        params, world = request.params, self._world
        asked_limit = whole_number(params, "limit", self._config.default_limit)
        if self._config.reduce_above is not None and asked_limit > self._config.reduce_above:
            raise GraphRefusal(errors.REDUCE)
        within = time_range(params["filtering"]) if params.get("filtering") else TimeRange()
        names = _names(wanted_fields(params.get("fields", "")))
        cursor = self._cursor(params.get("before") or params.get("after"), now)
        if cursor is not None and cursor.key is not None and world.deleted(cursor.key[1]):
            # Graph's cursors die with the item that they point at.
            raise GraphRefusal(errors.BAD_CURSOR)
        walk = cursor.walk if cursor else self._new_walk()
        leads = self._in_order(form, within, walk, now)

        def accept(key: Key) -> bool:
            return world.listed(key, now) and (ad is None or world.ad_of(key[1]) is ad)

        mark = Cursor(None, walk=walk, issued_at=now)
        reader = Reader(accept, self._config.order == "newest_first", self._shorten, mark)
        limit = min(asked_limit, self._config.max_limit)
        if cursor is not None and params.get("before"):
            page = reader.before(leads, cursor, limit)
        else:
            page = reader.after(leads, cursor, limit)
        data = self.rendered.elements(page.numbers, names, without)
        return f'{{"data":[{data}]{_paging(page, request, version)}}}'

    def _new_walk(self) -> int:
        """Of one listing from its first result page to its last; 0 where ties are stable."""
        if not self._config.unstable_ties:
            return 0
        self._walks += 1
        return mix(self._config.seed, 13, self._walks) >> 16 or 1

    def _in_order(self, form: Form, within: TimeRange, walk: int, now: float) -> Leads:
        if self._config.order == "shuffled":
            return Shuffled(self._world, form, within)
        # Those that expired are passed over without being looked at one by one.
        first = math.floor(now - RETENTION_SECONDS) + 1
        since = first if within.since is None else max(first, within.since)
        return Ordered(self._world, form, TimeRange(since, within.until), walk)

    def _cursor(self, opaque: str | None, now: float) -> Cursor | None:
        """The cursor given, if it still holds."""
        cursor = read_cursor(opaque) if opaque else None
        most = self._config.cursor_seconds
        if cursor is not None and most is not None and now - cursor.issued_at > most:
            raise GraphRefusal(errors.BAD_CURSOR)
        return cursor

    def _shorten(self, first: int, limit: int) -> int:
        luck = share(self._config.seed, 8, first, limit)
        if luck < self._config.empty_pages:
            return 0
        return limit * 2 // 3 if luck < self._config.empty_pages + self._config.short_pages else limit

    def _forms(self, page: Page, request: Request, version: str, now: float) -> str:
        params = request.params
        limit = min(whole_number(params, "limit", self._config.default_limit), self._config.max_limit)
        wanted = wanted_fields(params.get("fields", ""))
        cursor = self._cursor(params.get("after"), now)
        forms = [
            form for form in page.forms if cursor is None or cursor.key is None or form.number > cursor.key[1]
        ]
        shown = forms[:limit]
        told: dict[str, object] = {"data": [self._form(form, wanted, now) for form in shown]}
        if not shown:
            return encode(told)
        text = encode(told)
        keys = [(form.created_time, form.number) for form in shown]
        more = shown[-1] is not page.forms[-1]
        before, after = Cursor(keys[0], issued_at=now), Cursor(keys[-1], issued_at=now)
        result_page = ResultPage((), before, after, has_next=more, has_previous=False)
        return f"{text[:-1]}{_paging(result_page, request, version)}}}"


def _paging(page: ResultPage, request: Request, version: str) -> str:
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


def _names(wanted: Sequence[str]) -> tuple[str, ...]:
    """The names of a lead's fields to tell, the id always. Raises GraphRefusal for one that leads do not have."""
    return _known_names(tuple(wanted))


@lru_cache(maxsize=1_024)
def _known_names(wanted: tuple[str, ...]) -> tuple[str, ...]:
    for name in wanted:
        if name not in LEAD_FIELDS:
            raise GraphRefusal(errors.unknown_field(name, "UserLeadGenInfo"))
    return tuple(dict.fromkeys((*(wanted or LEAD_DEFAULTS), "id")))


def _select(
    fields: Mapping[str, object], wanted: Sequence[str], allowed: Sequence[str], node: str
) -> dict[str, object]:
    """The wanted fields that there are, in the order asked, and always the id."""
    for name in wanted:
        if name not in allowed:
            raise GraphRefusal(errors.unknown_field(name, node))
    chosen = {name: fields[name] for name in wanted if name in fields}
    chosen.setdefault("id", fields["id"])
    return chosen
