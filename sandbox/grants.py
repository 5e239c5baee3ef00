"""What the user has granted the app and may himself do: scopes, tasks on each Page, lead access.

The control route takes things away and gives them back; permissions.py refuses accordingly, and debug_token and
/me/accounts tell it. Which tokens there are is told in tokens.py.

Invariant: what was taken away is missing for every token of the user from the next call on, until it is given back.
"""

from collections.abc import Iterable, Mapping
from typing import Final

SCOPES: Final = (
    "leads_retrieval",
    "pages_manage_metadata",
    "pages_show_list",
    "pages_read_engagement",
    "pages_manage_ads",
    "ads_management",
    "business_management",
)
"""What an app needs that reads leads; ads_management also covers ads_read."""
TASKS: Final = ("ADVERTISE", "ANALYZE", "CREATE_CONTENT", "MESSAGING", "MODERATE", "MANAGE")
"""https://developers.facebook.com/docs/pages-api/overview"""
NO_LEADS: Final[Mapping[str, str]] = {"103": "103", "as_200": "103/as_200", "as_100": "103/as_100"}
"""How Graph may word that lead access is missing -> the error. Which of them Graph sends is not known."""


class Grants:
    """What holds for every token of the user."""

    def __init__(self, scopes: Iterable[str], page_ids: Iterable[str]) -> None:
        self._at_first = tuple(scopes)
        self.scopes = self._at_first
        self._tasks: dict[str, tuple[str, ...]] = dict.fromkeys(page_ids, TASKS)
        self._no_leads: dict[str, str] = {}
        self.whole = False
        """Whether scopes and lead access are complete: mostly they are, and nobody needs to look closer."""
        self._look()

    def has(self, scope: str) -> bool:
        """Whether the app was granted the scope."""
        return scope in self.scopes

    def take_scopes(self, taken: Iterable[str]) -> None:
        """Leave the scopes of the start without those in `taken`."""
        gone = set(taken)
        self.scopes = tuple(scope for scope in self._at_first if scope not in gone)
        self._look()

    def tasks(self, page_id: str) -> tuple[str, ...]:
        """What the user may do on the Page; empty where that is no role."""
        return self._tasks.get(page_id, ())

    def set_tasks(self, page_id: str, tasks: Iterable[str]) -> None:
        """Give the user another role on the Page, or none."""
        self._tasks[page_id] = tuple(tasks)

    def pages(self) -> list[str]:
        """The Pages on which the user has a role."""
        return [page_id for page_id, tasks in self._tasks.items() if tasks]

    def no_leads(self, page_id: str) -> str:
        """How it is worded that the Page's leads may not be read, a key of NO_LEADS; empty where they may."""
        return self._no_leads.get(page_id, "")

    def set_no_leads(self, page_id: str, wording: str) -> None:
        """Take the lead access of the Page away, or (empty) give it back."""
        self._no_leads.pop(page_id, None)
        if wording:
            self._no_leads[page_id] = wording
        self._look()

    def restore(self) -> None:
        """Everything as it was at the start."""
        self.scopes = self._at_first
        self._tasks = dict.fromkeys(self._tasks, TASKS)
        self._no_leads.clear()
        self._look()

    def _look(self) -> None:
        self.whole = not self._no_leads and set(self.scopes) >= set(SCOPES)
