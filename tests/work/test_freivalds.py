"""The full check accepts products and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.redteam.work.leaked_vector import forge
from ullage.work import freivalds
from ullage.work.kernels import int8
from ullage.work.operands import left_rows, right_columns
from ullage.work.shape import Shape

SHAPE = Shape(64, 128, 48)
SEED = b"s" * 32
LEFT, RIGHT = left_rows(SEED, SHAPE, 0, 64), right_columns(SEED, SHAPE)
TRUE = int8(LEFT, RIGHT)


def accepts(product: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> bool:
    return freivalds.check(LEFT, RIGHT, product, SHAPE, int8)


def test_the_error_is_what_is_claimed() -> None:
    assert freivalds.ERROR <= 2**-60


def test_products_are_accepted() -> None:
    for shape in (SHAPE, Shape(32, freivalds.MAX_INNER, 32), Shape(256, 64, 1024)):
        left, right = left_rows(SEED, shape, 0, shape.rows), right_columns(SEED, shape)
        assert freivalds.check(left, right, int8(left, right), shape, int8)


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 63), st.integers(0, 47), st.integers(-(1 << 31), (1 << 31) - 1).filter(lambda d: d != 0)
)
def test_single_entries(row: int, column: int, change: int) -> None:
    forged = TRUE.copy()
    forged[row, column] = np.int64(int(TRUE[row, column]) + change).astype(np.int32)  # mod 2^32
    assert not accepts(forged)


def forgeries() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int32]]]:
    generator = np.random.default_rng(8)
    other = b"t" * 32
    shifted = TRUE.copy()
    shifted[shifted < 0] += freivalds.PRIME
    return {
        "2^31 everywhere": TRUE ^ np.int32(-(1 << 31)),
        "2^31 once": np.where(
            np.arange(TRUE.size).reshape(TRUE.shape) == 77, TRUE ^ np.int32(-(1 << 31)), TRUE
        ),
        "low bit everywhere": TRUE ^ 1,
        "permuted rows": TRUE[generator.permutation(64)],
        "permuted columns": TRUE[:, generator.permutation(48)],
        "wrong seed": int8(left_rows(other, SHAPE, 0, 64), right_columns(other, SHAPE)),
        "shifted by p": shifted,
        "zeros": np.zeros_like(TRUE),
        "nan": np.full(TRUE.shape, np.nan, dtype=np.float32).view(np.int32),
        "half of the inner dimension": int8(LEFT[:, :64].copy(), RIGHT[:, :64].copy()),
    }


@pytest.mark.parametrize("name", list(forgeries()))
def test_forgeries(name: str) -> None:
    assert not accepts(forgeries()[name].astype(np.int32))


def test_another_size_or_type_is_refused() -> None:
    assert not accepts(TRUE[:-1])
    assert not freivalds.in_range(TRUE.astype(np.int64), SHAPE)


def test_a_vector_that_leaks_lets_a_forgery_pass_and_a_fresh_one_does_not() -> None:
    shape = Shape(32, freivalds.MAX_INNER, 32)
    left, right = left_rows(SEED, shape, 0, 32), right_columns(SEED, shape)
    leaked = freivalds.draw_vectors(32)
    forged = forge(left, right, leaked, shape)
    assert not np.array_equal(forged, int8(left, right))
    assert freivalds.check(left, right, forged, shape, int8, leaked)
    assert not freivalds.check(left, right, forged, shape, int8)


def test_vectors_are_uniform_and_fresh() -> None:
    drawn = freivalds.draw_vectors(4096)
    assert drawn.min() >= 0
    assert drawn.max() < freivalds.PRIME
    assert abs(drawn.mean() / freivalds.PRIME - 0.5) < 0.02
    assert not np.array_equal(drawn, freivalds.draw_vectors(4096))


def test_an_inner_dimension_too_long_for_the_prime_is_refused() -> None:
    shape = Shape(32, 1 << 16, 32)
    with pytest.raises(ValueError, match="K <="):
        freivalds.check(LEFT, RIGHT, TRUE, shape, int8)


def test_only_the_range_tells_an_entry_shifted_by_p(monkeypatch: pytest.MonkeyPatch) -> None:
    """With so long an inner dimension the sums stay exact, and modulo p they are the product's own."""
    shape = Shape(32, freivalds.MAX_INNER, 32)
    left, right = left_rows(SEED, shape, 0, shape.rows), right_columns(SEED, shape)
    forged = int8(left, right)
    row, column = np.argwhere(forged < 0)[0]
    forged[row, column] += freivalds.PRIME
    assert not freivalds.check(left, right, forged, shape, int8)
    monkeypatch.setattr(freivalds, "in_range", lambda product, shape: True)
    assert freivalds.check(left, right, forged, shape, int8)
