"""The parts of an order, read: JSON object + name -> a value of the type that is needed there.

What orders mean is told in orders.py and formorders.py.

Invariant: what is missing is the default, and what is of the wrong type raises OrderRefused with its name.
"""

from collections.abc import Mapping, Sequence


class OrderRefused(ValueError):
    """An order that cannot be carried out; the message says why."""


def texts(order: Mapping[str, object], name: str) -> list[str]:
    """One text or number, or a list of them."""
    given = order.get(name, [])
    if isinstance(given, str | int):
        return [str(given)]
    if not isinstance(given, Sequence):
        raise OrderRefused(f"{name} is a list")
    return [str(each) for each in given]


def whole(order: Mapping[str, object], name: str, default: int, most: int = 2**53) -> int:
    """A whole number that is not negative."""
    given = order.get(name, default)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= most:
        raise OrderRefused(f"{name} is a whole number from 0 to {most}")
    return given


def limit_of(order: Mapping[str, object], name: str) -> int | None:
    """A whole number, or null for none."""
    return None if order.get(name) is None else whole(order, name, 0)


def number(order: Mapping[str, object], name: str, default: float = 0.0) -> float:
    """A number of the order that is not negative."""
    given = order.get(name, default)
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < float("inf"):
        raise OrderRefused(f"{name} is a number and not negative")
    return float(given)


def share_of(order: Mapping[str, object], name: str) -> float:
    """A number from 0 to 1."""
    share = number(order, name)
    if share > 1:
        raise OrderRefused(f"{name} is a share, from 0 to 1")
    return share


def only(order: Mapping[str, object], known: set[str]) -> None:
    """Refuse an order that holds what nobody will look at."""
    unknown = sorted(order.keys() - known)
    if unknown:
        raise OrderRefused(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
