"""A class with fields -> a frozen dataclass whose values are quick to make; for what is made once a lead.

Where `dataclass` freezes, every value sets each of its fields by a call of its own, which for 18 fields takes eight
times as long as to set them plainly and was a tenth of what a lead costs. So mypy, which reads `quick_dataclass` as
`dataclass`, refuses to set a field later, and at run time nothing does. Invariant: but for that, a value is what
`dataclass(frozen=True)` makes: equal by its fields, and a key that stays the same.
https://docs.python.org/3/library/dataclasses.html#frozen-instances
"""

from typing import TYPE_CHECKING

__all__ = ("quick_dataclass",)

if TYPE_CHECKING:
    from dataclasses import dataclass as quick_dataclass
else:
    from dataclasses import dataclass

    def quick_dataclass(*, frozen: bool, slots: bool):
        """As dataclass."""
        return dataclass(slots=slots, unsafe_hash=frozen)
