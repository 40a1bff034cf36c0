"""What the rounding of keys and values leaves to a prover, in bits. Pure functions over arrays.

Two honest machines agree on a key to a few units in the last place, no better, so a verifier has to accept
what lies near; and who may choose among what is accepted has that room for something else. How much is
counted by a code: let e be what the reference computes, rounded to the cache's number format, and h what is
held. Whoever has h gets e back from a message of -log2 q(e | h) bits, where q(. | h) is any distribution
that was agreed on before (Kraft 1949; an arithmetic coder comes within two bits in all). So a store of S
bits that gives h is one of S + L bits that gives e, L the sum over elements; and if e cannot be had from
fewer than K bits, then S >= K - L: L bits are the prover's, and K - L are not. It holds for whatever h he
chooses: rounding away k bits of every element costs him at least k bits an element by any q (Gibbs).

Here q(e | h) is the chance that a logistic variable around h rounds to e. Its scale is a share of the root
mean square of h over the last axis; the share is one of 63 for each position, or q says that e is h: a choice
of six bits. So the positions of a prompt, where two machines that compute alike agree to the last bit, cost
these alone, and those that were decoded one by one what their own scatter is worth.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SCALES = 63
"""Shares of the root mean square that a position's scale may be: 2^(-i/2), i = 0 … 62."""
SCALE_BITS = 6
"""To say which of them; the 64th says that all elements of the position are those that are held."""
_ESCAPE_BITS = 10
"""With a chance of 2^-10 an element is said outright, so none costs more than its own bits and ten."""
_PIECE_ELEMENTS = 1 << 18
"""So many at once: a dozen arrays of intermediate results are then a few megabytes."""
_MEAN_OF_LOGISTIC = 2 * math.log(2)
"""Mean distance of a logistic variable of scale 1 from its middle."""


def widened(held: NDArray[Any]) -> NDArray[np.float32]:
    """Elements in float32; those of bfloat16 come as 16-bit integers, the upper half of one."""
    if held.dtype == np.float32:
        return held
    return (held.astype(np.uint32) << 16).view(np.float32)


def rounded(values: Floats, item_bytes: int) -> Floats:
    """The nearest values of the format, halves to even: float32 as it is, or bfloat16."""
    if item_bytes == 4:
        return values
    bits = values.view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(values), nearest.view(np.float32), values)


def cell(values: Floats, item_bytes: int) -> tuple[Floats, Floats]:
    """How far below and above its magnitude what rounds to each value of the format begins and ends."""
    step = np.uint32(1 if item_bytes == 4 else 1 << 16)
    bits = values.view(np.uint32) & np.uint32(0x7FFFFFFF)
    size = bits.view(np.float32)
    above = (bits + step).view(np.float32) - size
    below = np.where(bits >= step, size - (np.maximum(bits, step) - step).view(np.float32), above)
    half = np.float32(0.5)
    return below * half, above * half


def spread(held: Floats) -> Floats:
    """Root mean square over the last axis, which stays as an axis of length 1."""
    with np.errstate(all="ignore"):  # what is held may be no number
        squares = np.mean(np.square(held, dtype=np.float64), axis=-1, keepdims=True)
        return np.asarray(np.sqrt(squares), np.float32)


def code_bits(expected: Floats, held: Floats, scale: Floats, item_bytes: int) -> Floats:
    """-log2 q(e | h) of each element; `expected` are values of the format, `scale` broadcasts to them.

    The sum of 2^-bits over all values of the format is at most 1 (the two zeros are one). Held values that
    are no numbers, and scales that are none, cost as much as saying the element outright.
    """
    below, above = cell(expected, item_bytes)
    with np.errstate(all="ignore"):
        away = (held * np.copysign(np.float32(1), expected) - np.abs(expected)) / scale
        below, above = below / scale, above / scale
        # A logistic variable is symmetric: of its two sides the one on which nothing cancels.
        low = np.abs(away) - np.where(away < 0, below, above)
        width = below + above
        log_chance = np.log(-np.expm1(-width)) - np.log1p(np.exp(low)) - np.log1p(np.exp(-low - width))
        bits = log_chance / np.float32(-math.log(2)) - np.float32(math.log2(1 - 2**-_ESCAPE_BITS))
    most = np.float32(8 * item_bytes + _ESCAPE_BITS)
    return np.where(np.isfinite(bits), np.minimum(bits, most), most).astype(np.float32)


def best_scales(expected: Floats, held: Floats) -> Floats:
    """The share of the root mean square that suits each position best, of the 63: `(heads, S, D)` arrays give
    `(1, S, 1)`."""
    with np.errstate(all="ignore"):
        away = np.abs(held - expected) / spread(held)
        mean = np.mean(np.where(np.isfinite(away), away, 0), axis=(0, 2), keepdims=True, dtype=np.float64)
        halvings = np.round(-2 * np.log2(mean / _MEAN_OF_LOGISTIC))
    return np.asarray(2.0 ** (-np.clip(halvings, 0, SCALES - 1) / 2), np.float32)


def position_bits(expected: Floats, held: Floats, item_bytes: int) -> NDArray[np.float64]:
    """What has to be added to what is held for what is expected, which has to be of the format, `(heads, S,
    D)` each: bits of each position, its scale's among them."""
    found = np.full(expected.shape[1], float(SCALE_BITS))
    other = np.flatnonzero((expected != held).any(axis=(0, 2)))
    step = max(1, _PIECE_ELEMENTS * expected.shape[1] // max(1, expected.size))
    for start in range(0, len(other), step):
        some = other[start : start + step]
        one, two = expected[:, some], held[:, some]
        bits = code_bits(one, two, best_scales(one, two) * spread(two), item_bytes)
        found[some] += np.sum(bits, axis=(0, 2), dtype=np.float64)
    return found
