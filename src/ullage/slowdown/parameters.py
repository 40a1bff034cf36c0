"""What the adversary's algorithms can do: sourced ranges, and arrays drawn from them.

These are facts about training, not about the verified machine (that is `constraints.py`). Where the
literature gives no figure the source says `judgement`, and the tornado shows what hangs on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from ullage.slowdown.ranges import Array, Range

RANGES: dict[str, Range] = {
    "model_bytes": Range(
        10e9, 10e9, 600e9, "log", "bytes", "weights of the covert model, 2 bytes each", "clymer"
    ),
    "compression": Range(
        50, 100, 10_000, "log", "factor", "compression of gradients and weight updates", "sparseloco"
    ),
    "state_compression": Range(
        4, 16, 100, "log", "factor", "compression of a whole training state", "clymer"
    ),
    "step_seconds": Range(1, 2, 10, "log", "s", "one inner optimiser step inside a rack", "clymer"),
    "diloco_at_1000": Range(
        0.7, 0.83, 1.0, "linear", "share", "compute efficiency of DiLoCo at H = 1,000 over H = 50", "diloco"
    ),
    "expert_bytes": Range(1e9, 3e9, 10e9, "log", "bytes", "smallest expert worth training", "clymer"),
    "expert_gpu_hours": Range(
        3_000, 10_000, 30_000, "log", "H100-hours", "training of one expert before a merge pays", "clymer"
    ),
    "merge_efficiency": Range(
        0.1, 0.3, 1.0, "log", "share", "worth of compute spent on experts that are merged once", "judgement"
    ),
    "state_factor": Range(
        3,
        8,
        9,
        "linear",
        "factor",
        "training state over the weights (Adam in mixed precision: 8)",
        "megatron",
    ),
    "working_memory": Range(
        3e10, 1e11, 3e11, "log", "bytes", "activations of a rack at full speed, checkpointed", "judgement"
    ),
    "learner_share": Range(0.1, 0.2, 0.5, "log", "share", "learner's share of the work of RL", "clymer"),
    "curated_share": Range(0.01, 0.02, 0.05, "log", "share", "rollouts that inform a gradient", "clymer"),
    "staleness_seconds": Range(
        3_600, 4 * 3_600, 24 * 3_600, "log", "s", "age of a policy that RL tolerates", "clymer"
    ),
    "patch_compression": Range(
        80, 130, 400, "log", "factor", "policy's weights over a lossless patch", "pulse"
    ),
    "rollout_bits": Range(
        0.3, 1, 2, "log", "bits/token", "a rollout's tokens, coded with the model", "judgement"
    ),
    "rollout_tokens": Range(1e3, 1e4, 1e5, "log", "tokens", "length of a rollout", "clymer"),
    "reward_bits": Range(1, 8, 17, "log", "bits", "what a score takes", "clymer"),
    "rack_tokens": Range(
        3_000, 6_173, 12_000, "log", "tokens/s", "output of a rack of 100 H100-equivalents", "clymer"
    ),
    "evolution_efficiency": Range(
        0.01, 0.1, 1.0, "log", "share", "worth of evolution's compute against gradients", "evolution"
    ),
    "synthesis_learner_share": Range(
        0.3, 0.5, 0.9, "linear", "share", "gradient work in training on generated data", "judgement"
    ),
    "corun_efficiency": Range(
        0.2, 0.5, 0.8, "linear", "share", "use of idle units beside a serving load", "judgement"
    ),
    "baseline_days": Range(30, 90, 180, "log", "days", "the run on the whole unverified fleet", "judgement"),
    "critical_batch_factor": Range(
        0.5, 1, 2, "log", "factor", "error of the extrapolated critical batch size", "bergsma"
    ),
}


@dataclass(frozen=True)
class Parameters:
    """One array of shape (n,) for each entry of `RANGES`, in the units that stand there."""

    model_bytes: Array
    compression: Array
    state_compression: Array
    step_seconds: Array
    diloco_at_1000: Array
    expert_bytes: Array
    expert_gpu_hours: Array
    merge_efficiency: Array
    state_factor: Array
    working_memory: Array
    learner_share: Array
    curated_share: Array
    staleness_seconds: Array
    patch_compression: Array
    rollout_bits: Array
    rollout_tokens: Array
    reward_bits: Array
    rack_tokens: Array
    evolution_efficiency: Array
    synthesis_learner_share: Array
    corun_efficiency: Array
    baseline_days: Array
    critical_batch_factor: Array

    @property
    def size(self) -> int:
        return int(self.model_bytes.size)


def names() -> tuple[str, ...]:
    """The names of all uncertain parameters."""
    return tuple(field.name for field in fields(Parameters))


def nominal(ranges: Mapping[str, Range] = RANGES) -> Parameters:
    """The most likely value of everything: arrays of one."""
    return Parameters(**{name: np.array([ranges[name].mode]) for name in names()})


def draw(samples: int, seed: int, ranges: Mapping[str, Range] = RANGES) -> Parameters:
    """Independent draws by Latin hypercube: each range is cut in `samples` equal shares, used once each.

    Every range has its own stream under `seed`, so fixing one leaves the others' draws unchanged.
    """
    drawn: dict[str, Array] = {}
    for index, name in enumerate(names()):
        generator = np.random.default_rng([seed, index])
        cells = generator.permutation(samples) + generator.random(samples)
        drawn[name] = ranges[name].quantile(cells / samples)
    return Parameters(**drawn)
