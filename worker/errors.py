"""The errors of leadsync, sorted by what to do next.

    LeadSyncError
      Transient                 the same call may work later     -> Retry (counts), in the end DeadLetter
        GraphUnavailable        5xx, timeout, is_transient, codes 1 and 2
          ItemUnanswered        a null batch item              -> ask again, at once, a few times
        StoreUnavailable        Postgres away: nothing is acknowledged, intake pauses, no attempt counted
        LedgerUnavailable       Redis away: no call without a grant
        GrantLapsed             the call was not sent          -> ask for another grant, at once, a few times
      Throttled(until)          we asked too much                -> Snooze (counts nothing) and tell the budget
      TooMuchAsked              "reduce the amount of data"      -> halve the ask, at once
        AnswerTooLarge          more bytes than we read at once -> the same; of one lead alone soon a DeadLetter
      NotVisibleYet             100/33 soon after the ping       -> Retry for a bounded time, then DeadLetter
      Blocked                   token or permission refused      -> Park the Page, alarm once
        TokenRefused  PermissionRefused  ProofRefused
      Unreadable                asking again cannot help         -> DeadLetter
        LeadMalformed  RequestRefused
          CallbackRefused         a webhook's handshake failed   -> told to whoever set the webhook
    ConfigurationError          refuse to start; list every problem at once

Nothing is decided here: graph/faults.py maps Meta's answers to these, outcomes.py says what each means for a
reference. No message ever carries a token, an answer or Meta's own error text, which may echo either.
"""

from datetime import datetime, timedelta

from worker.graph.usage import Usage


class LeadSyncError(Exception):
    """Anything that leadsync raises on purpose. `reason` is a fixed word for rows, logs and metrics.

    `usages`: what Meta said of usage beside the answer that this error is; None where no answer of Graph's came.
    """

    reason = "error"
    usages: tuple[Usage, ...] | None = None


class Transient(LeadSyncError):
    """The same call may work later."""

    reason = "transient"


class GraphUnavailable(Transient):
    """Graph did not answer, or answered that it cannot at the moment."""

    reason = "graph_unavailable"


class ItemUnanswered(GraphUnavailable):
    """Graph ran out of time for this item of a batch and answered the others."""


class StoreUnavailable(Transient):
    """Postgres is away, or cannot write. Nothing is acknowledged and no attempt is counted."""

    reason = "store_unavailable"


class LedgerUnavailable(Transient):
    """Redis is away: there is no call without a grant."""

    reason = "ledger_unavailable"


class GrantLapsed(Transient):
    """The grant ran out before the call was sent, or would have been used twice."""

    reason = "grant_lapsed"


class Throttled(LeadSyncError):
    """We asked more than a scope allows; `until` is aware UTC, `scope` one of page, app, user, ad_account.

    `regain`: in how long Meta says that access is regained, if it does.
    """

    reason = "throttled"

    def __init__(self, message: str, *, until: datetime, scope: str, regain: timedelta | None = None) -> None:
        super().__init__(message)
        self.until = until
        self.scope = scope
        self.regain = regain


class TooMuchAsked(LeadSyncError):
    """Graph wants to be asked for less data at once."""

    reason = "too_much_asked"


class AnswerTooLarge(TooMuchAsked):
    """The answer is larger than any that is read: of several leads because of their number, perhaps."""

    reason = "answer_too_large"


class NotVisibleYet(LeadSyncError):
    """Code 100, subcode 33: unknown id, lead not yet visible, or no permission; Graph does not say which."""

    reason = "not_visible"


class Blocked(LeadSyncError):
    """The Page's token or permission is refused: the Page's trouble, not the lead's."""

    reason = "blocked"


class TokenRefused(Blocked):
    """The Page token is missing, expired or revoked."""

    reason = "token_refused"


class PermissionRefused(Blocked):
    """The token may not read this Page's leads."""

    reason = "permission_refused"


class ProofRefused(Blocked):
    """The appsecret_proof is missing or wrong: the app secret is not the one of the token's app."""

    reason = "proof_refused"


class Unreadable(LeadSyncError):
    """Asking again cannot help."""

    reason = "unreadable"


class LeadMalformed(Unreadable):
    """Graph's answer is no lead, or not the lead that was asked for."""

    reason = "lead_malformed"


class RequestRefused(Unreadable):
    """Graph refuses the request itself (code 100 and its kin), and will refuse it again."""

    reason = "request_refused"


class CallbackRefused(RequestRefused):
    """Code 2200: Meta asked a webhook's callback and did not get its challenge back."""

    reason = "callback_refused"


class ConfigurationError(LeadSyncError):
    """The settings are unusable; the message lists every problem, one a line."""

    reason = "configuration"
