"""Strategy 9, the mix: learners and rollouts wherever each can be had.

The idle share x goes to learning (u_f x, by the best of strategies 2, 4, 5, 7, 11 and 13), the rest to
covert rollouts (r (1-x), strategy 6); customers in league order o more of them. With k the rollouts that
a unit of learner uses,

    u = max over x in [0, 1] of  u_f x + min(r (1-x) + o, k (d + u_f x)),  at most 1-d

The maximum lies at 0, at 1 or where both arms meet, x* = (r + o - k d) / (k u_f + r). This is why
slack that looks small is not: each unit of a learner brings k = (1-l)/l units of rollouts that nobody
can object to.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.strategies import (
    branch_train_merge,
    diloco,
    parked_state,
    slack,
    small_experts,
    synchronous,
)
from ullage.slowdown.strategies.asymmetric_rl import covert_rollouts
from ullage.slowdown.strategies.declared_rollouts import orderable

_LEARNERS = (synchronous, diloco, branch_train_merge, small_experts, slack, parked_state)


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    freed = np.max([part.outcome(constraints, parameters).share for part in _LEARNERS], axis=0)
    ordered = orderable(constraints, parameters)
    dark = constraints.dark_share
    best = np.zeros(parameters.size)
    for covert, used in covert_rollouts(constraints, parameters):
        slope = used * freed + covert
        meet = np.clip((covert + ordered - used * dark) / np.maximum(slope, 1e-300), 0.0, 1.0)
        for split in (np.zeros_like(meet), meet, np.ones_like(meet)):
            rollouts = np.minimum(covert * (1 - split) + ordered, used * (dark + freed * split))
            best = np.maximum(best, freed * split + rollouts)
    return Outcome.of(np.minimum(constraints.declared, best), parameters.size)
