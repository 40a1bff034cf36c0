"""How one configuration sees the tokens of an answer: which outcomes it expects, and how probable each is.

A seeded configuration has one winner a token and a few near-ties (`NoiseModel`); one that samples with
randomness of its own has its whole softmax. Shapes: T tokens, C candidates, K ids asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from ullage.probe.noise import ProbeNoise
from ullage.sampling.candidates import Candidates

PROBABILITIES: Final = (0.99, 0.8, 0.5, 0.25, 0.1, 0.03)
"""Of a said token under logits that nobody knows."""
SHIFTS: Final = tuple(range(-64, 129))
"""Tokens that a prompt may have more than the declared one."""

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


class View(Protocol):
    """What all configurations can say."""

    def probability_of(self, ids: Integers) -> Array:
        """P of tokens `ids` (T, K) at each step, (T, K); 0 for the id -1. At least floor/V for tokens."""
        ...


@dataclass(frozen=True)
class SeededView:
    """A winner a token, and near-ties.

    winner (T,), gaps and ids (T, C) as in `Candidates`; margin (T,) of the delivered token.
    """

    winner: Integers
    gaps: Array
    ids: Integers
    margin: Array
    noise: ProbeNoise

    @classmethod
    def of(cls, winner: Integers, near: Candidates, margin: Array, noise: ProbeNoise) -> SeededView:
        return cls(winner, near.gaps, near.ids, margin, noise)

    @property
    def outcomes(self) -> Integers:
        """(T, 1 + C): the winner, then its candidates; -1 where there are fewer."""
        near = np.where(self.gaps <= self.noise.model.curve.cutoff, self.ids, -1)
        return np.concatenate([self.winner[:, None], near], axis=1)

    def probability_of(self, ids: Integers) -> Array:
        winner, near = self.noise.model.probabilities(self.gaps)
        table = np.concatenate([winner[:, None], near], axis=1)
        hits = ids[:, :, None] == self.outcomes[:, None, :]  # (T, K, 1 + C)
        return _floored(np.where(hits, table[:, None, :], 0.0).sum(axis=2), ids, self.noise)

    def limits(self) -> Array:
        """u (T, C): the largest probability of each near candidate that honest noise may have.

        kappa times its probability under the noisiest session's curve, plus its part of the floor.
        """
        noise = self.noise
        loudest = replace(noise.model, curve=noise.model.supremum)
        _, near = loudest.probabilities(self.gaps)
        present = self.outcomes[:, 1:] >= 0
        share = noise.floor / np.maximum(present.sum(axis=1, keepdims=True), 1)
        return np.where(present, noise.kappa * near + share, 0.0)


@dataclass(frozen=True)
class SoftmaxView:
    """Samples from softmax(logits / temperature) without a seed; logits (T, V)."""

    logits: NDArray[np.float32]
    temperature: float
    noise: ProbeNoise

    def probability_of(self, ids: Integers) -> Array:
        scaled = self.logits.astype(np.float64) / self.temperature
        total = logsumexp(scaled, axis=1, keepdims=True)
        picked = np.take_along_axis(scaled, np.maximum(ids, 0), axis=1)
        return _floored(np.where(ids >= 0, np.exp(picked - total), 0.0), ids, self.noise)


def _floored(probability: Array, ids: Integers, noise: ProbeNoise) -> Array:
    floor, size = noise.model.floor, noise.model.vocabulary_size
    smoothed: Array = np.where(ids >= 0, (1 - floor) * probability + floor / size, 0.0)
    return smoothed


def log_seed_evidence(noise: Array) -> Array:
    """ln of an e-value (T,) that a server draws by this seed, from the noise (T,) of the tokens that it said.

    A server of its own randomness says tokens independently of the noise, which is then standard Gumbel.
    One that says the argmax of any logits z' + g says v with g_v = M - z'_v, where M, the maximum, is
    independent of v (Gumbel-max): Gumbel shifted by -ln p, p the probability of v under its softmax. The
    ratio of the two densities is exp(-E (1/p - 1)) / p with E = exp(-g), and its mean over PROBABILITIES is
    an e-value, whatever the logits are: the provider's need not be known.
    """
    odds = 1 / np.array(PROBABILITIES)
    exponents = np.exp(-np.asarray(noise))[:, None]
    found: Array = logsumexp(np.log(odds) - exponents * (odds - 1), axis=1) - np.log(len(odds))
    return found
