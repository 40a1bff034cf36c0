"""Strategy 13, state parked across wipes: out as output, back as prompts, and the job goes on alone.

Unlike strategy 7 nothing is merged: the whole training state of an expert (weights and optimiser)
leaves and returns around each wipe,

    u = (1-d) * worth * min(idle share * memory share * max(0, 1 - (out + in + cycle)/period), T/t_out)

with out = state bytes / (compression of a state * covert out-rate); prompts are not recomputed, so the
way back has the whole inbound cap. T/t_out is the pace at which finished experts leave. Without wipes this is
strategy 5 with free sending.
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
    memory = memory_share(constraints, state, parameters.working_memory)
    busy = constraints.idle_share * memory * between_wipes(constraints, moved)
    used = np.minimum(busy, training / finished)
    return Outcome.of(constraints.declared * parameters.merge_efficiency * used, parameters.size)
