"""Strategy 4, DiLoCo: racks train apart and exchange compressed pseudo-gradients every H steps.

    u = (1-d) * idle share * memory share * max over H of eta(H) * min(1, H t / t_sync)

with t_sync = bytes / (compression * rate) of the slower direction, hidden behind compute (Streaming
DiLoCo, eager updates). H ends at 10,000: a job that never synchronises is strategy 5. Under wipes each
period's update must leave before the wipe: `transfers.periodic_share`. A rack holds the whole model
in training.
"""

from __future__ import annotations

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.ranges import Array
from ullage.slowdown.transfers import memory_share, periodic_share


def time_share(constraints: Constraints, parameters: Parameters) -> Array:
    """u over the share of the compute that is free for it."""
    memory = memory_share(
        constraints, parameters.model_bytes * parameters.state_factor, parameters.working_memory
    )
    return memory * periodic_share(constraints, parameters, parameters.model_bytes, parameters.compression)


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    share = constraints.declared * constraints.idle_share * time_share(constraints, parameters)
    return Outcome.of(share, parameters.size)
