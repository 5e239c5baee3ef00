"""What is read: node or edge + parameters -> the JSON of the answer.

Assumes that the caller may: tokens, limits and faults are checked in graph.py before. Raises GraphRefusal
where Graph would answer with an error.

Invariant: what a read gives of a lead is a selection of what leadtext.py tells of it, the sandbox's truth.
"""

import json
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from sandbox import content, errors
from sandbox.config import SandboxConfig
from sandbox.leadtext import LEAD_DEFAULTS, LEAD_FIELDS
from sandbox.listing import Cursor, Reader, ResultPage, read_cursor
from sandbox.mixing import mix, share
from sandbox.ordering import Key, Leads, Ordered, Shuffled
from sandbox.paging import paging_json
from sandbox.paths import Asked
from sandbox.rendered import RenderedLeads
from sandbox.request import (
    GraphRefusal,
    Request,
    TimeRange,
    time_range,
    wanted_fields,
    whole_number,
)
from sandbox.wire import encode
from sandbox.world import RETENTION_SECONDS, Ad, Form, Lead, Page, World


class Reads:
    """Every read of one world."""

    def __init__(self, world: World, config: SandboxConfig) -> None:
        self._world, self._config = world, config
        self.rendered = RenderedLeads(world, hostile=config.hostile_text, kept_leads=config.kept_leads)
        self._walks = 0

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
            case "ad", Ad():
                fields = content.ad_fields(node)
                return encode(select(fields, wanted or ("id",), content.OBJECT_FIELDS, "Ad"))
        raise GraphRefusal(errors.NOT_THERE.about(asked.unknown_id))

    def lead(self, lead: Lead, wanted: Sequence[str], without: frozenset[str] = frozenset()) -> str:
        """One lead's JSON."""
        return self.rendered.lead(lead, lead_names(wanted), without)

    def truth(self, lead: Lead) -> dict[str, object]:
        """Everything about one lead, as the exact list tells it."""
        told: dict[str, object] = json.loads(self.rendered.truth(lead))
        return told

    def _form(self, form: Form, wanted: Sequence[str], now: float) -> dict[str, object]:
        fields = content.form_fields(self._world, form, now)
        return select(fields, wanted or content.FORM_DEFAULTS, content.FORM_FIELDS, "LeadGenData")

    def _leads(
        self, form: Form, ad: Ad | None, request: Request, version: str, now: float, without: frozenset[str]
    ) -> str:
        params, world = request.params, self._world
        asked_limit = whole_number(params, "limit", self._config.default_limit)
        if self._config.reduce_above is not None and asked_limit > self._config.reduce_above:
            raise GraphRefusal(errors.REDUCE)
        within = time_range(params["filtering"]) if params.get("filtering") else TimeRange()
        names = lead_names(wanted_fields(params.get("fields", "")))
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
        return f'{{"data":[{data}]{paging_json(page, request, version)}}}'

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
        return f"{text[:-1]}{paging_json(result_page, request, version)}}}"


def lead_names(wanted: Sequence[str]) -> tuple[str, ...]:
    """The names of a lead's fields to tell, the id always. Raises GraphRefusal for one that leads do not have."""
    return _known_names(tuple(wanted))


@lru_cache(maxsize=1_024)
def _known_names(wanted: tuple[str, ...]) -> tuple[str, ...]:
    for name in wanted:
        if name not in LEAD_FIELDS:
            raise GraphRefusal(errors.unknown_field(name, "UserLeadGenInfo"))
    return tuple(dict.fromkeys((*(wanted or LEAD_DEFAULTS), "id")))


def select(
    fields: Mapping[str, object], wanted: Sequence[str], allowed: Sequence[str], node: str
) -> dict[str, object]:
    """The wanted fields that there are, in the order asked, and always the id. Raises GraphRefusal for one that such
    a node does not have."""
    for name in wanted:
        if name not in allowed:
            raise GraphRefusal(errors.unknown_field(name, node))
    chosen = {name: fields[name] for name in wanted if name in fields}
    chosen.setdefault("id", fields["id"])
    return chosen
