"""What is quick to make is otherwise the value that dataclass freezes."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.batches import InFlight
from worker.inbox import LeadReference
from worker.lead import Lead
from worker.outcomes import Stored
from worker.quick_dataclass import quick_dataclass


@quick_dataclass(frozen=True, slots=True)
class Quick:
    """Fields with and without a default."""

    name: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Frozen:
    """The same, frozen."""

    name: str
    number: int = 0


VALUES = st.tuples(st.sampled_from("ab"), st.integers(0, 2))


@given(VALUES, VALUES)
def test_it_is_the_value_that_a_frozen_one_is(one: tuple[str, int], other: tuple[str, int]) -> None:
    """Equal by its fields, the same key in a dict, changed only as another value, and told in the same words."""
    assert (Quick(*one) == Quick(*other)) == (Frozen(*one) == Frozen(*other))
    assert hash(Quick(*one)) == hash(Frozen(*one))
    changed = replace(Quick(*one), number=other[1])
    assert (changed.name, changed.number) == (one[0], other[1])
    assert repr(Quick(*one)).replace("Quick", "Frozen") == repr(Frozen(*one))


def test_it_takes_no_other_field() -> None:
    """A field that it does not have is an error at run time too; to set one that it has is mypy's to refuse."""
    with pytest.raises(AttributeError):
        Quick("a").nombre = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("made_once_a_lead", [LeadReference, InFlight, Lead, Stored])
def test_what_is_made_once_a_lead_sets_its_fields_plainly(made_once_a_lead: type) -> None:
    """Frozen at run time, each was several microseconds of a lead."""
    assert "__setattr__" not in vars(made_once_a_lead)
