"""Statements with a confidence: an upper bound on a window's covert share from a random part of it.

The unit is the message. Message i has n_i tokens and the codelength L_i; mixed with the uniform code,

    L'_i = -log2[(1 - w) 2^-L_i + w V^-n_i],   w = 2^-20,   0 <= L'_i <= D_i = n_i log2 V + 20,

so X_i = L'_i / D_i lies in [0, 1] whatever the message is. The claim is sum of L' <= x * sum of D.

Draws are with replacement and *proportional to D_i*: then E[X] = sum of (D_i / sum D) (L'_i / D_i) =
sum of L' / sum of D, exactly the claim's x. Drawing proportional to n_i is not: it gives short messages,
in which the 20 bits weigh most, too little weight, and a leak in them is missed. `message_weights` rounds
D_i up to multiples of 2^-20 bit, so that the draw is over integers that anyone can re-derive.

The bound is by betting (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", JRSS B 86 (2024)). If the mean were >= x, a gambler whose capital is multiplied by
1 + lambda (x - X_i), 0 <= lambda <= 1/(1-x), could not expect to gain; with probability 1 - alpha the
capital never reaches 1/alpha (Ville). So every x at which it does is rejected, at any time and under any
rule for stopping. Here lambda = c / (1-x) with c on a fixed grid, and the capital is the grid's average.
With c fixed each factor (1 - x + c x - c X) / (1 - x) rises with x, so the capital does, and what is not
rejected is an interval [0, bound).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from ullage.errors import UndecidedError, UsageError

Array = NDArray[np.float64]

UNIFORM_SHARE_BITS: Final = 20
WEIGHT_UNITS_PER_BIT: Final = 1 << 20

# Relative stakes c and the share of the first capital put on each. An honest window's X are all small,
# where c = 1 is best and the others near it almost as good; the rest are for rare large X.
_STAKES: Final = np.array(
    [1.0, 0.98, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01]
)  # fmt: skip
_SHARES: Final = np.array(
    [0.5, 0.05, 0.05, 0.05, 0.05, 0.05, 0.04, 0.04, 0.04, 0.04, 0.03, 0.03, 0.02, 0.005, 0.005]
)  # fmt: skip
# The capital is looked at after every 16th draw and after the last: 16 factors, each at least about 1e-19,
# multiply without underflow, which saves 15 of 16 logarithms.
_BLOCK: Final = 16
_LEAST_MEAN: Final = 1e-12
_PRECISION: Final = 1e-5
_MOST_DRAWS: Final = 1e18


def mixed_codelength(codelength: Array, lengths: NDArray[np.int64], vocabulary_size: int) -> Array:
    """L' in bits, shape (N,), from L (N,) in bits and the messages' tokens (N,).

    At most L + 1.4e-6 and at most n log2 V + 20. An L of inf (a message that could not be recomputed)
    gives the latter.
    """
    codelength, lengths = np.asarray(codelength, dtype=np.float64), np.asarray(lengths, dtype=np.int64)
    if np.any(np.isnan(codelength)) or np.any(codelength < 0) or np.any(lengths < 0) or vocabulary_size < 2:
        raise UsageError("Codelengths and lengths are not negative, and a vocabulary has two tokens or more.")
    uniform = -UNIFORM_SHARE_BITS - lengths * math.log2(vocabulary_size)
    kept = math.log1p(-(2.0**-UNIFORM_SHARE_BITS)) / math.log(2)
    mixed: Array = np.maximum(-np.logaddexp2(kept - codelength, uniform), 0.0)
    return mixed


def message_weights(lengths: NDArray[np.int64], vocabulary_size: int) -> NDArray[np.int64]:
    """D_i = n_i log2 V + 20 in units of 2^-20 bit, rounded up, shape (N,): the draw's weights.

    `draw_proportional` takes them as they are. UsageError if their sum passes 2^63, which a window of 10^11
    tokens does not.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if np.any(lengths < 0) or vocabulary_size < 2:
        raise UsageError("Lengths are not negative, and a vocabulary has two tokens or more.")
    bits = lengths * math.log2(vocabulary_size) + UNIFORM_SHARE_BITS
    if float(bits.sum()) * WEIGHT_UNITS_PER_BIT >= 2.0**63:
        raise UsageError("The window is too large to be drawn from at once; audit it in parts.")
    weights: NDArray[np.int64] = np.ceil(bits * WEIGHT_UNITS_PER_BIT).astype(np.int64)
    return weights


def message_shares(mixed: Array, weights: NDArray[np.int64]) -> Array:
    """X_i = L'_i / D_i, shape (N,), in [0, 1]; for drawn messages, one entry a draw."""
    shares: Array = np.minimum(np.asarray(mixed, dtype=np.float64) * WEIGHT_UNITS_PER_BIT / weights, 1.0)
    return shares


def exact_share(mixed: Array, weights: NDArray[np.int64]) -> float:
    """sum of L' / sum of D of a window that was audited whole: exact, with no confidence to state."""
    if not len(mixed):
        raise UndecidedError("A window without messages has no share.")
    return float(np.sum(mixed)) * WEIGHT_UNITS_PER_BIT / float(np.sum(weights))


def covert_bits(share: float, weights: NDArray[np.int64]) -> float:
    """x * sum of D: the window's covert bits at share x.

    To state a share of the output, divide this by the output's bits (n log2 V summed, or UTF-8): the 20
    bits a message make that larger than x.
    """
    return share * float(np.sum(weights)) / WEIGHT_UNITS_PER_BIT


def log_capital(values: Array, mean: float) -> float:
    """The largest natural logarithm of the capital so far, betting against "the mean is >= `mean`".

    `values` (n,) are X in the order of drawing. At least 0, the capital at the start.
    """
    path = _log_capital_path(_checked(values), mean)
    return max(0.0, float(path.max(initial=0.0)))


def rejects(values: Array, mean: float, alpha: float) -> bool:
    """Whether "the mean is >= `mean`" is rejected at level alpha."""
    _check_alpha(alpha)
    return log_capital(values, mean) >= -math.log(alpha)


def upper_bound(values: Array, alpha: float) -> float:
    """With confidence 1 - alpha over the draw, the mean of X is at most this; values (n,) in [0, 1].

    The smallest rejected mean, rounded up within 1e-5 of itself; 1 if nothing is rejected. Anytime-valid:
    draws may be added until the answer is good enough.
    """
    return _upper_bound(_checked(values), alpha, at_end=False)


def upper_bound_at_end(values: Array, alpha: float) -> float:
    """As `upper_bound`, but from the capital after the last draw alone, for draws in an unknown order.

    By Markov's inequality instead of Ville's: the capital does not depend on the order, so nobody gains by
    arranging it; the number of draws has to be fixed beforehand.
    """
    return _upper_bound(_checked(values), alpha, at_end=True)


def _upper_bound(values: Array, alpha: float, *, at_end: bool) -> float:
    _check_alpha(alpha)
    threshold = -math.log(alpha)

    def rejected(mean: float) -> bool:
        path = _log_capital_path(values, mean)
        return bool(len(path)) and float(path[-1] if at_end else path.max()) >= threshold

    low, high = _LEAST_MEAN, 1 - 1e-9
    if not rejected(high):
        return 1.0
    while high > low * (1 + _PRECISION):
        middle = math.sqrt(low * high)
        if rejected(middle):
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True)
class DrawsNeeded:
    """How many draws a statement takes if the true mean is known: between the two."""

    at_best: int
    at_worst: int


def draws_needed(bound: float, alpha: float, mean: float) -> DrawsNeeded:
    """Draws until "the mean is >= `bound`" is rejected when it is `mean` in truth.

    At best all X equal the mean: about ln(1/alpha) / (bound - mean); at worst they are 0 or 1: about
    ln(1/alpha) / KL(mean ‖ bound). Both with what the mixture over stakes costs; typical, not guaranteed.
    UndecidedError if the mean does not lie below the bound.
    """
    _check_alpha(alpha)
    if not (0 <= mean <= 1 and 0 < bound < 1):
        raise UsageError("A mean lies in [0, 1] and a bound in (0, 1).")
    if mean >= bound:
        raise UndecidedError(
            f"A mean of {mean:.3g} does not lie below {bound:.3g}: no number of draws shows that it does."
        )
    with np.errstate(divide="ignore"):
        even = np.log1p(-bound * (1 - _STAKES) - _STAKES * mean) - math.log1p(-bound)
        hit = np.log1p(-_STAKES)  # (1-c)(1-x) / (1-x)
        miss = np.log1p(-bound * (1 - _STAKES)) - math.log1p(-bound)
        uneven = (1 - mean) * miss + (mean * hit if mean > 0 else 0.0)
    return DrawsNeeded(_time_to(alpha, even), _time_to(alpha, uneven))


def _time_to(alpha: float, growth: Array) -> int:
    """The least n at which the grid's average of e^(n growth) reaches 1/alpha."""

    def reached(draws: float) -> bool:
        return float(logsumexp(np.log(_SHARES) + draws * growth)) >= -math.log(alpha)

    return _least(reached)


def _least(reached: Callable[[float], bool]) -> int:
    high = 1.0
    while not reached(high):
        high *= 2
        if high > _MOST_DRAWS:
            raise UndecidedError("The mean lies so close below the bound that no audit would show it.")
    low = high / 2
    while high - low > max(0.5, high * 1e-12):
        middle = (low + high) / 2
        if reached(middle):
            high = middle
        else:
            low = middle
    return math.ceil(high)


def _log_capital_path(values: Array, mean: float) -> Array:
    """Log capital after draws 16, 32, …, n: shape (looks,); values (n,) are checked."""
    if not 0 < mean < 1:
        raise UsageError("A mean to bet against lies between 0 and 1.")
    draws = len(values)
    looks = -(-draws // _BLOCK)
    seen = np.minimum(np.arange(1, looks + 1) * _BLOCK, draws)
    path = np.full(looks, -np.inf)
    factors = np.ones(looks * _BLOCK)
    with np.errstate(divide="ignore"):
        for stake, share in zip(_STAKES, _SHARES, strict=True):
            # The factor's numerator 1 - x + c x - c X; the denominator 1 - x comes off in the logarithm.
            np.multiply(values, -stake, out=factors[:draws])
            factors[:draws] += 1 - mean * (1 - stake)
            np.maximum(factors, 0.0, out=factors)
            growth = np.cumsum(np.log(factors.reshape(looks, _BLOCK).prod(axis=1)))
            np.logaddexp(path, math.log(share) + growth, out=path)
    path -= seen * math.log1p(-mean)
    return path


def _checked(values: Array) -> Array:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0) & (values <= 1)):
        raise UsageError("The drawn shares are one list of numbers in [0, 1].")
    return values


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise UsageError("The level alpha lies between 0 and 1.")
