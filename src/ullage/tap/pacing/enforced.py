"""Release in fixed slots, so that the time of a token says nothing about how it came about.

Slot number j of an output is at start + j * interval and carries exactly the next `tokens` tokens, the last
slot what is left. Drafts for a slot count until half an interval before it: what is missing then the
reference decodes alone. A slot whose tokens are not there in time is late by whole slots, and all later ones
move with it. How often that happens is counted over all outputs (`Watch`).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from ullage.enforce.accounting import Ledger
from ullage.enforce.protocol import FinishReason

SLACK = 0.5
"""Of a slot, after its beginning: who leaves within it leaves in it."""
Piece = tuple[tuple[int, ...], FinishReason | None]


@dataclass
class Watch:
    """Late slots of all outputs of a tap: counted, told to the operator, and ended when they cost too much.

    `budget` is in bits of `accounting.lateness_bits`; None is no end. Where it is spent no server is asked
    for drafts any more, so that nothing it does can move a release.
    """

    tell: Callable[[str], None]
    budget: float | None = None
    ledger: Ledger = field(default_factory=Ledger)
    _told: int = 0  # lateness at the last alarm

    def count(self, late: int) -> None:
        """A slot has passed, late by so many slots."""
        was_spent = self.spent
        self.ledger.slots += 1
        self.ledger.late += late
        if self.ledger.late >= max(1, 2 * self._told):
            self._told = self.ledger.late
            self.tell(
                f"alarm: releases were {self.ledger.late} slots late in {self.ledger.slots}, which can carry "
                f"{self.ledger.bits:.0f} bits: the reference is too slow for --slot, or a server delays it"
            )
        if self.spent and not was_spent:
            self.tell("alarm: the lateness budget is spent; from now on the reference decodes alone")

    @property
    def spent(self) -> bool:
        """Whether servers are no longer asked."""
        return self.budget is not None and self.ledger.late > 0 and self.ledger.bits > self.budget


@dataclass
class Slots:
    """The schedule of one output. `interval` in seconds; `start` on the event loop's clock."""

    interval: float
    tokens: int
    start: float
    watch: Watch
    released: int = 0  # slots that are past
    late: int = 0

    async def next(self) -> None:
        """Wait for the slot that what is ready now belongs to."""
        clock = asyncio.get_running_loop().time
        self.released += 1
        missed = self._missed(clock())
        self.late += missed
        while (wait := self._time(self.released) - clock()) > 0:
            await asyncio.sleep(wait)
            # Who stands still over the slot, with what a server gave him to read, is late as well.
            late = max(0, self._missed(clock() - SLACK * self.interval))
            self.late += late
            missed += late
        self.watch.count(missed)

    def left(self) -> None:
        """Nobody waits any more. A slot that is past without its tokens was late, and that was seen."""
        missed = self._missed(asyncio.get_running_loop().time(), 1)
        if missed > 0:
            self.released += 1
            self.late += missed
            self.watch.count(missed)

    def _missed(self, now: float, ahead: int = 0) -> int:
        behind = now - self._time(self.released + ahead)
        return math.ceil(behind / self.interval) if behind > 0 else 0

    def deadline(self, known: int) -> float:
        """Until when drafts may come if `known` tokens are known: half an interval before their slot."""
        if self.watch.spent:
            return self.start
        return self._time(known // self.tokens + 1) - self.interval / 2

    def _time(self, slot: int) -> float:
        return self.start + (slot + self.late) * self.interval


async def slotted(pieces: AsyncGenerator[Piece], slots: Slots) -> AsyncGenerator[Piece]:
    """The same tokens, cut and timed by the slots alone. Tokens to come are made ready while others wait."""
    ready: asyncio.Queue[Piece | None] = asyncio.Queue()
    making = asyncio.ensure_future(_make_ready(pieces, ready))
    held: list[int] = []
    try:
        while (piece := await ready.get()) is not None:
            tokens, reason = piece
            held += tokens
            # The last slot carries the finish reason too; a full one without it cannot be the last.
            while len(held) > slots.tokens or (len(held) == slots.tokens and reason is None):
                await slots.next()
                yield tuple(held[: slots.tokens]), None
                del held[: slots.tokens]
            if reason is not None:
                await slots.next()
                yield tuple(held), reason
        await making  # raises what it ended with
    finally:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)


async def _make_ready(pieces: AsyncGenerator[Piece], ready: asyncio.Queue[Piece | None]) -> None:
    try:
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                ready.put_nowait(piece)
    finally:
        ready.put_nowait(None)
