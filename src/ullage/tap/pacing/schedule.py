"""The slots of one request: when its groups leave, and what becomes of it when it is late or fails."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ullage.tap.failures import Failure, UpstreamError
from ullage.tap.pacing.grid import (
    LATE_STEPS,
    RECORD_SHARE,
    Pace,
    ReleaseClock,
    lateness_step,
    slots_of_step,
)
from ullage.tap.pacing.ledger import FAILED, Ledger, late_kind

_SENTENCE = re.compile(r"(?:late by \d+ slots in (\d+) steps)?(?:; )?(?:(\d+) exceptions not the server's)?")


def read_sentence(detail: str) -> tuple[int, int]:
    """(steps by which this answer was late, exceptions that are not the server's) in a record's detail, which
    begins with it.
    """
    found = _SENTENCE.match(detail)
    steps, own = found.groups() if found else (None, None)
    return int(steps or 0), int(own or 0)


class AllowanceSpentError(Exception):
    """The server has been late or failed more often than is allowed: nothing may be released."""


@dataclass
class Pacer:
    """What all requests of a paced tap share."""

    pace: Pace
    clock: ReleaseClock
    ledger: Ledger
    _untold: int = 0  # exceptions that are not the server's, and that stand in no record yet

    def schedule(self, max_tokens: int, counter: int, *, whole_first: bool = False) -> Schedule:
        """The slots of a request that has arrived now. `whole_first`: a stream that begins when a whole
        answer could have left, because the server is asked for one.

        What the tap reads just after it stood still may have come before a slot's boundary and is dealt with
        after it: a server that gives the tap much to read moves others' answers so, and each boundary counts.
        """
        for _ in range(self.clock.unsettled()):
            self.own_delay()
        return Schedule(self, max_tokens, counter, whole_first)

    def own_delay(self) -> None:
        """An exception that is not the server's: the tap was late by a step, its cap held a request up, or a
        client left. Found out when the answer's own record is closed, perhaps.
        """
        self.ledger.own += 1
        self._untold += 1

    def tell_own(self) -> int:
        """How often since the last time that this was asked."""
        untold, self._untold = self._untold, 0
        return untold


class Schedule:
    """The slots of one request. All of it is a function of the arrival, but for the lateness, which
    counts."""

    def __init__(self, pacer: Pacer, max_tokens: int, counter: int, whole_first: bool) -> None:
        self._pacer = pacer
        self._counter = counter
        self._first = pacer.clock.next_slot() + pacer.pace.lead
        self._most = pacer.pace.groups(max_tokens)
        self.whole_first = whole_first
        self._placed = 0  # groups that have come
        self._held = 0.0  # seconds for which the link's cap has held the request up
        self._deadlines: set[asyncio.Timeout] = set()
        self.late = 0  # slots by which everything has moved
        self.exceptions = 0  # of this request, its failure aside
        self._unsaid: str | None = None  # the kind of one that has not shown yet

    @property
    def pace(self) -> Pace:
        """How the tap releases."""
        return self._pacer.pace

    @contextlib.asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """What the server has not brought by the last slot is a failure. Raises UpstreamError."""
        try:
            async with asyncio.timeout_at(self._deadline()) as deadline:
                self._deadlines.add(deadline)
                try:
                    yield
                finally:
                    self._deadlines.discard(deadline)
        except TimeoutError as error:
            raise UpstreamError(Failure.UPSTREAM_TIMEOUT, "not there by the last slot") from error

    def _deadline(self) -> float:
        """The event loop's time from which no answer can be in time any more."""
        return (self._last_slot() - RECORD_SHARE) * self._pacer.clock.interval

    def hold_up(self, seconds: float) -> None:
        """The link's cap has held the request up for so long in all: all of it moves by as many slots.

        Other clients' requests bring that about, so it costs the server no allowance.
        """
        slots = math.ceil(seconds / self._pacer.clock.interval) - math.ceil(
            self._held / self._pacer.clock.interval
        )
        self._held = max(self._held, seconds)
        while slots > 0:
            step = lateness_step(slots)
            moved = slots_of_step(LATE_STEPS if step is None else step)
            slots -= moved
            self.late += moved
            self._pacer.own_delay()
        for deadline in self._deadlines:
            deadline.reschedule(self._deadline())

    def gone(self) -> None:
        """The client has left. Who has waited past a slot without an answer has learnt so much: it counts."""
        due = self._first + self._placed + self.late
        if self._pacer.clock.next_slot() > due:
            self._pacer.ledger.opportunity()
            self._pacer.own_delay()

    def place(self, number: int, groups: int | None = None) -> int:
        """The slot of a group that the server has brought now: its own, or one of its late steps.

        `groups` is the length of the whole output where a stream begins after it. Raises UpstreamError when
        it is later than the last step.
        """
        self._pacer.ledger.opportunity()
        self._placed = number + 1
        offset = (groups or 1) - 1 if self.whole_first else 0
        due = self._first + offset + number + self.late
        step = lateness_step(self._pacer.clock.next_slot(RECORD_SHARE) - due)
        if step is None:
            raise UpstreamError(Failure.UPSTREAM_TIMEOUT, "later than the last slot")
        if step:
            self.exceptions += 1
            self.late += slots_of_step(step)
            self._unsaid = late_kind(step)
        return due + slots_of_step(step)

    async def record_time(self, slot: int) -> None:
        """Return when what leaves at that slot, which `place` gave just now, is to be put on record.

        Lateness is charged here and not when the server came: that the allowance is spent shows at once to
        everybody, so that its moment must not be the server's. Raises AllowanceSpentError.
        """
        await self._pacer.clock.wait(slot, self._counter, RECORD_SHARE)
        kind, self._unsaid = self._unsaid, None
        if kind is not None:
            self._charge(kind)

    async def reach(self, slot: int) -> None:
        """Return at that slot, in the slot's order, or at a later one if the tap was too slow for it."""
        await self._pacer.clock.wait(self._not_missed(slot), self._counter)

    async def failure(self) -> None:
        """Return at the one slot at which a failure is told, however early it was known.

        Raises AllowanceSpentError.
        """
        self._pacer.ledger.opportunity()
        await self.last()
        self._charge(FAILED)

    async def last(self) -> None:
        """Return at the last slot at which anything of the answer could have left."""
        await self._pacer.clock.wait(self._not_missed(self._last_slot()), self._counter)

    def sentence(self) -> str:
        """For the record: by how much the answer was late, whatever became of it, and how many exceptions
        there were beyond the server's since the last record. `read_sentence` takes it apart.
        """
        late = f"late by {self.late} slots in {self.exceptions} steps" if self.exceptions else ""
        own = self._pacer.tell_own()
        return "; ".join(filter(None, (late, f"{own} exceptions not the server's" if own else "")))

    def _last_slot(self) -> int:
        slots = 2 * self._most - 1 if self.whole_first else self._most
        return self._first + self.late + slots - 1 + slots_of_step(LATE_STEPS)

    def _not_missed(self, slot: int) -> int:
        """That slot or, if the tap has missed it, one of its late steps, as often as it takes.

        All that is to come moves with it. It costs the server no allowance, but one that gives the tap
        much to read could bring it about: so it is late by steps, and counted.
        """
        while (missed := self._pacer.clock.next_slot() - slot) > 0:
            step = lateness_step(missed)
            moved = slots_of_step(LATE_STEPS if step is None else step)
            slot += moved
            self.late += moved
            self._pacer.own_delay()
        return slot

    def _charge(self, kind: str) -> None:
        if not self._pacer.ledger.exception(kind):
            raise AllowanceSpentError
