"""The evidence is an e-process over the verifier's coins, whatever the direction of the difference."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.fingerprint.evidence import Evidence, detectable_factor

BITS = 6  # the uniform rounding error, on a grid of 2^6


def all_differences(change: np.ndarray) -> np.ndarray:
    """d for every choice of signs and rounding, equally likely: <r, change> + u."""
    signs = np.array(list(itertools.product((-1, 1), repeat=len(change))))
    rounding = (np.arange(1 << BITS) + 0.5) / (1 << BITS) - 0.5
    every: np.ndarray = ((signs @ change)[:, None] + rounding).reshape(-1)
    return every


@given(
    st.lists(st.floats(-2, 2), min_size=1, max_size=7),
    st.lists(st.floats(0, 3), min_size=2, max_size=6),
    st.floats(0, 1),
)
def test_no_state_within_the_envelope_gives_a_factor_a_mean_above_one(
    change: list[float], more: list[float], share: float
) -> None:
    moved = np.array(change)
    squared = float(moved @ moved)
    # Tokens at this distance a share of the time, at none otherwise, under an envelope of both.
    envelope = np.sort(np.array([squared, *(squared + one for one in more)]))
    evidence = Evidence(envelope, 1, 1e-3)
    far = np.exp(evidence.log_factors(all_differences(moved)[:, None])).mean(axis=0)
    near = np.exp(evidence.log_factors(all_differences(np.zeros(1))[:, None])).mean(axis=0)
    assert np.all(share * far + (1 - share) * near <= 1 + 1e-9)


def test_two_coordinates_are_no_more() -> None:
    moved = np.array([0.7, -0.4, 1.1])
    once = all_differences(moved)
    pairs = np.stack(np.meshgrid(once, once), axis=-1).reshape(-1, 2)
    factors = np.exp(Evidence(np.array([moved @ moved]), 2, 1e-3).log_factors(pairs))
    assert np.all(factors.mean(axis=0) <= 1 + 1e-9)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_honest_streams_do_not_alarm_and_far_ones_do(seed: int) -> None:
    generator = np.random.default_rng(seed)
    envelope = np.linspace(0.5, 1.5, 16)
    norms = np.sqrt(generator.choice(envelope, 600))
    coins = generator.standard_normal(600)
    honest, far = Evidence(envelope, 1, 1e-6), Evidence(envelope, 1, 1e-6)
    honest.add((norms * coins + generator.uniform(-0.5, 0.5, 600))[:, None])
    far.add((3 * norms * coins)[:, None])
    assert not honest.crossed_at
    assert 0 < far.crossed_at < 200


def test_answers_one_by_one_are_as_one() -> None:
    values = np.random.default_rng(0).standard_normal((40, 2))
    whole, parts = Evidence(np.ones(4), 2, 0.01), Evidence(np.ones(4), 2, 0.01)
    path = whole.add(values)
    again = np.concatenate([parts.add(values[:13]), parts.add(values[13:13]), parts.add(values[13:])])
    assert np.allclose(path, again)
    assert (whole.tokens, whole.crossed_at) == (parts.tokens, parts.crossed_at)
    assert whole.highest == pytest.approx(parts.highest)


def test_more_tokens_notice_smaller_distances() -> None:
    envelope = np.linspace(0.5, 1.5, 16)
    few, many = (detectable_factor(envelope, 1, tokens, 1e-3) for tokens in (20, 400))
    assert 1 < many < few < math.inf
    assert math.isinf(detectable_factor(envelope, 1, 1, 1e-9))
