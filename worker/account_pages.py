"""An account's token -> the Pages that it has a role on, each with its own token: listed, or asked for by id.

It keeps nothing and chooses nothing (connecting.py does). Invariants: the listing is read to its end, which only an
absent `next` is, and that URL, which carries the token, is never followed.
"""

from typing import Final

from worker.account_token import AGAIN, CONNECT_AGAIN, Owner
from worker.calls import Calls
from worker.errors import Blocked, GraphUnavailable, LeadSyncError, NotVisibleYet, Unreadable
from worker.graph.account import Caller, PageAccount, accounts_request, page_request, read_account
from worker.graph.wire import read_object, read_result_page
from worker.steps import Checklist, State, Step, answered, failed

MOST_RESULT_PAGES: Final = 1_000
"""Of 100 Pages each; what goes on for longer does not end."""


class AccountPages:
    """Asks Graph for an owner's Pages."""

    def __init__(self, calls: Calls, caller: Caller) -> None:
        self._calls = calls
        self._caller = caller

    async def listed(self, owner: Owner, told: Checklist) -> dict[str, PageAccount] | None:
        """The Pages that Meta lists, by id. None: it did not, which is told."""
        try:
            found = await self._list(owner.token)
        except LeadSyncError as error:
            told.add(_unanswered("pages", error, "Meta does not list the Pages", CONNECT_AGAIN))
            return None
        if found:
            told.add(Step("pages", State.ALREADY, f"Meta lists {len(found)} Page{'s' * (len(found) != 1)}"))
        return found

    async def find(self, owner: Owner, page_id: str, told: Checklist) -> PageAccount | None:
        """A Page that the listing lacks: Meta leaves out some that belong to a business. None: that is told."""
        request = page_request(self._caller, page_id, ("id", "name", "access_token"), owner.token)
        try:
            page = read_account(await self._calls.of_nobody(request, read_object))
            if page is None or page.page_id != page_id:
                raise GraphUnavailable("Graph answered with something that is not this Page")
            return page
        except LeadSyncError as error:
            remedy = (
                f"check the id; {owner.name} needs a role on the Page that takes in advertising, and the Page must be"
                " among those chosen in the dialogue that makes the token"
            )
            told.add(
                _unanswered("page_token", error, "Meta does not give this Page's token", remedy, page_id)
            )
            return None

    async def _list(self, token: str) -> dict[str, PageAccount]:
        found: dict[str, PageAccount] = {}
        after: str | None = None
        cursors: set[str] = set()
        for _ in range(MOST_RESULT_PAGES):
            result_page = await self._calls.of_nobody(
                accounts_request(self._caller, token, after=after), read_result_page
            )
            found |= {page.page_id: page for entry in result_page.entries if (page := read_account(entry))}
            if result_page.after is None:
                return found
            if result_page.after in cursors:
                break
            after = result_page.after
            cursors.add(after)
        raise GraphUnavailable("Graph's listing of the Pages does not end")


def _unanswered(
    what: str, error: LeadSyncError, sentence: str, remedy: str, page_id: str | None = None
) -> Step:
    """Refused, which `remedy` mends, or not answered for the moment."""
    if isinstance(error, Blocked | Unreadable | NotVisibleYet):
        return Step(what, State.FAILED, f"{sentence} ({answered(error)})", remedy, page_id)
    return failed(what, error, AGAIN, page_id)


def none_listed(owner: Owner) -> Step:
    """Meta lists no Page, and none was named."""
    remedy = (
        "assign Pages and app to the system user (Business settings > Users > System users)"
        if owner.facts.kind == "SYSTEM_USER"
        else "give this person a role on the Page, and choose the Page in the dialogue that makes the token"
    )
    return Step("pages", State.MISSING, f"Meta lists no Page for {owner.name}", remedy)
