"""The stack as its users deploy it: built, started, killed in the middle, stopped and started again."""

import json
import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.compose.stack import ROOT, STOP_SECONDS, Stack, require_engine, running

LEADS = 2_000
ALERTS = "deploy/prometheus/alerts.yml"
DASHBOARD = "deploy/grafana/dashboards/leadsync.json"
CHANGES = 4
"""Changes a delivery."""
SENDERS = 8
TAKEN_UP_AGAIN_SECONDS = 120
LASTING = {
    "redis",
    "postgres",
    "receiver",
    "worker-live",
    "worker-backfill",
    "worker-upkeep",
    "beat",
    "metrics",
    "sandbox",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all tests of this file, which build on each other."""
    require_engine()
    with running(tmp_path_factory.mktemp("compose")) as stack:
        yield stack


@pytest.fixture(scope="module")
def truth(stack: Stack) -> dict[str, dict[str, Any]]:
    """The leads that Graph holds: leadgen_id -> its whole answer."""
    stack.sandbox("/sandbox/leads", {"count": LEADS})
    told = [json.loads(line) for line in stack.sandbox("/sandbox/truth").splitlines()]
    return {lead["id"]: lead for lead in told}


def delivery(leads: list[dict[str, Any]]) -> bytes:
    """The bytes that announce these leads."""
    names = ("page_id", "form_id", "ad_id")
    entries = [
        {
            "id": lead["page_id"],
            "time": int(time.time()),
            "changes": [
                {
                    "field": "leadgen",
                    "value": {
                        "leadgen_id": lead["id"],
                        **{name: lead[name] for name in names if name in lead},
                    },
                }
            ],
        }
        for lead in leads
    ]
    return json.dumps({"object": "page", "entry": entries}).encode()


def deliveries(truth: dict[str, dict[str, Any]]) -> list[bytes]:
    """Every lead announced, a fifth of them a second time, in an order of their own."""
    chance = random.Random(7)
    leads = list(truth.values())
    leads += chance.sample(leads, len(leads) // 5)
    chance.shuffle(leads)
    return [delivery(leads[at : at + CHANGES]) for at in range(0, len(leads), CHANGES)]


def deliver_all(stack: Stack, bodies: list[bytes]) -> set[int]:
    """Send each until it is answered with 200, as Meta does; every status that came."""
    statuses: set[int] = set()
    deadline = time.monotonic() + TAKEN_UP_AGAIN_SECONDS

    def send(body: bytes) -> None:
        while (status := stack.deliver(body)) != 200:
            statuses.add(status)
            assert time.monotonic() < deadline, f"still {status}"
            time.sleep(0.3)

    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(send, bodies))
    return statuses


def stored(stack: Stack) -> int:
    """How many rows the view of the leads has."""
    (count,) = stack.rows("select count(*) from leads")
    return int(count)


def test_a_fresh_stack_is_healthy_and_publishes_on_loopback_alone(stack: Stack) -> None:
    """Every lasting service is healthy, the migration has ended well, and two ports are open: webhooks and counts."""
    assert stack.health() == dict.fromkeys(LASTING, "healthy")
    containers = stack.containers()
    assert containers["migrate"]["State"]["ExitCode"] == 0
    published = {
        name: each["NetworkSettings"]["Ports"]
        for name, each in containers.items()
        if any((each["NetworkSettings"]["Ports"] or {}).values())
    }
    assert published == {
        "receiver": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]},
        "metrics": {"9464/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.metrics_port)}]},
    }


@pytest.mark.parametrize("service", sorted(LASTING))
def test_no_container_can_do_more_than_its_work(stack: Stack, service: str) -> None:
    """No service is root, has a capability, may gain one, or can write to its root."""
    status = dict(
        line.split(":\t", 1)
        for line in stack.run_in(service, "cat", "/proc/self/status").splitlines()
        if ":\t" in line
    )
    assert "0" not in status["Uid"].split()
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    stack.run_in(service, "sh", "-c", "! touch /probe 2>/dev/null")


def test_nothing_is_lost_or_doubled_when_a_worker_and_redis_are_killed(
    stack: Stack, truth: dict[str, dict[str, Any]]
) -> None:
    """Every lead answered with 200 becomes one row, equal to Graph's answer, whatever is killed on the way."""
    # So slow that who is killed dies with references in its hands.
    stack.sandbox("/sandbox/latency", {"seconds": 1.0})
    told = deliveries(truth)
    third = len(told) // 3
    statuses = deliver_all(stack, told[:third])
    stack.kill("worker-live")
    statuses |= deliver_all(stack, told[third : 2 * third])
    stack.until(TAKEN_UP_AGAIN_SECONDS, lambda: stored(stack) > 0, "a worker that stores again")
    with ThreadPoolExecutor(1) as aside:
        killed = aside.submit(stack.kill, "redis")
        statuses |= deliver_all(stack, told[2 * third :])
        killed.result()
    assert statuses <= {503}
    assert stack.deliver(delivery([{"id": "7", "page_id": "7"}]), secret="another") == 403

    stack.until(TAKEN_UP_AGAIN_SECONDS, lambda: stored(stack) == len(truth), f"{len(truth)} rows")
    rows = stack.rows("select json_build_object('id', leadgen_id, 'field_data', field_data) from leads")
    assert {row["id"]: row["field_data"] for row in rows} == {
        leadgen_id: lead["field_data"] for leadgen_id, lead in truth.items()
    }
    assert stack.rows(
        "select json_object_agg(state, n) from (select state, count(*) n from leadgen group by 1) s"
    ) == [{"stored": len(truth)}]
    assert {name: stack.containers()[name]["RestartCount"] for name in ("worker-live", "redis")} == {
        "worker-live": 1,
        "redis": 1,
    }


def test_the_stack_is_healthy_again_by_itself(stack: Stack) -> None:
    """After the kills every service is healthy without anybody's help, and the stream is drained."""
    stack.until(TAKEN_UP_AGAIN_SECONDS, lambda: set(stack.health().values()) == {"healthy"}, "all healthy")

    def drained() -> bool:
        return (
            json.loads(stack.run_in("worker-live", "leadsync", "status", "--json"))["stream"]["length"] == 0
        )

    stack.until(TAKEN_UP_AGAIN_SECONDS, drained, "an empty stream")


def test_prometheus_reads_the_counts_and_no_alarm_fires(
    stack: Stack, truth: dict[str, dict[str, Any]]
) -> None:
    """The profile `observe`: Prometheus finds the exporter, knows every rule, and a stack that works alarms nobody."""
    image = stack.image_of("prometheus")
    if not stack.has_image(image):
        pytest.skip(f"this engine has no image {image}, and tests pull nothing: docker pull {image}")
    stack.compose("up", "--detach", "--no-deps", "--wait", "prometheus")

    def ask(path: str) -> Any:
        told = stack.run_in("prometheus", "wget", "-qO-", f"http://127.0.0.1:9090/api/v1/{path}")
        return json.loads(told)["data"]

    def counted(series: str) -> float:
        told = ask("query?" + urlencode({"query": f"sum({series})"}))["result"]
        return float(told[0]["value"][1]) if told else 0

    # A killed worker takes the counts of its last second along, so they are not held to the truth here.
    count = 'leadsync_references_total{outcome="stored"}'
    stack.until(90, lambda: counted(count) > len(truth) / 2, "stored leads, as Prometheus tells")
    assert [target["health"] for target in ask("targets")["activeTargets"]] == ["up"]

    def rules() -> list[dict[str, Any]]:
        return [rule for group in ask("rules")["groups"] for rule in group["rules"]]

    stack.until(90, lambda: {rule["health"] for rule in rules()} == {"ok"}, "every rule evaluated")
    assert len(rules()) == len(re.findall(r"^ *- alert:", (ROOT / ALERTS).read_text(), re.MULTILINE))
    assert [rule["name"] for rule in rules() if rule["state"] == "firing"] == []
    for panel in json.loads((ROOT / DASHBOARD).read_text())["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "1m").replace("$page", ".*")
            # wget ends badly where Prometheus does not understand a query.
            assert ask("query?" + urlencode({"query": query}))["resultType"] == "vector", panel["title"]


def test_no_log_holds_a_secret_or_an_answer(stack: Stack, truth: dict[str, dict[str, Any]]) -> None:
    """No secret, no token and no answer of a person is in any container's log, nor what Postgres refused."""
    canary = "answer-that-postgres-refuses"
    refused = f"insert into leadgen (leadgen_id, field_data) values ('1', '{canary}')"
    stack.run_in("postgres", "psql", "-U", "leadsync", "-c", refused, check=False)
    answers = {
        value
        for lead in truth.values()
        for answer in lead["field_data"]
        for value in answer.get("values") or ()
        if "@" in value
    }
    assert len(answers) > LEADS // 2
    logs = stack.logs()
    assert "receiver_started" in logs
    assert [text for text in (*stack.must_stay_hidden, canary, *answers) if text in logs] == []


def test_everything_ends_in_order_and_the_rows_outlive_the_containers(
    stack: Stack, truth: dict[str, dict[str, Any]]
) -> None:
    """Stopped, all end by themselves in time; made anew, as an upgrade does, they find every row again."""
    began = time.monotonic()
    stack.compose("stop", timeout=STOP_SECONDS)
    assert time.monotonic() - began < STOP_SECONDS
    ended = {name: each["State"]["ExitCode"] for name, each in stack.containers().items()}
    assert {*LASTING, "migrate"} <= ended.keys()
    assert set(ended.values()) == {0}, ended
    stack.compose("--profile", "*", "down")
    stack.compose("up", "--detach", "--wait")
    assert stored(stack) == len(truth)
