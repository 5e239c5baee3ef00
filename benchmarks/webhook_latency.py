"""Claim: at a tenth of its capacity a lead is a row within 15 ms of what a direct read of it takes.

    leadsync:  sandbox sends a webhook -> receiver -> stream -> worker -> Graph -> row visible
    the peer:  a Celery message is sent -> worker -> Graph -> row visible
    the limit: the same read, made directly over a kept-alive connection

What the machine can do is measured first, by a burst of webhooks, one lead each; then come 1, 10, 50 and 80% of that.
The peer goes along at the same rate where that is low enough that it takes nothing away; direct reads always do, a few
a second, since what is judged is what leadsync adds to them: Graph's latency is what a read takes, the simulated
Graph's own milliseconds beside the latency that it was told included. Both figures are printed. A row is visible when
Postgres has told a listener of its commit; that is what a user waits for. The webhook's time is the sandbox's, from
just before it sends (`pinged_at` of its journal). The parts' medians need not add up:

    webhook -> received_at -> taken up by a worker -> Graph's answer is there -> stored_at -> row visible

What it does not show: the peer has no receiver here: nobody checks a signature for it, and its message is not yet
promised to anybody. A trigger with NOTIFY on both tables costs some tenths of a millisecond a row. With a few hundred
leads a p99 is nearly the slowest of them. The capacity is that of sender, Graph, servers and leadsync on these cores.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
    Finding,
    Spread,
    as_help,
    json_option,
    judge,
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

GOAL_SECONDS: Final = 0.015
GOAL_SHARE: Final = 0.1
BLOCKS: Final = 5
"""The leads of a rate are split into so many blocks by time; each block has a median."""
READS_A_SECOND: Final = 5.0
CHANNEL: Final = "row_visible"
PATIENCE_SECONDS: Final = 60.0
OURS: Final = "leadsync, webhook to row visible"
PARTS: Final = {
    "webhook to received_at": "extract(epoch from received_at)::float8 - pinged",
    "received_at to taken up": "taken_ms / 1000.0::float8",
    "taken up to Graph's answer": "(read_ms - taken_ms) / 1000.0::float8",
    "Graph's answer to stored_at": "extract(epoch from stored_at - received_at)::float8 - read_ms / 1000.0::float8",
    "stored_at to row visible": "seen - extract(epoch from stored_at)::float8",
}
"""Each as SQL over a row and the two times that it does not hold."""
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
    """Seconds by what was measured, in the order of sending, and by part; and what the time cost.

    `share` of the capacity, None where the rate was asked for.
    """

    rate: float
    share: float | None
    seconds: Mapping[str, Sequence[float]]
    parts: Mapping[str, Sequence[float]]
    spent: Spent


def capacity(rig: Rig, leads: int) -> float:
    """Leads a second, announced one a delivery as fast as the receiver takes them, until the last is a row."""
    before = _pinged(rig)
    rig.post("/sandbox/send", {"count": leads, "batch": 1})
    with psycopg.connect(rig.database_url, autocommit=True) as connection:
        known = _count(connection)
        wait_until("the burst's rows", lambda: _count(connection) >= known + leads, patience=PATIENCE_SECONDS)
        row = connection.execute("select extract(epoch from max(stored_at))::float8 from leadgen").fetchone()
    assert row is not None
    began = min(at for leadgen_id, at in _pinged(rig).items() if leadgen_id not in before)
    return leads / float(row[0] - began)


def _count(connection: "psycopg.Connection[Any]") -> int:
    row = connection.execute("select count(*) from leadgen where state = 'stored'").fetchone()
    assert row is not None
    return int(row[0])


def _pinged(rig: Rig) -> dict[str, float]:
    return {r["id"]: r["pinged_at"] for r in rig.lines("/sandbox/leads") if r["pinged_at"] is not None}


def measure(
    rig: Rig, other: Peer | None, rate: float, share: float | None, seconds: float, console: Console
) -> Measured:
    """leadsync, and with `other` all three, at `rate` leads a second for so long."""
    count = max(BLOCKS, round(rate * seconds))
    reads = max(BLOCKS, round(min(rate, READS_A_SECOND) * seconds))
    leads = rig.make_leads(reads + (count if other else 0))
    sent: dict[str, float] = {}
    direct = DirectReader(rig)

    def send(lead: Mapping[str, Any]) -> None:
        assert other is not None
        sent[lead["id"]] = time.time()
        other.send_one(lead)

    before = _pinged(rig)
    watch = Stopwatch(rig.pids())
    with Listener(rig.database_url) as listener, console.status(f"{rate:g} leads/s for {count / rate:.0f} s"):
        rig.post("/sandbox/send", {"count": count, "rate": rate, "batch": 1})
        reading = threading.Thread(target=_paced, args=(leads[:reads], reads / count * rate, direct.read))
        reading.start()
        _paced(leads[reads:], rate, send)
        reading.join()
        wait_until(
            "the last row",
            lambda: listener.count("leadgen") >= count and listener.count("peer_leads") >= len(sent),
            patience=PATIENCE_SECONDS + count / rate,
        )
        seen = listener.seen
    spent = watch.stop()
    pinged = {leadgen_id: at for leadgen_id, at in _pinged(rig).items() if leadgen_id not in before}
    ours = sorted((at, leadgen_id, seen["leadgen", leadgen_id]) for leadgen_id, at in pinged.items())
    told, parts = _told(rig, ours)
    found: dict[str, Sequence[float]] = {OURS: [visible - at for at, _, visible in ours], OURS_TOLD: told}
    if other:
        found[PEERS] = [seen["peer_leads", i] - at for i, at in sent.items()]
    found[DIRECT] = direct.seconds
    return Measured(rate, share, found, parts, spent)


def _paced(leads: Sequence[Mapping[str, Any]], rate: float, act: Callable[[Mapping[str, Any]], None]) -> None:
    """Act on one lead after another, each at its time."""
    began = time.monotonic()
    for place, lead in enumerate(leads):
        time.sleep(max(0.0, began + place / rate - time.monotonic()))
        act(lead)


def _told(
    rig: Rig, ours: Sequence[tuple[float, str, float]]
) -> tuple[list[float], dict[str, Sequence[float]]]:
    """`received_at` to `stored_at`, and the parts, in the order of sending."""
    query = f"""
        select extract(epoch from stored_at - received_at)::float8, {", ".join(PARTS.values())}
        from leadgen join unnest(%s::text[], %s::float8[], %s::float8[]) as told (leadgen_id, pinged, seen)
            using (leadgen_id)
        order by pinged"""
    pinged, ids, seen = map(list, zip(*ours, strict=True))
    with psycopg.connect(rig.database_url) as connection:
        rows = connection.execute(query.encode(), (ids, pinged, seen)).fetchall()
    whole, *parts = zip(*rows, strict=True)
    return list(whole), dict(zip(PARTS, parts, strict=True))


def block_medians(seconds: Sequence[float]) -> list[float]:
    """The median of each block of time."""
    size = len(seconds) / BLOCKS
    return [percentile(seconds[round(b * size) : round((b + 1) * size)], 0.5) for b in range(BLOCKS)]


def show(measured: Measured, latency: float, console: Console) -> Iterator[Finding]:
    """Print one rate; what is to be told of it."""
    share = "" if measured.share is None else f"{measured.share:.0%} of capacity, "
    title = f"{share}{measured.rate:,.4g} leads/s"
    table = Table(
        title=f"{title}, {len(measured.seconds[OURS])} leads, Graph at {latency * 1000:.0f} ms: milliseconds",
        title_justify="left",
    )
    for heading in ("", f"p50 (of {BLOCKS} blocks)", "p99", "most", "p50 less Graph's"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, seconds in measured.seconds.items():
        table.add_row(name, *_cells(seconds), f"{1000 * (percentile(seconds, 0.5) - latency):.1f}")
    table.add_section()
    for name, seconds in measured.parts.items():
        table.add_row(f"  {name}", *_cells(seconds), "")
    console.print(table)
    read = percentile(measured.seconds[DIRECT], 0.5)
    ours = [1000 * (seconds - read) for seconds in measured.seconds[OURS]]
    goal = 1000 * GOAL_SECONDS if measured.share == GOAL_SHARE else None
    what = f"webhook to row, less a direct read ({title})"
    medians = Spread.over(block_medians(ours))
    yield Finding(f"p50, {what}", medians, " ms", 1, goal, at_least=False)
    yield Finding(f"p99, {what}", Spread.over([percentile(ours, 0.99)]), " ms", 1)
    nominal = 1000 * (percentile(measured.seconds[OURS], 0.5) - latency)
    yield Finding(
        f"p50, webhook to row, less the latency that Graph was told ({title})",
        Spread.over([nominal]),
        " ms",
        1,
    )
    for name in (PEERS, DIRECT):
        if name in measured.seconds:
            times = ratio(block_medians(measured.seconds[OURS]), block_medians(measured.seconds[name]))
            yield Finding(f"p50, leadsync : {name} ({title})", times)


def _cells(seconds: Sequence[float]) -> Iterator[str]:
    yield Spread.over(1000 * s for s in block_medians(seconds)).show(1)
    yield f"{1000 * percentile(seconds, 0.99):.1f}"
    yield f"{1000 * max(seconds):.1f}"


@click.command(help=as_help(__doc__))
@click.option("--latency", default=0.15, show_default=True, help="Graph's, in seconds.")
@click.option(
    "--share", "portions", multiple=True, type=float, default=(0.01, 0.1, 0.5, 0.8), show_default=True,
    help="Of the capacity; repeatable.",
)  # fmt: skip
@click.option(
    "--rate", "rates", multiple=True, type=float, help="Leads a second, instead of shares; repeatable."
)
@click.option("--seconds", default=20.0, show_default=True, help="For so long each rate.")
@click.option("--burst", default=3_000, show_default=True, help="Leads by which the capacity is measured.")
@click.option("--beside", default=15.0, show_default=True, help="Up to this rate the peer goes along.")
@json_option
def main(
    latency: float,
    portions: tuple[float, ...],
    rates: tuple[float, ...],
    seconds: float,
    burst: int,
    beside: float,
    json_path: Path | None,
) -> None:
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
        steps: list[tuple[float, float | None]] = [(rate, None) for rate in rates]
        if not rates:
            with console.status("a burst, for the capacity"):
                most = capacity(rig, burst)
            console.print(f"capacity: {most:,.0f} leads/s, announced one a delivery")
            steps = [(most * share, share) for share in portions]
        with psycopg.connect(rig.database_url, autocommit=True) as connection:
            for statement in TELL:
                connection.execute(statement.encode())
        measured = [
            measure(rig, other if rate <= beside else None, rate, share, seconds, console)
            for rate, share in steps
        ]
    found = [finding for each in measured for finding in show(each, latency, console)]
    console.print(shares({f"{each.rate:,.4g} leads/s": [each.spent] for each in measured}))
    judge(found, console)
    figures = {
        "options": {"latency": latency, "seconds": seconds, "burst": burst},
        "findings": [finding.as_json() for finding in found],
        "rates": [
            {
                "rate": each.rate,
                "seconds": {name: percentile(of, 0.5) for name, of in each.seconds.items()},
                "parts": {name: percentile(of, 0.5) for name, of in each.parts.items()},
                "spent": spent_as_json([each.spent]),
            }
            for each in measured
        ],
    }
    write_json(json_path, "webhook_latency", about, figures)


if __name__ == "__main__":
    main()
