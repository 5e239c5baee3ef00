"""The questions of simulated forms: form number -> questions, and the tracking parameters beside them.

Every form asks name, e-mail and phone, and a few of a pool that holds what real forms hold: choices whose
answers are keys and not labels, several answers to one question, slugs with umlauts, commas and question
marks, keys with spaces, emoji and 200 characters, two keys that agree in their first 63 bytes (where Postgres
cuts a name), a phone question that is not called phone_number, a store locator. Answers are made in people.py.

Invariant: a question's key is unique within its form, and no tracking parameter has the key of a question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sandbox.mixing import mix

PHONE_TYPES: Final = frozenset({"PHONE", "WHATSAPP_NUMBER", "WORK_PHONE_NUMBER"})


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a form; `options` are pairs of key and label."""

    key: str
    label: str
    type: str = "CUSTOM"
    options: tuple[tuple[str, str], ...] = ()
    optional: bool = False
    several: bool = False

    def as_json(self, question_id: str) -> dict[str, object]:
        """The question as the form's `questions` field shows it."""
        shown: dict[str, object] = {
            "id": question_id,
            "key": self.key,
            "label": self.label,
            "type": self.type,
        }
        if self.options:
            shown["options"] = [{"key": key, "value": label} for key, label in self.options]
        return shown


def _slug(label: str) -> str:
    return label.lower().replace(" ", "_")


_LONG: Final = (
    "Please describe in your own words which rooms of your house or flat you would like to have renovated, by"
    " when the work ought to be done, and whether you have already spoken to another company about it"
)
_ALWAYS: Final = (
    Question("full_name", "Full name", "FULL_NAME"),
    Question("email", "Email", "EMAIL"),
    Question("phone_number", "Phone number", "PHONE", optional=True),
)
_POOL: Final[tuple[tuple[Question, ...], ...]] = (
    (
        Question(
            "wie_viele_mitarbeiter_haben_sie?",
            "Wie viele Mitarbeiter haben Sie?",
            options=(("1_bis_5", "1 bis 5"), ("mehr_als_5", "mehr als 5"), ("über_50", "über 50")),
        ),
    ),
    (
        Question(
            "which_services_are_you_interested_in?",
            "Which services are you interested in?",
            options=(
                ("solar", "Solar panels"),
                ("heat_pump", "Heat pump"),
                ("battery,_wall_box", "Battery, wall box"),
                ("other/none", "Other / none"),
            ),
            optional=True,
            several=True,
        ),
    ),
    (Question("selected_dealer", "Find a store", "STORE_LOOKUP"),),
    (Question("car_make", "Which car do you drive?", optional=True),),
    (Question("whatsapp", "WhatsApp", "WHATSAPP_NUMBER", optional=True),),
    (
        Question(
            "yes_i_want_unlimited_leads,_text_me_the_demo_link",
            "Yes, I want unlimited leads, text me the demo link",
            options=(("yes", "Yes"), ("no_i_don't", "No, I don't")),
        ),
    ),
    (Question("comentários", "Comentários", optional=True),),
    (Question("quand êtes vous disponible", "Quand êtes-vous disponible ?", "DATE_TIME", optional=True),),
    (
        Question(
            "🏠_oder_🏢?",
            "🏠 oder 🏢?",
            options=(("🏠", "🏠 Haus"), ("🏢", "🏢 Wohnung"), ("beides,_🏠_und_🏢", "Beides, 🏠 und 🏢")),
        ),
    ),
    (Question(f"{_slug(_LONG)}?", f"{_LONG}?", optional=True),),
    (
        Question(
            "how_much_would_you_like_to_invest_in_your_kitchen_or_your_bathroom_this_year",
            "How much would you like to invest in your kitchen or your bathroom this year",
            options=(("<_5.000_€", "< 5.000 €"), ("≥_5.000_€", "≥ 5.000 €")),
        ),
        Question(
            "how_much_would_you_like_to_invest_in_your_kitchen_or_your_bathroom_next_year",
            "How much would you like to invest in your kitchen or your bathroom next year",
            optional=True,
        ),
    ),
    (Question("post_code", "ZIP code", "POST_CODE"),),
)
"""What stands together in one element is asked together."""
_TRACKING: Final[tuple[tuple[tuple[str, str], ...], ...]] = (
    (),
    (("utm_source", "newsletter+spring"),),
    (("utm_source", "{{site_source_name}}"), ("campaign id", "été/2026 🌞")),
)


def questions_of(seed: int, form_number: int) -> Sequence[Question]:
    """The questions of form `form_number`: the three usual ones and two to five others."""
    start = mix(seed, 11, form_number)
    others = 2 + start % 3
    first = (start >> 8) % len(_POOL)
    chosen = [_POOL[(first + step) % len(_POOL)] for step in range(others)]
    return (*_ALWAYS, *(question for group in chosen for question in group))


def tracking_of(seed: int, form_number: int) -> tuple[tuple[str, str], ...]:
    """The tracking parameters of form `form_number`, if it has any: pairs of key and value."""
    return _TRACKING[mix(seed, 12, form_number) % len(_TRACKING)]
