"""Who is told of what: the app's subscription to Pages, and each Page's to the app.

    webhook is sent   <-   the app has the field, with a callback   and   the Page has it for this app

Nothing is asked or sent here: calls about subscriptions are answered in subscribing.py, deliveries are sender.py's.
https://developers.facebook.com/docs/graph-api/webhooks/getting-started/webhooks-for-leadgen

Invariant: a Page has at most one set of fields for the app, and the app at most one callback.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AppSubscription:
    """The app's own, to the object `page`."""

    callback_url: str
    fields: tuple[str, ...]
    verify_token: str = field(repr=False)
    include_values: bool = False
    """Without it a delivery tells that something changed on the Page, and not what."""


class Subscriptions:
    """All subscriptions of one app."""

    def __init__(self) -> None:
        self.app: AppSubscription | None = None
        self._pages: dict[str, tuple[str, ...]] = {}
        self.ever = False
        """Whether anyone has subscribed since the start, be it gone by now."""

    def of_page(self, page_id: str) -> tuple[str, ...]:
        """The fields that the Page has for the app; empty where it is not subscribed."""
        return self._pages.get(page_id, ())

    def subscribe_page(self, page_id: str, fields: Sequence[str]) -> None:
        """These fields from now on, and no others."""
        self._pages[page_id] = tuple(fields)
        self.ever = True

    def drop_page(self, page_id: str) -> None:
        """The app hears nothing more of the Page."""
        self._pages.pop(page_id, None)

    def subscribe_app(self, subscription: AppSubscription) -> None:
        """This one from now on, and no other."""
        self.app = subscription
        self.ever = True

    def drop_app(self) -> None:
        """The app hears nothing more at all."""
        self.app = None

    def callback(self, page_id: str | None, name: str) -> AppSubscription | None:
        """Where a change of this field on the Page goes; None where nobody wants it. Without a Page it is a sample,
        which the app asks for."""
        if self.app is None or name not in self.app.fields:
            return None
        if page_id is not None and name not in self.of_page(page_id):
            return None
        return self.app

    def report(self) -> dict[str, object]:
        """What there is, as JSON; not the verify token."""
        app = self.app
        told = app and {
            "callback_url": app.callback_url,
            "fields": app.fields,
            "include_values": app.include_values,
        }
        return {"app": told, "pages": self._pages}
