"""Replaying generators that draw once a step: one generator a seed, from step 0 to the last one asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UsageError
from ullage.sampling.address import NoiseAddress

# Replay costs a draw a step; no context is this long, so a larger step is a mistake or an attack.
_MAX_STEP: Final = 1 << 24

Draw = TypeVar("Draw")


def replay(address: NoiseAddress, start: Callable[[int], Iterator[Draw]]) -> Iterator[tuple[int, Draw]]:
    """Pairs (row, draw): `start(seed)` gives the draws of steps 0, 1, …; each seed is replayed once.

    Rows may repeat a (seed, step) and come in any order of steps. Raises UsageError for absurd steps.
    """
    if len(address) and int(address.steps.max()) >= _MAX_STEP:
        raise UsageError(f"A sequential profile can be replayed for {_MAX_STEP} steps at most.")
    order = np.lexsort((address.steps, address.seeds))
    for seed, group in groupby(order.tolist(), key=lambda row: int(address.seeds[row])):
        draws = start(seed)
        drawn, draw = 1, next(draws)
        for row in group:
            while drawn <= address.steps[row]:
                drawn, draw = drawn + 1, next(draws)
            yield row, draw


def step_integers(address: NoiseAddress, start: Callable[[int], Iterator[int]]) -> NDArray[np.uint64]:
    """Draws that are integers in [0, 2^64), one a row, (T,)."""
    values = np.empty(len(address), np.uint64)
    for row, draw in replay(address, start):
        values[row] = draw
    return values
