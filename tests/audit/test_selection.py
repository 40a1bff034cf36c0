"""The draw: repeatable by anyone with the key, fair, and blind to what the records hold."""

import hashlib
import hmac
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from ullage.audit import selection
from ullage.errors import UsageError

SECRET = bytes(range(32))
ROOT = hashlib.sha256(b"root").digest()


def keys(count: int) -> list[bytes]:
    return [selection.window_key(SECRET, window) for window in range(count)]


def test_key_and_commitment_are_what_the_format_says() -> None:
    key = hmac.new(SECRET, b"ullage/selection/v1" + (7).to_bytes(8, "big"), hashlib.sha256).digest()
    assert selection.window_key(SECRET, 7) == key
    digest = hashlib.sha256(b"ullage/selection-commitment/v1" + key).hexdigest()
    assert selection.key_commitment(key) == "sha256:" + digest
    assert selection.matches_commitment(key, "sha256:" + digest)
    assert not selection.matches_commitment(selection.window_key(SECRET, 8), "sha256:" + digest)


def test_uniform_draw_can_be_derived_again_from_the_published_key() -> None:
    key = selection.window_key(SECRET, 3)
    ranks = {
        index: hmac.new(
            key, b"ullage/draw-uniform/v1" + ROOT + index.to_bytes(8, "big"), hashlib.sha256
        ).digest()
        for index in range(50)
    }
    assert selection.draw_uniform(key, ROOT, 50, 8) == sorted(sorted(ranks, key=ranks.__getitem__)[:8])


def test_proportional_draw_can_be_derived_again_from_the_published_key() -> None:
    key, weights = selection.window_key(SECRET, 3), [5, 0, 1, 10]
    line = [0] * 5 + [2] * 1 + [3] * 10
    expected = []
    for number in range(40):
        message = b"ullage/draw-proportional/v1" + ROOT + number.to_bytes(8, "big")
        value = int.from_bytes(hmac.new(key, message, hashlib.sha256).digest(), "big")
        expected.append(line[value * 16 // 2**256])
    assert selection.draw_proportional(key, ROOT, weights, 40) == expected


@given(st.integers(1, 60), st.integers(1, 80), st.integers(0, 1000))
def test_uniform_draw_has_no_repetitions(population: int, sample: int, window: int) -> None:
    drawn = selection.draw_uniform(selection.window_key(SECRET, window), ROOT, population, sample)
    assert len(drawn) == len(set(drawn)) == min(sample, population)
    assert all(0 <= index < population for index in drawn)


def test_a_larger_sample_contains_the_smaller() -> None:
    key = selection.window_key(SECRET, 0)
    small, large = (set(selection.draw_uniform(key, ROOT, 100, n)) for n in (10, 30))
    assert small < large


def test_the_draw_binds_root_and_key() -> None:
    key, other = keys(2)
    elsewhere = hashlib.sha256(b"another root").digest()
    assert selection.draw_uniform(key, ROOT, 1000, 20) != selection.draw_uniform(key, elsewhere, 1000, 20)
    assert selection.draw_uniform(key, ROOT, 1000, 20) != selection.draw_uniform(other, ROOT, 1000, 20)
    weights = [1] * 1000
    drawn = [
        selection.draw_proportional(k, r, weights, 20)
        for k, r in ((key, ROOT), (key, elsewhere), (other, ROOT))
    ]
    assert drawn[0] != drawn[1] != drawn[2]


def test_uniform_draw_is_uniform() -> None:
    counts = np.zeros(20)
    for key in keys(4000):
        counts[selection.draw_uniform(key, ROOT, 20, 5)] += 1
    # Within one draw the indices exclude each other, which only makes the statistic smaller.
    assert chisquare(counts).pvalue > 1e-3


def test_proportional_draw_follows_the_weights() -> None:
    weights = np.array([1, 0, 2, 3, 50, 4])
    drawn = selection.draw_proportional(selection.window_key(SECRET, 1), ROOT, weights.tolist(), 30_000)
    counts = np.bincount(drawn, minlength=6)
    assert counts[1] == 0
    used = weights > 0
    assert chisquare(counts[used], 30_000 * weights[used] / weights.sum()).pvalue > 1e-3


def test_deviating_records_are_missed_as_often_as_the_formula_says() -> None:
    population, sample, deviating, trials = 60, 12, 5, 4000
    expected = math.comb(population - deviating, sample) / math.comb(population, sample)
    missed = sum(
        not any(index < deviating for index in selection.draw_uniform(key, ROOT, population, sample))
        for key in keys(trials)
    )
    error = math.sqrt(expected * (1 - expected) / trials)
    assert abs(missed / trials - expected) < 4 * error


def test_a_window_is_found_by_its_commitment() -> None:
    commitment = selection.key_commitment(selection.window_key(SECRET, 300))
    assert selection.find_window(SECRET, commitment, "log") == 300
    window = selection.window_of_log("tap/0123")
    commitment = selection.key_commitment(selection.window_key(SECRET, window))
    assert selection.find_window(SECRET, commitment, "tap/0123") == window
    assert selection.find_window(SECRET, commitment, "tap/0124") is None
    assert selection.find_window(bytes(32), commitment, "tap/0123") is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: selection.window_key(b"short", 0),
        lambda: selection.window_key(SECRET, -1),
        lambda: selection.window_key(SECRET, 1 << 64),
        lambda: selection.draw_uniform(SECRET, ROOT, 10, 0),
        lambda: selection.draw_proportional(SECRET, ROOT, [1, 2], 0),
        lambda: selection.draw_proportional(SECRET, ROOT, [0, 0], 1),
        lambda: selection.draw_proportional(SECRET, ROOT, [], 1),
        lambda: selection.draw_proportional(SECRET, ROOT, [1, -1], 1),
    ],
)
def test_impossible_requests_are_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError):
        call()
