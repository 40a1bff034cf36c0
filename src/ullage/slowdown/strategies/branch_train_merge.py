"""Strategy 5, branch, train, merge: each rack trains an expert alone for T hours, then sends it once.

    u = (1-d) * idle share * memory share * worth * min(1, T / t_out),   T = GPU-hours / GPUs a rack

The next expert trains while the last one leaves, so only rates count. `worth` is what the compute of
experts that are merged once is worth against one joint run; Li et al. 2022 find no loss for domain
experts at small scale, nobody has merged thousands: a judgement with a wide range. Under wipes the
whole training must fit between two of them, unless the update survives.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.transfers import between_wipes, kept_through_wipes, memory_share, seconds


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    sent = parameters.expert_bytes / parameters.compression
    out = seconds(sent, constraints.covert_out)
    back = seconds(sent, constraints.covert_in)
    training = parameters.expert_gpu_hours * 3_600 / constraints.gpus_a_rack
    sending = np.minimum(1.0, training / out)
    time = sending
    if constraints.wiped:
        kept = kept_through_wipes(constraints, sent)
        left = between_wipes(constraints, out + back)
        # Each expert still has to be sent, however many are trained between two wipes.
        within = np.where(left * constraints.wipe_period >= training, np.minimum(sending, left), 0.0)
        through = sending * between_wipes(constraints, np.zeros_like(sent))
        time = np.where(kept > 0, np.maximum(through, within), within)  # who can hide an update need not
    memory = memory_share(
        constraints, parameters.expert_bytes * parameters.state_factor, parameters.working_memory
    )
    share = constraints.declared * constraints.idle_share * memory * parameters.merge_efficiency * time
    return Outcome.of(share, parameters.size)
