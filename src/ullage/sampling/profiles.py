"""The registry of sampler profiles: a name in a record stands for exactly one algorithm, for ever."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UsageError
from ullage.sampling.address import NoiseAddress
from ullage.sampling.greedy import Greedy
from ullage.sampling.inverse_transform import InverseTransform
from ullage.sampling.murmur3 import Murmur3Gumbel32, Murmur3Gumbel53, Murmur3Gumbel64
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.scores import Scores
from ullage.sampling.sglang_murmur import SglangMurmur
from ullage.sampling.splitmix64 import SplitMix64Gumbel
from ullage.sampling.torch_exponential import TorchExponential


class UnknownProfileError(UsageError):
    """A record or an option names a profile that this version does not have."""


class Profile(Protocol):
    """How one engine gets from (logits, parameters, seed, position) to a token."""

    @property
    def name(self) -> str:
        """The exact string in a record."""
        ...

    @property
    def position_addressed(self) -> bool:
        """Whether the noise of any position can be computed alone: a continuation then keeps its noise."""
        ...

    def choose(
        self, logits: NDArray[np.float32], parameters: SamplingParameters, address: NoiseAddress
    ) -> NDArray[np.int64]:
        """The profile's tokens (T,) for logits (T, V)."""
        ...

    def score(
        self,
        logits: NDArray[np.float32],
        claimed: NDArray[np.int64],
        parameters: SamplingParameters,
        address: NoiseAddress,
        *,
        entropy: bool = False,
    ) -> Scores:
        """How claimed tokens (T,) do under logits (T, V)."""
        ...


_PROFILES: Final[tuple[Profile, ...]] = (
    Murmur3Gumbel64(),
    Murmur3Gumbel32(),
    Murmur3Gumbel53(),
    SplitMix64Gumbel(),
    TorchExponential(),
    SglangMurmur(),
    InverseTransform(),
    Greedy(),
)


def profile_names() -> tuple[str, ...]:
    """The names that `get_profile` knows."""
    return tuple(profile.name for profile in _PROFILES)


def get_profile(name: str) -> Profile:
    """The profile of this exact name. Raises UnknownProfileError, which lists the known ones."""
    for profile in _PROFILES:
        if profile.name == name:
            return profile
    raise UnknownProfileError(
        f"There is no sampler profile {name[:80]!r}; known are {', '.join(profile_names())}."
    )
