"""Strategies 9 and 10m, the mixes: learners and inference for them wherever each can be had.

The idle share x goes to learning, by the best of strategies 2, 4, 5, 7, 11 and 13: U(x) = min(x P, u_f), with
u_f what it achieves with all of the idle share and P the same if links were open (the links are no tighter
for half a learner). The rest goes to covert rollouts, of which C can leave (strategy 6); customers in league
order o more. With k the rollouts that a unit of learner uses,

    u = max over x in [0, 1] of  U(x) + min(min(R (1-x), C) + o, k (d + U(x))),  at most 1-d

All pieces are linear and the whole concave, so the maximum lies at an end or where two pieces meet. Strategy
10m has laundered inference in the place of rollouts: R = C = 0, o and k as in strategy 10. This is why slack
that looks small is not: each unit of a learner brings k = (1-l)/l units of inference that nobody can object
to.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ullage.slowdown.constraints import INFINIBAND, Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.ranges import Array
from ullage.slowdown.strategies import (
    branch_train_merge,
    diloco,
    laundered,
    parked_state,
    slack,
    small_experts,
    synchronous,
)
from ullage.slowdown.strategies.asymmetric_rl import Way, covert_rollouts
from ullage.slowdown.strategies.declared_rollouts import orderable

_LEARNERS = (synchronous, diloco, branch_train_merge, small_experts, slack, parked_state)


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of strategy 9 by the formula above, one value a draw."""
    ways = covert_rollouts(constraints, parameters, orderable(constraints, parameters))
    return _best(ways, constraints, parameters)


def laundered_outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of strategy 10m by the formula above, one value a draw."""
    return _best((laundered.way(constraints, parameters),), constraints, parameters)


def _best(ways: tuple[Way, ...], constraints: Constraints, parameters: Parameters) -> Outcome:
    linked = _learners(constraints, parameters)
    opened = replace(constraints, egress=INFINIBAND, ingress=INFINIBAND, covert_fraction=1.0)
    free = np.maximum(linked, _learners(opened, parameters))
    best = np.max([best_split(way, linked, free, constraints.dark_share) for way in ways], axis=0)
    return Outcome.of(np.minimum(constraints.declared, best), parameters.size)


def _learners(constraints: Constraints, parameters: Parameters) -> Array:
    shares = [part.outcome(constraints, parameters).share for part in _LEARNERS]
    return np.asarray(np.max(shares, axis=0), dtype=np.float64)


def best_split(way: Way, linked: Array, free: Array, dark: float) -> Array:
    """max over x of U(x) + min(min(R (1-x), C) + o, k (d + U(x))), `linked` u_f and `free` P."""
    made, leaving, used = way.made, way.leaving, way.used

    def at(split: Array) -> Array:
        learnt = np.minimum(split * free, linked)
        rolled = np.minimum(made * (1 - split), leaving) + way.ordered
        return np.asarray(learnt + np.minimum(rolled, used * (dark + learnt)), dtype=np.float64)

    def over(one: Array, other: Array | float) -> Array:
        return np.asarray(one / np.maximum(other, 1e-300), dtype=np.float64)

    with np.errstate(over="ignore"):
        corners = (
            np.zeros_like(linked),
            np.ones_like(linked),
            over(linked, free),
            1 - over(leaving + 0 * linked, made),
            over(made + way.ordered - used * dark, used * free + made),
            over(leaving + way.ordered - used * dark, used * free),
            1 - over(used * (dark + linked) - way.ordered, made),
        )
    return np.asarray(np.max([at(np.clip(corner, 0.0, 1.0)) for corner in corners], axis=0))
