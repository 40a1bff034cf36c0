"""Critical batch size: why a bigger cluster does not train in proportion faster, and loses less when cut.

Let B be the tokens in a batch. Training to a fixed loss takes S = S_min (1 + B_crit/B) steps and
D = D_min (1 + B/B_crit) tokens, with S_min = D_min / B_crit (McCandlish et al. 2018;
D = S B). The fit B_crit = 0.0471 D^0.462 sequences of 2,048 tokens is Bergsma et al. 2025; at
D = 15e12 it is extrapolated far beyond the batches and token counts that it was fitted on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ullage.slowdown.ranges import Array

TOKENS_A_SEQUENCE = 2_048
COEFFICIENT, EXPONENT = 0.0471, 0.462
REFERENCE_TOKENS = 15e12
STEP_SECONDS = 2.0
TOKENS_A_MICROBATCH = 8_192
ACCUMULATION = 8
EXTRAPOLATION = (100, 400)
"""By how many times the largest fitted run is passed at the token counts used here (the source's words)."""


def critical_batch(tokens: float = REFERENCE_TOKENS) -> float:
    """B_crit in tokens for a run of `tokens` tokens."""
    return COEFFICIENT * float(tokens**EXPONENT) * TOKENS_A_SEQUENCE


def minimal_steps(tokens: float = REFERENCE_TOKENS) -> float:
    """S_min: the steps that no batch size gets below."""
    return tokens / critical_batch(tokens)


def steps(batch_ratio: float, tokens: float = REFERENCE_TOKENS) -> float:
    """S(B) for a batch of `batch_ratio` times B_crit."""
    return minimal_steps(tokens) * (1 + 1 / batch_ratio)


def run_seconds(
    batch_ratio: float, tokens: float = REFERENCE_TOKENS, step_seconds: float = STEP_SECONDS
) -> float:
    """Seconds of a run of `tokens` with a batch of `batch_ratio` critical batches."""
    return steps(batch_ratio, tokens) * step_seconds


@dataclass(frozen=True)
class Cluster:
    """A fleet that trains one model: GPUs and how they are cut into replicas."""

    name: str
    gpus: int
    tensor: int
    pipeline: int
    expert: int
    published_ratio: float
    remark: str = ""

    @property
    def replicas(self) -> float:
        """GPUs / (TP PP EP), as the source counts. With DeepSeek-V3's own layout the ranks of an expert
        group read different tokens, so batches would be EP times as big and the cluster far more serial."""
        return self.gpus / (self.tensor * self.pipeline * self.expert)

    @property
    def batch(self) -> float:
        """Tokens a step at 8 accumulated micro-batches of 8,192."""
        return self.replicas * TOKENS_A_MICROBATCH * ACCUMULATION

    @property
    def batch_ratio(self) -> float:
        """beta = B / B_crit."""
        return self.batch / critical_batch()

    @property
    def bubble(self) -> int:
        """Micro-batches' worth of time that a 1F1B pipeline idles in each step: PP - 1."""
        return self.pipeline - 1


CLUSTERS = (
    Cluster("100 K GPUs, dense 300 B", 100_000, 8, 16, 1, 0.4),
    Cluster("1 M GPUs, dense 300 B", 1_000_000, 8, 16, 1, 4.0),
    Cluster("1 M GPUs, MoE like DeepSeek-V3", 1_000_000, 1, 16, 64, 0.5, "TP 1, PP 16, EP 64"),
    Cluster(
        "1 M GPUs, MoE of 2 T", 1_000_000, 1, 16, 320, 0.1,
        "the source does not print this layout; PP 16, EP 320 is assumed",
    ),
)  # fmt: skip


def fixed_step_slowdown(compute: Array, ratio: Array | float, serial: Array | float = 1.0) -> Array:
    """How much longer a run takes on the share `compute` of a cluster with beta = `ratio`.

    T = S_min (sigma + 1/(c beta)) t_step, over T_0 = S_min (1 + 1/beta) t_step: with c of the replicas
    the batch shrinks to c beta B_crit and the step keeps its length. `serial` (sigma >= 1) is the
    length of a step over t_step, where links make it longer and the batch grows with it.
    Limits: 1 at c = 1, sigma = 1; 1/c as beta -> 0; sigma as beta -> infinity.
    """
    with np.errstate(divide="ignore", over="ignore"):
        slow = (serial + 1 / (compute * ratio)) / (1 + 1 / np.asarray(ratio))
    return np.asarray(slow, dtype=np.float64)


def best_accumulation_slowdown(compute: Array, cluster: Cluster, factor: Array | float = 1.0) -> Array:
    """The same where the trainer also chooses how many micro-batches m to accumulate.

    A 1F1B pipeline with p = PP - 1 takes (m + p) t_micro a step, and the batch is m c b tokens with
    b = replicas * 8,192. With a = B_crit / b:  T = S_min t_micro (1 + a/(c m)) (m + p), least at
    m = sqrt(a p / c), where it is S_min t_micro (sqrt(p) + sqrt(a/c))^2 (m is taken as real, >= 1).
    Both runs are the best of their fleet, so this is smaller than the fixed-step figure: a cut fleet
    accumulates more and wins back its pipeline bubble.
    """
    need = ACCUMULATION * np.asarray(factor) / cluster.batch_ratio  # a
    bubble = cluster.bubble

    def time(share: Array | float) -> Array:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            count = np.maximum(1.0, np.sqrt(need * bubble / share))
            value = count + bubble + need / share + need * bubble / (share * count)
        return np.where(np.asarray(share) > 0, value, np.inf)

    return np.asarray(time(compute) / time(1.0), dtype=np.float64)


def training_slowdown(
    compute: Array, cluster: Cluster, factor: Array | float = 1.0, serial: Array | float = 1.0
) -> Array:
    """The smaller of both models: what a verifier can count on for this cluster type."""
    fixed = fixed_step_slowdown(compute, cluster.batch_ratio / np.asarray(factor), serial)
    adapted = best_accumulation_slowdown(compute, cluster, factor)
    return np.where(np.asarray(serial) <= 1.0, np.minimum(fixed, adapted), fixed)


@dataclass(frozen=True)
class ClusterRow:
    """One line of the cluster table, at one dark share and nothing else usable."""

    cluster: Cluster
    ratio: float
    days: float
    fixed_step: float
    best_accumulation: float


def cluster_table(dark_share: float) -> tuple[ClusterRow, ...]:
    """Both slowdowns of every cluster type at this dark share; what is dark alone trains."""
    share = np.array([dark_share])
    rows = []
    for cluster in CLUSTERS:
        fixed = float(fixed_step_slowdown(share, cluster.batch_ratio)[0]) if dark_share else math.inf
        adapted = float(best_accumulation_slowdown(share, cluster)[0])
        days = run_seconds(cluster.batch_ratio) / 86_400
        rows.append(ClusterRow(cluster, cluster.batch_ratio, days, fixed, adapted))
    return tuple(rows)
