"""Strategy 2, synchronous data parallel across racks, the batch as it was.

Every step ends with an exchange of compressed gradients, at best hidden behind compute:
step time = max(t, bytes / (compression * rate)), so

    u = (1-d) * idle share * memory share * min(1, t / t_sync) * (1 - (cycle + download)/period)

The exchange goes through a hub (one passage each way, the slower one counts), which the adversary
prefers to a ring with its 2 (n-1)/n. Each step is out as it is made, so a wipe costs its cycle and
the way back in, unless the update survives it.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.ranges import Array
from ullage.slowdown.transfers import between_wipes, exchange, kept_through_wipes, memory_share, seconds


def busy_share(constraints: Constraints, parameters: Parameters) -> Array:
    """What idle time, memory and wipes leave, before links are counted."""
    sent = parameters.model_bytes / parameters.compression
    back = np.where(kept_through_wipes(constraints, sent) > 0, 0.0, seconds(sent, constraints.covert_in))
    memory = memory_share(
        constraints, parameters.model_bytes * parameters.state_factor, parameters.working_memory
    )
    return constraints.declared * constraints.idle_share * memory * between_wipes(constraints, back)


def step_ratio(constraints: Constraints, parameters: Parameters) -> Array:
    """sigma: the length of a step with its exchange, over that of its compute."""
    sync = exchange(constraints, parameters.model_bytes / parameters.compression)
    return np.maximum(1.0, sync / parameters.step_seconds)


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    share = busy_share(constraints, parameters) / step_ratio(constraints, parameters)
    return Outcome.of(share, parameters.size)
