"""The slots of one request: when its groups leave, and what becomes of it when it is late or fails."""

from __future__ import annotations

from dataclasses import dataclass

from ullage.tap.failures import Failure, UpstreamError
from ullage.tap.ledger import FAILED, Ledger, late_kind
from ullage.tap.pacing import (
    LATE_STEPS,
    RECORD_SHARE,
    Pace,
    ReleaseClock,
    lateness_step,
    slots_of_step,
)


class AllowanceSpentError(Exception):
    """The server has been late or failed more often than is allowed: nothing may be released."""


@dataclass
class Pacer:
    """What all requests of a paced tap share."""

    pace: Pace
    clock: ReleaseClock
    ledger: Ledger
    own_delays: int = 0  # releases that the tap itself or a slow client made late

    def schedule(self, max_tokens: int, counter: int, *, whole_first: bool = False) -> Schedule:
        """The slots of a request that has arrived now. `whole_first`: a stream that begins when a whole
        answer could have left, because the server is asked for one.
        """
        return Schedule(self, max_tokens, counter, whole_first)


class Schedule:
    """The slots of one request. All of it is a function of the arrival, but for the lateness, which
    counts."""

    def __init__(self, pacer: Pacer, max_tokens: int, counter: int, whole_first: bool) -> None:
        self._pacer = pacer
        self._counter = counter
        self._first = pacer.clock.next_slot() + pacer.pace.lead
        self._most = pacer.pace.groups(max_tokens)
        self._whole_first = whole_first
        self.late = 0  # slots by which everything has moved
        self.exceptions = 0  # of this request, its failure aside
        self._unsaid: str | None = None  # the kind of one that has not shown yet

    @property
    def pace(self) -> Pace:
        """How the tap releases."""
        return self._pacer.pace

    @property
    def deadline(self) -> float:
        """The event loop's time from which no answer can be in time any more."""
        return (self._last_slot() - RECORD_SHARE) * self._pacer.clock.interval

    def place(self, number: int, groups: int | None = None) -> int:
        """The slot of a group that the server has brought now: its own, or one of its late steps.

        `groups` is the length of the whole output where a stream begins after it. Raises UpstreamError when
        it is later than the last step.
        """
        self._pacer.ledger.opportunity()
        offset = (groups or 1) - 1 if self._whole_first else 0
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
        """Return at that slot, in the slot's order.

        If it has passed because of the tap itself or a slow client, everything moves; it is no exception.
        """
        reached = max(slot, self._pacer.clock.next_slot())
        if reached > slot:
            self._pacer.own_delays += 1
            self.late += reached - slot
        await self._pacer.clock.wait(reached, self._counter)

    async def failure(self) -> None:
        """Return at the one slot at which a failure is told, however early it was known.

        Raises AllowanceSpentError.
        """
        self._pacer.ledger.opportunity()
        await self.last()
        self._charge(FAILED)

    async def last(self) -> None:
        """Return at the last slot at which anything of the answer could have left."""
        slot = max(self._last_slot(), self._pacer.clock.next_slot())
        await self._pacer.clock.wait(slot, self._counter)

    def sentence(self) -> str:
        """For the record: by how much the answer was late, whatever became of it."""
        return f"late by {self.late} slots in {self.exceptions} steps" if self.exceptions else ""

    def _last_slot(self) -> int:
        slots = 2 * self._most - 1 if self._whole_first else self._most
        return self._first + self.late + slots - 1 + slots_of_step(LATE_STEPS)

    def _charge(self, kind: str) -> None:
        if not self._pacer.ledger.exception(kind):
            raise AllowanceSpentError
