"""Orders about tokens over HTTP, read: JSON body -> tokens revoked, rights taken away or given back, a fresh token.

What follows for calls is told in tokens.py and permissions.py.

Invariant: an order is carried out whole or raises OrderRefused.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from sandbox.given import OrderRefused, only, texts
from sandbox.grants import NO_LEADS, TASKS
from sandbox.parts import Sandbox
from sandbox.tokens import LIVES, Life

TOKEN_KEYS: Final = {
    "revoke", "token", "error", "pages", "take_scopes", "lead_access", "tasks", "restore", "fresh",
}  # fmt: skip
DEATHS: Final = (
    "190", "190/458", "190/459", "190/460", "190/463", "190/464", "190/467", "190/492", "102",
)  # fmt: skip
"""What a dead token may be refused with."""
_REVOKED: Final = ("user", "page")


def order_tokens(sandbox: Sandbox, order: Mapping[str, object], now: float) -> dict[str, object]:
    """Carry the order out: first what is revoked, then what is granted, then a fresh token."""
    only(order, TOKEN_KEYS)
    pages = _pages(sandbox, order)
    revoke, error, token = _revocation(sandbox, order)
    granted = tuple(sandbox.config.scopes.split(","))
    taken, tasks = _among(order, "take_scopes", granted, ()), _among(order, "tasks", TASKS, TASKS)
    lead_access, life = _lead_access(order), _life(order)
    tokens, grants = sandbox.tokens, sandbox.tokens.grants
    if revoke == "user":
        tokens.revoke_user(error, now, token)
    elif revoke == "page":
        tokens.revoke_pages(error, now, pages)
    if order.get("restore") is True:
        grants.restore()
    if taken is not None:
        grants.take_scopes(taken)
    for page_id in pages:
        if tasks is not None:
            grants.set_tasks(page_id, tasks)
        if lead_access is not None:
            grants.set_no_leads(page_id, lead_access)
    if life is not None:
        tokens.fresh(life, now)
    return tokens_json(sandbox, now)


def tokens_json(sandbox: Sandbox, now: float) -> dict[str, object]:
    """The user's newest token, and what goes with it."""
    tokens, grants = sandbox.tokens, sandbox.tokens.grants
    user, working = tokens.holder(tokens.of_user), tokens.working(now)
    return {
        "user_token": tokens.of_user,
        "user_id": sandbox.world.user_id,
        "expires_at": user.expires_at if user else 0,
        "error": tokens.death(user, now) if user else "",
        "scopes": grants.scopes,
        "pages": {
            page_id: {
                "token": working.get(page_id),
                "tasks": grants.tasks(page_id),
                "lead_access": grants.no_leads(page_id) or True,
            }
            for page_id in sandbox.world.page_by_id
        },
    }


def _pages(sandbox: Sandbox, order: Mapping[str, object]) -> list[str]:
    """The Pages that the order names, or all."""
    ids = texts(order, "pages")
    unknown = [each for each in ids if each not in sandbox.world.page_by_id]
    if unknown:
        raise OrderRefused(f"no such pages: {', '.join(unknown)}")
    return ids or list(sandbox.world.page_by_id)


def _revocation(sandbox: Sandbox, order: Mapping[str, object]) -> tuple[object, str, str]:
    """Whose tokens die, with which error, and which one of the user's if only one does."""
    revoke, error, token = order.get("revoke"), order.get("error", "190"), order.get("token", "")
    if revoke is not None and revoke not in _REVOKED:
        raise OrderRefused(f"revoke is one of {', '.join(_REVOKED)}")
    if not isinstance(error, str) or error not in DEATHS:
        raise OrderRefused(f"error is one of {', '.join(DEATHS)}")
    if token:
        # It is not told back: an answer may be logged.
        holder = sandbox.tokens.holder(token) if isinstance(token, str) else None
        if revoke != "user" or holder is None or holder.kind != "user":
            raise OrderRefused("token is one of the user's, and goes with revoke: user")
    return revoke, error, str(token)


def _among(
    order: Mapping[str, object], name: str, known: Sequence[str], at_first: Sequence[str]
) -> list[str] | None:
    """Those of `known` that the order names; null is as at the start, None where nothing is said."""
    if name not in order:
        return None
    given = list(at_first) if order[name] is None else texts(order, name)
    if not set(given) <= set(known):
        raise OrderRefused(f"{name} is a list of {', '.join(known)}")
    return given


def _lead_access(order: Mapping[str, object]) -> str | None:
    """How it is worded that it is missing; empty where it is given back, None where nothing is said."""
    given = order.get("lead_access")
    if given is None:
        return None
    if given is True:
        return ""
    if isinstance(given, str) and given in NO_LEADS:
        return given
    raise OrderRefused(f"lead_access is true or one of {', '.join(NO_LEADS)}")


def _life(order: Mapping[str, object]) -> Life | None:
    given = order.get("fresh")
    for life in LIVES:
        if given == life:
            return life
    if given is None:
        return None
    raise OrderRefused(f"fresh is one of {', '.join(LIVES)}")
