"""A Page -> its leads no longer announced to the app -> parked -> its token forgotten.

    Page token -> fields without leadgen at Meta -> parked -> token dropped, and its account if no Page leans on that

It deletes no lead and no form: what is here stays. Invariants: other fields of the subscription stay; where Meta cannot
be reached for the moment nothing is forgotten, since without the token it could not be done later; what is interrupted
anywhere is finished by the same order once more.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from worker.calls import NoCallNow
from worker.errors import LeadSyncError, Throttled, TokenRefused, Transient
from worker.health import DISCONNECTED
from worker.steps import Checklist, State, Step, answered, failed
from worker.subscribing import Subscriber
from worker.tokens import Dropped, PageTokens

CONNECTING_TAKES: Final = timedelta(days=1)
"""An account's token is kept before its Pages are chosen, which may be left for tomorrow; one that no Page leans on for
longer has been left over."""
_LEFT: Final = (
    "take the app off the Page by hand (the Page's settings > New Pages experience > Business integrations), or connect"
    " the Page again and then disconnect it"
)


class Tokens(PageTokens, Protocol):
    """The Pages' tokens as workers find them."""

    def is_given(self, page_id: str) -> bool:
        """Whether the settings hold a token of the Page."""


class TokenRows(Protocol):
    """What this file needs of the rows of tokens."""

    async def drop_page_token(self, page_id: str, unused_since: datetime) -> Dropped: ...


class PageRows(Protocol):
    """What this file needs of the rows of Pages."""

    async def disconnect(self, page_id: str, now: datetime) -> None: ...
    async def parked_for(self, page_id: str) -> str | None: ...


class Parking(Protocol):
    """Whoever parks Pages."""

    async def park(self, page_id: str, reason: str, now: datetime) -> bool: ...


class Disconnector:
    """Disconnects Pages. `clock` gives aware UTC."""

    def __init__(
        self,
        *,
        subscriber: Subscriber,
        tokens: Tokens,
        token_rows: TokenRows,
        page_rows: PageRows,
        parking: Parking,
        clock: Callable[[], datetime],
    ) -> None:
        self._subscriber = subscriber
        self._tokens = tokens
        self._token_rows = token_rows
        self._page_rows = page_rows
        self._parking = parking
        self._clock = clock

    async def disconnect(
        self, page_ids: Sequence[str], tell: Callable[[Step], None], *, anyway: bool = False
    ) -> tuple[Step, ...]:
        """Disconnect these Pages; `anyway`: also where Meta cannot be reached now. Raises StoreUnavailable."""
        told = Checklist(tell)
        for page_id in dict.fromkeys(page_ids):
            await self._disconnect(page_id, told, anyway)
        return tuple(told.steps)

    async def _disconnect(self, page_id: str, told: Checklist, anyway: bool) -> None:
        try:
            token = await self._tokens.token_for(page_id)
        except TokenRefused as error:
            reason = await self._page_rows.parked_for(page_id)
            if reason is None:
                sentence, remedy = "the Page is not known here", "`leadsync pages list` shows those that are"
                told.add(Step("page", State.FAILED, sentence, remedy, page_id))
                return
            if reason != DISCONNECTED:
                told.add(_left(error, page_id))
        else:
            step = await self._unsubscribe(page_id, token, anyway)
            told.add(step)
            if not step.is_achieved:
                return
        told.extend(await self._forget(page_id))

    async def _unsubscribe(self, page_id: str, token: str, anyway: bool) -> Step:
        try:
            subscribed = await self._subscriber.unsubscribe(page_id, token)
        except (Transient, Throttled, NoCallNow) as error:
            if not anyway:
                remedy = (
                    "run the same command again later, or with --anyway to leave the subscription at Meta"
                )
                return failed("subscription", error, remedy, page_id)
            return _left(error, page_id)
        except LeadSyncError as error:
            return _left(error, page_id)
        kept = f"; {', '.join(subscribed.fields)} stays" if subscribed.fields else ""
        if subscribed.is_changed:
            return Step(
                "subscription", State.DONE, f"leadgen is taken out, and read back{kept}", page_id=page_id
            )
        return Step("subscription", State.ALREADY, f"leadgen was not subscribed{kept}", page_id=page_id)

    async def _forget(self, page_id: str) -> list[Step]:
        # First, or a second run after an interruption would take the Page for one whose token was lost.
        parked = await self._park(page_id)
        dropped = await self._token_rows.drop_page_token(page_id, self._clock() - CONNECTING_TAKES)
        sentence = "forgotten" if dropped.is_page_token else "none was kept"
        sentence += "".join(
            f"; that of account {user_id} is forgotten, since no Page leans on it any more"
            for user_id in dropped.accounts
        )
        state = State.DONE if dropped.is_page_token or dropped.accounts else State.ALREADY
        steps = [Step("page_token", state, sentence, page_id=page_id)]
        if self._tokens.is_given(page_id):
            remedy = "take it out of PAGE_TOKENS or PAGE_TOKENS_FILE"
            steps.append(
                Step("page_token", State.LEFT, "the settings hold a token of the Page too", remedy, page_id)
            )
        return [*steps, parked]

    async def _park(self, page_id: str) -> Step:
        now = self._clock()
        was = await self._page_rows.parked_for(page_id)
        await self._parking.park(page_id, DISCONNECTED, now)
        await self._page_rows.disconnect(page_id, now)
        if was == DISCONNECTED:
            return Step("page", State.ALREADY, "was disconnected already", page_id=page_id)
        return Step("page", State.DONE, "disconnected; leads and forms that are here stay", page_id=page_id)


def _left(error: LeadSyncError, page_id: str) -> Step:
    return Step("subscription", State.LEFT, f"left as it is at Meta ({answered(error)})", _LEFT, page_id)
