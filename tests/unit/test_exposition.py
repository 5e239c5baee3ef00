"""Facts as series: Prometheus' conventions, bounded labels, and what is left out where it is not known."""

import re
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver.tally import Verdict
from tests.fakes.facts import budgets, facts, redis_facts, row_facts, text_of
from worker.budget.ledger import Account, ScopeState
from worker.budget.policy import Limit
from worker.exposition import CHANGES, DELIVERIES, EVENTS, Budgets, Facts
from worker.store.metrics import MOST_PAGES

AT = 1_790_000_000.0


def samples(shown: Facts) -> dict[str, float]:
    """Every sample as `name{label=value,...}`, without the prefix."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text_of(shown)):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[sample.name.removeprefix("leadsync_") + (f"{{{labels}}}" if labels else "")] = sample.value
    return found


def test_names_keep_to_prometheus_conventions() -> None:
    """Prefix, small letters, base units, `_total` on counters and on nothing else, and a sentence of help.
    https://prometheus.io/docs/practices/naming/"""
    for family in text_string_to_metric_families(text_of(facts(AT))):
        assert re.fullmatch(r"leadsync_[a-z_]+", family.name)
        assert not re.search(r"_(ms|millis|minutes|hours|kb|mb|percent|total|count|sum|bucket)$", family.name)
        assert family.documentation or family.name == "leadsync_up"
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")


def test_every_count_of_the_receiver_has_its_series() -> None:
    """The receiver's verdicts and the words that are shown are the same set, each in one series."""
    assert {*DELIVERIES, *CHANGES, *EVENTS} == {verdict.value for verdict in Verdict}
    assert len(DELIVERIES) + len(CHANGES) + len(EVENTS) == len(Verdict)


def test_what_was_never_counted_is_there_as_nothing() -> None:
    """An alert sees the first dead letter as growth only where the series was there before."""
    shown = samples(facts(AT))
    assert shown["references_total{lane=live,outcome=dead}"] == 0
    assert shown["references_total{lane=live,outcome=stored}"] == 100
    assert shown["graph_calls_total{kind=lead,result=throttled}"] == 0
    assert shown["webhook_to_row_seconds_count"] == 0
    assert shown["last_progress_timestamp_seconds{who=schedule}"] == AT - 1


def test_a_histogram_is_cumulative() -> None:
    """Each bucket holds those below it too, and the last one all."""
    totals = {
        "webhook_to_row_seconds 0.5": 3,
        "webhook_to_row_seconds 2.5": 2,
        "webhook_to_row_seconds +Inf": 1,
    }
    shown = samples(
        replace(facts(AT), redis=redis_facts(AT, totals={**totals, "webhook_to_row_seconds sum": 1_500_000}))
    )
    assert shown["webhook_to_row_seconds_bucket{le=0.25}"] == 0
    assert shown["webhook_to_row_seconds_bucket{le=0.5}"] == 3
    assert shown["webhook_to_row_seconds_bucket{le=1.0}"] == 3
    assert shown["webhook_to_row_seconds_bucket{le=86400.0}"] == 5
    assert shown["webhook_to_row_seconds_bucket{le=+Inf}"] == 6
    assert shown["webhook_to_row_seconds_count"] == 6
    assert shown["webhook_to_row_seconds_sum"] == 1.5


def test_more_pages_than_have_series_are_summed() -> None:
    """Those nearest to their limit are shown, the others are one, and nothing is lost from the sum."""
    accounts = {
        str(n): Account(Limit(1_000, 1_000, ""), {"live": n % 900, "backfill": 1}, 2) for n in range(1, 501)
    }
    shown = samples(replace(facts(AT), budgets=Budgets(accounts, ())))
    limits = {name: value for name, value in shown.items() if name.startswith("budget_limit_calls")}
    assert len(limits) == MOST_PAGES + 1
    assert sum(limits.values()) == 500_000
    assert limits["budget_limit_calls{page=other}"] == 300_000
    assert "budget_limit_calls{page=500}" in limits
    assert "budget_limit_calls{page=1}" not in limits
    spent = [value for name, value in shown.items() if name.startswith("budget_spent_calls")]
    assert sum(spent) == sum(range(1, 501)) + 500


def test_reasons_are_few_whatever_stands_in_the_rows() -> None:
    """SQLSTATEs are no labels, and a flood of reasons becomes `other`."""
    dead = tuple({"reason": f"row_refused_{n}", "count": 1} for n in range(30))
    odd = tuple({"reason": f"odd{n}", "count": 1} for n in range(100))
    shown = samples(replace(facts(AT), rows=row_facts(AT, dead=(*dead, *odd))))
    reasons = {name: value for name, value in shown.items() if name.startswith("dead_letters_by_reason")}
    assert reasons["dead_letters_by_reason{reason=row_refused}"] == 30
    assert len(reasons) == 51
    assert sum(reasons.values()) == shown["dead_letters"] == 130


def test_nobody_is_named_who_is_a_person() -> None:
    """A scope of a person shows as `user`, Pages and ad accounts by their ids."""
    scopes = [
        ScopeState(name, 60.0, 1, 100.0, 0.0) for name in ("user:12345", "page:7", "ad_account:9", "app")
    ]
    shown = samples(replace(facts(AT), budgets=Budgets({}, scopes)))
    assert {name for name in shown if name.startswith("budget_closed_seconds")} == {
        f"budget_closed_seconds{{scope={scope}}}" for scope in ("user", "page:7", "ad_account:9", "app")
    }


def test_what_a_check_could_not_tell_is_no_series() -> None:
    """Not knowing is neither well nor ill."""
    (page,) = row_facts(AT).health
    ill = {**page, "token": "refused", "webhooks": "unknown", "expires_at": None}
    shown = samples(replace(facts(AT), rows=row_facts(AT, health=(ill,))))
    assert shown["page_health{aspect=token,page=7}"] == 0
    assert shown["page_health{aspect=subscription,page=7}"] == 1
    assert "page_health{aspect=webhooks,page=7}" not in shown
    assert not any(name.startswith("page_access_expires") for name in shown)


@pytest.mark.parametrize("lost", ["redis", "rows", "budgets"])
def test_each_neighbours_series_come_without_the_others(lost: str) -> None:
    """One that could not be asked takes only its own series away."""
    whole, part = samples(facts(AT)), samples(replace(facts(AT), **{lost: None}))
    assert {name for name in part if not name.startswith("up")} < set(whole)
    there = {"redis": "stream_entries", "rows": "dead_letters", "budgets": "budget_limit_calls{page=7}"}
    assert {name: name in part for name in there.values()} == {
        name: neighbour != lost for neighbour, name in there.items()
    }


def test_a_limit_of_nothing_is_nearest_to_its_end() -> None:
    """A Page that may not call at all is shown among the first."""
    shown = samples(replace(facts(AT), budgets=budgets({"live": 0}, limit=0)))
    assert shown["budget_limit_calls{page=7}"] == 0
