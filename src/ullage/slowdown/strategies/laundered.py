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
from ullage.slowdown.strategies.asymmetric_rl import rollouts_a_learner_uses


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    ordered = constraints.declared * constraints.accomplice_share
    used = rollouts_a_learner_uses(constraints.dark_share, parameters.synthesis_learner_share)
    return Outcome.of(np.minimum(ordered, used), parameters.size)
