"""splitmix64-gumbel: vLLM's CPU sampler (version 0.32). One drawn integer a step, then a hash a token.

SplitMix64: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, figure 17
(with the finaliser's constants of Stafford's variant 13).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.sampling.address import NoiseAddress
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.sequential import step_integers

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)


def mix64(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The SplitMix64 finaliser, element by element."""
    mixed = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@dataclass(frozen=True)
class StepNoise:
    """Noise of rows whose steps drew the integers `step_seeds`, uint64 (T,)."""

    step_seeds: NDArray[np.uint64]

    def at(self, rows: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Noise -log(-log u), u = (53-bit hash + 0.5) / 2^53, float64; see `gumbel.Noise`."""
        keys = mix64(self.step_seeds)[rows]
        hashed = mix64(keys + (ids.astype(np.uint64) + np.uint64(1)) * _GOLDEN) >> np.uint64(11)
        uniform = (hashed.astype(np.float64) + 0.5) * 2.0**-53
        with np.errstate(divide="ignore"):  # the one hash in 2^53 that rounds to u = 1
            return np.asarray(-np.log(-np.log(uniform)))


def draw_step_seeds(seed: int) -> Iterator[int]:
    """randint(0, 2^31) of a CPU `torch.Generator` with this seed, step after step."""
    import torch

    generator = torch.Generator(device="cpu")
    generator.manual_seed(seed)
    while True:
        yield int(torch.randint(0, 2**31, (1,), generator=generator).item())


class SplitMix64Gumbel(GumbelProfile):
    """`splitmix64-gumbel`. Needs torch for the generator; a continuation restarts the generator."""

    name = "splitmix64-gumbel"
    position_addressed = False

    def noise(self, address: NoiseAddress, vocabulary_size: int) -> StepNoise:
        del vocabulary_size
        return StepNoise(step_integers(address, draw_step_seeds))
