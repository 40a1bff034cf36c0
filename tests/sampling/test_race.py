"""The shortcut over whole vocabularies where scores tie, which real noise hardly ever does."""

from __future__ import annotations

import numpy as np

from ullage.sampling import murmur3_hash
from ullage.sampling.address import NoiseAddress
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.murmur3 import Murmur3Gumbel64
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.race import HashNoise


class _Coarse(HashNoise):
    """Noise rounded down to whole numbers: never above the real one, so the shortcut's premise holds."""

    def at(self, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
        uniform = (self.hashes(rows, ids) + 0.5) / 2**32
        coarse: np.ndarray = np.floor(-np.log(-np.log1p(-uniform)))
        return coarse


class _CoarseProfile(GumbelProfile):
    name = "coarse"
    position_addressed = True

    def noise(self, address: NoiseAddress, vocabulary_size: int) -> HashNoise:
        states = murmur3_hash.row_states(address.seeds, address.positions)
        return _Coarse(states, murmur3_hash.token_words(vocabulary_size), large_at_one=False)


def test_ties_go_to_the_lowest_id_and_do_not_raise_the_rank() -> None:
    rows, width = 300, 500
    generator = np.random.default_rng(1)
    logits = np.round(generator.standard_normal((rows, width)) * 2).astype(np.float32)
    address = NoiseAddress.of_response(6, 1, rows)
    profile = _CoarseProfile()
    everywhere = (np.arange(rows)[:, None], np.arange(width)[None])
    noised = logits + profile.noise(address, width).at(*everywhere)
    tied = (noised == noised.max(axis=1, keepdims=True)).sum(axis=1)
    assert (tied > 1).sum() > 20
    np.testing.assert_array_equal(
        profile.choose(logits, SamplingParameters(), address), noised.argmax(axis=1)
    )
    last = width - 1 - noised[:, ::-1].argmax(axis=1)
    scores = profile.score(logits, last, SamplingParameters(), address)
    np.testing.assert_array_equal(scores.reference, noised.argmax(axis=1))
    assert not scores.margin.any()
    assert not scores.rank.any()


def test_a_claimed_token_of_probability_zero_does_not_disturb_its_neighbours() -> None:
    logits = np.random.default_rng(1).standard_normal((40, 700)).astype(np.float32)
    logits[7, 3] = -np.inf
    address = NoiseAddress.of_response(6, 1, 40)
    profile = Murmur3Gumbel64()
    scores = profile.score(logits, np.full(40, 3), SamplingParameters(), address)
    np.testing.assert_array_equal(scores.reference, profile.choose(logits, SamplingParameters(), address))
    assert np.isinf(scores.margin).tolist() == [row == 7 for row in range(40)]
    assert scores.rank[7] == 700
