"""The bound covers in simulated windows, is exactly fair at the mean, rises with it, and is not too wide."""

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import beta

from ullage.audit.bounds import betting
from ullage.audit.bounds.betting import (
    covert_bits,
    draws_needed,
    exact_share,
    log_capital,
    message_shares,
    message_weights,
    mixed_codelength,
    rejects,
    upper_bound,
)
from ullage.errors import UndecidedError, UsageError

STEADY = settings(deadline=None)  # a loaded machine is no failure

V = 4096
Window = tuple[NDArray[np.int64], NDArray[np.float64]]  # lengths, codelengths
Population = Callable[[np.random.Generator], Window]


def honest(generator: np.random.Generator) -> Window:
    lengths = generator.integers(20, 400, 500)
    return lengths, 1.4e-4 * lengths + 20.0 * generator.poisson(0.002 * lengths)


def rare_huge(generator: np.random.Generator) -> Window:
    lengths = generator.integers(1, 400, 2000)
    full = generator.random(2000) < 0.001
    return lengths, np.where(full, lengths * 12.0 + 50, 1.4e-4 * lengths)


def one_whale(generator: np.random.Generator) -> Window:
    lengths = np.append(generator.integers(1, 50, 300), 4000)
    return lengths, np.append(np.zeros(300), 1e9)


def short_and_leaky(generator: np.random.Generator) -> Window:
    """The leak is in messages of one token, which a draw by tokens would see too rarely."""
    lengths = np.append(np.ones(2000, np.int64), generator.integers(300, 400, 10))
    return lengths, np.where(lengths == 1, 1e3, 1e-4)


def even(generator: np.random.Generator) -> Window:
    lengths = generator.integers(1, 400, 500)
    return lengths, generator.random(500) * 12.0 * lengths


POPULATIONS: list[Population] = [honest, rare_huge, one_whale, short_and_leaky, even]


def coverage(population: Population, alpha: float, by_tokens: bool = False) -> float:
    """Share of 1,000 windows whose true share is not rejected by 1,000 draws, at any time."""
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        lengths, codelengths = population(generator)
        weights = message_weights(lengths, V)
        mixed = mixed_codelength(codelengths, lengths, V)
        drawn_by = lengths if by_tokens else weights
        ends = np.cumsum(drawn_by)
        draw = np.searchsorted(ends, generator.integers(0, ends[-1], 1000), side="right")
        values = message_shares(mixed[draw], weights[draw])
        covered += not rejects(values, exact_share(mixed, weights), alpha)
    return covered / 1000


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda function: str(function.__name__))
def test_coverage_of_the_99_percent_statement(population: Population) -> None:
    assert coverage(population, 0.01) >= 0.985


def test_coverage_is_not_for_nothing() -> None:
    """At 80 % some windows are missed, and a draw by tokens misses the leak in short messages always."""
    assert 0.8 - 0.04 <= coverage(even, 0.2) <= 0.97
    assert coverage(short_and_leaky, 0.01, by_tokens=True) < 0.5


@STEADY
@given(st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 1)), min_size=1, max_size=4))
def test_one_draw_is_exactly_fair_at_the_true_mean(atoms: list[tuple[float, float]]) -> None:
    """E[capital] = 1 when the mean is the one bet against: any slip in the factor shows."""
    weights = np.array([atom[0] for atom in atoms])
    weights /= weights.sum()
    values = np.array([atom[1] for atom in atoms])
    mean = float(weights @ values)
    if not 1e-6 < mean < 1 - 1e-6:
        return
    capital = [math.exp(betting._log_capital_path(values[i : i + 1], mean)[0]) for i in range(len(atoms))]
    assert float(weights @ np.array(capital)) == pytest.approx(1.0, rel=1e-9)


values_strategy = st.lists(st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1)), min_size=1, max_size=60)


@STEADY
@given(values_strategy, st.floats(1e-6, 1 - 1e-6), st.floats(1e-6, 1 - 1e-6))
def test_capital_rises_with_the_mean(values: list[float], one: float, other: float) -> None:
    """So the confidence set is an interval."""
    low, high = sorted((one, other))
    assert log_capital(np.array(values), low) <= log_capital(np.array(values), high) + 1e-9


@settings(STEADY, max_examples=40)
@given(values_strategy, st.floats(0.001, 0.5))
def test_upper_bound_is_where_rejection_begins(values: list[float], alpha: float) -> None:
    array = np.array(values)
    bound = upper_bound(array, alpha)
    assert 0 < bound <= 1
    if bound < 1:
        assert rejects(array, bound, alpha)
        assert not rejects(array, bound * (1 - 3e-5), alpha)
    more = upper_bound(np.concatenate([array, np.ones(20)]), alpha)
    assert bound <= more * (1 + 3e-5) or len(values) % 16  # looks fall on the same draws


def test_capital_by_hand() -> None:
    """Against a plain loop over draws and stakes."""
    generator = np.random.default_rng(3)
    values, mean = generator.random(50) * 0.2, 0.15
    capital = np.array(betting._SHARES)
    best = 0.0
    for number, value in enumerate(values, 1):
        capital = capital * (1 + betting._STAKES / (1 - mean) * (mean - value))
        if number % 16 == 0 or number == len(values):
            best = max(best, math.log(capital.sum()))
    assert log_capital(values, mean) == pytest.approx(best)
    assert float(betting._SHARES.sum()) == pytest.approx(1.0)
    assert betting._STAKES.min() > 0
    assert betting._STAKES.max() <= 1


def test_bound_is_close_to_the_best_there_is() -> None:
    """Against Clopper–Pearson, which may be used for 0 and 1 and a fixed number of draws only."""
    values = np.zeros(20_000)
    values[::200] = 1.0
    exact = float(beta.ppf(0.99, 101, 20_000 - 100))
    assert exact * 0.95 < upper_bound(values, 0.01) < 1.2 * exact
    assert upper_bound(np.full(60_200, 1.2e-5), 0.01) < 1e-4


@pytest.mark.parametrize("mean", [0.0, 8.5e-6, 5e-5])
def test_draws_needed(mean: float) -> None:
    needed = draws_needed(1e-4, 0.01, mean)
    values = np.full(needed.at_best, mean)
    assert rejects(values, 1e-4, 0.01)
    assert not rejects(values[: int(0.999 * len(values))], 1e-4, 0.01)
    best = math.log(100) / (1e-4 - mean)
    assert best <= needed.at_best <= 1.16 * best
    divergence = 1e-4 - mean + (mean * math.log(mean / 1e-4) if mean else 0.0)
    assert math.log(100) / divergence * 0.999 <= needed.at_worst <= 1.5 * math.log(100) / divergence
    with pytest.raises(UndecidedError):
        draws_needed(1e-4, 0.01, 1e-4)


def test_worst_case_draws_reject_about_half_of_the_time() -> None:
    needed = draws_needed(0.02, 0.01, 0.01)
    generator = np.random.default_rng(4)
    hits = [
        rejects((generator.random(needed.at_worst) < 0.01).astype(np.float64), 0.02, 0.01) for _ in range(200)
    ]
    assert 0.35 < np.mean(hits) < 0.85


def test_extremes_are_stable() -> None:
    assert upper_bound(np.ones(1000), 0.01) == 1.0
    assert upper_bound(np.array([]), 0.01) == 1.0
    assert upper_bound(np.zeros(1), 0.01) > 0.98
    assert 0.998 < upper_bound(np.full(10_000, 0.998), 0.01) < 0.9981
    assert log_capital(np.ones(100_000), 1 - 1e-9) >= 0
    assert math.isfinite(log_capital(np.zeros(300_000), 0.999))


def test_three_hundred_thousand_draws_take_well_under_a_second() -> None:
    values = (np.random.default_rng(5).random(300_000) < 5e-5).astype(np.float64)
    start = time.process_time()
    log_capital(values, 1e-4)
    assert time.process_time() - start < 1.0


@STEADY
@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 1e6)), min_size=1), st.integers(2, 300_000))
def test_shares_lie_between_0_and_1_and_average_exactly(
    messages: list[tuple[int, float]], vocabulary: int
) -> None:
    lengths = np.array([message[0] for message in messages])
    codelengths = np.array([message[1] for message in messages])
    mixed = mixed_codelength(codelengths, lengths, vocabulary)
    weights = message_weights(lengths, vocabulary)
    assert np.all(mixed >= 0)
    assert np.all(mixed <= codelengths + 1.5e-6)
    assert np.all(mixed <= (lengths * math.log2(vocabulary) + 20) * (1 + 1e-12))
    shares = mixed * betting.WEIGHT_UNITS_PER_BIT / weights
    assert np.all(shares <= 1)
    expected = float((weights / weights.sum()) @ message_shares(mixed, weights))
    assert expected == pytest.approx(exact_share(mixed, weights))
    assert covert_bits(exact_share(mixed, weights), weights) == pytest.approx(float(mixed.sum()))


def test_mixed_codelength_is_a_code() -> None:
    """(1-w) 2^-L + w V^-n sums to at most 1 over a prefix-free set if 2^-L does; and inf is allowed."""
    lengths = np.full(16, 2)
    codelengths = -np.log2(np.random.default_rng(0).dirichlet(np.ones(16)))
    assert np.exp2(-mixed_codelength(codelengths, lengths, 4)).sum() == pytest.approx(1.0)
    found = mixed_codelength(np.array([math.inf, 0.0, 24.0]), np.array([3, 3, 1]), V)
    by_hand = -math.log2((1 - 2**-20) * 2**-24 + 2**-20 * 2**-12)
    assert found == pytest.approx([56.0, 2**-20 / math.log(2), by_hand], rel=1e-6)


def test_bad_input() -> None:
    for values in ([1.1], [-0.1], [math.nan]):
        with pytest.raises(UsageError):
            upper_bound(np.array(values), 0.01)
    with pytest.raises(UsageError):
        upper_bound(np.zeros(3), 0.0)
    with pytest.raises(UsageError):
        log_capital(np.zeros(3), 1.0)
    with pytest.raises(UsageError):
        message_weights(np.array([10**13]), V)
    with pytest.raises(UsageError):
        mixed_codelength(np.array([math.nan]), np.array([1]), V)
    with pytest.raises(UndecidedError):
        exact_share(np.array([]), np.array([], np.int64))
