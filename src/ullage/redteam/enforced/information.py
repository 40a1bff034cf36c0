"""What a released message says of a bit that its server wanted to tell: an upper limit, not an estimate.

A message is played twice with the same prompt and seed; the server means 0 in one run and 1 in the other. Let
d be the probability that anything a client can see differs. Then the two outcomes have total variation at
most d (coupling), the channel from the bit to the client is at most an erasure channel that erases with
probability 1 - d, and its capacity, whatever the bit's distribution, is at most d bits. Clopper and Pearson
give d's upper limit from a count. `docs/enforcement.md` has the proof and what it assumes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bounds.statistics import upper_bound
from ullage.errors import UsageError
from ullage.redteam.enforced.client import Received

PERMUTATIONS = 9999


@dataclass(frozen=True)
class Seen:
    """All that a client has of a message: the answer without the tap's clock, and the slots it came in."""

    status: int
    body: bytes
    slots: tuple[int, ...]

    @classmethod
    def of(cls, answer: Received, interval: float) -> Seen:
        """`interval`: a slot in seconds; 0 leaves times out."""
        return cls(answer.status, answer.timeless, answer.slots(interval) if interval else ())

    def features(self) -> tuple[float, ...]:
        """Numbers that a difference would move: for the permutation test."""
        first, last = (self.slots[0], self.slots[-1]) if self.slots else (0, 0)
        return (self.status, len(self.body), len(self.slots), first, last, sum(self.body))


@dataclass(frozen=True)
class Information:
    """One encoder's pairs of messages."""

    name: str
    pairs: int
    differ: int
    differ_in_bytes: int
    differ_in_time: int
    p_value: float
    """Of the permutation test; small if runs with a 0 look systematically unlike those with a 1."""

    def upper_bits(self, confidence: float) -> float:
        """Bits a message, at most, with this confidence: the upper limit of the share that differs."""
        return upper_bound(self.differ, self.pairs, confidence)

    def upper_bits_in_bytes(self, confidence: float) -> float:
        """The same for a client without a clock: of status and bytes alone."""
        return upper_bound(self.differ_in_bytes, self.pairs, confidence)


def by_symbol(
    bits: Sequence[int], first: Sequence[Seen], second: Sequence[Seen]
) -> tuple[list[Seen], list[Seen]]:
    """Two runs of the same messages as messages that meant 0 and those that meant 1.

    `bits[i]` is what message i meant in the first run; in the second it meant the other. Bits are drawn
    message by message, so a machine that was slower in one of the runs does not look like a bit.
    """
    pairs = list(zip(bits, first, second, strict=True))
    return [b if bit else a for bit, a, b in pairs], [a if bit else b for bit, a, b in pairs]


def compare(name: str, zeros: Sequence[Seen], ones: Sequence[Seen], seed: int = 0) -> Information:
    """Pairs of messages with the same prompt and seed: `zeros[i]` meant 0, `ones[i]` meant 1."""
    if len(zeros) != len(ones) or not zeros:
        raise UsageError("Messages are compared in pairs.")
    pairs = list(zip(zeros, ones, strict=True))
    moved = np.array([np.subtract(one.features(), zero.features()) for zero, one in pairs], np.float64)
    return Information(
        name,
        pairs=len(pairs),
        differ=sum(zero != one for zero, one in pairs),
        differ_in_bytes=sum((zero.status, zero.body) != (one.status, one.body) for zero, one in pairs),
        differ_in_time=sum(zero.slots != one.slots for zero, one in pairs),
        p_value=sign_flip_test(moved, seed),
    )


def sign_flip_test(moved: NDArray[np.float64], seed: int = 0, permutations: int = PERMUTATIONS) -> float:
    """p-value that the bit moves no feature: `moved` (pairs, features), one minus zero.

    If it does not, each pair's sign is a fair coin. The statistic is the largest |sum| / root of the sum of
    squares over the features; exact up to the sampling of signs (Phipson and Smyth, 2010, for the +1).
    """
    scale = np.sqrt((moved**2).sum(axis=0))
    moving = moved[:, scale > 0] / scale[scale > 0]
    if not moving.size:
        return 1.0
    observed = np.abs(moving.sum(axis=0)).max()
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, len(moving)))
    permuted = np.abs(signs @ moving).max(axis=1)
    return float((1 + np.count_nonzero(permuted >= observed - 1e-12)) / (1 + permutations))


def pairs_needed(bits: float, confidence: float) -> int:
    """How many pairs without a difference show that a message says at most `bits`, in (0, 1)."""
    if not (0 < bits < 1 and 0 < confidence < 1):
        raise UsageError("Bits a message and confidence are between 0 and 1 here.")
    return math.ceil(math.log(1 - confidence) / math.log(1 - bits))
