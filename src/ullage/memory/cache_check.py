"""Key-value memory beside what the reference computes for the same tokens. Pure functions over arrays.

Two honest machines agree on a key to a few units in the last place, no better: a verifier that accepts
w values for an element leaves log2(w) bits of it to the prover, so these are not counted. Nor are: the
first layer (it follows from one token each, and is cheap to rebuild), positions whose prefix another row
has as well (one copy serves both), what an order-0 code of the exponents saves, and four bytes a token,
since the tokens themselves are the prover's word.
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
from ullage.memory.segments import CacheShape

Recompute = Callable[[Sequence[int]], Sequence[NDArray[np.float32]]]
"""From token ids to keys, then values, of layer after layer, `(heads, S, D)` each."""

_TOKEN_BYTES = 4
# Of the honest elements of the built-in model at most one in 10,000 lies further out, also between different
# instruction sets (docs/results/memory.md), in units of the head's root mean square: float32 (of which three
# times that, for models that are wider), bfloat16.
TOLERANCES = {4: 1e-5, 2: 3e-2}


@dataclass(frozen=True)
class CacheFinding:
    """`written` bytes stand for tokens; of these `outside` elements are not what the reference computes, and
    `counted` bytes are proven when they are in memory. `free_bits` is the mean log2 of values accepted."""

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


def _ordinal(values: NDArray[np.float32], item_bytes: int) -> NDArray[np.int64]:
    """The place of each value among the numbers of its format, in ascending order."""
    bits = values.view(np.int32).astype(np.int64)
    if item_bytes == 2:
        bits >>= 16
    sign = 1 << (8 * item_bytes - 1)
    return np.where(bits < 0, -(bits & (sign - 1)), bits)


def accepted_values(expected: NDArray[np.float32], tolerance: float, item_bytes: int) -> NDArray[np.int64]:
    """How many numbers of the format lie within `tolerance` times the last axis's root mean square."""
    spread = _spread(expected, tolerance)
    low, high = expected - spread, expected + spread
    return np.asarray(_ordinal(high, item_bytes) - _ordinal(low, item_bytes) + 1)


def _spread(expected: NDArray[np.float32], tolerance: float) -> NDArray[np.float32]:
    return np.asarray(tolerance * np.sqrt(np.mean(expected**2, axis=-1, keepdims=True)), np.float32)


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
    bits = 0.0
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
            wrong = ~(np.abs(found - expected) <= _spread(expected, tolerance))
            elements += found.size
            outside += int(wrong.sum())
            if index >= 2:
                counted = ~wrong[:, fresh]
                ways = accepted_values(expected, tolerance, shape.item_bytes)[:, fresh]
                bits += float(np.log2(ways[counted]).sum())
                fresh_elements += int(counted.sum())
    packed = _packed_bits(arrays[2:], sequences, shape.item_bytes)
    kept = max(0.0, fresh_elements * packed - bits) / 8 - _TOKEN_BYTES * sum(map(len, sequences))
    return CacheFinding(
        written=elements * shape.item_bytes,
        elements=elements,
        outside=outside,
        free_bits=bits / fresh_elements if fresh_elements else 0.0,
        counted=max(0, int(kept)),
    )


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


def _packed_bits(
    arrays: Sequence[NDArray[Any]], sequences: Sequence[Sequence[int]], item_bytes: int
) -> float:
    """Bits an element that an order-0 code of the byte planes needs, over all that stands for tokens."""
    planes, elements = PlaneHistogram(item_bytes), 0
    for array in arrays:
        for slot, row in enumerate(sequences):
            values = np.ascontiguousarray(array[slot, :, : len(row)]).reshape(-1).view(np.uint8)
            planes.feed(values)
            elements += len(values) // item_bytes
    return planes.bits / elements if elements else 0.0
