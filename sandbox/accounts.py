"""The user's Pages with their tokens, and one Page: calls -> JSON.

    /me/accounts -> Pages of the user, each with a Page token        /{page} -> its fields, its token, its lead access

Which token goes with a Page is decided in tokens.py.

Invariant: a Page token is only told to a token of the user, or to itself.
"""

from collections.abc import Mapping
from typing import Final

from sandbox import content, errors
from sandbox.grants import TASKS
from sandbox.listing import Cursor, ResultPage, read_cursor
from sandbox.paging import paging_json
from sandbox.paths import Call
from sandbox.reads import select
from sandbox.request import GraphRefusal, nested_arguments, wanted_fields, whole_number
from sandbox.tokens import Tokens
from sandbox.wire import encode
from sandbox.world import Page, World

_ACCOUNT: Final = ("access_token", "category", "category_list", "name", "id", "tasks")
_USER: Final = ("id", "name")
_MOST: Final = 100
_LEAD_ACCESS: Final = "has_lead_access"


class Accounts:
    """The Pages of one world as their user sees them."""

    def __init__(self, world: World, tokens: Tokens, default_limit: int) -> None:
        self._world, self._tokens, self._default_limit = world, tokens, default_limit

    def user(self, call: Call) -> str:
        """The user himself."""
        call.need_get()
        fields = {"id": call.asked.name, "name": "Sam Sandbox"}
        return encode(select(fields, _wanted(call) or _USER, _USER, "User"))

    def accounts(self, call: Call) -> str:
        """The Pages that the user has a role on. Without pages_show_list there are none to be seen."""
        call.need_get()
        params = call.request.params
        limit = min(whole_number(params, "limit", self._default_limit), _MOST)
        wanted = _wanted(call) or _ACCOUNT
        cursor = read_cursor(params["after"]) if params.get("after") else None
        first = cursor.key[1] + 1 if cursor and cursor.key else 0
        mine = set(self._tokens.grants.pages()) if self._tokens.grants.has("pages_show_list") else set()
        pages = [
            (place, page)
            for place, page in enumerate(self._world.pages)
            if place >= first and page.page_id in mine
        ]
        shown = pages[:limit]
        told = [select(self._fields(page, call), wanted, content.PAGE_FIELDS, "Page") for _, page in shown]
        text = encode({"data": told})
        if not shown:
            return text
        before, after = (Cursor((0, place), issued_at=call.now) for place in (shown[0][0], shown[-1][0]))
        result_page = ResultPage((), before, after, has_next=len(pages) > len(shown), has_previous=False)
        return f"{text[:-1]}{paging_json(result_page, call.request, call.version)}}}"

    def page(self, call: Call) -> str:
        """One Page."""
        call.need_get()
        page = call.asked.node
        if not isinstance(page, Page):
            raise GraphRefusal(errors.NOT_THERE.about(call.asked.name))
        wanted = _wanted(call)
        fields = self._fields(page, call)
        if _LEAD_ACCESS in wanted:
            fields = {**fields, _LEAD_ACCESS: self._lead_access(page, call)}
        allowed = (*content.PAGE_FIELDS, _LEAD_ACCESS)
        return encode(select(fields, wanted or content.PAGE_DEFAULTS, allowed, "Page"))

    def _fields(self, page: Page, call: Call) -> Mapping[str, object]:
        holder, tokens = call.holder, self._tokens
        token = holder.token if holder.page_id else tokens.derived(holder, page.page_id, call.now)
        return content.page_fields(page, token, tokens.grants.tasks(page.page_id))

    def _lead_access(self, page: Page, call: Call) -> dict[str, object]:
        """Whether user and app may read the Page's leads.
        https://developers.facebook.com/docs/marketing-api/guides/lead-ads/leads-access-manager"""
        arguments = nested_arguments(call.request.params.get("fields", ""), _LEAD_ACCESS)
        if "user_id" not in arguments:
            raise GraphRefusal(errors.parameter("The parameter user_id is required"))
        if self._tokens.user_kind == "system_user":
            raise GraphRefusal(errors.NOT_AVAILABLE)
        grants = self._tokens.grants
        may = not grants.no_leads(page.page_id)
        told: dict[str, object] = {
            "app_has_leads_permission": may,
            "can_access_lead": may and grants.has("leads_retrieval"),
            "enabled_lead_access_manager": True,
            "is_page_admin": grants.tasks(page.page_id) == TASKS,
            "page_id": page.page_id,
            "user_has_leads_permission": True,
            "user_id": arguments["user_id"],
        }
        if not told["can_access_lead"]:
            missing = (
                "leads_retrieval was not granted" if may else "The app has no access to leads of this Page"
            )
            told["failure_reason"] = missing
            told["failure_resolution"] = "Assign the app in Leads Access of Business settings"
        return told


def _wanted(call: Call) -> tuple[str, ...]:
    return wanted_fields(call.request.params.get("fields", ""))
