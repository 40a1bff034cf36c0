"""Reading scattered small blocks at once.

A `Gather` for blocks of n bytes copies the blocks of these numbers (block b is bytes [n b, n (b + 1)) of its
region) into the rows of a buffer of shape `(count, n)`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

CHAIN_BLOCK_BYTES = 128
"""Small, since memory reads a small block faster and another store does not; two cache lines, since one more
comes along by itself."""

_MOST = 0.98
"""A step of 64 blocks lies in a view of this share every fourth time, and saves what looking up takes."""

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


def gather_by_reading(read: Read, block_bytes: int) -> Gather:
    """One read a block, from whatever can be read."""

    def gather(numbers: Numbers, out: Blocks) -> None:
        for row, number in enumerate(numbers.tolist()):
            out[row] = np.frombuffer(read(number * block_bytes, block_bytes), np.uint8)

    return gather


def gather_from_views(views: Sequence[memoryview], block_bytes: int) -> Gather:
    """Out of memory of this process: views one after the other, each cut to whole blocks.

    Where nearly all of it is one view, most steps lie in that; all others look their addresses up.
    """
    parts = [np.frombuffer(view, np.uint8) for view in views if len(view) >= block_bytes]
    counts = [len(part) // block_bytes for part in parts]
    starts = np.cumsum([0, *counts[:-1]])
    largest = int(np.argmax(counts))
    first, count = starts[largest], np.uint64(counts[largest])
    blocks = parts[largest][: counts[largest] * block_bytes].reshape(-1, block_bytes)

    def gather_from_one(numbers: Numbers, out: Blocks) -> None:
        # In any other mode numpy copies through a buffer of its own.
        blocks.take(numbers, axis=0, out=out, mode="clip")

    if len(parts) == 1:
        return gather_from_one
    scattered = _by_address(parts, starts, block_bytes)
    if counts[largest] < _MOST * sum(counts):
        return scattered

    def gather(numbers: Numbers, out: Blocks) -> None:
        places = numbers - first
        if places.view(np.uint64).max() < count:  # a number before the first becomes a large one
            gather_from_one(places, out)
        else:
            scattered(numbers, out)

    return gather


def _by_address(parts: Sequence[Blocks], starts: NDArray[np.int64], block_bytes: int) -> Gather:
    """The same out of several parts at once: this process's memory from the first part's address to the last
    one's end is one array. Only blocks of the parts are ever read.

    Where the parts lie whole blocks apart, as large tensors do, it is an array of blocks; else every byte of
    it begins one, which numpy takes twice as long for.
    """
    addresses = np.array([part.ctypes.data for part in parts])
    base, lowest = int(addresses.min()), parts[int(addresses.argmin())]
    span = max(part.ctypes.data + part.nbytes for part in parts) - base
    offsets = addresses - base
    if (offsets % block_bytes).any():
        every = as_strided(lowest[:block_bytes].view(f"V{block_bytes}"), (span - block_bytes + 1,), (1,))
        shifts = offsets - starts * block_bytes

        def gather_bytes(numbers: Numbers, out: Blocks, _keep: Sequence[Blocks] = parts) -> None:
            part = starts.searchsorted(numbers, "right") - 1
            out[:] = every[shifts[part] + numbers * block_bytes].view(np.uint8).reshape(out.shape)

        return gather_bytes
    blocks = as_strided(lowest, (span // block_bytes, block_bytes), (block_bytes, 1))
    moves = np.concatenate([[0], offsets // block_bytes - starts])  # by how many parts begin at or before it

    def gather(numbers: Numbers, out: Blocks, _keep: Sequence[Blocks] = parts) -> None:
        places = numbers + moves[starts.searchsorted(numbers, "right")]
        blocks.take(places, axis=0, out=out, mode="clip")

    return gather
