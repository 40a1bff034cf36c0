"""What values take beside others of a like context."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ullage.memory.residency.likeness import LATEST, LENGTHS, Contexts, Sketches, bits_beside

CAPACITY = 32


@given(st.lists(st.lists(st.integers(0, 2), max_size=CAPACITY), max_size=4))
def test_each_position_is_like_the_latest_that_end_in_the_same_tokens(rows: list[list[int]]) -> None:
    contexts, before = Contexts(CAPACITY), list[tuple[int, int]]()
    for slot, row in enumerate(rows):
        found = contexts.add(slot, row)
        for position in range(len(row)):
            for places, length in zip(found, LENGTHS, strict=True):
                run = row[position + 1 - length : position + 1] if position + 1 >= length else None
                like = [
                    earlier * CAPACITY + at
                    for earlier, at in [*before, *((slot, at) for at in range(position))]
                    if run and at + 1 >= length and rows[earlier][at + 1 - length : at + 1] == run
                ]
                assert [int(place) for place in places[position] if place >= 0] == like[-LATEST:]
        before += [(slot, at) for at in range(len(row))]


def test_the_nearest_of_them_is_taken() -> None:
    values = np.random.default_rng(1).normal(size=(2, 6, 8)).astype(np.float32)
    values[:, 5] = values[:, 2] + 1e-4
    places = np.full((6, LATEST), -1)
    places[5, :4] = [0, 1, 2, 3]
    places[4, :2] = [3, 0]
    (nearest,) = Sketches(1, 8).nearest(0, values, [places])
    assert nearest.tolist()[:4] == [-1] * 4
    assert nearest[5] == 2
    assert nearest[4] in {0, 3}


def test_what_is_nearly_the_same_takes_nearly_nothing() -> None:
    random = np.random.default_rng(4)
    earlier = random.normal(size=(20, 3, 16)).astype(np.float32)  # (positions, heads, D)
    expected = earlier[:2].swapaxes(0, 1).copy()
    expected[:, 0] = earlier[7]  # the first equals position 7
    places, nothing = np.array([7, 7]), np.array([-1, -1])
    same, other = bits_beside(expected, earlier, [places, nothing], 4)
    assert same == 6 + 7  # that it is the same, and as which one
    assert other > 20 * 3 * 16  # as if said outright, and no more than that and ten bits
    assert other < 43 * 3 * 16
    assert bits_beside(expected, earlier, [nothing], 4).tolist() == [math.inf, math.inf]
    best = bits_beside(expected, earlier, [np.array([10, 1]), places], 4)
    assert best[0] == same
    assert best[1] < 2 * 3 * 16
