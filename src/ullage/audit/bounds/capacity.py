"""Figures of covert capacity beside the codelength: one estimate, one achievable rate, one count.

None of them is an upper bound for every strategy; `codelength` is. A_t(b) are the tokens that the noise
bound b admits at position t, N_b = |A_t(b)| its size on honest paths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import t as student_t

from ullage.audit.bounds.noise_model import FlipCurve
from ullage.errors import UndecidedError, UsageError

Array = NDArray[np.float64]


def admissible_path_capacity(
    mean_log2_admissible: float, tolerated_share: float, tolerated_far_share: float, rank: int,
    vocabulary_size: int,
) -> float:  # fmt: skip
    """C(b, K) in bits/token: H(p) + E[log2 N_b] + p [H(q) + (1-q) log2 K + q log2(V-K)].

    p is the share of tokens that the *rule* tolerates outside A_t(b), at most 1/2, and q the share of those
    that it tolerates at rank >= K; neither is the honest rate. H(p) is the choice of where to deviate. The
    figure counts the transcripts that the rule accepts if their contexts were as ambiguous as honest
    ones: an estimate, because an attacker steers towards contexts that are more so. A rule without a limit
    on far tokens has q = 1.

    Both shares are upper limits, so the figure is the largest over everything below them: H(p) + p c rises
    up to p = 1/2, and the bracket rises in q up to (V - K) / V, where it is log2 V.
    """
    p, q, k = tolerated_share, tolerated_far_share, rank
    if not 0 <= p <= 0.5:
        raise UsageError("The share of tokens that a rule tolerates outside the set lies in [0, 1/2].")
    if not 0 <= q <= 1:
        raise UsageError("The share of far tokens lies between 0 and 1.")
    if not 1 <= k < vocabulary_size:
        raise UsageError("The rank from which a token is far lies between 1 and the vocabulary's size.")
    if mean_log2_admissible < 0:
        raise UsageError("An admissible set has at least one token, so the mean of its log2 is not negative.")
    q = min(q, (vocabulary_size - k) / vocabulary_size)
    outside = binary_entropy(q) + (1 - q) * math.log2(k) + q * math.log2(vocabulary_size - k)
    return binary_entropy(p) + mean_log2_admissible + p * outside


@dataclass(frozen=True)
class ClusteredRatio:
    """sum of numerators / sum of denominators with a two-sided interval that counts clusters."""

    value: float
    low: float
    high: float
    confidence: float
    clusters: int


def clustered_ratio(
    numerator: Array, denominator: Array, clusters: NDArray[np.int64], confidence: float
) -> ClusteredRatio:
    """A ratio of sums over messages, (N,) each, with the cluster (session, prompt) as the unit.

    Linearised variance of a ratio (Cochran, "Sampling Techniques", 3rd ed. 1977, section 6.3, with sums
    over clusters as the observations) and Student's t with one degree of freedom fewer than clusters.
    With a handful of clusters, or one that dominates, the interval is too narrow. UndecidedError for fewer
    than two clusters.

    For a uniform walk through the admissible sets, numerator = each message's sum of log2 |A_t| and
    denominator = its tokens, the value is the walk's entropy per token: each token is uniform on A_t given
    its prefix, so the sum's mean is the entropy of the transcript (chain rule), which an arithmetic coder
    turns into payload, up to 2 bits a message, without leaving the sets. So `low` is an achievable *lower*
    bound on what the rule lets through. The same function gives the mean codelength its interval.
    """
    if not len(numerator) == len(denominator) == len(clusters):
        raise UsageError("Numerators, denominators and clusters have one row a message.")
    if not 0 < confidence < 1:
        raise UsageError("A confidence lies between 0 and 1.")
    _, place = np.unique(clusters, return_inverse=True)
    count = int(place.max(initial=-1)) + 1
    if count < 2:
        raise UndecidedError(f"An interval over sessions takes at least two; there are {count}.")
    above, below = np.bincount(place, weights=numerator), np.bincount(place, weights=denominator)
    if below.sum() <= 0:
        raise UndecidedError("There is no token to give a rate for.")
    value = float(above.sum() / below.sum())
    residual = above - value * below
    deviation = math.sqrt(count / (count - 1) * float(residual @ residual)) / float(below.sum())
    reach = float(student_t.ppf((1 + confidence) / 2, count - 1)) * deviation
    return ClusteredRatio(value, value - reach, value + reach, confidence, count)


def bootstrap_ratio(
    numerator: Array,
    denominator: Array,
    clusters: NDArray[np.int64],
    confidence: float,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> ClusteredRatio:
    """The same ratio with a percentile interval over resampled clusters, or the linearised one if wider.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3. Percentiles of few clusters
    are too narrow, which Student's t is not, and the linearised interval misses skewness, which percentiles
    show: so the hull of both. Errors as `clustered_ratio`'s.
    """
    linear = clustered_ratio(numerator, denominator, clusters, confidence)
    _, place = np.unique(clusters, return_inverse=True)
    above, below = np.bincount(place, weights=numerator), np.bincount(place, weights=denominator)
    drawn = np.random.default_rng(seed).multinomial(
        linear.clusters, np.full(linear.clusters, 1 / linear.clusters), size=resamples
    )
    total = drawn @ below
    ratios = np.divide(drawn @ above, total, out=np.full(resamples, linear.value), where=total > 0)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2])
    return replace(linear, low=min(float(low), linear.low), high=max(float(high), linear.high))


@dataclass(frozen=True)
class CountEstimate:
    """log2 of the estimated number of transcripts, and how far it can be trusted.

    `largest_share` is the largest walk's part of the sum, `effective_walks` = (sum w)^2 / sum w^2: when one
    walk carries much of the sum, the heavy tail has not been seen and the figure falls short.
    """

    log2_count: float
    largest_share: float
    effective_walks: float
    walks: int


def knuth_count(log2_products: Array) -> CountEstimate:
    """How many transcripts lie inside the sets, for one prompt and seed, from `log2_products` (walks,).

    Knuth, "Estimating the efficiency of backtrack programs" (1975): a uniform walk ends in a given leaf
    with probability 1 / product of |A_t|, so the mean of the products is the number of leaves: unbiased.
    But the products have a heavy tail, and the logarithm of a mean falls short on average (Jensen): an
    estimate, never an upper bound.
    """
    log2_products = np.asarray(log2_products, dtype=np.float64)
    if not len(log2_products):
        raise UndecidedError("A count takes at least one walk.")
    if not np.all(np.isfinite(log2_products)) or np.any(log2_products < 0):
        raise UsageError("A product of sizes of admissible sets is at least 1 and finite.")
    logs = log2_products * math.log(2)
    total = float(logsumexp(logs))
    return CountEstimate(
        log2_count=(total - math.log(len(logs))) / math.log(2),
        largest_share=math.exp(float(logs.max()) - total),
        effective_walks=math.exp(2 * total - float(logsumexp(2 * logs))),
        walks=len(logs),
    )


def traceless_bits_per_mismatch(curve: FlipCurve) -> float:
    """C0 / eps: bits a token that leave no trace at all, per honest mismatch.

    A server whose transcripts have exactly the honest law still chooses among them: H(Y | prefix, seed) =
    E[H2(f(gap))] bits a token. With gaps of constant density near 0, and eps = E[f(gap)] the honest
    mismatch rate, the ratio is the integral of H2(f) over that of f: 3.266 for a Gaussian, 4.53 for
    Student's t with 2 degrees of freedom, without limit as they approach 1. The cutoff is ignored.
    """
    if curve.degrees_of_freedom <= 1.1:
        return math.inf  # the integral of H2(f) no longer converges in practice, at 1 neither does that of f
    frozen = student_t(curve.degrees_of_freedom)
    # x = u / (1 - u) maps the half line to (0, 1), where the heavy tail is a mild singularity.
    above = quad(lambda u: binary_entropy(float(frozen.sf(u / (1 - u)))) / (1 - u) ** 2, 0, 1, limit=200)[0]
    below = quad(lambda u: float(frozen.sf(u / (1 - u))) / (1 - u) ** 2, 0, 1, limit=200)[0]
    return float(above / below)


def binary_entropy(probability: float) -> float:
    """H(p) in bits."""
    p = probability
    if p in (0.0, 1.0):
        return 0.0
    return -(p * math.log2(p) + (1 - p) * math.log1p(-p) / math.log(2))
