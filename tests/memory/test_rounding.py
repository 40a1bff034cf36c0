"""What rounding leaves to a prover: a code, so its lengths keep Kraft's inequality, and nobody gets more."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ullage.memory.residency.density import PlaneHistogram
from ullage.memory.residency.rounding import best_scales, cell, code_bits, position_bits, rounded, spread

Floats = NDArray[np.float32]

_ALL = (np.arange(1 << 16, dtype=np.uint32) << np.uint32(16)).view(np.float32)
BFLOATS = _ALL[np.isfinite(_ALL) & ~((_ALL == 0) & np.signbit(_ALL))]
"""Every number of bfloat16; the two zeros are one."""


def free_bits(expected: Floats, held: Floats, item_bytes: int) -> float:
    return float(position_bits(expected, held, item_bytes).sum())


held_values = st.floats(width=32, allow_nan=True, allow_infinity=True)
scales = st.floats(2.0**-40, 2.0**40, width=32)


def honest(shape: tuple[int, ...] = (4, 64, 32), seed: int = 1, item_bytes: int = 4) -> Floats:
    values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return rounded(values, item_bytes)


@given(held_values, scales)
@example(0.0, 2.0**-40)
@example(-2.5, 1.0)
@example(1.0, 2.0**-9)
@example(1 - 2.0**-9, 2.0**-12)  # between two numbers, of which one has steps of two sizes around it
@example(math.inf, 1.0)
@example(3.3895313892515355e38, 2.0**40)
def test_the_lengths_of_a_code_are_those_of_one(held: float, scale: float) -> None:
    """Over all numbers that could be expected, 2^-bits adds up to 1 at most: Kraft's inequality."""
    bits = code_bits(BFLOATS, np.full_like(BFLOATS, held), np.full_like(BFLOATS, scale), 2)
    assert np.isfinite(bits).all()
    assert (bits > 0).all()
    assert float(np.sum(2.0 ** -bits.astype(np.float64))) <= 1 + 1e-5


@given(st.floats(-1e6, 1e6, width=32), st.floats(0, 1e3, width=32), scales)
def test_what_lies_as_far_on_the_other_side_costs_the_same(e: float, away: float, scale: float) -> None:
    expected, shifted = np.array([e], np.float32), np.array([e + away], np.float32)
    one = code_bits(expected, shifted, np.array([scale], np.float32), 4)
    other = code_bits(-expected, -shifted, np.array([scale], np.float32), 4)
    assert one == other


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1), st.sampled_from([2, 4]))
def test_what_rounds_to_a_value_lies_in_its_cell(values: list[float], item_bytes: int) -> None:
    exact = np.array(values, np.float32)
    nearest = rounded(exact, item_bytes)
    assert (rounded(nearest, item_bytes) == nearest).all()
    below, above = cell(nearest, item_bytes)
    further = np.abs(exact.astype(np.float64)) - np.abs(nearest.astype(np.float64))
    assert (-below <= further).all()
    assert (further <= above).all()


def test_bfloat16_is_rounded_to_the_nearest_and_halves_to_even() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -1.005, 0.0, math.inf], np.float32)
    assert rounded(values, 2).tolist() == [1.0, 1.0, 1.015625, -1.0078125, 0.0, math.inf]
    assert math.isnan(rounded(np.array([math.nan], np.float32), 2)[0])


def test_a_logistic_difference_costs_about_its_entropy() -> None:
    """Entropy of a logistic variable of scale s on a grid of step u: log2(s/u) + 2/ln 2 bits."""
    expected, scale = honest((8, 4000, 64)), 2.0**-19
    noise = np.random.default_rng(2).logistic(size=expected.shape)
    held = (expected + scale * spread(expected) * noise).astype(np.float32)
    assert (best_scales(expected, held) == scale).all()
    steps = np.log2(scale * spread(expected) / np.spacing(np.abs(expected)))
    assert free_bits(expected, held, 4) / expected.size == pytest.approx(
        float(np.mean(steps)) + 2 / math.log(2), abs=0.02
    )


def test_the_very_same_values_cost_a_choice_a_position() -> None:
    for item_bytes in (2, 4):
        values = honest(item_bytes=item_bytes)
        assert free_bits(values, values, item_bytes) == 6 * 64  # one choice a position


def test_a_position_costs_its_scale_and_its_elements() -> None:
    expected = honest((2, 1, 16))
    held = (expected * np.float32(1 + 1e-6)).astype(np.float32)
    scale = best_scales(expected, held) * spread(held)
    elements = float(code_bits(expected, held, scale, 4).sum(dtype=np.float64))
    assert free_bits(expected, held, 4) == pytest.approx(6 + elements, abs=1e-3)


def test_other_content_costs_more_than_it_can_be_worth() -> None:
    for item_bytes in (2, 4):
        values, others = honest(item_bytes=item_bytes), honest(seed=9, item_bytes=item_bytes)
        planes = PlaneHistogram(item_bytes)
        planes.feed(
            (values.view(np.uint32) >> (32 - 8 * item_bytes))
            .astype(f"u{item_bytes}")
            .reshape(-1)
            .view(np.uint8)
        )
        assert free_bits(values, others, item_bytes) > 0.9 * planes.bits
        nothing = np.full_like(values, np.nan)
        assert free_bits(values, nothing, item_bytes) > 8 * item_bytes * values.size


@pytest.mark.parametrize("zeroed", range(1, 23, 3))
def test_who_rounds_bits_away_pays_for_them(zeroed: int) -> None:
    """A prover that keeps float32 without its last bits, and answers from those, saves k bits an element."""
    expected = honest()
    held = (expected.view(np.uint32) >> np.uint32(zeroed) << np.uint32(zeroed)).view(np.float32)
    assert free_bits(expected, held, 4) >= zeroed * expected.size


@given(st.integers(1, 8), st.floats(0.01, 2.0))
def test_who_keeps_a_coarse_grid_pays_for_what_it_leaves_out(bits: int, reach: float) -> None:
    """Quantised to 2^bits steps over +-`reach` root mean squares (as caches are): what is counted is not more
    than what such a prover stores."""
    expected = honest((2, 64, 64), item_bytes=2)
    step = 2 * reach / 2**bits
    level = np.clip(np.round(expected / step), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    held = rounded((level * step).astype(np.float32), 2)
    planes = PlaneHistogram(2)
    planes.feed((expected.view(np.uint32) >> 16).astype(np.uint16).reshape(-1).view(np.uint8))
    assert planes.bits - free_bits(expected, held, 2) <= bits * expected.size


def test_positions_that_agree_cost_next_to_nothing_beside_those_that_do_not() -> None:
    """As a prompt's, computed in one pass by both, beside those that a server decoded one by one."""
    expected = honest((8, 1000, 64))
    held = expected.copy()
    held[:, 900:] *= 1 + 1e-6 * np.random.default_rng(3).normal(size=(8, 100, 64)).astype(np.float32)
    decoded = free_bits(expected[:, 900:], held[:, 900:], 4)
    assert 4 * 8 * 100 * 64 < decoded < 7 * 8 * 100 * 64
    assert free_bits(expected, held, 4) - decoded < 0.05 * 8 * 900 * 64
