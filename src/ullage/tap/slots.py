"""Release in fixed slots, so that the time of a token says nothing about how it came about.

Slot number j of an output is at start + j * interval and carries exactly the next `tokens` tokens, the last
slot what is left. A slot whose tokens are not there in time is late by whole slots, and all later ones move
with it. An output of n slots that was late by at most L in all could have left in binomial(n + L, L) ways:
`lateness_bits` is the logarithm of that.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from ullage.enforce.protocol import FinishReason

Piece = tuple[tuple[int, ...], FinishReason | None]


def lateness_bits(slots: int, late: int) -> float:
    """Bits that the choice of late slots can carry: log2 of binomial(slots + late, late)."""
    return (math.lgamma(slots + late + 1) - math.lgamma(slots + 1) - math.lgamma(late + 1)) / math.log(2)


@dataclass
class Slots:
    """The schedule of one output. `interval` in seconds; `start` on the event loop's clock."""

    interval: float
    tokens: int
    start: float
    released: int = 0  # slots that are past
    late: int = 0

    async def next(self) -> None:
        """Wait for the slot that what is ready now belongs to."""
        now = asyncio.get_running_loop().time()
        self.released += 1
        behind = now - self._time()
        if behind > 0:
            self.late += math.ceil(behind / self.interval)
        await asyncio.sleep(max(0.0, self._time() - now))

    @property
    def bits(self) -> float:
        """See `lateness_bits`."""
        return lateness_bits(self.released, self.late)

    def _time(self) -> float:
        return self.start + (self.released + self.late) * self.interval


async def slotted(pieces: AsyncGenerator[Piece], slots: Slots) -> AsyncGenerator[Piece]:
    """The same tokens, cut and timed by the slots alone."""
    held: list[int] = []
    async with contextlib.aclosing(pieces):
        async for tokens, reason in pieces:
            held += tokens
            # The last slot carries the finish reason too; a full one without it cannot be the last.
            while len(held) > slots.tokens or (len(held) == slots.tokens and reason is None):
                await slots.next()
                yield tuple(held[: slots.tokens]), None
                del held[: slots.tokens]
            if reason is not None:
                await slots.next()
                yield tuple(held), reason
