"""The alarm over windows: a one-sided CUSUM of the accounted fraction (Page 1954).

S_0 = 0, S_i = max(0, S_{i-1} + (expected - shift/2) - fraction_i); the alarm sounds when S_i > `limit`. A
tenant that takes the share q >= shift adds q - shift/2 a window, so it is found in about
limit / (q - shift/2) windows: with shift = limit = 0.1 in one to two windows for 20 %, in three for 10 %.
Noise of a few per cent a window never adds up, because each honest window takes shift/2 away again.

A machine is held to what it has shown. Three windows in a row above the expected by more than `excess` show
that it does more: units are verified, so no prover can make that up. From then on the smallest of the three
is what is expected. A tenant that was there from the first window on gains by a calibration that is too slow
all the same: only a better one finds it. Beside a companion nothing of that: the ratio also rises when
something slows the companion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ullage.work.window import Window

SHIFT = 0.10
"""The smallest tenant that the alarm is made for, as a share of the machine."""
LIMIT = 0.10
LARGEST_LIMIT = 0.30
"""Above it a tenant of 10 % would take more than six windows: that is no alarm."""
EXCESS = 0.04
"""So much above the expected is noticed: at 0.056 a tenant of 10 % would not move the sum any more."""
STRETCH = 3
"""Windows above the expected, in a row, that raise it: one may be an accident."""
_WINDOWS = 10_000
"""A week of minutes."""
_FALSE = 0.01
"""Chance of a false alarm in so many windows that the limit is made for."""
_CONFIDENCE = 0.99


@dataclass
class Alarm:
    """State of the alarm. `expected` is the honest fraction on the twin, at median times."""

    expected: float
    shift: float = SHIFT
    limit: float = LIMIT
    excess: float = EXCESS
    """Infinite: what is expected never rises."""
    level: float = 0.0
    fired_at: int | None = None
    """Number of windows seen when it first sounded."""
    raised_at: int | None = None
    """Number of windows seen when the machine had last shown that it does more than was expected."""
    seen: int = 0
    _stretch: list[float] = field(default_factory=list, repr=False)

    def add(self, fraction: float) -> bool:
        """Take one window in; whether the alarm sounds now."""
        self.seen += 1
        self.level = max(0.0, self.level + (self.expected - self.shift / 2) - fraction)
        sounds = self.level > self.limit
        if sounds and self.fired_at is None:
            self.fired_at = self.seen
        self._look_up(fraction)
        return sounds

    def add_all(self, windows: Iterable[Window]) -> None:
        """Take in every window that says something (`Window.judged`)."""
        for window in windows:
            if (fraction := window.judged) is not None:
                self.add(fraction)

    def _look_up(self, fraction: float) -> None:
        self._stretch = [*self._stretch, fraction] if fraction > self.expected + self.excess else []
        if len(self._stretch) == STRETCH:
            self.expected, self.raised_at, self._stretch = min(self._stretch), self.seen, []


def expected_fraction(
    depth: int, unit_seconds: float, window_seconds: float, allowance: float = 0.02
) -> float:
    """The honest fraction if the twin did not measure it: edges of the window, and an allowance for the rest.

    A unit counts only if it was issued and answered within the window, so about `depth` units a slot are
    lost.
    """
    return 1.0 - depth * unit_seconds / window_seconds - allowance


def alarm_from(honest: Sequence[float], edge: float, edge_then: float) -> Alarm:
    """The alarm that honest windows of the twin (at least two fractions) give.

    `edge` is what a window of the account loses at its edges, `edge_then` what those of the twin lost.
    Expected is the lower limit of the twin's mean, at 0.99. The limit is 0.1, or more if honest windows
    scatter by more than 2.7 %: if their deviations are independent and sub-Gaussian with variance s^2,
    exp(2 k S / s^2) is a supermartingale from each start, k = shift/2 (Lundberg; Ville 1939), so N windows
    sound a false alarm with probability at most N exp(-2 k limit / s^2) = 0.01. s is the upper limit at 0.99;
    no window is above the expected by accident if that takes 3 s, three times in a row.
    Where speed drifts from minute to minute windows are not independent: the twin's have to span the drift.
    """
    from scipy.stats import chi2, t

    values = np.asarray(honest, dtype=np.float64)
    count = len(values)
    if count < 2:
        raise ValueError("an alarm needs at least two honest windows")
    deviation = float(values.std(ddof=1))
    error = float(t.ppf(_CONFIDENCE, count - 1)) * deviation / math.sqrt(count)
    variance = deviation**2 * (count - 1) / float(chi2.ppf(1 - _CONFIDENCE, count - 1))
    expected = float(values.mean()) - error + edge_then - edge
    limit = max(LIMIT, variance * math.log(_WINDOWS / _FALSE) / SHIFT)
    return Alarm(expected, limit=limit, excess=max(EXCESS, 3 * math.sqrt(variance)))
