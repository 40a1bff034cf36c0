"""Projections are exact, agree on both sides, and their differences are what the evidence takes them for."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import UsageError
from ullage.fingerprint.projection import (
    LEVELS,
    as_integers,
    differences,
    directions,
    fingerprint,
)

GOLDEN = Path(__file__).parent / "golden" / "fingerprint-5-16-2.txt"
SEED, TRANSCRIPT = bytes(range(32)), bytes(range(32, 64))


def some_states(seed: int, tokens: int = 6, width: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((tokens, width)).astype(np.float32)


@given(st.integers(0, 2**32), st.integers(1, 4), st.floats(1e-6, 1e-2))
def test_equal_states_differ_by_the_rounding_alone(seed: int, coordinates: int, step: float) -> None:
    states = some_states(seed)
    answer = fingerprint(states, SEED, TRANSCRIPT, coordinates=coordinates, step=step)
    found = differences(answer, states, SEED, TRANSCRIPT, step=step)
    assert np.abs(found).max() < 0.5


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_a_difference_is_the_projection_of_the_states_difference(seed: int, coordinates: int) -> None:
    states, step = some_states(seed), 0.01
    moved = states + np.float32(0.03) * some_states(seed + 1)
    answer = fingerprint(moved, SEED, TRANSCRIPT, coordinates=coordinates, step=step)
    found = differences(answer, states, SEED, TRANSCRIPT, step=step)
    signs, _ = directions(SEED, TRANSCRIPT, range(len(states)), coordinates, states.shape[1])
    change = as_integers(moved, step) - as_integers(states, step)
    exact = np.einsum("tkh,th->tk", signs, change, dtype=np.int64) / LEVELS
    wrapped = (exact + LEVELS / 2) % LEVELS - LEVELS / 2
    assert np.abs(found - wrapped).max() < 0.5
    assert np.all(np.abs(found) <= np.abs(exact) + 0.5)


def test_tokens_are_projected_alone_as_with_the_others() -> None:
    states = some_states(3)
    whole = fingerprint(states, SEED, TRANSCRIPT, coordinates=3, step=0.1)
    for token in range(len(states)):
        alone = fingerprint(
            states[token : token + 1], SEED, TRANSCRIPT, coordinates=3, step=0.1, tokens=[token]
        )
        assert np.array_equal(alone[0], whole[token])


def test_the_golden_fingerprint() -> None:
    states = (np.arange(5 * 16).reshape(5, 16) / 8 - 5).astype(np.float32)
    answer = fingerprint(states, SEED, TRANSCRIPT, coordinates=2, step=0.25)
    assert answer.tobytes().hex() == GOLDEN.read_text().strip()


def test_the_golden_directions_are_made_as_the_format_says() -> None:
    """Token 4 of the golden fingerprint, from the words of docs/formats/fingerprints.md alone."""
    stream = hashlib.shake_256(
        b"ullage.dev/fingerprint/v1\0" + SEED + TRANSCRIPT + (4).to_bytes(4, "big")
    ).digest(2 * (1 + 2))
    numbers = [round((64 + column) / 8 * 1024 - 5 * 1024) for column in range(16)]
    for coordinate in range(2):
        row = stream[2 + 2 * coordinate : 4 + 2 * coordinate]
        total = sum(-n if row[column // 8] >> (7 - column % 8) & 1 else n for column, n in enumerate(numbers))
        byte = (total + stream[coordinate]) // 256 % 256
        assert byte == bytes.fromhex(GOLDEN.read_text().strip())[8 + coordinate]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_states_out_of_range_are_refused(bad: float) -> None:
    states = some_states(0)
    states[2, 3] = bad
    with pytest.raises(UsageError):
        fingerprint(states, SEED, TRANSCRIPT, coordinates=1, step=1e-3)


@pytest.mark.parametrize("step", [0.0, -1.0, float("inf"), float("nan")])
def test_a_step_is_a_positive_number(step: float) -> None:
    with pytest.raises(UsageError):
        as_integers(some_states(0), step)


@pytest.mark.parametrize(("seed", "coordinates"), [(b"short", 1), (SEED, 0), (SEED, 5)])
def test_directions_have_limits(seed: bytes, coordinates: int) -> None:
    with pytest.raises(UsageError):
        directions(seed, TRANSCRIPT, [0], coordinates, 8)
