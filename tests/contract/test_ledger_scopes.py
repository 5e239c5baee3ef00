"""What Meta said of a Page, an account or the app, and how the ledger keeps to it: closed scopes and percentages."""

from datetime import timedelta

import pytest

from tests.contract.ledger_bench import (
    ALL,
    BACKFILL,
    LONGEST_BLOCKED,
    MS,
    OTHER_PAGE,
    PAGE,
    UPKEEP,
    WAITING,
    WINDOW,
    Bench,
    Runner,
)
from worker.budget.ledger import (
    APP_SCOPE,
    Granted,
    Refused,
    page_scope,
)
from worker.budget.policy import Lane


@pytest.mark.parametrize("scope", [page_scope(PAGE), APP_SCOPE, "ad_account:9", "user:3"])
def test_a_closed_scope_refuses_until_its_moment(on_ledger: Runner, scope: str) -> None:
    """Until then nothing is granted in it, and the refusal says which scope and when."""

    async def scenario(bench: Bench) -> None:
        also = (scope,) if scope.startswith(("ad_account", "user")) else ()
        await bench.knows(PAGE, 100)
        assert await bench.throttle(scope, regain=timedelta(minutes=2)) == 120
        bench.clocks.move(120 - MS)
        for lane in Lane:
            assert await bench.ask(5, lane, also=also) == Refused(pytest.approx(MS), scope)
        bench.clocks.move(MS)
        assert await bench.ask(5, also=also) == Granted(1, 99, (scope,), 100)

    on_ledger(scenario)


def test_a_closed_scope_stops_nobody_outside(on_ledger: Runner) -> None:
    """One Page's throttle, or an account's, delays no Page that is not in it."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        await bench.knows(OTHER_PAGE, 100)
        await bench.throttle(page_scope(PAGE))
        await bench.throttle("ad_account:9")
        assert await bench.got(5, page=OTHER_PAGE) == 5

    on_ledger(scenario)


def test_a_linked_account_closes_its_page_too(on_ledger: Runner) -> None:
    """A Page whose reads met an ad account's throttle waits for it from then on, without being told again."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        await bench.knows(OTHER_PAGE, 100)
        seconds = await bench.throttle("ad_account:9", link_page=PAGE)
        assert await bench.refused() == Refused(seconds, "ad_account:9")
        assert await bench.got(1, page=OTHER_PAGE) == 1
        bench.clocks.move(seconds)
        assert await bench.ask(5) == Granted(1, 99, ("ad_account:9",), 100)

    on_ledger(scenario)


def test_of_several_closed_scopes_the_longest_counts(on_ledger: Runner) -> None:
    """The refusal's moment is when the last of the scopes opens."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        await bench.throttle(page_scope(PAGE), regain=timedelta(seconds=5))
        await bench.throttle(APP_SCOPE, regain=timedelta(seconds=20))
        await bench.throttle("ad_account:9", regain=timedelta(seconds=9), link_page=PAGE)
        assert await bench.refused() == Refused(20, APP_SCOPE)

    on_ledger(scenario)


def test_one_call_tries_a_scope_after_it_was_closed(on_ledger: Runner) -> None:
    """After a closing one call is granted; the others wait for its answer, and then all is open."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        scope = page_scope(PAGE)
        bench.clocks.move(await bench.throttle(scope))
        assert await bench.ask(50) == Granted(1, 99, (scope,), 100)
        assert await bench.refused() == Refused(WINDOW.trial, scope)
        await bench.tell(scope)
        assert await bench.ask(50) == Granted(50, 49, (), 100)

    on_ledger(scenario)


def test_pages_of_a_scope_send_one_call_together(on_ledger: Runner) -> None:
    """A shared scope is tried by one Page's call, not by one of each Page."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        await bench.knows(OTHER_PAGE, 100)
        bench.clocks.move(await bench.throttle(APP_SCOPE))
        assert [await bench.got(5), await bench.got(5, page=OTHER_PAGE)] == [1, 0]

    on_ledger(scenario)


def test_a_trial_whose_answer_is_lost_is_made_again(on_ledger: Runner) -> None:
    """A caller that died with the one call holds the scope for the time of a trial only."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        bench.clocks.move(await bench.throttle(page_scope(PAGE)))
        await bench.got(1)
        bench.clocks.move(WINDOW.trial)
        assert await bench.ask(9) == Granted(1, 98, (page_scope(PAGE),), 100)

    on_ledger(scenario)


def test_a_refused_trial_leaves_the_scope_to_others(on_ledger: Runner) -> None:
    """Where the budget has no call left for a trial, the scope is not held for an answer that cannot come."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10)
        await bench.knows(OTHER_PAGE, 10)
        await bench.got(10)
        bench.clocks.move(await bench.throttle(APP_SCOPE))
        assert (await bench.refused()).why == "budget"
        assert await bench.ask(5, page=OTHER_PAGE) == Granted(1, 9, (APP_SCOPE,), 10)

    on_ledger(scenario)


def test_each_strike_doubles_the_pause_up_to_the_longest(on_ledger: Runner) -> None:
    """Where Meta names no time the pause begins at the first one and doubles; a success starts it anew."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        scope = page_scope(PAGE)
        pauses = []
        for _ in range(6):
            pauses.append(await bench.throttle(scope))
            bench.clocks.move(pauses[-1])
            assert await bench.got(1) == 1
        doubled = [min(WINDOW.first_pause * 2**n, WINDOW.longest_pause) for n in range(6)]
        assert pauses == pytest.approx(doubled, abs=0.02)
        assert doubled[-1] == WINDOW.longest_pause
        await bench.tell(scope)
        assert await bench.throttle(scope) == pytest.approx(WINDOW.first_pause, abs=0.02)

    on_ledger(scenario)


def test_a_thousand_strikes_are_no_overflow(on_ledger: Runner) -> None:
    """A scope that stays closed for ever is tried every longest pause, for ever."""

    async def scenario(bench: Bench) -> None:
        for _ in range(200):
            seconds = await bench.throttle(APP_SCOPE)
            bench.clocks.move(seconds)
        assert seconds == WINDOW.longest_pause

    on_ledger(scenario)


def test_parallel_throttles_are_one_strike(on_ledger: Runner) -> None:
    """Calls that were under way when the scope closed prolong nothing, unless Meta names a later moment."""

    async def scenario(bench: Bench) -> None:
        scope = page_scope(PAGE)
        first = await bench.throttle(scope)
        assert [await bench.throttle(scope) for _ in range(5)] == [first] * 5
        assert await bench.throttle(scope, regain=timedelta(seconds=60)) == 60
        assert await bench.throttle(scope, regain=timedelta(seconds=30)) == 60
        bench.clocks.move(60)
        assert await bench.throttle(scope) == pytest.approx(2 * first, abs=0.01)

    on_ledger(scenario)


def test_a_late_success_does_not_open_a_closed_scope(on_ledger: Runner) -> None:
    """An answer to a call from before the closing says nothing of the time after it."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        seconds = await bench.throttle(page_scope(PAGE))
        assert await bench.tell(page_scope(PAGE), 40) == seconds
        assert (await bench.refused()).seconds == seconds

    on_ledger(scenario)


@pytest.mark.parametrize(("percent", "regain"), [(100, 0), (117.5, 0), (40, 90)])
def test_a_full_scope_closes_without_a_throttle(on_ledger: Runner, percent: float, regain: int) -> None:
    """At 100% or with a time to regain access the next call would be throttled, so it is not made."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 100)
        seconds = await bench.tell(page_scope(PAGE), percent, regain=timedelta(seconds=regain))
        assert seconds == pytest.approx(regain or WINDOW.first_pause, abs=MS)
        assert (await bench.refused()).why == page_scope(PAGE)

    on_ledger(scenario)


def test_metas_percentage_is_a_floor_of_what_meta_allows(on_ledger: Runner) -> None:
    """Where Meta counts more than we do its count holds, less a percent for rounding; it is of Meta's limit."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 950, told=1_000)
        await bench.got(100)
        await bench.tell(page_scope(PAGE), 60)
        assert await bench.ask(1) == Granted(1, 950 - 590 - 1, (), 950)

    on_ledger(scenario)


def test_a_newer_percentage_replaces_the_older(on_ledger: Runner) -> None:
    """Percentages are never added to one another nor to our own count, and the newest one holds, higher or lower."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        lefts = []
        for percent in (60, 60, 80, 30):
            await bench.tell(page_scope(PAGE), percent)
            answer = await bench.ask(1)
            assert isinstance(answer, Granted)
            lefts.append(answer.left)
        assert lefts == [409, 409, 209, 709]
        await bench.got(496)
        assert await bench.ask(1) == Granted(1, 499, (), 1_000)

    on_ledger(scenario)


def test_metas_percentage_grows_stale(on_ledger: Runner) -> None:
    """After a 24th of the window what Meta said holds nobody up."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.tell(page_scope(PAGE), 99.9)
        bench.clocks.move(WINDOW.recent - MS)
        assert await bench.got(ALL) == 11
        bench.clocks.move(MS)
        assert await bench.got(ALL) == 989

    on_ledger(scenario)


def test_a_shared_scopes_percentage_is_no_count_of_a_page(on_ledger: Runner) -> None:
    """The app's calls are not this Page's, so its percentage takes nothing from the Page."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.tell(APP_SCOPE, 89)
        assert await bench.got(1_000) == 1_000

    on_ledger(scenario)


def test_who_is_refused_by_a_percentage_waits_as_long_as_it_stands(on_ledger: Runner) -> None:
    """Where others spent the limit and we nothing, the refusal's moment is when Meta's word has grown stale."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 950, told=1_000)
        await bench.tell(page_scope(PAGE), 96)
        assert (await bench.refused()).seconds == pytest.approx(WINDOW.recent, abs=MS)
        bench.clocks.move(WINDOW.recent)
        assert await bench.got(1) == 1

    on_ledger(scenario)


def test_a_page_that_spent_little_is_not_held_a_window_by_a_percentage(on_ledger: Runner) -> None:
    """Refused by Meta's percentage, nobody waits for the few calls of our own to leave."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 950, told=1_000)
        assert await bench.got(1) == 1
        await bench.tell(page_scope(PAGE), 96)
        assert (await bench.refused()).seconds == pytest.approx(WINDOW.recent, abs=MS)

    on_ledger(scenario)


def test_a_page_is_not_held_a_window_by_what_is_kept_for_a_while(on_ledger: Runner) -> None:
    """Refused because of other lanes' minimums, which are kept for a 24th of the window, nobody waits for longer."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 1_000)
        await bench.got(ALL)
        bench.clocks.move(LONGEST_BLOCKED - 3)
        await bench.refused(1, WAITING)
        bench.clocks.move(3)
        assert await bench.got(ALL) == 950
        refused = await bench.refused()
        bench.clocks.move(WINDOW.recent)
        assert await bench.got(1) == 1
        assert refused.seconds <= WINDOW.recent

    on_ledger(scenario)


@pytest.mark.parametrize("scope", [page_scope(PAGE), APP_SCOPE])
@pytest.mark.parametrize("lane", [BACKFILL, UPKEEP])
def test_near_the_limit_backfill_slows(on_ledger: Runner, scope: str, lane: Lane) -> None:
    """From 90% backfill and upkeep get a tenth of what is left, at intervals, while live and waiting go on."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 10_000)
        await bench.tell(scope, 89.9)
        assert await bench.got(5, lane) == await bench.got(5, lane) == 5
        await bench.tell(scope, 90)
        answer = await bench.ask(ALL, lane)
        assert isinstance(answer, Granted)
        assert answer.calls == (answer.calls + answer.left) // 10
        refused = await bench.refused(5, lane)
        assert refused == Refused(pytest.approx(WINDOW.bucket / 10, abs=MS), "slow")
        assert [await bench.got(50), await bench.got(50, WAITING)] == [50, 50]
        bench.clocks.move(refused.seconds - MS)
        assert await bench.got(5, lane) == 0
        bench.clocks.move(MS)
        assert await bench.got(5, lane) == 5

    on_ledger(scenario)


def test_near_a_small_limit_backfill_still_moves(on_ledger: Runner) -> None:
    """A tenth of little is one call."""

    async def scenario(bench: Bench) -> None:
        await bench.knows(PAGE, 9)
        await bench.tell(APP_SCOPE, 95)
        assert await bench.got(5, BACKFILL) == 1

    on_ledger(scenario)


def test_a_percentage_of_a_hundred_beside_answers_is_no_strike(on_ledger: Runner) -> None:
    """100% may have been rounded up: each time the pause is the first one."""

    async def scenario(bench: Bench) -> None:
        for _ in range(4):
            seconds = await bench.tell(page_scope(PAGE), 100)
            assert seconds == pytest.approx(WINDOW.first_pause, abs=0.01)
            bench.clocks.move(seconds)

    on_ledger(scenario)


def test_scopes_are_told_and_forgotten(on_ledger: Runner) -> None:
    """An operator sees what Meta said; what it said long ago of open scopes is dropped, links and closings stay."""

    async def scenario(bench: Bench) -> None:
        ledger = bench.ledger()
        await bench.tell(page_scope(PAGE), 42.5)
        seconds = await bench.throttle("ad_account:9", link_page=PAGE)
        (account,) = await ledger.scopes(["ad_account:9", "user:1"])
        assert (account.scope, account.seconds, account.strikes) == ("ad_account:9", seconds, 1)
        (_, page) = await ledger.scopes()
        assert (page.scope, page.percent, page.seconds) == (page_scope(PAGE), 42.5, 0)
        assert await ledger.forget_scopes() == 0
        bench.clocks.move(WINDOW.seconds + 1)
        assert await ledger.forget_scopes() == 1
        assert [state.scope for state in await ledger.scopes()] == ["ad_account:9"]
        await bench.knows(PAGE, 10)
        assert await bench.ask(5) == Granted(1, 9, ("ad_account:9",), 10)

    on_ledger(scenario)
