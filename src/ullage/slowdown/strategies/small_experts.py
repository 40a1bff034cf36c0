"""Strategy 7, small experts under wipes: what is learnt in a period leaves before the wipe.

    u = (1-d) * idle share * memory share * worth * max(0, 1 - (upload + download + cycle)/period)

with upload = expert bytes / (compression * out-rate): an update leaves only if it has at most
out-rate * period bytes. The download after each wipe (the merged expert) is not in the source's
arithmetic and matters as much at equal rates. Without wipes the expert is exchanged every H steps
as in strategy 4. `worth` as in strategy 5; the smallest expert worth training is a range.
"""

from __future__ import annotations

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.transfers import memory_share, periodic_share


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    memory = memory_share(
        constraints, parameters.expert_bytes * parameters.state_factor, parameters.working_memory
    )
    used = periodic_share(
        constraints, parameters, parameters.expert_bytes, parameters.compression,
        constraints.idle_share * memory,
    )  # fmt: skip
    share = constraints.declared * parameters.merge_efficiency * used
    return Outcome.of(share, parameters.size)
