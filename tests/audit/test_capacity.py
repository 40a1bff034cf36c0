"""The estimate against a count of transcripts, the walk's interval by simulation, Knuth on a tree."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.audit.bounds.capacity import (
    admissible_path_capacity,
    binary_entropy,
    clustered_ratio,
    knuth_count,
    traceless_bits_per_mismatch,
)
from ullage.audit.bounds.noise_model import FlipCurve
from ullage.errors import UndecidedError, UsageError

STEADY = settings(deadline=None)  # a loaded machine is no failure

TOKENS = 2000


def log2_accepted(inside: int, p: float, q: float, rank: int, vocabulary: int) -> float:
    """log2 of the transcripts with `inside` admissible tokens each, at most p outside, q of them far."""
    total = 0
    for deviations in range(math.floor(p * TOKENS + 1e-9) + 1):
        far_most = math.floor(q * deviations + 1e-9)
        choices = sum(
            math.comb(deviations, far) * rank ** (deviations - far) * (vocabulary - rank) ** far
            for far in range(far_most + 1)
        )
        total += math.comb(TOKENS, deviations) * inside ** (TOKENS - deviations) * choices
    return math.log2(total)


@pytest.mark.parametrize(
    ("p", "q", "inside", "rank"),
    [(0.0, 0.0, 1, 5), (0.01, 0.1, 1, 5), (0.01, 1.0, 2, 5), (0.05, 0.2, 1, 10), (0.005, 0.0, 3, 1)],
)
def test_path_figure_counts_accepted_transcripts(p: float, q: float, inside: int, rank: int) -> None:
    figure = admissible_path_capacity(math.log2(inside), p, q, rank, 64)
    counted = log2_accepted(inside, p, q, rank, 64) / TOKENS
    assert counted <= figure + 1e-12
    # Counted exactly, deviating positions do not also choose inside the set; and q counts whole tokens.
    assert figure - p * math.log2(inside) - 0.01 <= counted


@STEADY
@given(st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1), st.floats(0, 1), st.integers(1, 4095))
def test_path_figure_rises_with_tolerance(p1: float, p2: float, q1: float, q2: float, rank: int) -> None:
    low = admissible_path_capacity(0.01, min(p1, p2), min(q1, q2), rank, 4096)
    assert low <= admissible_path_capacity(0.01, max(p1, p2), max(q1, q2), rank, 4096) + 1e-12
    worst = 0.01 + binary_entropy(max(p1, p2)) + max(p1, p2) * 12
    assert low <= worst + 1e-12
    assert admissible_path_capacity(0.01, max(p1, p2), 1.0, rank, 4096) == pytest.approx(worst)


@STEADY
@given(st.floats(0, 1))
def test_binary_entropy(p: float) -> None:
    assert binary_entropy(p) == pytest.approx(binary_entropy(1 - p), abs=1e-9)
    assert 0 <= binary_entropy(p) <= 1 + 1e-15
    assert binary_entropy(0.5) == 1.0
    assert binary_entropy(1e-20) == pytest.approx(1e-20 * (math.log2(1e20) + 1 / math.log(2)))


def test_clustered_interval_covers_where_an_independent_one_does_not() -> None:
    generator = np.random.default_rng(0)
    clusters, size, covered, covered_independent = 30, 20, 0, 0
    number = np.repeat(np.arange(clusters), size)
    trials = 1000
    for _ in range(trials):
        tokens = generator.integers(50, 300, clusters * size).astype(float)
        rate = np.repeat(generator.gamma(4, 0.25, clusters), size)
        bits = generator.poisson(rate * tokens * 0.05) * 1.0
        found = clustered_ratio(bits, tokens, number, 0.95)
        covered += found.low <= 0.05 <= found.high
        alone = clustered_ratio(bits, tokens, np.arange(len(bits)), 0.95)
        covered_independent += alone.low <= 0.05 <= alone.high
    assert 0.925 <= covered / trials <= 0.975
    assert covered_independent / trials < 0.6


def test_clustered_ratio_by_hand() -> None:
    found = clustered_ratio(np.array([1.0, 1, 4]), np.array([10.0, 10, 30]), np.array([7, 7, 9]), 0.5)
    # Clusters (2, 20) and (4, 30): ratio 0.12, residuals -0.4 and 0.4, variance 2/1 * 0.32; the upper
    # quartile of t with 1 degree of freedom is 1.
    assert found.value == pytest.approx(0.12)
    assert found.high - found.value == pytest.approx(0.8 / 50)
    assert found.clusters == 2
    with pytest.raises(UndecidedError):
        clustered_ratio(np.ones(3), np.ones(3), np.zeros(3, np.int64), 0.95)
    with pytest.raises(UndecidedError):
        clustered_ratio(np.ones(3), np.zeros(3), np.arange(3), 0.95)


def random_tree(generator: np.random.Generator, depth: int) -> list[list[float]]:
    """The product of sizes along every path, with the path's probability under a uniform walk."""
    leaves: list[list[float]] = []

    def grow(product: float, left: int) -> None:
        size = int(generator.integers(1, 4)) if left else 0
        if size == 0:
            leaves.append([math.log2(product), 1 / product])
        for _ in range(size):
            grow(product * size, left - 1 if generator.random() < 0.9 else 0)

    grow(1.0, depth)
    return leaves


@pytest.mark.parametrize("seed", range(5))
def test_knuth_is_unbiased_and_the_walk_is_below(seed: int) -> None:
    generator = np.random.default_rng(seed)
    leaves = np.array(random_tree(generator, 6))
    assert float((leaves[:, 1] * np.exp2(leaves[:, 0])).sum()) == pytest.approx(len(leaves))
    assert leaves[:, 1].sum() == pytest.approx(1.0)
    walks = generator.choice(leaves[:, 0], size=200_000, p=leaves[:, 1])
    estimate = knuth_count(walks)
    assert estimate.log2_count == pytest.approx(math.log2(len(leaves)), abs=0.1)
    assert walks.mean() <= estimate.log2_count + 1e-9


def test_knuth_count_in_the_log_domain() -> None:
    estimate = knuth_count(np.array([5000.0, 5000.0, 0.0, 0.0]))
    assert estimate.log2_count == pytest.approx(4999.0)
    assert estimate.largest_share == pytest.approx(0.5)
    assert estimate.effective_walks == pytest.approx(2.0)
    assert estimate.walks == 4
    with pytest.raises(UndecidedError):
        knuth_count(np.array([]))
    with pytest.raises(UsageError):
        knuth_count(np.array([-1.0]))


@pytest.mark.parametrize(("degrees", "ratio"), [(200.0, 3.271), (5.0, 3.542), (2.0, 4.532), (1.5, 5.951)])
def test_traceless_floor(degrees: float, ratio: float) -> None:
    """3.266 for a Gaussian (degrees -> infinity); the scale does not matter."""
    for scale in (1.0, 0.01):
        assert traceless_bits_per_mismatch(FlipCurve(scale, degrees, 1.0)) == pytest.approx(ratio, abs=2e-3)


def test_bad_input() -> None:
    for p, q, rank, mean in (
        (0.6, 0, 5, 1),
        (-0.1, 0, 5, 1),
        (0.1, 2, 5, 1),
        (0.1, 0, 0, 1),
        (0.1, 0, 64, 1),
    ):
        with pytest.raises(UsageError):
            admissible_path_capacity(mean, p, q, rank, 64)
    with pytest.raises(UsageError):
        admissible_path_capacity(-1.0, 0.1, 0.1, 5, 64)
