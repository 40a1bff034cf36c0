"""What a profile says about claimed tokens, and how it follows from noised logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

_BITS_PER_NAT: Final = 1 / np.log(2.0)


@dataclass(frozen=True)
class Scores:
    """One entry a row; all arrays have shape (T,).

    `reference`: the profile's own token. `margin`: by how much the claimed token lost, in raw logit units
    (Token-DiFR's margin): T * (max over the filtered set of (z + g) - (z + g)[claimed]) with z = logits/T;
    inf outside the filtered set. `rank`: tokens that score strictly higher than the claimed one; V outside.
    `entropy`: bits of the filtered, tempered distribution; NaN unless it was asked for.
    """

    reference: NDArray[np.int64]
    margin: NDArray[np.float64]
    rank: NDArray[np.int64]
    entropy: NDArray[np.float64]

    @classmethod
    def empty(cls, rows: int) -> Self:
        """Arrays to be filled block by block."""
        return cls(np.zeros(rows, np.int64), np.zeros(rows), np.zeros(rows, np.int64), np.full(rows, np.nan))

    def fill(
        self,
        rows: slice | NDArray[np.int64],
        noised: NDArray[np.float64],
        ids: NDArray[np.int64],
        claimed: NDArray[np.int64],
        *,
        temperature: float,
        vocabulary_size: int,
    ) -> None:
        """Set `rows` from noised scores (B, K) of the tokens `ids` (B, K) or (1, K), ascending in each row.

        Entries outside the filtered set are -inf. `claimed` has shape (B,).
        """
        here = np.arange(len(noised))
        winner = noised.argmax(axis=1)
        best = noised[here, winner]
        own = np.where(ids == claimed[:, None], noised, -np.inf).max(axis=1)
        self.reference[rows] = np.broadcast_to(ids, noised.shape)[here, winner]
        self.margin[rows] = temperature * (best - own)
        higher = np.count_nonzero(noised > own[:, None], axis=1)
        self.rank[rows] = np.where(np.isneginf(own), vocabulary_size, higher)


def entropy_bits(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Entropy in bits of softmax(scaled) for each row of (B, K); -inf entries do not count.

    Sums run from left to right, so trailing padding does not change a bit of the result.
    """
    shifted = scaled - scaled.max(axis=1, keepdims=True)
    weights = np.exp(shifted)
    total = np.cumsum(weights, axis=1)[:, -1]
    inside = np.where(weights > 0, weights * np.where(np.isneginf(shifted), 0.0, shifted), 0.0)
    nats = np.log(total) - np.cumsum(inside, axis=1)[:, -1] / total
    return np.asarray(np.maximum(nats, 0.0) * _BITS_PER_NAT)
