"""Strategy 3, larger batch and fewer steps: compute while the gradients travel.

With a step sigma = max(1, t_sync / t) times as long, the batch grows to fill it. Machines stay busy,
but samples beyond the critical batch are worth less: D = D_min (1 + B/B_crit). With beta' = B/B_crit
of the usable share at the ordinary batch, a sample is worth (1 + beta') / (1 + sigma beta') of an
ordinary one:

    u = raw * (1 + beta') / (1 + sigma * beta'),   raw = strategy 2 without its links

k/(1 + k beta') rises with k, so filling the whole step is the best batch. The run's length uses raw
and sigma themselves (`critical_batch.fixed_step_slowdown`): it cannot fall below S_min steps of
length sigma t. beta' is that of a dense 300 B model on this fleet.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.critical_batch import CLUSTERS
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.strategies.synchronous import exchange_steps, in_service, pace


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    raw = constraints.declared * pace(constraints, parameters) * in_service(constraints, parameters)
    serial = np.maximum(1.0, exchange_steps(constraints, parameters))
    gpus = constraints.racks * constraints.gpus_a_rack
    fleet_ratio = CLUSTERS[0].batch_ratio * gpus / CLUSTERS[0].gpus / parameters.critical_batch_factor
    ratio = fleet_ratio * raw
    with np.errstate(invalid="ignore"):
        worth = np.where(np.isfinite(serial), (1 + ratio) / (1 + serial * ratio), 0.0)
    return Outcome(raw * worth, np.where(np.isfinite(serial), raw, 0.0), np.where(raw > 0, serial, 1.0))
