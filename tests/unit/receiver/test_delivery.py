"""What a delivery announces, in every variant that Meta sends and in those that it should not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.delivery import Delivery, Unread, read
from worker.inbox import LeadReference

NOW = 1_790_000_000_000
REFERENCE = LeadReference(
    leadgen_id="123123123123",
    page_id="153125381133",
    form_id="12312312312",
    ad_id="12312312319",
    created_time=1_440_120_384,
    sent_time=1_438_292_065,
    received_at=NOW,
)
VALUE: dict[str, object] = {
    "leadgen_id": "123123123123",
    "page_id": "153125381133",
    "form_id": "12312312312",
    "adgroup_id": "12312312318",
    "ad_id": "12312312319",
    "created_time": 1_440_120_384,
}


def change(**value: object) -> dict[str, object]:
    return {"field": "leadgen", "value": {**VALUE, **value}}


def without(*names: str) -> dict[str, object]:
    return {"field": "leadgen", "value": {name: item for name, item in VALUE.items() if name not in names}}


def entry(*changes: object, **more: object) -> dict[str, object]:
    return {"id": "153125381133", "time": 1_438_292_065, "changes": list(changes), **more}


def body(*entries: object, **more: object) -> bytes:
    return json.dumps({"object": "page", "entry": list(entries), **more}).encode()


def read_one(*entries: object) -> Delivery:
    return read(body(*entries), NOW)


def only(delivery: Delivery) -> LeadReference:
    assert delivery.unread == ()
    (reference,) = delivery.references
    return reference


def test_every_id_and_time_of_a_change_is_kept() -> None:
    """A change becomes one reference with all that it says."""
    assert only(read_one(entry(change()))) == REFERENCE


def test_ids_as_numbers_are_the_same_ids() -> None:
    """An id is the same id whether it is sent as a number or as a string, however long the number."""
    numbers: dict[str, Any] = {name: int(str(item)) for name, item in VALUE.items()}
    assert only(read_one(entry(change(**numbers), id=153_125_381_133))) == REFERENCE
    assert only(read_one(entry(change(leadgen_id=12_345_678_901_234_567)))).leadgen_id == "12345678901234567"


@pytest.mark.parametrize("nothing", [0, "0", "", None])
def test_an_organic_lead_has_no_ad(nothing: object) -> None:
    """What Meta puts in place of an ad's id where there is no ad is no id."""
    assert only(read_one(entry(change(ad_id=nothing, adgroup_id=nothing)))).ad_id is None


def test_a_lead_may_lack_all_but_its_own_id_and_its_page() -> None:
    """Form, ad and times may be missing from a change that is nevertheless a lead."""
    reference = only(read_one(entry(without("form_id", "ad_id", "adgroup_id", "created_time"), time=None)))
    assert (reference.form_id, reference.ad_id, reference.created_time, reference.sent_time) == (None,) * 4


def test_the_older_name_of_the_ad_serves_where_the_newer_is_missing() -> None:
    """`adgroup_id` is read where there is no `ad_id`."""
    assert only(read_one(entry(without("ad_id")))).ad_id == "12312312318"


@pytest.mark.parametrize("page_id", [0, "", None, "x", True, 1.5])
def test_the_entry_names_the_page_where_the_change_does_not(page_id: object) -> None:
    """The Page is the change's `page_id`, else the entry's own id."""
    assert only(read_one(entry(change(page_id=page_id)))).page_id == "153125381133"


@pytest.mark.parametrize("entry_id", [0, "0", None])
def test_the_change_names_the_page_where_the_entry_does_not(entry_id: object) -> None:
    """An entry of id 0 is no obstacle to a change that names its Page."""
    assert only(read_one(entry(change(), id=entry_id))) == REFERENCE


@pytest.mark.parametrize("time", ["1440120384", 1_440_120_384])
def test_a_time_may_be_a_number_or_digits(time: object) -> None:
    """Times are read in both forms."""
    assert only(read_one(entry(change(created_time=time)))).created_time == 1_440_120_384


@pytest.mark.parametrize(
    "time",
    [
        "null",
        '""',
        "0",
        "-1",
        "1.5",
        "true",
        "[]",
        '"soon"',
        '"²"',
        "1" + "0" * 17,
        "1" + "0" * 5_000,
        "1e400",
    ],
)
def test_a_time_that_is_none_costs_no_lead(time: str) -> None:
    """A lead whose time cannot be read is a lead without a time."""
    raw = body(entry(change(created_time="@"))).replace(b'"@"', time.encode())
    assert only(read(raw, NOW)).created_time is None


def test_every_entry_and_change_is_read_in_order() -> None:
    """A delivery of many Pages and many changes loses none and keeps their order."""
    entries = [
        entry(*(change(leadgen_id=str(page * 1_000 + lead), page_id=str(page)) for lead in range(1, 101)))
        for page in range(1, 11)
    ]
    references = read_one(*entries).references
    wanted = [(str(p), str(p * 1_000 + n)) for p in range(1, 11) for n in range(1, 101)]
    assert [(r.page_id, r.leadgen_id) for r in references] == wanted


def test_a_repeated_lead_is_one_reference() -> None:
    """The same lead twice in one delivery is published once and counted."""
    delivery = read_one(entry(change(), change(leadgen_id=123_123_123_123)), entry(change()))
    assert (delivery.references, delivery.duplicates) == ((REFERENCE,), 2)


def test_the_dashboards_sample_is_a_test() -> None:
    """The dashboard's sample ping is counted and never published."""
    ids = dict.fromkeys(("leadgen_id", "page_id", "form_id"), "444444444444")
    delivery = read_one(entry(change(**ids, ad_id="444444444", adgroup_id="44444444444"), id="0"))
    assert (delivery.references, delivery.tests, delivery.unread) == ((), 1, ())


def test_an_update_is_never_a_lead() -> None:
    """`leadgen_update` is counted and never published, whatever ids it carries."""
    delivery = read_one(entry({**change(), "field": "leadgen_update"}, id=0))
    assert (delivery.references, delivery.updates, delivery.unread) == ((), 1, ())


def test_other_fields_and_objects_are_ignored() -> None:
    """What was not subscribed for leads is counted and otherwise left alone."""
    assert read_one(entry({"field": "feed", "value": {}}, {"field": "ratings"})).ignored == 2
    assert read_one({"id": "1", "time": 1, "messaging": [{}]}).ignored == 1
    assert read(b'{"object":"whatsapp_business_account","entry":[]}', NOW).ignored == 1
    assert read_one() == Delivery(body=body(), received_at=NOW)


def test_a_subscription_without_values_names_its_page() -> None:
    """`changed_fields` with leadgen tells which Page to reconcile; without it, nothing."""
    bare = {"id": 77, "time": 1, "changed_fields": ["feed", "leadgen"]}
    delivery = read_one(bare, bare, {"id": "78", "changed_fields": ["feed"]})
    assert (delivery.lacking_values, delivery.ignored, delivery.unread) == (("77",), 1, ())
    assert read_one(entry({"field": "leadgen"})).lacking_values == ("153125381133",)


@pytest.mark.parametrize(
    "leadgen_id", [None, "", 0, "0", "x", True, 1.5, [], {}, "1" * 33, "\uff11\uff12", "\ud800", "1\0"]
)
def test_a_lead_without_a_usable_id_is_set_aside_and_its_page_reconciled(leadgen_id: object) -> None:
    """What stands in place of an id without being one is no lead, but its Page has one that we lack."""
    delivery = read_one(entry(change(leadgen_id=leadgen_id), change(leadgen_id="5")))
    assert [reference.leadgen_id for reference in delivery.references] == ["5"]
    assert (delivery.unread, delivery.lacking_values) == ((Unread.LEADGEN_ID,), ("153125381133",))


def test_a_lead_of_no_page_is_set_aside() -> None:
    """Without a Page there is no token to read the lead with."""
    delivery = read_one(entry(without("page_id"), id="0"))
    assert (delivery.references, delivery.unread) == ((), (Unread.PAGE_ID,))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("x", Unread.ENTRY),
        (None, Unread.ENTRY),
        ([], Unread.ENTRY),
        ({"changes": "x"}, Unread.CHANGES),
        ({"changes": {"a": 1}}, Unread.CHANGES),
        ({"changes": False}, Unread.CHANGES),
        ({"changed_fields": {}}, Unread.CHANGES),
        ({"id": "0", "changed_fields": ["leadgen"]}, Unread.PAGE_ID),
        (entry("x"), Unread.CHANGE),
        (entry(None), Unread.CHANGE),
        (entry({"value": VALUE}), Unread.FIELD),
        (entry({"field": ["leadgen"]}), Unread.FIELD),
        (entry({"field": "leadgen", "value": "x"}), Unread.VALUE),
        (entry({"field": "leadgen", "value": [VALUE]}), Unread.VALUE),
    ],
)
def test_what_is_unreadable_never_harms_its_neighbours(broken: object, reason: Unread) -> None:
    """The readable changes around an unreadable part are published, and the part is named."""
    delivery = read_one(entry(change(leadgen_id="1")), broken, entry(change(leadgen_id="2")))
    assert [reference.leadgen_id for reference in delivery.references] == ["1", "2"]
    assert delivery.unread == (reason,)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Unread.NOT_JSON),
        (b"nonsense", Unread.NOT_JSON),
        (b"[" * 100_000 + b"]" * 100_000, Unread.TOO_DEEP),
        (b'{"entry":' * 100_000, Unread.TOO_DEEP),
        (b"[]", Unread.BODY),
        (b"1e400", Unread.BODY),
        (b"9" * 5_000, Unread.BODY),
        (b"NaN", Unread.BODY),
        (b'{"object":"page"}', Unread.ENTRIES),
        (b'{"object":"page","entry":{}}', Unread.ENTRIES),
        (b"\xff\xfe{\x00}\x00", Unread.NOT_UTF8),
    ],
)
def test_a_body_that_is_no_delivery_is_set_aside_whole(raw: bytes, reason: Unread) -> None:
    """No bytes break the reading; what they lack is named."""
    delivery = read(raw, NOW)
    assert delivery.references == ()
    assert reason in delivery.unread
    assert delivery.body == raw


@pytest.mark.parametrize(
    ("inserted", "reasons"),
    [
        (b"1e400", ()),
        (b"-1e400", ()),
        (b"9" * 5_000, ()),
        (rb'"\ud800"', ()),
        (rb'"\u0000"', ()),
        (b'"\x00\x01"', ()),
        (b"NaN", ()),
        (b'"\xff"', (Unread.NOT_UTF8,)),
        (b'{"a":1,"a":2}', (Unread.REPEATED_KEY,)),
    ],
)
def test_a_strange_value_elsewhere_costs_no_lead(inserted: bytes, reasons: tuple[Unread, ...]) -> None:
    """Numbers and letters that break parsers, anywhere in a delivery, leave its leads readable."""
    raw = body(entry(change(extra="@")), extra="@").replace(b'"@"', inserted)
    delivery = read(raw, NOW)
    assert delivery.references == (REFERENCE,)
    assert delivery.unread == reasons


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["leadgen", "page", "0", "444444444444", "12345678901234567"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["object", "entry", "id", "time", "changes", "changed_fields", "field", "value", *VALUE]
            )
            | st.text(max_size=3),
            inner,
            max_size=6,
        )
    ),
    max_leaves=40,
)


@given(st.binary())
def test_no_bytes_break_the_reading(raw: bytes) -> None:
    """Whatever the bytes, the reading returns and keeps them."""
    assert read(raw, NOW).body == raw


@given(JSON)
def test_no_document_breaks_the_reading(document: object) -> None:
    """Whatever the JSON, the reading returns only references that survive the stream."""
    for reference in read(json.dumps(document).encode(), NOW).references:
        fields = {name.encode(): value.encode() for name, value in reference.to_entry().items()}
        assert LeadReference.from_entry(fields) == reference


@given(before=JSON, inside=JSON, after=JSON)
def test_a_readable_change_is_published_whatever_surrounds_it(
    before: object, inside: object, after: object
) -> None:
    """Nothing before, inside or after a good change keeps it from the stream."""
    good = change(leadgen_id="987654321", extra=inside)
    delivery = read_one(before, entry(before, good, after), after)
    assert "987654321" in [reference.leadgen_id for reference in delivery.references]
