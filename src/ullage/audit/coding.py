"""From logits and delivered tokens to codelengths, sizes of admissible sets, and the alarm's limits.

All of it follows from one search for the near candidates of each row (`ullage.sampling.candidates`), which
sees prefix, seed and logits; the delivered token only says which entry of the resulting distribution
counts. Tokens beyond the calibration's cutoff, beyond its number of candidates, or outside the reference's
filters have P~ = 0 and cost the code's floor: sound, and 25 bits each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.audit.admissible import NoiseInterval, admissible, inverse_transform_admissible
from ullage.audit.codelength import token_codelength
from ullage.audit.evidence import TokenCodes
from ullage.audit.noise_error import noise_error, noise_interval
from ullage.audit.noise_model import NoiseModel
from ullage.errors import UsageError
from ullage.sampling.address import NoiseAddress
from ullage.sampling.candidates import Candidates, score_with_candidates
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.inverse_transform import uniforms
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import Profile
from ullage.sampling.scores import Scores

INFLATIONS: Final = (10.0, 30.0)
"""Noise so many times as large is what the alarm's alternatives bet on."""
_LARGEST_NOISE: Final = np.array([37.0])  # Gumbel noise of the smallest uniform of 53 bits


@dataclass(frozen=True)
class TokenCoder:
    """A calibration's noise model, ready to be applied to blocks of logits.

    `width`: candidates a row, as the model was fitted with. `bound`: raw logits for the sizes of
    admissible sets, None for none.
    """

    noise: NoiseModel
    width: int
    bound: float | None = None

    def empty(self, rows: int) -> TokenCodes:
        """To be filled in; NaN where nothing was written."""
        return TokenCodes(
            codelength=np.full(rows, np.nan),
            admissible_count=np.full(rows, -1),
            flip=np.full((1 + len(INFLATIONS), rows), np.nan),
            outside=np.zeros(rows, np.bool_),
        )

    def score(
        self,
        profile: Profile,
        logits: NDArray[np.float32],
        claimed: NDArray[np.int64],
        parameters: SamplingParameters,
        address: NoiseAddress,
        *,
        entropy: bool = False,
    ) -> tuple[Scores, TokenCodes]:
        """The profile's scores of claimed tokens (T,) under logits (T, V), and their codes."""
        if logits.shape[1] != self.noise.vocabulary_size:
            raise UsageError(
                f"The calibration is for a vocabulary of {self.noise.vocabulary_size}, and the model has "
                f"{logits.shape[1]} tokens."
            )
        count_gap = 0.0
        if self.bound is not None:
            error = float(noise_error(profile.name, _LARGEST_NOISE)[0])
            count_gap = 2 * (self.bound + max(parameters.temperature, 1e-300) * error) * (1 + 1e-12)
        scores, near = score_with_candidates(
            profile,
            logits,
            claimed,
            parameters,
            address,
            reach=max(self.noise.curve.cutoff, count_gap),
            width=self.width,
            count_gap=count_gap,
            entropy=entropy,
        )
        codes = self.codes(near, near.chosen(scores.reference, claimed))
        if self.bound is not None:
            filtered = parameters.filters(logits.shape[1]) and not parameters.greedy
            exact = _filtered_counts(profile, logits, parameters, address, self.bound) if filtered else None
            codes.admissible_count[:] = near.within if exact is None else exact
        return scores, codes

    def codes(self, near: Candidates, chosen: NDArray[np.int64]) -> TokenCodes:
        """Codelengths and limits from candidates (T, C) and choices (T,); no admissible sets."""
        noise, gaps = self.noise, near.gaps
        codes = self.empty(len(gaps))
        tied = np.flatnonzero(gaps[:, 0] <= noise.curve.cutoff)  # the others have a certain winner
        probability = np.where(chosen == -1, 1.0, 0.0)
        probability[tied] = noise.probability_of(gaps[tied], chosen[tied])
        codes.codelength[:] = token_codelength(probability, noise.vocabulary_size, noise.floor)
        codes.flip[:] = 0.0
        codes.flip[0, tied] = noise.supremum_mismatch_probability(gaps[tied])
        for row, inflation in enumerate(INFLATIONS, start=1):
            codes.flip[row, tied] = noise.mismatch_probability(gaps[tied], inflation)
        beyond = np.concatenate([gaps > noise.curve.cutoff, np.ones((len(gaps), 1), np.bool_)], axis=1)
        codes.outside[:] = (chosen >= 0) & beyond[np.arange(len(gaps)), np.maximum(chosen, 0)]
        return codes


def _filtered_counts(
    profile: Profile,
    logits: NDArray[np.float32],
    parameters: SamplingParameters,
    address: NoiseAddress,
    bound: float,
) -> NDArray[np.int64]:
    """Exact sizes of A_t(b) where filters may move (`admissible`), (T,)."""
    beta, temperature = bound / parameters.temperature, parameters.temperature
    top_k, top_p = parameters.top_k, parameters.top_p
    if isinstance(profile, GumbelProfile):
        noise = profile.noise(address, logits.shape[1])

        def interval(rows: NDArray[np.int64], ids: NDArray[np.int64]) -> NoiseInterval:
            return noise_interval(profile.name, noise.at(rows, ids))

        return admissible(
            logits, interval, temperature=temperature, beta=beta, top_k=top_k, top_p=top_p
        ).counts
    if profile.name == "inverse-transform":
        return inverse_transform_admissible(
            logits, uniforms(address), temperature=temperature, beta=beta, top_k=top_k, top_p=top_p
        ).counts
    raise UsageError(
        f"There are no admissible sets under filters for sampler profile {profile.name!r}; leave out --bound."
    )
