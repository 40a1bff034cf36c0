"""Where the noise of each row of logits comes from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UsageError

# Engines read negative seeds (and -1) as "no seed", so only these 63 bits are ever issued or accepted.
SEED_LIMIT: Final = 1 << 63


@dataclass(frozen=True)
class NoiseAddress:
    """One noise address a row of logits; all three arrays have shape (T,).

    `seeds` in [0, 2^63). `positions`: index in the whole sequence of the token whose logits the row is,
    that is prompt_length - 1 + t for the t-th output token. `steps`: t, 0 for the first output token.
    Hash profiles read (seed, position), sequential profiles (seed, step). Raises UsageError.
    """

    seeds: NDArray[np.uint64]
    positions: NDArray[np.int64]
    steps: NDArray[np.int64]

    def __post_init__(self) -> None:
        for name, kind in (("seeds", np.uint64), ("positions", np.int64), ("steps", np.int64)):
            given = np.asarray(getattr(self, name))
            if given.size and given.dtype.kind not in "iu":
                raise UsageError(f"The {name} of a noise address must be integers, not {given.dtype}.")
            if given.ndim != 1 or len(given) != np.asarray(self.seeds).size:
                raise UsageError("A noise address needs one seed, one position and one step a row.")
            if np.any(given < 0) or np.any(given > SEED_LIMIT - 1):
                raise UsageError(f"The {name} of a noise address must be in [0, 2^63).")
            object.__setattr__(self, name, np.ascontiguousarray(given, dtype=kind))

    def __len__(self) -> int:
        return len(self.seeds)

    @classmethod
    def of_response(cls, seed: int, prompt_length: int, length: int, first_step: int = 0) -> Self:
        """The rows of output tokens first_step … first_step + length - 1 of one response.

        `prompt_length` (>= 1) counts the prompt's tokens only, whatever first_step is.
        """
        if not 0 <= seed < SEED_LIMIT:
            raise UsageError(f"A seed must be in [0, 2^63), not {seed}.")
        if prompt_length < 1 or length < 0 or first_step < 0:
            raise UsageError(
                "A response needs a prompt of at least one token and lengths that are not negative."
            )
        steps = np.arange(first_step, first_step + length, dtype=np.int64)
        return cls(np.full(length, seed, np.uint64), steps + (prompt_length - 1), steps)

    @classmethod
    def concatenate(cls, addresses: Iterable[NoiseAddress]) -> Self:
        """The rows of all addresses, in order."""
        parts = list(addresses)
        if not parts:
            return cls(np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64))
        return cls(
            np.concatenate([part.seeds for part in parts]),
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.steps for part in parts]),
        )
