"""Strategy 2, synchronous data parallel across racks, the batch as it was.

Every step ends with an exchange of compressed gradients, at best hidden behind compute. With
pace = idle share * memory share the step time is max(t / pace, bytes / (compression * rate)), so

    u = (1-d) * min(pace, t / t_sync) * (1 - (cycle + download)/period)

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


def pace(constraints: Constraints, parameters: Parameters) -> Array:
    """The share of a rack's compute that idle time and memory leave."""
    memory = memory_share(
        constraints, parameters.model_bytes * parameters.state_factor, parameters.working_memory
    )
    return constraints.idle_share * memory


def in_service(constraints: Constraints, parameters: Parameters) -> Array:
    """The share of time that wipes leave."""
    sent = parameters.model_bytes / parameters.compression
    back = np.where(kept_through_wipes(constraints, sent) > 0, 0.0, seconds(sent, constraints.covert_in))
    return between_wipes(constraints, back)


def exchange_steps(constraints: Constraints, parameters: Parameters) -> Array:
    """The time of an exchange over that of a step's compute on a whole rack."""
    sync = exchange(constraints, parameters.model_bytes / parameters.compression)
    return np.asarray(sync / parameters.step_seconds, dtype=np.float64)


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    used = np.minimum(pace(constraints, parameters), 1 / exchange_steps(constraints, parameters))
    return Outcome.of(constraints.declared * used * in_service(constraints, parameters), parameters.size)
