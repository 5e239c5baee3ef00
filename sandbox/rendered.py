"""Leads as JSON: a lead and the names of fields -> its JSON object; many numbers -> the elements of a listing.

Writing a lead costs some fifteen microseconds. Who lists the same leads again and again (a benchmark) lets this
file keep what it wrote: a kept lead costs three microseconds and about a kilobyte of memory. Nothing that was written
changes: a lead is as it was made until it is gone, and what is gone is not asked for.

Invariant: at most `kept_leads` texts are held for each of at most four lists of names.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from sandbox.leadtext import LEAD_FIELDS, LeadTexts
from sandbox.world import Lead, World

_LISTS_OF_NAMES: Final = 4


class RenderedLeads:
    """Every lead of one world as JSON."""

    def __init__(self, world: World, *, hostile: bool, kept_leads: int) -> None:
        self._world, self._most = world, kept_leads
        self._texts = LeadTexts(world, hostile=hostile)
        self._kept: dict[tuple[str, ...], OrderedDict[int, str]] = {}

    def lead(self, lead: Lead, names: Sequence[str], without: frozenset[str] = frozenset()) -> str:
        """One lead with those of the named fields that it has, in their order."""
        fields = self._texts.fields(lead, answers="field_data" in names)
        if without:
            fields = {name: text for name, text in fields.items() if name not in without}
        return f"{{{','.join([fields[name] for name in names if name in fields])}}}"

    def truth(self, lead: Lead) -> str:
        """Everything about one lead, its Page too."""
        return f'{self.lead(lead, LEAD_FIELDS)[:-1]},"page_id":"{lead.page_id}"}}'

    def elements(self, numbers: Iterable[int], names: tuple[str, ...], without: frozenset[str]) -> str:
        """The leads with these numbers, with commas between them."""
        world = self._world
        if without or not self._most:
            return ",".join([self.lead(world.lead(number), names, without) for number in numbers])
        kept = self._kept_of(names)
        texts = []
        for number in numbers:
            text = kept.get(number)
            if text is None:
                text = kept[number] = self.lead(world.lead(number), names)
                if len(kept) > self._most:
                    kept.popitem(last=False)
            texts.append(text)
        return ",".join(texts)

    def _kept_of(self, names: tuple[str, ...]) -> OrderedDict[int, str]:
        if names not in self._kept:
            if len(self._kept) == _LISTS_OF_NAMES:
                del self._kept[next(iter(self._kept))]
            self._kept[names] = OrderedDict()
        return self._kept[names]
