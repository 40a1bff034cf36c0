"""Codelength: how many bits it takes to say what was delivered, to someone who holds the reference.

Row t of a response has the noise model's distribution P~_t (`noise_model`), which is known before the
token y_t is looked at. With a floor l spread over the vocabulary it becomes the code

    Q_t(v) = (1 - l) P~_t(v) + l / V,        L_t = -log2 Q_t(y_t)   bits,

and the codelength L of a message, or of a whole window, is the sum over its rows.

Why this bounds what can be hidden. Let M be a payload of k uniform bits, and let the environment E
(prompts or the rule that makes them, seeds, reference, calibration) be independent of M. Then for every
strategy of the server and every decoder, for every s >= 0,

    P(M is decoded and L <= k - s) <= 2^-s        and        E[L] >= I(M; transcript | E).

Proof of the first. Given E, Q(y) = prod_t Q_t(y_t) sums to at most 1 over finished transcripts, because
Q_t depends on E and y_1 … y_{t-1} only. A transcript is decoded to one payload, so the sets
Y_m = {y decoded to m, L(y) <= k - s} are disjoint; each that is not empty holds a y with
Q(y) >= 2^-(k-s); so at most 2^(k-s) of the 2^k payloads have one. Proof of the second. Given E,
E[L] = H(Y) + KL(law of Y ‖ Q) >= H(Y) >= I(M; Y). Both with their assumptions, and what happens where one
fails, are in `docs/proofs/covert-capacity.md`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UsageError

DEFAULT_FLOOR = 1e-4
DEFAULT_CUT_SHARE = 2.0**-10


def token_codelength(
    probability: NDArray[np.float64], vocabulary_size: int, floor: float = DEFAULT_FLOOR
) -> NDArray[np.float64]:
    """L_t in bits, shape (T,), from P~_t(y_t), shape (T,).

    Lies between -log2(1 - l + l/V) and log2(V / l). UsageError unless probabilities lie in [0, 1],
    0 < floor < 1 and the vocabulary has at least two tokens.
    """
    _check_code(vocabulary_size, floor)
    probability = np.asarray(probability, dtype=np.float64)
    if not np.all((probability >= 0) & (probability <= 1)):
        raise UsageError("A probability of a token lies between 0 and 1.")
    coded: NDArray[np.float64] = -np.log2((1 - floor) * probability + floor / vocabulary_size)
    return coded


def sum_by_message(values: NDArray[np.float64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums of consecutive runs: (T,) rows in messages of `lengths` (N,) rows give (N,); empty ones give 0."""
    lengths = np.asarray(lengths, dtype=np.int64)
    if np.any(lengths < 0) or int(lengths.sum()) != len(values):
        raise UsageError(
            f"The messages' lengths add up to {int(lengths.sum())} rows; there are {len(values)}."
        )
    message = np.repeat(np.arange(len(lengths)), lengths)
    return np.bincount(message, weights=values, minlength=len(lengths)).astype(np.float64)


def ending_codelength(
    cut: NDArray[np.bool_], token_limits: NDArray[np.int64], cut_share: float = DEFAULT_CUT_SHARE
) -> NDArray[np.float64]:
    """Bits, shape (N,), for how each message ended; to be added to the codelength of its tokens.

    Messages that end by EOS, a stop string or their token limit form a prefix-free set, and so do not
    choose their length beyond what their tokens cost: they pay -log2(1 - c). A message that was cut off
    anywhere else (aborted, client gone) chose one of m + 1 places, m its token limit (at m, or after EOS,
    the choice is to call it cut), and pays -log2(c / (m + 1)). Without this the transcripts are not
    prefix-free and the bound does not hold.
    `cut_share` c is fixed beforehand, about the honest share of such messages.
    """
    if not 0 < cut_share < 1:
        raise UsageError("The share of messages that are cut off lies between 0 and 1.")
    limits = np.asarray(token_limits, dtype=np.float64)
    if np.any(limits < 0):
        raise UsageError("A limit on tokens cannot be negative.")
    ending: NDArray[np.float64] = np.where(
        np.asarray(cut, dtype=np.bool_), np.log2(limits + 1) - math.log2(cut_share), -math.log2(1 - cut_share)
    )
    return ending


def decoding_probability(payload_bits: float, codelength: float, calibration_bits: float = 0.0) -> float:
    """The most that P(payload decoded and L <= codelength) can be: min(1, 2^-(k - L - c)).

    `payload_bits` k is the payload's min-entropy. `calibration_bits` c is 0 for a calibration made by the
    verifier's own runs; for one that the prover could steer, and so fit to the payload, it is the size of
    the calibration's choice (the union bound over all that it could have been).
    """
    return float(2.0 ** -max(0.0, payload_bits - codelength - calibration_bits))


def _check_code(vocabulary_size: int, floor: float) -> None:
    if vocabulary_size < 2:
        raise UsageError("A vocabulary has at least two tokens.")
    if not 0 < floor < 1:
        raise UsageError("The floor of the code lies between 0 and 1.")
