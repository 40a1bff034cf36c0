"""No factor favours the null, honest streams stay within alpha, deviating ones are found soon."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ullage.audit.bounds.alarm import (
    conformal_threshold,
    expected_leak_before_alarm,
    first_crossing,
    log_e_process,
    log_supremum,
    mismatch_limits,
)
from ullage.audit.bounds.noise_model import FlipCurve, NoiseModel
from ullage.errors import UndecidedError, UsageError

STEADY = settings(deadline=None)  # a loaded machine is no failure

FLOOR = 1e-4
Streams = tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]


def one_token(limit: float, floor: float, alternatives: tuple[float, ...]) -> NDArray[np.float64]:
    """E after one token, for each of: mismatch inside, outside, none."""
    limits = np.full((3, 1), limit)
    inside = np.array([[True], [False], [False]])
    outside = np.array([[False], [True], [False]])
    rates = [np.full((3, 1), rate) for rate in alternatives]
    return np.exp(log_e_process(limits, inside, outside, floor, rates))[:, 0]


limits_strategy = st.one_of(st.just(1.0), st.floats(1e-6, 1))
floors_strategy = st.floats(1e-6, 0.3)
rates_strategy = st.lists(st.floats(0, 1), max_size=3).map(tuple)


@settings(STEADY, max_examples=60)
@given(limits_strategy, floors_strategy, st.floats(0, 1), st.floats(0, 1), rates_strategy)
def test_mean_is_at_most_one_under_the_null(
    limit: float, floor: float, part_inside: float, part_outside: float, rates: tuple[float, ...]
) -> None:
    """For every pair of true rates within the limits; and 1 at the limits, so nothing is given away."""
    inside, outside, none = one_token(limit, floor, rates)
    true_inside = part_inside * limit
    true_outside = min(part_outside * floor, 1 - true_inside)
    mean = true_inside * inside + true_outside * outside + (1 - true_inside - true_outside) * none
    assert mean <= 1 + 1e-9
    if limit + floor < 1:
        assert limit * inside + floor * outside + (1 - limit - floor) * none == pytest.approx(1.0, rel=1e-7)
        assert inside >= 1
        assert outside >= 1
    else:
        assert (inside, outside, none) == pytest.approx((1.0, 1.0, 1.0))


def test_two_outcome_factor_with_the_floor_put_in_afterwards_is_not_an_e_process() -> None:
    """Why there are three outcomes: pi swapped for the floor on tokens outside has mean 1 + theta."""
    limit, theta = 0.3, 0.5
    mean = (
        limit * (1 + theta * (1 / limit - 1))
        + FLOOR * (1 + theta * (1 / FLOOR - 1))
        + (1 - limit - FLOOR) * (1 - theta)
    )
    assert mean == pytest.approx(1 + theta)


def draw(generator: np.random.Generator, inside_rate: NDArray[np.float64], outside_rate: float) -> Streams:
    uniform = generator.random(inside_rate.shape)
    outside = uniform < outside_rate
    inside = ~outside & (uniform < outside_rate + inside_rate)
    return inside_rate, inside, outside


def test_process_by_hand() -> None:
    """Against a plain loop: E after t tokens is the average of the products."""
    generator = np.random.default_rng(0)
    limits, inside, outside = draw(generator, generator.random((1, 30)) * 0.5, 0.01)
    alternative = limits * 1.5
    found = log_e_process(limits, inside, outside, 0.01, [alternative])[0]
    thetas = [0.9, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]
    products = np.ones(len(thetas) + 1)
    weights = np.array([0.05] * 10 + [0.5])
    for t in range(30):
        room = 1 - limits[0, t] - 0.01
        for j in range(11):
            rate_in = limits[0, t] + 0.9 * thetas[j] * room if j < 10 else alternative[0, t]
            rate_out = 0.01 + 0.1 * thetas[j] * room if j < 10 else 0.01
            if inside[0, t]:
                products[j] *= rate_in / limits[0, t]
            elif outside[0, t]:
                products[j] *= rate_out / 0.01
            else:
                products[j] *= (1 - rate_in - rate_out) / room
        assert found[t] == pytest.approx(math.log(weights @ products))


def test_honest_streams_at_the_limits_stay_within_alpha() -> None:
    """The worst honest server: true rates equal to their limits at every token."""
    generator = np.random.default_rng(1)
    alarms = streams = 0
    for _ in range(4):
        limits = np.minimum(0.5, 0.02 / generator.exponential(1.0, (1000, 200)) ** 2) * 0.1 + FLOOR
        rates, inside, outside = draw(generator, limits, FLOOR)
        log_e = log_e_process(rates, inside, outside, FLOOR, [np.minimum(1, 3 * limits)])
        alarms += int(np.count_nonzero(first_crossing(log_e, 0.01)))
        streams += 1000
    assert alarms <= 0.01 * streams + 3 * math.sqrt(0.01 * streams)
    assert alarms > 0


def near_tie_gaps(generator: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float64]:
    return generator.exponential(1.0, shape)


def test_deviations_are_found_soon() -> None:
    generator = np.random.default_rng(2)
    curve = FlipCurve(0.003, 4.0, 1.0)
    model = NoiseModel(curve, curve.inflated(1.5), 4096, FLOOR, 1, 0, 1)
    gaps = near_tie_gaps(generator, (200, 1000))
    flat = gaps.reshape(-1, 1)
    limits = mismatch_limits(model.supremum_mismatch_probability(flat).reshape(gaps.shape), 2.0, FLOOR)
    alternatives = [model.mismatch_probability(flat, s).reshape(gaps.shape) for s in (10.0, 30.0)]

    honest = model.mismatch_probability(flat).reshape(gaps.shape)
    log_e = log_e_process(*draw_against(generator, limits, honest, 0.0), FLOOR, alternatives)
    assert np.count_nonzero(first_crossing(log_e, 1e-4)) == 0

    # Another seed: nearly every token lies outside.
    log_e = log_e_process(*draw_against(generator, limits, 0.01 + 0 * gaps, 0.8), FLOOR, alternatives)
    found = first_crossing(log_e, 1e-4)
    assert found.min() > 0
    assert np.median(found) <= 4
    assert np.quantile(found, 0.95) <= 8

    # Noise 20 times as large, as coarser weights have: the alternatives pay.
    noisy = model.mismatch_probability(flat, 20.0).reshape(gaps.shape)
    streams = draw_against(generator, limits, noisy, 0.0)
    with_alternatives = first_crossing(log_e_process(*streams, FLOOR, alternatives), 1e-4)
    without = first_crossing(log_e_process(*streams, FLOOR), 1e-4)
    assert np.count_nonzero(with_alternatives) == 200
    assert np.median(with_alternatives) < np.median(np.where(without == 0, 1000, without))


def draw_against(
    generator: np.random.Generator, limits: NDArray[np.float64], rate: NDArray[np.float64], outside: float
) -> Streams:
    _, inside, beyond = draw(generator, rate, outside)
    return limits, inside, beyond


def test_padding_is_no_evidence_and_crossing_counts_tokens() -> None:
    limits = np.array([[0.01, 0.01, 1.0, 1.0]])
    outside = np.array([[False, True, False, False]])
    log_e = log_e_process(limits, np.zeros((1, 4), bool), outside, FLOOR)
    assert log_e[0, 1] == log_e[0, 2] == log_e[0, 3]
    assert first_crossing(log_e, 0.05).tolist() == [2]
    assert first_crossing(log_e, 1e-9).tolist() == [0]
    assert first_crossing(np.zeros((3, 0)), 0.05).tolist() == [0, 0, 0]
    assert log_supremum(np.array([[-3.0, -1.0], [2.0, 1.0]])).tolist() == [0.0, 2.0]


def test_long_streams_do_not_overflow() -> None:
    n = 200_000
    limits, none = np.full(n, 0.01), np.zeros(n, bool)
    assert math.isfinite(log_e_process(limits, none, np.ones(n, bool), FLOOR)[-1])
    assert math.isfinite(log_e_process(limits, none, none, FLOOR, [np.ones(n)])[-1])


def test_mismatch_limits() -> None:
    assert mismatch_limits(np.array([0.0, 0.1, 0.9]), 2.0, 0.001) == pytest.approx([0.001, 0.201, 1.0])


@pytest.mark.parametrize(("streams", "alpha", "rank"), [(99, 0.01, 99), (100, 0.01, 100), (199, 0.01, 198)])
def test_conformal_rank(streams: int, alpha: float, rank: int) -> None:
    shuffled = np.random.default_rng(0).permutation(streams).astype(np.float64) + 1
    assert conformal_threshold(shuffled, alpha) == rank


def test_conformal_threshold_asks_for_streams() -> None:
    with pytest.raises(UndecidedError, match=r"9999 .* there are 9998"):
        conformal_threshold(np.zeros(9998), 1e-4)
    assert conformal_threshold(np.zeros(9999), 1e-4) == 0.0


def test_conformal_false_alarms_by_simulation() -> None:
    """Marginal over calibrations; any law, here a heavy-tailed one with ties."""
    generator = np.random.default_rng(3)
    sample: NDArray[np.float64] = np.floor(generator.standard_cauchy((20_000, 40)) * 4).astype(np.float64)
    alarms = [row[-1] > conformal_threshold(row[:-1], 0.1) for row in sample]
    assert 0.08 < np.mean(alarms) <= 0.1 + 3 * math.sqrt(0.09 / 20_000)


def test_expected_leak_by_simulation() -> None:
    generator = np.random.default_rng(4)
    messages = generator.geometric(0.1 * 0.4, 200_000)
    assert expected_leak_before_alarm(30, 0.1, 0.4, 7) == pytest.approx(30 * messages.mean() + 7, rel=0.02)
    assert expected_leak_before_alarm(30, 0.0, 0.4, 7) == math.inf
    assert expected_leak_before_alarm(0, 0.0, 0.4, 7) == 7


def test_bad_input() -> None:
    yes, no = np.array([True]), np.array([False])
    for limits in ([0.0], [1.5], [math.nan], [0.5, 0.5]):
        with pytest.raises(UsageError):
            log_e_process(np.array(limits), no, no, FLOOR)
    with pytest.raises(UsageError):
        log_e_process(np.array([0.5]), yes, yes, FLOOR)
    with pytest.raises(UsageError):
        log_e_process(np.array([0.5]), no, no, 0.0)
    for bad in (0.0, 1.0):
        with pytest.raises(UsageError):
            first_crossing(np.zeros(1), bad)
        with pytest.raises(UsageError):
            conformal_threshold(np.zeros(5), bad)
    with pytest.raises(UsageError):
        mismatch_limits(np.zeros(1), 0.5, FLOOR)
    with pytest.raises(UsageError):
        expected_leak_before_alarm(1, 1.5, 1, 0)
