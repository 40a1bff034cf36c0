"""Theft of weights, beside training: how long the claimed covert rate needs.

    days = bytes / (compression * racks * covert out-rate * 86,400)

That is without being seen. Openly, unless the tap enforces, all of the cap carries weights until the response
ends it (strategy 12 of training); what is left by then has leaked before. A fleet figure: receivers pool what
every rack leaks. The weights' compression is the strongest that is cited (100), so the time is a lower bound
at that compression; an adapter is taken as incompressible, a key is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ullage.slowdown.constraints import Constraints

STRONGEST_COMPRESSION = 100.0
DECLARED_WEIGHTS = 600e9  # 300 B parameters of two bytes
DAY = 86_400.0


@dataclass(frozen=True)
class Loot:
    """Something worth stealing: `size` in bytes, and how often it compresses."""

    name: str
    size: float  # bytes
    compression: float


@dataclass(frozen=True)
class TheftRow:
    """Days until it has left unseen, through one rack and through the fleet; and through the fleet if nobody
    minds being seen in the end.
    """

    loot: Loot
    rack_days: float
    fleet_days: float
    open_days: float


def loot(weights: float = DECLARED_WEIGHTS) -> tuple[Loot, ...]:
    """What the table asks about."""
    return (
        Loot("declared weights", weights, STRONGEST_COMPRESSION),
        Loot("declared weights, compressed 16 times", weights, 16.0),
        Loot("adapter of 40 MB", 40e6, 1.0),
        Loot("one 256-bit key", 32.0, 1.0),
    )


def days_to_leak(size: float, compression: float, rate: float) -> float:
    """Days to move `size` bytes, compressed, at `rate` bytes/s; infinite without a way out."""
    return size / compression / rate / DAY if rate > 0 else math.inf


def days_in_the_open(size: float, compression: float, constraints: Constraints) -> float:
    """Days for the fleet if, at the end, it leaks by all of the cap for as long as nobody stops it."""
    covert, cap = constraints.covert_out * constraints.racks, constraints.egress * constraints.racks
    unseen = days_to_leak(size, compression, covert)
    if constraints.enforced:
        return unseen
    whole = days_to_leak(size, compression, cap)
    window = constraints.response_days
    if whole <= window:
        return whole
    left = size / compression - cap * window * DAY
    return min(unseen, window + days_to_leak(left, 1.0, covert))


def theft_table(constraints: Constraints, weights: float = DECLARED_WEIGHTS) -> tuple[TheftRow, ...]:
    """Days to leak each piece of loot under these constraints."""
    rate = constraints.covert_out
    return tuple(
        TheftRow(
            item,
            days_to_leak(item.size, item.compression, rate),
            days_to_leak(item.size, item.compression, rate * constraints.racks),
            days_in_the_open(item.size, item.compression, constraints),
        )
        for item in loot(weights)
    )
