"""Key-value memory beside the reference: what differs, what is accepted, what is counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ullage.errors import IntegrityError
from ullage.memory.machine.segments import CacheShape
from ullage.memory.residency.cache_check import check_cache, check_shape
from ullage.memory.residency.rounding import rounded, widened

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
    assert 2 < found.free_bits < 3.5  # differences of 1e-7 where a float has 2^-24 to 2^-23 of its size
    # Neither the first layer nor the shared prefix (1, 2), and less than the bits that are not free.
    fresh = 4 * 2 * 16 * 11
    assert 0.7 * 4 * fresh < found.counted < fresh * (32 - found.free_bits) / 8


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
    assert once.counted > 0
    assert twice.counted == once.counted - 4 * len(ROWS[0])  # its tokens are said, and nothing is there twice
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
        (CacheShape(1, 0, 1, 1, 1, 4), [0, 0], []),
    ],
)
def test_maps_that_cannot_be_are_refused(shape: CacheShape, sizes: list[int], rows: list[list[int]]) -> None:
    with pytest.raises(IntegrityError):
        check_shape(shape, sizes, rows)


@given(st.floats(0, 0.1))
def test_who_is_further_off_proves_less(noise: float) -> None:
    near, far = (check_cache(SHAPE, views(fill(ROWS, by)), ROWS, recompute) for by in (noise / 2, noise))
    assert far.counted <= near.counted + 16
    assert far.free_bits >= near.free_bits - 0.05


def test_bfloat16_is_the_upper_half() -> None:
    values = np.array([1.0, -2.5, 0.0], np.float32)
    halves = np.ascontiguousarray(values.view(np.uint16)[1::2])
    assert widened(halves).tolist() == [1.0, -2.5, 0.0]


def test_a_cache_of_bfloat16_is_held_against_the_nearest_of_what_is_expected() -> None:
    shape = replace(SHAPE, item_bytes=2)
    halves = [(rounded(one, 2).view(np.uint32) >> 16).astype(np.uint16) for one in fill(ROWS)]
    found = check_cache(shape, [memoryview(one.tobytes()) for one in halves], ROWS, recompute)
    assert found.outside == 0
    assert found.free_bits < 6 / (2 * 16) + 0.05
    fresh = 4 * 2 * 16 * 11
    assert 1.2 * fresh < found.counted < 2 * fresh
