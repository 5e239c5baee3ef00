"""What one sandbox is told before it starts.

`key=value` words -> SandboxConfig. Nothing is opened here and no environment is read; whoever starts the
sandbox passes the values on.

Invariant: a SandboxConfig that exists is one that can be served.
"""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.errors import SECOND_TEST_LEAD, SecondTestLead
from sandbox.exportfile import (
    ENCODINGS,
    FLAGS,
    SEPARATORS,
    ZONE,
    ExportEncoding,
    ExportFlags,
    ExportSeparator,
)
from sandbox.faults import FaultRule, parse_rules
from sandbox.grants import SCOPES
from sandbox.ordering import ORDERS, Order
from sandbox.tokens import USER_KINDS, UserKind
from sandbox.usage import ROUNDINGS, Rounding


class ConfigRefused(ValueError):
    """A setting that the sandbox cannot be started with; the message names all of them."""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """All settings of a sandbox; durations in seconds."""

    host: str = "127.0.0.1"
    port: int = 9900
    """0 lets the system choose; `Running.url` tells which it was."""
    seed: int = 1
    pages: int = 3
    forms_per_page: int = 2
    ads_per_form: int = 3
    leads: int = 60
    """Historic leads, spread over the 88 days before today's midnight (UTC)."""
    app_id: str = "1234567890123456"
    app_secret: str = "sandbox_app_secret"  # noqa: S105 - a made-up secret of a made-up app
    verify_token: str = "sandbox_verify_token"  # noqa: S105 - likewise
    webhook_url: str = "http://127.0.0.1:8000/webhook"
    require_proof: bool = False
    """Refuse calls without appsecret_proof, as an app with "Require App Secret" does."""
    public_url: str = ""
    """The base of `next` links; empty means whatever host the caller used."""

    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0
    """Each answer takes latency_seconds plus or minus up to this."""

    limit_calls: int | None = None
    """Calls a Page may make in the window, whatever its leads; None means Meta's 4800 x leads of 90 days."""
    limit_floor: int = 4800
    """The least limit of a Page. Meta documents none; with 0 an empty Page could not list its forms."""
    limit_window_seconds: int = 86_400
    user_limit_calls: int = 1_000_000
    """Calls an hour for a user token; Meta does not disclose the figure."""
    app_limit_calls: int | None = None
    """Calls an hour of all tokens of the app together; None is without a limit."""
    ads_limit_calls: int | None = None
    """Calls an hour of each ad account; None means Meta's 100000 and 40 more an ad."""
    hour_seconds: int = 3_600
    """How long the hour of user, app and ad accounts is."""
    block_penalty_seconds: float = 30.0
    """What each call into a block adds to it. Meta says that there is such a thing, not how much; 0 is none."""
    usage_rounding: Rounding = "floor"
    """How the usage headers round; Meta does not say."""

    default_limit: int = 25
    max_limit: int = 500
    """Larger limits are accepted and silently cut to this."""
    reduce_above: int | None = None
    """Limits above this are answered with "Please reduce the amount of data you're asking for"."""
    short_pages: float = 0.1
    """How often a result page holds fewer leads than asked although there are more."""
    empty_pages: float = 0.0
    """How often a result page is empty although there are more; the official SDK stops there."""
    order: Order = "newest_first"
    """Graph does not say in which order it lists leads; `shuffled` is none at all, the same for one walk."""
    unstable_ties: bool = False
    """Leads of the same second come in another order from one walk to the next."""
    cursor_seconds: float | None = None
    """How long a cursor holds; None is until its lead is deleted."""

    kept_leads: int = 0
    """So many listed leads are kept as JSON, about a kilobyte each, and listed again at a fraction of the cost."""

    export_encoding: ExportEncoding = "utf-8"
    export_separator: ExportSeparator = "tab"
    export_zone: str = "+00:00"
    """The offset of created_time in the export file."""
    export_flags: ExportFlags = "digits"
    """is_organic as 0 and 1, or as true and false."""
    export_status: bool = False
    """Some export files end with the columns inbox_url and lead_status."""

    visibility_delay: float = 0.0
    """How long after its creation a lead is still unknown to every read."""
    clock_offset_seconds: float = 0.0
    """How far the header Date is off the machine's clock; nothing else goes by it."""
    hostile_text: bool = False
    """Some answers hold NUL or lone surrogates."""
    usage_on_batch: bool = True
    """Also send the usage header on the batch answer itself; its items have it either way."""

    subscriptions: bool = False
    """Deliver only what app and Page are subscribed to, and to the app's callback instead of `webhook_url`."""
    second_test_lead: SecondTestLead = "subcode"
    """Where 1892058 stands that refuses a form's second test lead; Meta does not say."""
    redelivery_span_seconds: float = 600.0
    """Meta's 36 hours of redelivery, compressed to this."""
    delivery_timeout_seconds: float = 20.0
    delivery_concurrency: int = 8

    user_kind: UserKind = "user"
    """Whose token it is: a person's, or a system user's, which never expires."""
    scopes: str = ",".join(SCOPES)
    """What the user granted the app, with commas between."""
    long_token_seconds: int = 5_184_000
    """How long a long-lived token of a person holds; the Page tokens derived from it hold for ever."""
    short_token_seconds: int = 3_600
    """How long a short-lived one and its Page tokens hold. Meta: an hour or two."""
    data_access_seconds: int = 7_776_000
    """What debug_token tells of data access: so long after the token was issued. It is told, not enforced."""

    faults: tuple[FaultRule, ...] = ()
    """The fault plan at start; it can be changed over HTTP at any time."""

    @property
    def app_token(self) -> str:
        """The app's own token."""
        return f"{self.app_id}|{self.app_secret}"

    def __post_init__(self) -> None:
        wrong = [name for name in _AT_LEAST_ONE if getattr(self, name) < 1]
        wrong += [name for name in _NOT_NEGATIVE if getattr(self, name) < 0]
        wrong += ["clock_offset_seconds"] * (not abs(self.clock_offset_seconds) <= MOST_OFF)
        wrong += [name for name in ("app_id", "app_secret", "verify_token") if not getattr(self, name)]
        wrong += [name for name in _NOT_NEGATIVE_IF_SET if (getattr(self, name) or 0) < 0]
        wrong += [name for name, choices in _CHOICES.items() if getattr(self, name) not in choices]
        if not ZONE.match(self.export_zone):
            wrong.append("export_zone")
        if wrong:
            raise ConfigRefused(f"sandbox settings out of range: {', '.join(wrong)}")


MOST_OFF = 10**9
"""Seconds that the header Date may be off."""
_CHOICES: Mapping[str, Sequence[str]] = {
    "order": ORDERS,
    "usage_rounding": ROUNDINGS,
    "export_encoding": ENCODINGS,
    "export_separator": SEPARATORS,
    "export_flags": FLAGS,
    "user_kind": USER_KINDS,
    "second_test_lead": tuple(SECOND_TEST_LEAD),
}
_AT_LEAST_ONE = (
    "pages",
    "forms_per_page",
    "ads_per_form",
    "limit_window_seconds",
    "hour_seconds",
    "default_limit",
    "max_limit",
    "long_token_seconds",
    "short_token_seconds",
    "data_access_seconds",
)
_NOT_NEGATIVE = (
    "port",
    "leads",
    "kept_leads",
    "latency_seconds",
    "jitter_seconds",
    "limit_floor",
    "user_limit_calls",
    "block_penalty_seconds",
    "short_pages",
    "empty_pages",
    "visibility_delay",
    "redelivery_span_seconds",
)
_NOT_NEGATIVE_IF_SET = ("limit_calls", "app_limit_calls", "ads_limit_calls", "cursor_seconds")


def from_words(words: Sequence[str]) -> SandboxConfig:
    """The config that words such as `port=9900` and `faults=[{"class": "5xx"}]` ask for.

    Raises ConfigRefused with every problem at once.
    """
    types = typing.get_type_hints(SandboxConfig)
    values: dict[str, object] = {}
    problems = []
    for word in words:
        name, given, text = word.partition("=")
        if not given or name not in types:
            problems.append(f"{name}: no such setting; they are {', '.join(sorted(types))}")
            continue
        try:
            values[name] = _value(types[name], text)
        except ValueError as refused:
            problems.append(f"{name}: {refused}")
    if problems:
        raise ConfigRefused("; ".join(problems))
    return dataclasses.replace(SandboxConfig(), **values)  # type: ignore[arg-type]


def _value(kind: object, text: str) -> object:
    if kind is bool:
        return text.lower() in ("1", "true", "yes", "on")
    if kind is int or kind == int | None:
        return _number(int, text, "a whole number")
    if kind is float or kind == float | None:
        return _number(float, text, "a number")
    if kind == tuple[FaultRule, ...]:
        return parse_rules(text)
    return text


def _number(kind: type[int] | type[float], text: str, what: str) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"must be {what}") from None
