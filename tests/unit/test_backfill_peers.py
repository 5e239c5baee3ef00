"""Those that a backfill is measured beside: kept apart from leadsync, and storing what each other stores."""

import re
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from benchmarks import backfill_peers, dlt_peer
from worker.graph.wire import FULL_FIELDS

ROOT = Path(__file__).parents[2]


def test_dlt_is_in_no_lock_but_that_of_the_peers() -> None:
    """Nothing that leadsync or its tests run with may come from what it is measured beside."""
    locks = {
        path.name for path in ROOT.glob("requirements*.lock") if re.search("^dlt==", path.read_text(), re.M)
    }
    assert locks == {"requirements-peers.lock"}


@pytest.mark.parametrize(("made", "is_there"), [((), False), (("bin",), False), (("bin", ".ready"), True)])
def test_an_environment_that_is_not_whole_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: tuple[str, ...], is_there: bool
) -> None:
    """An install that was interrupted leaves a Python without dlt; the benchmark goes on without it."""
    monkeypatch.setattr(backfill_peers, "DLT_FOLDER", tmp_path)
    for name in made:
        (tmp_path / name).touch()
    assert backfill_peers.has_dlt() is is_there


def test_dlt_is_told_the_types_of_all_that_the_other_peers_keep_in_columns() -> None:
    """Who stored less would be faster for it."""
    assert set(dlt_peer.COLUMNS) == {*backfill_peers.TEXTS, *backfill_peers.JSONS}
    assert set(dlt_peer.COLUMNS) <= set(FULL_FIELDS)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("postgresql://leadsync@/leadsync?host=/tmp/a/b", {"host": "/tmp/a/b", "dbname": "leadsync"}),
        ("postgresql://u:p@db.example:6543/d", {"host": "db.example", "port": "6543", "password": "p", "dbname": "d"}),
    ],
)  # fmt: skip
def test_dlt_loads_into_the_database_of_the_others(url: str, wanted: dict[str, str]) -> None:
    """A server behind a socket has neither host nor password in its URL, and dlt wants both."""
    told = conninfo_to_dict(dlt_peer.credentials(url))
    assert {name: told[name] for name in wanted} == wanted
    assert told["user"]
    assert told["password"]
