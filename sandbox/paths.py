"""What a call is about: path without its version -> node or edge, and the kind that counts call it.

Nothing is answered and nobody is refused here but for a path that leads nowhere.

Invariant: each kind is one of faults.KINDS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sandbox import errors
from sandbox.request import GraphRefusal, Request
from sandbox.tokens import Holder
from sandbox.world import Ad, Form, Lead, Page, World


@dataclass(frozen=True, slots=True)
class User:
    """The user, or the system user, whose tokens there are."""

    user_id: str


@dataclass(frozen=True, slots=True)
class App:
    """The app that was granted them."""

    app_id: str


Node = Lead | Form | Page | Ad | User | App
_OF_A_PAGE: Final = (Lead, Form, Page)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call is about."""

    kind: str
    """One of faults.KINDS."""
    node: Node | None
    form: Form | None = None
    """For an ad: the form whose leads it brought."""
    unknown_id: str = ""

    @property
    def page_id(self) -> str | None:
        """The Page that the node belongs to."""
        if self.form is not None:
            return self.form.page_id
        return self.node.page_id if isinstance(self.node, _OF_A_PAGE) else None

    @property
    def name(self) -> str:
        """The id that an error about this call names."""
        match self.node:
            case Lead(leadgen_id=node_id) | Form(form_id=node_id) | Page(page_id=node_id) | Ad(ad_id=node_id):
                return node_id
            case User(user_id=node_id) | App(app_id=node_id):
                return node_id
        return self.unknown_id


class Call(NamedTuple):
    """One call whose caller may make it."""

    asked: Asked
    request: Request
    holder: Holder
    version: str
    now: float

    @property
    def method(self) -> str:
        """What the request is meant as."""
        return self.request.meant

    def need_get(self) -> None:
        """Refuse whatever does not read."""
        if self.method == "DELETE":
            raise GraphRefusal(errors.NOT_THERE.about(self.asked.name))
        if self.method != "GET":
            raise GraphRefusal(errors.NO_POST.about(self.asked.name))


_EDGES: Final = {
    (Form, "leads"): "form_leads",
    (Form, "test_leads"): "test_leads",
    (Ad, "leads"): "ad_leads",
    (Page, "leadgen_forms"): "page_forms",
    (Page, "subscribed_apps"): "subscribed_apps",
    (User, "accounts"): "accounts",
    (App, "subscriptions"): "subscriptions",
}
_NODES: Final = {Lead: "lead", Form: "form", Page: "page", Ad: "ad", User: "user", App: "other"}
_ROOTS: Final = {("debug_token",): "debug_token", ("oauth", "access_token"): "oauth"}
"""What is neither node nor edge."""


class Paths:
    """Everything that a path can name in one world."""

    def __init__(self, world: World, app_id: str, user_id: str) -> None:
        self._world = world
        self._others: dict[str, Node] = {app_id: App(app_id), user_id: User(user_id)}

    def asked(self, parts: Sequence[str]) -> Asked:
        """What a path without its version names."""
        if root := _ROOTS.get(tuple(parts)):
            return Asked(root, None)
        if not parts or len(parts) > 2:
            raise GraphRefusal(errors.UNKNOWN_PATH.about("/".join(parts[1:])))
        if not (parts[0].isascii() and parts[0].isdigit()):
            raise GraphRefusal(errors.NO_ALIAS.about(parts[0]))
        node, form = self._node(parts[0])
        if node is None:
            return Asked("lead" if len(parts) == 1 else "other", None, unknown_id=parts[0])
        kind = _NODES[type(node)] if len(parts) == 1 else _EDGES.get((type(node), parts[1]))
        if kind is None:
            raise GraphRefusal(errors.UNKNOWN_PATH.about(parts[1]))
        return Asked(kind, node, form)

    def _node(self, node_id: str) -> tuple[Node | None, Form | None]:
        if len(node_id) > 30:
            return None, None
        world = self._world
        if form := world.form_by_ad_id.get(node_id):
            return next(ad for ad in form.ads if ad.ad_id == node_id), form
        if known := world.form_by_id.get(node_id) or world.page_by_id.get(node_id):
            return known, None
        return self._others.get(node_id) or world.find(node_id), None
