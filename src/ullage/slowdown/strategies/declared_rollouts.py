"""Strategy 6 with declared rollouts: customers in league order the rollouts, and no byte is hidden.

Prompts carry the tasks, the legitimate output is the rollout, each new policy is declared as an update
of the model. Recomputation, memory, work and wipes all pass. What binds is the rate of declared updates
(tau is the age of a policy that RL tolerates) and what such customers can order:

    u = min((1-d) * accomplices' share of output * min(1, tau / update interval), d (1-l)/l)

l = 0.2 and d = 5 % give a throughput slowdown of 4 whatever the token channel carries.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.ranges import Array
from ullage.slowdown.strategies.asymmetric_rl import rollouts_a_learner_uses


def orderable(constraints: Constraints, parameters: Parameters) -> Array:
    """Rollouts that can be had as ordinary answers, in shares of the fleet's compute."""
    interval = constraints.update_interval
    fresh = np.minimum(1.0, parameters.staleness_seconds / interval) if interval > 0 else 1.0
    return constraints.declared * constraints.accomplice_share * fresh * np.ones(parameters.size)


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    used = rollouts_a_learner_uses(constraints.dark_share, parameters.learner_share)
    return Outcome.of(np.minimum(orderable(constraints, parameters), used), parameters.size)
