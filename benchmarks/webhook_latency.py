"""Claim: at low load a lead is a row at most 60 ms later than Graph's own latency after its webhook was sent.

    leadsync:  sandbox sends a webhook -> receiver -> stream -> worker -> Graph -> row visible
    the peer:  a Celery message is sent -> worker -> Graph -> row visible
    the limit: the same read, made directly over a kept-alive connection

All three run side by side at the same rate, so that they meet the same machine. A row is visible when Postgres has
told a listener of its commit; that is what a user waits for. `stored_at - received_at`, which `leadsync demo` and
the table itself tell, is printed beside it: it begins when the receiver has the body and ends before the commit.
The webhook's time is the sandbox's, from just before it sends (`pinged_at` of its journal).

What it does not show: the peer has no receiver here: nobody checks a signature for it, and its message is not yet
promised to anybody. A trigger with NOTIFY on both tables costs some tenths of a millisecond a row. With a few
hundred leads a p99 is nearly the slowest lead. Load is low by intent; see fifty_thousand.py for latency under load.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import click
import psycopg
from rich.console import Console
from rich.table import Table

from benchmarks import plain_celery_peer as peer
from benchmarks.contenders import Leadsync, Peer, warm_up
from benchmarks.processes import Spent, Stopwatch
from benchmarks.report import (
    Spread,
    as_help,
    machine,
    percentile,
    print_machine,
    ratio,
    shares,
    spent_as_json,
    write_json,
)
from benchmarks.rig import WEBHOOK_PATH, Rig, build_rig, told_when_stuck, wait_until
from worker.graph.wire import FULL_FIELDS, appsecret_proof

GOAL_SECONDS: Final = 0.060
BLOCKS: Final = 5
"""The leads of a rate are split into so many blocks by time; each block has a median."""
CHANNEL: Final = "row_visible"
PATIENCE_SECONDS: Final = 60.0
OURS: Final = "leadsync, webhook to row visible"
OURS_TOLD: Final = "leadsync, received_at to stored_at"
PEERS: Final = "the peer, message to row visible"
DIRECT: Final = "one direct read"

TELL: Final = (
    f"""
    create function tell_visible() returns trigger language plpgsql as $$
    begin perform pg_notify('{CHANNEL}', TG_TABLE_NAME || ' ' || new.leadgen_id); return null; end $$
    """,
    """
    create trigger tell after insert or update on leadgen for each row when (new.state = 'stored')
    execute function tell_visible()
    """,
    "create trigger tell after insert on peer_leads for each row execute function tell_visible()",
)


class Listener:
    """Notes when each row became visible, by table and id; a notification is sent with the commit."""

    def __init__(self, database_url: str) -> None:
        self._connection = psycopg.connect(database_url, autocommit=True)
        self._connection.execute(f"listen {CHANNEL}".encode())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self.seen: dict[tuple[str, str], float] = {}

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.close()

    def count(self, table: str) -> int:
        """Rows of a table seen so far."""
        return sum(each == table for each, _ in list(self.seen))

    def _listen(self) -> None:
        while not self._ended.is_set():
            for told in self._connection.notifies(timeout=0.5, stop_after=1):
                table, leadgen_id = told.payload.split(" ")
                self.seen.setdefault((table, leadgen_id), time.time())


class DirectReader:
    """Reads leads one by one over one kept-alive connection, as fast as a plain client can."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._connection = http.client.HTTPConnection(urlsplit(rig.graph_url).netloc, timeout=30)
        self._tokens = rig.get("/sandbox/tokens")
        self.seconds: list[float] = []

    def read(self, lead: Mapping[str, Any]) -> None:
        """One read, timed."""
        token = self._tokens[lead["page_id"]]
        proof = appsecret_proof(self._rig.env["META_APP_SECRET"], token)
        query = urlencode({"fields": ",".join(FULL_FIELDS), "appsecret_proof": proof})
        path = f"/{self._rig.env['GRAPH_VERSION']}/{lead['id']}?{query}"
        began = time.perf_counter()
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        read = json.loads(self._connection.getresponse().read())
        self.seconds.append(time.perf_counter() - began)
        assert read["id"] == lead["id"], read


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds by what was measured, in the order of sending; and what the time cost."""

    rate: float
    seconds: Mapping[str, Sequence[float]]
    spent: Spent


def measure(rig: Rig, other: Peer, rate: float, seconds: float, console: Console) -> Measured:
    """All three at `rate` leads a second for so long."""
    count = max(BLOCKS, round(rate * seconds))
    leads = rig.make_leads(2 * count)
    watch = Stopwatch(rig.pids())
    with Listener(rig.database_url) as listener, console.status(f"{rate:g} leads/s for {count / rate:.0f} s"):
        before = {record["id"] for record in rig.lines("/sandbox/leads")}
        rig.post("/sandbox/send", {"count": count, "rate": rate, "batch": 1})
        direct = DirectReader(rig)
        reading = threading.Thread(target=_paced, args=(leads[:count], rate, direct.read))
        sent: dict[str, float] = {}

        def send(lead: Mapping[str, Any]) -> None:
            sent[lead["id"]] = time.time()
            other.send_one(lead)

        reading.start()
        _paced(leads[count:], rate, send)
        reading.join()
        wait_until(
            "the last row",
            lambda: listener.count("leadgen") >= count and listener.count("peer_leads") >= count,
            patience=PATIENCE_SECONDS,
        )
        seen = listener.seen
    spent = watch.stop()
    pinged = {r["id"]: r["pinged_at"] for r in rig.lines("/sandbox/leads") if r["id"] not in before}
    ours = sorted((at, leadgen_id) for leadgen_id, at in pinged.items() if at is not None)
    return Measured(
        rate,
        {
            OURS: [seen["leadgen", leadgen_id] - at for at, leadgen_id in ours],
            OURS_TOLD: _told(rig, [leadgen_id for _, leadgen_id in ours]),
            PEERS: [seen["peer_leads", leadgen_id] - at for leadgen_id, at in sent.items()],
            DIRECT: direct.seconds,
        },
        spent,
    )


def _paced(leads: Sequence[Mapping[str, Any]], rate: float, act: Callable[[Mapping[str, Any]], None]) -> None:
    """Act on one lead after another, each at its time."""
    began = time.monotonic()
    for place, lead in enumerate(leads):
        time.sleep(max(0.0, began + place / rate - time.monotonic()))
        act(lead)


def _told(rig: Rig, ids: Sequence[str]) -> list[float]:
    query = """
        select extract(epoch from stored_at - received_at)::float8 from leadgen where leadgen_id = any(%s)
        order by received_at"""
    with psycopg.connect(rig.database_url) as connection:
        return [row[0] for row in connection.execute(query, (list(ids),)).fetchall()]


def block_medians(seconds: Sequence[float]) -> list[float]:
    """The median of each block of time."""
    size = len(seconds) / BLOCKS
    return [percentile(seconds[round(b * size) : round((b + 1) * size)], 0.5) for b in range(BLOCKS)]


def show(measured: Measured, latency: float, console: Console) -> dict[str, Any]:
    """Print one rate; its figures."""
    title = f"{measured.rate:g} leads/s, {len(measured.seconds[OURS])} leads each, Graph at {latency * 1000:.0f} ms"
    table = Table(title=f"{title}: milliseconds", title_justify="left")
    for heading in ("", f"p50 (of {BLOCKS} blocks)", "p99", "most", "p50 less Graph's", "p50 : direct read"):
        table.add_column(heading, justify="right" if heading else "left")
    figures: dict[str, Any] = {}
    direct = block_medians(measured.seconds[DIRECT])
    for name, seconds in measured.seconds.items():
        blocks = block_medians(seconds)
        spread, times = Spread.over(1000 * s for s in blocks), ratio(blocks, direct)
        p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
        figures[name] = {"p50": p50, "p99": p99, "most": max(seconds), "less_graph": p50 - latency}
        figures[name] |= {"blocks": blocks, "to_direct": asdict(times)}
        table.add_row(
            name,
            spread.show(1),
            f"{1000 * p99:.1f}",
            f"{1000 * max(seconds):.1f}",
            f"{1000 * (p50 - latency):.1f}",
            times.show(2, " x"),
        )
    console.print(table)
    over = figures[OURS]["less_graph"]
    met = over <= GOAL_SECONDS
    colour, word = ("green", "met") if met else ("red", "not met")
    goal = f"goal p50 within {GOAL_SECONDS * 1000:.0f} ms of Graph's latency"
    console.print(f"{goal}: [{colour}]{word}[/], {over * 1000:.1f} ms")
    return {
        "rate": measured.rate,
        "figures": figures,
        "goal_met": met,
        "spent": spent_as_json([measured.spent]),
    }


@click.command(help=as_help(__doc__))
@click.option("--latency", default=0.15, show_default=True, help="Graph's, in seconds.")
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=float,
    default=(2.0,),
    show_default=True,
    help="Leads a second; repeatable.",
)
@click.option("--seconds", default=60.0, show_default=True, help="For so long each rate.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here too.")
def main(latency: float, rates: tuple[float, ...], seconds: float, json_path: Path | None) -> None:
    console = Console()
    about = machine()
    print_machine(about, console)
    with ExitStack() as held:
        with console.status("starting everything"):
            rig = held.enter_context(build_rig(latency=latency))
        held.enter_context(told_when_stuck(rig, console))
        with psycopg.connect(rig.database_url, autocommit=True) as connection:
            connection.execute(peer.TABLE)
        other = Peer(rig, "threads", 32, 4)
        held.enter_context(rig.running(rig.specs(*WEBHOOK_PATH)))
        held.enter_context(other.running())
        warm_up(rig, Leadsync(rig))
        warm_up(rig, other)
        with psycopg.connect(rig.database_url, autocommit=True) as connection:
            for statement in TELL:
                connection.execute(statement.encode())
        measured = [measure(rig, other, rate, seconds, console) for rate in rates]
    told = [show(each, latency, console) for each in measured]
    console.print(shares({f"{each.rate:g} leads/s": [each.spent] for each in measured}))
    write_json(json_path, "webhook_latency", about, {"options": {"latency": latency}, "rates": told})


if __name__ == "__main__":
    main()
