"""Intervals for the share of tokens that mismatch, and how many tokens a decision takes.

`clopper_pearson` counts tokens as independent trials. Tokens of one response are not: whether a server's
arithmetic comes out differently depends on the context that they share. So `cluster_bootstrap` stands
beside it, which draws whole records; the verdict's rule uses the former.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, hypergeom

from ullage.errors import UsageError

_RESAMPLES_AT_ONCE = 64
_TOKENS_SEARCHED = 1 << 40


def lower_bound(mismatches: float, tokens: float, confidence: float) -> float:
    """One-sided Clopper–Pearson bound: with this confidence the rate is at least that.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", Biometrika 26 (1934), in its form as a beta quantile: B(1 - c; k, n - k + 1).
    """
    _check(mismatches, tokens, confidence)
    if mismatches == 0:
        return 0.0
    return float(beta.ppf(1 - confidence, mismatches, tokens - mismatches + 1))


def upper_bound(mismatches: float, tokens: float, confidence: float) -> float:
    """One-sided Clopper–Pearson bound: with this confidence the rate is at most that.

    B(c; k + 1, n - k); 1 if there are no tokens. Same source as `lower_bound`.
    """
    _check(mismatches, tokens, confidence)
    if mismatches == tokens:
        return 1.0
    return float(beta.ppf(confidence, mismatches + 1, tokens - mismatches))


@dataclass(frozen=True)
class Rate:
    """A share of trials, with the two-sided interval at `confidence`."""

    mismatches: int
    tokens: int
    low: float
    high: float
    confidence: float

    @property
    def value(self) -> float:
        """Mismatches per token; NaN without tokens."""
        return self.mismatches / self.tokens if self.tokens else math.nan


def clopper_pearson(mismatches: int, tokens: int, confidence: float) -> Rate:
    """The rate with its two-sided Clopper–Pearson interval (half of the error on either side)."""
    one_sided = (1 + confidence) / 2
    return Rate(
        mismatches=mismatches,
        tokens=tokens,
        low=lower_bound(mismatches, tokens, one_sided),
        high=upper_bound(mismatches, tokens, one_sided),
        confidence=confidence,
    )


def cluster_bootstrap(
    mismatches: NDArray[np.int64],
    tokens: NDArray[np.int64],
    confidence: float,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Percentile interval of the rate over resampled records; `mismatches` and `tokens` are (records,).

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3, with the record as the
    unit. None where it says nothing: fewer than two records, or no mismatch at all (every resample would
    be clean too).
    """
    if len(mismatches) != len(tokens):
        raise ValueError("one count of mismatches and one of tokens for each record")
    used = tokens > 0
    mismatches, tokens = mismatches[used], tokens[used]
    records = len(tokens)
    if records < 2 or not mismatches.any():
        return None
    generator = np.random.default_rng(seed)
    rates = np.empty(resamples)
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        stop = min(start + _RESAMPLES_AT_ONCE, resamples)
        drawn = generator.integers(0, records, size=(stop - start, records))
        rates[start:stop] = mismatches[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
    low, high = np.quantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def undetected_upper_bound(population: int, sample: int, found: int, confidence: float) -> float:
    """With this confidence at most that share of `population` records is like the `found` ones of `sample`.

    The sample is uniform, without replacement. The largest k of which `found` or fewer would be drawn with
    a probability above 1 - confidence (hypergeometric; the bound is its inverse, as Clopper–Pearson's is of
    the binomial). 1 without a sample.
    """
    if not 0 <= found <= sample <= population:
        raise UsageError(f"There cannot be {found} of {sample} records out of {population}.")
    if not 0 < confidence < 1:
        raise UsageError("A confidence lies between 0 and 1.")
    if sample == 0:
        return 1.0
    low, high = found, population - (sample - found)  # the probability falls from one to the other
    while low < high:
        middle = (low + high + 1) // 2
        if hypergeom.cdf(found, population, middle, sample) > 1 - confidence:
            low = middle
        else:
            high = middle - 1
    return low / population


def tokens_to_decide(mismatches: int, tokens: int, limit: float, confidence: float) -> int | None:
    """How many tokens in all would decide against `limit`, if the observed rate went on.

    Bounds are evaluated at real-valued counts, so the answer is a good guess, not a promise. None if the
    rate lies on the limit, or so close that 2^40 tokens would not do.
    """
    rate = mismatches / tokens if tokens else 0.0

    def passes(total: float) -> bool:
        return upper_bound(rate * total, total, confidence) < limit

    def fails(total: float) -> bool:
        return lower_bound(rate * total, total, confidence) > limit

    return _smallest(passes if rate < limit else fails, max(tokens, 1))


def _smallest(decided: Callable[[float], bool], start: int) -> int | None:
    """The smallest integer >= `start` for which the monotone `decided` holds, by doubling and halving."""
    high = start
    while not decided(high):
        high *= 2
        if high > _TOKENS_SEARCHED:
            return None
    low = start
    while low < high:
        middle = (low + high) // 2
        if decided(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _check(mismatches: float, tokens: float, confidence: float) -> None:
    if not 0 <= mismatches <= tokens:
        raise UsageError(f"There cannot be {mismatches} mismatches in {tokens} tokens.")
    if not 0 < confidence < 1:
        raise UsageError("A confidence lies between 0 and 1.")
