"""When an answer leaves: at slots of one grid for the whole tap, at the one its arrival and length give it.

Slot k is at k * interval on the event loop's clock. A request that arrives before slot a may release its
group of tokens number j, j = 0, 1, …, at slot a + lead + j; a plain answer of g groups leaves with its last
one, at a + lead + g - 1. So an answer that is in time tells nothing by its time. One that is late by l slots
is held until it is late by 1, 3, 7, … 2^k - 1: few ways to be late, each counted (`ledger`).
Answers of one slot leave in order of their counters, or in an order that only the tap's key knows.

Everybody may read in the log's public part in which order and in which second records were closed. So an
answer is put on record half a slot before its slot, in the same order, and has to be there by then: a part
that was recorded when the server brought it would tell every reader of the log what the slots hide.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import math
from dataclasses import dataclass
from typing import Final, Literal

Order = Literal["fifo", "keyed"]

LATE_STEPS: Final = 6  # the latest an answer may be: 2^6 - 1 slots
GUARD_SHARE: Final = 0.1  # of a slot, before each slot, in which no answer is parsed
SETTLING: Final = 0.002  # seconds by which a timer may be late while the tap keeps up: no client aims better
RECORD_SHARE: Final = 0.5  # of a slot, before each slot, at which what it releases is put on record


@dataclass(frozen=True)
class Pace:
    """How answers are released. `slot` in seconds; `tokens` a slot; `lead` slots before the first group.

    `pad_to` pads lengths to multiples of so many tokens (0: not), and `chunk_bytes` is the size of which
    every piece of a stream is a multiple.
    """

    slot: float
    tokens: int = 32
    lead: int = 2
    order: Order = "fifo"
    pad_to: int = 0
    chunk_bytes: int = 1024

    def groups(self, tokens: int) -> int:
        """How many slots an output of `tokens` tokens takes, padding included."""
        return max(1, math.ceil(padded_length(tokens, self.pad_to) / self.tokens))


def padded_length(tokens: int, pad_to: int) -> int:
    """The next multiple of `pad_to`, at least one; `tokens` itself without padding."""
    return tokens if pad_to == 0 else max(1, math.ceil(tokens / pad_to)) * pad_to


def lateness_step(late: int) -> int | None:
    """The number k >= 0 of the step 2^k - 1 at which something late by `late` slots may leave.

    None when that is beyond the last step: then it fails.
    """
    step = max(0, late).bit_length()
    return step if step <= LATE_STEPS else None


def slots_of_step(step: int) -> int:
    """How many slots late step `step` is."""
    return (1 << step) - 1


class ReleaseClock:
    """The grid of slots on the running event loop, and the order within a slot."""

    def __init__(self, interval: float, order: Order = "fifo", key: bytes = b"") -> None:
        self.interval = interval
        self.worst_delay = 0.0  # seconds after its time that the latest slot so far was served
        self.ticks = 0
        self._order = order
        self._key = key
        self._waiting: dict[tuple[int, float], list[tuple[bytes, asyncio.Future[None]]]] = {}
        self._settled: int | None = None  # the last boundary by which all that had come was dealt with

    def next_slot(self, ahead: float = 0.0) -> int:
        """The number of the first slot that is still to come, or whose moment `ahead` slots before it is."""
        return math.floor(asyncio.get_running_loop().time() / self.interval + ahead) + 1

    async def wait(self, slot: int, counter: int, ahead: float = 0.0) -> None:
        """Return `ahead` slots before that slot, in the order of the slot. The moment must be to come."""
        loop = asyncio.get_running_loop()
        moment = (slot, ahead)
        if moment not in self._waiting:
            self._waiting[moment] = []
            loop.call_at((slot - ahead) * self.interval, self._fire, moment)
        future: asyncio.Future[None] = loop.create_future()
        self._waiting[moment].append((self._rank(slot, counter), future))
        await future

    async def keep_clear(self) -> None:
        """Wait while a slot is about to come, so that no answer's size delays others' release."""
        loop = asyncio.get_running_loop()
        until = self.next_slot() * self.interval
        if until - loop.time() < self.interval * GUARD_SHARE:
            await asyncio.sleep(until - loop.time() + self.interval * GUARD_SHARE / 2)

    def unsettled(self) -> int:
        """How many boundaries of slots what is read now may have come before.

        0 unless the tap stands still over one, or has just done so: once it keeps up with its timers again,
        it has read all that had come meanwhile. Begins to watch when it is first asked.
        """
        boundary = self.next_slot() - 1
        if self._settled is None:
            self._settled = boundary
            self._watch_boundary()
        missed = max(0, boundary - self._settled)
        return 0 if missed == 1 and self._since(boundary) <= SETTLING else missed

    def _since(self, boundary: int) -> float:
        return asyncio.get_running_loop().time() - boundary * self.interval

    def _watch_boundary(self) -> None:
        self._when_settled(self.next_slot() * self.interval)

    def _when_settled(self, due: float) -> None:
        """Settled once a timer is in time: then all that had come has been read."""
        loop = asyncio.get_running_loop()

        def look() -> None:
            if loop.time() - due > SETTLING:
                self._when_settled(loop.time() + SETTLING)
            else:
                self._settled = self.next_slot() - 1
                self._watch_boundary()

        loop.call_at(due, look)

    def _rank(self, slot: int, counter: int) -> bytes:
        if self._order == "fifo":
            return counter.to_bytes(8, "big")
        return hmac.digest(self._key, slot.to_bytes(8, "big") + counter.to_bytes(8, "big"), hashlib.sha256)

    def _fire(self, moment: tuple[int, float]) -> None:
        slot, ahead = moment
        if not ahead:
            self.ticks += 1
            delay = asyncio.get_running_loop().time() - slot * self.interval
            self.worst_delay = max(self.worst_delay, delay)
        # Futures wake their tasks in the order in which they are set.
        for _, future in sorted(self._waiting.pop(moment), key=lambda entry: entry[0]):
            if not future.done():
                future.set_result(None)
