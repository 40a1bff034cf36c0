"""What a client, and all clients together, may receive in a day: a budget of bytes beside the rate.

A day is one of UTC. The budget is looked at before a request has a counter, and an answer that has begun is
finished: so a client may exceed its budget by the answers in flight. Identities are names of API keys, or
addresses where there are no keys. After a restart `restore` takes what all clients together have received
from the log (`ullage.tap.past`), which names no clients, and what each has from a book of the tap's own
(`ullage.tap.clients.book`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Protocol

from ullage.tap.clients.book import ClientBook
from ullage.tap.failures import Failure, RequestRefusedError

_DAY_NANOSECONDS: Final = 86_400 * 1_000_000_000
_MOST_CLIENTS: Final = 100_000  # remembered in a day; beyond them new ones share one budget
_OTHERS: Final = "(others)"


def same_day(a_ns: int, b_ns: int) -> bool:
    """Whether two times, in nanoseconds since 1970, are on one day of UTC."""
    return a_ns // _DAY_NANOSECONDS == b_ns // _DAY_NANOSECONDS


class Further(Protocol):
    """A further budget of the day, which is not counted in bytes."""

    def admit(self, time_ns: int) -> None:
        """Raises RequestRefusedError when nothing is left."""


@dataclass
class Budgets:
    """`a_client` and `a_day` are bytes released a day, to one client and to all; None: no limit."""

    a_client: int | None = None
    a_day: int | None = None
    further: Further | None = None
    book: ClientBook | None = None
    _day: int = -1
    _used: Counter[str] = field(default_factory=Counter)
    _total: int = 0

    def admit(self, client: str, time_ns: int) -> None:
        """Raises RequestRefusedError when nothing is left for this client today."""
        self._turn(time_ns)
        if self.a_client is not None and self._used[self._name(client)] >= self.a_client:
            raise RequestRefusedError(Failure.BUDGET_EXHAUSTED)
        if self.a_day is not None and self._total >= self.a_day:
            raise RequestRefusedError(Failure.BUDGET_EXHAUSTED)
        if self.further is not None:
            self.further.admit(time_ns)

    def charge(self, client: str, size: int, time_ns: int) -> None:
        """Bytes that were released to a client."""
        self._turn(time_ns)
        name = self._name(client)
        self._used[name] += size
        self._total += size
        if self.book is not None and size:
            self.book.add(name, size)

    def restore(self, size: int, time_ns: int) -> None:
        """Bytes that a log says were released on that day, to clients whose names are not in it.

        What each of them had is read from the book. Raises UsageError and MalformedError for one that
        cannot be used.
        """
        self._day = time_ns // _DAY_NANOSECONDS
        self._used = Counter() if self.book is None else self.book.restore(self._day)
        self._total = size

    @property
    def used_today(self) -> int:
        """Bytes released to all clients today."""
        return self._total

    def _name(self, client: str) -> str:
        name = client if self.book is None else self.book.name(client)
        known = name in self._used or len(self._used) < _MOST_CLIENTS
        return name if known else self._others

    @property
    def _others(self) -> str:
        return _OTHERS if self.book is None else self.book.name(_OTHERS)

    def _turn(self, time_ns: int) -> None:
        day = time_ns // _DAY_NANOSECONDS
        if day > self._day:  # a clock that goes back does not give a budget anew
            self._day = day
            self._used.clear()
            self._total = 0
            if self.book is not None:
                self.book.turn(day)
