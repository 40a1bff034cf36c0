"""Strategy 6 with covert rollouts: the learner works in the dark, declared racks generate for it unseen.

A learner with d of the fleet's compute that does the share l of the work can use d (1-l)/l of
rollouts, so

    u = min(usable, d (1-l) / l)

usable = (1-d) * idle share * memory share * channels. Channels: (a) a policy patch comes in at least
every tau seconds, min(1, tau / t_patch); (b) rollouts go out, either the tokens of those that inform
(curated share g of the rack's output, coded with the model), or only a score each, and the learner
generates the informative ones again from their seeds, which raises its work to l + g (1-l); the
better of the two; (c) the policy fits beside the declared model. After a wipe the patch comes in again.
"""

from __future__ import annotations

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.ranges import Array
from ullage.slowdown.transfers import between_wipes, kept_through_wipes, memory_share, seconds


def rollouts_a_learner_uses(learner: Array | float, share_of_work: Array) -> Array:
    """learner (1-l)/l, in shares of the fleet's compute."""
    return np.asarray(learner * (1 - share_of_work) / share_of_work, dtype=np.float64)


def usable_for_rollouts(constraints: Constraints, parameters: Parameters) -> Array:
    """Idle time, memory, wipes and the inbound patch; the outbound channel comes on top."""
    patch = parameters.model_bytes / parameters.patch_compression
    back = seconds(patch, constraints.covert_in)
    fresh = np.minimum(1.0, parameters.staleness_seconds / back)
    kept = kept_through_wipes(constraints, patch)
    time = between_wipes(constraints, np.where(kept > 0, 0.0, back))
    memory = memory_share(constraints, parameters.model_bytes, parameters.working_memory)
    return constraints.declared * constraints.idle_share * memory * time * fresh


def shares_that_get_out(constraints: Constraints, parameters: Parameters) -> tuple[Array, Array]:
    """min(1, out-rate / rate needed), for tokens of the rollouts that inform, and for all scores.

    The share of the rollouts made that a learner outside can use; `benchmarks/covert_rollouts.py` holds it
    against rollouts that really left.
    """
    tokens = parameters.rack_tokens * constraints.idle_share  # a second and rack
    sent = tokens * parameters.curated_share * parameters.rollout_bits / 8
    scored = tokens / parameters.rollout_tokens * parameters.reward_bits / 8

    def passed(needed: Array) -> Array:
        return np.minimum(1.0, constraints.covert_out / np.maximum(needed, 1e-12))

    return passed(sent), passed(scored)


def covert_rollouts(constraints: Constraints, parameters: Parameters) -> tuple[tuple[Array, Array], ...]:
    """The two ways out, tokens and scores: the share of rollouts that get out, and the rollouts that
    one unit of learner uses."""
    usable = usable_for_rollouts(constraints, parameters)
    learner = parameters.learner_share
    again = learner + parameters.curated_share * (1 - learner)
    sent, scored = shares_that_get_out(constraints, parameters)
    return (usable * sent, (1 - learner) / learner), (usable * scored, (1 - learner) / again)


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    ways = covert_rollouts(constraints, parameters)
    best = np.max([np.minimum(out, constraints.dark_share * used) for out, used in ways], axis=0)
    return Outcome.of(best, parameters.size)
