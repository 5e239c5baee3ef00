"""Orders about forms over HTTP, read: JSON body -> a form that appears, or one that is archived.

On the real Graph forms come and go without notice: published ones cannot be changed, so people copy them under a
new id and archive the old one.

Invariant: an order is carried out whole or raises OrderRefused.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sandbox.given import OrderRefused, number, only, texts
from sandbox.parts import Sandbox
from sandbox.questions import Question
from sandbox.world import STATUSES, Form

NEW_FORM_KEYS: Final = {"page", "name", "status", "questions", "copy_of", "age_seconds"}
_QUESTION_KEYS: Final = {"key", "label", "type", "options", "optional", "several", "id"}


def change_forms(sandbox: Sandbox, order: Mapping[str, object], now: float) -> Form:
    """Make the form that the order describes, or give the one that it names another status."""
    world = sandbox.world
    if "form" in order:
        only(order, {"form", "status"})
        form = _form(sandbox, order, "form")
        status = _status(order)
        if form is None or status is None:
            raise OrderRefused("form and status are needed")
        world.set_status(form, status)
        return form
    only(order, NEW_FORM_KEYS)
    page = world.page_by_id.get("".join(texts(order, "page")))
    if page is None:
        raise OrderRefused("page is the id of a Page")
    copied = _form(sandbox, order, "copy_of")
    name = order.get("name")
    if not isinstance(name, str | None):
        raise OrderRefused("name is a text")
    age = number(order, "age_seconds")
    status, questions = _status(order), _questions(order)
    return world.add_form(
        page, created_time=int(now - age), name=name, status=status, questions=questions, copy_of=copied
    )


def form_json(sandbox: Sandbox, form: Form) -> dict[str, object]:
    """The form as control routes show it."""
    ads = [ad.ad_id for ad in form.ads]
    return {"form_id": form.form_id, "ads": ads, "status": sandbox.world.status_of(form)}


def _form(sandbox: Sandbox, order: Mapping[str, object], name: str) -> Form | None:
    if name not in order:
        return None
    form = sandbox.world.form_by_id.get("".join(texts(order, name)))
    if form is None:
        raise OrderRefused(f"{name} is the id of a form")
    return form


def _status(order: Mapping[str, object]) -> str | None:
    status = order.get("status")
    if status is None or (isinstance(status, str) and status in STATUSES):
        return status
    raise OrderRefused(f"status is one of {', '.join(STATUSES)}")


def _questions(order: Mapping[str, object]) -> list[Question] | None:
    given = order.get("questions")
    if given is None:
        return None
    if not isinstance(given, list) or not given:
        raise OrderRefused("questions is a list of objects")
    questions = [_question(each) for each in given]
    if len({question.key for question in questions}) < len(questions):
        raise OrderRefused("the questions of a form have different keys")
    return questions


def _question(given: object) -> Question:
    """A question as Graph shows it; `optional` and `several` tell how people answer it."""
    if not isinstance(given, dict):
        raise OrderRefused("a question is an object")
    only(given, _QUESTION_KEYS)
    key, label = given.get("key"), given.get("label", given.get("key"))
    kind = given.get("type", "CUSTOM")
    if not (isinstance(key, str) and key and isinstance(label, str) and isinstance(kind, str)):
        raise OrderRefused("a question has a key; key, label and type are texts")
    options = given.get("options", [])
    if not isinstance(options, Sequence) or isinstance(options, str):
        raise OrderRefused("options is a list")
    pairs = tuple(_option(each) for each in options)
    several = given.get("several") is True and bool(pairs)
    return Question(key, label, kind, pairs, optional=given.get("optional") is True, several=several)


def _option(given: object) -> tuple[str, str]:
    if isinstance(given, str):
        return given, given
    if isinstance(given, dict):
        key = given.get("key")
        value = given.get("value", key)
        if isinstance(key, str) and isinstance(value, str):
            return key, value
    raise OrderRefused("an option is a text, or an object of key and value")
