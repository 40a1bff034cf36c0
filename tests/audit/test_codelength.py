"""The two theorems on trees small enough to enumerate, and the sums."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ullage.audit.bounds.codelength import (
    decoding_probability,
    ending_codelength,
    sum_by_message,
    token_codelength,
)
from ullage.errors import UsageError

STEADY = settings(deadline=None)  # a loaded machine is no failure

FLOOR = 0.01


def transcripts_and_lengths(
    generator: np.random.Generator, vocabulary: int, limit: int
) -> tuple[list[tuple[int, ...]], NDArray[np.float64], dict[tuple[int, ...], float]]:
    """All finished transcripts (token 0 is EOS), their codelengths, and those of every unfinished prefix.

    Each prefix has a P~ of its own, as it would with a reference.
    """
    finished: dict[tuple[int, ...], float] = {}
    open_prefixes: dict[tuple[int, ...], float] = {(): 0.0}
    cut: dict[tuple[int, ...], float] = {(): 0.0}
    for step in range(limit):
        longer: dict[tuple[int, ...], float] = {}
        for prefix, length in open_prefixes.items():
            probability = generator.dirichlet(np.full(vocabulary, 0.2))
            for token, bits in enumerate(token_codelength(probability, vocabulary, FLOOR)):
                ended = token == 0 or step == limit - 1
                (finished if ended else longer)[(*prefix, token)] = length + float(bits)
        cut.update(longer)
        open_prefixes = longer
    return list(finished), np.array(list(finished.values())), cut


@pytest.mark.parametrize("seed", range(5))
def test_code_is_a_distribution_over_transcripts(seed: int) -> None:
    """Kraft's sum is 1 over finished transcripts; with those cut off it needs the ending's bits."""
    generator = np.random.default_rng(seed)
    _, lengths, cut = transcripts_and_lengths(generator, 4, 4)
    assert np.exp2(-lengths).sum() == pytest.approx(1.0, abs=1e-12)
    open_lengths = np.array(list(cut.values()))
    assert np.exp2(-lengths).sum() + np.exp2(-open_lengths).sum() > 1.5
    whole = lengths + ending_codelength(np.zeros(len(lengths), bool), np.full(len(lengths), 4), 0.3)
    every = np.concatenate([open_lengths, lengths])  # a whole message may be called cut, too
    parts = every + ending_codelength(np.ones(len(every), bool), np.full(len(every), 4), 0.3)
    total = np.exp2(-whole).sum() + np.exp2(-parts).sum()
    assert 0.7 < total <= 1.0 + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_no_strategy_decodes_with_a_short_codelength(seed: int) -> None:
    """The best strategy gives each payload the cheapest transcript left; P(L <= k - s) <= 2^-s, all s."""
    _, lengths, _ = transcripts_and_lengths(np.random.default_rng(seed), 4, 4)
    cheapest = np.sort(lengths)
    for k in range(1, 7):
        used = cheapest[: 2**k]
        for s in np.linspace(0, k, 40):
            share = np.count_nonzero(used <= k - s) / 2**k
            assert share <= decoding_probability(k, k - s) + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_mean_codelength_is_at_least_the_information(seed: int) -> None:
    """For a random code book with noise (payload -> law of the transcript), E[L] >= I(M; Y)."""
    generator = np.random.default_rng(seed)
    _, lengths, _ = transcripts_and_lengths(generator, 3, 4)
    law = generator.dirichlet(np.full(len(lengths), 0.02), size=8)  # (payload, transcript)
    mean_length = float((law.mean(axis=0) * lengths).sum())
    marginal = law.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.nansum(np.where(law > 0, law * np.log2(law / marginal), 0.0)) / 8
    assert mean_length >= information - 1e-12


def test_information_is_reached_by_coding_with_the_model_itself() -> None:
    """With Y drawn from Q and the payload chosen as Y, E[L] = H(Y) = I: the bound is tight."""
    _, lengths, _ = transcripts_and_lengths(np.random.default_rng(9), 3, 4)
    law = np.exp2(-lengths)
    assert float((law * lengths).sum()) == pytest.approx(-float((law * np.log2(law)).sum()))


@STEADY
@given(st.floats(0, 1), st.integers(2, 200_000), st.floats(1e-9, 0.5))
def test_token_codelength(probability: float, vocabulary: int, floor: float) -> None:
    bits = float(token_codelength(np.array([probability]), vocabulary, floor)[0])
    assert bits == pytest.approx(-math.log2((1 - floor) * probability + floor / vocabulary))
    assert 0 <= bits <= math.log2(vocabulary / floor) + 1e-9


def test_honest_token_costs_the_floor() -> None:
    """1.44e-4 bits a token at l = 1e-4: what "50-65 thousand draws" rests on."""
    bits = float(token_codelength(np.array([1.0]), 4096)[0])
    assert bits == pytest.approx(1e-4 * (1 - 1 / 4096) / math.log(2), rel=1e-4)


@STEADY
@given(st.lists(st.lists(st.floats(0, 30), max_size=5), max_size=8))
def test_sum_by_message(messages: list[list[float]]) -> None:
    values = np.array(list(itertools.chain.from_iterable(messages)), dtype=np.float64)
    lengths = np.array([len(message) for message in messages], dtype=np.int64)
    assert sum_by_message(values, lengths) == pytest.approx([sum(message) for message in messages])


def test_ending_codelength() -> None:
    found = ending_codelength(np.array([True, True, False]), np.array([0, 4, 4]), 0.5)
    assert found == pytest.approx([1.0, math.log2(10), 1.0])


def test_decoding_probability() -> None:
    assert decoding_probability(100, 90) == 2.0**-10
    assert decoding_probability(100, 90, calibration_bits=4) == 2.0**-6
    assert decoding_probability(100, 200) == 1.0


def test_bad_input() -> None:
    with pytest.raises(UsageError):
        token_codelength(np.array([1.5]), 4)
    with pytest.raises(UsageError):
        token_codelength(np.array([math.nan]), 4)
    with pytest.raises(UsageError):
        token_codelength(np.array([1.0]), 4, floor=0.0)
    with pytest.raises(UsageError):
        sum_by_message(np.ones(3), np.array([1, 1]))
    with pytest.raises(UsageError):
        ending_codelength(np.array([True]), np.array([5]), 0.0)
