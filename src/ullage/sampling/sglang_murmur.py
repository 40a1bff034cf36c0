"""sglang-murmur: SGLang with deterministic inference on. The same hash, another map to noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.sampling import murmur3_hash
from ullage.sampling.address import NoiseAddress
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.race import HashNoise


@dataclass(frozen=True)
class _Noise(HashNoise):
    def at(self, rows: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.float64]:
        uniform = self.hashes(rows, ids) / np.float64(2**32 - 1)
        with np.errstate(divide="ignore"):  # u = 0 has noise -inf
            return np.asarray(-np.log(-np.minimum(np.log(uniform), -(2.0**-32))))


class SglangMurmur(GumbelProfile):
    """`sglang-murmur`: u = h / (2^32 - 1), log u at most -2^-32, noise -log(-log u), all in float64.

    The engine adds the noise to log-probabilities; logits differ from those by a constant a row.
    """

    name = "sglang-murmur"
    position_addressed = True

    def noise(self, address: NoiseAddress, vocabulary_size: int) -> HashNoise:
        states = murmur3_hash.row_states(address.seeds, address.positions)
        return _Noise(states, murmur3_hash.token_words(vocabulary_size), large_at_one=True)
