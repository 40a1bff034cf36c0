"""Key-value memory beside what the reference computes for the same tokens. Pure functions over arrays.

Not counted is what a prover does not need memory for, or has for something else: what rounding leaves open
(`rounding`), the first layer (it follows from one token each, and is cheap to rebuild), positions whose
prefix another row has as well (one copy serves both), what an order-0 code of the exponents saves, and four
bytes a token, since the tokens themselves are the prover's word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ullage.errors import IntegrityError
from ullage.memory.density import PlaneHistogram
from ullage.memory.rounding import free_bits, rounded, spread
from ullage.memory.segments import CacheShape

Recompute = Callable[[Sequence[int]], Sequence[NDArray[np.float32]]]
"""From token ids to keys, then values, of layer after layer, `(heads, S, D)` each."""

_TOKEN_BYTES = 4
# What is another content and not another rounding, in units of the root mean square: float32, bfloat16.
# Of honest elements of the built-in model one in 10,000 lies beyond a third of it, between instruction sets
# too (docs/results/memory.md). More costs the claim nothing: whoever is far off pays for it, bit by bit.
TOLERANCES = {4: 1e-4, 2: 1e-1}


@dataclass(frozen=True)
class CacheFinding:
    """`written` bytes stand for tokens; of these `outside` elements are not what the reference computes, and
    `counted` bytes are proven when they are in memory. `free_bits` an element are open to the prover."""

    written: int
    elements: int
    outside: int
    free_bits: float
    counted: int

    @property
    def is_declared(self) -> bool:
        """Rounding differs in the last places, not in one element of a thousand."""
        return self.outside <= self.elements / 1000


def check_shape(shape: CacheShape, sizes: Sequence[int], sequences: Sequence[Sequence[int]]) -> None:
    """Raises IntegrityError unless the declared segments are of this shape and the sequences fit into it."""
    if len(sizes) != 2 * shape.layers or any(size != shape.segment_bytes for size in sizes):
        raise IntegrityError("The agent declares key-value memory of another size than its shape has.")
    if sizes and shape.item_bytes not in TOLERANCES:
        raise IntegrityError(f"Key-value memory of {shape.item_bytes} bytes an element cannot be checked.")
    if len(sequences) > shape.slots or any(len(row) > shape.capacity for row in sequences):
        raise IntegrityError("The agent names more tokens than its key-value memory can stand for.")


def widened(held: NDArray[Any]) -> NDArray[np.float32]:
    """Elements in float32; those of bfloat16 come as 16-bit integers, the upper half of one."""
    if held.dtype == np.float32:
        return held
    return (held.astype(np.uint32) << 16).view(np.float32)


def check_cache(
    shape: CacheShape,
    segments: Sequence[memoryview],
    sequences: Sequence[Sequence[int]],
    recompute: Recompute,
) -> CacheFinding:
    """Compare what the segments hold with what their tokens lead to. Raises as `check_shape`."""
    check_shape(shape, [len(data) for data in segments], sequences)
    tolerance = TOLERANCES.get(shape.item_bytes, 0.0)
    places = (shape.slots, shape.heads, shape.capacity, shape.width)
    held = np.float32 if shape.item_bytes == 4 else np.uint16
    arrays = [np.frombuffer(data, held).reshape(places) for data in segments]
    elements = outside = fresh_elements = 0
    free, packed = 0.0, PlaneHistogram(shape.item_bytes)
    seen: set[bytes] = set()
    for slot, row in enumerate(sequences):
        if not row:
            continue
        fresh = _fresh_positions(row, seen)  # (S,)
        computed = recompute(row)
        like = (shape.heads, len(row), shape.width)
        if len(computed) != len(arrays) or any(expected.shape != like for expected in computed):
            raise IntegrityError("The agent declares key-value memory of another shape than its model's.")
        for index, expected in enumerate(computed):
            found = widened(arrays[index][slot, :, : len(row)])  # (heads, S, D)
            elements += found.size
            outside += _outside(expected, found, tolerance)
            if index >= 2 and fresh.any():
                nearest = rounded(expected[:, fresh], shape.item_bytes)
                free += free_bits(nearest, found[:, fresh], shape.item_bytes)
                packed.feed(_as_held(nearest, shape.item_bytes))
                fresh_elements += nearest.size
    kept = max(0.0, packed.bits - free) / 8 - _TOKEN_BYTES * sum(map(len, sequences))
    return CacheFinding(
        written=elements * shape.item_bytes,
        elements=elements,
        outside=outside,
        free_bits=free / fresh_elements if fresh_elements else 0.0,
        counted=max(0, int(kept)),
    )


def _outside(expected: NDArray[np.float32], found: NDArray[np.float32], tolerance: float) -> int:
    """How many elements are further off than rounding explains, or no numbers at all."""
    return int((~(np.abs(found - expected) <= np.float32(tolerance) * spread(expected))).sum())


def _as_held(values: NDArray[np.float32], item_bytes: int) -> NDArray[np.uint8]:
    """The bytes of values of the format as a server holds them."""
    if item_bytes == 4:
        return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return (values.view(np.uint32) >> 16).astype(np.uint16).reshape(-1).view(np.uint8)


def _fresh_positions(row: Sequence[int], seen: set[bytes]) -> NDArray[np.bool_]:
    """Which positions have a prefix that no earlier row had."""
    state = hashlib.blake2b(digest_size=16)
    fresh = np.zeros(len(row), bool)
    for position, token in enumerate(row):
        state.update(token.to_bytes(4, "big"))
        digest = state.digest()
        fresh[position] = digest not in seen
        seen.add(digest)
    return fresh
