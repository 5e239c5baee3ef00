"""`python -m sandbox` as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests


def started(*words: str) -> tuple[subprocess.Popen[str], str]:
    """A sandbox process that listens, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sandbox", "port=0", *words], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "sandbox_listening" in line:
            return process, line.split("url=")[1].strip()
    raise AssertionError("the sandbox did not start")


def broken_off(url: str) -> None:
    """Ask, and expect to be cut off."""
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_even_with_answers_held(number: signal.Signals) -> None:
    """SIGTERM and SIGINT end the process cleanly within seconds, though an answer is held and a delivery waits."""
    process, url = started(
        'faults={"class": "timeout", "hold_seconds": 600}', "webhook_url=http://127.0.0.1:9/"
    )
    try:
        requests.post(f"{url}/sandbox/send", data='{"count": 3}', timeout=10)
        token = next(iter(requests.get(f"{url}/sandbox/tokens", timeout=10).json().values()))
        held = threading.Thread(target=broken_off, args=(f"{url}/me?access_token={token}",))
        held.start()
        while not requests.get(f"{url}/sandbox/calls", timeout=10).json()["calls"]:
            pass
        process.send_signal(number)
        _, log = process.communicate(timeout=10)
        held.join(10)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "sandbox_stopped" in log
    assert "Traceback" not in log
    assert token not in log


def test_long_lists_are_told_in_constant_memory() -> None:
    """A world of a million tells its truth and its export file as they are read, and holds neither."""
    process, url = started("pages=1", "forms_per_page=1", "leads=1000000")
    try:
        pages = requests.get(f"{url}/sandbox/pages", timeout=10).json()
        form_id = pages["pages"][0]["forms"][0]["form_id"]
        export = f"{url}/ads/lead_gen/export_csv/?id={form_id}&access_token={pages['user_token']}"
        for path in (f"{url}/sandbox/truth?form={form_id}", export):
            before = held(process.pid)
            with requests.get(path, stream=True, timeout=60) as told:
                for _, piece in zip(range(200), told.iter_content(65_536), strict=False):
                    assert piece
            assert held(process.pid) - before < 30
            assert requests.get(f"{url}/sandbox/health", timeout=10).json() == {"ok": True}
    finally:
        process.kill()
        process.communicate()


FROZEN_AT_THE_END = """
import atexit, gc, os, signal, sys, threading
from sandbox.app import run
from sandbox.config import from_words
atexit.register(lambda: print(gc.get_freeze_count(), len(gc.get_objects())))
threading.Timer(float(sys.argv[1]), os.kill, (os.getpid(), signal.SIGTERM)).start()
run(from_words(["port=0"]))
"""


def test_what_stays_is_not_collected_again_and_again() -> None:
    """A full collection of all that is known of leads would stop its clock, and make the receiver look slow."""
    words = [sys.executable, "-c", FROZEN_AT_THE_END, "1"]
    told = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    frozen, looked_at = map(int, told.stdout.split()[-2:])
    assert frozen > 10 * looked_at


def held(pid: int) -> float:
    """MB of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1_000_000


def test_a_bad_setting_is_told_and_nothing_starts() -> None:
    """A setting that does not exist ends the process with a sentence."""
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "prot=1"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "prot: no such setting" in done.stderr


def test_a_port_that_is_taken_is_an_error() -> None:
    """The process fails where it cannot listen, instead of serving nobody."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "sandbox", f"port={port}"], capture_output=True, text=True, timeout=30
        )
    assert done.returncode != 0
