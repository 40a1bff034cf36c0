"""Strategy 10, laundered inference: synthetic data, distillation, filtering and evaluations as traffic.

The declared model does the part of a training pipeline that is inference anyway; gradients stay in the
dark. With l_s the gradient share of the whole work,

    u = min((1-d) * accomplices' share of output, d (1-l_s)/l_s)

Nothing is hidden and the model is never updated; what binds is what such customers can order.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.strategies.asymmetric_rl import Way, rollouts_a_learner_uses


def way(constraints: Constraints, parameters: Parameters) -> Way:
    """What customers in league can order, and how much of it a unit of learner uses."""
    used = rollouts_a_learner_uses(1.0, parameters.synthesis_learner_share)
    return Way(0.0, 0.0, constraints.declared * constraints.accomplice_share, used)


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    found = way(constraints, parameters)
    return Outcome.of(np.minimum(found.ordered, constraints.dark_share * found.used), parameters.size)
