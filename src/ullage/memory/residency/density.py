"""How much of what is resident could not be held in less room. Pure functions over bytes.

A chain proves that a prover *could produce* the declared bytes in time. Bytes that a fast code packs (the
exponents of floating-point numbers), that stand twice, or that are zeros need less memory than they fill,
and what is saved is room for something else. So only this much of them is counted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_UNIT_BYTES = 4096
_PIECE_BYTES = 1 << 20
_STRIDES = (1, 2, 4)


def byte_entropy(counts: Sequence[int]) -> float:
    """Empirical entropy of a byte histogram in bits a byte; 0 for an empty one."""
    total = sum(counts)
    return -sum(count / total * math.log2(count / total) for count in counts if count) if total else 0.0


class PlaneHistogram:
    """Byte histograms of the planes of interleaved elements of `stride` bytes, fed piece by piece."""

    def __init__(self, stride: int) -> None:
        self._counts = np.zeros((stride, 256), np.int64)

    def feed(self, data: NDArray[np.uint8]) -> None:
        """Whole elements, in pieces: a histogram of bytes wants eight times their room."""
        stride = len(self._counts)
        for start in range(0, len(data), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES]
            for plane in range(stride):
                self._counts[plane] += np.bincount(piece[plane::stride], minlength=256)

    @property
    def bits(self) -> float:
        """What an order-0 code of its own for each plane needs for all that was fed."""
        return float(sum(row.sum() * byte_entropy(row.tolist()) for row in self._counts))


def incompressible_bytes(data: memoryview, seen: set[bytes] | None = None) -> int:
    """What is left of `data` when pages of 4,096 bytes that stand twice are held once and every byte plane
    (of 1-, 2- or 4-byte elements, whichever packs best) gets the best order-0 code. `seen` has the digests of
    pages that something else holds, and takes those of `data`."""
    seen = set() if seen is None else seen
    planes = [PlaneHistogram(stride) for stride in _STRIDES]
    for start in range(0, len(data), _PIECE_BYTES):
        fresh = []
        for at in range(start, min(start + _PIECE_BYTES, len(data)), _UNIT_BYTES):
            page = data[at : at + _UNIT_BYTES]
            digest = hashlib.blake2b(page, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                fresh.append(np.frombuffer(page, np.uint8))
        if fresh:
            unique = np.concatenate(fresh)
            for histogram in planes:
                histogram.feed(unique)
    return int(min(histogram.bits for histogram in planes) / 8)
