"""The simulated Graph API without a socket: one call -> one answer.

    token, proof -> what the call is about -> counted -> throttled? -> fault? -> read

Time is handed in. Batches are taken apart in batch.py; sending an answer slowly, wrongly or not at all is the
business of spoiled.py and transport.py.

Invariant: every call with a good token is counted exactly once for its Page, ad account or user and once for the
app, refused ones too.
"""

from collections.abc import Callable, Mapping
from typing import Final

from sandbox import errors
from sandbox.accounts import Accounts
from sandbox.config import SandboxConfig
from sandbox.errors import CATALOG, STALE_CURSORS, THROTTLES, GraphError
from sandbox.faults import TRANSPORT, Fault, FaultPlan, Target
from sandbox.inspection import Inspection
from sandbox.journal import Journal
from sandbox.leadtesting import LeadTesting
from sandbox.leadtext import AD_FIELDS
from sandbox.meters import Metered, Meters
from sandbox.mixing import mix
from sandbox.oauth import OAuth
from sandbox.paths import Asked, Call, Paths
from sandbox.permissions import forbidden
from sandbox.proofs import proof_holds
from sandbox.reads import Reads
from sandbox.request import Answer, GraphRefusal, Request, split_path, wanted_fields
from sandbox.subscribing import Subscribing, app_subscription
from sandbox.subscriptions import AppSubscription, Subscriptions
from sandbox.tokens import Holder, Tokens
from sandbox.usage import Usage, headers_of
from sandbox.world import Lead, World

_THROTTLED_AS: Final = {"80004": "ads_management", "80001": "pages", "80005": "leadgen"}
"""The type in the usage header; the other throttles are told by X-App-Usage."""
_SENT_WRONGLY: Final = TRANSPORT | {"null_items"}


class Graph:
    """Answers calls about one world."""

    def __init__(
        self, world: World, tokens: Tokens, plan: FaultPlan, journal: Journal, config: SandboxConfig
    ) -> None:
        self.world, self.tokens, self.plan, self.journal, self.config = world, tokens, plan, journal, config
        self.reads = Reads(world, config)
        self.meters = Meters(world, config)
        self.subscriptions = Subscriptions()
        self.testing = LeadTesting(
            world,
            self.reads.rendered,
            journal,
            delay=config.visibility_delay,
            second=config.second_test_lead,
        )
        self._paths = Paths(world, config.app_id, world.user_id)
        self._oauth = OAuth(tokens, config.app_id, config.app_secret)
        accounts = Accounts(world, tokens, config.default_limit)
        inspection = Inspection(tokens, config.app_id, world.user_id, config.data_access_seconds)
        subscribing = Subscribing(self.subscriptions, tokens.grants, config.app_id)
        self._answers_of: Mapping[str, Callable[[Call], str]] = {
            "user": accounts.user,
            "accounts": accounts.accounts,
            "page": accounts.page,
            "debug_token": inspection.answer,
            "oauth": self._oauth.answer,
            "subscribed_apps": subscribing.subscribed_apps,
            "subscriptions": subscribing.subscriptions,
            "test_leads": self.testing.answer,
        }
        """What is not read from the world alone, by kind."""
        self._answers = 0

    def call(self, request: Request, now: float, answered_at: float, lost: str = "") -> Answer:
        """Answer one call. `answered_at` is when the answer will go out; `lost` names the fault of the batch that
        will keep it from arriving."""
        version, parts = split_path(request.path)
        asked = Asked("other", None)
        page_id: str | None = None
        holder: Holder | None = None
        usages: tuple[Usage, ...] = ()
        fault: Fault | None = None
        try:
            holder = self._caller(request, parts, now)
            asked, misdirected = self._asked(request, parts, holder)
            page_id = holder.page_id or asked.page_id
            usages, too_often = self._count(holder, asked, now)
            if refused := too_often or misdirected:
                raise GraphRefusal(refused)
            if self.plan.in_force:
                fault = self.plan.strike(_target(asked, page_id, request, now), now)
            without = self._suffer(fault, request, asked)
            call = Call(asked, request, holder, version, now)
            status, result, body = 200, "200", self._answer(call, without)
        except GraphRefusal as refusal:
            status, result, body = refusal.error.status, refusal.error.name, refusal.error.body(self.trace())
            if fault is not None and fault.name in THROTTLES:
                usages = (throttled(fault, page_id), *self.app_usage(now))
        sent_wrongly = fault if fault is not None and fault.name in _SENT_WRONGLY else None
        result = lost or (result if sent_wrongly is None else sent_wrongly.name)
        count = int(holder is not None)
        if holder is None and (holder := self.known(request.params)):
            asked = self._asked(request, parts, holder)[0]
            page_id = holder.page_id or asked.page_id
        token_page = (holder and holder.page_id) or ""
        self.journal.called(page_id, asked.kind, result, now, of_token=token_page, count=count)
        if isinstance(asked.node, Lead):
            self.journal.lead_read(asked.node.leadgen_id, result, answered_at)
        headers = headers_of(usages)
        return Answer(status, body, version, result, asked.kind, page_id, headers, sent_wrongly)

    def handshake(self, request: Request, now: float) -> AppSubscription | None:
        """The subscription whose callback has to echo a challenge before this call can be answered."""
        parts = split_path(request.path)[1]
        if request.meant != "POST" or parts != (self.config.app_id, "subscriptions"):
            return None
        try:
            wanted = app_subscription(request.params)
            return wanted if self.holder(request.params, now).kind == "app" else None
        except GraphRefusal:
            return None

    def trace(self) -> str:
        """A new fbtrace_id."""
        self._answers += 1
        return f"A{mix(self.config.seed, 9, self._answers):016x}zQ"

    def holder(self, params: Mapping[str, str], now: float) -> Holder:
        """Whom the call's token speaks for. Raises GraphRefusal where token or proof are not good."""
        token = params.get("access_token", "")
        if not token:
            raise GraphRefusal(errors.NO_TOKEN)
        holder = self.tokens.holder(token)
        if holder is None:
            raise GraphRefusal(errors.BAD_TOKEN)
        if death := self.tokens.death(holder, now):
            raise GraphRefusal(CATALOG[death].about("", self.config.app_id))
        given, proof_time = params.get("appsecret_proof"), params.get("appsecret_time", "")
        if given is None and self.config.require_proof and holder.kind != "app":
            raise GraphRefusal(errors.PROOF_REQUIRED)
        if given is not None and not proof_holds(self.config.app_secret, token, given, proof_time, now):
            raise GraphRefusal(errors.BAD_PROOF)
        return holder

    def known(self, params: Mapping[str, str]) -> Holder | None:
        """Whose the call's token is or was: a dead one is still some Page's."""
        return self.tokens.holder(params.get("access_token", ""))

    def app_usage(self, now: float) -> tuple[Usage, ...]:
        """The usage of the app, if it has a limit: every answer tells it."""
        metered = self.meters.app(now)
        return () if metered is None else (metered.usage,)

    def page_usage(self, page_id: str | None, now: float) -> tuple[Usage, ...]:
        """The usages of a Page, or of the user, as they are now."""
        metered = self.meters.user(now) if page_id is None else self.meters.page(page_id, now)
        return metered.usage, *self.app_usage(now)

    def _asked(
        self, request: Request, parts: tuple[str, ...], holder: Holder
    ) -> tuple[Asked, GraphError | None]:
        """What the call is about, and the refusal where its path leads nowhere."""
        if not parts and "ids" in request.params:
            return Asked("other", None), errors.IDS_GONE
        try:
            if holder.kind != "app" and parts[:1] == ("me",):
                parts = holder.page_id or self.world.user_id, *parts[1:]
            return self._paths.asked(parts), None
        except GraphRefusal as refusal:
            return Asked("other", None), refusal.error

    def _count(self, holder: Holder, asked: Asked, now: float) -> tuple[tuple[Usage, ...], GraphError | None]:
        """Count the call: the usages after it, and the refusal where it was one too many for any scope."""
        if holder.kind == "app":
            app = self.meters.app(now, call=True)
            return (app.usage,) if app else (), errors.APP_BUSY if app and self._refused(app) else None
        if holder.page_id is None:
            own, refusal = self.meters.user(now, call=True), errors.USER_BUSY
        elif asked.kind in ("ad_leads", "ad"):
            own, refusal = self.meters.ads(holder.page_id, now, call=True), errors.ADS_BUSY
        else:
            own, refusal = self.meters.page(holder.page_id, now, call=True), errors.LEADGEN_BUSY
        app = self.meters.app(now, call=True)
        refused = refusal if self._refused(own) else None
        if app is None:
            return (own.usage,), refused
        # Where both limits apply, Meta says that the one of the business use case does.
        if self._refused(app):
            refused = refused or errors.APP_BUSY
        return (own.usage, app.usage), refused

    def _refused(self, metered: Metered) -> bool:
        """Whether the scope refuses the call, which is then written down."""
        standing = metered.standing
        if standing.refused:
            self.journal.over_limit[metered.scope_id] += standing.over
            self.journal.into_block[metered.scope_id] += standing.into_block
        return standing.refused

    def _suffer(self, fault: Fault | None, request: Request, asked: Asked) -> frozenset[str]:
        """Refuse as the fault says; else the lead fields that it hides."""
        if fault is None:
            return frozenset()
        if fault.name in CATALOG:
            raise GraphRefusal(CATALOG[fault.name].about(asked.name, self.config.app_id))
        if fault.name in STALE_CURSORS:
            raise GraphRefusal(STALE_CURSORS[fault.name].about(asked.name))
        if fault.name == "not_visible":
            raise GraphRefusal(errors.NOT_THERE.about(asked.name))
        if fault.name == "ad_fields_refused" and AD_FIELDS & set(
            wanted_fields(request.params.get("fields", ""))
        ):
            raise GraphRefusal(errors.AD_FIELDS_REFUSED)
        return (fault.rule.fields or AD_FIELDS) if fault.name == "ad_fields_missing" else frozenset()

    def _caller(self, request: Request, parts: tuple[str, ...], now: float) -> Holder:
        """Who calls: by a token, or where tokens are given out by the app's id and secret."""
        if parts == ("oauth", "access_token"):
            return self._oauth.caller(request.params)
        return self.holder(request.params, now)

    def _answer(self, call: Call, without: frozenset[str]) -> str:
        asked, request = call.asked, call.request
        fields = request.params.get("fields", "")
        if refusal := forbidden(self.tokens.grants, call.holder, asked, fields):
            raise GraphRefusal(refusal)
        if answer := self._answers_of.get(asked.kind):
            return answer(call)
        if call.method == "DELETE":
            return self.reads.delete(asked, call.now)
        call.need_get()
        return self.reads.read(asked, request, call.version, call.now, without)


def throttled(fault: Fault, page_id: str | None) -> Usage:
    """The usage that goes with a throttle from the fault plan: all used up."""
    return Usage(page_id or "0", _THROTTLED_AS.get(fault.name, "user"), 100, fault.minutes)


def _target(asked: Asked, page_id: str | None, request: Request, now: float) -> Target:
    if isinstance(asked.node, Lead):
        return Target("lead", page_id, asked.node.leadgen_id, now - asked.node.made_at, request.via)
    paged = bool(request.params.get("after") or request.params.get("before"))
    return Target(asked.kind, page_id, via=request.via, paged=paged)
