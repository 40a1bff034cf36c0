"""Strategy 6 with covert rollouts: the learner works in the dark, declared racks generate for it unseen.

A learner with d of the fleet's compute that does the share l of the work can use d (1-l)/l of
rollouts, so

    u = min(made, what can leave, d (1-l) / l)

made = (1-d) * idle share * memory share * min(1, tau / t_patch): the policy fits beside the declared model,
and a patch of it comes in at least every tau seconds; after a wipe it comes in again. What can leave is what
the outbound rate carries, however much more is made: either the tokens of the rollouts that inform (curated
share g of the rack's output, coded with the model), or only a score each, and the learner generates the
informative ones again from their seeds, which raises its work to l + g (1-l); the better of the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.ranges import Array
from ullage.slowdown.transfers import between_wipes, kept_through_wipes, memory_share, seconds


def rollouts_a_learner_uses(learner: Array | float, share_of_work: Array) -> Array:
    """learner (1-l)/l, in shares of the fleet's compute."""
    return np.asarray(learner * (1 - share_of_work) / share_of_work, dtype=np.float64)


@dataclass(frozen=True)
class Way:
    """How rollouts reach a learner, in shares of the fleet's compute: as many as are `made` and can `leave`,
    and `ordered` ones beside; a unit of learner uses `used` of them."""

    made: Array | float
    leaving: Array | float
    ordered: Array | float
    used: Array

    @property
    def covert(self) -> Array:
        """What gets out, one value a draw."""
        return np.asarray(np.minimum(self.made, self.leaving), dtype=np.float64)


def rollouts_made(constraints: Constraints, parameters: Parameters) -> Array:
    """The share of a rack that can make rollouts: idle time, memory, wipes and the inbound patch."""
    patch = parameters.model_bytes / parameters.patch_compression
    back = seconds(patch, constraints.covert_in)
    fresh = np.minimum(1.0, parameters.staleness_seconds / back)
    kept = kept_through_wipes(constraints, patch)
    time = between_wipes(constraints, np.where(kept > 0, 0.0, back))
    memory = memory_share(constraints, parameters.model_bytes, parameters.working_memory)
    return constraints.idle_share * memory * time * fresh


def racks_that_get_out(constraints: Constraints, parameters: Parameters) -> tuple[Array, Array]:
    """out-rate / rate needed by a rack that makes nothing but rollouts, for tokens of those that inform,
    and for all scores. Above 1 all gets out.

    `benchmarks/covert_rollouts.py` holds it against rollouts that really left.
    """
    sent = parameters.rack_tokens * parameters.curated_share * parameters.rollout_bits / 8
    scored = parameters.rack_tokens / parameters.rollout_tokens * parameters.reward_bits / 8
    return (
        np.asarray(constraints.covert_out / np.maximum(sent, 1e-12), dtype=np.float64),
        np.asarray(constraints.covert_out / np.maximum(scored, 1e-12), dtype=np.float64),
    )


def covert_rollouts(
    constraints: Constraints, parameters: Parameters, ordered: Array | float = 0.0
) -> tuple[Way, Way]:
    """The two ways out, tokens and scores."""
    made = constraints.declared * rollouts_made(constraints, parameters)
    learner = parameters.learner_share
    again = learner + parameters.curated_share * (1 - learner)
    sent, scored = racks_that_get_out(constraints, parameters)
    return (
        Way(made, constraints.declared * sent, ordered, (1 - learner) / learner),
        Way(made, constraints.declared * scored, ordered, (1 - learner) / again),
    )


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    ways = covert_rollouts(constraints, parameters)
    best = np.max([np.minimum(way.covert, constraints.dark_share * way.used) for way in ways], axis=0)
    return Outcome.of(best, parameters.size)
