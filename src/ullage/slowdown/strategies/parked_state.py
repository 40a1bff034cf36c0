"""Strategy 13, state parked across wipes: out as output, back as prompts, and the job goes on alone.

Unlike strategy 7 nothing is merged: the whole training state of an expert (weights and optimiser)
leaves and returns around each wipe,

    u = (1-d) * idle share * memory share * worth * max(0, 1 - (out + in + cycle)/period)

with out = state bytes / (compression of a state * covert out-rate); prompts are not recomputed, so the
way back has the whole inbound cap. Without wipes this is strategy 5 with free sending.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.strategies import branch_train_merge
from ullage.slowdown.transfers import between_wipes, memory_share, seconds


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    if not constraints.wiped:
        return branch_train_merge.outcome(constraints, parameters)
    state = parameters.expert_bytes * parameters.state_factor
    parked = state / parameters.state_compression
    moved = seconds(parked, constraints.covert_out) + seconds(parked, constraints.covert_in)
    finished = seconds(parameters.expert_bytes / parameters.compression, constraints.covert_out)
    training = parameters.expert_gpu_hours * 3_600 / constraints.gpus_a_rack
    time = between_wipes(constraints, moved) * np.minimum(1.0, training / finished)
    memory = memory_share(constraints, state, parameters.working_memory)
    share = constraints.declared * constraints.idle_share * memory * parameters.merge_efficiency * time
    return Outcome.of(share, parameters.size)
