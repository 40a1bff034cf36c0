"""Key-value memory beside what the reference computes for the same tokens. Pure functions over arrays.

Not counted is what a prover does not need memory for, or has for something else: what rounding leaves open
(`rounding`), the first layer (it follows from one token each, and is cheap to rebuild), positions whose
prefix another row has as well (one copy serves both), what order-0 codes of the byte planes save or one that
takes values beside those of a like context (`likeness`), and four bytes a token, since the tokens themselves
are the prover's word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ullage.errors import IntegrityError
from ullage.memory.machine.region import usable_cores
from ullage.memory.machine.segments import CacheShape
from ullage.memory.residency.density import PlaneHistogram
from ullage.memory.residency.likeness import Contexts, Places, Sketches, bits_beside
from ullage.memory.residency.rounding import Floats, position_bits, rounded, spread, widened

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
    if len(sizes) != 2 * shape.layers or any(not size or size != shape.segment_bytes for size in sizes):
        raise IntegrityError("The agent declares key-value memory of another size than its shape has.")
    if sizes and shape.item_bytes not in TOLERANCES:
        raise IntegrityError(f"Key-value memory of {shape.item_bytes} bytes an element cannot be checked.")
    if len(sequences) > shape.slots or any(len(row) > shape.capacity for row in sequences):
        raise IntegrityError("The agent names more tokens than its key-value memory can stand for.")


def check_cache(
    shape: CacheShape,
    segments: Sequence[memoryview],
    sequences: Sequence[Sequence[int]],
    recompute: Recompute,
) -> CacheFinding:
    """Compare what the segments hold with what their tokens lead to. Raises as `check_shape`."""
    check_shape(shape, [len(data) for data in segments], sequences)
    places = (shape.slots, shape.heads, shape.capacity, shape.width)
    held = np.float32 if shape.item_bytes == 4 else np.uint16
    arrays = [np.frombuffer(data, held).reshape(places) for data in segments]
    tally, seen = _Tally(shape), set[bytes]()
    contexts, sketches = Contexts(shape.capacity), Sketches(shape.slots, shape.capacity)
    # What is expected of all values behind the first layer: half of a cache.
    positions = (shape.slots * shape.capacity, shape.heads, shape.width)
    values = [
        np.zeros(positions if _counts_values(number) else 0, np.float32) for number in range(len(arrays))
    ]
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="cache") as pool:
        for slot, row in enumerate(sequences):
            if not row:
                continue
            fresh, met = _fresh_positions(row, seen), contexts.add(slot, row)
            computed = recompute(row)
            like = (shape.heads, len(row), shape.width)
            if len(computed) != len(arrays) or any(expected.shape != like for expected in computed):
                raise IntegrityError("The agent declares key-value memory of another shape than its model's.")
            nearest = sketches.nearest(slot, computed[-1], met)
            alike = [places[fresh] for places in nearest]
            one = _Row(shape.item_bytes, slot * shape.capacity, len(row), fresh, alike)
            found = [array[slot, :, : len(row)] for array in arrays]
            numbers = range(len(arrays))
            for compared in pool.map(partial(_compare, one), numbers, computed, found, values):
                tally.add(compared)
    return tally.finding(_TOKEN_BYTES * sum(map(len, sequences)))


def _counts_values(number: int) -> bool:
    """Whether a tensor holds values behind the first layer; keys and values take turns."""
    return number > 2 and number % 2 == 1


@dataclass(frozen=True)
class _Row:
    """A row of the cache: the number of its first position, which of its positions count, and what these are
    like, by their numbers."""

    item_bytes: int
    first: int
    length: int
    fresh: NDArray[np.bool_]
    alike: list[Places]


@dataclass(frozen=True)
class _Compared:
    """One tensor of one row. Of what counts: the bytes expected, the bits that rounding leaves open, and of
    values the bits that each position takes beside what it is like."""

    elements: int
    outside: int
    expected: NDArray[np.uint8] | None = None
    free: float = 0.0
    beside: NDArray[np.float64] | None = None


def _compare(row: _Row, number: int, expected: Floats, held: NDArray[Any], values: Floats) -> _Compared:
    """Tensor `number` of all; `values` is what is expected of all positions so far, and takes the row's."""
    found = widened(held)  # (heads, S, D)
    limit = np.float32(TOLERANCES[row.item_bytes]) * spread(expected)
    with np.errstate(all="ignore"):  # what is no number is outside, too
        outside = int((~(np.abs(found - expected) <= limit)).sum())
    nearest = rounded(expected, row.item_bytes)
    if _counts_values(number):
        values[row.first : row.first + row.length] = nearest.swapaxes(0, 1)
    if number < 2 or not row.fresh.any():
        return _Compared(found.size, outside)
    nearest = nearest[:, row.fresh]
    free = float(position_bits(nearest, found[:, row.fresh], row.item_bytes).sum())
    beside = bits_beside(nearest, values, row.alike, row.item_bytes) if _counts_values(number) else None
    return _Compared(found.size, outside, _as_held(nearest, row.item_bytes), free, beside)


class _Tally:
    """Sums over rows and tensors."""

    def __init__(self, shape: CacheShape) -> None:
        self._item_bytes = shape.item_bytes
        self._position_elements = shape.heads * shape.width
        self._packed = PlaneHistogram(shape.item_bytes)
        self._elements = self._outside = self._counting = 0
        self._free = 0.0
        self._beside: list[NDArray[np.float64]] = []

    def add(self, compared: _Compared) -> None:
        self._elements += compared.elements
        self._outside += compared.outside
        self._free += compared.free
        if compared.expected is not None:
            self._packed.feed(compared.expected)
            self._counting += compared.expected.size // self._item_bytes
        if compared.beside is not None:
            self._beside.append(compared.beside)

    def finding(self, token_bytes: int) -> CacheFinding:
        """`token_bytes` are what the tokens themselves take."""
        each = self._packed.bits / self._counting if self._counting else 0.0
        beside = np.concatenate(self._beside) if self._beside else np.empty(0)
        # Keys count at the share of the values of their position and layer.
        needed = 2 * float(np.minimum(beside, each * self._position_elements).sum())
        counted = int(max(0.0, needed - self._free) / 8 - token_bytes)
        return CacheFinding(
            written=self._elements * self._item_bytes,
            elements=self._elements,
            outside=self._outside,
            free_bits=self._free / self._counting if self._counting else 0.0,
            counted=max(0, counted),
        )


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
