"""A plan and its waves -> carried out on real processes, settled, judged.

    rig -> waves and faults by the clock -> every fault undone -> settled -> Finding

It decides nothing: what is struck is the plan's, what is wrong is the judge's (invariants.py). Invariant: whatever was
struck is undone before anything is judged.
"""

import heapq
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.system.soak import truth
from tests.system.soak.finding import Finding, Seen, facts_of_rows, judged
from tests.system.soak.hand import Undo
from tests.system.soak.invariants import Violation, violations
from tests.system.soak.metronome import stood_still, ticking
from tests.system.soak.plan import Fault
from tests.system.soak.rig import Rig, build_rig
from tests.system.soak.shape import LATENCY_SECONDS, Shape, environment_of, sandbox_of
from tests.system.soak.strikes import Striker
from tests.system.soak.watch import Watcher
from tests.system.soak.waves import Wave

FIRST_SECONDS = 8.0
"""The first answers of a receiver that has just started: it connects to Redis, and the processes beside it start."""
TELL_EVERY_SECONDS = 30.0


class SoakFailed(Exception):
    """Carries a finding out of the running stack."""

    def __init__(self, finding: Finding) -> None:
        super().__init__("a promise was broken")
        self.finding = finding


def run(
    shape: Shape,
    plan: Sequence[Fault],
    waves: Sequence[Wave],
    tell: Callable[[str], None] = lambda _line: None,
) -> Finding:
    """Carry it out."""
    rig_options: dict[str, Any] = {
        "clock": shape.clock and any(fault.kind == "clock" for fault in plan),
        "revision": shape.revision,
        "metrics_port": shape.metrics_port,
    }
    try:
        with build_rig(env=environment_of(shape), sandbox=sandbox_of(shape), **rig_options) as rig:
            finding = _Soak(rig, shape, plan, waves, tell).run()
            if not finding.good:
                raise SoakFailed(finding)
    except SoakFailed as failed:
        return failed.finding
    return finding


class _Soak:
    def __init__(
        self,
        rig: Rig,
        shape: Shape,
        plan: Sequence[Fault],
        waves: Sequence[Wave],
        tell: Callable[[str], None],
    ) -> None:
        self._rig, self._stack, self._shape, self._tell = rig, rig.stack, shape, tell
        self._plan, self._waves = plan, waves
        # The last Page is the poor one, and has no troubles besides.
        self._poor = rig.pages[-1]
        self._striker = Striker(rig, random.Random(shape.seed + 1), rig.pages[:-1], LATENCY_SECONDS)
        self._watcher = Watcher(rig.stack, every=max(1.0, min(5.0, shape.seconds / 60)))
        self._struck: Counter[str] = Counter()
        self._missed: Counter[str] = Counter()
        self._began, self._started = time.monotonic(), time.time()

    def run(self) -> Finding:
        """The whole of it."""
        truth.watch_moves(self._stack)
        self._limit_poor_page()
        with ticking(self._stack.folder) as stalls:
            self._began, self._started = time.monotonic(), time.time()
            self._watcher.start()
            self._carry_out()
            loaded = time.monotonic() - self._began
            settled = self._stack.wait_for(self._is_settled, self._shape.settle)
            took = time.monotonic() - self._began
            self._watcher.stop()
            self._striker.errands.close()
            finding = self._finding(stalls)
        finding.told |= {"seconds of load": loaded, "seconds to settle": took - loaded, "settled": settled}
        return finding

    def _limit_poor_page(self) -> None:
        if self._shape.poor_calls:
            limit = self._shape.poor_calls
            self._stack.post("limits", {"page": self._poor, "limit": limit})
            told = self._stack.leadsync("budget", "limit", self._poor, str(limit))
            assert told.exit_code == 0, told.output

    # ---- by the clock

    def _carry_out(self) -> None:
        """Faults, their ends and waves in the order of their time; then everything is undone."""
        todo: list[tuple[float, int, Callable[[], None]]] = []
        undone: list[Undo] = []

        def at(moment: float, do: Callable[[], None]) -> None:
            heapq.heappush(todo, (moment, next(order), do))

        order = iter(range(10**9))
        for fault in self._plan:
            at(fault.at, lambda fault=fault: self._strike(fault, at, undone))  # type: ignore[misc]
        for wave in self._waves:
            at(wave.at, lambda wave=wave: self._send(wave, at))  # type: ignore[misc]
        told_at = 0.0
        while todo:
            moment = todo[0][0]
            passed = time.monotonic() - self._began
            if passed < moment:
                time.sleep(min(moment - passed, 0.2))
                if passed - told_at > TELL_EVERY_SECONDS:
                    told_at = passed
                    self._tell(f"{passed:7.1f} s  {self._progress()}")
                continue
            _, _, do = heapq.heappop(todo)
            do()
        for undo in undone:
            undo()

    def _strike(
        self, fault: Fault, at: Callable[[float, Callable[[], None]], None], undone: list[Undo]
    ) -> None:
        passed = time.monotonic() - self._began
        try:
            struck = self._striker.strike(fault)
        except OSError as error:
            self._missed[fault.kind] += 1
            self._tell(f"{passed:7.1f} s  {fault.kind} {fault.target}: not struck, {type(error).__name__}")
            return
        (self._struck if struck.hit else self._missed)[fault.kind] += 1
        self._tell(f"{passed:7.1f} s  {fault.text}{'' if struck.hit else '  (nobody there)'}")
        undone.append(struck.undo)
        if fault.seconds:
            at(passed + fault.seconds, struck.undo)

    def _send(self, wave: Wave, at: Callable[[float, Callable[[], None]], None]) -> None:
        if not wave.late:
            self._stack.send(**wave.order)
            return
        made = self._stack.post("leads", {"count": wave.count})["leads"]
        at(wave.at + wave.late, lambda: self._stack.send(leads=made, **wave.order))

    def _progress(self) -> str:
        try:
            told = self._stack.get("send")
            return f"created {told['created']:,}, {self._stack.states()}"
        except Exception as error:
            return f"({type(error).__name__}: a server is down)"

    # ---- the end

    def _is_settled(self) -> bool:
        """Nothing is left to do, and every lead of Meta's is a row that needs nothing more."""
        if not self._striker.errands.idle or any(truth.read_left(self._stack).values()):
            return False
        emptied = self._struck["redis_flush"] > 0
        return not violations(facts_of_rows(self._stack, self._striker.orders, emptied=emptied))

    def _finding(self, stalls: Path) -> Finding:
        seen = Seen(
            striker=self._striker,
            struck=self._struck,
            missed=self._missed,
            samples=[*self._watcher.samples, self._watcher.look()],
            excused=[
                (self._started, self._started + FIRST_SECONDS), *self._striker.away, *stood_still(stalls)
            ],
            poor=self._poor,
        )  # fmt: skip
        finding = judged(self._rig, self._shape, seen)
        if not finding.good:
            finding.plan_so_far = tuple(self._plan)
            finding.log = self._shape.keep / f"soak-{self._shape.seed}-{int(time.time())}.log"
            shutil.copy(self._stack.folder / "whole.log", finding.log)
            self._tell_traces(finding.violations)
        return finding

    def _tell_traces(self, found: Sequence[Violation]) -> None:
        for leadgen_id in [v.leadgen_id for v in found if v.leadgen_id][:3]:
            told = self._stack.leadsync("trace", leadgen_id)
            self._tell(f"leadsync trace {leadgen_id}\n{told.output}")
