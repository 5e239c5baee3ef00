"""The Grafana dashboard: it asks for series that there are, says what each panel shows, and nothing overlaps."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.facts import facts, families_of

ROOT = Path(__file__).parents[2]
COLUMNS = 24
OTHERS = {"process_cpu_seconds_total", "leadsync_scrape_seconds"}
"""The exporter's own series, which no facts give."""


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/leadsync.json").read_text())
    return read


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = dashboard()["panels"]
    return found


def served() -> set[str]:
    """Every sample's name."""
    parts = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {family.name + part for family in families_of(facts(0.0)) for part in parts[family.type]} | OTHERS


def test_each_panel_asks_for_series_that_are_served() -> None:
    """A panel of a series that nobody serves would stay empty for ever."""
    for panel in panels():
        for target in panel.get("targets", []):
            names = set(re.findall(r"\b(?:leadsync|process)_[a-z_]+", target["expr"]))
            assert names <= served(), panel["title"]
            assert names or "ALERTS" in target["expr"]


def test_every_series_is_documented_and_no_other_is() -> None:
    """The table of docs/metrics.md holds what is served, under the names by which it is asked for."""
    table = (ROOT / "docs/metrics.md").read_text().split("## Series")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = {f"leadsync_{name}" for cell in cells for name in re.findall(r"`([a-z_]+)`", cell)}
    known = [*families_of(facts(0.0))]
    names = {family.name + "_total" * (family.type == "counter") for family in known}
    assert documented == names | {"leadsync_scrape_errors_total", "leadsync_scrape_seconds"}


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_each_panel_says_what_it_shows_in_which_unit(panel: dict[str, Any]) -> None:
    """A title, and where there is something to see a sentence, a unit and the one data source."""
    assert panel["title"]
    if panel["type"] != "row":
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "leadsync"
        assert panel["targets"]


def test_panels_fill_the_width_and_do_not_overlap() -> None:
    """Each place is taken by one panel, and each line is full."""
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= COLUMNS
        places = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not places & taken, panel["title"]
        taken |= places
    assert len(taken) == COLUMNS * (1 + max(y for _, y in taken))
    assert len({panel["id"] for panel in panels()}) == len(panels())
