"""Row openings: only the true row opens, and skipping is caught as often as theory says."""

import math

import numpy as np
import pytest
from scipy.stats import beta, binom

from ullage.work.commitment import commit
from ullage.work.kernels import int8
from ullage.work.openings import draw_rows, largest_bad_share, row_is_committed, survival, true_rows
from ullage.work.operands import left_rows, right_columns
from ullage.work.shape import Shape

SHAPE = Shape(40, 64, 32)
SEED = b"o" * 32
PRODUCT = int8(left_rows(SEED, SHAPE, 0, 40), right_columns(SEED, SHAPE))


def test_rows_are_recomputed_from_the_seed_alone() -> None:
    assert np.array_equal(true_rows(SEED, SHAPE, [0, 7, 39], int8), PRODUCT[[0, 7, 39]])


def test_only_the_true_row_at_its_place_opens() -> None:
    kept = commit(PRODUCT)
    for row in range(40):
        path = kept.prove(row)
        assert row_is_committed(PRODUCT[row], row, SHAPE, path, kept.root)
        assert not row_is_committed(PRODUCT[row] ^ 1, row, SHAPE, path, kept.root)
        assert not row_is_committed(PRODUCT[row], (row + 1) % 40, SHAPE, path, kept.root)
        assert not row_is_committed(PRODUCT[row], row, SHAPE, path[:-1], kept.root)


@pytest.mark.parametrize("skipped", [0.025, 0.1, 0.25])
@pytest.mark.parametrize("openings", [3, 10, 30])
def test_acceptance_lies_on_the_curve(skipped: float, openings: int) -> None:
    forged = PRODUCT.copy()
    count = round(40 * skipped)
    forged[:count] += 1
    kept = commit(forged)
    opens = [row_is_committed(PRODUCT[row], row, SHAPE, kept.prove(row), kept.root) for row in range(40)]
    assert opens == [row >= count for row in range(40)]
    generator = np.random.default_rng([openings, count])
    trials = 4000
    passed = sum(
        all(opens[draw.row] for draw in draw_rows(1, SHAPE, openings, lambda n: int(generator.integers(n))))
        for _ in range(trials)
    )
    expected = survival(count / 40, openings)
    assert abs(passed / trials - expected) < 4 * math.sqrt(expected * (1 - expected) / trials) + 1e-9


def test_draws_cover_all_rows_of_all_units_evenly() -> None:
    draws = draw_rows(5, SHAPE, 20_000)
    counts = np.bincount([draw.unit * 40 + draw.row for draw in draws], minlength=200)
    assert len(counts) == 200
    assert float(((counts - 100) ** 2 / 100).sum()) < 300  # 199 degrees of freedom, 1e-5
    assert draw_rows(0, SHAPE, 10) == ()


def test_the_bound_on_the_share_left_out() -> None:
    assert largest_bad_share(0, 0, 0.99) == 1.0
    assert largest_bad_share(10, 10, 0.99) == 1.0
    assert math.isclose(survival(largest_bad_share(360, 0, 0.99), 360), 0.009, rel_tol=1e-9)
    assert 0.3 < largest_bad_share(100, 20, 0.99) < 0.5
    for openings, bad in ((100, 1), (100, 20), (720, 3), (20, 19)):
        # At the bound, so few failures or fewer are seen with less than that number's part of 1 %.
        part = 0.001 / (bad * (bad + 1))
        assert 0 < binom.cdf(bad, openings, largest_bad_share(openings, bad, 0.99)) <= part


def test_a_prover_that_watches_what_failed_gains_nothing_by_it() -> None:
    """It leaves out a share of the rows, and stops as soon as so few failed that the bound is too low."""
    random, rows, share = np.random.default_rng(5), 4000, 0.01
    bounds = np.array([largest_bad_share(rows, failed, 0.99) for failed in range(100)])
    fixed = np.array([beta.ppf(0.99, failed + 1, rows - failed) for failed in range(100)])
    failures = (random.random((2000, rows)) < share).cumsum(axis=1).clip(max=99)
    left_out = share * np.arange(1, rows + 1) / rows  # the mean, if it is honest from then on
    assert (left_out > bounds[failures]).any(axis=1).mean() <= 0.01
    assert (left_out > fixed[failures]).any(axis=1).mean() > 0.03
