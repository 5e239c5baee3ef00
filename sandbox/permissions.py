"""May this token make this call: token, what is asked, what the user granted -> the error, or none.

Pure. Whether the token itself is good is told in tokens.py; faults and limits come before.

Invariant: with everything granted, a Page token may do all that concerns its Page but what wants the app's.
"""

from collections.abc import Mapping
from typing import Final

from sandbox import errors
from sandbox.errors import CATALOG, GraphError
from sandbox.grants import NO_LEADS, Grants
from sandbox.leadtext import AD_FIELDS
from sandbox.paths import Asked
from sandbox.request import wanted_fields
from sandbox.tokens import Holder

_OF_THE_APP: Final = frozenset({"oauth", "debug_token", "subscriptions"})
_OF_THE_PAGE: Final = frozenset({"form_leads", "page_forms", "subscribed_apps", "test_leads"})
"""A user's token is not enough for these."""
_OF_THE_DEVELOPER: Final = frozenset({"debug_token"})
"""The user is a developer of the app."""
_LEADS: Final = frozenset({"lead", "form_leads", "ad_leads", "test_leads"})
_SCOPES: Final[Mapping[str, tuple[str, GraphError]]] = {
    **dict.fromkeys(_LEADS, ("leads_retrieval", CATALOG["200"])),
    "page_forms": ("pages_manage_ads", CATALOG["200/pages_manage_ads"]),
    "subscribed_apps": ("pages_manage_metadata", CATALOG["200/pages_manage_metadata"]),
}


def forbidden(grants: Grants, holder: Holder, asked: Asked, fields: str) -> GraphError | None:
    """What the call is refused with; None where it is allowed. `fields` is its parameter."""
    refusal = _wrong_token(grants, holder, asked)
    if refusal or holder.kind == "app" or grants.whole:
        return refusal
    scope, missing = _SCOPES.get(asked.kind, ("", None))
    if missing and not grants.has(scope):
        return missing
    if asked.kind not in _LEADS:
        return None
    if wording := grants.no_leads(asked.page_id or ""):
        return CATALOG[NO_LEADS[wording]].about(asked.name)
    if not grants.has("ads_management") and not AD_FIELDS.isdisjoint(wanted_fields(fields)):
        return errors.AD_FIELDS_REFUSED
    return None


def _wrong_token(grants: Grants, holder: Holder, asked: Asked) -> GraphError | None:
    """The refusal of a token that speaks for someone else."""
    kind, page_id = asked.kind, asked.page_id
    if holder.kind == "app":
        return None if kind in _OF_THE_APP else _not_there(asked)
    if kind in _OF_THE_APP:
        if kind not in _OF_THE_DEVELOPER:
            return errors.NEEDS_APP_TOKEN
        return errors.NEEDS_DEVELOPER if holder.page_id else None
    if holder.page_id:
        return None if page_id in (None, holder.page_id) else _not_there(asked)
    if page_id and not grants.tasks(page_id):
        return _not_there(asked)
    return errors.NEEDS_PAGE_TOKEN if kind in _OF_THE_PAGE else None


def _not_there(asked: Asked) -> GraphError:
    return errors.NOT_THERE.about(asked.name)
