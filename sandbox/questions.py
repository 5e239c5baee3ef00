"""The questions of simulated forms: form number -> questions.

Every form asks name, e-mail and phone, and a few of a pool that holds what real forms hold: choices whose
answers are keys and not labels, several answers to one question, slugs with umlauts, commas and question
marks, a phone question that is not called phone_number, a store locator, a tracking parameter. Answers are
made in people.py.

Invariant: a question's key is unique within its form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sandbox.mixing import mix


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


_ALWAYS: Final = (
    Question("full_name", "Full name", "FULL_NAME"),
    Question("email", "Email", "EMAIL"),
    Question("phone_number", "Phone number", "PHONE", optional=True),
)
_POOL: Final = (
    Question(
        "wie_viele_mitarbeiter_haben_sie?",
        "Wie viele Mitarbeiter haben Sie?",
        options=(("1_bis_5", "1 bis 5"), ("mehr_als_5", "mehr als 5"), ("über_50", "über 50")),
    ),
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
    Question("selected_dealer", "Find a store", "STORE_LOOKUP"),
    Question("car_make", "Which car do you drive?", optional=True),
    Question("whatsapp", "WhatsApp", "WHATSAPP_NUMBER", optional=True),
    Question(
        "yes_i_want_unlimited_leads,_text_me_the_demo_link",
        "Yes, I want unlimited leads, text me the demo link",
        options=(("yes", "Yes"), ("no_i_don't", "No, I don't")),
    ),
    Question("comentários", "Comentários", optional=True),
    Question("utm_source", "utm_source", "CUSTOM", optional=True),
)


def questions_of(seed: int, form_number: int) -> Sequence[Question]:
    """The questions of form `form_number`: the three usual ones and two to four others."""
    start = mix(seed, 11, form_number)
    others = 2 + start % 3
    first = (start >> 8) % len(_POOL)
    return (*_ALWAYS, *(_POOL[(first + step) % len(_POOL)] for step in range(others)))
