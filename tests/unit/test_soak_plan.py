"""The plan of a soak and its waves of leads: the same for the same seed, and replayable."""

from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from sandbox.config import SandboxConfig
from sandbox.faults import CLASSES
from sandbox.orders import run_from
from sandbox.parts import Sandbox
from sandbox.tokenorders import DEATHS
from tests.system.soak import __main__ as command
from tests.system.soak import plan as plans
from tests.system.soak.finding import Finding
from tests.system.soak.plan import RECIPES, Fault, make_plan, read_plan, write_plan
from tests.system.soak.shape import Shape
from tests.system.soak.strikes import Striker
from tests.system.soak.waves import make_waves


def test_the_same_seed_gives_the_same_plan_and_another_one_another() -> None:
    """So that what was found can be found again."""
    first = make_plan(seconds=300, faults=60, seed=7)
    assert make_plan(seconds=300, faults=60, seed=7) == first
    assert make_plan(seconds=300, faults=60, seed=8) != first
    assert make_waves(seconds=300, rate=20, seed=7) == make_waves(seconds=300, rate=20, seed=7)


def test_a_written_plan_is_read_again_as_it_was() -> None:
    """What a failed soak prints can be carried out again."""
    plan = make_plan(seconds=300, faults=60, seed=7, roll=True)
    assert read_plan(write_plan(plan)) == plan


@pytest.mark.parametrize("text", ["no JSON", '{"at": 1}', '{"at": 1, "kind": "earthquake"}', "[]"])
def test_what_is_no_plan_is_refused_with_its_line(text: str) -> None:
    """Lines before it may be good."""
    with pytest.raises(ValueError, match="line 2"):
        read_plan(f"{Fault(1.0, 'kill', 'worker').text}\n{text}\n")


def test_every_kind_comes_before_any_comes_by_its_weight() -> None:
    """A plan of as many faults as there are kinds has each of them, where the time is long enough."""
    plan = make_plan(seconds=36_000, faults=len(RECIPES), seed=3)
    assert sorted(fault.kind for fault in plan) == sorted(RECIPES)


def test_without_reconciling_nothing_is_lost_by_right() -> None:
    """No fault after which a lead is missing until it is listed, and every lead is announced."""
    plan = make_plan(seconds=3_600, faults=300, seed=3, reconciling=False)
    assert {fault.kind for fault in plan} == RECIPES.keys() - plans.MENDED_BY_RECONCILING
    assert not {fault.target for fault in plan} & plans.MENDED_CLASSES
    waves = make_waves(seconds=600, rate=10, seed=3, reconciling=False)
    assert not any(wave.order.get("drop") or wave.order.get("changed_fields") for wave in waves)


def test_every_target_of_a_kind_is_hit_in_turn() -> None:
    """None is left to luck."""
    targets = RECIPES["kill"].targets
    plan = make_plan(seconds=3_600, faults=len(targets), seed=3, only=["kill"])
    assert sorted(fault.target for fault in plan) == sorted(targets)


def test_a_fault_that_holds_leads_up_for_long_does_not_come_late() -> None:
    """Or nothing would settle in time."""
    plan = make_plan(seconds=400, faults=400, seed=3)
    late = [f for f in plan if f.at > 400 - RECIPES[f.kind].calm_after]
    assert late == []
    assert any(f.kind == "graph_throttling" for f in plan)
    assert make_plan(seconds=400, faults=9, seed=3, only=["graph_listing"]) == ()


def test_a_plan_lies_within_its_time_in_order() -> None:
    """And begins once everything moves."""
    moments = [fault.at for fault in make_plan(seconds=120, faults=50, seed=3)]
    assert moments == sorted(moments)
    assert moments[0] >= plans.QUIET_SECONDS
    assert moments[-1] < 120


def test_what_the_plan_asks_of_graph_is_something_that_the_sandbox_can_do() -> None:
    """Each class of fault and each way in which a token dies is the sandbox's own."""
    assert {*plans.PASSING, *plans.DEADLY, *plans.BLOCKING, *plans.THROTTLING} <= CLASSES
    assert set(plans.TOKEN_DEATHS) <= set(DEATHS)


def test_every_kind_of_fault_can_be_struck() -> None:
    """There is a way to carry out each."""
    assert [kind for kind in (*RECIPES, plans.ROLL) if not hasattr(Striker, f"_{kind}")] == []


def test_waves_bring_exactly_the_leads_that_were_asked_for() -> None:
    """At the rate asked for, in orders that the sandbox takes."""
    waves = make_waves(seconds=300, rate=12.5, seed=2)
    assert sum(wave.count for wave in waves) == 3_750
    assert all(0 <= wave.at < 300 for wave in waves)
    sandbox = Sandbox(SandboxConfig(leads=0), 1_790_000_000.0)
    for wave in waves:
        if not wave.late:
            assert run_from(sandbox, wave.order).mix.count == wave.count
    assert any(wave.late for wave in waves)
    assert any(wave.order.get("drop") for wave in waves)


def test_the_folder_for_logs_is_made_before_the_soak_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After hours of faults is late to learn that there is no place for the log."""
    found: list[bool] = []

    def soak(shape: Shape, *_: object) -> Finding:
        found.append(shape.keep.is_dir())
        return Finding([], {}, 0, Counter(), Counter())

    monkeypatch.setattr(command, "run", soak)
    keep = tmp_path / "deep" / "folder"
    told = CliRunner().invoke(command.main, ["--minutes", "1", "--keep", str(keep)])
    assert (told.exit_code, found) == (0, [True]), told.output


def test_a_folder_that_cannot_be_made_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, and no soak begins."""
    monkeypatch.delattr(command, "run")
    (tmp_path / "file").write_text("")
    told = CliRunner().invoke(command.main, ["--minutes", "1", "--keep", str(tmp_path / "file" / "folder")])
    assert told.exit_code == 2
    assert "cannot be made" in told.output
