"""/{form}/test_leads: one made-up lead a form, as Meta's testing tool makes them.

    POST -> a lead of kind test -> its id        GET -> that lead, as long as nobody has deleted it

Announcing what was made is left to whoever holds the sender. Test leads that the world has of itself do not count here.
https://developers.facebook.com/docs/marketing-api/guides/lead-ads/testing-troubleshooting

Invariant: a form has at most one test lead made here that is not deleted.
"""

from sandbox import errors
from sandbox.errors import CATALOG, SECOND_TEST_LEAD, SecondTestLead
from sandbox.journal import Journal
from sandbox.listing import Cursor, ResultPage
from sandbox.paging import paging_json
from sandbox.paths import Call
from sandbox.reads import lead_names
from sandbox.rendered import RenderedLeads
from sandbox.request import GraphRefusal, wanted_fields
from sandbox.wire import encode
from sandbox.world import Form, Lead, World


class LeadTesting:
    """The test leads of one world."""

    def __init__(
        self, world: World, rendered: RenderedLeads, journal: Journal, *, delay: float, second: SecondTestLead
    ) -> None:
        self._world, self._rendered, self._journal = world, rendered, journal
        self._delay, self._second = delay, CATALOG[SECOND_TEST_LEAD[second]]
        self._made: dict[str, Lead] = {}
        self.unannounced: list[Lead] = []
        """Made, and not yet taken to the sender."""

    def answer(self, call: Call) -> str:
        """The form's test lead, or a new one."""
        form = call.asked.node
        if not isinstance(form, Form):
            raise GraphRefusal(errors.NOT_THERE.about(call.asked.name))
        if call.method == "POST":
            return encode({"id": self._make(form, call.now).leadgen_id})
        call.need_get()
        return self._listed(form, call)

    def _make(self, form: Form, now: float) -> Lead:
        # What is asked for in field_data is not looked at: the tool's values are dummies.
        made = self._made.get(form.form_id)
        if made and self._world.kept(made, now):
            raise GraphRefusal(self._second)
        lead = self._world.create(form, now=now, delay=self._delay, kind="test")
        self._journal.lead(lead.leadgen_id).created_at = now
        self._made[form.form_id] = lead
        self.unannounced.append(lead)
        return lead

    def _listed(self, form: Form, call: Call) -> str:
        names = lead_names(wanted_fields(call.request.params.get("fields", "")))
        made = self._made.get(form.form_id)
        if made is None or not self._world.readable(made, call.now) or call.request.params.get("after"):
            return encode({"data": []})
        at = Cursor((made.created_time, made.number), issued_at=call.now)
        page = ResultPage((made.number,), at, at, has_next=False, has_previous=False)
        data = self._rendered.elements(page.numbers, names, frozenset())
        return f'{{"data":[{data}]{paging_json(page, call.request, call.version)}}}'
