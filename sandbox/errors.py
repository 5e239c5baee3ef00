"""Graph's errors: a name such as "190/463" -> status and body as Graph sends them.

The texts are Meta's own, for clients must cope with exactly these. Which HTTP status some of them come with
is not known; where it is not, 400 is assumed. This file does not decide when an error occurs.

Invariant: every name in CATALOG can be put on demand through the fault plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from sandbox.wire import encode


@dataclass(frozen=True, slots=True)
class GraphError:
    """One error of Graph. In the message `{id}` stands for the object asked for, `{app}` for the app."""

    status: int
    code: int
    message: str
    type: str = "OAuthException"
    subcode: int | None = None
    transient: bool | None = None
    user_title: str | None = None
    user_message: str | None = None

    @property
    def name(self) -> str:
        """`code` or `code/subcode`, as counts and fault plans call it."""
        return str(self.code) if self.subcode is None else f"{self.code}/{self.subcode}"

    def about(self, thing: str, app_id: str = "") -> "GraphError":
        """The same error about one object."""
        return replace(self, message=self.message.replace("{id}", thing).replace("{app}", app_id))

    def body(self, trace: str) -> str:
        """The answer's body, in the order of keys that Graph uses."""
        error: dict[str, object] = {"message": self.message, "type": self.type}
        if self.transient is not None:
            error["is_transient"] = self.transient
        error["code"] = self.code
        if self.subcode is not None:
            error["error_subcode"] = self.subcode
        if self.user_title is not None:
            error["error_user_title"] = self.user_title
        if self.user_message is not None:
            error["error_user_msg"] = self.user_message
        error["fbtrace_id"] = trace
        return encode({"error": error})


_LIMITS = (
    "For more info, please refer to https://developers.facebook.com/docs/graph-api/overview/rate-limiting."
)
_ONE_TEST_LEAD = "The form already has a test lead. Delete it before you create another one."
_SESSION = "Error validating access token: "
_REDUCE = "Please reduce the amount of data you're asking for, then retry your request"


def _busy(code: int, what: str, subcode: int | None = None) -> GraphError:
    text = f"(#{code}) There have been too many {what}. Wait a bit and try again. {_LIMITS}"
    return GraphError(400, code, text, subcode=subcode)


NOT_THERE: Final = GraphError(
    400,
    100,
    "Unsupported get request. Object with ID '{id}' does not exist, cannot be loaded due to missing"
    " permissions, or does not support this operation. Please read the Graph API documentation at"
    " https://developers.facebook.com/docs/graph-api",
    "GraphMethodException",
    33,
)
NO_POST: Final = GraphError(
    400,
    100,
    NOT_THERE.message.replace("get request", "post request"),
    "GraphMethodException",
    33,
)
NO_TOKEN: Final = GraphError(400, 104, "An access token is required to request this resource.")
BAD_TOKEN: Final = GraphError(400, 190, "Invalid OAuth access token - Cannot parse access token")
NEEDS_PAGE_TOKEN: Final = GraphError(400, 190, "(#190) This method must be called with a Page Access Token")
NEEDS_APP_TOKEN: Final = GraphError(400, 15, "(#15) This method must be called with an app access_token.")
NEEDS_DEVELOPER: Final = GraphError(
    400,
    100,
    "(#100) You must provide an app access token, or a user access token that is an owner or developer of the app",
)
NO_CLIENT_ID: Final = GraphError(400, 101, "Missing client_id parameter.")
WRONG_CLIENT_ID: Final = GraphError(
    400, 101, "Error validating application. Cannot get application info due to a system error."
)
NO_SECRET: Final = GraphError(400, 1, "Missing client_secret parameter.")
WRONG_SECRET: Final = GraphError(400, 1, "Error validating client secret.")
NOT_AVAILABLE: Final = GraphError(
    # The text was seen, its code was not.
    400,
    100,
    "This API is not available.",
)
BAD_PROOF: Final = GraphError(
    400, 100, "Invalid appsecret_proof provided in the API argument", "GraphMethodException"
)
PROOF_REQUIRED: Final = GraphError(
    400, 100, "API calls from the server require an appsecret_proof argument", "GraphMethodException"
)
IDS_GONE: Final = GraphError(500, 100, "The ids query parameter is deprecated in v26.0+.")
NO_ALIAS: Final = GraphError(400, 803, "(#803) Some of the aliases you requested do not exist: {id}")
UNKNOWN_PATH: Final = GraphError(400, 2500, "Unknown path components: /{id}")
NO_ACTIVE_TOKEN: Final = GraphError(
    400, 2500, "An active access token must be used to query information about the current user."
)
LEADGEN_BUSY: Final = _busy(80005, "leadgen api calls to this Page account")
ADS_BUSY: Final = _busy(80004, "calls to this ad-account", 2446079)
APP_BUSY: Final = GraphError(400, 4, "(#4) Application request limit reached", transient=True)
USER_BUSY: Final = GraphError(400, 17, "(#17) User request limit reached", transient=True)
REDUCE: Final = GraphError(500, 1, _REDUCE)
AD_FIELDS_REFUSED: Final = GraphError(
    403, 200, "(#200) Requires ads_management permission to manage the object"
)
BATCH_TOO_LARGE: Final = GraphError(
    # Meta does not document what it answers here.
    400,
    100,
    "Too many requests in batch message. Maximum batch size is 50",
    "GraphBatchException",
)
BATCH_UNREADABLE: Final = GraphError(400, 100, "(#100) batch parameter must be a JSON array")


def parameter(text: str) -> GraphError:
    """A parameter that Graph refuses."""
    return GraphError(400, 100, f"(#100) {text}")


def unknown_field(field: str, node: str) -> GraphError:
    """A field that the node does not have."""
    return parameter(f"Tried accessing nonexisting field ({field}) on node type ({node})")


BAD_CURSOR: Final = parameter("Invalid cursor: the after or before cursor is malformed or no longer valid.")
STALE_CURSORS: Final[Mapping[str, GraphError]] = {
    "stale_cursor": BAD_CURSOR,
    "stale_cursor/1": GraphError(500, 1, "The cursor is no longer valid. Please start again without one."),
    "stale_cursor/33": NOT_THERE,
}
"""The ways in which Graph was seen to refuse an old cursor; there is no code of its own for it."""

CATALOG: Final[Mapping[str, GraphError]] = {
    # throttles
    "4": APP_BUSY,
    "17": USER_BUSY,
    "17/2446079": GraphError(400, 17, "(#17) User request limit reached", subcode=2446079, transient=True),
    "32": GraphError(400, 32, "(#32) Page request limit reached"),
    "341": GraphError(400, 341, "(#341) Feed action request limit reached", transient=True),
    "613": GraphError(400, 613, "(#613) Calls to this api have exceeded the rate limit."),
    "613/1996": GraphError(400, 613, "(#613) Calls to this api have exceeded the rate limit.", subcode=1996),
    "80001": _busy(80001, "calls to this Page account"),
    "80004": ADS_BUSY,
    "80005": LEADGEN_BUSY,
    # tokens
    "190": BAD_TOKEN,
    "190/page_token": NEEDS_PAGE_TOKEN,
    "190/2069032": GraphError(400, 190, "User Access Token Is Not Supported", subcode=2069032),
    "190/458": GraphError(400, 190, _SESSION + "The user has not authorized application {app}.", subcode=458),
    "190/459": GraphError(
        400, 190, _SESSION + "The session is invalid because the user has been checkpointed.", subcode=459
    ),
    "190/460": GraphError(
        400,
        190,
        _SESSION + "The session has been invalidated because the user changed their password or Facebook has"
        " changed the session for security reasons.",
        subcode=460,
    ),
    "190/463": GraphError(
        400,
        190,
        _SESSION + "Session has expired on Thursday, 29-Jul-21 10:00:00 PDT. The current time is Friday,"
        " 30-Jul-21 06:41:07 PDT.",
        subcode=463,
    ),
    "190/464": GraphError(400, 190, _SESSION + "Sessions for the user are not allowed.", subcode=464),
    "190/467": GraphError(
        400, 190, _SESSION + "The session is invalid because the user logged out.", subcode=467
    ),
    "190/492": GraphError(
        400, 190, _SESSION + "User does not have the appropriate role on the Page.", subcode=492
    ),
    "102": GraphError(400, 102, "Session key invalid or no longer valid"),
    "104": GraphError(400, 104, "Incorrect signature"),
    # permissions
    "10": GraphError(403, 10, "(#10) Application does not have permission for this action"),
    "200": GraphError(403, 200, "(#200) Requires leads_retrieval permission to manage the object"),
    "200/ads_management": AD_FIELDS_REFUSED,
    "200/pages_manage_ads": GraphError(
        403, 200, "(#200) Requires pages_manage_ads permission to manage the object"
    ),
    "200/pages_manage_metadata": GraphError(
        403, 200, "(#200) Requires pages_manage_metadata permission to manage the object"
    ),
    "200/leadgen": GraphError(
        403,
        200,
        "(#200) To subscribe to the leadgen field, one of these permissions is needed: leads_retrieval",
    ),
    "278": GraphError(
        403,
        278,
        "(#278) Reading advertisements requires an access token with the extended permission ads_read",
    ),
    "103": GraphError(403, 103, "(#103) CRM access has been revoked from Lead Access Manager"),
    "103/as_200": GraphError(400, 200, "(#200) CRM access has been revoked from Lead Access Manager"),
    "103/as_100": NOT_THERE,
    "368": GraphError(
        400, 368, "The action attempted has been deemed abusive or is otherwise disallowed", transient=True
    ),
    "3": GraphError(400, 3, "(#3) Application does not have the capability to make this API call."),
    # the request
    "100/bad_proof": BAD_PROOF,
    "100/proof_required": PROOF_REQUIRED,
    "100/33": NOT_THERE,
    "100": parameter("Invalid parameter"),
    "100/1487390": GraphError(
        500, 100, "(#100) Filtering field 'time_created' is not supported", subcode=1487390
    ),
    "100/1892058": GraphError(400, 100, "Invalid parameter", subcode=1892058, user_message=_ONE_TEST_LEAD),
    "1892058": GraphError(400, 1892058, f"(#1892058) {_ONE_TEST_LEAD}"),
    "803": NO_ALIAS,
    "2500": UNKNOWN_PATH,
    "15": NEEDS_APP_TOKEN,
    "2200": GraphError(
        400,
        2200,
        "(#2200) Callback verification failed with the following errors: the callback did not echo hub.challenge",
    ),
    # Graph itself
    "1": GraphError(500, 1, "An unknown error occurred", transient=True),
    "1/99": GraphError(
        500, 1, "An unknown error occurred", subcode=99, user_title="Too much data", user_message=_REDUCE
    ),
    "1/reduce": REDUCE,
    "2": GraphError(
        500,
        2,
        "An unexpected error has occurred. Please retry your request later.",
        transient=True,
    ),
    "2/503": GraphError(503, 2, "Service temporarily unavailable", transient=True),
}
"""Every error that can be asked for by name. What follows the slash is Meta's subcode where it is a number,
and otherwise tells variants of one code apart."""

SecondTestLead = Literal["subcode", "code"]
SECOND_TEST_LEAD: Final[Mapping[SecondTestLead, str]] = {"subcode": "100/1892058", "code": "1892058"}
"""Where the number stands that refuses a form's second test lead -> the error's name; Meta does not say."""

THROTTLES: Final = frozenset(
    {"4", "17", "17/2446079", "32", "341", "613", "613/1996", "80001", "80004", "80005"}
)
"""Those that come with usage headers at 100 %."""
