"""Items of many threads -> one write for all that came while the one before was under way. It knows no Redis.

    put -> nobody writes?   write it
        -> somebody does?   stand in line; whoever is first once that write ended writes for all in line

A write costs nearly the same for one as for many, and on disk exactly the same. Nobody waits where nobody writes.

Invariant: `put` returns only after a write that had the item in it, and raises what that write raised; no item is in
two writes. Who stood in line for `patience` seconds writes alone, so a write that hangs holds up only its own.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

PATIENCE_SECONDS: Final = 0.1

Item = TypeVar("Item")


class _Waiting(Generic[Item]):
    """One call of `put`. `called` is free once it is over (or failed), or its turn to write for the others."""

    __slots__ = ("called", "failure", "item", "leads")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.leads = False
        self.failure: BaseException | None = None
        # An Event would do; it costs ten times as much.
        self.called = threading.Lock()
        self.called.acquire()


class Together(Generic[Item]):
    """One line for the process. `weigh` says how heavy an item is; at most `most` together, a heavier one alone."""

    def __init__(
        self,
        write: Callable[[Sequence[Item]], None],
        weigh: Callable[[Item], int],
        most: int,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._write, self._weigh, self._most, self._patience = write, weigh, most, patience
        self._mutex = threading.Lock()
        self._line: deque[_Waiting[Item]] = deque()
        self._writing = False

    def put(self, item: Item) -> None:
        """Have `item` written, with others or not. Raises whatever the write raised."""
        mine = _Waiting(item)
        with self._mutex:
            mine.leads = not self._writing
            if not mine.leads:
                self._line.append(mine)
            self._writing = True
        if not mine.leads and not mine.called.acquire(timeout=self._patience):
            if self._leave(mine):
                self._write([item])
                return
            mine.called.acquire()
        if mine.leads:
            self._lead(mine)
        if mine.failure is not None:
            raise mine.failure

    def _leave(self, mine: _Waiting[Item]) -> bool:
        """Step out of the line; false where another has just called."""
        with self._mutex:
            try:
                self._line.remove(mine)
            except ValueError:
                return False
            return True

    def _lead(self, mine: _Waiting[Item]) -> None:
        with self._mutex:
            group = [mine, *self._take(self._most - self._weigh(mine.item))]
        try:
            self._write([waiting.item for waiting in group])
        # Whatever it is, even the end of this thread: a caller that met nothing would answer 200.
        except BaseException as failure:
            for waiting in group:
                waiting.failure = failure
        finally:
            self._call_next()
            for waiting in group[1:]:
                waiting.called.release()

    def _take(self, room: int) -> list[_Waiting[Item]]:
        """The first of the line, as many as there is room for."""
        taken = []
        while self._line and (weight := self._weigh(self._line[0].item)) <= room:
            room -= weight
            taken.append(self._line.popleft())
        return taken

    def _call_next(self) -> None:
        with self._mutex:
            if not self._line:
                self._writing = False
                return
            following = self._line.popleft()
        following.leads = True
        following.called.release()
