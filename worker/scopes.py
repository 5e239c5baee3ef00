"""What a token must be granted, and what for; what Meta knows of a token -> what is missing. Pure.

It asks nobody. Invariant: a scope granted for some objects only is missing for the others, and says so of Pages alone:
the objects of `ads_management` are ad accounts.
https://developers.facebook.com/docs/marketing-api/guides/lead-ads/retrieving#permissions
"""

from collections.abc import Mapping
from typing import Final

from worker.graph.account import TokenFacts

PURPOSES: Final[Mapping[str, str]] = {
    "leads_retrieval": "to read leads",
    "pages_manage_metadata": "to subscribe a Page to webhooks",
    "pages_show_list": "to list the Pages",
    "pages_read_engagement": "to read what a Page's leads and ads are about",
    "pages_manage_ads": "to list a Page's forms",
    "ads_management": "to read the names of ad, ad set and campaign",
}
"""Each scope that leadsync needs, and what for."""

_OF_PAGES: Final = tuple(scope for scope in PURPOSES if scope != "ads_management")


def missing_scopes(facts: TokenFacts) -> tuple[str, ...]:
    """Needed scopes that the token was not granted at all."""
    return tuple(scope for scope in PURPOSES if scope not in facts.scopes)


def scopes_without(facts: TokenFacts, page_id: str) -> tuple[str, ...]:
    """Needed scopes that the token was granted for other Pages than this one."""
    return tuple(
        scope
        for scope in _OF_PAGES
        if scope in facts.scopes and page_id not in facts.targets.get(scope, (page_id,))
    )


def with_purposes(scopes: tuple[str, ...]) -> str:
    """The scopes in a sentence, each with what it is for."""
    return ", ".join(f"{scope} ({PURPOSES[scope]})" for scope in scopes)
