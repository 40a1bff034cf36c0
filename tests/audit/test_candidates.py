"""The search for near candidates: scores bit for bit those of the profile, gaps those of brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.audit.admissible.profile_sets import profile_sets
from ullage.audit.bounds.noise_model import FlipCurve, NoiseModel
from ullage.audit.coding import TokenCoder
from ullage.errors import UsageError
from ullage.sampling.address import NoiseAddress
from ullage.sampling.candidates import score_with_candidates
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile, profile_names

ROWS, VOCABULARY = 40, 300
PARAMETERS = [
    SamplingParameters(),
    SamplingParameters(temperature=0.7, top_p=0.9, top_k=50),
    SamplingParameters(temperature=1.3, top_p=0.8),
    SamplingParameters(temperature=0.0),
]


def made(seed: int = 3) -> tuple[np.ndarray, np.ndarray, NoiseAddress]:
    generator = np.random.default_rng(seed)
    logits = (2 * generator.standard_normal((ROWS, VOCABULARY))).astype(np.float32)
    logits[5, :100] = -np.inf
    claimed = generator.integers(0, VOCABULARY, ROWS)
    return logits, claimed, NoiseAddress.of_response(987, 7, ROWS)


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("parameters", PARAMETERS)
def test_scores_are_the_profiles_and_gaps_are_margins(name: str, parameters: SamplingParameters) -> None:
    profile = get_profile(name)
    logits, claimed, address = made()
    reach, count_gap = 1.5, 0.9
    reference = profile.choose(logits, parameters, address)
    claimed[::2] = reference[::2]
    expected = profile.score(logits, claimed, parameters, address, entropy=True)
    scores, near = score_with_candidates(
        profile, logits, claimed, parameters, address,
        reach=reach, width=VOCABULARY, count_gap=count_gap, entropy=True,
    )  # fmt: skip
    for field in ("reference", "margin", "rank", "entropy"):
        np.testing.assert_array_equal(getattr(scores, field), getattr(expected, field), err_msg=field)
    # Brute force: the margin of every token, by claiming each in turn.
    margins = np.stack(
        [
            profile.score(logits, np.full(ROWS, token), parameters, address).margin
            for token in range(VOCABULARY)
        ],
        axis=1,
    )
    for row in range(ROWS):
        others = np.flatnonzero((margins[row] <= reach) & (np.arange(VOCABULARY) != scores.reference[row]))
        found = near.ids[row][near.ids[row] >= 0]
        assert sorted(found) == sorted(others)
        np.testing.assert_allclose(near.gaps[row, : len(found)], margins[row, found], atol=2e-6)
        assert (np.diff(near.gaps[row, : len(found)]) >= 0).all()
        assert near.within[row] == 1 + np.count_nonzero(near.gaps[row] <= count_gap)
    chosen = near.chosen(scores.reference, claimed)
    assert (chosen[::2] == -1).all()
    for place in np.flatnonzero((chosen >= 0) & (chosen < VOCABULARY)):
        assert near.ids[place, chosen[place]] == claimed[place]


def test_candidates_do_not_depend_on_what_was_claimed() -> None:
    logits, claimed, address = made(8)
    profile = get_profile("murmur3-gumbel/f64")
    tables = [
        score_with_candidates(profile, logits, tokens, SamplingParameters(), address, reach=0.5, width=3)[1]
        for tokens in (claimed, profile.choose(logits, SamplingParameters(), address))
    ]
    np.testing.assert_array_equal(tables[0].gaps, tables[1].gaps)
    np.testing.assert_array_equal(tables[0].ids, tables[1].ids)
    assert tables[0].gaps.shape == (ROWS, 3)


def test_a_count_beyond_the_reach_is_refused() -> None:
    logits, claimed, address = made()
    with pytest.raises(UsageError, match="reach"):
        score_with_candidates(
            get_profile("greedy"), logits, claimed, SamplingParameters(), address, reach=0.1, count_gap=0.2
        )


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.sampled_from(["fine", "coarse", "peaked"]),
    st.sampled_from([0.6, 1.0]),
    st.sampled_from([(0.9, 0), (0.5, 0), (1.0, 12), (0.8, 20), (0.0, 0), (0.97, 3)]),
    st.sampled_from([0.0, 0.02, 0.2, 0.6]),
)
def test_sizes_found_beside_the_scores_are_those_of_the_exact_test(
    seed: int, kind: str, temperature: float, filters: tuple[float, int], bound: float
) -> None:
    generator = np.random.default_rng(seed)
    logits = (2 * generator.standard_normal((24, 90))).astype(np.float32)
    if kind == "coarse":
        logits = (np.round(logits * 4) / 4).astype(np.float32)
    if kind == "peaked":
        logits[:, 7] += 6
    parameters = SamplingParameters(temperature, *filters)
    profile = get_profile("murmur3-gumbel/f64")
    address = NoiseAddress(generator.integers(0, 1 << 60, 24).astype(np.uint64), np.arange(24), np.arange(24))
    claimed = profile.choose(logits, parameters, address)
    curve = FlipCurve(0.01, 4.0, 0.3)
    coder = TokenCoder(NoiseModel(curve, curve, 90, 1e-4, 1, 0, 1), 8, bound)
    counts = coder.score(profile, logits, claimed, parameters, address)[1].admissible_count
    exact = profile_sets(profile, logits, parameters, address, bound).counts
    np.testing.assert_array_equal(counts, exact)
