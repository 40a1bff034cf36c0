"""The commitment to a product: the RFC 6962 tree whose entry i is BLAKE3 of row i of C, int32 little-endian.

Hashing C is time in which a prover does not multiply. SHA-256 over all of it took a fifth of a unit and more
where the processor has no instructions for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from ullage.merkle import inclusion_proof, leaf_hash, tree_root, verify_inclusion


@dataclass(frozen=True)
class Commitment:
    """What a prover keeps of a product: one hash a row. The product itself may go."""

    leaves: tuple[bytes, ...]

    @property
    def root(self) -> bytes:
        return tree_root(self.leaves)

    def prove(self, row: int) -> tuple[bytes, ...]:
        """The path from this row to the root."""
        return inclusion_proof(self.leaves, row)


def row_hashes(product: NDArray[np.int32]) -> tuple[bytes, ...]:
    """The leaf hash of every row of C (rows, N)."""
    data = np.ascontiguousarray(product, dtype="<i4").view(np.uint8)
    return tuple(leaf_hash(blake3(row).digest()) for row in data)


def commit(product: NDArray[np.int32]) -> Commitment:
    """Commit to C (M, N)."""
    return Commitment(row_hashes(product))


def opens_to(values: NDArray[np.int32], row: int, rows: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that `values` (N,) is row `row` of the M committed under `root`."""
    return verify_inclusion(row_hashes(values[None, :])[0], row, rows, proof, root)
