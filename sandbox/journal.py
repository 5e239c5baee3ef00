"""What the sandbox has seen: calls by Page, kind and result, and each with its time; for each lead when it was
made, announced and read.

This is how a test tells what a client really did, as opposed to what it believes. No parameter, token or answer
is kept. Limits are not decided from it: rolling.py has its own count, so that the one can be checked against
the other.

Invariant: the calls of all Pages add up to `calls`.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MOST_LOGGED: Final = 2_000_000
"""Calls that the log holds; the oldest make room. Some 250 MB when it is full."""


MOST_ATTEMPTS: Final = 500_000
"""Attempts to deliver that are kept; the oldest make room."""

Attempt = tuple[float, float, str]
"""When it was sent, seconds until it was answered or failed, and the status or the error's name."""

LoggedCall = tuple[float, str, int, str, str]
"""Its time; the Page whose token made it, or "" where that is no Page's; what it counts for (0: for no limit); kind;
result. A plain tuple, since the garbage collector does not walk through millions of those."""


@dataclass(slots=True)
class LeadRecord:
    """The life of one lead as seen from here; unix times, None until it happens."""

    created_at: float | None = None
    pinged_at: float | None = None
    """First sent by the webhook sender."""
    pings: int = 0
    accepted_at: float | None = None
    """First delivery with it that was answered with 200."""
    first_read_at: float | None = None
    """When the first answer with it was sent."""
    reads: int = 0
    results: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Journal:
    """Counts since the start, or since they were last cleared."""

    http_requests: int = 0
    http_in_flight: int = 0
    http_most_in_flight: int = 0
    redirects_followed: int = 0
    calls: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(page or "", kind, result) -> calls."""
    log: deque[LoggedCall] = field(default_factory=lambda: deque(maxlen=MOST_LOGGED))
    over_limit: Counter[str] = field(default_factory=Counter)
    """Scope (a Page's is its id) -> calls that found its window full."""
    into_block: Counter[str] = field(default_factory=Counter)
    """Scope -> calls made while its block lasted, which they pushed back."""
    in_flight: Counter[str] = field(default_factory=Counter)
    most_in_flight: Counter[str] = field(default_factory=Counter)
    """HTTP requests of one Page at the same time."""
    leads: dict[str, LeadRecord] = field(default_factory=dict)
    attempts: deque[Attempt] = field(default_factory=lambda: deque(maxlen=MOST_ATTEMPTS))
    """What the sender sent, and how fast it was answered."""

    def lead(self, leadgen_id: str) -> LeadRecord:
        """The record of this lead, made on first use."""
        record = self.leads.get(leadgen_id)
        if record is None:
            record = self.leads[leadgen_id] = LeadRecord()
        return record

    def called(
        self, page_id: str | None, kind: str, result: str, now: float, *, of_token: str = "", count: int = 0
    ) -> None:
        """One Graph call that came in now has its result; `of_token` is the Page whose token it brought."""
        self.calls[page_id or "", kind, result] += 1
        self.log.append((now, of_token, count, kind, result))

    def pretended(self, page_id: str, calls: int, now: float) -> None:
        """So many calls of a Page were made up: the windows have them, so the log has them too."""
        self.log.append((now, page_id, calls, "preset", "preset"))

    def logged(self, since: float, page_id: str | None = None) -> Iterator[LoggedCall]:
        """The calls since then that are still in the log, of one Page's token or of all, oldest first."""
        # Over a copy: whoever reads the log slowly must not hold up those that call.
        kept = list(self.log)
        return (call for call in kept if call[0] >= since and page_id in (None, call[1]))

    def lead_read(self, leadgen_id: str, result: str, answered_at: float) -> None:
        """One read of one lead was answered."""
        record = self.lead(leadgen_id)
        record.results[result] += 1
        if result == "200":
            record.reads += 1
            if record.first_read_at is None:
                record.first_read_at = answered_at

    def request_began(self) -> None:
        """An HTTP request to Graph came in."""
        self.http_requests += 1
        self.http_in_flight += 1
        self.http_most_in_flight = max(self.http_most_in_flight, self.http_in_flight)

    def request_ended(self) -> None:
        """It was answered, or given up."""
        self.http_in_flight -= 1

    def page_began(self, page_id: str) -> None:
        """The HTTP request turned out to be this Page's."""
        self.in_flight[page_id] += 1
        self.most_in_flight[page_id] = max(self.most_in_flight[page_id], self.in_flight[page_id])

    def page_ended(self, page_id: str) -> None:
        """It was answered, or given up."""
        self.in_flight[page_id] -= 1

    def clear(self) -> None:
        """Forget the counts; what is known of leads stays."""
        self.http_requests = self.redirects_followed = 0
        self.http_most_in_flight = self.http_in_flight
        self.calls.clear()
        self.log.clear()
        self.over_limit.clear()
        self.into_block.clear()
        self.most_in_flight.clear()

    def report(self) -> dict[str, object]:
        """The counts as JSON."""
        pages: dict[str, dict[str, Counter[str]]] = {}
        kinds: Counter[str] = Counter()
        results: Counter[str] = Counter()
        for (page_id, kind, result), calls in self.calls.items():
            page = pages.setdefault(page_id, {"kinds": Counter(), "results": Counter()})
            page["kinds"][kind] += calls
            page["results"][result] += calls
            kinds[kind] += calls
            results[result] += calls
        return {
            "http_requests": self.http_requests,
            "http_most_in_flight": self.http_most_in_flight,
            "redirects_followed": self.redirects_followed,
            "calls": kinds.total(),
            "kinds": kinds,
            "results": results,
            "pages": {
                page_id: {
                    "calls": page["kinds"].total(),
                    **page,
                    "over_limit": self.over_limit[page_id],
                    "into_block": self.into_block[page_id],
                    "most_in_flight": self.most_in_flight[page_id],
                }
                for page_id, page in pages.items()
            },
        }
