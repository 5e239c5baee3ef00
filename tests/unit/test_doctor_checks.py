"""The doctor's checks: each fault is named once, with what to type, and what is well or unknown is not red."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.doctor import (
    APP,
    CALLBACK,
    EVERYTHING,
    GIVEN,
    HEALTH,
    META,
    NOW_MS,
    PAGE,
    POSTGRES,
    REDIS,
    ROWS,
    STREAM,
    TOKEN,
    URL,
    of,
    of_health,
    of_page,
    red,
    remedy_of,
    skipped,
)
from tests.fakes.time import NOW
from worker.doctor.facts import PageRows, PageTold
from worker.doctor.findings import Unknown, Verdict
from worker.errors import (
    GraphUnavailable,
    NotVisibleYet,
    PermissionRefused,
    ProofRefused,
    RequestRefused,
    Throttled,
    TokenRefused,
)
from worker.handshaking import Trouble

DAY = timedelta(days=1)
THROTTLED = Throttled("Graph answered code 4, HTTP 400: too many calls", until=NOW, scope="app")
REFUSED = TokenRefused("Graph answered code 190, HTTP 400: the Page token is refused")


def test_where_all_is_well_every_check_says_so() -> None:
    """No false red, and no check twice."""
    findings = of()
    assert {each.verdict for each in findings} == {Verdict.OK}
    names = [each.check for each in findings]
    assert len(names) == len(set(names))


def test_what_is_wrong_has_something_to_type_and_what_is_well_has_not() -> None:
    """Of any of the facts below."""
    for name, facts, _, _, _ in SERVERS:
        for each in of(**{name: facts}):
            assert (each.remedy is not None) == (each.verdict in (Verdict.WARN, Verdict.FAIL))


SERVERS: list[tuple[str, Any, str, str, str]] = [
    ("postgres", replace(POSTGRES, version=130_011), "postgres.reachable", "fail", "14 or newer"),
    ("postgres", replace(POSTGRES, is_read_only=True), "postgres.reachable", "fail", "primary"),
    ("postgres", replace(POSTGRES, revision="0004"), "postgres.schema", "fail", "leadsync migrate"),
    ("postgres", replace(POSTGRES, revision=None), "postgres.schema", "fail", "leadsync migrate"),
    ("postgres", replace(POSTGRES, revision="0099"), "postgres.schema", "warn", "newer leadsync"),
    ("postgres", replace(POSTGRES, lacking=("leadgen",)), "postgres.privileges", "fail", "owner"),
    ("postgres", replace(POSTGRES, may_create=False), "postgres.privileges", "fail", "owner"),
    ("postgres", replace(POSTGRES, free=2**27), "postgres.space", "fail", "make room"),
    ("postgres", replace(POSTGRES, free=2**30), "postgres.space", "warn", "make room"),
    ("postgres", replace(POSTGRES, connections_left=0), "postgres.connections", "fail", "max_connections"),
    ("postgres", replace(POSTGRES, connections_left=9), "postgres.connections", "warn", "max_connections"),
    ("postgres", replace(POSTGRES, fsync=False), "postgres.fsync", "fail", "alter system set fsync = on"),
    ("postgres", replace(POSTGRES, whole_pages=False), "postgres.fsync", "fail", "full_page_writes = on"),
    ("redis", replace(REDIS, version="6.0.16"), "redis.reachable", "fail", "6.2 or newer"),
    ("redis", replace(REDIS, is_replica=True), "redis.reachable", "fail", "primary"),
    ("redis", replace(REDIS, is_loading=True), "redis.reachable", "fail", "wait"),
    ("redis", replace(REDIS, fsync="everysec"), "redis.fsync", "fail", "CONFIG SET appendfsync always"),
    ("redis", replace(REDIS, append_ok=False), "redis.writing", "fail", "make room"),
    ("redis", replace(REDIS, rewrite_ok=False), "redis.writing", "warn", "BGREWRITEAOF"),
    ("redis", replace(REDIS, eviction="allkeys-lru"), "redis.eviction", "fail", "maxmemory-policy noeviction"),
    ("redis", replace(REDIS, max_memory=0), "redis.memory", "warn", "CONFIG SET maxmemory"),
    ("redis", replace(REDIS, max_memory=2**20), "redis.memory", "fail", "CONFIG SET maxmemory"),
    ("redis", replace(REDIS, used_memory=2**28 * 3 // 2), "redis.memory", "warn", "CONFIG SET maxmemory"),
    ("meta", replace(META, served="v27.0"), "meta.version", "warn", "newer leadsync"),
    ("meta", replace(META, offset=timedelta(minutes=-10)), "meta.clock", "fail", "NTP"),
    ("meta", replace(META, offset=timedelta(seconds=40)), "meta.clock", "warn", "NTP"),
    ("meta", replace(META, app=THROTTLED), "meta.app_token", "warn", "leadsync budget"),
    ("meta", replace(META, app=None), "meta.webhook", "fail", "leadsync connect --only webhook"),
    ("meta", replace(META, app=replace(APP, is_active=False)), "meta.webhook", "fail", "leadsync connect"),
    ("meta", replace(META, app=replace(APP, fields=("feed",))), "meta.webhook", "fail", "leadsync connect"),
    ("meta", replace(META, app=replace(APP, callback_url="http://x.example/webhook")), "meta.webhook", "warn", "https"),
    ("callback", replace(CALLBACK, handshake=Trouble("no", 403)), "meta.handshake", "fail", "META_VERIFY_TOKEN"),
    ("callback", replace(CALLBACK, handshake=Trouble("no", 502)), "meta.handshake", "fail", f"curl -i {URL}"),
    ("callback", replace(CALLBACK, delivery=Trouble("no", 403)), "meta.delivery", "fail", "META_APP_SECRET"),
    ("callback", replace(CALLBACK, delivery=Trouble("no", 503)), "meta.delivery", "fail", "queue_unavailable"),
    ("callback", replace(CALLBACK, delivery=Trouble("no", 404)), "meta.delivery", "fail", f"curl -i {URL}"),
    ("rows", replace(ROWS, keys_used={"k9": (2, 0)}), "settings.keys", "fail", "TOKEN_KEYS"),
    ("rows", replace(ROWS, accounts_refused=1), "meta.accounts", "warn", "leadsync connect"),
    ("rows", replace(ROWS, account_ends_at=NOW + DAY), "meta.accounts", "warn", "leadsync connect"),
    ("rows", replace(ROWS, reconcile_due_at=NOW - DAY), "work.reconcile", "warn", "leadsync backfills"),
    ("stream", replace(STREAM, length=4, oldest_ms=NOW_MS - 200_000), "work.stream", "warn", "worker_live"),
    ("stream", replace(STREAM, length=4, oldest_ms=NOW_MS - 2_000_000), "work.stream", "fail", "worker_live"),
    ("stream", replace(STREAM, lacking_values={PAGE: NOW_MS}), "work.values", "fail", "--again"),
    ("stream", replace(STREAM, set_aside=1, set_aside_ms=NOW_MS), "work.set_aside", "warn", "leadsync reconcile"),
    ("given", replace(GIVEN, lacking=("META_VERIFY_TOKEN",)), "settings.needed", "fail", ".env"),
    ("given", replace(GIVEN, token_file="unreadable"), "settings.token_file", "fail", "JSON"),
    ("given", replace(GIVEN, has_app=False), "settings.app_id", "warn", "META_APP_ID"),
    ("given", replace(GIVEN, version="v19.0"), "meta.version", "warn", "GRAPH_VERSION=v26.0"),
    ("given", replace(GIVEN, key_ids=Unknown("unreadable")), "settings.keys", "fail", "TOKEN_KEYS_FILE"),
    ("given", replace(GIVEN, webhook_url="https://other.example.com"), "meta.webhook", "warn", "--only webhook"),
    ("pages", (), "page.known", "warn", "leadsync connect"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "facts", "check", "verdict", "remedy"), SERVERS)
def test_each_fault_is_named_alone_and_with_what_to_type(
    name: str, facts: Any, check: str, verdict: str, remedy: str
) -> None:
    """No other check turns red for the same fault."""
    findings = of(**{name: facts})
    assert red(findings) == {check: verdict}
    assert remedy in remedy_of(findings, check)


def test_a_neighbour_that_is_away_is_red_once_and_the_rest_is_not_checked() -> None:
    """What was not reached is unknown, not wrong."""
    away = Unknown("nobody listens there")
    found = of(postgres=away, rows=away, redis=away, stream=away, meta=away, callback=away)
    assert red(found) == {
        "postgres.reachable": "fail", "redis.reachable": "fail", "meta.reachable": "fail"
    }  # fmt: skip
    assert {"postgres.schema", "redis.fsync", "work.stream", "meta.clock", "settings.keys"} <= skipped(found)


def test_what_is_not_set_is_told_once_as_that() -> None:
    """Postgres is not away because nobody said where it is."""
    given = replace(GIVEN, lacking=("DATABASE_URL",), has_database=False)
    found = of(given=given, postgres=Unknown("DATABASE_URL is not set"), rows=Unknown("x"))
    assert red(found) == {"settings.needed": "fail"}


def test_a_redis_without_an_append_only_file_is_told_once() -> None:
    """There is nothing to sync then."""
    found = of(redis=replace(REDIS, appends=False, fsync="everysec"))
    assert red(found) == {"redis.persistence": "fail"}
    assert "appendonly yes" in remedy_of(found, "redis.persistence")
    assert skipped(found) == {"redis.fsync"}


def test_a_full_redis_is_told_once() -> None:
    """The receiver's 503 follows from it."""
    full, busy = replace(REDIS, max_memory=2**20), replace(CALLBACK, delivery=Trouble("no", 503))
    assert red(of(redis=full, callback=busy)) == {"redis.memory": "fail"}
    assert skipped(of(redis=full, callback=busy)) == {"meta.delivery"}


def test_a_redis_that_does_not_tell_its_settings_is_not_red() -> None:
    """Managed ones refuse CONFIG GET."""
    assert (red(of(redis=replace(REDIS, fsync=None))), skipped(of(redis=replace(REDIS, fsync=None)))) == (
        {},
        {"redis.fsync"},
    )


def test_a_graph_that_is_unwell_is_meta_s_matter() -> None:
    """It answers, so neither the app's token nor its webhook is in doubt."""
    found = of(meta=replace(META, app=GraphUnavailable("Graph answered code 2: temporarily unavailable")))
    assert red(found) == {"meta.reachable": "warn"}
    assert skipped(found) == {"meta.app_token", "meta.webhook"}


@pytest.mark.parametrize("error", [REFUSED, ProofRefused("p"), RequestRefused("r")])
def test_a_wrong_app_secret_is_named_once(error: Exception) -> None:
    """Each Page's proof is refused too, and the callback would refuse the signature."""
    told = PageTold(replace(HEALTH, refusal=ProofRefused("p"), answered=False), ProofRefused("p"))
    found = of(
        meta=replace(META, app=error),
        callback=replace(CALLBACK, delivery=Unknown("see meta.app_token")),
        pages=(replace(EVERYTHING.pages[0], told=told),),
    )
    assert red(found) == {"meta.app_token": "fail"}
    assert "META_APP_SECRET" in remedy_of(found, "meta.app_token")
    assert {"page.token", "page.subscription", "meta.webhook", "meta.delivery"} <= skipped(found)


def test_a_wrong_app_id_is_named_once() -> None:
    """No Page has such an app, though each one's own calls are answered."""
    told = PageTold(replace(HEALTH, token=REFUSED, subscribed=(), is_installed=False), 2)
    found = of(meta=replace(META, app=REFUSED), pages=(replace(EVERYTHING.pages[0], told=told),))
    assert red(found) == {"meta.app_token": "fail"}
    assert {"page.subscription", "page.scopes"} <= skipped(found)


def test_webhook_url_may_leave_out_the_receivers_path() -> None:
    """`leadsync connect` takes it so."""
    assert red(of(given=replace(GIVEN, webhook_url="https://leads.example.com/"))) == {}


def test_a_silent_schedule_is_not_told_as_silent_workers() -> None:
    """It rings for them; one dead worker beside a living schedule is that worker's fault."""
    old = NOW_MS - 600_000
    assert red(of(stream=replace(STREAM, progress=dict.fromkeys(STREAM.progress, old)))) == {
        "work.schedule": "fail"
    }
    assert red(of(stream=replace(STREAM, progress=STREAM.progress | {"upkeep": old}))) == {
        "work.worker_upkeep": "fail"
    }
    live_only = {"live": NOW_MS, "backfill": NOW_MS, "schedule": NOW_MS}
    found = of(stream=replace(STREAM, progress=live_only))
    assert "leadsync worker --queue upkeep" in remedy_of(found, "work.worker_upkeep")


def test_a_look_from_the_future_is_no_fresh_one() -> None:
    """It was noted by a clock that was set back since, and would hide a standstill for that long."""
    ahead = NOW_MS + 7_200_000
    found = of(stream=replace(STREAM, progress=STREAM.progress | {"upkeep": ahead}))
    assert red(found) == {"work.worker_upkeep": "fail"}
    found = of(stream=replace(STREAM, progress=dict.fromkeys(STREAM.progress, ahead)))
    assert red(found) == {"work.schedule": "fail"}
    (told,) = [each.evidence for each in found if each.check == "work.schedule"]
    assert "2 h ahead of this clock" in told
    assert red(of(stream=replace(STREAM, progress=dict.fromkeys(STREAM.progress, NOW_MS + 30_000)))) == {}


def test_whoever_has_just_started_everything_is_told_to_look_again() -> None:
    """And not only sent to start it once more."""
    never, long_ago = {}, {"schedule": NOW_MS - 600_000}
    for progress in (never, long_ago):
        assert "look again" in remedy_of(of(stream=replace(STREAM, progress=progress)), "work.schedule")
    working = replace(STREAM, progress={"schedule": NOW_MS})
    assert "look again" in remedy_of(of(stream=working), "work.worker_live")


def test_without_postgres_it_is_not_known_whether_there_are_pages() -> None:
    """Nobody is sent to connect Pages that are connected."""
    found = of(postgres=Unknown("away"), rows=Unknown("Postgres was not reached"), pages=())
    assert "page.known" in skipped(found)
    assert red(of(pages=())) == {"page.known": "warn"}


def test_before_the_first_lead_it_is_not_known_whether_values_come() -> None:
    """Nothing has come that would tell."""
    assert skipped(of(stream=replace(STREAM, deliveries={}))) == {"work.values"}


# ---- Pages ----------------------------------------------


@pytest.mark.parametrize(
    ("subcode", "words"),
    [
        (None, "Connect the Page again"),
        (458, "removed the app"),
        (459, "facebook.com"),
        (460, "changed their password"),
        (463, "expired"),
        (464, "confirm their account"),
        (467, "logged out"),
        (492, "role"),
    ],
)
def test_a_refused_token_is_named_by_its_subcode_and_once(subcode: int | None, words: str) -> None:
    """What the token would have shown is unknown then."""
    dead = replace(TOKEN, is_valid=False, code=190, subcode=subcode)
    found = of_page(told=PageTold(replace(HEALTH, token=dead, refusal=REFUSED, answered=False), REFUSED))
    assert red(found) == {"page.token": "fail"}
    assert words in remedy_of(found, "page.token")
    assert {"page.scopes", "page.subscription", "page.lead_access", "page.forms"} == skipped(found)


@pytest.mark.parametrize("name", ["expires_at", "data_access_expires_at"])
def test_a_token_or_data_access_that_ends_within_a_week_is_to_look_at(name: str) -> None:
    """There is time to connect again."""
    found = of_health(token=replace(TOKEN, **{name: NOW + 3 * DAY}))
    assert red(found) == {"page.token": "warn"}
    assert "3 d" in next(each.evidence for each in found if each.check == "page.token")
    assert red(of_health(token=replace(TOKEN, **{name: NOW + 30 * DAY}))) == {}


@pytest.mark.parametrize(
    ("scope", "verdict", "refused"),
    [
        ("leads_retrieval", "fail", {"listing": PermissionRefused("x"), "was_listed": False}),
        ("pages_manage_metadata", "fail", {"subscribed": PermissionRefused("x")}),
        ("pages_manage_ads", "fail", {"has_form": False, "was_listed": False}),
        ("ads_management", "warn", {}),
        ("pages_show_list", "warn", {}),
    ],
)
def test_a_missing_scope_is_named_and_not_what_follows_from_it(
    scope: str, verdict: str, refused: dict[str, Any]
) -> None:
    """What needs the scope is unknown; granted for other Pages is as good as missing."""
    forms = PermissionRefused("x") if scope == "pages_manage_ads" else 2
    gone = replace(TOKEN, scopes=tuple(each for each in TOKEN.scopes if each != scope))
    found = of_page(told=PageTold(replace(HEALTH, token=gone, **refused), forms))
    assert red(found) == {"page.scopes": verdict}
    if scope != "ads_management":
        elsewhere = replace(TOKEN, targets={scope: ("1",)})
        assert red(of_page(told=PageTold(replace(HEALTH, token=elsewhere, **refused), forms))) == red(found)


@pytest.mark.parametrize(
    ("facts", "check", "verdict", "remedy"),
    [
        ({"subscribed": ()}, "page.subscription", "fail", f"--page {PAGE}"),
        ({"subscribed": (), "is_installed": False}, "page.subscription", "fail", f"--page {PAGE}"),
        ({"was_listed": False, "listing": PermissionRefused("x")}, "page.lead_access", "fail", "Leads access"),
        ({"was_listed": False, "listing": NotVisibleYet("x"), "form_shows": True}, "page.lead_access", "fail", "CRMs"),
        ({"unannounced": 3, "oldest": NOW}, "page.webhooks", "fail", "leadsync test-lead"),
    ],
)  # fmt: skip
def test_what_is_wrong_at_meta_is_named(facts: dict[str, Any], check: str, verdict: str, remedy: str) -> None:
    """A lost subscription, withdrawn lead access, leads without webhooks."""
    found = of_health(**facts)
    assert red(found) == {check: verdict}
    assert remedy in remedy_of(found, check)


@pytest.mark.parametrize(
    ("rows", "red_", "remedy"),
    [
        (PageRows(parked_at=NOW, parked_reason="token_refused"), {"page.parked": "fail"}, "leadsync connect"),
        (PageRows(parked_at=NOW, parked_reason="by_hand"), {"page.parked": "warn"}, "leadsync pages unpark"),
        (PageRows(parked_at=NOW, parked_reason="token_refused", waiting=3, waiting_since=NOW - DAY),
            {"page.parked": "fail"}, "leadsync connect"),
        (PageRows(waiting=3, waiting_since=NOW - DAY, held_until=NOW + DAY, held_reason="budget"),
            {"page.waiting": "warn"}, "leadsync budget"),
        (PageRows(waiting=3, waiting_since=NOW - DAY, overdue_since=NOW - DAY), {"page.waiting": "fail"}, "upkeep"),
        (PageRows(waiting=3, waiting_since=NOW - DAY), {"page.waiting": "warn"}, "leadsync trace"),
        (PageRows(waiting=3, waiting_since=NOW), {}, ""),
        (PageRows(dead=3, dead_lately=1, dead_of="poison"), {"page.dead_letters": "warn"}, "dead-letters list"),
        (PageRows(dead=3), {}, ""),
        (PageRows(unexplained=2, gap_days=1), {"page.gaps": "warn"}, "leadsync reconcile"),
    ],
)  # fmt: skip
def test_what_the_rows_tell_of_a_page_is_named(rows: PageRows, red_: dict[str, str], remedy: str) -> None:
    """Parked, waiting, dead, or never come."""
    found = of_page(rows)
    assert red(found) == red_
    for check in red_:
        assert remedy in remedy_of(found, check)
    assert all(each.page_id == PAGE for each in found if each.check in red_)


def test_the_manual_names_every_check_and_no_other() -> None:
    """docs/doctor.md says of each what it means and what to type."""
    manual = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    rows = [line.split("|")[1] for line in manual.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z]+\.[a-z_]+)`", row)}
    assert named == {each.check for each in of()}


def test_a_page_without_a_form_is_not_red_and_one_whose_forms_are_refused_is() -> None:
    """Without a form there is no lead to list; which of the two it is, is told."""
    bare = replace(HEALTH, has_form=False, was_listed=False)
    found = of_page(told=PageTold(bare, 0))
    assert (red(found), skipped(found)) == ({}, {"page.lead_access"})
    assert "no form" in next(each.evidence for each in found if each.check == "page.lead_access")
    refused = of_page(
        told=PageTold(bare, PermissionRefused("Graph answered code 10: a permission is missing"))
    )
    assert red(refused) == {"page.forms": "fail"}
    assert "no form" not in next(each.evidence for each in refused if each.check == "page.lead_access")


def test_a_subscription_that_may_not_be_seen_is_red_and_one_that_was_not_told_is_not() -> None:
    """With all scopes granted, a refusal is no passing trouble."""
    assert red(of_health(subscribed=PermissionRefused("x"))) == {"page.subscription": "fail"}
    later = of_health(subscribed=GraphUnavailable("x"))
    assert (red(later), skipped(later)) == ({}, {"page.subscription"})
