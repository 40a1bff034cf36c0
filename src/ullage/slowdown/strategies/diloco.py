"""Strategy 4, DiLoCo: racks train apart and exchange compressed pseudo-gradients every H steps.

    u = (1-d) * max over H of eta(H) * min(pace, H t / t_sync),   pace = idle share * memory share

with t_sync = bytes / (compression * rate) of the slower direction, hidden behind compute (Streaming
DiLoCo, eager updates): who has half of a machine has twice the time for each exchange. H ends at 10,000: a
job that never synchronises is strategy 5. Under wipes each period's update must leave before the wipe:
`transfers.periodic_share`. A rack holds the whole model in training.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.ranges import Array
from ullage.slowdown.transfers import memory_share, periodic_share


def rack_share(constraints: Constraints, parameters: Parameters, free: Array | float) -> Array:
    """The share of a rack's compute that this strategy puts to use where `free` of it is to be had."""
    memory = memory_share(
        constraints, parameters.model_bytes * parameters.state_factor, parameters.working_memory
    )
    pace = np.asarray(free * memory, dtype=np.float64)
    return periodic_share(constraints, parameters, parameters.model_bytes, parameters.compression, pace)


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    share = constraints.declared * rack_share(constraints, parameters, constraints.idle_share)
    return Outcome.of(share, parameters.size)
