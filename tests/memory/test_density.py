"""What packs is not counted, and what does not is."""

from __future__ import annotations

import os
import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.memory.residency.density import PlaneHistogram, byte_entropy, incompressible_bytes


def test_noise_counts_in_full_and_zeros_for_nothing() -> None:
    noise = os.urandom(1 << 20)
    assert incompressible_bytes(memoryview(noise)) > 0.999 * len(noise)
    assert incompressible_bytes(memoryview(bytes(1 << 20))) == 0
    assert incompressible_bytes(memoryview(b"")) == 0


def test_what_stands_twice_counts_once() -> None:
    noise = os.urandom(1 << 18)
    once, twice = (incompressible_bytes(memoryview(data)) for data in (noise, noise + noise))
    assert once == twice


def test_gaussian_weights_lose_their_exponents() -> None:
    weights = np.random.default_rng(1).normal(0, 0.02, 1 << 18).astype(np.float32)
    share = incompressible_bytes(memoryview(weights.tobytes())) / weights.nbytes
    assert 0.80 < share < 0.88  # sign 1, exponent about 2.6, mantissa 23 of 32 bits
    halves = np.ascontiguousarray(weights.view(np.uint16)[1::2])
    assert 0.62 < incompressible_bytes(memoryview(halves.tobytes())) / halves.nbytes < 0.72


@settings(max_examples=30)
@given(st.binary(min_size=1, max_size=20_000), st.sampled_from([1, 2, 4]))
def test_no_more_than_there_is(data: bytes, stride: int) -> None:
    assert 0 <= incompressible_bytes(memoryview(data)) <= len(data)
    histogram = PlaneHistogram(stride)
    histogram.feed(np.frombuffer(data, np.uint8))
    assert histogram.bits <= 8 * len(data) + 1e-6


def test_a_general_compressor_does_not_beat_the_count() -> None:
    """The built-in kind of content: what zlib saves of it, the count leaves out as well."""
    weights = np.random.default_rng(2).normal(0, 0.02, 1 << 16).astype(np.float32).tobytes()
    assert incompressible_bytes(memoryview(weights)) <= len(zlib.compress(weights, 9))


def test_entropy_of_known_histograms() -> None:
    assert byte_entropy([4, 4, 4, 4]) == 2
    assert byte_entropy([7]) == 0
    assert byte_entropy([]) == 0
