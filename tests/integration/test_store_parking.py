"""When a Page is parked, what of its rows is put back, and what people see of states and reasons."""

import json
from collections import Counter
from typing import Any

import pytest

from tests.fakes.leads import OTHER_PAGE, PAGE, a_lead, at, in_flight
from tests.fakes.time import NOW
from tests.integration.lead_world import DEATHS, LEASE, SECRET, World, ids, some
from worker.outcomes import DeadLetter, Park, Snooze, Stored


def test_a_refused_token_parks_its_page_once(on_leads: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Fifty references that meet a refused token are one alarm, and all of them wait."""

    async def scenario(world: World) -> None:
        await world.settle(*((r, Park("token_refused")) for r in some(50)))
        await world.settle(*((r, Park("permission_refused")) for r in some(50, first=100)), now=at(5))
        (page,) = await world.store.pages()
        assert (page["parked_at"], page["parked_reason"], page["waiting"]) == (NOW, "token_refused", 100)

    on_leads(scenario)
    told = capsys.readouterr()
    assert (told.out + told.err).count("page_parked") == 1


def test_a_lead_that_was_being_read_does_not_take_its_page_up_again(on_leads: Any) -> None:
    """Its call was answered before the token was refused: the Page stays held, so that it is one alarm and not many."""

    async def scenario(world: World) -> None:
        await world.settle(*((r, Park("token_refused")) for r in some(30)))
        await world.settle((in_flight(99), Stored(a_lead(99))), now=at(1))
        assert await world.store.parked([PAGE]) == {PAGE}
        assert await world.state(99) == "stored"
        assert await world.lease(at(10**6)) == ()

    on_leads(scenario)


def test_a_page_with_a_lead_in_the_same_batch_is_not_parked(on_leads: Any) -> None:
    """One reference refused beside one that was read is no trouble of the Page."""

    async def scenario(world: World) -> None:
        await world.settle((in_flight(1), Park("permission_refused")), (in_flight(2), Stored(a_lead(2))))
        assert await world.store.pages() == []

    on_leads(scenario)


def test_many_deaths_of_one_reason_are_the_page_s_trouble(on_leads: Any) -> None:
    """Where many die of one reason and none was stored since, they wait again and the Page is parked."""

    async def scenario(world: World) -> None:
        dying = some(DEATHS)
        for n, reference in enumerate(dying[:-1]):
            await world.settle((reference, DeadLetter("request_refused")), now=at(n))
        assert await world.store.parked([PAGE]) == frozenset()
        assert Counter(r["state"] for r in await world.snapshot()) == {"dead": DEATHS - 1}
        await world.settle((dying[-1], DeadLetter("request_refused")), now=at(DEATHS))
        rows = await world.snapshot()
        assert Counter(r["state"] for r in rows) == {"waiting": DEATHS}
        assert {(r["due_at"], r["attempts"]) for r in rows} == {(at(DEATHS), 0)}
        (page,) = await world.store.pages()
        assert page["parked_reason"] == "mass_request_refused"

    on_leads(scenario)


def test_who_was_being_read_when_its_page_was_parked_waits_with_the_others(on_leads: Any) -> None:
    """A reference in flight dies of the same reason after the Page is held for it: it is no dead letter of its own."""

    async def scenario(world: World) -> None:
        await world.settle(*((r, DeadLetter("not_visible")) for r in some(DEATHS)))
        late = some(DEATHS + 3)[DEATHS:]
        await world.settle(
            (late[0], DeadLetter("not_visible")), (late[1], DeadLetter("lead_gone")), now=at(1)
        )
        states = {r["leadgen_id"]: r["state"] for r in await world.snapshot()}
        assert states.pop(late[1].leadgen_id) == "dead"
        assert set(states.values()) == {"waiting"}
        await world.store.unpark([PAGE], at(2))
        await world.settle((late[2], DeadLetter("not_visible")), now=at(3))
        assert await world.state(DEATHS + 3) == "dead"

    on_leads(scenario)


@pytest.mark.parametrize("what", ["reasons", "pages", "stored"])
def test_scattered_deaths_are_the_leads_own(on_leads: Any, what: str) -> None:
    """Deaths of several reasons, of several Pages, or with a lead stored in between park nobody."""

    async def scenario(world: World) -> None:
        for n in range(2 * DEATHS - 2):
            half = n % 2
            reference = in_flight(n + 1, (PAGE, OTHER_PAGE)[half] if what == "pages" else PAGE)
            reason = ("lead_gone", "not_visible")[half] if what == "reasons" else "lead_gone"
            await world.settle((reference, DeadLetter(reason)), now=at(n))
            if what == "stored" and n == DEATHS - 2:
                await world.settle((in_flight(900), Stored(a_lead(900))), now=at(n + 0.5))
        assert await world.store.pages() == []
        assert Counter(r["state"] for r in await world.snapshot())["dead"] == 2 * DEATHS - 2

    on_leads(scenario)


def test_deaths_of_yesterday_are_not_counted(on_leads: Any) -> None:
    """A few dead letters a week never add up to a parked Page."""

    async def scenario(world: World) -> None:
        for n in range(DEATHS + 5):
            await world.settle((in_flight(n + 1), DeadLetter("lead_gone")), now=at(n * 86_401.0))
        assert await world.store.pages() == []

    on_leads(scenario)


def test_replay_puts_the_chosen_back(on_leads: Any) -> None:
    """Dead letters are replayed by id, reason or Page, with their full time again; nothing else is touched."""

    async def scenario(world: World) -> None:
        await world.settle(
            (in_flight(1), DeadLetter("lead_gone")),
            (in_flight(2), DeadLetter("not_visible")),
            (in_flight(3, OTHER_PAGE), DeadLetter("lead_gone")),
            (in_flight(4), Stored(a_lead(4))),
            (in_flight(5), Snooze(at(10**6), "x")),
        )
        later = at(90_000)
        replay = world.store.replay
        assert await replay(later, ids=["4", "5", "99"], reason=None, page_id=None) == ()
        assert await replay(later, ids=None, reason="not_visible", page_id=OTHER_PAGE) == ()
        assert await replay(later, ids=["2"], reason=None, page_id=None) == ("2",)
        row = await world.row(2)
        assert (row["state"], row["attempts"], row["due_at"], row["first_seen_at"]) == (
            "waiting",
            0,
            later,
            later,
        )
        assert await replay(later, ids=None, reason="lead_gone", page_id=PAGE) == ("1",)
        assert await replay(later, ids=None, reason=None, page_id=None) == ("3",)
        assert sorted(ids(await world.lease(later))) == ["1", "2", "3"]

    on_leads(scenario)


def test_a_zombie_cannot_bury_what_was_replayed(on_leads: Any) -> None:
    """A verdict from before the replay changes nothing after it."""

    async def scenario(world: World) -> None:
        zombie = await world.leased(in_flight(1))
        (heir,) = await world.lease(at(LEASE))
        await world.settle((heir, DeadLetter("lead_gone")), now=at(LEASE))
        await world.store.replay(at(200), ids=["1"], reason=None, page_id=None)
        for late in (zombie, heir):
            await world.settle((late, DeadLetter("lead_gone")), now=at(201))
        assert await world.state(1) == "waiting"

    on_leads(scenario)


def test_the_views_show_each_row_in_its_place(on_leads: Any) -> None:
    """A row is in exactly one of leads, waiting and dead_letters, and an erased one in none."""

    async def scenario(world: World) -> None:
        await world.settle(
            (in_flight(1), Stored(a_lead(1))),
            (in_flight(2), Snooze(at(9), "throttled_page")),
            (in_flight(3), DeadLetter("lead_gone")),
            (in_flight(4), Stored(a_lead(4, in_part=True))),
            (in_flight(5), DeadLetter("lead_gone")),
        )
        await world.sql("update leadgen set state = 'erased' where leadgen_id = '5'")
        shown = {
            view: [r["leadgen_id"] for r in await world.sql(f"select leadgen_id from {view} order by 1")]
            for view in ("leads", "waiting", "dead_letters")
        }
        assert shown == {"leads": ["1", "4"], "waiting": ["2"], "dead_letters": ["3"]}

    on_leads(scenario)


def test_an_operator_sees_states_and_reasons_but_no_answers(on_leads: Any) -> None:
    """Counts, dead letters and a row's story are told without what the person wrote."""

    async def scenario(world: World) -> None:
        hostile = a_lead(1, field_data=[{"name": "email", "values": [SECRET]}], full_name=SECRET)
        await world.settle(
            (in_flight(1), Stored(hostile)),
            (in_flight(2), DeadLetter("lead_gone")),
            (in_flight(3), Snooze(at(9), "throttled_page")),
            (in_flight(4), Snooze(at(5), "throttled_page")),
        )
        counts = {
            (r["state"], r["reason"]): (r["count"], r["oldest_due"]) for r in await world.store.counts()
        }
        assert counts == {
            ("stored", ""): (1, None),
            ("dead", "lead_gone"): (1, None),
            ("waiting", "throttled_page"): (2, at(5)),
        }
        (dead,) = await world.store.dead_letters(reason="lead_gone", page_id=PAGE, limit=5)
        assert (dead["leadgen_id"], dead["died_at"]) == ("2", NOW)
        shown = await world.store.show("1")
        assert shown is not None
        assert shown["state"] == "stored"
        assert "hunter2" not in json.dumps([shown, dead], default=str)
        assert await world.store.show("99") is None

    on_leads(scenario)
