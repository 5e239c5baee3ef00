"""Every reader of foreign bytes, fed for a short while; `make fuzz` does the same for as long as one likes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.finding import Finds
from tests.fuzz.growth import Runaway, Stretch, limited, outgrows, stretches
from tests.fuzz.mutating import mutate
from tests.fuzz.quiet import dropped
from tests.fuzz.samples import paths_of, samples_of
from tests.fuzz.table import TARGETS
from tests.fuzz.target import Target, allowed_seconds, holds

ROOT = Path(__file__).parents[2]
SLOW = {"environment", "dotenv", "request", "tokens_file"}
"""These write a file, or build a whole request, for each input."""
DECODES = re.compile(
    r"json\.loads|read_json\(|csv\.reader|fromisoformat|strptime|b64decode|dotenv_values\(|JSONDecoder"
)
COVERED_BY = {
    "receiver/delivery.py": "delivery",
    "receiver/settings.py": "environment",
    "worker/export.py": "export",
    "worker/export_text.py": "export_file",
    "worker/form.py": "form",
    "worker/forgetting.py": "json_text",
    "worker/graph/account.py": "account",
    "worker/graph/usage.py": "usage",
    "worker/graph/wire.py": "lead",
    "worker/json_text.py": "json_text",
    "worker/lead.py": "lead",
    "worker/sealing.py": "keys",
    "worker/settings.py": "environment",
    "worker/tokens.py": "tokens_file",
    "worker/when.py": "when",
}
"""Which target feeds each file that decodes something."""
OWN_FILES = {
    "worker/budget_report.py",
    "worker/cli/backfill.py",
    "worker/demo.py",
    "worker/pages_report.py",
    "worker/stack.py",
}
"""These decode what we have written ourselves."""


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """A reader's log is a line an input."""
    structlog.configure(processors=[dropped])
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("path", paths_of(list(TARGETS)), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_sample_is_read_or_refused_as_documented(path: Path) -> None:
    """What was found once, be it a failure or a runaway, is never found again."""
    data = path.read_bytes()
    with limited(allowed_seconds(len(data))):
        TARGETS[path.parent.name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_nearly_a_sample_breaks_no_promise(name: str) -> None:
    """Samples with parts lost, doubled, exchanged and made odd are read, or refused as documented."""
    target, samples = TARGETS[name], samples_of(name)

    @settings(max_examples=25 if name in SLOW else 80, derandomize=True, database=None)
    @given(st.sampled_from(samples), st.integers(0, 2**32), st.sampled_from(samples))
    def feed(data: bytes, seed: int, other: bytes) -> None:
        target.run(mutate(data, Random(seed), target.words, other))

    feed()


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_break_no_promise(name: str) -> None:
    """So are bytes that resemble nothing."""
    target = TARGETS[name]

    @settings(max_examples=15 if name in SLOW else 50, derandomize=True, database=None)
    @given(st.binary(max_size=200))
    def feed(data: bytes) -> None:
        target.run(data)

    feed()


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - SLOW))
def test_time_grows_no_faster_than_the_input(name: str) -> None:
    """Sixteen times as much takes about sixteen times as long, whatever is repeated."""
    dice, samples = Random(3), samples_of(name)
    for _ in range(3):
        stretch = next(stretches(dice.choice(samples), dice))
        assert outgrows(TARGETS[name], stretch) is None, stretch


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_has_samples(name: str) -> None:
    """Without an input that is as it should be, no fuzzer gets past the door."""
    assert [path for path in paths_of([name]) if not path.name.startswith("find-")]


def test_every_file_that_decodes_has_its_target() -> None:
    """A new reader of bytes is fed too, or said to read our own."""
    decoding = {
        str(path.relative_to(ROOT))
        for part in ("worker", "receiver")
        for path in (ROOT / part).rglob("*.py")
        if DECODES.search(path.read_text())
    }
    assert decoding == COVERED_BY.keys() | OWN_FILES
    assert set(COVERED_BY.values()) <= TARGETS.keys()


def test_a_failure_is_kept_once_and_small(tmp_path: Path) -> None:
    """Of all inputs that fail in one place the smallest stays, beside what it did."""

    def fail(data: bytes) -> None:
        holds("there is no x", b"x" not in data)

    finds = Finds(Target("planted", fail), tmp_path)
    for data in (b"a", b"long and x", b"x", b"xx"):
        finds.run(data)
    kept = sorted(tmp_path.iterdir())
    assert [path.suffix for path in kept] == ["", ".txt"]
    assert kept[0].read_bytes() == b"x"
    assert kept[1].read_text().startswith("violation: there is no x")


def test_what_takes_its_time_squared_is_noticed() -> None:
    """A reader that begins anew at each byte is told from one that does not."""
    stretch = Stretch(b"", b"a", b"b")
    squared = Target("squared", lambda data: re.search(rb"a+(?<=c)", data) and None)
    assert outgrows(squared, stretch) is not None
    linear = Target("linear", lambda data: [data.count(bytes([byte])) for byte in range(256)] and None)
    assert outgrows(linear, stretch) is None


def test_what_never_ends_is_ended() -> None:
    """An input that takes longer than any should is given up, whatever the reader catches."""

    def never_ends() -> None:
        while True:
            try:
                sum(range(1_000))
            except Exception:
                continue

    with pytest.raises(Runaway), limited(0.05):
        never_ends()


def test_much_of_what_is_altered_is_a_document_still() -> None:
    """JSON is altered within, so that what lies behind its parser is reached; the same seed alters in the same way."""
    document = b'200\n\n{"a":[1,{"b":"c"}],"body":"{\\"d\\":1}"}'
    altered = [mutate(document, Random(seed)) for seed in range(200)]
    assert altered == [mutate(document, Random(seed)) for seed in range(200)]
    assert 50 < sum(map(_is_document, altered)) < 199
    assert len(set(altered)) > 100


def _is_document(data: bytes) -> bool:
    try:
        json.loads(data.partition(b"\n\n")[2])
    except (ValueError, RecursionError):
        return False
    return True
