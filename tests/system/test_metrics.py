"""/metrics on real processes: its figures are those of the sandbox's books, whoever is killed meanwhile."""

import json
import signal
import socket
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.whole import Whole, whole
from worker.demo import get_lines

QUICK = {
    "META_APP_ID": "1234567890",
    "RING_EVERY_SECONDS": "1",
    "CLAIM_AFTER_SECONDS": "3",
    "LEASE_SECONDS": "5",
    "NOT_VISIBLE_FIRST_SECONDS": "0.3",
    "NOT_VISIBLE_LONGEST_SECONDS": "1",
    "NOT_VISIBLE_FOR_SECONDS": "3",
    "TRANSIENT_FIRST_SECONDS": "0.2",
    "TRANSIENT_LONGEST_SECONDS": "1",
    "WORKER_CONCURRENCY": "2",
}
KINDS = {"form_leads": "leads", "ad_leads": "leads", "page_forms": "forms"}
"""The sandbox's word for what a call asks for -> ours; all others are the same."""
RESULTS = {
    "200": "ok", "1": "graph_unavailable", "2": "graph_unavailable", "null_items": "graph_unavailable",
    "5xx": "graph_unavailable", "html_200": "graph_unavailable", "100/33": "not_visible", "80005": "throttled",
    "190": "token_refused", "10": "permission_refused",
}  # fmt: skip
"""The sandbox's word for how it answered -> what that is to us."""
MOST_BYTES = 200_000

Key = tuple[str, tuple[tuple[str, str], ...]]


class Exporter:
    """A running exporter of a stack, as Prometheus sees it."""

    def __init__(self, stack: Whole, port: int) -> None:
        self.stack = stack
        self.url = f"http://127.0.0.1:{port}/metrics"

    def text(self) -> str:
        with urllib.request.urlopen(self.url, timeout=15) as answer:
            text: str = answer.read().decode()
        assert len(text) < MOST_BYTES
        return text

    def samples(self) -> dict[Key, float]:
        """Every sample by name and labels. What cannot be parsed, or comes twice, fails."""
        found: dict[Key, float] = {}
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in found
                found[key] = sample.value
        return found

    def value(self, name: str, **labels: str) -> float | None:
        return self.samples().get((f"leadsync_{name}", tuple(sorted(labels.items()))))

    def by(self, name: str, *labels: str) -> Counter[tuple[str, ...]]:
        """The series of a name that are not 0, by these labels."""
        sums: Counter[tuple[str, ...]] = Counter()
        for (found, pairs), value in self.samples().items():
            if found == f"leadsync_{name}" and value:
                sums[tuple(dict(pairs)[label] for label in labels)] += int(value)
        return sums


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    sandbox = {"pages": 8, "app_id": QUICK["META_APP_ID"], "latency_seconds": 0.02}
    with whole(sandbox=sandbox, env={**QUICK, "METRICS_PORT": str(port)}) as stack:
        found = Exporter(stack, port)
        assert stack.wait_for(lambda: found.value("up", neighbour="redis") == 1, 30)
        yield found


def booked(stack: Whole) -> Counter[tuple[str, ...]]:
    """Every Graph call of the sandbox's log, in our words."""
    log = get_lines(f"{stack.sandbox_url}/sandbox/calls/log")
    return Counter((KINDS.get(kind, kind), RESULTS.get(result, f"? {result}")) for _, _, kind, result in log)


def settled(exporter: Exporter, leads: int) -> bool:
    """Everything was delivered and is over."""
    told = exporter.stack.get("send")
    idle = not told["running"] and not told["pending"]
    states = exporter.stack.states()
    return idle and sum(states.values()) == leads and not any("waiting" in state for state in states)


def agree(exporter: Exporter) -> bool:
    """Whether the calls that were counted are those in the books, by kind and result."""
    return exporter.by("graph_calls_total", "kind", "result") == booked(exporter.stack)


def test_calls_leads_and_deliveries_are_those_of_the_books(exporter: Exporter) -> None:
    """Faults, warm restarts of a worker amid its work, a child killed after it, a command: each call counts once."""
    stack = exporter.stack
    pages = [row["page_id"] for row in stack.get("pages")["pages"]]
    rules: list[Mapping[str, object]] = [
        {"class": "1", "pages": [pages[0]], "kinds": ["lead"], "rate": 0.3},
        {"class": "null_items", "pages": [pages[1]], "kinds": ["lead"], "rate": 0.2},
        {"class": "2", "pages": [pages[1]], "kinds": ["batch"], "rate": 0.3},
        {"class": "5xx", "pages": [pages[2]], "kinds": ["lead"], "rate": 0.3},
    ]
    stack.post("faults", {"rules": rules})
    stack.send(
        count=300,
        pages=pages[:4],
        batch=20,
        vary_batch=True,
        duplicates=0.3,
        sample_pings=4,
        updates=3,
        rate=60,
    )
    assert stack.wait_for(lambda: stack.states().get("stored", 0) > 60, 40)
    assert stack.kill(stack.pid("worker"), signal.SIGTERM)  # comes back by itself
    assert stack.wait_for(lambda: settled(exporter, 300), 60)
    assert stack.wait_for(lambda: agree(exporter), 20), (
        exporter.by("graph_calls_total", "kind", "result"),
        booked(stack),
    )
    assert stack.wait_for(lambda: exporter.by("references_total", "outcome")[("stored",)] == 300, 20)
    assert stack.wait_for(lambda: exporter.value("webhook_to_row_seconds_count") == 300, 20)
    assert all(stack.kill(child) for child in stack.children("worker"))  # what it counted was added by now
    stack.post("faults", {"rules": []})
    stack.send(count=100, pages=pages[4:6], batch=10, visible_in=1)
    assert stack.wait_for(lambda: settled(exporter, 400), 60)
    assert stack.leadsync("backfill", "--page", pages[0], "--follow").exit_code == 0
    assert stack.wait_for(lambda: agree(exporter), 20), (
        exporter.by("graph_calls_total", "kind", "result"),
        booked(stack),
    )

    outcomes = exporter.by("references_total", "outcome")
    assert outcomes[("stored",)] == 400
    assert exporter.value("webhook_to_row_seconds_count") == 400
    assert outcomes[("dead",)] == 0
    told = stack.get("send")
    deliveries = exporter.by("deliveries_total", "verdict")
    changes = exporter.by("changes_total", "kind")
    # A busy machine may answer 503 to what it has taken all the same, and counts it again when it comes again.
    assert 0 <= deliveries[("accepted",)] - told["accepted"] <= told["failed"]
    if not told["failed"]:
        assert deliveries.keys() == {("accepted",)}
        assert changes[("tests",)] == 4
        assert changes[("updates",)] == 3
        assert sum(changes.values()) == told["announced"]
    requests = exporter.by("graph_request_seconds_count").total()
    assert requests == stack.get("calls")["http_requests"]
    assert exporter.value("stream_entries") == 0


def test_a_killed_workers_entries_count_as_recovered(exporter: Exporter) -> None:
    """What another takes over is counted, once the dead one has been silent long enough."""
    stack = exporter.stack
    page = stack.get("pages")["pages"][6]["page_id"]
    before = exporter.value("entries_recovered_total") or 0
    stack.post("latency", {"page": page, "seconds": 15})  # long enough to be seen and killed in
    stack.send(count=5, pages=[page], batch=5)
    assert stack.wait_for(lambda: (exporter.value("stream_taken_entries") or 0) >= 5, 20)
    assert all(stack.kill(child) for child in stack.children("worker"))
    assert stack.kill(stack.pid("worker"))
    stack.post("latency", {"page": page, "seconds": 0})
    assert stack.wait_for(lambda: (exporter.value("entries_recovered_total") or 0) >= before + 5, 40)


def test_what_waits_is_dead_and_is_parked_is_what_the_rows_say(exporter: Exporter) -> None:
    """A Page whose token is refused shows as parked, with its references waiting; a lead that never shows is dead."""
    stack = exporter.stack
    page = stack.get("pages")["pages"][7]["page_id"]
    (lost,) = stack.post("leads", {"count": 1, "page": page, "visible_in": 3_600})["leads"]
    stack.send(leads=[lost])
    assert stack.wait_for(lambda: exporter.value("dead_letters") == 1, 30)
    assert exporter.by("dead_letters_by_reason", "reason") == Counter({("not_visible",): 1})
    assert stack.wait_for(lambda: exporter.by("references_total", "outcome")[("dead",)] == 1, 20)
    stack.post("faults", {"rules": [{"class": "190", "pages": [page]}]})
    stack.send(count=6, pages=[page], batch=6)
    assert stack.wait_for(lambda: exporter.value("parked_pages") == 1, 30)
    parked = exporter.by("page_parked_timestamp_seconds", "page", "reason")
    assert set(parked) == {(page, "token_refused")}
    assert stack.wait_for(lambda: exporter.by("waiting_references", "reason").total() == 6, 20)
    with psycopg.connect(stack.settings.database_url) as connection:
        rows = connection.execute("select reason, count(*) from leadgen where state = 'waiting' group by 1")
        reasons = {(reason,): count for reason, count in rows}
    assert exporter.by("waiting_references", "reason") == Counter(reasons)


def test_the_budget_shown_is_the_ledgers(exporter: Exporter) -> None:
    """Limit and spending of each Page are those that `leadsync budget` tells."""
    stack = exporter.stack

    def is_so() -> bool:
        """Between the two looks the schedule may make a call, or find another limit."""
        told = json.loads(stack.leadsync("budget", "--json").stdout)
        limits = {(p["page_id"],): p["limit"]["calls"] for p in told["pages"] if p["limit"]["calls"]}
        spent = exporter.by("budget_spent_calls", "page")
        return exporter.by("budget_limit_calls", "page") == Counter(limits) and all(
            spent[(p["page_id"],)] == p["spent"]["all"] for p in told["pages"] if "spent" in p
        )

    assert stack.wait_for(is_so, 30)


@pytest.mark.parametrize(
    ("away", "other", "lost", "kept"),
    [
        ("postgres", "redis", "leadsync_dead_letters", "leadsync_stream_entries"),
        ("redis", "postgres", "leadsync_stream_entries", "leadsync_dead_letters"),
    ],
)
def test_a_neighbour_that_is_away_costs_its_own_series_only(
    exporter: Exporter, away: str, other: str, lost: str, kept: str
) -> None:
    """A neighbour hangs: the other's series still come, in time, and it is said who is missing; then all is back."""
    stack = exporter.stack
    processes = [stack.pid(away), *stack.children(away)]
    try:
        for process in processes:  # one of Postgres' may have ended by itself
            stack.kill(process, signal.SIGSTOP)
        assert stack.wait_for(lambda: exporter.value("up", neighbour=away) == 0, 30)
        samples = exporter.samples()
        assert samples[("leadsync_up", (("neighbour", other),))] == 1
        assert (kept, ()) in samples
        assert (lost, ()) not in samples
        assert samples[("leadsync_scrape_errors_total", (("neighbour", away),))] >= 1
        assert samples[("leadsync_scrape_seconds", ())] < 10
    finally:
        for process in processes:
            stack.kill(process, signal.SIGCONT)
    assert stack.wait_for(lambda: exporter.value("up", neighbour=away) == 1, 30)
    assert (lost, ()) in exporter.samples()


def test_no_token_no_secret_and_no_answer_is_in_it(exporter: Exporter) -> None:
    """Nothing that is secret or personal is in any series; ids of leads and forms are in none either."""
    stack = exporter.stack
    text = exporter.text()
    truth = stack.truth()
    entries = [entry for lead in truth.values() for entry in lead["field_data"] or []]
    answers = {str(value) for entry in entries for value in entry.get("values") or []}
    tokens = stack.get("tokens").values()
    forms = {lead["form_id"] for lead in truth.values()}
    secrets = {"whole_app_secret", "whole_verify_token", *tokens, *truth, *forms}
    assert not [word for word in secrets | {a for a in answers if len(a) > 6} if word in text]


def test_the_exporter_ends_in_order_and_a_taken_port_is_one_line(exporter: Exporter) -> None:
    """Another one on the same port says what to do; SIGTERM ends it with status 0 and it is started again."""
    stack = exporter.stack
    port = exporter.url.rsplit(":", 1)[1].split("/")[0]
    refused = stack.leadsync("metrics", "--port", port)
    assert refused.exit_code == 1
    assert "choose another by --port" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    before = stack.pid("metrics")
    assert stack.kill(before, signal.SIGTERM)
    assert stack.wait_for(lambda: stack.pid("metrics") not in (None, before), 20)
    assert "metrics ended" not in stack.log() or "code 0" in stack.log()
    assert stack.wait_for(lambda: exporter.value("build_info") is None and bool(exporter.samples()), 30)
