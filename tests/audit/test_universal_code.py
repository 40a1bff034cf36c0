"""Codes without a calibration: Kraft's inequality by enumeration, and how near they come to a fitted one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.audit.bounds.codelength import token_codelength
from ullage.audit.bounds.noise_model import FlipCurve
from ullage.audit.bounds.universal_code import (
    CELL_GAPS,
    NEAR_RANKS,
    either_code,
    gap_cells,
    gaps_code,
    matches_code,
)
from ullage.errors import UsageError

STEADY = settings(deadline=None, max_examples=25)


def gap_counts(gaps: list[float], outcomes: tuple[int, ...]) -> np.ndarray:
    counts = np.zeros((len(CELL_GAPS), 3), np.int64)
    np.add.at(counts, (gap_cells(np.array(gaps)), np.minimum(np.array(outcomes), 2)), 1)
    return counts


@STEADY
@given(st.lists(st.floats(0, 300) | st.just(math.inf), min_size=1, max_size=3), st.integers(3, 5))
def test_the_gaps_code_is_a_distribution(gaps: list[float], vocabulary: int) -> None:
    """Over all windows of these gaps: tokens by rank, 0 the own, 1 the nearest other."""
    total = sum(
        2 ** -gaps_code(gap_counts(gaps, ranks), vocabulary)
        for ranks in itertools.product(range(vocabulary), repeat=len(gaps))
    )
    assert total == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("ranked", [True, False])
@pytest.mark.parametrize("vocabulary", [2, 4, 12])
def test_the_matches_code_is_a_distribution(vocabulary: int, ranked: bool) -> None:
    tokens = 3
    total = 0.0
    for ranks in itertools.product(range(vocabulary), repeat=tokens):
        near = sum(1 <= rank <= NEAR_RANKS for rank in ranks) if ranked else 0
        far = sum(rank > 0 for rank in ranks) - near
        total += 2 ** -matches_code(tokens, near, far, vocabulary, ranked=ranked)
    assert total == pytest.approx(1, abs=1e-12)


def test_half_a_bit_a_doubling_is_the_price_of_not_knowing_the_rate() -> None:
    clean = matches_code(1 << 20, 0, 0, 4096, ranked=True)
    assert clean == pytest.approx(0.5 * 20 + 0.5 * math.log2(math.pi), abs=0.01)
    rate = 0.004
    some = matches_code(100_000, 400, 0, 4096, ranked=True) / 100_000
    entropy = -rate * math.log2(rate) - (1 - rate) * math.log2(1 - rate)
    # A near token costs 4 bits beside the choice of where, a far one 13.
    assert some == pytest.approx(entropy + 4 * rate, abs=2e-4)
    assert matches_code(100_000, 0, 400, 4096, ranked=True) / 100_000 == pytest.approx(
        entropy + 13 * rate, abs=2e-4
    )
    assert matches_code(100_000, 0, 400, 4096, ranked=False) / 100_000 == pytest.approx(
        entropy + 12 * rate, abs=2e-4
    )


def test_the_gaps_code_comes_near_a_fitted_one() -> None:
    """Honest flips of a known curve: the mixture costs a few bits a window more than the curve itself."""
    generator = np.random.default_rng(1)
    gaps = generator.exponential(2.0, size=60_000)
    curve = FlipCurve(0.006, 4.0, 1.0)
    flips = curve.probability(gaps)
    outcomes = (generator.random(len(gaps)) < flips).astype(int)
    fitted = float(token_codelength(np.where(outcomes == 1, flips, 1 - flips), 4096).sum())
    assert outcomes.sum() > 50
    mixed = gaps_code(gap_counts(gaps.tolist(), tuple(outcomes)), 4096)
    assert mixed < fitted + 15
    assert mixed < 0.6 * matches_code(len(gaps), int(outcomes.sum()), 0, 4096, ranked=True)


def test_cells_round_gaps_down() -> None:
    gaps = np.array([0.0, 1e-12, 2.0**-24, 0.1, 255.9, 1e30, math.inf])
    cells = CELL_GAPS[gap_cells(gaps)]
    assert cells[0] == cells[1] == 0
    assert np.all(cells <= gaps)
    assert np.all(cells[2:5] > gaps[2:5] * 2 ** (-1 / 16) * (1 - 1e-12))
    assert math.isinf(cells[-1])
    assert not math.isinf(cells[-2])
    for wrong in (-1.0, math.nan):
        with pytest.raises(UsageError):
            gap_cells(np.array([wrong]))


@STEADY
@given(st.lists(st.floats(0, 5000), min_size=1, max_size=5))
def test_either_costs_a_little_more_than_the_best(bits: list[float]) -> None:
    mixed = either_code(bits)
    assert min(bits) - 1e-9 <= mixed <= min(bits) + math.log2(len(bits)) + 1e-9


def test_counts_that_cannot_be_are_refused() -> None:
    for arguments in ((5, 6, 0), (5, -1, 0), (-1, 0, 0)):
        with pytest.raises(UsageError):
            matches_code(*arguments, 100, ranked=True)
    with pytest.raises(UsageError):
        matches_code(5, 1, 0, 100, ranked=False)
    with pytest.raises(UsageError):
        matches_code(5, 1, 0, 1, ranked=True)
    with pytest.raises(UsageError):
        gaps_code(np.zeros((3, 3), np.int64), 100)
    with pytest.raises(UsageError):
        either_code([])
