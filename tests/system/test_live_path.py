"""The live path on real processes: webhook over HTTP, Redis, Celery, Graph over HTTP, Postgres."""

import time
from collections.abc import Iterator

import psycopg
import pytest

from tests.system.whole import Whole, whole

QUICK = {
    "NOT_VISIBLE_FIRST_SECONDS": "0.3",
    "NOT_VISIBLE_LONGEST_SECONDS": "1",
    "NOT_VISIBLE_FOR_SECONDS": "4",
    "TRANSIENT_FIRST_SECONDS": "0.2",
    "TRANSIENT_LONGEST_SECONDS": "1",
    "RING_EVERY_SECONDS": "1",
    "PARKED_PROBE_EVERY_SECONDS": "2",
    "GRAPH_TIMEOUT_SECONDS": "8",
}
AUTH = (
    "190", "190/page_token", "190/2069032", "190/458", "190/459", "190/460", "190/463", "190/464", "190/467", "190/492",
    "102", "104", "10", "200", "278", "103",
)  # fmt: skip
# Code 4 closes the whole app for a worker process, so it would hold up the tests that come after.
THROTTLES = ("17", "32", "613", "80001", "80004", "80005")
TRANSIENT = (
    "5xx",
    "html_5xx",
    "html_200",
    "truncated",
    "ok_with_error",
    "null_items",
    "reset",
    "redirect",
    "1",
    "2",
)


@pytest.fixture(scope="module")
def stack() -> Iterator[Whole]:
    """One stack for the module; each test has Pages of its own."""
    sandbox = {"pages": 60, "hostile_text": 1, "redelivery_span_seconds": 20}
    with whole(sandbox=sandbox, env=QUICK) as running:
        yield running


@pytest.fixture
def page(stack: Whole, request: pytest.FixtureRequest) -> str:
    """A Page that no other test uses."""
    taken = stack.__dict__.setdefault("taken", iter(stack.get("pages")["pages"]))
    return str(next(taken)["page_id"])


def leads_of(stack: Whole, page_id: str) -> list[str]:
    return [i for i, lead in stack.truth().items() if lead["page_id"] == page_id]


def stored(stack: Whole, page_id: str, count: int, seconds: float = 90) -> bool:
    if not stack.wait_for(lambda: states_of(stack, page_id).get("stored") == count, seconds):
        return False
    return len(stack.rows(leads_of(stack, page_id))) == count


def states_of(stack: Whole, page_id: str) -> dict[str, int]:
    """Rows of a Page by state and reason."""
    query = "select concat_ws(' ', state, reason), count(*) from leadgen where page_id = %s group by 1"
    with psycopg.connect(stack.settings.database_url) as connection:
        return dict(connection.execute(query, (page_id,)).fetchall())


def test_every_announced_lead_is_one_row_equal_to_graphs_answer(stack: Whole, page: str) -> None:
    """All payload variants, duplicates and other changes mixed: each lead is a row with exactly Graph's values."""
    stack.send(
        count=300, pages=[page], batch=30, vary_batch=True, duplicates=0.5, reorder=True, variants=True,
        sample_pings=5, updates=5, other_fields=5,
    )  # fmt: skip
    assert stored(stack, page, 300)
    cleaned = {row["leadgen_id"] for row in stack.rows(leads_of(stack, page)) if row["cleaned"]}
    ours = set(leads_of(stack, page))
    wrong = {i: fields for i, fields in stack.differing().items() if i in ours and i not in cleaned}
    assert wrong == {}


def test_a_webhook_repeated_50_times_costs_one_call(stack: Whole, page: str) -> None:
    """A lead that is announced again and again is read once."""
    (lead,) = stack.post("leads", {"count": 1, "page": page})["leads"]
    before = stack.get("calls")["pages"].get(page, {}).get("kinds", {}).get("lead", 0)
    for _ in range(50):
        stack.send(leads=[lead])
    assert stack.wait_for(lambda: not stack.get("send")["running"] and not stack.get("send")["pending"], 60)
    assert stored(stack, page, 1)
    assert stack.wait_for(lambda: stack.ask_stream(lambda stream: stream.length()) == 0, 60)
    after = stack.get("calls")["pages"][page]["kinds"]["lead"]
    assert after - before == 1


@pytest.mark.parametrize("fault", AUTH)
def test_a_refused_token_or_permission_parks_the_page_and_it_heals(
    stack: Whole, page: str, fault: str
) -> None:
    """The Page's leads wait while it is refused, none dies, and all are stored once it is mended."""
    stack.post("faults", {"rules": [{"class": fault, "pages": [page]}], "merge": True})
    try:
        stack.send(count=12, pages=[page], batch=12)
        assert stack.wait_for(
            lambda: sum(n for s, n in states_of(stack, page).items() if "waiting" in s) == 12, 20
        )
        parked = [row["page_id"] for row in stack.ask_store(lambda store: store.pages()) if row["parked_at"]]
        assert page in parked
    finally:
        stack.post("faults", {"rules": []})
    assert stored(stack, page, 12)


@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_transient_fault_costs_time_and_no_lead(stack: Whole, page: str, fault: str) -> None:
    """Whatever garbles half of the answers, every lead is stored in the end."""
    stack.post("faults", {"rules": [{"class": fault, "pages": [page], "rate": 0.5}]})
    try:
        stack.send(count=40, pages=[page], batch=8)
        assert stored(stack, page, 40)
    finally:
        stack.post("faults", {"rules": []})


@pytest.mark.parametrize("fault", THROTTLES)
def test_a_throttle_is_waited_out_and_counts_no_attempt(stack: Whole, page: str, fault: str) -> None:
    """A throttled lead waits with the reason, without an attempt, and no call is made meanwhile by that process."""
    stack.post("faults", {"rules": [{"class": fault, "pages": [page], "minutes": 600}]})
    try:
        stack.send(count=3, pages=[page], batch=3)
        assert stack.wait_for(
            lambda: sum(n for s, n in states_of(stack, page).items() if "throttled" in s) == 3, 20
        )
        rows = [stack.ask_store(lambda store, i=i: store.show(i)) for i in leads_of(stack, page)]  # type: ignore[misc]
        assert {row["attempts"] for row in rows if row} == {0}
    finally:
        stack.post("faults", {"rules": []})


def test_a_lead_that_is_not_visible_yet_is_stored_once_it_is(stack: Whole, page: str) -> None:
    """Code 100/33 soon after the ping is asked again."""
    stack.send(count=5, pages=[page], visible_in=2, batch=5)
    assert stored(stack, page, 5)


def test_a_lead_that_never_shows_dies_visibly_and_replay_brings_it_back(stack: Whole, page: str) -> None:
    """After its time a lead that Graph does not show is a dead letter; put back, it is stored once it shows."""
    stack.post("faults", {"rules": [{"class": "not_visible", "pages": [page], "for_seconds": 3600}]})
    try:
        stack.send(count=2, pages=[page], batch=2)
        assert stack.wait_for(lambda: states_of(stack, page) == {"dead not_visible": 2}, 30)
    finally:
        stack.post("faults", {"rules": []})
    dead = leads_of(stack, page)
    from worker.clock import now

    assert len(stack.ask_store(lambda store: store.replay(now(), ids=dead, reason=None, page_id=None))) == 2
    assert stored(stack, page, 2)


def test_many_deaths_of_one_reason_park_the_page_instead(stack: Whole, page: str) -> None:
    """A Page whose leads all turn out invisible is held, its dead wait again, and heal with it."""
    stack.post("faults", {"rules": [{"class": "not_visible", "pages": [page], "for_seconds": 3600}]})
    try:
        stack.send(count=15, pages=[page], batch=15)
        parked = stack.wait_for(
            lambda: (
                (page, "mass_not_visible")
                in {
                    (row["page_id"], row["parked_reason"])
                    for row in stack.ask_store(lambda store: store.pages())
                }
            ),
            30,
        )
        assert parked
    finally:
        stack.post("faults", {"rules": []})
    assert stored(stack, page, 15)


def test_refused_ad_fields_give_a_row_in_part(stack: Whole, page: str) -> None:
    """Where only the ad fields are refused, the lead is stored without them and marked."""
    stack.post("faults", {"rules": [{"class": "ad_fields_refused", "pages": [page]}]})
    try:
        stack.send(count=10, pages=[page], batch=5)
        assert stored(stack, page, 10)
    finally:
        stack.post("faults", {"rules": []})
    rows = stack.rows(leads_of(stack, page))
    assert {row["in_part"] for row in rows} == {True}
    assert {row["ad_name"] for row in rows} == {None}


def test_a_slow_page_holds_up_no_other(stack: Whole, page: str) -> None:
    """While every call of one Page hangs, another Page's leads are stored as ever."""
    other = next(iter(stack.__dict__["taken"]))["page_id"]
    stack.post("faults", {"rules": [{"class": "timeout", "pages": [page], "hold_seconds": 30}]})
    try:
        stack.send(count=60, pages=[page], batch=10)
        time.sleep(1)
        for _ in range(10):
            stack.send(count=2, pages=[other])
            time.sleep(0.3)
        assert stored(stack, other, 20, seconds=30)
        late = [
            (row["stored_at"] - row["received_at"]).total_seconds()
            for row in stack.rows(leads_of(stack, other))
        ]
        assert sorted(late)[len(late) // 2] < 4  # of one held up 8, the timeout of a call
    finally:
        stack.post("faults", {"rules": []})
    assert stored(stack, page, 60, seconds=60)


def test_no_token_and_no_answer_is_in_any_log(stack: Whole) -> None:
    """After all of the above, what the processes wrote holds no token, no secret and nobody's e-mail address."""
    log = stack.log()
    tokens = [page["token"] for page in stack.get("pages")["pages"]]
    emails = [
        value
        for lead in stack.truth().values()
        for entry in lead["field_data"]
        if entry["name"] == "email"
        for value in entry.get("values") or ()
    ]
    assert len(emails) > 100
    assert [secret for secret in (*tokens, *emails) if secret in log] == []
