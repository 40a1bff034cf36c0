"""Tenants replayed over recorded units: what an account would have shown, many times over. Pure arithmetic.

A trace is the seconds that an honest slot's units took. A replay draws blocks of it for each slot, lets a
tenant take its share from some moment on, issues and answers units as the protocol does (a unit counts in a
window if it was issued and answered there, `DEPTH` jobs outstanding), and gives the windows to the alarm.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ullage.work.alarm import Alarm, alarm_from, expected_fraction
from ullage.work.verifier import DEPTH

Floats = NDArray[np.float64]
BLOCK = 50
"""Consecutive units that are drawn together, so that slow stretches of the trace stay slow."""
BURST_SECONDS = (0.5, 3.0)
"""Short against a window: a tenant that sleeps for minutes takes nothing in them."""


class Pattern(StrEnum):
    """How a tenant takes its share."""

    SPREAD = "spread"  # a part of every moment, on every slot
    BURSTS = "bursts"  # the whole machine, for 0.5 to 3 seconds at a time


@dataclass(frozen=True)
class Setting:
    """The machine and the account. `median`: the calibrated median seconds of a unit."""

    slots: int
    median: float
    window_seconds: float = 60.0
    depth: int = DEPTH
    honest: tuple[float, ...] = ()
    """Honest windows of the twin, of the same length; without them the alarm is reckoned."""

    def alarm(self) -> Alarm:
        """As the calibration would set it."""
        if self.honest:
            return alarm_from(self.honest, 0.0, 0.0)
        return Alarm(expected_fraction(self.depth, self.median, self.window_seconds))


def drawn(trace: Floats, seconds: float, generator: np.random.Generator) -> Floats:
    """Ends of consecutive units (n,), blocks of the trace one after the other, until `seconds` are full."""
    blocks = 2 + int(seconds / (BLOCK * float(trace.mean())) * 1.2)
    starts = generator.integers(0, len(trace), blocks)
    places = (starts[:, None] + np.arange(BLOCK)) % len(trace)
    return np.cumsum(trace[places.reshape(-1)])


def delayed(
    ends: Floats, share: float, pattern: Pattern, begin: float, bursts: tuple[Floats, Floats] | None
) -> Floats:
    """The ends with a tenant that takes `share` from `begin` on. `bursts`: when (in the slot's own time after
    `begin`) and how long, for that pattern."""
    late = np.maximum(0.0, ends - begin)
    if pattern is Pattern.SPREAD or bursts is None:
        return np.asarray(np.minimum(ends, begin) + late / (1 - share), dtype=np.float64)
    when, long = bursts
    taken = np.concatenate([[0.0], np.cumsum(long)])
    return np.asarray(ends + taken[np.searchsorted(when, late, side="left")], dtype=np.float64)


def some_bursts(share: float, seconds: float, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Bursts of random length, each after the rest that makes its share: the tenant has `share` of every
    stretch of some seconds, and none of them is like the other."""
    count = 2 + int(2 * seconds * share / sum(BURST_SECONDS))
    long = generator.uniform(*BURST_SECONDS, count)
    rests = long * (1 - share) / share
    rests[0] *= generator.random()
    return np.cumsum(rests), long


def credited(ends: Floats, setting: Setting, windows: int) -> NDArray[np.int64]:
    """Units of one slot that count, (windows,): a job is issued when the one `depth` earlier is answered."""
    issued = np.concatenate([np.zeros(setting.depth), ends[: -setting.depth]])
    edges = np.arange(windows + 1) * setting.window_seconds
    first = np.searchsorted(issued, edges[:-1], side="left")
    last = np.searchsorted(ends, edges[1:], side="right")
    return np.asarray(np.maximum(0, last - first), dtype=np.int64)


def fractions(
    trace: Floats, setting: Setting, windows: int, generator: np.random.Generator,
    *, share: float = 0.0, pattern: Pattern = Pattern.SPREAD, begin: float = 0.0,
) -> Floats:  # fmt: skip
    """Accounted fractions at the median time, (windows,), of a machine with a tenant from `begin` on."""
    seconds = windows * setting.window_seconds
    bursts = some_bursts(share, seconds, generator) if share and pattern is Pattern.BURSTS else None
    total = np.zeros(windows, dtype=np.int64)
    for _ in range(setting.slots):
        ends = drawn(trace, seconds, generator)
        total += credited(delayed(ends, share, pattern, begin, bursts) if share else ends, setting, windows)
    capacity = setting.slots * setting.window_seconds
    return np.asarray(total * setting.median / capacity, dtype=np.float64)


def alarm_after(found: Floats, setting: Setting, begin: float) -> float | None:
    """Seconds from `begin` to the end of the window in which the alarm sounds; None if it does not, and
    negative if it sounded before: a false alarm."""
    alarm = setting.alarm()
    for number, fraction in enumerate(found, 1):
        if alarm.add(float(fraction)):
            return number * setting.window_seconds - begin
    return None
