"""The simulated world: seed -> pages, forms, ads; lead number -> lead, and back from its id.

Historic leads are not kept but computed when asked for, so a world of a million costs nothing. Their times
end at the last midnight (UTC), so a restart on the same day finds the same world. Leads created while it
runs are kept in memory, in order of their time for each form; so are forms that appear meanwhile, which have
no history. What a lead's fields hold is told in leadtext.py.

Invariant: same seed, same sizes, same day -> same pages, forms, ads and historic leads.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

from sandbox.mixing import mix, mixer
from sandbox.questions import Question, questions_of, tracking_of

DAY: Final = 86_400
RETENTION_SECONDS: Final = 90 * DAY
"""Meta keeps a lead for 90 days. https://www.facebook.com/business/help/1526849577619206"""
_HISTORY_SECONDS: Final = 88 * DAY
"""Historic leads are at most this old at the midnight before the start, so that none expires at the one after it."""

Kind = Literal["ad", "organic", "test"]
KINDS: Final[tuple[Kind, ...]] = ("ad", "organic", "test")
STATUSES: Final = ("ACTIVE", "ARCHIVED", "DELETED", "DRAFT")
"""Of a form. https://developers.facebook.com/docs/marketing-api/reference/lead-gen-data"""

_PAGE_IDS: Final = 100_000_000_000_000
_FORM_IDS: Final = 7_000_000_000_000_000
_AD_IDS: Final = 23_840_000_000_000_000
"""Seventeen digits: beyond what a JavaScript number can hold, as the real ones are."""
_USER_IDS: Final = 3_000_000_000_000_000
_LEAD_IDS: Final = 1_200_000_000_000_000
_LEAD_STEP: Final = 104_729
"""Ids of successive leads differ by this prime: an id turns back into its number by one division."""


@dataclass(frozen=True, slots=True)
class Ad:
    """An ad with what it belongs to."""

    ad_id: str
    ad_name: str
    adset_id: str
    adset_name: str
    campaign_id: str
    campaign_name: str


@dataclass(frozen=True, slots=True)
class Form:
    """A lead form; `number` counts over all pages. Whether it is archived by now is told by the world."""

    number: int
    form_id: str
    page_id: str
    name: str
    locale: str
    status: str
    """As it was at first."""
    created_time: int
    questions: tuple[Question, ...]
    ads: tuple[Ad, ...]
    tracking: tuple[tuple[str, str], ...]
    """Tracking parameters, which Graph tells among the answers."""
    disclaimers: bool
    """Whether it asks for consent by optional boxes."""


@dataclass(frozen=True, slots=True)
class Page:
    """A Facebook Page."""

    page_id: str
    name: str
    forms: tuple[Form, ...]


class Lead(NamedTuple):
    """Who a lead is and when it came; not yet what was answered. A tuple, since a listing makes many."""

    number: int
    leadgen_id: str
    form: Form
    ad: Ad | None
    kind: Kind
    created_time: int
    made_at: float
    """When this world came to know it; `created_time` may be dated back."""
    visible_at: float

    @property
    def page_id(self) -> str:
        """The Page whose form it was."""
        return self.form.page_id


@dataclass(frozen=True, slots=True)
class _Fresh:
    form: Form
    kind: Kind
    created_time: int
    made_at: float
    visible_at: float


_FORM_NAMES: Final = (
    "Solar Frühjahr",
    "Test drive / Probefahrt",
    "Newsletter 📰",
    "Orçamento grátis",
    "طلب عرض",
)
_LOCALES: Final = ("de_DE", "en_US", "pt_BR", "fr_FR", "ar_AR")
_PAGE_NAMES: Final = ("Café am Markt", "Sunny Roofs Ltd.", "Autohaus Müller & Söhne", "Clínica São João")


class World:
    """Everything that exists in one sandbox."""

    def __init__(
        self, *, seed: int, pages: int, forms_per_page: int, ads_per_form: int, leads: int, now: float
    ) -> None:
        self.seed = seed
        self.historic = leads
        self.midnight = int(now) // DAY * DAY
        self.pages = tuple(self._page(number, forms_per_page, ads_per_form) for number in range(pages))
        self.forms = tuple(form for page in self.pages for form in page.forms)
        self.page_by_id = {page.page_id: page for page in self.pages}
        self.form_by_id = {form.form_id: form for form in self.forms}
        self.form_by_ad_id = {ad.ad_id: form for form in self.forms for ad in form.ads}
        self.user_id = str(_USER_IDS + mix(seed, 14) % 1_000_000_000_000)
        self._ads_per_form = ads_per_form
        self._old_forms = len(self.forms)
        """Historic leads are dealt to the forms of the start in turn."""
        self._histories = [
            max(0, -(-(leads - number) // self._old_forms)) for number in range(self._old_forms)
        ]
        self._statuses: dict[str, str] = {}
        self._kind_luck, self._ad_luck, self._scatter = mixer(seed, 5), mixer(seed, 6), mixer(seed, 10)
        self._first_lead_id = _LEAD_IDS + mix(seed, 4) % 1_000_000_000_000
        self._fresh: list[_Fresh] = []
        self._fresh_of_form: list[list[tuple[int, int]]] = [[] for _ in self.forms]
        self._scattered: dict[str, list[tuple[int, int]]] = {}
        self._deleted: set[int] = set()

    def __len__(self) -> int:
        """How many leads there ever were."""
        return self.historic + len(self._fresh)

    def create(
        self,
        form: Form,
        *,
        now: float,
        delay: float = 0.0,
        created_time: int | None = None,
        kind: Kind | None = None,
    ) -> Lead:
        """A new lead of `form`, readable from `delay` seconds on; created_time can date it back."""
        number = len(self)
        created_time = int(now) if created_time is None else created_time
        self._fresh.append(_Fresh(form, kind or self._kind(number), created_time, now, now + delay))
        insort(self._fresh_of_form[form.number], (created_time, number))
        if form.form_id in self._scattered:
            insort(self._scattered[form.form_id], (self._scatter(number), number))
        return self.lead(number)

    def add_form(
        self,
        page: Page,
        *,
        created_time: int,
        name: str | None = None,
        status: str | None = None,
        questions: Sequence[Question] | None = None,
        copy_of: Form | None = None,
    ) -> Form:
        """A new form of `page` with ads of its own. One that copies another has its questions, keys and all, but
        new ids: published forms cannot be changed, so this is how people change them."""
        form = self._form(len(self.forms), page.page_id, self._ads_per_form)
        form = replace(form, created_time=created_time, status=status or "ACTIVE", name=name or form.name)
        if copy_of is not None:
            kept = {
                each: getattr(copy_of, each) for each in ("locale", "questions", "tracking", "disclaimers")
            }
            form = replace(form, name=name or f"{copy_of.name}-copy", **kept)
        if questions is not None:
            form = replace(form, questions=tuple(questions), tracking=())
        self.forms += (form,)
        self._fresh_of_form.append([])
        self.form_by_id[form.form_id] = form
        self.form_by_ad_id |= {ad.ad_id: form for ad in form.ads}
        grown = replace(self.page_by_id[page.page_id], forms=(*self.page_by_id[page.page_id].forms, form))
        self.page_by_id[page.page_id] = grown
        self.pages = tuple(grown if each.page_id == page.page_id else each for each in self.pages)
        return form

    def set_status(self, form: Form, status: str) -> None:
        """Archive a form, or bring it back."""
        self._statuses[form.form_id] = status

    def status_of(self, form: Form) -> str:
        """Whether a form is active, archived, deleted or a draft."""
        return self._statuses.get(form.form_id, form.status)

    def closed(self, form: Form) -> bool:
        """Whether a form was taken out of use since the start: people no longer fill it in."""
        return self._statuses.get(form.form_id, "ACTIVE") != "ACTIVE"

    def delete(self, lead: Lead) -> None:
        """Take a lead away, as DELETE does."""
        self._deleted.add(lead.number)

    def lead(self, number: int) -> Lead:
        """The lead with this number, whether or not it can still be read."""
        leadgen_id = str(self._first_lead_id + number * _LEAD_STEP)
        if number >= self.historic:
            fresh = self._fresh[number - self.historic]
            ad = self._ad(number, fresh.form) if fresh.kind == "ad" else None
            return Lead(
                number,
                leadgen_id,
                fresh.form,
                ad,
                fresh.kind,
                fresh.created_time,
                fresh.made_at,
                fresh.visible_at,
            )
        place, form_number = divmod(number, self._old_forms)
        form = self.forms[form_number]
        kind = self._kind(number)
        ad = self._ad(number, form) if kind == "ad" else None
        created_time = self._historic_time(form, place)
        return Lead(number, leadgen_id, form, ad, kind, created_time, created_time, created_time)

    def find(self, leadgen_id: str) -> Lead | None:
        """The lead with this id, if there ever was one."""
        number, rest = divmod(int(leadgen_id) - self._first_lead_id, _LEAD_STEP)
        return self.lead(number) if rest == 0 and 0 <= number < len(self) else None

    def readable(self, lead: Lead, now: float) -> bool:
        """Whether Graph has this lead now: visible already, not expired, not deleted."""
        return lead.visible_at <= now and self.kept(lead, now)

    def kept(self, lead: Lead, now: float) -> bool:
        """Whether the lead is still there, visible or not."""
        return lead.created_time > now - RETENTION_SECONDS and lead.number not in self._deleted

    def deleted(self, number: int) -> bool:
        """Whether DELETE took the lead with this number away."""
        return number in self._deleted

    def listed(self, key: tuple[int, int], now: float) -> bool:
        """Whether Graph has the lead of this (created_time, number) now: `readable` without making the lead."""
        created_time, number = key
        if created_time <= now - RETENTION_SECONDS or number in self._deleted:
            return False
        return number < self.historic or self._fresh[number - self.historic].visible_at <= now

    def form_of(self, number: int) -> Form:
        """The form of the lead with this number."""
        if number >= self.historic:
            return self._fresh[number - self.historic].form
        return self.forms[number % self._old_forms]

    def ad_of(self, number: int) -> Ad | None:
        """The ad that brought the lead with this number."""
        kind = self._kind(number) if number < self.historic else self._fresh[number - self.historic].kind
        return self._ad(number, self.form_of(number)) if kind == "ad" else None

    def history_of(self, form: Form) -> int:
        """How many historic leads the form has."""
        return self._histories[form.number] if form.number < self._old_forms else 0

    def fresh_of(self, form: Form) -> list[tuple[int, int]]:
        """(created_time, number) of the leads created since the start, sorted. Not to be changed."""
        return self._fresh_of_form[form.number]

    def historic_key(self, form: Form, place: int) -> tuple[int, int]:
        """(created_time, number) of the form's historic lead at `place`, sorted by it."""
        return self._historic_time(form, place), place * self._old_forms + form.number

    def historic_keys(self, form: Form, places: range) -> Iterator[tuple[int, int]]:
        """The same of many places, one after the other."""
        step, number, time = self._old_forms, form.number, self._historic_time
        return ((time(form, place), place * step + number) for place in places)

    def place_of(self, number: int) -> int:
        """The place of the historic lead with this number among those of its form."""
        return number // self._old_forms

    def scatter(self, number: int) -> int:
        """Where the lead with this number stands when leads are in no order at all."""
        return self._scatter(number)

    def scattered_of(self, form: Form) -> list[tuple[int, int]]:
        """(scatter, number) of the leads created since the start, sorted. Not to be changed."""
        if form.form_id not in self._scattered:
            numbers = [number for _, number in self._fresh_of_form[form.number]]
            self._scattered[form.form_id] = sorted((self._scatter(number), number) for number in numbers)
        return self._scattered[form.form_id]

    def created_time_of(self, number: int) -> int:
        """When the lead with this number, one of those created since the start, came."""
        return self._fresh[number - self.historic].created_time

    def count_since(self, form: Form, since: int) -> int:
        """How many leads the form got at or after `since`, deleted ones included."""
        fresh = self.fresh_of(form)
        places = range(self.history_of(form))
        old = len(places) - bisect_left(places, since, key=lambda place: self._historic_time(form, place))
        return old + len(fresh) - bisect_left(fresh, (since, -1))

    def _historic_time(self, form: Form, place: int) -> int:
        # Now and then eight leads share a second, for that is where slicing by time goes wrong.
        if place // 8 % 5 == 0:
            place -= place % 8
        return self.midnight - _HISTORY_SECONDS + place * _HISTORY_SECONDS // self._histories[form.number]

    def _kind(self, number: int) -> Kind:
        luck = self._kind_luck(number) % 200
        return "test" if luck == 0 else "organic" if luck < 25 else "ad"

    def _ad(self, number: int, form: Form) -> Ad:
        return form.ads[self._ad_luck(number) % len(form.ads)]

    def _page(self, number: int, forms: int, ads: int) -> Page:
        page_id = str(_PAGE_IDS + number * 1_000_000_007 + mix(self.seed, 1) % 800_000_000_000_000)
        made = tuple(self._form(number * forms + step, page_id, ads) for step in range(forms))
        return Page(page_id, f"{_PAGE_NAMES[number % len(_PAGE_NAMES)]} {number + 1}", made)

    def _form(self, number: int, page_id: str, ads: int) -> Form:
        kind = mix(self.seed, 2, number)
        return Form(
            number=number,
            form_id=str(_FORM_IDS + number * 7_919 + mix(self.seed, 2) % 900_000_000_000_000),
            page_id=page_id,
            name=f"{_FORM_NAMES[kind % len(_FORM_NAMES)]} {number + 1}",
            locale=_LOCALES[kind % len(_LOCALES)],
            status="ARCHIVED" if number % 7 == 6 else "ACTIVE",
            created_time=self.midnight - _HISTORY_SECONDS - 30 * DAY - number * 3_600,
            questions=tuple(questions_of(self.seed, number)),
            ads=tuple(self._make_ad(number * ads + step, step) for step in range(ads)),
            tracking=tracking_of(self.seed, number),
            disclaimers=number % 2 == 0,
        )

    def _make_ad(self, number: int, step: int) -> Ad:
        first = _AD_IDS + mix(self.seed, 3) % 1_000_000_000_000 + number * 30
        return Ad(
            ad_id=str(first),
            ad_name=f"Anzeige {number + 1} / Größe {'S' if step else 'XL'} 🌞",
            adset_id=str(first + 10),
            adset_name=f"Ad set {number // 2 + 1} / 25-54",
            campaign_id=str(first + 20),
            campaign_name=f"Campanha de verão {number // 4 + 1}",
        )
