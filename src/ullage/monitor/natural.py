"""How many bits a byte of ordinary text and source code takes: a table of byte pairs.

The table (`natural.npy`, 128 x 128, unsigned bytes, units of 1/16 bit) holds -log2 p(next | this) as
counted in text that `benchmarks/monitor_table.py` names. With it, a stretch of text has a codelength C. The
same stretch as n symbols drawn at random from an alphabet of A has the codelength n log2 A. If text were
what the table says, the chance that C - n log2 A >= t would be at most 2^-t (Markov, because the uniform
code is a probability): the excess is evidence whose meaning does not depend on the length. A limit on bits
per character is not: a short string cannot reach it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
UNITS_PER_BIT: Final = 16
CLASSES: Final = 128
_TABLE = Path(__file__).parent / "natural.npy"

# Every byte from 127 up is one class: other scripts are not evidence of anything.
FOLD: Final[Bytes] = np.minimum(np.arange(256), CLASSES - 1).astype(np.uint8)
_FOLD_TABLE: Final = FOLD.tobytes()
_LINE_END: Final = 10
_AT_ONCE: Final = 1 << 14


@cache
def pair_costs() -> Bytes:
    """The table, flat: entry 128 a + b is the cost of b after a, in 1/16 bit."""
    table: Bytes = np.load(_TABLE, allow_pickle=False)
    return table.reshape(-1)


def cumulative_costs(data: Bytes, *, backwards: bool = False) -> NDArray[np.int32]:
    """C with C[j] - C[i] the cost of bytes i … j-1 given what stands before them, in 1/16 bit; shape (n +
    1,).

    The first byte is taken to follow a line's end. `backwards` costs the text as read from its end; then
    the cost of byte i is given byte i + 1. At most 8 MiB at a time, so that int32 holds it.
    """
    total = np.zeros(len(data) + 1, np.int32)
    _costs(data, backwards).cumsum(dtype=np.int32, out=total[1:])
    return total


def total_bits(data: Bytes, *, backwards: bool = False) -> float:
    """C of the whole text in bits: the last entry of `cumulative_costs`, without the others."""
    return float(_costs(data, backwards).sum(dtype=np.int64)) / UNITS_PER_BIT


def _costs(data: Bytes, backwards: bool) -> Bytes:
    """The cost of each byte in 1/16 bit."""
    folded = np.frombuffer(data.tobytes().translate(_FOLD_TABLE), np.uint8)
    neighbours = np.full_like(folded, _LINE_END)
    if backwards:
        neighbours[:-1] = folded[1:]
    else:
        neighbours[1:] = folded[:-1]
    table = pair_costs()
    costs = np.empty_like(folded)
    for at in range(0, len(folded), _AT_ONCE):  # indices take eight bytes each: a block stays in the cache
        place = slice(at, at + _AT_ONCE)
        costs[place] = table.take(neighbours[place].astype(np.intp) << 7 | folded[place])
    return costs


def bits_per_byte(data: bytes) -> float:
    """Mean cost of a text under the table."""
    return total_bits(np.frombuffer(data, np.uint8)) / len(data) if data else 0.0
