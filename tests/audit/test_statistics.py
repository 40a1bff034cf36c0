"""Intervals against their definition, by simulation, and at the edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from ullage.audit.bounds.statistics import (
    clopper_pearson,
    cluster_bootstrap,
    lower_bound,
    tokens_to_decide,
    upper_bound,
)
from ullage.errors import UsageError

counts = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts, st.sampled_from([0.9, 0.95, 0.99]))
def test_bounds_satisfy_the_definition(count: tuple[int, int], confidence: float) -> None:
    """At the bound itself, an outcome as extreme as the observed one has probability 1 - c exactly."""
    k, n = count
    if k > 0:
        assert binom.sf(k - 1, n, lower_bound(k, n, confidence)) == pytest.approx(1 - confidence, rel=1e-6)
    if k < n:
        assert binom.cdf(k, n, upper_bound(k, n, confidence)) == pytest.approx(1 - confidence, rel=1e-6)


@given(counts)
def test_interval_contains_the_rate(count: tuple[int, int]) -> None:
    rate = clopper_pearson(*count, 0.95)
    assert 0 <= rate.low <= rate.value <= rate.high <= 1


def test_known_values() -> None:
    assert upper_bound(0, 4096, 0.99) == pytest.approx(1 - 0.01 ** (1 / 4096))
    rate = clopper_pearson(10, 100, 0.95)
    assert rate.low == pytest.approx(0.049005, abs=1e-6)
    assert rate.high == pytest.approx(0.176223, abs=1e-6)


def test_edges() -> None:
    assert (lower_bound(0, 0, 0.99), upper_bound(0, 0, 0.99)) == (0.0, 1.0)
    assert upper_bound(7, 7, 0.99) == 1.0
    for k, n, c in ((-1, 5, 0.9), (6, 5, 0.9), (1, 5, 1.0), (1, 5, 0.0)):
        with pytest.raises(UsageError):
            upper_bound(k, n, c)


def test_bootstrap_is_wider_where_mismatches_come_in_clusters() -> None:
    tokens = np.full(100, 100, dtype=np.int64)
    spread = np.full(100, 2, dtype=np.int64)
    spread[::2] += 1
    clustered = np.zeros(100, dtype=np.int64)
    clustered[:5] = 50
    narrow, wide = (cluster_bootstrap(m, tokens, 0.95) for m in (spread, clustered))
    assert narrow is not None
    assert wide is not None
    assert wide[1] - wide[0] > 5 * (narrow[1] - narrow[0])
    assert wide[0] < 0.025 < wide[1]
    assert cluster_bootstrap(clustered, tokens, 0.95) == wide, "seeded"


def test_bootstrap_covers_under_clustering() -> None:
    """Beta-distributed rates of records: the record bootstrap covers near its level."""
    generator = np.random.default_rng(5)
    covered = 0
    for trial in range(150):
        tokens = generator.integers(50, 150, 120)
        mismatches = generator.binomial(tokens, generator.beta(0.5, 24.5, 120))
        interval = cluster_bootstrap(mismatches, tokens, 0.95, resamples=300, seed=trial)
        assert interval is not None
        covered += interval[0] <= 0.02 <= interval[1]
    assert covered >= 0.85 * 150


def test_bootstrap_says_nothing_without_evidence() -> None:
    zero = np.zeros(10, dtype=np.int64)
    assert cluster_bootstrap(zero, zero + 100, 0.95) is None
    assert cluster_bootstrap(zero[:1] + 1, zero[:1] + 10, 0.95) is None
    assert cluster_bootstrap(zero, zero, 0.95) is None


def test_tokens_to_decide() -> None:
    needed = tokens_to_decide(0, 100, 0.0002, 0.99)
    assert needed is not None
    assert upper_bound(0, needed, 0.99) < 0.0002 <= upper_bound(0, needed - 1, 0.99)
    assert needed == 23_024
    failing = tokens_to_decide(1, 50, 0.0002, 0.99)
    assert failing is not None
    assert lower_bound(failing / 50, failing, 0.99) > 0.0002
    assert tokens_to_decide(2, 100, 0.02, 0.99) is None
    assert tokens_to_decide(0, 0, 0.02, 0.99) is not None
