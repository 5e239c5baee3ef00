"""A Page's subscription and the app's webhook: read -> changed where it is not as wanted -> read back.

    Page token -> fields there -> POST fields and leadgen -> read back        app token -> webhook -> POST -> read back

It keeps nothing and takes no decision about a Page. Invariants: a field that is not `leadgen` stays as it was; what is
answered was read from Meta after the change, not concluded from it.
https://developers.facebook.com/docs/pages-api/webhooks-for-pages
"""

from dataclasses import dataclass

from worker.calls import Calls
from worker.errors import LeadSyncError
from worker.graph.account import (
    LEADGEN,
    AppSubscription,
    Caller,
    read_subscribed,
    read_subscriptions,
    read_success,
    set_webhook_request,
    subscribe_request,
    subscribed_apps_request,
    subscriptions_request,
    unsubscribe_request,
)


class ReadBackDiffers(LeadSyncError):
    """Meta said yes, and then told something else than what was asked for."""

    reason = "read_back_differs"


@dataclass(frozen=True, slots=True)
class Fields:
    """The webhook fields that are subscribed now, and whether that was changed."""

    fields: tuple[str, ...]
    is_changed: bool


@dataclass(frozen=True, slots=True)
class Webhook:
    """The app's webhook for Pages now, and what it was before where that was changed."""

    now: AppSubscription
    is_changed: bool
    former: AppSubscription | None = None


class Subscriber:
    """Subscribes the app of `caller`. Its methods raise ReadBackDiffers, or what a call met."""

    def __init__(self, calls: Calls, caller: Caller) -> None:
        self._calls = calls
        self._caller = caller

    async def subscribe(self, page_id: str, token: str) -> Fields:
        """Make sure that the Page's leads are announced to the app."""
        before = await self._fields(page_id, token)
        if before is not None and LEADGEN in before:
            return Fields(before, is_changed=False)
        wanted = (*(before or ()), LEADGEN)
        request = subscribe_request(self._caller, page_id, wanted, token)
        await self._calls.of_page(page_id, request, read_success)
        after = await self._fields(page_id, token) or ()
        if not set(wanted) <= set(after):
            raise ReadBackDiffers(
                f"Meta took the subscription of Page {page_id} and then tells of it the fields"
                f" {', '.join(after) or 'none'}"
            )
        return Fields(after, is_changed=True)

    async def unsubscribe(self, page_id: str, token: str) -> Fields:
        """Make sure that the Page's leads are no longer announced to the app."""
        before = await self._fields(page_id, token)
        if before is None or (before and LEADGEN not in before):
            return Fields(before or (), is_changed=False)
        left = tuple(field for field in before if field != LEADGEN)
        request = (
            subscribe_request(self._caller, page_id, left, token)
            if left
            else unsubscribe_request(self._caller, page_id, token)
        )
        await self._calls.of_page(page_id, request, read_success)
        after = await self._fields(page_id, token) or ()
        if LEADGEN in after or not set(left) <= set(after):
            raise ReadBackDiffers(
                f"Meta took the change for Page {page_id} and then tells of it the fields"
                f" {', '.join(after) or 'none'}"
            )
        return Fields(after, is_changed=True)

    async def webhook(self) -> AppSubscription | None:
        """The app's webhook for Pages, if there is one."""
        found = await self._calls.of_nobody(subscriptions_request(self._caller), read_subscriptions)
        return next((each for each in found if each.object == "page"), None)

    async def set_webhook(self, callback_url: str, verify_token: str, *, again: bool = False) -> Webhook:
        """Make sure that the app's webhooks of Pages go to `callback_url`; Meta asks there whether they may.

        `again`: set it whatever it looks like. Meta does not tell whether it includes the values.
        """
        before = await self.webhook()
        if before is not None and _announces(before, callback_url) and not again:
            return Webhook(before, is_changed=False)
        wanted = tuple(dict.fromkeys((*(before.fields if before else ()), LEADGEN)))
        request = set_webhook_request(
            self._caller, callback_url=callback_url, verify_token=verify_token, fields=wanted
        )
        await self._calls.of_nobody(request, read_success)
        after = await self.webhook()
        if after is None or not _announces(after, callback_url) or not set(wanted) <= set(after.fields):
            raise ReadBackDiffers(f"Meta took the webhook and then tells {_shown(after)}")
        return Webhook(after, is_changed=True, former=before)

    async def _fields(self, page_id: str, token: str) -> tuple[str, ...] | None:
        app_id = self._caller.app_id
        return await self._calls.of_page(
            page_id,
            subscribed_apps_request(self._caller, page_id, token),
            lambda answer, now: read_subscribed(answer, app_id, now),
        )


def announces_leads(webhook: AppSubscription) -> bool:
    """Whether leads are announced there."""
    return webhook.is_active and LEADGEN in webhook.fields


def _announces(webhook: AppSubscription, callback_url: str) -> bool:
    return announces_leads(webhook) and webhook.callback_url == callback_url


def _shown(webhook: AppSubscription | None) -> str:
    if webhook is None:
        return "none"
    active = "active" if webhook.is_active else "not active"
    return f"{webhook.callback_url}, {active}, fields {', '.join(webhook.fields) or 'none'}"
