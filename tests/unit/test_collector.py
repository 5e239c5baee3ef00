"""How often a process looks for garbage."""

import gc
import weakref

from worker.collector import keep_all


class Knot:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


def test_garbage_in_cycles_goes_by_itself_in_the_end() -> None:
    """To look seldom is not never to look: a process that makes cycles does not grow without bound."""
    keep_all()
    first = weakref.ref(Knot())
    made = 0
    while first() is not None and made < 1_000_000:
        Knot()
        made += 1
    assert first() is None


def test_what_was_kept_is_looked_at_no_more() -> None:
    """It is frozen, so that no collection walks it."""
    kept = [Knot() for _ in range(100)]
    before = gc.get_freeze_count()
    keep_all()
    assert gc.get_freeze_count() >= before + len(kept)
    assert not {id(each) for each in gc.get_objects()} & {id(each) for each in kept}
