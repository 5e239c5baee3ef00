"""Start, watch, restart and end the processes of a plan.

    stages -> a thread a process (spawn, wait, restart after a delay) -> a director: starts and ends in order

This file decides no order, delay or bound (plan.py) and formats no line (console.py).

Invariants: once the end was asked for, nothing is started any more. When the director is through, every child
is gone, and with it its process group.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

from worker.errors import LeadSyncError
from worker.supervisor.console import Console
from worker.supervisor.plan import (
    ProcessSpec,
    end_in_words,
    failures_after,
    restart_delay,
    stage_bound,
    stages,
)

OWN_NAME: Final = "leadsync"
STOP_SECONDS: Final = 30.0
"""An orderly end of everything takes no longer; `docker stop` and systemd lose patience not much later."""
POLL_SECONDS: Final = 0.05
LAST_LINES_SECONDS: Final = 1.0
"""A process that left its group may hold a dead child's pipe open; no more lines are waited for then."""
LAST_WORDS_SECONDS: Final = 2.0
"""At the end the screen is waited for so long, if it does not take what was said."""
KILLED_BY_HAND: Final = 130
_LAUNCH: Final = Path(__file__).with_name("launch.py")


class StartFailed(LeadSyncError):
    """A process did not get ready in time, so that everything was ended again."""

    reason = "start_failed"


class _Child:
    """One process of the plan, in all its lives. Its thread is the parent that PR_SET_PDEATHSIG minds."""

    def __init__(self, spec: ProcessSpec, console: Console, stopping: threading.Event) -> None:
        self.spec = spec
        self._console = console
        self._stopping = stopping
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._live, name=f"supervise-{spec.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def is_over(self) -> bool:
        """Whether it has ended and will not be started again."""
        return not self._thread.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Signal the process itself, not its group: what it has started is its own to end."""
        with self._lock:  # from here on it is either spawned or will never be
            process = self._process
        if process is not None:
            process.send_signal(number)

    def kill(self) -> None:
        """Kill the process and all of its group."""
        with self._lock:
            process = self._process
        if process is not None and process.returncode is None:
            _kill_group(process.pid)

    def wait(self, seconds: float) -> bool:
        """Whether it was over within `seconds`."""
        self._thread.join(seconds)
        return self.is_over

    def _live(self) -> None:
        failures = 0
        while True:
            began = time.monotonic()
            end = self._run_once()
            if self._stopping.is_set():
                return
            ran = time.monotonic() - began
            told = f"{self.spec.name} {end} after {ran:.0f} s"
            if not self.spec.restart:
                self._console.say(OWN_NAME, told)
                return
            failures = failures_after(failures, ran)
            delay = restart_delay(failures)
            self._console.say(OWN_NAME, f"{told}; starting it again in {delay:.0f} s")
            if self._stopping.wait(delay):
                return

    def _run_once(self) -> str:
        """One life, from spawn to end; how it ended, in words."""
        try:
            process = self._spawn()
        except OSError as error:
            return f"could not be started ({error.strerror})"
        return "was not started" if process is None else f"ended with {end_in_words(self._attend(process))}"

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """The started process; None when the end was asked for."""
        spec = self.spec
        uid, gid = (spec.account.uid, spec.account.gid) if spec.account is not None else (-1, -1)
        launch: list[str | Path] = [sys.executable, "-I", "-S", _LAUNCH, str(os.getpid()), str(uid), str(gid)]
        with self._lock:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(
                [*launch, *spec.argv],
                env=spec.env,
                cwd=spec.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C at the terminal reaches the supervisor alone
            )
            return self._process

    def _attend(self, process: subprocess.Popen[bytes]) -> int:
        """Show the process' lines until it ends; its return code."""
        assert process.stdout is not None
        pump = threading.Thread(target=self._console.pump, args=(self.spec.name, process.stdout), daemon=True)
        pump.start()
        code = process.wait()
        _kill_group(process.pid)  # what a killed child left of its own children
        pump.join(LAST_LINES_SECONDS)
        if not pump.is_alive():
            process.stdout.close()
        return code


class Supervisor:
    """Runs the processes of `specs` in the background of this program, from `start` to `stop`.

    Not restartable: one Supervisor, one run. `on_event` is told "ready" and "over", from another thread.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        *,
        output: TextIO | None = None,
        stop_seconds: float = STOP_SECONDS,
        on_event: Callable[[str], None] = lambda _event: None,
    ) -> None:
        names = [spec.name for spec in specs]
        if len({OWN_NAME, *names}) != len(names) + 1:
            raise ValueError(f"process names must differ from each other and from {OWN_NAME!r}: {names}")
        self._console = Console(output or sys.stdout, [OWN_NAME, *names])
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._killed = False
        self._failure: str | None = None
        self._stop_seconds = stop_seconds
        self._on_event = on_event
        self._stages = [
            [_Child(spec, self._console, self._stopping) for spec in stage] for stage in stages(specs)
        ]
        self._started: list[list[_Child]] = []
        self._director = threading.Thread(target=self._direct, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._director.start()

    def wait_ready(self, seconds: float | None = None) -> None:
        """Return once every process runs and says it is ready; StartFailed when that does not come about."""
        self._ready.wait(seconds)
        if self._failure is not None:
            raise StartFailed(self._failure)
        if not self._ready.is_set() or self._stopping.is_set():
            raise StartFailed("not every process got ready")

    def say(self, text: str) -> None:
        """Show `text` among the lines of the processes."""
        for line in text.splitlines():
            self._console.say(OWN_NAME, line)

    def pids(self) -> dict[str, int]:
        """The process id of each process that runs at this moment, by name."""
        children = [child for stage in self._stages for child in stage]
        return {child.spec.name: pid for child in children if (pid := child.pid) is not None}

    def request_stop(self) -> None:
        """Ask for the orderly end; returns at once."""
        self._stopping.set()

    def kill(self) -> None:
        """End everything this moment, with SIGKILL."""
        self._killed = True
        self._stopping.set()
        for stage in self._stages:
            for child in stage:
                child.kill()

    def stop(self) -> int:
        """End everything in order and wait for it; the exit code that tells how it went."""
        self.request_stop()
        return self.wait()

    def wait(self) -> int:
        """Wait until everything has ended; 0: orderly end, 1: failed start, 130: killed."""
        self._director.join()
        if self._killed:
            return KILLED_BY_HAND
        return 0 if self._failure is None else 1

    def _direct(self) -> None:
        try:
            if self._bring_up():
                self._ready.set()
                self._on_event("ready")
                self._watch()
        finally:
            self._stopping.set()
            self._bring_down()
            self._console.finish(LAST_WORDS_SECONDS)
            self._ready.set()  # nobody waits for what will not come
            self._on_event("over")

    def _bring_up(self) -> bool:
        """Start stage after stage, each once the one before is ready; whether that was possible."""
        for stage in self._stages:
            self._started.append(stage)
            for child in stage:
                child.start()
            if not all(self._becomes_ready(child.spec) for child in stage):
                return False
        return not self._stopping.is_set()

    def _becomes_ready(self, spec: ProcessSpec) -> bool:
        deadline = time.monotonic() + spec.ready_seconds
        while spec.is_ready is not None and not spec.is_ready():
            if time.monotonic() > deadline:
                self._failure = f"{spec.name} was not ready after {spec.ready_seconds:.0f} s"
                self._console.say(OWN_NAME, self._failure)
                return False
            if self._stopping.wait(POLL_SECONDS):
                return False
        return True

    def _watch(self) -> None:
        """Wait for the wish to end, for our reader to go away, or for the last process to be over."""
        children = [child for stage in self._stages for child in stage]
        while not self._stopping.wait(POLL_SECONDS):
            if self._console.closed or all(child.is_over for child in children):
                return

    def _bring_down(self) -> None:
        """End stage after stage, the last started first, each within its bound and all within ours."""
        deadline = time.monotonic() + self._stop_seconds
        ahead = self._started[::-1]
        while ahead:
            plan = [[child.spec for child in stage] for stage in ahead]
            self._end(ahead.pop(0), stage_bound(plan, deadline - time.monotonic()))

    def _end(self, stage: list[_Child], bound: float) -> None:
        deadline = time.monotonic() + bound
        for child in stage:
            child.send(child.spec.stop_signal)
        for child in stage:
            if not child.wait(max(0.0, deadline - time.monotonic())):
                if not self._killed:
                    self._console.say(OWN_NAME, f"{child.spec.name} did not end within {bound:.0f} s: killed")
                child.kill()
                child.wait(LAST_LINES_SECONDS * 2)


def run(specs: Sequence[ProcessSpec], on_ready: Callable[[], str | None] | None = None) -> int:
    """Run `specs` until SIGINT, SIGTERM or SIGHUP, then end them in order; a second signal kills them.

    Only from the main thread, which calls `on_ready` once all are ready, and sees no signal while that runs.
    The text that it returns is shown; printed by itself it would get mixed up with the lines of others.
    """
    # A queue, because a signal handler may not wait for a lock that the code it interrupted holds.
    events: queue.SimpleQueue[str] = queue.SimpleQueue()
    supervisor = Supervisor(specs, on_event=events.put)
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup wants us to stay
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: events.put("signal")) for number in numbers}
    try:
        supervisor.start()
        signals = 0
        while (event := _next_of(events)) != "over":
            if event == "ready" and on_ready is not None:
                supervisor.say(on_ready() or "")
            elif event == "signal":
                signals += 1
                if signals == 1:
                    supervisor.request_stop()
                else:
                    supervisor.kill()
        return supervisor.wait()
    finally:
        supervisor.stop()
        for number, handler in before.items():
            signal.signal(number, handler)


def _next_of(events: queue.SimpleQueue[str]) -> str:
    """The next event, also where a signal did not wake this thread up.

    A handler runs in the main thread, between two instructions; a signal that comes just before this thread
    goes to sleep, or that the kernel gives to another one, sets a flag and interrupts nothing. Without a look
    now and then a Ctrl-C would be heard with the next event only, the end of everything perhaps.
    """
    while True:
        with suppress(queue.Empty):
            return events.get(timeout=POLL_SECONDS)


def _kill_group(pid: int) -> None:
    """Kill the group that `pid` leads, if there still is one."""
    # macOS says EPERM where only zombies are left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
