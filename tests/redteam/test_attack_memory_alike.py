"""A prover that chooses its own traffic, so that keys and values need not be held: the same token again and
again, a few in turn, or one sequence in every slot that differs in one place. All of it is what the declared
model computes, and stands in memory while the verifier looks. It may not count as room that is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ullage.memory.cache_check import CacheFinding, check_cache
from ullage.memory.segments import CacheShape
from ullage.model.builtin import builtin_path
from ullage.model.key_values import key_values
from ullage.model.loading import load_causal_lm

LENGTH = 160
States = NDArray[np.float32]


@pytest.fixture(scope="module")
def model() -> Any:
    return load_causal_lm(builtin_path(), "float32")


def share(
    model: Any, rows: Sequence[Sequence[int]], held_as: Callable[[States], States] = lambda values: values
) -> float:
    """What counts of the bytes behind the first layer that hold these rows; values stand in memory as
    `held_as` makes them, keys as they are."""
    computed = [key_values(model, row) for row in rows]
    heads, _, width = computed[0][0].shape
    layers = len(computed[0]) // 2
    shape = CacheShape(layers, len(rows), heads, LENGTH, width, 4)
    tensors = [np.zeros((len(rows), heads, LENGTH, width), np.float32) for _ in range(2 * layers)]
    for slot, states in enumerate(computed):
        for index, values in enumerate(states):
            tensors[index][slot, :, : len(rows[slot])] = held_as(values) if index % 2 else values
    held = [memoryview(tensor.tobytes()) for tensor in tensors]
    found: CacheFinding = check_cache(shape, held, rows, lambda row: key_values(model, row))
    assert found.is_declared
    return found.counted / found.written * layers / (layers - 1)


def drawn(seed: int, count: int = LENGTH) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(5, 4000, count)]


def test_different_sequences_count_for_most_of_their_room(model: Any) -> None:
    assert share(model, [drawn(1), drawn(2)]) > 0.78


def test_the_same_token_again_and_again_counts_for_its_last_bits(model: Any) -> None:
    """All values of a layer agree to three units in the last place, and these are honestly there."""
    assert share(model, [[77] * LENGTH, [99] * LENGTH]) < 0.2


def test_who_keeps_one_value_for_all_of_them_proves_the_last_bits_of_keys_alone(model: Any) -> None:
    def one_for_all(values: States) -> States:
        return np.broadcast_to(values[:, -1:], values.shape)

    assert share(model, [[77] * LENGTH, [99] * LENGTH], one_for_all) < 0.1


def test_a_few_tokens_in_turn_count_for_less(model: Any) -> None:
    assert share(model, [drawn(3, 4) * (LENGTH // 4)]) < 0.65


def test_one_sequence_that_differs_in_one_place_counts_for_less_in_every_further_slot(model: Any) -> None:
    one = drawn(5)
    several = [[first, *one[1:]] for first in range(10, 18)]
    inserted = [[*one[:20], extra, *one[20 : LENGTH - 1]] for extra in range(10, 18)]
    alone = share(model, [one])
    assert share(model, several) < 0.9 * alone
    assert share(model, inserted) < 0.9 * alone
