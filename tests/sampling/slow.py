"""The definitions once more, in plain Python floats, one token at a time: what the fast code must equal."""

from __future__ import annotations

import math
from collections.abc import Sequence

MASK = 0xFFFFFFFF


def murmur3(words: Sequence[int], start: int = 0) -> int:
    """MurmurHash3_x86_32 of 32-bit words."""
    state = start
    for word in words:
        mixed = word * 0xCC9E2D51 & MASK
        mixed = (mixed << 15 | mixed >> 17) & MASK
        state ^= mixed * 0x1B873593 & MASK
        state = (state << 13 | state >> 19) & MASK
        state = (state * 5 + 0xE6546B64) & MASK
    state ^= 4 * len(words)
    state = (state ^ state >> 16) * 0x85EBCA6B & MASK
    state = (state ^ state >> 13) * 0xC2B2AE35 & MASK
    return state ^ state >> 16


def hash_of(seed: int, position: int, token: int, domain: int = 0) -> int:
    return murmur3((seed & MASK, seed >> 32, position & MASK, token), domain)


def gumbel64(seed: int, position: int, token: int) -> float:
    """murmur3-gumbel/f64."""
    return -math.log(-math.log1p(-(hash_of(seed, position, token) + 0.5) / 2**32))


def gumbel53(seed: int, position: int, token: int) -> float:
    """murmur3-gumbel-53/f64."""
    joined = hash_of(seed, position, token, 0x9E3779B9) << 32 | hash_of(seed, position, token)
    return -math.log(-math.log(min(((joined >> 11) + 0.5) / 2**53, 1 - 2**-53)))


def sglang(seed: int, position: int, token: int) -> float:
    """sglang-murmur."""
    hashed = hash_of(seed, position, token)
    return -math.log(-min(math.log(hashed / MASK), -(2**-32))) if hashed else -math.inf


def splitmix64(step_seed: int, token: int) -> float:
    """splitmix64-gumbel, given the integer that the step drew."""
    wide = (1 << 64) - 1

    def mix(word: int) -> int:
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & wide
        word = (word ^ word >> 27) * 0x94D049BB133111EB & wide
        return word ^ word >> 31

    hashed = mix(mix(step_seed) + (token + 1) * 0x9E3779B97F4A7C15 & wide) >> 11
    return -math.log(-math.log((hashed + 0.5) * 2**-53))


def kept(scaled: Sequence[float], top_k: int, top_p: float) -> list[bool]:
    """Top-k (all ties at the k-th value), then top-p (drop ascending while cumulative <= 1 - p)."""
    keep = [value > -math.inf for value in scaled]
    if 0 < top_k < len(scaled):
        keep = [k and sum(o > v for o in scaled) < top_k for k, v in zip(keep, scaled, strict=True)]
    if top_p < 1:
        order = sorted((i for i, k in enumerate(keep) if k), key=lambda i: (scaled[i], i))
        largest = scaled[order[-1]]
        weights = [math.exp(scaled[i] - largest) for i in order]
        total = cumulative = 0.0
        for weight in weights:
            total += weight
        for i, weight in zip(order[:-1], weights[:-1], strict=True):
            cumulative += weight
            if cumulative <= (1 - top_p) * total:
                keep[i] = False
    return keep
