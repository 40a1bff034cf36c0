"""The filters' edges, and the fast search for the filtered set against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sampling import slow
from ullage.errors import FaultError
from ullage.sampling.filters import keep_mask, scale
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.support import find_support

# Few distinct values, so that ties at the k-th value and at the cut are common.
coarse = st.sampled_from([-np.inf, -3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 6.0])
rows = st.lists(coarse, min_size=1, max_size=24).filter(lambda row: max(row) > -np.inf)
parameters = st.builds(
    SamplingParameters,
    st.sampled_from([0.1, 0.7, 1.0, 2.5]),
    st.sampled_from([0.0, 0.1, 0.5, 0.7, 0.9, 0.95, 1.0]) | st.floats(0, 1),
    st.integers(0, 26),
)


def sets(logits: np.ndarray, chosen: SamplingParameters) -> list[list[int]]:
    support = find_support(logits, 0, chosen)
    ids = np.broadcast_to(support.ids, support.scaled.shape)
    return [line[z > -np.inf].tolist() for line, z in zip(ids, support.scaled, strict=True)]


def definition(logits: np.ndarray, chosen: SamplingParameters) -> list[list[int]]:
    return [np.flatnonzero(line).tolist() for line in keep_mask(scale(logits, chosen.temperature), chosen)]


@pytest.mark.parametrize(
    ("top_p", "expected"), [(0.7, [0, 1]), (0.0, [0]), (0.49, [0]), (0.81, [0, 1, 2]), (1.0, [0, 1, 2])]
)
def test_top_p_on_three_tokens(top_p: float, expected: list[int]) -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2]])).astype(np.float32)
    chosen = SamplingParameters(1.0, top_p)
    assert definition(logits, chosen) == [expected]
    assert sets(logits, chosen) == [expected]


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [(1, [1, 3]), (2, [1, 3]), (3, [0, 1, 2, 3]), (5, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])],
)
def test_top_k_keeps_all_ties_and_is_off_from_the_vocabulary_on(top_k: int, expected: list[int]) -> None:
    logits = np.array([[1.0, 2.0, 1.0, 2.0, 0.0]], np.float32)
    chosen = SamplingParameters(1.0, 1.0, top_k)
    assert definition(logits, chosen) == [expected]
    assert sets(logits, chosen) == [expected]


def test_top_p_counts_only_what_top_k_left() -> None:
    logits = np.log(np.array([[0.4, 0.3, 0.2, 0.1]])).astype(np.float32)
    # of (4/7, 3/7) the first alone holds 0.57; of the whole vocabulary it would hold 0.4
    assert definition(logits, SamplingParameters(1.0, 0.5, 2)) == [[0]]
    assert definition(logits, SamplingParameters(1.0, 0.5, 0)) == [[0, 1]]


def test_ties_at_the_cut_drop_the_lower_id_first() -> None:
    assert definition(np.zeros((1, 4), np.float32), SamplingParameters(1.0, 0.4)) == [[2, 3]]


@given(rows, parameters)
def test_definition_equals_the_slow_one(row: list[float], chosen: SamplingParameters) -> None:
    scaled = [float(value) / chosen.temperature for value in row]
    assert keep_mask(np.array([scaled]), chosen)[0].tolist() == slow.kept(scaled, chosen.top_k, chosen.top_p)


@given(st.lists(rows, min_size=1, max_size=4), parameters)
def test_search_equals_the_definition(many: list[list[float]], chosen: SamplingParameters) -> None:
    width = min(len(row) for row in many)
    logits = np.array([row[:width] for row in many if max(row[:width]) > -np.inf], np.float32).reshape(
        -1, width
    )
    if len(logits):
        assert sets(logits, chosen) == definition(logits, chosen)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.sampled_from([700, 4096, 7001]),
    st.sampled_from([1, 3, 50, 400]),
    st.sampled_from([0.0, 0.3, 0.9, 0.999, 1.0]),
    st.sampled_from(["fine", "coarse", "flat"]),
)
def test_search_equals_the_definition_for_whole_vocabularies(
    seed: int, width: int, top_k: int, top_p: float, kind: str
) -> None:
    logits = np.random.default_rng(seed).standard_normal((2, width)).astype(np.float32) * 3
    if kind == "coarse":
        logits = np.round(logits)
    if kind == "flat":
        logits[:] = 1.25
    for k in (0, top_k):
        chosen = SamplingParameters(0.8, top_p, k)
        assert sets(logits, chosen) == definition(logits, chosen)


@pytest.mark.parametrize("width", [5, 9000])
@pytest.mark.parametrize(
    "chosen", [SamplingParameters(), SamplingParameters(1, 0.9), SamplingParameters(1, 1, 3)]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, -1])
def test_rows_that_are_no_logits_are_named(
    width: int, chosen: SamplingParameters, bad: float, place: int
) -> None:
    logits = np.zeros((3, width), np.float32)
    logits[2, place] = bad
    with pytest.raises(FaultError, match="row 42 "):
        find_support(logits, 40, chosen)
    logits[2] = -np.inf
    with pytest.raises(FaultError, match="row 42 "):
        find_support(logits, 40, chosen)


def test_cuts_within_rounding_are_decided_by_the_definition() -> None:
    """p put exactly on cumulative sums, where another order of summation would decide otherwise."""
    logits = np.random.default_rng(9).standard_normal((1, 3000)).astype(np.float32) * 2
    z = np.sort(scale(logits, 0.9)[0])
    cumulative = np.cumsum(np.exp(z - z[-1]))
    for place in range(2000, 3000, 25):
        for direction in (0.0, 1.0):
            top_p = float(np.nextafter(1 - cumulative[place] / cumulative[-1], direction))
            chosen = SamplingParameters(0.9, top_p)
            assert sets(logits, chosen) == definition(logits, chosen)
