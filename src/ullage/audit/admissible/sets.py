"""Admissible sets: the tokens that win for some perturbation of the logits within a bound.

Raw logits l (V,), temperature T, z = l/T, noise g (V,). The token is the argmax over the filtered set (top-k,
then top-p) of z + g. If the prover's raw logits differ from the reference's by at most b, after one common
shift is removed, then each z_v is off by at most beta = b/T, and

    A(beta) = {y : y wins for some x with |x_v - z_v| <= beta, filters applied to x}.

Without filters y is in A iff its margin is at most 2 beta. With filters the test is exact, too; the theorem,
the treatment of ties and the error of the noise are in docs/proofs/admissible-sets.md, the test itself in
`filter_edges.py`. The noise's own error is best given as `NoiseInterval`; adding it to beta is sound and
admits a little more. Everything is float64; all functions work on blocks of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ullage.audit.admissible.block import (
    AdmissibleSets,
    Block,
    Logits,
    Mask,
    Noise,
    NoiseInterval,
    padded,
    shifted,
)
from ullage.audit.admissible.filter_edges import FilterRule, Floats, Integers, edges
from ullage.errors import UsageError

__all__ = [
    "AdmissibleSets",
    "NoiseInterval",
    "admissible",
    "cumulative_sum_tolerance",
    "greedy_admissible",
    "inverse_transform_admissible",
    "is_admissible",
    "is_greedy_admissible",
    "is_within_margin",
]

_BLOCK_ELEMENTS = 1 << 19


def cumulative_sum_tolerance(vocabulary: int, *, sequential: bool = False) -> float:
    """How far an engine's float32 cumulative probability may be from the exact one, any V.

    Every rounding is at most 2^-24 relative. A scan over blocks adds each term in at most 2 log2 V steps, a
    sequential loop in V (its a-priori bound; the usual error is far smaller). 64 more roundings cover 1 - p
    and the softmax (exponents up to 32 in size for tokens that carry mass, exp, sum, division).
    """
    depth = vocabulary if sequential else 2 * math.ceil(math.log2(max(vocabulary, 2)))
    return (depth + 64) * 2.0**-24


def admissible(
    logits: Logits,
    noise: Noise,
    *,
    temperature: float,
    beta: float | Floats,
    top_k: int = 0,
    top_p: float = 1.0,
    probability_tolerance: float | None = None,
) -> AdmissibleSets:
    """A_t(beta) for each row of raw logits (T, V).

    `noise`: (T, V), bounds on it, or a function of (row indices, token ids), both (N,), which is asked only
    for tokens that can matter (all of them without filters; `Noise.at` of ullage.sampling fits). `beta`: in
    z-units, = b/T, a number or (T,). `probability_tolerance` widens top-p for the engine's rounding; None
    stands for `cumulative_sum_tolerance(V)`. A temperature of 0 is greedy, with `beta` in raw units then.
    Raises UsageError for parameters and shapes, FaultError for logits that are NaN or +inf.
    """
    parts = []
    bounds = _bounds(beta, len(logits))
    if temperature == 0:
        return greedy_admissible(logits, bounds)
    rule = _rule(logits, temperature, top_k, top_p, probability_tolerance)
    for rows in _blocks(logits):
        block = Block.of(logits[rows], noise, rows, temperature=temperature, beta=bounds[rows], rule=rule)
        parts.append(block.sets(block.members(block.candidates())))
    return _join(parts)


def is_admissible(
    logits: Logits,
    noise: Noise,
    claimed: Integers,
    *,
    temperature: float,
    beta: float | Floats,
    top_k: int = 0,
    top_p: float = 1.0,
    probability_tolerance: float | None = None,
) -> Mask:
    """Whether each claimed token (T,) is in its row's set: `admissible`'s arguments, no enumeration."""
    bounds = _bounds(beta, len(logits))
    given = np.asarray(claimed)
    if given.shape != (len(logits),) or (given.size and (given.min() < 0 or given.max() >= logits.shape[1])):
        raise UsageError(f"Claimed tokens must be {len(logits)} ids within the vocabulary.")
    if temperature == 0:
        return is_greedy_admissible(logits, given, bounds)
    rule = _rule(logits, temperature, top_k, top_p, probability_tolerance)
    found = np.zeros(len(logits), np.bool_)
    for rows in _blocks(logits):
        block = Block.of(logits[rows], noise, rows, temperature=temperature, beta=bounds[rows], rule=rule)
        found[rows] = block.admits(given[rows])
    return found


def greedy_admissible(logits: Logits, b: float | Floats) -> AdmissibleSets:
    """Temperature 0: y is in A(b) iff max l - l_y <= 2b; b in raw logit units, a number or (T,)."""
    bounds = _bounds(b, len(logits))
    parts = [AdmissibleSets.of_mask(shifted(logits[rows], 1.0) >= -_wide(bounds[rows])[:, None])
             for rows in _blocks(logits)]  # fmt: skip
    return _join(parts)


def is_greedy_admissible(logits: Logits, claimed: Integers, b: float | Floats) -> Mask:
    """Membership of claimed tokens (T,) in `greedy_admissible`'s sets."""
    bounds = _wide(_bounds(b, len(logits)))
    found = np.zeros(len(logits), np.bool_)
    for rows in _blocks(logits):
        z = shifted(logits[rows], 1.0)
        found[rows] = z[np.arange(len(z)), claimed[rows]] >= -bounds[rows]
    return found


def is_within_margin(margin: Floats, b: float | Floats, noise_error: float = 0.0) -> Mask:
    """Without filters: margin <= 2 (b + noise_error), all in raw logit units, any shape (see `Scores`)."""
    return np.asarray(margin <= _wide(np.asarray(b, np.float64) + noise_error))


def inverse_transform_admissible(
    logits: Logits,
    uniforms: Floats,
    *,
    temperature: float,
    beta: float | Floats,
    top_k: int = 0,
    top_p: float = 1.0,
    probability_tolerance: float | None = None,
) -> AdmissibleSets:
    """Sets of the inverse-transform profile with uniforms (T,): exact without filters, else a superset.

    Without filters: the log-odds margin of ullage.sampling.inverse_transform is at most 2b, up to the
    tolerance, by which u is widened both ways (0 for an engine that sums in float64). With filters: every
    edge of the cumulative distribution is bounded by the tokens that survive everywhere and those that
    survive somewhere in the box, each as large or as small as it can be, which cannot always be had at once.
    """
    bounds = _bounds(beta, len(logits))
    if np.shape(uniforms) != (len(logits),):
        raise UsageError(f"{len(logits)} rows of logits need as many uniforms.")
    if temperature == 0:
        return greedy_admissible(logits, bounds)
    rule = _rule(logits, temperature, top_k, top_p, probability_tolerance)
    tolerance = (
        cumulative_sum_tolerance(logits.shape[1]) if probability_tolerance is None else probability_tolerance
    )
    parts = []
    for rows in _blocks(logits):
        z, beta_here = shifted(logits[rows], temperature), padded(bounds[rows])
        edge = edges(z, beta_here, rule)
        somewhere = z >= edge.survivable[:, None]
        weights, grow = np.exp(z), np.exp(np.minimum(2 * beta_here, 700.0))[:, None]
        possible, certain = np.where(somewhere, weights, 0.0), weights * (z >= edge.certain[:, None])
        low = np.clip(uniforms[rows] - tolerance, 0.0, 1.0)[:, None]
        high = np.clip(uniforms[rows] + tolerance, 0.0, 1.0)[:, None]
        # Odds of {ids < y} can be made <= those of u, and odds of {ids <= y} >= them.
        before, after = _exclusive_sums(certain), _exclusive_sums(certain[:, ::-1])[:, ::-1]
        from_here = np.cumsum(possible[:, ::-1], axis=1)[:, ::-1]
        starts = before * (1 - high) <= high * grow * from_here
        ends = np.cumsum(possible, axis=1) * grow * (1 - low) >= low * after
        parts.append(AdmissibleSets.of_mask(somewhere & starts & ends))
    return _join(parts)


def _rule(
    logits: Logits, temperature: float, top_k: int, top_p: float, tolerance: float | None
) -> FilterRule:
    if not 0 < temperature < math.inf:
        raise UsageError(f"The temperature is {temperature}; use a finite number that is not negative.")
    vocabulary = logits.shape[1]
    if tolerance is None:
        tolerance = cumulative_sum_tolerance(vocabulary)
    return FilterRule.of(top_k, top_p, vocabulary, tolerance)


def _bounds(beta: float | Floats, rows: int) -> Floats:
    bounds = np.asarray(beta, np.float64)
    if bounds.shape not in ((), (rows,)) or not np.isfinite(bounds).all() or (bounds < 0).any():
        raise UsageError("The bound on the logits must be a finite number >= 0, or one for each row.")
    return np.broadcast_to(bounds, (rows,))


def _wide(b: Floats) -> Floats:
    return 2 * padded(b)


def _blocks(logits: Logits) -> Iterator[slice]:
    if logits.ndim != 2 or logits.shape[1] == 0:
        raise UsageError(f"Logits must have shape (rows, vocabulary), not {logits.shape}.")
    step = max(1, _BLOCK_ELEMENTS // logits.shape[1])
    return (slice(start, min(start + step, len(logits))) for start in range(0, len(logits), step))


def _join(parts: list[AdmissibleSets]) -> AdmissibleSets:
    counts = np.concatenate([np.zeros(1, np.int64), *(part.counts for part in parts)])
    tokens = np.concatenate([np.zeros(0, np.int64), *(part.tokens for part in parts)])
    return AdmissibleSets(np.cumsum(counts), tokens)


def _exclusive_sums(weights: Floats) -> Floats:
    """Sums of all entries before each one, (B, V)."""
    sums = np.zeros_like(weights)
    np.cumsum(weights[:, :-1], axis=1, out=sums[:, 1:])
    return sums
