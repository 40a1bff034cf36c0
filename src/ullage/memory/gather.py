"""Reading the scattered blocks of a chain's step at once.

A `Gather` copies the blocks of these numbers (block b is bytes [512 b, 512 (b + 1)) of its region) into
the rows of a buffer of shape `(width, 512)`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

CHAIN_BLOCK_BYTES = 512
"""Small, since memory reads a small block faster and another store does not."""

Numbers = NDArray[np.intp]
Blocks = NDArray[np.uint8]
Gather = Callable[[Numbers, Blocks], None]
Read = Callable[[int, int], memoryview]


def whole_blocks(size: int) -> int:
    """What of so many bytes is challenged: whole chain blocks."""
    return size // CHAIN_BLOCK_BYTES * CHAIN_BLOCK_BYTES


def join_reads(reads: Sequence[Read], sizes: Sequence[int]) -> Read:
    """Parts of these sizes as one, each cut to whole blocks; what is read must lie in one of them."""
    starts = list(accumulate(map(whole_blocks, sizes), initial=0))

    def read(offset: int, size: int) -> memoryview:
        index = bisect_right(starts, offset) - 1
        return reads[index](offset - starts[index], size)

    return read


def gather_by_reading(read: Read) -> Gather:
    """One read a block, from whatever can be read."""

    def gather(numbers: Numbers, out: Blocks) -> None:
        for row, number in enumerate(numbers.tolist()):
            out[row] = np.frombuffer(read(number * CHAIN_BLOCK_BYTES, CHAIN_BLOCK_BYTES), np.uint8)

    return gather


def gather_from_views(views: Sequence[memoryview]) -> Gather:
    """Out of memory of this process: views one after the other, each cut to whole blocks.

    Most of a machine is one view, and most steps lie in it; all others look their addresses up.
    """
    parts = [np.frombuffer(view, np.uint8) for view in views if len(view) >= CHAIN_BLOCK_BYTES]
    counts = [len(part) // CHAIN_BLOCK_BYTES for part in parts]
    starts = np.cumsum([0, *counts[:-1]])
    largest = int(np.argmax(counts))
    first, last = int(starts[largest]), int(starts[largest]) + counts[largest]
    blocks = parts[largest][: counts[largest] * CHAIN_BLOCK_BYTES].reshape(-1, CHAIN_BLOCK_BYTES)
    scattered = _ByAddress(parts, starts)

    def gather(numbers: Numbers, out: Blocks) -> None:
        listed = numbers.tolist()
        if min(listed) >= first and max(listed) < last:
            # In any other mode numpy copies through a buffer of its own.
            blocks.take(numbers - first, axis=0, out=out, mode="clip")
        else:
            scattered(numbers, out)

    return gather


class _ByAddress:
    """The same out of several parts at once: this process's memory from the first part's address to the last
    one's end is one array, in which every byte begins a block. Only blocks of the parts are ever read."""

    def __init__(self, parts: Sequence[Blocks], starts: NDArray[np.int64]) -> None:
        addresses = np.array([part.ctypes.data for part in parts])
        base = int(addresses.min())
        end = max(part.ctypes.data + part.nbytes for part in parts)
        first = parts[int(addresses.argmin())][:CHAIN_BLOCK_BYTES].view(f"V{CHAIN_BLOCK_BYTES}")
        self._parts = parts  # which keeps their memory where it is
        self._memory = as_strided(first, (end - base - CHAIN_BLOCK_BYTES + 1,), (1,))
        self._starts = starts
        self._offsets = addresses - base - starts * CHAIN_BLOCK_BYTES

    def __call__(self, numbers: Numbers, out: Blocks) -> None:
        part = self._starts.searchsorted(numbers, "right") - 1
        found = self._memory[self._offsets[part] + numbers * CHAIN_BLOCK_BYTES]
        out[:] = found.view(np.uint8).reshape(out.shape)
