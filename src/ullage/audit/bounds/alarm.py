"""The deviation alarm: evidence, token by token, that a server is not the declared one.

Null hypothesis H0(kappa), an assumption that is printed. Given everything before token t, and the gaps at
t (which follow from prefix and seed, not from the token),

    P(mismatch inside A_t)  <= pi_t = min(1, kappa * supremum over sessions of the flip curve + floor),
    P(token outside A_t(b)) <= floor.

Three outcomes, then, with two limits. For predictable rates r_in >= pi_t, r_out >= floor, r_in + r_out <= 1,

    e_t = r_in / pi_t  |  r_out / floor  |  c = (1 - r_in - r_out) / (1 - pi_t - floor)  if none

has mean c + rho_in (r_in / pi_t - c) + rho_out (r_out / floor - c), which rises in both true rates and is 1
where they equal their limits: at most 1 under H0. So the product over tokens is a test supermartingale, so
is an average of several, and by Ville it reaches 1/alpha with probability at most alpha, however long one
watches. (To take the two-outcome factor and put pi_t = floor when the token lies outside would look at y_t
before fixing the bet: its mean reaches 1 + theta.)

The average is over theta: a server that deviates at a share theta of its tokens, one in ten of these
outside, r_in = pi + 0.9 theta (1 - pi - floor), r_out = floor + 0.1 theta (1 - pi - floor), c = 1 - theta;
and over alternatives that the caller gives: the mismatch rate of noise several times as large, which is
what other weights or another precision look like. E-values: Vovk and Wang, Annals of Statistics 49 (2021);
Ramdas, Grünwald, Vovk and Shafer, Statistical Science 38 (2023).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UndecidedError, UsageError

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]

_THETAS: Final = (0.9, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
_OUTSIDE_PART: Final = 0.1


def mismatch_limits(supremum: Array, kappa: float, floor: float) -> Array:
    """pi_t, any shape, from the supremum curve's mismatch probability at the gaps of t."""
    if kappa < 1 or not 0 < floor < 1:
        raise UsageError("kappa is at least 1 and the floor lies between 0 and 1.")
    limits: Array = np.minimum(1.0, kappa * np.asarray(supremum, dtype=np.float64) + floor)
    return limits


def log_e_process(
    limits: Array, inside: Flags, outside: Flags, floor: float, alternatives: Sequence[Array] = ()
) -> Array:
    """ln E after each token, shape (..., T), tokens on the last axis; streams on the others.

    limits: pi_t. inside, outside: whether the token is a mismatch in A_t(b), and whether it lies outside of
    it; never both. alternatives: rates r_in, shaped like limits, that follow from prefix and seed (raised
    to pi_t where they lie below); they share half of the weight. Shorter streams are padded with limit 1,
    which is no evidence.
    """
    total = np.full(np.shape(limits), -np.inf)
    for log_weight, step in log_bets(limits, inside, outside, floor, alternatives):
        np.logaddexp(total, log_weight + np.cumsum(step, axis=-1), out=total)
    return total


def log_bets(
    limits: Array, inside: Flags, outside: Flags, floor: float, alternatives: Sequence[Array] = ()
) -> Iterator[tuple[float, Array]]:
    """What E is made of, arguments as above: for each bet the logarithm of its weight and, for each token,
    that of its factor, shape (..., T). E is the weighted sum of the products over tokens."""
    tokens = _Tokens(
        np.asarray(limits, dtype=np.float64),
        np.asarray(inside, dtype=np.bool_),
        np.asarray(outside, dtype=np.bool_),
        floor,
    )
    _check(tokens)
    limits, room = tokens.limits, tokens.room
    count = len(alternatives)
    theta_weight = (0.5 if count else 1.0) / len(_THETAS)
    for theta in _THETAS:
        step = _log_factors(
            tokens,
            limits + (1 - _OUTSIDE_PART) * theta * room,
            floor + _OUTSIDE_PART * theta * room,
        )
        yield math.log(theta_weight), step
    for rate in alternatives:
        highest = limits + 0.999 * room  # so that no step loses all of the capital
        raised = np.clip(np.asarray(rate, dtype=np.float64), limits, highest)
        step = _log_factors(tokens, raised, np.full(limits.shape, floor))
        yield math.log(0.5 / count), step


class _Tokens(NamedTuple):
    limits: Array
    inside: Flags
    outside: Flags
    floor: float

    @property
    def room(self) -> Array:
        """1 - pi_t - floor: what the limits leave to "no mismatch"; 0 if they leave nothing."""
        return np.maximum(1 - self.limits - self.floor, 0.0)


def _log_factors(tokens: _Tokens, rate_inside: Array, rate_outside: Array) -> Array:
    """ln e_t; 0 where the limits leave no room (pi_t + floor >= 1): such a token is no evidence."""
    informative = tokens.room > 0
    none = np.where(informative, 1 - rate_inside - rate_outside, 1.0) / np.where(
        informative, tokens.room, 1.0
    )
    matched = np.where(tokens.outside, rate_outside / tokens.floor, none)
    logs: Array = np.log(np.where(tokens.inside, rate_inside / tokens.limits, matched))
    return logs


def first_crossing(log_e: Array, alpha: float) -> NDArray[np.int64]:
    """Tokens seen when E first reached 1/alpha, shape (...); 0 if it never did."""
    if not 0 < alpha < 1:
        raise UsageError("The level alpha lies between 0 and 1.")
    crossed = log_e >= -math.log(alpha)
    if log_e.shape[-1] == 0:
        return np.zeros(log_e.shape[:-1], dtype=np.int64)
    tokens: NDArray[np.int64] = np.where(crossed.any(axis=-1), crossed.argmax(axis=-1) + 1, 0).astype(
        np.int64
    )
    return tokens


def log_supremum(log_e: Array) -> Array:
    """ln sup E of each stream, shape (...); at least 0, where every stream starts."""
    highest: Array = np.max(log_e, axis=-1, initial=0.0)
    return highest


def conformal_threshold(calibration: Array, alpha: float) -> float:
    """The distribution-free limit on a new stream's ln sup E: alarm if it lies *above*.

    calibration (m,): ln sup E of m honest streams that, with the new one, are exchangeable (unit: server
    run x prompt). The limit is the ceil((m+1)(1-alpha))-th smallest; the new one lies above it with
    probability at most alpha, over the calibration too (Vovk, Gammerman and Shafer, "Algorithmic Learning
    in a Random World" (2005)). So it promises nothing about the joint number of alarms over many streams
    that are held against one calibration. UndecidedError if m < 1/alpha - 1.
    """
    if not 0 < alpha < 1:
        raise UsageError("The level alpha lies between 0 and 1.")
    level = Fraction(str(alpha))  # as it is written, so that rounding never moves the rank
    streams = len(calibration)
    rank = math.ceil((streams + 1) * (1 - level))
    if rank > streams:
        raise UndecidedError(
            f"A distribution-free test at {alpha:g} takes at least {math.ceil(1 / level) - 1} honest "
            f"calibration streams; there are {streams}."
        )
    return float(np.sort(np.asarray(calibration, dtype=np.float64))[rank - 1])


def expected_leak_before_alarm(
    bits_per_message: float, audited_share: float, detection_probability: float, bits_while_lagging: float
) -> float:
    """Bits that leave before an alarm, on average: bits / (share * P(detect | audited)) + the lag's.

    A deviating message is audited with `audited_share` and then detected with `detection_probability`,
    independently each time, so the first alarm comes on average with message 1 / (share * P). Infinite if
    nothing is audited or detected.
    """
    if not (0 <= audited_share <= 1 and 0 <= detection_probability <= 1):
        raise UsageError("A share of messages and a probability lie between 0 and 1.")
    if bits_per_message < 0 or bits_while_lagging < 0:
        raise UsageError("Leaked bits are not negative.")
    if bits_per_message == 0:
        return bits_while_lagging
    chance = audited_share * detection_probability
    return bits_per_message / chance + bits_while_lagging if chance > 0 else math.inf


def _check(tokens: _Tokens) -> None:
    if not tokens.limits.shape == tokens.inside.shape == tokens.outside.shape or tokens.limits.ndim == 0:
        raise UsageError("Limits and both kinds of mismatch have one entry a token.")
    if not 0 < tokens.floor < 1 or not np.all((tokens.limits > 0) & (tokens.limits <= 1)):
        raise UsageError("The floor lies in (0, 1) and every limit in (0, 1].")
    if np.any(tokens.inside & tokens.outside):
        raise UsageError("A token lies inside its admissible set or outside, not both.")
