"""Faults of Graph, of tokens and of the app's access -> told to the sandbox, and how each is undone."""

import urllib.parse
import urllib.request

from tests.system.soak.hand import Hand, Struck
from tests.system.soak.plan import TOKEN_DEATHS, Fault


class GraphStrikes(Hand):
    """Lets Graph fail, slow down, throttle and refuse."""

    _graph_faults = 0
    """Rules in force."""

    def _rule(self, **rule: object) -> Struck:
        """A rule that ends by itself; once the last has, all are taken away."""
        self.stack.post("faults", {"rules": [rule], "merge": True})
        self._graph_faults += 1
        done: list[bool] = []

        def undo() -> None:
            if not done:
                done.append(True)
                self._graph_faults -= 1
                if self._graph_faults == 0:
                    urllib.request.urlopen(
                        urllib.request.Request(f"{self.stack.sandbox_url}/sandbox/faults", method="DELETE"),
                        timeout=30,
                    ).close()

        return Struck(True, undo)

    def _graph(self, fault: Fault) -> Struck:
        more: dict[str, object] = {}
        if fault.target == "huge_body":
            more = {"count": 2}
        elif fault.target in ("timeout", "slow_body"):
            more = {"hold_seconds": 8}
        elif fault.target == "not_visible":
            more = {"for_seconds": fault.seconds}
        return self._rule(**{"class": fault.target}, rate=fault.amount, seconds=fault.seconds, **more)

    def _graph_deadly(self, fault: Fault) -> Struck:
        return self._rule(**{"class": fault.target}, kinds=["lead"], rate=fault.amount, seconds=fault.seconds)

    def _graph_listing(self, fault: Fault) -> Struck:
        return self._rule(**{"class": fault.target}, kinds=["form_leads"], seconds=fault.seconds, count=2)

    def _graph_blocking(self, fault: Fault) -> Struck:
        # A listing that is refused once, while its Page is not parked, waits an hour: people have to grant it.
        return self._rule(
            **{"class": fault.target}, kinds=["lead"], pages=[self._page()], seconds=fault.seconds
        )

    def _graph_throttling(self, fault: Fault) -> Struck:
        return self._rule(
            **{"class": fault.target}, pages=[self._page()], seconds=fault.seconds, count=2, minutes=1
        )

    def _graph_slow(self, fault: Fault) -> Struck:
        self.stack.post("latency", {"seconds": fault.amount})
        return Struck(True, lambda: (self.stack.post("latency", {"seconds": self._latency}), None)[1])

    def _token(self, fault: Fault) -> Struck:
        error = self._luck.choice(TOKEN_DEATHS)
        if fault.target == "page":
            # It is derived anew by itself.
            self.stack.post("tokens", {"revoke": "page", "pages": [self._page()], "error": error})
            return Struck(True)
        self.stack.post("tokens", {"revoke": "user", "error": error})

        def undo() -> None:
            self.stack.post("tokens", {"fresh": "long"})
            self.errands.see_through("a fresh token", lambda: (self.rig.connect(), True)[1])

        return Struck(True, undo)

    def _lead_access(self, fault: Fault) -> Struck:
        self.stack.post("tokens", {"lead_access": fault.target, "pages": [self._page()]})
        return Struck(True, lambda: (self.stack.post("tokens", {"restore": True}), None)[1])
