"""How little room keys and values take beside others that are like them. Pure functions over arrays.

Tokens are the prover's word, and whoever chooses them can choose some whose values he need not hold: after
the same token again and again all values of a layer are the same, and two sequences that differ in one place
agree to a thousandth far behind it. So values are held against those of an earlier position that ends in the
same tokens, by the code of `rounding`, and count as what that code needs. Keys are turned by their place,
which a prover can turn back: they count at the same share as the values of their position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ullage.memory.rounding import Floats, position_bits, widened

LENGTHS = (8, 1)
"""An earlier position is like one if so many tokens up to it are the same: the last such of each length."""
_CHOICE_BITS = 2
"""To say which of them, or none."""

Places = NDArray[np.intp]


class Contexts:
    """Where in the cache each run of tokens was met last, row after row."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, ...], tuple[int, int]] = {}

    def add(self, slot: int, row: Sequence[int]) -> list[Places]:
        """(slot, position) of what each position of the row is like, `(S, 2)` for each of `LENGTHS`; -1 where
        there is nothing."""
        found = [np.full((len(row), 2), -1, np.intp) for _ in LENGTHS]
        for position in range(len(row)):
            for places, length in zip(found, LENGTHS, strict=True):
                if position + 1 >= length:
                    run = tuple(row[position + 1 - length : position + 1])
                    places[position] = self._last.get(run, (-1, -1))
                    self._last[run] = slot, position
        return found


def bits_beside(
    expected: Floats, held: NDArray[Any], like: Sequence[Places], item_bytes: int
) -> NDArray[np.float64]:
    """Bits that each position of `expected` `(heads, S, D)` takes beside the best of what it is `like`.

    `held` are all rows as they lie in memory, `(slots, heads, capacity, D)`. Infinite where nothing is like.
    """
    least = np.full(expected.shape[1], np.inf)
    for places in like:
        known = np.flatnonzero(places[:, 0] >= 0)
        if not len(known):
            continue
        beside = widened(held[places[known, 0], :, places[known, 1]]).swapaxes(0, 1)  # (heads, some of S, D)
        bits = position_bits(expected[:, known], beside, item_bytes)
        least[known] = np.minimum(least[known], bits + _CHOICE_BITS)
    return least
