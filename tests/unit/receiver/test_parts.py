"""What the script is told of deliveries."""

from receiver.delivery import Delivery, Unread
from receiver.parts import counts_of, total, words
from receiver.tally import Verdict
from worker.inbox import BELL_EXPIRES_SECONDS, SET_ASIDE_LIMIT, LeadReference

REFERENCE = LeadReference("5", "7", None, "9", None, None, 99)


def test_a_part_is_as_long_as_it_says() -> None:
    """Each part is its name, the number of its words and so many words; bodies stay bytes."""
    delivery = Delivery(b"\xff", 99, (REFERENCE,), (Unread.BODY, Unread.FIELD), ("8",))
    told = words([delivery, delivery], {Verdict.DELIVERIES: 2}, "bell-1")
    assert told[:3] == ["bell-1", str(BELL_EXPIRES_SECONDS), str(SET_ASIDE_LIMIT)]
    parts, place = [], 3
    while place < len(told):
        last = place + 2 + int(told[place + 1])
        parts.append((told[place], tuple(told[place + 2 : last])))
        place = last
    one = [
        ("aside", ("reason", "body,field", "received_at", "99", "body", b"\xff")),
        ("entry", ("v", "1", "lead", "5", "page", "7", "recv", "99", "ad", "9")),
        ("wanted", ("8", "99")),
    ]
    assert parts == [*one, *one, ("count", ("deliveries", "2"))]


def test_counts_are_summed_and_nothing_is_left_out() -> None:
    """What several deliveries and refusals counted is one number each; what is nothing costs no write."""
    delivery = Delivery(b"", 99, (REFERENCE,), (Unread.BODY,), ("8", "9"), duplicates=2, tests=0, ignored=1)
    assert total([{Verdict.UNSIGNED: 3}, counts_of(delivery), counts_of(delivery)]) == {
        Verdict.UNSIGNED: 3,
        Verdict.DELIVERIES: 2,
        Verdict.REFERENCES: 2,
        Verdict.DUPLICATES: 4,
        Verdict.IGNORED: 2,
        Verdict.LACKING_VALUES: 4,
        Verdict.SET_ASIDE: 2,
    }
