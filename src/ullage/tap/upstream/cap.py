"""The rate of bytes on the server's link: a token bucket a direction, at the tap, in HTTP bytes.

The kernel's limit on the link (`tbf`) is the one that a hostile machine cannot get around; this one shapes
what the tap itself sends and takes, so that honest traffic waits in the tap and not in a queue that drops.
Who has to wait, waits, first come first served; a request that would wait longer than `patience` to be sent
is refused before it has a counter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

DEFAULT_RATE: Final = 100_000.0  # bytes a second and rack, the cap of the proposals
DEFAULT_BURST: Final = 8192.0  # bytes, as the kernel's limit has it
PIECE: Final = 4096  # bytes that pass at once, so that a long body does not hold up a short one


class TokenBucket:
    """`rate` bytes a second with bursts of `burst` bytes. Those who wait are served in order."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self.rate = rate
        self.burst = burst
        self.passed = 0  # bytes so far
        self._clock = clock
        self._free_at = (
            clock() - burst / rate
        )  # when an empty bucket began to fill, so that it never overflows

    def reserve(self, size: int) -> float:
        """Take `size` bytes out of the bucket; returns the seconds to wait before they may pass.

        In any interval of t seconds at most burst + rate * t bytes may pass, plus the last piece.
        """
        now = self._clock()
        self._free_at = max(self._free_at, now - self.burst / self.rate) + size / self.rate
        self.passed += size
        return max(0.0, self._free_at - now)

    @property
    def backlog(self) -> float:
        """Seconds that a byte would wait now."""
        return max(0.0, self._free_at - self._clock())

    async def take(self, size: int) -> float:
        """Wait until `size` bytes may pass; returns for how many seconds."""
        wait = self.reserve(size)
        if wait > 0:
            await asyncio.sleep(wait)
        return wait


@dataclass
class LinkCap:
    """Both directions of the server's link. `patience` in seconds, `waiting` bytes that have no place yet."""

    to_server: TokenBucket
    from_server: TokenBucket
    patience: float
    waiting: int = 0

    @classmethod
    def make(cls, rate: float, patience: float, clock: Callable[[], float]) -> LinkCap:
        """The same rate both ways."""
        burst = min(DEFAULT_BURST, rate)
        return cls(TokenBucket(rate, burst, clock), TokenBucket(rate, burst, clock), patience)

    def refuses(self) -> bool:
        """Whether a new request would wait longer than is reasonable."""
        return self.to_server.backlog + self.waiting / self.to_server.rate > self.patience
