"""A plan and its waves -> carried out on real processes, settled, judged.

    rig -> waves and faults by the clock -> every fault undone -> settled -> facts -> Finding

It decides nothing: what is struck is the plan's, what is wrong is the judge's. Invariant: whatever was struck is undone
before anything is judged.
"""

import heapq
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.system.soak import leaks, truth
from tests.system.soak.figures import covered, greatest
from tests.system.soak.invariants import Facts, Violation, violations
from tests.system.soak.metronome import stood_still, ticking
from tests.system.soak.plan import Fault
from tests.system.soak.rig import Rig, build_rig
from tests.system.soak.shape import LATENCY_SECONDS, Shape, environment_of, sandbox_of
from tests.system.soak.strikes import Striker, Undo
from tests.system.soak.watch import Watcher
from tests.system.soak.waves import Wave

FIRST_SECONDS = 8.0
"""The first answers of a receiver that has just started: it connects to Redis, and the processes beside it start."""
NOT_LIVE = "leads that only a reconciliation brought"
TELL_EVERY_SECONDS = 30.0


@dataclass(slots=True)
class Finding:
    """What a soak came to."""

    violations: list[Violation]
    states: Mapping[str, int]
    leads: int
    struck: Counter[str]
    missed: Counter[str]
    told: dict[str, float] = field(default_factory=dict)
    log: Path | None = None
    plan_so_far: tuple[Fault, ...] = ()

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations


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
            finding = self._judge(stalls)
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
        facts = self._facts_of_rows()
        return not violations(facts)

    def _facts_of_rows(self) -> Facts:
        leads, rows = truth.compare(self._stack)
        orders = self._striker.orders
        return Facts(
            truth=leads,
            rows=rows,
            results=truth.read_results(self._stack, orders.deleted),
            forgotten=frozenset(orders.done),
            perhaps_forgotten=frozenset(orders.tried),
            deleted=frozenset(orders.deleted),
            emptied=self._struck["redis_flush"] > 0,
        )

    def _judge(self, stalls: Path) -> Finding:
        repaired = truth.read_repaired(self._stack)
        samples = self._watcher.samples
        samples.append(self._watcher.look())
        excused = [(self._started, self._started + FIRST_SECONDS), *self._striker.away, *stood_still(stalls)]
        answers = truth.read_answers(self._stack)
        ages = {
            name: max((sample.sizes.get(name, 0.0) for sample in samples), default=0.0)
            for name in ("oldest entry, seconds", "oldest waiting row, seconds")
        }
        facts = replace(
            self._facts_of_rows(),
            moved_back=truth.moved_back(self._stack),
            windows=truth.read_windows(self._stack),
            answers=answers,
            excused=excused,
            slowed=tuple(self._striker.slowed),
            left={
                **truth.read_left(self._stack),
                **({} if self._shape.reconciling else {NOT_LIVE: repaired}),
            },
            ages=ages,
            most_age=self._shape.most_age,
            answer_seconds=self._shape.answer,
            grown=tuple(leaks.growing(samples, tables_per_minute=self._shape.pages * 40)),
            exposed=truth.look_for_canaries(self._stack),
            not_done=tuple(self._striker.errands.given_up),
        )
        slowest = max((a.seconds for a in answers if a.status == "200"), default=0.0)
        found = violations(facts)
        finding = Finding(
            violations=found,
            states=truth.read_states(self._stack),
            leads=len(facts.truth | facts.deleted),
            struck=self._struck,
            missed=self._missed,
            told={
                "deliveries answered": len(answers),
                "answered 503": sum(a.status == "503" for a in answers),
                "slowest 200, seconds": slowest,
                "stretches excused": len(excused),
                "seconds excused": covered(excused),
                "brought by reconciling": repaired,
                "Graph calls": self._stack.get("calls")["calls"],
                "calls over a limit": sum(w.over_limit for w in facts.windows),
                "most calls in the poor Page's window": next(
                    (w.most for w in facts.windows if w.page_id == self._poor), 0
                ),
                "its limit": self._shape.poor_calls,
                "forgotten": len(facts.forgotten),
                "deleted at Meta": len(facts.deleted),
                "replies lost": sum(proxy.lost for proxy in self._rig.proxies.values()),
                **ages,
                **greatest(samples),
            },
        )
        if found:
            finding.plan_so_far = tuple(self._plan)
            finding.log = self._shape.keep / f"soak-{self._shape.seed}-{int(time.time())}.log"
            shutil.copy(self._stack.folder / "whole.log", finding.log)
            self._tell_traces(found)
        return finding

    def _tell_traces(self, found: Sequence[Violation]) -> None:
        for leadgen_id in [v.leadgen_id for v in found if v.leadgen_id][:3]:
            told = self._stack.leadsync("trace", leadgen_id)
            self._tell(f"leadsync trace {leadgen_id}\n{told.output}")
