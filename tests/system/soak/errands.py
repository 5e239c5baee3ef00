"""What an operator or Meta does amid the faults -> done again and again until it worked, in a thread beside.

Invariant: an order counts as carried out only once whoever carried it out said so.
"""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

ERRAND_SECONDS = 240.0
"""An order is given again until it is carried out; not for longer."""


@dataclass(slots=True)
class Orders:
    """Ids of people that were to be forgotten (`tried`), were (`done`), and of leads that Meta deleted."""

    tried: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)


class Errands:
    """What is done by somebody who tries again until it works, one after the other, beside everything else."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="errands")
        self._ending = threading.Event()
        self._futures: list[Future[None]] = []
        self.given_up: list[str] = []

    def see_through(self, what: str, do: Callable[[], bool]) -> None:
        """Do it until it says that it worked."""
        self._futures.append(self._pool.submit(self._again, what, do))

    def _again(self, what: str, do: Callable[[], bool]) -> None:
        for _ in range(int(ERRAND_SECONDS)):
            with contextlib.suppress(Exception):
                if do():
                    return
            if self._ending.wait(1.0):
                break
        self.given_up.append(what)

    @property
    def idle(self) -> bool:
        """Whether all is done."""
        return all(future.done() for future in self._futures)

    def close(self) -> None:
        """Give up what is left."""
        self._ending.set()
        self._pool.shutdown(wait=True)
