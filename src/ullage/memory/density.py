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
_STRIDES = (1, 2, 4)


def byte_entropy(counts: Sequence[int]) -> float:
    """Empirical entropy of a byte histogram in bits a byte; 0 for an empty one."""
    total = sum(counts)
    return -sum(count / total * math.log2(count / total) for count in counts if count) if total else 0.0


def plane_entropy(data: NDArray[np.uint8], stride: int) -> float:
    """Bits a byte of an order-0 code of its own for each of `stride` interleaved byte planes."""
    planes = [data[start::stride] for start in range(stride)]
    bits = sum(len(plane) * byte_entropy(np.bincount(plane, minlength=256).tolist()) for plane in planes)
    return float(bits) / len(data) if len(data) else 0.0


def incompressible_bytes(data: memoryview) -> int:
    """What is left of `data` when pages of 4,096 bytes that stand twice are held once and every byte plane
    (of 1-, 2- or 4-byte elements, whichever packs best) gets the best order-0 code."""
    seen: set[bytes] = set()
    kept: list[memoryview] = []
    for start in range(0, len(data), _UNIT_BYTES):
        page = data[start : start + _UNIT_BYTES]
        digest = hashlib.blake2b(page, digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            kept.append(page)
    unique = (
        np.concatenate([np.frombuffer(page, np.uint8) for page in kept]) if kept else np.empty(0, np.uint8)
    )
    bits = min((plane_entropy(unique, stride) for stride in _STRIDES), default=0.0)
    return int(len(unique) * bits / 8)
