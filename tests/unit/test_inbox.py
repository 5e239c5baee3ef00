"""The front door's wire form: what the receiver writes is what the worker reads, and nothing else passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.leads import a_reference
from worker.inbox import LeadReference, UnreadableEntry, is_id

IDS = st.from_regex(r"[0-9]{1,32}", fullmatch=True).filter(lambda text: text.strip("0"))
TIMES = st.integers(0, 10**14 - 1)
SENT = a_reference(ad_id="777", leadgen_id="5", page_id="6")


def entry_of(reference: LeadReference) -> dict[bytes, bytes]:
    """The entry as redis-py reads it back."""
    return {name.encode(): text.encode() for name, text in reference.to_entry().items()}


@given(
    st.builds(
        LeadReference,
        leadgen_id=IDS,
        page_id=IDS,
        form_id=st.none() | IDS,
        ad_id=st.none() | IDS,
        created_time=st.none() | TIMES,
        sent_time=st.none() | TIMES,
        received_at=TIMES,
    )
)
def test_a_reference_survives_the_wire(reference: LeadReference) -> None:
    """Whatever is put into the stream is read back as it was."""
    assert LeadReference.from_entry(entry_of(reference)) == reference


def test_nothing_is_written_for_what_is_not_known() -> None:
    """What Meta did not say is absent from the entry, never the word None."""
    entry = a_reference(form_id=None, ad_id=None, created_time=None, sent_time=None).to_entry()
    assert set(entry) == {"v", "lead", "page", "recv"}


def test_fields_of_a_newer_receiver_are_ignored() -> None:
    """An older worker reads the entries of a newer receiver."""
    assert LeadReference.from_entry({**entry_of(SENT), b"v": b"9", b"campaign": b"\xff"}) == SENT


@pytest.mark.parametrize("field", [b"lead", b"page", b"recv"])
def test_an_entry_without_what_it_needs_is_unreadable(field: bytes) -> None:
    """No reference is made up where the id, the Page or the time of receipt is missing."""
    entry = entry_of(SENT)
    del entry[field]
    with pytest.raises(UnreadableEntry, match=repr(field.decode())):
        LeadReference.from_entry(entry)


@pytest.mark.parametrize("field", [b"lead", b"page", b"form", b"ad"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"0",
        b"000",
        b"-5",
        b"+5",
        b" 5",
        b"5 ",
        b"5\n",
        b"1.0",
        b"1e3",
        b"0x1",
        b"None",
        b"null",
        b"5" * 33,
        b"\xff",
        b"\x00",
        b"5\x00",
        "\u0663".encode(),
        "\uff15".encode(),
        b"5;drop",
    ],
)
def test_an_id_is_digits_and_nothing_else(field: bytes, content: bytes) -> None:
    """Whatever is not 1 to 32 ASCII digits, or is zero, is no id; the message never quotes it."""
    with pytest.raises(UnreadableEntry) as told:
        LeadReference.from_entry({**entry_of(SENT), field: content})
    assert str(told.value) in {
        f"stream entry field {field.decode()!r} is not an id",
        f"stream entry field {field.decode()!r} is missing or not ASCII",
    }


@pytest.mark.parametrize("field", [b"recv", b"created", b"sent"])
@pytest.mark.parametrize("content", [b"", b"-1", b"1.5", b"1e9", b"nan", b"9" * 17, b"\xb2", b" 1", b"None"])
def test_a_time_is_digits_and_nothing_else(field: bytes, content: bytes) -> None:
    """Whatever is not a whole positive number of at most 16 digits is no time."""
    with pytest.raises(UnreadableEntry):
        LeadReference.from_entry({**entry_of(SENT), field: content})


@given(
    st.dictionaries(
        st.sampled_from([b"lead", b"page", b"form", b"ad", b"recv", b"v"]), st.binary(max_size=40)
    )
)
def test_no_entry_raises_anything_else(entry: dict[bytes, bytes]) -> None:
    """A hostile entry is unreadable or a reference; it never ends the drain."""
    try:
        reference = LeadReference.from_entry(entry)
    except UnreadableEntry:
        return
    assert is_id(reference.leadgen_id)
    assert is_id(reference.page_id)
