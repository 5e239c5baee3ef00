"""The supervisor with real processes: restarts, the order of the end, and that nothing is left."""

import io
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker.supervisor import RECEIVER, SERVERS, WORKERS, ProcessSpec, StartFailed, Supervisor
from worker.supervisor import processes as supervisor_processes

SLEEP = "import signal, time; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
)


class Lines(io.StringIO):
    """An output whose lines can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self._new: queue.Queue[str] = queue.Queue()

    def write(self, text: str, /) -> int:
        self._new.put(text.rstrip("\n"))
        return len(text)

    def wait_for(self, part: str, times: int = 1) -> str:
        """The line that brings the count of lines holding `part` to `times`."""
        while sum(part in line for line in self.seen) < times:
            self.seen.append(self._new.get(timeout=20))
        return self.seen[-1]

    def all(self) -> list[str]:
        while not self._new.empty():
            self.seen.append(self._new.get())
        return self.seen


def python(name: str, code: str, **kwargs: object) -> ProcessSpec:
    return ProcessSpec(name, [sys.executable, "-c", code], **kwargs)  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(seconds: float, pid: int) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


@pytest.fixture
def output() -> Lines:
    return Lines()


@pytest.fixture
def supervise(output: Lines) -> Iterator[Callable[..., Supervisor]]:
    """Starts a Supervisor that does not outlive the test."""
    started: list[Supervisor] = []

    def start(*specs: ProcessSpec, stop_seconds: float = 30.0) -> Supervisor:
        supervisor = Supervisor(specs, output=output, stop_seconds=stop_seconds)
        started.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for supervisor in started:
        supervisor.kill()
        supervisor.wait()


def test_a_killed_child_is_started_again(supervise: Callable[..., Supervisor], output: Lines) -> None:
    """A child that ends comes back, and the console tells how it ended and when it comes back."""
    supervisor = supervise(python("worker", SLEEP))
    output.wait_for("worker   | up")
    first = supervisor.pids()["worker"]
    os.kill(first, signal.SIGKILL)
    output.wait_for("worker   | up", times=2)
    assert supervisor.pids()["worker"] != first
    assert any("worker ended with SIGKILL" in line and "again in 1 s" in line for line in output.all())
    assert supervisor.stop() == 0


def test_a_program_that_is_not_there_is_told_and_tried_again(
    supervise: Callable[..., Supervisor], output: Lines
) -> None:
    """A wrong command is no crash of the supervisor: its name and reason are on the console."""
    supervise(ProcessSpec("worker", ["/nowhere/celery"]), ProcessSpec("other", ["true"], cwd="/nowhere"))
    output.wait_for("worker   | /nowhere/celery: No such file or directory")
    output.wait_for("worker ended with code 1")
    output.wait_for("other could not be started (No such file or directory)")


def test_what_a_killed_child_leaves_is_ended_before_the_next(
    supervise: Callable[..., Supervisor], output: Lines
) -> None:
    """A killed worker's own children do not go on working beside its successor."""
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print('child', p.pid, flush=True); p.wait()"
    supervisor = supervise(python("worker", code))
    grandchild = int(output.wait_for("child").rsplit(" ", 1)[1])
    os.kill(supervisor.pids()["worker"], signal.SIGKILL)
    output.wait_for("child", times=2)
    assert not is_alive(grandchild)


def test_a_stage_waits_until_the_one_before_is_ready(
    supervise: Callable[..., Supervisor], output: Lines
) -> None:
    """Nobody is started before what it leans on answers."""
    answers = threading.Event()
    supervisor = supervise(
        python("worker", SLEEP, order=WORKERS),
        python("redis", SLEEP, order=SERVERS, is_ready=answers.is_set),
    )
    output.wait_for("redis    | up")
    assert set(supervisor.pids()) == {"redis"}
    answers.set()
    supervisor.wait_ready(20)
    output.wait_for("worker   | up")


def test_who_never_gets_ready_ends_the_start(supervise: Callable[..., Supervisor], output: Lines) -> None:
    """A server that does not answer in time is named, and what runs already is ended again."""
    supervisor = supervise(
        python("redis", SLEEP, order=SERVERS, is_ready=lambda: False, ready_seconds=0.2),
        python("worker", SLEEP, order=WORKERS),
    )
    with pytest.raises(StartFailed, match="redis was not ready"):
        supervisor.wait_ready(20)
    assert supervisor.wait() == 1
    assert supervisor.pids() == {}
    assert not any("worker" in line for line in output.all())


def test_the_end_comes_in_order(supervise: Callable[..., Supervisor], output: Lines) -> None:
    """The receiver is gone before the workers are asked, and they before the servers."""
    code = (
        "import signal, sys, time\n"
        "def end(*_): print('asked', flush=True); time.sleep(0.2); print('gone', flush=True); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); signal.pause()\n"
    )
    supervisor = supervise(
        python("redis", code, order=SERVERS),
        python("receiver", code, order=RECEIVER),
        python("worker", code, order=WORKERS),
    )
    supervisor.wait_ready(20)
    output.wait_for("| up", times=3)
    assert supervisor.stop() == 0
    told = [line for line in output.all() if line.endswith(("asked", "gone"))]
    assert told == [
        f"{name:<8} | {what}" for name in ("receiver", "worker", "redis") for what in ("asked", "gone")
    ]


def test_each_child_gets_its_own_stop_signal(supervise: Callable[..., Supervisor], output: Lines) -> None:
    """Postgres wants SIGINT where others want SIGTERM."""
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, lambda *_: sys.exit(print('interrupted', flush=True)))\n"
        "print('up', flush=True); signal.pause()\n"
    )
    supervisor = supervise(python("postgres", code, stop_signal=signal.SIGINT))
    output.wait_for("up")
    assert supervisor.stop() == 0
    output.wait_for("interrupted")


def test_who_ignores_the_stop_is_killed_at_its_bound(
    supervise: Callable[..., Supervisor], output: Lines
) -> None:
    """A stubborn process costs its bound and no more, its stage ends together, and the end is still orderly."""
    supervisor = supervise(
        *(python(f"worker-{n}", STUBBORN, stop_seconds=0.5) for n in range(3)),
        python("redis", SLEEP, order=SERVERS),
    )
    output.wait_for("| up", times=4)
    began = time.monotonic()
    assert supervisor.stop() == 0
    assert time.monotonic() - began < 3
    assert sum("did not end within 0" in line for line in output.all()) == 3
    assert supervisor.pids() == {}


def test_the_whole_end_is_bounded(supervise: Callable[..., Supervisor], output: Lines) -> None:
    """However many stages are stubborn, all in all the end takes no longer than it was given."""
    supervisor = supervise(
        *(python(f"p{n}", STUBBORN, order=n, stop_seconds=10) for n in range(4)), stop_seconds=1
    )
    output.wait_for("| up", times=4)
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 4


def test_a_stop_during_the_start_ends_it(supervise: Callable[..., Supervisor], output: Lines) -> None:
    """An early Ctrl-C does not wait for a server to get ready."""
    supervisor = supervise(python("redis", SLEEP, is_ready=lambda: False))
    output.wait_for("| up")
    assert supervisor.stop() == 0
    with pytest.raises(StartFailed):
        supervisor.wait_ready(1)


def test_a_stop_during_a_delay_does_not_wait_it_out(
    supervise: Callable[..., Supervisor], output: Lines
) -> None:
    """A process that waits to be started again is not started any more."""
    supervisor = supervise(python("worker", "import sys; sys.exit(3)"))
    output.wait_for("again in 2 s")
    began = time.monotonic()
    assert supervisor.stop() == 0
    assert time.monotonic() - began < 1


def test_a_child_that_is_not_restarted_may_end(supervise: Callable[..., Supervisor], output: Lines) -> None:
    """Where nothing is left to run, the run is over."""
    supervisor = supervise(python("once", "print('done')", restart=False))
    assert supervisor.wait() == 0
    assert "once     | done" in output.all()


def test_two_processes_of_one_name_are_refused() -> None:
    """Names tell the lines apart."""
    with pytest.raises(ValueError, match="differ"):
        Supervisor([ProcessSpec("a", ["true"]), ProcessSpec("a", ["true"])])


PROGRAM = """
import sys
from worker.supervisor import ProcessSpec, RECEIVER, run
code = sys.argv[1]
specs = [
    ProcessSpec("worker", [sys.executable, "-c", code], stop_seconds=8),
    ProcessSpec("receiver", [sys.executable, "-c", code], order=RECEIVER, stop_seconds=8),
]
sys.exit(run(specs, on_ready=lambda: "all are ready"))
"""


@pytest.fixture
def program() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Runs the supervisor as a program in a process group of its own, both children running `code`."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "import os; print('pid', os.getpid(), flush=True);" + code],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(supervisor_processes.__file__).parents[2],
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def children_of(process: subprocess.Popen[str]) -> list[int]:
    """The pids of both children, once they are up and all is ready."""
    assert process.stdout is not None
    pids: list[int] = []
    up, ready = 0, False
    while len(pids) < 2 or up < 2 or not ready:
        line = process.stdout.readline()
        assert line, "the supervisor ended early"
        assert "again in" not in line, line
        if "| pid" in line:
            pids.append(int(line.rsplit(" ", 1)[1]))
        up += line.endswith("| up\n")
        ready = ready or line == "leadsync | all are ready\n"
    return pids


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_to_the_whole_group_ends_in_order(
    program: Callable[[str], subprocess.Popen[str]], number: signal.Signals
) -> None:
    """A Ctrl-C, which the terminal sends to the whole group, ends everything with exit code 0."""
    process = program(SLEEP)
    pids = children_of(process)
    os.killpg(process.pid, number)
    assert process.wait(20) == 0
    assert not any(map(is_alive, pids))


def test_a_second_signal_kills_at_once(program: Callable[[str], subprocess.Popen[str]]) -> None:
    """Who presses Ctrl-C twice does not wait, and the exit code says that it was not orderly."""
    code = STUBBORN.replace("signal.SIG_IGN", "lambda *_: print('asked', flush=True)").replace(
        "signal.pause()", "[signal.pause() for _ in range(9)]"
    )
    process = program(code)
    pids = children_of(process)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    while "asked" not in process.stdout.readline():
        pass
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert time.monotonic() - began < 4
    assert not any(map(is_alive, pids))


UNWOKEN = """
import signal, sys, threading, time
from worker.supervisor import ProcessSpec, run

def deliver_elsewhere():
    # What the kernel gives to another thread does not wake the main one up; nor does what comes in
    # the instant before it goes to sleep, which no test can time.
    while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        time.sleep(0.01)
    time.sleep(0.3)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

threading.Thread(target=deliver_elsewhere).start()
sys.exit(run([ProcessSpec("worker", [sys.executable, "-c", sys.argv[1]])]))
"""


def test_a_signal_that_wakes_nobody_is_heard() -> None:
    """A Ctrl-C counts also where it did not interrupt the main thread's sleep."""
    ended = subprocess.run(
        [sys.executable, "-c", UNWOKEN, SLEEP],
        timeout=20,
        capture_output=True,
        cwd=Path(supervisor_processes.__file__).parents[2],
    )
    assert ended.returncode == 0, ended.stderr.decode()


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux'")
def test_children_die_with_a_killed_supervisor(program: Callable[[str], subprocess.Popen[str]]) -> None:
    """kill -9 of the supervisor leaves no process behind, not even one that ignores SIGTERM."""
    process = program(STUBBORN)
    pids = children_of(process)
    process.kill()
    process.wait()
    assert all(gone_within(10, pid) for pid in pids)


def test_a_reader_that_leaves_ends_the_run(program: Callable[[str], subprocess.Popen[str]]) -> None:
    """`leadsync up | head` ends when head has seen enough."""
    process = program(SLEEP)
    pids = children_of(process)
    assert process.stdout is not None
    process.stdout.close()
    os.kill(pids[0], signal.SIGKILL)  # something to tell, and nobody to listen
    assert process.wait(20) == 0
    assert not any(map(is_alive, pids))


def test_a_screen_that_nobody_reads_holds_up_no_child_and_no_end(
    program: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    """After Ctrl-S, or in `| less`, the receiver once stood still in its next log line."""
    beat, told = tmp_path / "beat", tmp_path / "told"
    far = 4 * 1024 * 1024 // 400  # more lines than pipes and queue hold
    # Who speaks at once may have its pid among the lines that are left out.
    code = (
        "import signal, time; print('up', flush=True)\n"
        f"while not os.path.exists({str(told)!r}): time.sleep(0.01)\n"
        f"[print('x' * 400, flush=True) for _ in range({far})]\n"
        f"open({str(beat)!r}, 'a').write('through '); signal.pause()"
    )
    process = program(code)
    pids = children_of(process)
    told.touch()
    deadline = time.monotonic() + 30
    while not beat.exists() or beat.read_text().count("through") < 2:
        assert time.monotonic() < deadline, "a child waits for the screen"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not any(map(is_alive, pids))


def test_the_last_words_are_shown(supervise: Callable[..., Supervisor], output: Lines) -> None:
    """Once the end is told, everything that was said on the way there is on the screen."""
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('\\n'.join(f'word {n}' for n in range(2_000))))\n"
        "print('up', flush=True); signal.pause()\n"
    )
    supervisor = supervise(python("worker", code))
    output.wait_for("| up")
    assert supervisor.stop() == 0
    assert output.all()[-2_000:] == [f"worker   | word {n}" for n in range(2_000)]
