"""One fault of a plan -> struck, and how it is undone.

    Fault -> Struck(hit, undo);  what must be seen through, however often it fails -> errands.py

What is hit is only what the plan says; it decides nothing. Processes and the clock are struck here, all else in the
files beside. Invariant: a stretch in which the receiver may be late is written down before it begins.
"""

import os
import random
import signal
import time
from pathlib import Path

from tests.system.soak.hand import Struck
from tests.system.soak.plan import Fault
from tests.system.soak.rig import Rig
from tests.system.soak.strikes_at_graph import GraphStrikes
from tests.system.soak.strikes_of_people import PeopleStrikes
from tests.system.soak.strikes_on_servers import ServerStrikes

BACK_SECONDS = 20.0
"""After it was hit the receiver may be away so long: the supervisor waits up to ten seconds, and it has to start."""


class Striker(ServerStrikes, GraphStrikes, PeopleStrikes):
    """Strikes."""

    def __init__(self, rig: Rig, luck: random.Random, pages: tuple[str, ...], latency: float) -> None:
        super().__init__(rig, luck, pages, latency)
        self.away: list[tuple[float, float]] = []
        """Stretches of unix time in which the receiver cannot answer, since it was hit."""

    def strike(self, fault: Fault) -> Struck:
        """Carry out one fault."""
        if fault.target in ("receiver", "webhook"):
            self._receiver_is_hit(fault.seconds)
        return getattr(self, f"_{fault.kind}")(fault)  # type: ignore[no-any-return]

    def _receiver_is_hit(self, seconds: float = 0.0) -> None:
        self.away.append((time.time() - 1, time.time() + seconds + BACK_SECONDS))

    def _pid(self, target: str) -> int | None:
        name, _, child = target.partition(" ")
        if not child:
            return self.stack.pid(name)
        children = self.stack.children(name)
        return self._luck.choice(children) if children else None

    def _kill(self, fault: Fault) -> Struck:
        return Struck(self.stack.kill(self._pid(fault.target)))

    def _term(self, fault: Fault) -> Struck:
        return Struck(self.stack.kill(self._pid(fault.target), signal.SIGTERM))

    def _stop(self, fault: Fault) -> Struck:
        return self._stopped(self._pid(fault.target))

    def _roll(self, fault: Fault) -> Struck:
        release = self.rig.release
        if release is None:
            return Struck(False)
        release.move_on()
        names = [
            name for name in self.stack.supervisor.pids() if name not in ("redis", "postgres", "sandbox")
        ]
        waiting = list(names)

        def next_one() -> bool:
            name = waiting[0]
            pid = self.stack.pid(name)
            cwd = os.readlink(f"/proc/{pid}/cwd") if pid else ""
            if pid and Path(cwd).name == "former":
                if name == "receiver":
                    self._receiver_is_hit()
                self.stack.kill(pid, signal.SIGTERM)
                return False
            if pid:
                waiting.pop(0)
            return not waiting

        self.errands.see_through("rolling restart", next_one)
        return Struck(True)

    def _clock(self, fault: Fault) -> Struck:
        clock = self.rig.clock
        if clock is None:
            return Struck(False)
        clock.jump(fault.amount if fault.target == "ahead" else -fault.amount)
        return Struck(True, lambda: clock.jump(0))
