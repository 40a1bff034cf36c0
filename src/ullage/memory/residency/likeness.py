"""How little room values take beside others that are like them. Pure functions over arrays.

Tokens are the prover's word, and whoever chooses them can choose some whose values he need not hold: after
the same token again and again all values of a layer are the same, and two sequences that differ in one place
agree to a thousandth far behind it. So the values that are expected of a position are coded beside those that
are expected of an earlier one, which ends in the same tokens: the nearest of some. All of it follows from the
tokens and the model; what is held has no part in it, or noise that a prover adds would count as content.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ullage.memory.residency.rounding import Floats, position_bits

LENGTHS = (8, 1)
"""An earlier position is like one if so many tokens up to it are the same."""
LATEST = 32
"""So many of each are looked at, the latest ones."""
_CHOICE_BITS = 7
"""To say which of them, or none."""
_SKETCH = 16
"""Elements of a position by which the nearest is found."""

Places = NDArray[np.intp]


class Contexts:
    """Where each run of tokens was met, row after row. Positions are numbered through all slots."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._met: dict[tuple[int, ...], deque[int]] = {}

    def add(self, slot: int, row: Sequence[int]) -> list[Places]:
        """For each of `LENGTHS` `(S, LATEST)` positions that each of the row is like; else -1."""
        found = [np.full((len(row), LATEST), -1, np.intp) for _ in LENGTHS]
        for position in range(len(row)):
            for places, length in zip(found, LENGTHS, strict=True):
                if position + 1 < length:
                    continue
                met = self._met.setdefault(
                    tuple(row[position + 1 - length : position + 1]), deque(maxlen=LATEST)
                )
                places[position, : len(met)] = met
                met.append(slot * self._capacity + position)
        return found


class Sketches:
    """A few elements of every position, by which like ones are compared."""

    def __init__(self, slots: int, capacity: int) -> None:
        self._capacity = capacity
        self._kept = np.zeros((slots * capacity, _SKETCH), np.float32)

    def nearest(self, slot: int, values: Floats, like: Sequence[Places]) -> list[Places]:
        """Of the positions that each is like, for each length, the nearest `(S,)`, or -1. `values` are those
        of the row's last layer, `(heads, S, D)`."""
        every = values.swapaxes(0, 1).reshape(values.shape[1], -1)
        picked = np.linspace(0, every.shape[1] - 1, _SKETCH).astype(np.intp)
        sketch = self._kept[slot * self._capacity :][: len(every)]
        sketch[:] = every[:, picked]
        return [self._nearest(sketch, places) for places in like]

    def _nearest(self, sketch: Floats, places: Places) -> Places:
        away = np.abs(self._kept[places] - sketch[:, None]).sum(axis=2)  # (S, LATEST)
        away[places < 0] = np.inf
        found: Places = places[np.arange(len(places)), np.argmin(away, axis=1)]
        return found


def bits_beside(
    expected: Floats, earlier: Floats, like: Sequence[Places], item_bytes: int
) -> NDArray[np.float64]:
    """Bits that each position of `expected` `(heads, S, D)` takes beside the best of those that it is `like`,
    `(S,)` numbers of positions each, or -1.

    `earlier` is what is expected of all positions up to the row's own, `(positions, heads, D)`. Infinite
    where nothing is like.
    """
    least = np.full(expected.shape[1], np.inf)
    for places in like:
        known = np.flatnonzero(places >= 0)
        if len(known):
            beside = earlier[places[known]].swapaxes(0, 1)  # (heads, some of S, D)
            bits = position_bits(expected[:, known], beside, item_bytes)
            least[known] = np.minimum(least[known], bits + _CHOICE_BITS)
    return least
