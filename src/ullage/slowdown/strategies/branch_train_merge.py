"""Strategy 5, branch, train, merge: each rack trains an expert alone for T hours, then sends it once.

    u = (1-d) * worth * min(idle share * memory share, T / t_out),   T = GPU-hours / GPUs a rack

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
    memory = memory_share(
        constraints, parameters.expert_bytes * parameters.state_factor, parameters.working_memory
    )
    pace, sending = constraints.idle_share * memory, training / out
    used = np.minimum(pace, sending)
    if constraints.wiped:
        kept = kept_through_wipes(constraints, sent)
        left = between_wipes(constraints, out + back)
        # Each expert still has to be sent, however many are trained between two wipes.
        fits = pace * left * constraints.wipe_period >= training
        within = np.where(fits, np.minimum(sending, pace * left), 0.0)
        through = used * between_wipes(constraints, np.zeros_like(sent))
        used = np.where(kept > 0, np.maximum(through, within), within)  # who can hide an update need not
    return Outcome.of(constraints.declared * parameters.merge_efficiency * used, parameters.size)
