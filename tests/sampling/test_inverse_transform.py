"""The inverse transform's walk and its margin: reachable under |change| <= b iff margin <= 2b."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ullage.sampling import inverse_transform
from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile

PROFILE = get_profile("inverse-transform")


def walk(logits: Sequence[float] | np.ndarray, temperature: float, u: float) -> int:
    """The definition: the first token whose cumulative probability is above u."""
    top = max(logits)
    weights = [math.exp((value - top) / temperature) for value in logits]
    total, cumulative = math.fsum(weights), 0.0
    for token, weight in enumerate(weights):
        cumulative += weight
        if cumulative > u * total:
            return token
    return len(logits) - 1


def test_uniforms_are_the_documented_ones() -> None:
    address = NoiseAddress.of_response(42, 1, 4)
    words = np.random.PCG64(42).random_raw(4)
    expected = [((int(word) >> 12) + 0.5) / 2**52 for word in words]
    assert inverse_transform.uniforms(address).tolist() == expected


@settings(deadline=None)
@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=30),
    st.integers(0, 2**62),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_reference_is_the_walk(logits: list[float], seed: int, temperature: float) -> None:
    address = NoiseAddress.of_response(seed, 1, 1)
    u = float(inverse_transform.uniforms(address)[0])
    expected = walk(logits, temperature, u)
    token = PROFILE.choose(np.array([logits], np.float32), SamplingParameters(temperature), address)
    assert token.tolist() == [expected]


def change(logits: np.ndarray, claimed: int, amount: float, below: bool) -> np.ndarray:
    """The extreme change of the proof: the tokens before the claimed one (or up to it) against the others."""
    first = np.arange(len(logits)) < (claimed if below else claimed + 1)
    sign = np.where(first, -1.0, 1.0) if below else np.where(first, 1.0, -1.0)
    changed: np.ndarray = logits + amount * sign
    return changed


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.floats(-3, 3, width=16), min_size=2, max_size=12),
    st.integers(0, 2**62),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.data(),
)
def test_margin_says_what_a_change_can_reach(
    row: list[float], seed: int, temperature: float, data: st.DataObject
) -> None:
    address = NoiseAddress.of_response(seed, 1, 1)
    u = float(inverse_transform.uniforms(address)[0])
    logits = np.array(row)
    claimed = data.draw(st.integers(0, len(row) - 1))
    scores = PROFILE.score(
        logits[None].astype(np.float32), np.array([claimed]), SamplingParameters(temperature), address
    )
    margin = float(scores.margin[0])
    reference = int(scores.reference[0])
    assert (margin == 0) == (reference == claimed)
    assume(margin > 1e-6)
    lower = reference < claimed
    # if: the proof's change draws the claimed token
    assert walk(change(logits, claimed, margin / 2 * (1 + 1e-9), lower), temperature, u) == claimed
    # only if: it does not when it is smaller,
    assert walk(change(logits, claimed, margin / 2 * (1 - 1e-9), lower), temperature, u) != claimed
    # and no other change of that size does either
    generator = np.random.default_rng(seed)
    for _ in range(20):
        b = margin / 2 * (1 - 1e-9)
        moved = logits + b * generator.choice([-1.0, 1.0], len(row))
        assert walk(moved, temperature, u) != claimed


def test_margin_of_two_tokens_by_hand() -> None:
    """Two equal tokens: the edge is at log-odds 0, so the other token's margin is T * |logit(u)|."""
    for seed in range(20):
        address = NoiseAddress.of_response(seed, 1, 1)
        u = float(inverse_transform.uniforms(address)[0])
        for temperature in (0.5, 1.0):
            scores = PROFILE.score(
                np.zeros((1, 2), np.float32),
                np.array([int(u < 0.5)]),
                SamplingParameters(temperature),
                address,
            )
            np.testing.assert_allclose(scores.margin, [temperature * abs(math.log(u / (1 - u)))], rtol=1e-12)
            assert scores.rank.tolist() == [1]


def test_rank_counts_nearer_intervals() -> None:
    logits = np.zeros((1, 9), np.float32)
    address = NoiseAddress.of_response(3, 1, 1)
    reference = int(PROFILE.choose(logits, SamplingParameters(), address)[0])
    ranks = [
        int(PROFILE.score(logits, np.array([token]), SamplingParameters(), address).rank[0])
        for token in range(9)
    ]
    assert ranks[reference] == 0
    assert sorted(ranks) == list(range(9))
    assert ranks[: reference + 1] == sorted(ranks[: reference + 1], reverse=True)
    assert ranks[reference:] == sorted(ranks[reference:])
