"""Granting, with a ledger that answers as it is told: what is reserved, asked, seeded and told, and in which order.

Whether calls then stay within a limit is for tests/contract/test_ledger_windows.py to see.
"""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from tests.fakes.budget import Clocks, FakeLedger, FakeMemory, Told
from worker.budget.granting import SEEDS, SPREAD_SECONDS, Granter, LimitSettings
from worker.budget.ledger import Answered, Granted, Refused, Unknown
from worker.budget.policy import Grant, Lane, Limit, Refusal, Spent, Window
from worker.errors import LedgerUnavailable, StoreUnavailable
from worker.graph.usage import Usage
from worker.store.budget import LimitFacts

T = TypeVar("T")
WINDOW = Window(86_400.0)
PAGE, OTHER_PAGE, ACCOUNT = "7001", "7002", "ad_account:9"
LIVE, BACKFILL = Lane.LIVE, Lane.BACKFILL
HERE = "here"


class Desk:
    """A granter over fakes."""

    def __init__(self, *answers: Answered | Exception, override: int | None = 4_001) -> None:
        self.clocks = Clocks()
        self.ledger = FakeLedger(list(answers) or [Granted(5, 95, (), 4_000)])
        self.memory = FakeMemory(self.clocks, lambda: StoreUnavailable("told"))
        self.memory.facts[PAGE] = LimitFacts(0, 0, override)
        self.granter = Granter(
            self.ledger,  # type: ignore[arg-type]
            self.memory,
            window=WINDOW,
            limits=LimitSettings(),
            machine=HERE,
            clock=lambda: self.clocks.now,
            steady=lambda: self.clocks.steady(HERE),
        )

    @property
    def steady(self) -> float:
        return self.clocks.steady(HERE)

    def ask(self, calls: int = 5, lane: Lane = LIVE, *, also: tuple[str, ...] = ()) -> Any:
        return run(self.granter.request(PAGE, calls, lane, also=also))

    def hear(self, *usages: Usage, on_trial: tuple[str, ...] = (), also: tuple[str, ...] = ()) -> list[Told]:
        """What the ledger is told of an answer with these usages."""
        before = len(self.ledger.told)
        run(self.granter.heard(PAGE, Grant(1, 0.0, 0, on_trial), usages, also=also))
        return self.ledger.told[before:]

    @property
    def reserved(self) -> list[int]:
        return [block.calls for block in self.memory.blocks]


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def usage(percent: float, kind: str = "leadgen", scope_id: str | None = PAGE, regain: float = 0.0) -> Usage:
    return Usage(scope_id, kind, percent, 1.0, 1.0, regain)


# Grants


def test_a_grant_lives_from_the_moment_it_was_asked_for() -> None:
    """However long the ledger takes to answer, what it noted is not used later than a life after the question."""
    desk = Desk(Granted(5, 95, ("app",), 4_000))
    asked_at = desk.steady
    desk.ledger.before = lambda: desk.clocks.move(4)
    assert desk.ask() == Grant(5, asked_at + WINDOW.life, 95, ("app",))


def test_a_grant_never_outlives_its_block() -> None:
    """A seed takes a block's calls for made at its end, so none is made after it."""
    desk = Desk()
    run(desk.granter.refresh(PAGE))
    desk.ask()
    begun = desk.steady
    desk.clocks.move(WINDOW.block_life - WINDOW.life)
    grant = desk.ask()
    assert grant.deadline == begun + WINDOW.block_life
    assert len(desk.reserved) == 1


def test_scopes_and_the_steady_clock_reach_the_ledger() -> None:
    """The ledger is asked with the caller's words and this machine's clock."""
    desk = Desk()
    desk.ask(7, BACKFILL, also=(ACCOUNT,))
    assert desk.ledger.asked == [(PAGE, 7, BACKFILL, (ACCOUNT,), desk.steady)]


# Blocks


def test_nothing_is_asked_before_it_is_reserved() -> None:
    """When the ledger is asked, the block stands in the memory."""
    desk = Desk()
    seen: list[list[int]] = []
    desk.ledger.before = lambda: seen.append(list(desk.reserved))
    desk.ask()
    assert seen == [[5]]


def test_without_a_memory_the_ledger_is_not_asked() -> None:
    """Where nothing can be reserved nothing is granted."""
    desk = Desk()

    async def reserve(*told: object, **named: object) -> int:
        raise StoreUnavailable("told")

    desk.memory.reserve = reserve  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailable):
        desk.ask()
    assert desk.ledger.asked == []


def test_a_block_serves_many_requests() -> None:
    """Once the limit is known a 400th of it is reserved at once, and taken from until it is used up."""
    desk = Desk(Granted(2, 0, (), 4_000))
    for _ in range(1 + 5 + 1):
        desk.ask(2)
    assert desk.reserved == [2, 10, 10]


def test_lanes_and_pages_have_blocks_of_their_own() -> None:
    """A seed says of each lane what it spent."""
    desk = Desk(Granted(1, 0, (), 4_000))
    desk.ask(1)
    desk.ask(1, BACKFILL)
    run(desk.granter.request(OTHER_PAGE, 1, LIVE))
    assert [(block.page_id, block.lane) for block in desk.memory.blocks] == [
        (PAGE, LIVE),
        (PAGE, BACKFILL),
        (OTHER_PAGE, LIVE),
    ]


def test_a_block_too_old_for_a_grant_is_left() -> None:
    """Calls are taken only from a block that is good for the life of a grant."""
    desk = Desk(Granted(1, 0, (), 4_000))
    desk.ask(1)
    desk.ask(1)
    desk.clocks.move(WINDOW.block_life - WINDOW.life + 0.001)
    desk.ask(1)
    assert desk.reserved == [1, 1, 10]  # the nine were given back


def test_calls_that_a_closed_scope_refused_go_back_into_the_block() -> None:
    """However often a request is refused by Meta's throttle, nothing is reserved anew."""
    desk = Desk(Refused(60, "app"), Refused(60, "app"), Refused(60, "app"), Granted(10, 0, (), 4_000))
    for _ in range(4):
        desk.ask(10)
    assert desk.reserved == [10]


def test_a_lane_that_found_the_budget_spent_keeps_nothing_reserved() -> None:
    """After a refusal, or a grant of fewer calls than were asked for, only calls that were granted stay reserved."""
    desk = Desk(Granted(10, 0, (), 4_000), Refused(60, "budget"), Granted(2, 0, (), 4_000))
    desk.ask(10)
    desk.ask(10)
    assert desk.reserved == [10]
    desk.ask(10)
    assert desk.reserved == [10, 2]


def test_a_seed_under_way_and_a_gift_back_do_not_both_leave_out_the_same_calls() -> None:
    """What a seed has left out as unspent is given back only after the seed was read."""
    desk = Desk(Granted(30, 0, (), 4_000))
    seeding, spent = asyncio.Event(), desk.memory.spent

    async def slowly(*told: Any, **named: Any) -> Any:
        seeding.set()
        for _ in range(9):
            await asyncio.sleep(0)
        return await spent(*told, **named)

    async def scenario() -> int:
        desk.memory.spent = slowly  # type: ignore[method-assign]
        block = await desk.granter._take(PAGE, BACKFILL, 50)
        block.left = 20
        desk.ledger.answers = [Unknown("e"), Granted(1, 0, (), 4_000)]
        live = asyncio.create_task(desk.granter.request(PAGE, 1, LIVE))
        await seeding.wait()
        await desk.granter._give_back(PAGE, BACKFILL, block)
        await live
        return sum(one.calls for one in desk.ledger.seeds[0][3] if one.lane is BACKFILL)

    assert run(scenario()) == 30
    assert desk.reserved[0] == 30


def test_a_gift_back_that_the_memory_does_not_take_changes_no_answer() -> None:
    """The refusal stands; the calls stay reserved, so that a seed says rather too much."""
    desk = Desk(Refused(60, "budget"))

    async def loses(block_id: int, unspent: int) -> None:
        raise StoreUnavailable("told")

    desk.memory.give_back = loses  # type: ignore[method-assign]
    assert isinstance(desk.ask(10), Refusal)
    assert desk.reserved == [10]


def test_what_may_have_been_given_back_is_spent_by_nobody() -> None:
    """When the word that a former block was given back is lost, none of its calls is granted after it."""
    desk = Desk(Granted(1, 0, (), 4_000))
    desk.ask(1)
    desk.ask(1)  # of a block of 10
    reserve = desk.memory.reserve

    async def loses(*told: Any, **named: Any) -> int:
        await reserve(*told, **named)
        raise StoreUnavailable("told")

    desk.memory.reserve = loses  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        desk.ask(10)
    desk.memory.reserve = reserve  # type: ignore[method-assign]
    desk.ask(1)
    assert desk.reserved == [1, 1, 10, 10]


def test_a_lost_answer_leaves_its_calls_spent() -> None:
    """They may have been granted; the memory must not say less than the ledger."""
    desk = Desk(Granted(1, 0, (), 4_000), Granted(1, 0, (), 4_000), LedgerUnavailable("told"), Unknown("e"))
    desk.ask(1)
    desk.ask(1)
    with pytest.raises(LedgerUnavailable):
        desk.ask(4)
    with pytest.raises(LedgerUnavailable):
        desk.ask(1)
    assert sum(spent.calls for spent in desk.ledger.seeds[0][3]) == 1 + 1 + 4 + 0


def test_a_seed_says_little_more_than_was_granted() -> None:
    """After a restart of Redis a Page whose requests do not divide its blocks has not twice its calls against it."""
    desk = Desk(Granted(6, 0, (), 4_000))
    for _ in range(101):
        desk.ask(6)
    desk.ledger.answers = [Unknown("e"), Granted(6, 0, (), 4_000)]
    desk.ask(6)
    assert sum(spent.calls for spent in desk.ledger.seeds[0][3]) <= 102 * 6 + 10


def test_a_quiet_page_is_not_full_after_a_restart() -> None:
    """A Page that made a call every quarter of an hour is not seeded with ten times as many."""
    desk = Desk(Granted(1, 0, (), 4_000))
    for _ in range(96):
        desk.ask(1)
        desk.clocks.move(WINDOW.block_life)
    desk.ledger.answers = [Unknown("e"), Granted(1, 0, (), 4_000)]
    desk.ask(1)
    assert sum(spent.calls for spent in desk.ledger.seeds[0][3]) <= 2 * 97


# Seeds


def test_an_unknown_page_is_seeded_and_asked_for_again() -> None:
    """The caller sees none of it: the ledger is told limit and spending of this life, then grants."""
    desk = Desk(Unknown("e1"), Granted(5, 90, (), 4_000))
    assert isinstance(desk.ask(), Grant)
    assert desk.ledger.seeds == [(PAGE, "e1", Limit(4_000, 4_001, "override"), ())]
    assert [calls for _, calls, *_ in desk.ledger.asked] == [5, 5]
    assert desk.memory.limits[PAGE].calls == 4_000


def test_a_seed_counts_others_blocks_whole_and_leaves_out_what_is_left_of_ones_own() -> None:
    """What this process holds ungranted is certain; what others hold may have been called already."""
    desk = Desk(Granted(1, 0, (), 4_000), Granted(1, 0, (), 4_000), Unknown("e"), Granted(1, 0, (), 4_000))
    desk.ask(1)
    desk.ask(1)  # of a block of 10
    run(desk.memory.reserve(PAGE, BACKFILL, 30, machine="there", steady=0.0))
    desk.clocks.move(WINDOW.block_life + 400)
    run(desk.memory.reserve(PAGE, LIVE, 7, machine=HERE, steady=desk.steady))
    desk.ask(1)
    ((_, _, _, spent),) = desk.ledger.seeds
    by_age = {(one.lane, round(one.age)): one.calls for one in spent}
    assert by_age == {(LIVE, 400): 2, (BACKFILL, 400): 30, (LIVE, 0): 7}


def test_a_seed_counts_requests_under_way() -> None:
    """What was asked of the ledger and not answered yet may have been granted before the ledger forgot it."""

    async def scenario() -> None:
        desk = Desk(Granted(4, 0, (), 4_000))
        await desk.granter.refresh(PAGE)
        request, answered = desk.ledger.request, asyncio.Event()

        async def slowly(*told: Any) -> Answered:
            await answered.wait()
            return await request(*told)

        desk.ledger.request = slowly  # type: ignore[method-assign,assignment]
        under_way = asyncio.create_task(desk.granter.request(PAGE, 4, LIVE))
        await desk.memory.doors.settle()
        desk.ledger.request = request  # type: ignore[method-assign]
        desk.ledger.answers = [Unknown("e"), Granted(1, 0, (), 4_000)]
        await desk.granter.request(PAGE, 1, LIVE)
        assert sum(spent.calls for spent in desk.ledger.seeds[0][3]) == 4
        answered.set()
        await under_way

    run(scenario())


def test_a_ledger_that_forgets_on_and_on_is_given_up() -> None:
    """So many lives in a row are a Redis in trouble, not a Page to wait for."""
    desk = Desk(Unknown("e"))
    with pytest.raises(LedgerUnavailable):
        desk.ask()
    assert len(desk.ledger.seeds) == SEEDS


def test_while_a_seed_is_under_way_no_block_is_taken() -> None:
    """What the seed says of one's own blocks is still true when the ledger hears it."""

    async def scenario() -> None:
        desk = Desk(Granted(1, 0, (), 4_000), Unknown("e"), Granted(1, 0, (), 4_000))
        await desk.granter.request(PAGE, 1, LIVE)
        seeding = asyncio.create_task(desk.granter.request(PAGE, 1, LIVE))
        desk.memory.doors.hold(seeding)
        await desk.memory.doors.settle()
        while len(desk.ledger.asked) < 2:
            desk.memory.doors.open(seeding)
            await desk.memory.doors.settle()
        other = asyncio.create_task(desk.granter.request(PAGE, 1, LIVE))
        await desk.memory.doors.settle()
        assert not other.done()
        assert len(desk.ledger.asked) == 2
        desk.memory.doors.let_go(seeding)
        await asyncio.gather(seeding, other)
        assert len(desk.ledger.asked) == 4

    run(scenario())


def test_a_seed_that_fails_frees_the_page() -> None:
    """A memory that is away for a moment blocks no later request."""
    desk = Desk(Unknown("e"), Granted(5, 0, (), 4_000))
    spent = desk.memory.spent

    async def fails(*told: object, **named: object) -> tuple[Spent, ...]:
        raise StoreUnavailable("told")

    desk.memory.spent = fails  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailable):
        desk.ask()
    desk.memory.spent = spent  # type: ignore[method-assign]
    assert isinstance(desk.ask(), Grant)


# Refusals


def test_a_refusal_says_when_and_why() -> None:
    """The ledger's seconds become a moment of the wall clock, and its scope a reason."""
    desk = Desk(Refused(90.5, f"page:{PAGE}"))
    assert desk.ask() == Refusal(desk.clocks.now + timedelta(seconds=90.5), "throttled_page")


@pytest.mark.parametrize("why", ["budget", "slow"])
def test_our_own_refusals_are_of_the_budget(why: str) -> None:
    """Whether spent or slowed, it is our budget that refuses, at exactly the moment told."""
    desk = Desk(Granted(1, 0, (), 4_000), Refused(90.5, why))
    run(desk.granter.refresh(PAGE))
    desk.ask()
    assert desk.ask() == Refusal(desk.clocks.now + timedelta(seconds=90.5), "budget")


@pytest.mark.parametrize("scope", ["app", ACCOUNT])
def test_pages_that_share_a_scope_come_back_one_after_another(scope: str) -> None:
    """Pages are spread behind the moment at which their scope opens, each always by as much."""
    desk = Desk(Refused(100, scope))
    waits = set()
    for number in range(50):
        answer = run(desk.granter.request(str(number), 1, LIVE))
        assert isinstance(answer, Refusal)
        assert answer == run(desk.granter.request(str(number), 1, LIVE))
        assert answer.reason == "throttled_" + scope.partition(":")[0]
        waits.add((answer.not_before - desk.clocks.now).total_seconds())
    assert min(waits) >= 100
    assert max(waits) <= 100 + SPREAD_SECONDS
    assert len(waits) > 40


def test_an_old_limit_that_refuses_is_worked_out_anew() -> None:
    """Leads that came since may have raised it; then the ledger is told, and asked once more."""
    desk = Desk(Granted(5, 0, (), 4_000), Refused(3_600, "budget"), Granted(5, 0, (), 8_000))
    run(desk.granter.refresh(PAGE))
    desk.ask()
    desk.memory.facts[PAGE] = LimitFacts(0, 0, 8_001)
    desk.clocks.move(61)
    assert isinstance(desk.ask(), Grant)
    assert desk.ledger.limits[-1] == (PAGE, Limit(8_000, 8_001, "override"))


def test_a_limit_that_did_not_grow_refuses_without_asking_again() -> None:
    """Asking anew would bring the same refusal."""
    desk = Desk(Refused(3_600, "budget"))
    run(desk.granter.refresh(PAGE))
    desk.clocks.move(61)
    assert isinstance(desk.ask(), Refusal)
    assert len(desk.ledger.asked) == 1


def test_a_fresh_limit_is_not_worked_out_at_each_refusal() -> None:
    """A Page that is refused all the time costs the memory one question a minute."""
    desk = Desk(Refused(3_600, "budget"))
    run(desk.granter.refresh(PAGE))
    desk.memory.facts[PAGE] = LimitFacts(0, 0, 8_001)
    desk.clocks.move(59)
    desk.ask()
    assert len(desk.ledger.limits) == 1


def test_a_closed_scope_is_no_reason_to_work_out_a_limit() -> None:
    """What Meta closed no limit of ours opens."""
    desk = Desk(Refused(3_600, "app"))
    desk.ask()
    assert desk.ledger.limits == []


# Meta's word


def test_a_percentage_is_told_once() -> None:
    """Of the same percentage in each answer the ledger hears one, until it changes or grows old."""
    desk = Desk()
    told = Told(f"page:{PAGE}", 40)
    assert desk.hear(usage(40)) == [told]
    assert desk.hear(usage(40)) == []
    assert desk.hear(usage(41)) == [Told(f"page:{PAGE}", 41)]
    assert desk.hear(usage(41)) == []
    desk.clocks.move(WINDOW.recent / 2 + 1)
    assert desk.hear(usage(41)) == [Told(f"page:{PAGE}", 41)]


@pytest.mark.parametrize("closing", [usage(100), usage(40, regain=3)])
def test_a_scope_that_closes_is_told_each_time(closing: Usage) -> None:
    """A word that closes a scope is never kept back as told before."""
    desk = Desk()
    told = Told(f"page:{PAGE}", closing.percent, timedelta(minutes=closing.regain_minutes))
    assert desk.hear(closing) == desk.hear(closing) == [told]


def test_the_answer_of_a_trial_is_told_with_or_without_a_percentage() -> None:
    """A scope on trial is opened by its answer, though the answer may say nothing of it."""
    desk = Desk()
    assert desk.hear(on_trial=("app",)) == [Told("app", None)]
    desk.hear(usage(40, "app", None))
    assert desk.hear(usage(40, "app", None), on_trial=("app",)) == [Told("app", 40)]


@pytest.mark.parametrize(
    ("told", "also", "scope"),
    [
        (usage(50, "app", None), (), "app"),
        (usage(50, "pages", "31"), (), "page:31"),
        (usage(50, "ads_management", "9"), (), ACCOUNT),
        (usage(50, "ad_account", None), (ACCOUNT,), ACCOUNT),
        (usage(50, "ad_account", None), (), None),
        (usage(50, "something_new", "9"), (), None),
    ],
)
def test_a_usage_is_of_the_scope_it_names(told: Usage, also: tuple[str, ...], scope: str | None) -> None:
    """Meta's kinds of usage are the ledger's scopes; those that no call of ours is in are left out."""
    assert [one.scope for one in Desk().hear(told, also=also)] == ([scope] if scope else [])


@pytest.mark.parametrize(("percent", "link"), [(89, None), (90, PAGE)])
def test_an_account_that_is_nearly_used_up_is_linked_to_its_page(percent: float, link: str | None) -> None:
    """From 90% on a Page is held with the account that its reads count in."""
    assert Desk().hear(usage(percent, "ads_management", "9"))[0].link_page == link


@pytest.mark.parametrize(
    ("scope", "usages", "also", "closed", "link"),
    [
        ("app", (usage(30),), (), "app", None),
        ("page", (), (), f"page:{PAGE}", None),
        ("page", (usage(100, "ads_management", "9"),), (), f"page:{PAGE}", None),
        ("ad_account", (usage(100, "ads_management", "9"),), (), ACCOUNT, PAGE),
        (
            "ad_account",
            (usage(40, "ads_management", "8"), usage(100, "ads_management", "9")),
            (),
            ACCOUNT,
            PAGE,
        ),
        ("ad_account", (), (ACCOUNT,), ACCOUNT, PAGE),
        ("ad_account", (), (), f"page:{PAGE}", None),
        ("user", (), ("user:3",), "user:3", None),
        ("user", (), (), f"page:{PAGE}", None),
    ],
)
def test_a_throttle_closes_what_it_names_or_the_page(
    scope: str, usages: tuple[Usage, ...], also: tuple[str, ...], closed: str, link: str | None
) -> None:
    """Where nothing says whose limit it was, the Page itself waits, and no other."""
    desk = Desk()
    run(desk.granter.throttled(PAGE, scope, usages, timedelta(minutes=2), also=also))
    percents = [one.percent for one in usages if closed.startswith(one.scope) and one.percent == 100]
    assert desk.ledger.told == [Told(closed, max(percents, default=None), timedelta(minutes=2), True, link)]


def test_a_throttle_says_until_when() -> None:
    """The caller snoozes until the moment at which the ledger opens the scope."""
    desk = Desk()
    desk.ledger.closes_for = 300.0
    until = run(desk.granter.throttled(PAGE, "page", (), None))
    assert until == desk.clocks.now + timedelta(minutes=5)
    assert desk.ledger.told == [Told(f"page:{PAGE}", None, timedelta(0), True, None)]


def test_saved_calls_reach_the_ledger() -> None:
    """What a listing saved is told."""
    desk = Desk()
    run(desk.granter.saved(PAGE, 12))
    assert desk.ledger.saves == [(PAGE, 12)]


def test_a_limit_worked_out_is_kept_and_put_in_force() -> None:
    """The memory, for operators, and the ledger hear the same limit."""
    desk = Desk(override=None)
    desk.memory.facts[PAGE] = LimitFacts(10, 30, None)
    limit = run(desk.granter.refresh(PAGE))
    assert limit == Limit(136_800, 144_000, "Meta's forms")
    assert desk.ledger.limits == [(PAGE, limit)]
    assert desk.memory.limits == {PAGE: limit}


def test_a_limit_is_in_force_before_it_is_noted() -> None:
    """Noting a larger limit lets a Page's references go, which the old one must not refuse."""
    desk = Desk()
    order: list[str] = []
    keep, change = desk.memory.keep_limit, desk.ledger.change_limit

    async def keep_limit(*told: Any) -> None:
        order.append("noted")
        await keep(*told)

    async def change_limit(*told: Any) -> None:
        order.append("in force")
        await change(*told)

    desk.memory.keep_limit = keep_limit  # type: ignore[method-assign]
    desk.ledger.change_limit = change_limit  # type: ignore[method-assign]
    run(desk.granter.refresh(PAGE))
    assert order == ["in force", "noted"]
