"""Orders about subscriptions over HTTP, read: JSON body -> subscriptions that vanish without anyone being told.

Meta switches webhooks off by itself, and people disconnect an app in the Page's settings: the app learns of neither.

Invariant: an order is carried out whole or raises OrderRefused.
"""

from collections.abc import Mapping
from typing import Final

from sandbox.given import OrderRefused, only, texts
from sandbox.parts import Sandbox

SUBSCRIPTION_KEYS: Final = {"drop_pages", "drop_app"}


def drop_subscriptions(sandbox: Sandbox, order: Mapping[str, object]) -> None:
    """Drop those of the Pages named (true: of all), and the app's."""
    only(order, SUBSCRIPTION_KEYS)
    known = sandbox.world.page_by_id
    pages = list(known) if order.get("drop_pages") is True else texts(order, "drop_pages")
    unknown = [each for each in pages if each not in known]
    if unknown:
        raise OrderRefused(f"no such pages: {', '.join(unknown)}")
    if order.get("drop_app", False) not in (True, False):
        raise OrderRefused("drop_app is true or false")
    for page_id in pages:
        sandbox.graph.subscriptions.drop_page(page_id)
    if order.get("drop_app") is True:
        sandbox.graph.subscriptions.drop_app()
