"""What one running sandbox holds: config -> world, tokens, fault plan, journal, Graph, sender.

Where everything meets; it does nothing itself. The server around it is app.py.

Invariant: two Sandboxes share nothing.
"""

import random
from dataclasses import dataclass, field, replace
from email.utils import formatdate

from sandbox.batch import answer_batch, is_batch
from sandbox.config import SandboxConfig
from sandbox.deliveries import Mix
from sandbox.faults import FaultPlan
from sandbox.grants import Grants
from sandbox.graph import Graph
from sandbox.journal import Journal
from sandbox.request import Answer, Request
from sandbox.sender import Run, Sender
from sandbox.tokens import Tokens
from sandbox.world import World


@dataclass(slots=True)
class Latency:
    """How long answers take, in seconds; `jitter` more or less."""

    seconds: float
    jitter: float
    pages: dict[str, float] = field(default_factory=dict)
    """Pages that are slower or faster than the others."""


class Sandbox:
    """Everything that one running sandbox holds."""

    def __init__(self, config: SandboxConfig, now: float) -> None:
        self.config = config
        self.world = World(
            seed=config.seed,
            pages=config.pages,
            forms_per_page=config.forms_per_page,
            ads_per_form=config.ads_per_form,
            leads=config.leads,
            now=now,
        )
        self.tokens = Tokens(
            seed=config.seed,
            page_ids=self.world.page_by_id,
            app=config.app_token,
            grants=Grants(filter(None, config.scopes.split(",")), self.world.page_by_id),
            user_kind=config.user_kind,
            lives=(config.short_token_seconds, config.long_token_seconds),
            now=now,
        )
        self.plan = FaultPlan(config.seed)
        self.plan.give(config.faults, now)
        self.journal = Journal()
        self.graph = Graph(self.world, self.tokens, self.plan, self.journal, config)
        self.sender = Sender(self.journal, config)
        self.latency = Latency(config.latency_seconds, config.jitter_seconds)
        self.clock_offset = config.clock_offset_seconds
        self._luck = random.Random(config.seed)

    def delay(self, page_id: str | None) -> float:
        """How long the next answer takes."""
        seconds = self.latency.pages.get(page_id or "", self.latency.seconds)
        jitter = self.latency.jitter
        return max(0.0, seconds + jitter * (2 * self._luck.random() - 1)) if jitter else seconds

    def announce_test_leads(self) -> None:
        """Send the webhooks of the test leads made since: to whoever is subscribed, and where nobody ever subscribed
        to `webhook_url`, as for all other leads."""
        config, subscriptions, testing = self.config, self.graph.subscriptions, self.graph.testing
        followed = subscriptions if config.subscriptions or subscriptions.ever else None
        made, testing.unannounced = testing.unannounced, []
        if made:
            run = Run(
                Mix(count=len(made)),
                made.__getitem__,
                config.webhook_url,
                config.app_secret,
                subscriptions=followed,
            )
            self.sender.start(run)

    def answer(self, request: Request, now: float, delay: float) -> Answer:
        """The answer to one HTTP request that came in now and is answered after `delay`."""
        if is_batch(request):
            answer = answer_batch(self.graph, request, now, now + delay)
        else:
            answer = self.graph.call(request, now, now + delay)
        if not self.clock_offset:
            return answer
        date = formatdate(now + delay + self.clock_offset, usegmt=True)
        return replace(answer, headers=(*answer.headers, ("Date", date)))
