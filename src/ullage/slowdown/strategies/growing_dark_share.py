"""Strategy 14, growing dark share: racks that "break" or go astray during the run.

With d growing by g a year beside a constant usable share u, a run that needs T_0 years of the whole
fleet ends when

    (d + u) T + g T^2 / 2 = T_0,   T = (sqrt(c^2 + 2 g T_0) - c) / g,   c = d + u

so the slowdown is finite even at c = 0: T/T_0 = sqrt(2 / (g T_0)). The whole fleet is dark or used
after (1-c)/g years; from then on the run goes at full speed. As a strategy of its own u = 0; the
best response adds the growth to whatever else is best, for it takes nothing from it.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.ranges import Array

DAYS_A_YEAR = 365.25
_NO_GROWTH = 1e-9  # a year


def with_growth(compute: Array, growth: float, baseline_days: Array) -> Array:
    """The constant share of the fleet that would take as long as `compute` growing by `growth` a year."""
    if growth < _NO_GROWTH:
        return compute
    run = baseline_days / DAYS_A_YEAR
    until_whole = (1 - compute) / growth
    done_by_then = (1 - compute**2) / (2 * growth)
    # 2 T_0 / (sqrt(c^2 + 2 g T_0) + c): the root without cancellation
    rising = 2 * run / (np.sqrt(compute**2 + 2 * growth * run) + compute)
    length = np.where(run <= done_by_then, rising, until_whole + run - done_by_then)
    return np.asarray(np.maximum(compute, run / length), dtype=np.float64)


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    dark = constraints.dark_share
    grown = with_growth(np.full(parameters.size, dark), constraints.diversion, parameters.baseline_days)
    return Outcome.of(grown - dark, parameters.size)
