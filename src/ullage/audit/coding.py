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

from ullage.audit.admissible.noise_error import magnitude, noise_error
from ullage.audit.admissible.profile_sets import profile_sets
from ullage.audit.admissible.sets import cumulative_sum_tolerance
from ullage.audit.bounds.codelength import token_codelength
from ullage.audit.bounds.noise_model import NoiseModel
from ullage.audit.bundle.evidence import TokenCodes
from ullage.errors import UsageError
from ullage.sampling.address import NoiseAddress
from ullage.sampling.candidates import Candidates, score_with_candidates
from ullage.sampling.filtered import Box
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import Profile
from ullage.sampling.scores import Scores

INFLATIONS: Final = (10.0, 30.0)
"""Noise so many times as large is what the alarm's alternatives bet on."""
_ROUNDING: Final = 1e-11  # of our own sums z + g and z +- beta, for |z| and |g| up to some thousands
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
        count_gap, box = 0.0, None
        filtered = parameters.filters(logits.shape[1]) and not parameters.greedy
        if self.bound is not None:
            temperature = max(parameters.temperature, 1e-300)
            size = magnitude(logits, temperature) if parameters.temperature else 0.0
            error = float(noise_error(profile.name, _LARGEST_NOISE, size)[0])
            count_gap = 2 * (self.bound + temperature * error) * (1 + _ROUNDING)
            if filtered:
                slack = cumulative_sum_tolerance(logits.shape[1]) + _ROUNDING
                box = Box(self.bound / temperature * (1 + _ROUNDING) + _ROUNDING, slack)
        scores, near = score_with_candidates(
            profile,
            logits,
            claimed,
            parameters,
            address,
            reach=max(self.noise.curve.cutoff, count_gap),
            width=self.width,
            count_gap=count_gap,
            box=box,
            entropy=entropy,
        )
        codes = self.codes(near, near.chosen(scores.reference, claimed))
        if self.bound is not None:
            # Under filters `within` counts too few: those that the box lets in are not among the kept.
            counts = near.reached if filtered and near.reached is not None else near.within
            codes.admissible_count[:] = counts
            rest = np.flatnonzero(counts == 0)
            if rest.size:
                there = NoiseAddress(address.seeds[rest], address.positions[rest], address.steps[rest])
                sets = profile_sets(profile, logits[rest], parameters, there, self.bound)
                codes.admissible_count[rest] = sets.counts
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
