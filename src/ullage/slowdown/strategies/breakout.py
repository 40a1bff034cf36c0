"""Strategies 12 and 12m, breakout: cheat openly until stopped, then go on in the dark.

For t_r days the prover ignores every check that is a check (covert share, work, memory, wipes) and is
held only by what is physical: links and caps, and an enforcing tap. With c_1 the compute it then has, a
run of T_0 days on the whole fleet takes

    T = T_0 / c_1                        if c_1 t_r >= T_0
    T = t_r + (T_0 - c_1 t_r) / d        otherwise

u is the constant share that would take as long: T_0/T - d. While it lasts the best of strategies 3 and 10m
is used; 12m may practise by reinforcement too (strategy 9).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.strategies import larger_batch, mixed


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of strategy 12 by the formula above, one value a draw."""
    return _breakout(constraints, parameters, (larger_batch.outcome, mixed.laundered_outcome))


def mixed_outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of strategy 12m by the formula above, one value a draw."""
    used = (larger_batch.outcome, mixed.laundered_outcome, mixed.outcome)
    return _breakout(constraints, parameters, used)


def _breakout(
    constraints: Constraints,
    parameters: Parameters,
    openly: tuple[Callable[[Constraints, Parameters], Outcome], ...],
) -> Outcome:
    physical = replace(
        constraints,
        covert_fraction=constraints.covert_fraction if constraints.enforced else 1.0,
        accounted_time=0.0,
        accounted_operations=0.0,
        resident_memory=0.0,
        wipe_period=math.inf,
        wipe_cycle=0.0,
    )
    dark = constraints.dark_share
    opened = np.max([part(physical, parameters).share for part in openly], axis=0)
    rate = np.minimum(1.0, dark + opened)
    run, window = parameters.baseline_days, constraints.response_days
    if math.isinf(window):
        return Outcome.of(rate - dark, parameters.size)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rest = np.maximum(0.0, run - rate * window)
        after = np.where(rest > 0, rest / dark if dark > 0 else np.inf, 0.0)
        length = np.where(rest > 0, window + after, run / np.maximum(rate, 1e-300))
    return Outcome.of(np.maximum(0.0, run / length - dark), parameters.size)
