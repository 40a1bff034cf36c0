"""What keys and values take beside others of a like context."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ullage.memory.likeness import LENGTHS, Contexts, bits_beside


@given(st.lists(st.lists(st.integers(0, 2), max_size=30), max_size=4))
def test_each_position_is_like_the_last_that_ends_in_the_same_tokens(rows: list[list[int]]) -> None:
    contexts, before = Contexts(), list[tuple[int, int]]()
    for slot, row in enumerate(rows):
        found = contexts.add(slot, row)
        for position in range(len(row)):
            for length, places in zip(LENGTHS, found, strict=True):
                run = row[position + 1 - length : position + 1] if position + 1 >= length else None
                like = [
                    (earlier, at)
                    for earlier, at in [*before, *((slot, at) for at in range(position))]
                    if run and at + 1 >= length and rows[earlier][at + 1 - length : at + 1] == run
                ]
                assert tuple(places[position]) == (like[-1] if like else (-1, -1))
        before += [(slot, at) for at in range(len(row))]


def test_what_is_nearly_the_same_takes_nearly_nothing() -> None:
    random = np.random.default_rng(4)
    held = random.normal(size=(2, 3, 10, 16)).astype(np.float32)  # (slots, heads, capacity, D)
    expected = held[1, :, :2].copy()
    expected[:, 0] = held[0, :, 7]  # the first position equals position 7 of slot 0
    places = np.array([[0, 7], [0, 7]])
    nothing = np.full((2, 2), -1)
    same, other = bits_beside(expected, held, [places, nothing], 4)
    assert same < 2 * 3 * 16
    assert other > 20 * 3 * 16  # as if said outright, and no more than that and ten bits
    assert other < 43 * 3 * 16
    assert bits_beside(expected, held, [nothing], 4).tolist() == [math.inf, math.inf]
    best = bits_beside(expected, held, [np.array([[1, 0], [1, 1]]), places], 4)
    assert best[0] == same
    assert best[1] < 2 * 3 * 16


def test_bfloat16_is_read_as_it_lies_in_memory() -> None:
    values = np.random.default_rng(4).normal(size=(1, 3, 4, 16)).astype(np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    exact = (halves.astype(np.uint32) << 16).view(np.float32)
    places = np.array([[0, 2]])
    assert bits_beside(exact[0, :, 2:3], halves, [places], 2)[0] < 2 * 3 * 16
    assert bits_beside(exact[0, :, 1:2], halves, [places], 2)[0] > 7 * 3 * 16
