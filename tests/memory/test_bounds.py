"""The mathematics of memory proofs: against exact probabilities, against simulation, and its directions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, hypergeom

from ullage.memory import bounds

SHARE = st.floats(0.0, 1.0)
OPEN = st.floats(0.001, 0.999)


@given(SHARE, SHARE)
def test_kl_is_a_divergence(q: float, x: float) -> None:
    found = bounds.kl(q, x)
    assert found >= 0
    assert bounds.kl(q, q) == 0
    assert found >= 2 * (q - x) ** 2 - 1e-12  # Pinsker


@given(OPEN, OPEN, st.integers(1, 400))
def test_one_round_bounds_the_exact_tails(q: float, x: float, blocks: int) -> None:
    bound = math.exp(bounds.log_false_acceptance(q, x, blocks, 1, 1))
    if x > q:
        assert binom.cdf(math.floor(q * blocks), blocks, x) <= bound * (1 + 1e-9) + 1e-300


@given(st.integers(10, 400), st.data())
def test_one_round_bounds_draws_without_replacement(population: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(1, population))
    blocks = data.draw(st.integers(1, population))
    allowed = data.draw(st.integers(0, blocks))
    q, x = allowed / blocks, gone / population
    if x > q:
        bound = math.exp(bounds.log_false_acceptance(q, x, blocks, 1, 1))
        assert hypergeom.cdf(allowed, population, gone, blocks) <= bound * (1 + 1e-9) + 1e-300


@given(OPEN, OPEN, st.integers(1, 50), st.integers(1, 12), st.data())
def test_a_quorum_bounds_the_exact_chance(
    q: float, x: float, blocks: int, rounds: int, data: st.DataObject
) -> None:
    quorum = data.draw(st.integers(1, rounds))
    if x > q:
        once = binom.cdf(math.floor(q * blocks), blocks, x)
        exact = binom.sf(quorum - 1, rounds, once)
        assert (
            exact <= math.exp(bounds.log_false_acceptance(q, x, blocks, rounds, quorum)) * (1 + 1e-6) + 1e-300
        )


@given(st.floats(0, 0.9), st.integers(100, 100_000), st.integers(1, 20), st.data())
def test_missing_share_meets_its_error(q: float, blocks: int, rounds: int, data: st.DataObject) -> None:
    quorum = data.draw(st.integers(1, rounds))
    x = bounds.missing_share(q, blocks, blocks + 1, rounds, quorum, error=1e-6)
    assert q <= x <= 1
    assert bounds.log_false_acceptance(q, x, blocks, rounds, quorum) <= math.log(1e-6) + 1e-9 or x == 1


def test_published_values() -> None:
    assert bounds.missing_share(0.048, 16384, 10**6, 1, 1, error=1e-6) == pytest.approx(0.0573, abs=1e-4)
    assert bounds.missing_share(0.048, 65536, 10**6, 1, 1, error=1e-6) == pytest.approx(0.0525, abs=1e-4)


def test_a_full_pass_leaves_nothing_to_chance() -> None:
    assert bounds.missing_share(0.03, 1024, 1024, 20, 1, error=1e-6) == 0.03


@given(st.floats(1e6, 1e12), st.floats(1e6, 1e12), st.floats(1, 2), st.floats(0.01, 0.5))
def test_kappa_keeps_the_rebuildable_share(rebuild: float, read: float, slack: float, share: float) -> None:
    kappa = bounds.iterations_for(rebuild, read, slack, share)
    asked = 1 << 30
    assert bounds.recoverable_share(rebuild / kappa, 0, slack * asked / read, asked) <= share * (1 + 1e-9)


@given(st.floats(0, 1e-3), st.floats(1e-6, 1e-2), st.floats(1e-6, 10.0), st.integers(1, 10_000), OPEN)
def test_steps_elsewhere_fit_the_time(
    read: float, elsewhere: float, deadline: float, steps: int, share: float
) -> None:
    """A prover with a share of steps elsewhere that is in time has at most the bounded share."""
    gone = int(share * steps)
    if (steps - gone) * read + gone * elsewhere <= deadline:
        assert gone / steps <= bounds.missing_steps(deadline, steps, elsewhere) + 1e-9


@given(st.floats(1e-5, 0.05), st.integers(1, 256))
def test_a_step_meets_what_is_missing(missing: float, width: int) -> None:
    """The share of blocks is the one at which a step of independent draws meets one as often."""
    assert bounds.missing_blocks(1 - (1 - missing) ** width, width) == pytest.approx(missing, rel=1e-4)
    assert bounds.missing_blocks(missing, width) <= missing * (1 + 1e-12)
    assert bounds.missing_blocks(missing, 1) == pytest.approx(missing)
    assert (bounds.missing_blocks(0.0, width), bounds.missing_blocks(1.0, width)) == (0.0, 1.0)


def test_forgery_is_negligible_and_grows() -> None:
    assert bounds.forgery_probability(20 * 256, 64 << 20) < 1e-27
    assert bounds.forgery_probability(2, 16) > bounds.forgery_probability(1, 16)


def test_what_is_not_reached_counts_as_kept() -> None:
    assert bounds.erased_fraction(96, 0.0, 100) == 0.96
    assert bounds.erased_fraction(96, 0.5, 100) == 0.48


@pytest.mark.parametrize(
    "call",
    [
        lambda: bounds.kl(1.1, 0),
        lambda: bounds.recoverable_share(1, 1, 0, 1),
        lambda: bounds.missing_share(0.1, 2, 1, 1, 1, error=0.5),
        lambda: bounds.log_false_acceptance(0.1, 0.2, 5, 2, 3),
        lambda: bounds.iterations_for(1, 1, 0.5, 0.1),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=r"."):
        call()
