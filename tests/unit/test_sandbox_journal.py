"""The sandbox's journal: what was under way at the same time, and what forgetting the counts leaves."""

from sandbox.journal import Journal


def test_the_most_at_the_same_time_is_told_for_all_and_for_each_page() -> None:
    """Requests that follow each other are one at a time, whoever they are of; the high mark stays once they ended."""
    journal = Journal()
    for page_id in ("1", "1", "2"):
        journal.request_began()
        journal.page_began(page_id)
    for page_id in ("1", "1", "2"):
        journal.page_ended(page_id)
        journal.request_ended()
    journal.request_began()
    journal.page_began("1")
    assert (journal.http_requests, journal.http_in_flight, journal.http_most_in_flight) == (4, 1, 3)
    assert (journal.in_flight, journal.most_in_flight) == ({"1": 1, "2": 0}, {"1": 2, "2": 1})


def test_counts_begin_anew_once_they_are_cleared_with_what_is_still_under_way() -> None:
    """A request that is not answered yet stays in flight, and what is known of leads is kept."""
    journal = Journal()
    for _ in range(3):
        journal.request_began()
    journal.request_ended()
    journal.called("1", "lead", "200", 5.0, of_token="1", count=1)
    journal.pretended("1", 7, 6.0)
    journal.lead_read("44", "200", 5.5)
    journal.over_limit["1"] = journal.into_block["1"] = journal.redirects_followed = 1
    journal.clear()
    assert (journal.http_requests, journal.http_in_flight, journal.http_most_in_flight) == (0, 2, 2)
    assert (journal.redirects_followed, list(journal.logged(0))) == (0, [])
    assert (journal.report()["calls"], journal.report()["pages"]) == (0, {})
    assert (journal.over_limit, journal.into_block) == ({}, {})
    assert (journal.lead("44").reads, journal.lead("44").first_read_at) == (1, 5.5)


def test_calls_are_told_by_page_kind_and_result_and_add_up() -> None:
    """The calls of all Pages, with those of none, are the calls of the whole."""
    journal = Journal()
    for page_id, kind, result in (
        ("1", "lead", "200"),
        ("1", "lead", "4"),
        ("1", "form", "200"),
        (None, "oauth", "200"),
    ):
        journal.called(page_id, kind, result, 1.0)
    report = journal.report()
    assert report["calls"] == 4
    assert report["kinds"] == {"lead": 2, "form": 1, "oauth": 1}
    assert report["results"] == {"200": 3, "4": 1}
    pages = report["pages"]
    assert isinstance(pages, dict)
    assert (pages["1"]["calls"], pages["1"]["results"], pages[""]["calls"]) == (3, {"200": 2, "4": 1}, 1)
