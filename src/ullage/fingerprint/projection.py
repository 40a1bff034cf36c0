"""From final hidden states to a few bytes a token, along directions that nobody knew before the commitment.

Activation-DiFR (Karvonen et al., "DiFR: Inference Verification Despite Nondeterminism", 2025) projects the
state h on a few random directions. Here a direction is a row of signs, drawn anew for every token, and each
of the coordinates

    c = floor((<r, n> + u) / 256) mod 256,    n = round(256 h / step),    u uniform on 0 … 255

is one byte: the low-order part of the projection in units of `step`. The verifier knows the high-order part
from a pass of his own (coding with side information at the decoder; Wyner and Ziv, 1976), so the byte is
spent on what he does not know. n is an integer vector, so the sum does not depend on its order and both
sides agree bit for bit.

Differences. With the verifier's own n', d = 256 c + 127.5 - u - <r, n'>, taken to the nearest
representative modulo 65,536, is <r, n - n'> plus a symmetric uniform error that is independent of it (the
dither u is subtracted again). Signs and that error are sums of independent signs, so d is sub-Gaussian with
variance proxy |n - n'|^2 + (256^2 - 1)/12, and going to the nearest representative only makes |d| smaller.
`evidence` rests on that.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UsageError

SEED_BYTES: Final = 32
TRANSCRIPT_BYTES: Final = 32
MAX_COORDINATES: Final = 4
LEVELS: Final = 256
"""Values of one coordinate, and the integer units in one `step`."""
ROUNDING_VARIANCE: Final = (1 - LEVELS**-2) / 12
"""Of a coordinate's own rounding, in squared steps."""
_DOMAIN: Final = b"ullage.dev/fingerprint/v1\x00"
_LARGEST: Final = float(1 << 40)  # of an entry of n: sums over 2^22 of them stay within 64 bits

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


def as_integers(states: NDArray[np.float32], step: float) -> Integers:
    """n = round(256 h / step), the shape of `states`. Raises UsageError for values or a step out of range."""
    if not (math.isfinite(step) and step > 0):
        raise UsageError("A fingerprint's step is a positive number.")
    scaled = np.rint(states.astype(np.float64) / step * LEVELS)
    if not np.all(np.abs(scaled) < _LARGEST):  # also false for NaN
        raise UsageError("A hidden state is too large for the fingerprint's step, or is not a number.")
    return scaled.astype(np.int64)


def directions(
    seed: bytes, transcript: bytes, tokens: Sequence[int], coordinates: int, width: int
) -> tuple[NDArray[np.int8], Integers]:
    """Signs (T, K, H) and dithers (T, K) of these tokens of one transcript.

    Token t's are SHAKE-256(domain ‖ seed ‖ transcript ‖ t as uint32 big-endian): K bytes of dithers, then for
    each coordinate ceil(H / 8) bytes of signs, most significant bit first, 1 for -1.
    """
    if len(seed) != SEED_BYTES or len(transcript) != TRANSCRIPT_BYTES:
        raise UsageError("A fingerprint's seed and transcript digest have 32 bytes each.")
    if not 1 <= coordinates <= MAX_COORDINATES or width < 1:
        raise UsageError(f"A fingerprint has 1 to {MAX_COORDINATES} coordinates, and a state a width.")
    row = -(-width // 8)
    signs = np.empty((len(tokens), coordinates, width), np.int8)
    dithers = np.empty((len(tokens), coordinates), np.int64)
    for place, token in enumerate(tokens):
        stream = hashlib.shake_256(_DOMAIN + seed + transcript + token.to_bytes(4, "big"))
        data = np.frombuffer(stream.digest(coordinates * (1 + row)), np.uint8)
        dithers[place] = data[:coordinates]
        bits = np.unpackbits(data[coordinates:].reshape(coordinates, row), axis=1)[:, :width]
        signs[place] = 1 - 2 * bits.astype(np.int8)
    return signs, dithers


def fingerprint(
    states: NDArray[np.float32],
    seed: bytes,
    transcript: bytes,
    *,
    coordinates: int,
    step: float,
    tokens: Sequence[int] | None = None,
) -> Bytes:
    """The bytes (T, K) of states (T, H); `tokens` are their places in the output, 0 … T-1 without."""
    numbers = range(len(states)) if tokens is None else tokens
    signs, dithers = directions(seed, transcript, numbers, coordinates, states.shape[1])
    total = _project(signs, as_integers(states, step)) + dithers
    return ((total >> 8) & 0xFF).astype(np.uint8)


def differences(
    answer: Bytes, states: NDArray[np.float32], seed: bytes, transcript: bytes, *, step: float
) -> Floats:
    """d (T, K) in steps, between a prover's bytes (T, K) and the verifier's own states (T, H)."""
    coordinates = answer.shape[1]
    signs, dithers = directions(seed, transcript, range(len(states)), coordinates, states.shape[1])
    middle = answer.astype(np.int64) * LEVELS - dithers - _project(signs, as_integers(states, step))
    modulus = LEVELS * LEVELS
    wrapped = (middle + modulus // 2) % modulus - modulus // 2
    nearest = np.where(wrapped + 127.5 > modulus / 2, wrapped - modulus, wrapped) + 127.5
    return np.asarray(nearest / LEVELS)


def _project(signs: NDArray[np.int8], integers: Integers) -> Integers:
    """<r, n> (T, K), exact."""
    return np.asarray(np.einsum("tkh,th->tk", signs, integers, dtype=np.int64))
