"""What the sandbox has seen: calls by Page, kind and result; for each lead when it was made, announced and
read.

This is how a test tells what a client really did, as opposed to what it believes. Counts only: no
parameter, token or answer is kept. Limits are not decided from it; usage.py has its own count.

Invariant: the calls of all Pages add up to `calls`.
"""

from collections import Counter
from dataclasses import dataclass, field


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
    over_limit: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[str] = field(default_factory=Counter)
    most_in_flight: Counter[str] = field(default_factory=Counter)
    """HTTP requests of one Page at the same time."""
    leads: dict[str, LeadRecord] = field(default_factory=dict)

    def lead(self, leadgen_id: str) -> LeadRecord:
        """The record of this lead, made on first use."""
        record = self.leads.get(leadgen_id)
        if record is None:
            record = self.leads[leadgen_id] = LeadRecord()
        return record

    def called(self, page_id: str | None, kind: str, result: str) -> None:
        """One Graph call was answered."""
        self.calls[page_id or "", kind, result] += 1

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
        self.over_limit.clear()
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
                    "most_in_flight": self.most_in_flight[page_id],
                }
                for page_id, page in pages.items()
            },
        }
