"""Strategy 8, evolution: no gradients, scores only.

Racks run perturbed copies of a model (perturbed in place from a seed, so no second copy is held) and
send one score a rollout; every rack rebuilds the update from seeds and scores.

    u = (1-d) * idle share * worth * min(1, out-rate / scores' rate) * (1 - (cycle + download)/period)

`worth` is the compute's worth against gradients: Qiu et al. 2025 match RL when fine-tuning, nobody has
pre-trained so; the range covers both. After a wipe the current weights come in as a patch.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.transfers import between_wipes, kept_through_wipes, seconds


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    tokens = parameters.rack_tokens * constraints.idle_share
    needed = tokens / parameters.rollout_tokens * parameters.reward_bits / 8
    sending = np.minimum(1.0, constraints.covert_out / np.maximum(needed, 1e-12))
    patch = parameters.model_bytes / parameters.patch_compression
    kept = kept_through_wipes(constraints, patch)
    time = between_wipes(constraints, np.where(kept > 0, 0.0, seconds(patch, constraints.covert_in)))
    share = constraints.declared * constraints.idle_share * parameters.evolution_efficiency * sending * time
    return Outcome.of(share, parameters.size)
