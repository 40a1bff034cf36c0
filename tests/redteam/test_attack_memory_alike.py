"""A prover that chooses its own traffic, so that keys and values need not be held: the same token again and
again, a few in turn, or one sequence in every slot that differs in one place. All of it is what the declared
model computes, and stands in memory while the verifier looks. It may not count as room that is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ullage.memory.machine.segments import CacheShape
from ullage.memory.residency.cache_check import CacheFinding, check_cache
from ullage.memory.residency.rounding import rounded, spread
from ullage.model.builtin import builtin_path
from ullage.model.key_values import key_values
from ullage.model.loading import load_causal_lm

LENGTH = 160
States = NDArray[np.float32]


@pytest.fixture(scope="module")
def model() -> Any:
    return load_causal_lm(builtin_path(), "float32")


def share(
    model: Any, rows: Sequence[Sequence[int]], held_as: Callable[[int, States], States] | None = None,
    item_bytes: int = 4,
) -> float:  # fmt: skip
    """What counts of the bytes behind the first layer that hold these rows; values of slot n stand in memory
    as `held_as` makes them, keys as they are."""
    computed = [key_values(model, row) for row in rows]
    heads, _, width = computed[0][0].shape
    layers = len(computed[0]) // 2
    shape = CacheShape(layers, len(rows), heads, LENGTH, width, item_bytes)
    tensors = [np.zeros((len(rows), heads, LENGTH, width), np.float32) for _ in range(2 * layers)]
    for slot, states in enumerate(computed):
        for index, values in enumerate(states):
            changed = held_as(slot, values) if held_as and index % 2 else values
            tensors[index][slot, :, : len(rows[slot])] = changed
    held = [memoryview(in_format(tensor, item_bytes).tobytes()) for tensor in tensors]
    found: CacheFinding = check_cache(shape, held, rows, lambda row: key_values(model, row))
    assert found.is_declared
    return found.counted / found.written * layers / (layers - 1)


def in_format(values: States, item_bytes: int) -> NDArray[Any]:
    return values if item_bytes == 4 else (rounded(values, 2).view(np.uint32) >> 16).astype(np.uint16)


def noisy(amount: float) -> Callable[[int, States], States]:
    """Values of every second slot with noise of a seed, in root mean squares: it costs nothing to keep."""

    def held_as(slot: int, values: States) -> States:
        noise = np.random.default_rng(slot).uniform(-1, 1, values.shape).astype(np.float32)
        return values + (slot % 2) * np.float32(amount) * spread(values) * noise

    return held_as


def drawn(seed: int, count: int = LENGTH) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(5, 4000, count)]


def test_different_sequences_count_for_most_of_their_room(model: Any) -> None:
    assert share(model, [drawn(1), drawn(2)]) > 0.78


def test_the_same_token_again_and_again_counts_for_its_last_bits(model: Any) -> None:
    """All values of a layer agree to three units in the last place, and these are honestly there."""
    assert share(model, [[77] * LENGTH, [99] * LENGTH]) < 0.2


@pytest.mark.parametrize(
    ("item_bytes", "noise"), [(4, 0.0), (4, 2e-5), (4, 9e-5), (2, 0.0), (2, 0.03), (2, 0.09)]
)
def test_who_keeps_one_value_for_all_of_them_proves_the_last_bits_of_keys_at_most(
    model: Any, item_bytes: int, noise: float
) -> None:
    """Also with noise of a seed on top, which a verifier must not take for content."""

    def one_for_all(slot: int, values: States) -> States:
        same = np.broadcast_to(values[:, -1:], values.shape)
        drawn = np.random.default_rng(slot).uniform(-1, 1, values.shape).astype(np.float32)
        return same + np.float32(noise) * spread(same) * drawn

    assert share(model, [[77] * LENGTH, [99] * LENGTH], one_for_all, item_bytes) < (
        0.1 if not noise else 0.02
    )


@pytest.mark.parametrize(("item_bytes", "noise"), [(4, 9e-5), (2, 0.07)])
def test_noise_on_copies_that_do_not_count_makes_the_others_count_for_no_more(
    model: Any, item_bytes: int, noise: float
) -> None:
    one = drawn(5)
    rows = [[first, *one[1:]] for first in (10, 10, 11, 11, 12, 12)]
    honest = share(model, rows, None, item_bytes)
    assert share(model, rows, noisy(noise), item_bytes) <= honest + 1e-6


@pytest.mark.parametrize("item_bytes", [4, 2])
def test_the_order_of_the_slots_hides_nothing(model: Any, item_bytes: int) -> None:
    tail = drawn(6, 120)
    groups = [[[first, *drawn(seed, 39), *tail] for first in range(10, 14)] for seed in (7, 8)]
    in_turn = [row for pair in zip(*groups, strict=True) for row in pair]
    assert share(model, in_turn, None, item_bytes) == pytest.approx(
        share(model, [*groups[0], *groups[1]], None, item_bytes), rel=0.01
    )


def test_a_few_tokens_in_turn_count_for_less(model: Any) -> None:
    assert share(model, [drawn(3, 4) * (LENGTH // 4)]) < 0.65


def test_one_sequence_that_differs_in_one_place_counts_for_less_in_every_further_slot(model: Any) -> None:
    one = drawn(5)
    several = [[first, *one[1:]] for first in range(10, 18)]
    inserted = [[*one[:20], extra, *one[20 : LENGTH - 1]] for extra in range(10, 18)]
    alone = share(model, [one])
    assert share(model, several) < 0.9 * alone
    assert share(model, inserted) < 0.9 * alone
