"""What a form's listing adds to what is known of its Page, whatever was known before."""

from datetime import UTC, datetime

from worker.errors import NotVisibleYet, PermissionRefused
from worker.graph.wire import ResultPage
from worker.health import Facts
from worker.probing import active_first, with_listing

NOW = datetime(2026, 11, 24, tzinfo=UTC)
NOTHING = Facts(NOW, "153125381133", has_app=True)
REFUSED, UNSEEN = PermissionRefused("told"), NotVisibleYet("told")


def test_a_refused_permission_is_not_covered_by_a_form_that_is_gone() -> None:
    """It says of the Page what 100/33 of the next form leaves open."""
    assert with_listing(with_listing(NOTHING, REFUSED), UNSEEN).listing is REFUSED
    assert with_listing(with_listing(NOTHING, UNSEEN), REFUSED).listing is REFUSED


def test_one_form_that_lists_is_enough() -> None:
    """A lead that can be listed takes back what another form refused, and tells when it came."""
    lead = {"id": "1", "created_time": "2026-11-23T22:00:00+0000"}
    facts = with_listing(with_listing(NOTHING, REFUSED), ResultPage((lead,), None, ()))
    assert (facts.listing, facts.was_listed) == (None, True)
    assert facts.listed_time == datetime(2026, 11, 23, 22, tzinfo=UTC)


def test_active_forms_come_first_and_what_is_no_form_is_passed_over() -> None:
    """Only active ones get leads, so they are the ones to try."""
    entries = ({"id": "1", "status": "ARCHIVED"}, {"id": "2", "status": "ACTIVE"}, {"id": "x"}, None)
    assert active_first(ResultPage(entries, None, ())) == ("2", "1")
