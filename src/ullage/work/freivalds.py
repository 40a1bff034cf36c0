"""The full check of a product, where C can travel: range first, then Freivalds modulo p = 2^31 - 1.

If C != A B over the integers and every entry is in range, some entry of C - A B is a non-zero number of
absolute value at most 2 * bound < p, hence non-zero mod p; then C r = A (B r) mod p holds for at most one
r in p (Freivalds 1977; Schwartz-Zippel for a linear form), and t independent vectors err with probability at
most p^-t. Without the range check one could add p to entries, without the prime 2^32 divides too much.
"""

from __future__ import annotations

import math
import secrets

import numpy as np
from numpy.typing import NDArray

from ullage.work.kernels import Kernel
from ullage.work.shape import Shape

PRIME = (1 << 31) - 1
ROUNDS = 2
ERROR = float(PRIME) ** -ROUNDS
"""2.2e-19, below 2^-60 = 8.7e-19."""
MAX_INNER = (1 << 16) - 64
"""K * 2^14 < p / 2, so that a difference in range cannot be a multiple of p."""
_LIMB_BITS = 7
_LIMBS = 5  # 5 * 7 bits hold a residue; an int8 limb is at most 127
_FLOAT_BITS = 53
_BLOCK_ROWS = 32


def draw_vectors(columns: int, rounds: int = ROUNDS) -> NDArray[np.int64]:
    """r (N, rounds), uniform on [0, p), from the system's generator.

    Drawn after C is committed, told to no one.
    """
    words = np.empty(0, dtype=np.int64)
    while len(words) < columns * rounds:  # rejects one word in 2^31
        fresh = np.frombuffer(secrets.token_bytes(4 * columns * rounds), dtype="<u4").astype(np.int64) >> 1
        words = np.concatenate([words, fresh[fresh < PRIME]])
    return words[: columns * rounds].reshape(columns, rounds)


def in_range(product: NDArray[np.int32], shape: Shape) -> bool:
    """Whether C is an (M, N) table of int32 and no entry is beyond what the operands allow."""
    if product.shape != (shape.rows, shape.columns) or product.dtype != np.int32:
        return False
    return int(product.min()) >= -shape.entry_bound and int(product.max()) <= shape.entry_bound


def check(  # noqa: PLR0917 - the parts of one product
    left: NDArray[np.int8],
    right: NDArray[np.int8],
    product: NDArray[np.int32],
    shape: Shape,
    kernel: Kernel,
    vectors: NDArray[np.int64] | None = None,
) -> bool:
    """Whether C = A B: never false for the product, true for anything else with probability at most p^-2.

    `left` is A (M, K), `right` the transpose of B (N, K); `kernel` is an exact one. `vectors` is for tests.
    """
    if shape.inner > MAX_INNER:
        raise ValueError(f"the full check needs K <= {MAX_INNER}")
    if not in_range(product, shape):
        return False
    r = draw_vectors(shape.columns) if vectors is None else vectors
    # `right.T` is B, and as a kernel's right operand it is B without a copy: (B r)^T = r^T B^T.
    inner = _fold(kernel(_limbs(r), right.T).T, r.shape[1])  # B r, (K, rounds)
    expected = _fold(kernel(left, _limbs(inner)), r.shape[1])  # A (B r), (M, rounds)
    return bool(np.array_equal(expected, _product_times(product, r, shape)))


def _limbs(residues: NDArray[np.int64]) -> NDArray[np.int8]:
    """Residues (n, rounds) as rows of int8 limbs, (16, n): so the exact int8 kernel does the work."""
    shifts = np.arange(_LIMBS, dtype=np.int64) * _LIMB_BITS
    limbs = residues.T[:, None, :] >> shifts[:, None] & (1 << _LIMB_BITS) - 1
    rows = limbs.reshape(-1, len(residues)).astype(np.int8)
    padding = np.zeros((-len(rows) % 16, len(residues)), dtype=np.int8)
    return np.concatenate([rows, padding])


def _fold(parts: NDArray[np.int32], rounds: int) -> NDArray[np.int64]:
    """Sums of limbs (n, 16) back to residues (n, rounds)."""
    weights = np.array([(1 << limb * _LIMB_BITS) % PRIME for limb in range(_LIMBS)], dtype=np.int64)
    used = parts[:, : rounds * _LIMBS].astype(np.int64).reshape(-1, rounds, _LIMBS)
    # |part| < 2^31 and a limb's weight mod p is at most 2^28: five of them stay below 2^62.
    folded: NDArray[np.int64] = (used @ weights) % PRIME
    return folded


def _product_times(product: NDArray[np.int32], r: NDArray[np.int64], shape: Shape) -> NDArray[np.int64]:
    """C r mod p: r in pieces so small that float64 sums are integers below 2^53."""
    import torch

    room = _FLOAT_BITS - math.ceil(math.log2(shape.entry_bound * shape.columns)) - 1
    shifts = np.arange(0, 31, room, dtype=np.int64)
    pieces = (r[:, :, None] >> shifts & (1 << room) - 1).astype(np.float64).reshape(len(r), -1)
    weights = np.array([(1 << int(shift)) % PRIME for shift in shifts], dtype=np.int64)
    table, columns = torch.from_numpy(product), torch.from_numpy(pieces)
    sums = [
        table[top : top + _BLOCK_ROWS].double() @ columns for top in range(0, shape.rows, _BLOCK_ROWS)
    ]  # in blocks that stay in the cache
    parts = torch.cat(sums).numpy().astype(np.int64).reshape(-1, r.shape[1], len(shifts)) % PRIME
    folded: NDArray[np.int64] = (parts * weights % PRIME).sum(axis=2) % PRIME
    return folded
