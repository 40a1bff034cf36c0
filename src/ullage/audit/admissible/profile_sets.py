"""Admissible sets under a sampler profile: the noise is replayed, with its own error (`noise_error`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ullage.audit.admissible.noise_error import magnitude, noise_interval
from ullage.audit.admissible.sets import (
    AdmissibleSets,
    NoiseInterval,
    admissible,
    greedy_admissible,
    inverse_transform_admissible,
)
from ullage.errors import UsageError
from ullage.sampling.address import NoiseAddress
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.inverse_transform import uniforms
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import Profile


def profile_sets(
    profile: Profile,
    logits: NDArray[np.float32],
    parameters: SamplingParameters,
    address: NoiseAddress,
    bound: float,
) -> AdmissibleSets:
    """A_t(bound) for each row of logits (T, V); `bound` in raw logits. Raises UsageError for other profiles.

    Exact, but for the profile inverse-transform with filters, where it is a superset.
    """
    if parameters.greedy or profile.name == "greedy":
        return greedy_admissible(logits, bound)
    beta, temperature = bound / parameters.temperature, parameters.temperature
    top_k, top_p = parameters.top_k, parameters.top_p
    if isinstance(profile, GumbelProfile):
        noise = profile.noise(address, logits.shape[1])
        size = magnitude(logits, temperature)

        def interval(rows: NDArray[np.int64], ids: NDArray[np.int64]) -> NoiseInterval:
            return noise_interval(profile.name, noise.at(rows, ids), size)

        return admissible(logits, interval, temperature=temperature, beta=beta, top_k=top_k, top_p=top_p)
    if profile.name == "inverse-transform":
        return inverse_transform_admissible(
            logits, uniforms(address), temperature=temperature, beta=beta, top_k=top_k, top_p=top_p
        )
    raise UsageError(
        f"There are no admissible sets under filters for sampler profile {profile.name[:80]!r}; leave out "
        "--bound."
    )
