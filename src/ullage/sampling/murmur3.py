"""murmur3-gumbel: position-addressed noise of vLLM's GPU sampler (version 0.32), in three precisions.

The hash of (seed, position, token) gives the uniform; the noise of any token can be computed alone. The
uniforms are bit-exact; the logarithms are always taken in float64 here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.sampling import murmur3_hash
from ullage.sampling.address import NoiseAddress
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.race import HashNoise

_SECOND_DOMAIN: Final = 0x9E3779B9


@dataclass(frozen=True)
class _Noise64(HashNoise):
    def at(self, rows: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.float64]:
        uniform = (self.hashes(rows, ids).astype(np.float64) + 0.5) * 2.0**-32
        return _gumbel_near_zero(uniform)


@dataclass(frozen=True)
class _Noise32(HashNoise):
    def at(self, rows: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.float64]:
        # One rounding, to the nearest float32, as in the engine; it can reach 1, where the noise is -inf.
        uniform = ((self.hashes(rows, ids).astype(np.float64) + 0.5) * 2.0**-32).astype(np.float32)
        return _gumbel_near_zero(uniform.astype(np.float64))


@dataclass(frozen=True)
class _Noise53(HashNoise):
    low: NDArray[np.uint32]

    def at(self, rows: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.float64]:
        low = murmur3_hash.finish(np.asarray(self.low[rows] ^ self.words[ids]))
        joined = (self.hashes(rows, ids).astype(np.uint64) << np.uint64(21)) | (low >> np.uint32(11))
        uniform = np.minimum((joined.astype(np.float64) + 0.5) * 2.0**-53, 1 - 2.0**-53)
        return np.asarray(-np.log(-np.log(uniform)))


def _gumbel_near_zero(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """-log(-log1p(-u)), which is large where u is near 0 and float formats are finest."""
    with np.errstate(divide="ignore"):
        return np.asarray(-np.log(-np.log1p(-uniform)))


class Murmur3Gumbel64(GumbelProfile):
    """`murmur3-gumbel/f64`: u = (h + 0.5) / 2^32 and noise -log(-log1p(-u)), all in float64."""

    name = "murmur3-gumbel/f64"
    position_addressed = True

    def noise(self, address: NoiseAddress, vocabulary_size: int) -> HashNoise:
        states = murmur3_hash.row_states(address.seeds, address.positions)
        return _Noise64(states, murmur3_hash.token_words(vocabulary_size), large_at_one=False)


class Murmur3Gumbel32(GumbelProfile):
    """`murmur3-gumbel/f32`: the same uniform rounded to float32, which is what the engine draws."""

    name = "murmur3-gumbel/f32"
    position_addressed = True

    def noise(self, address: NoiseAddress, vocabulary_size: int) -> HashNoise:
        states = murmur3_hash.row_states(address.seeds, address.positions)
        return _Noise32(states, murmur3_hash.token_words(vocabulary_size), large_at_one=False)


class Murmur3Gumbel53(GumbelProfile):
    """`murmur3-gumbel-53/f64`: two hashes joined to 53 bits (the engine's `use_fp64_gumbel`).

    The hash in the second domain is the high word. u = (r + 0.5) / 2^53, at most 1 - 2^-53, and the noise
    is -log(-log u).
    """

    name = "murmur3-gumbel-53/f64"
    position_addressed = True

    def noise(self, address: NoiseAddress, vocabulary_size: int) -> HashNoise:
        words = murmur3_hash.token_words(vocabulary_size)
        low = murmur3_hash.row_states(address.seeds, address.positions)
        high = murmur3_hash.row_states(address.seeds, address.positions, _SECOND_DOMAIN)
        return _Noise53(high, words, large_at_one=True, low=low)
