"""Key-value memory beside the reference: what differs, what is accepted, what is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ullage.errors import IntegrityError
from ullage.memory.cache_check import accepted_values, check_cache, check_shape, widened
from ullage.memory.segments import CacheShape

SHAPE = CacheShape(layers=3, slots=4, heads=2, capacity=32, width=16, item_bytes=4)


def recompute(row: Sequence[int]) -> list[NDArray[np.float32]]:
    """Keys and values that depend on the whole prefix."""
    found = []
    for index in range(2 * SHAPE.layers):
        columns = [
            np.random.default_rng([index, *row[: place + 1]]).normal(size=(SHAPE.heads, SHAPE.width))
            for place in range(len(row))
        ]
        found.append(np.stack(columns, axis=1).astype(np.float32))
    return found


def fill(rows: Sequence[Sequence[int]], noise: float = 0.0) -> list[NDArray[np.float32]]:
    """What a server's tensors hold, `noise` off in relative terms."""
    random = np.random.default_rng(5)
    tensors = [np.zeros((4, 2, 32, 16), np.float32) for _ in range(6)]
    for slot, row in enumerate(rows):
        for tensor, states in zip(tensors, recompute(row), strict=True):
            tensor[slot, :, : len(row)] = states * (1 + noise * random.normal(size=states.shape))
    return tensors


def views(tensors: Sequence[NDArray[np.float32]]) -> list[memoryview]:
    return [memoryview(tensor.tobytes()) for tensor in tensors]


ROWS = ([1, 2, 3, 4, 5, 6], [7, 8, 9], [1, 2, 4, 4])


def test_honest_memory_is_declared_and_mostly_counted() -> None:
    found = check_cache(SHAPE, views(fill(ROWS, 1e-7)), ROWS, recompute)
    assert found.outside == 0
    assert found.is_declared
    elements = 6 * 2 * 16 * 13
    assert found.elements == elements
    assert found.written == 4 * elements
    assert 6 < found.free_bits < 12  # 2e-5 of the head's size, in units of 2^-23
    # Neither the first layer nor the shared prefix (1, 2), and less than the bits that are not free.
    fresh = 4 * 2 * 16 * 11
    assert 0 < found.counted < fresh * (32 - found.free_bits) / 8


def test_other_content_is_outside() -> None:
    tensors = fill(ROWS)
    tensors[3][0, 1, 2] = 0.5
    found = check_cache(SHAPE, views(tensors), ROWS, recompute)
    assert found.outside == 16
    assert not found.is_declared
    tensors[4][1, 0, 0, 0] = math.nan
    assert check_cache(SHAPE, views(tensors), ROWS, recompute).outside == 17


def test_the_same_row_twice_counts_once() -> None:
    once = check_cache(SHAPE, views(fill([ROWS[0]])), [ROWS[0]], recompute)
    twice = check_cache(SHAPE, views(fill([ROWS[0]] * 2)), [ROWS[0]] * 2, recompute)
    assert twice.counted <= once.counted
    assert twice.written == 2 * once.written


def test_nothing_written_counts_for_nothing() -> None:
    assert check_cache(SHAPE, views(fill([])), [[]], recompute).counted == 0


@pytest.mark.parametrize(
    ("shape", "sizes", "rows"),
    [
        (SHAPE, [SHAPE.segment_bytes] * 5, []),
        (SHAPE, [SHAPE.segment_bytes + 4] * 6, []),
        (SHAPE, [SHAPE.segment_bytes] * 6, [[1]] * 5),
        (SHAPE, [SHAPE.segment_bytes] * 6, [[1] * 33]),
        (CacheShape(1, 1, 1, 1, 1, 8), [8, 8], []),
    ],
)
def test_maps_that_cannot_be_are_refused(shape: CacheShape, sizes: list[int], rows: list[list[int]]) -> None:
    with pytest.raises(IntegrityError):
        check_shape(shape, sizes, rows)


@given(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4), st.floats(1e-6, 1e-2))
def test_every_accepted_float_is_in_the_count(values: list[float], tolerance: float) -> None:
    expected = np.array([values], np.float32)
    ways = accepted_values(expected, tolerance, 4)[0]
    spread = np.float32(tolerance) * np.sqrt(np.mean(expected**2))
    for value, count in zip(expected[0], ways, strict=True):
        up, inside = value, 0
        while inside < 50 and up <= value + spread:
            up, inside = np.nextafter(up, np.float32(np.inf)), inside + 1
        assert count >= min(inside, 50) - 1
        assert count >= 1


def test_bfloat16_is_the_upper_half() -> None:
    values = np.array([1.0, -2.5, 0.0], np.float32)
    halves = np.ascontiguousarray(values.view(np.uint16)[1::2])
    assert widened(halves).tolist() == [1.0, -2.5, 0.0]
    assert accepted_values(np.array([[1.0, 1.0]], np.float32), 1e-2, 2).tolist() == [[5, 5]]
