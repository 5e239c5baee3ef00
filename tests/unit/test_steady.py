"""The clock that never jumps, and the name by which two of its readings may be compared."""

import socket
import time
from pathlib import Path

import pytest

from worker import steady as module
from worker.steady import machine, steady


def test_it_goes_on_with_time_and_never_back() -> None:
    """Two readings are as far apart as the time between them by the system's own clock."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    readings = [steady() for _ in range(100)]
    after = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert [before, *readings, after] == sorted([before, *readings, after])


def test_the_wall_clock_does_not_move_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is done to the wall clock, nobody reads it here."""
    monkeypatch.setattr(time, "time", lambda: 0.0)
    before = steady()
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert 0 <= steady() - before < 60


def test_a_system_without_such_a_clock_has_a_monotonic_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where time in suspension cannot be told, time without it is used."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    monkeypatch.setattr(time, "monotonic", lambda: 42.5)
    assert steady() == 42.5


def test_a_machine_is_named_after_its_boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes and containers since one boot have the same name, and the next boot has another."""
    assert machine() == machine() != ""
    names = []
    for n in range(2):
        boot = tmp_path / str(n)
        boot.write_text(f"boot-{n}\n", encoding="ascii")
        monkeypatch.setattr(module, "_BOOT_ID", boot)
        names.append(machine())
    assert names == ["boot-0", "boot-1"]


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_machine_that_names_no_boot_has_its_host_s_name(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system without a boot id still tells its own readings from those of another machine."""
    boot = tmp_path / "boot_id"
    if content is not None:
        boot.write_bytes(content)
    monkeypatch.setattr(module, "_BOOT_ID", boot)
    assert machine() == socket.gethostname()
