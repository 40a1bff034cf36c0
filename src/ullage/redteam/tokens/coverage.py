"""Does the statement with a confidence hold as often as it says? Simulated windows, real draws, real bounds.

A window is a population of messages with known codelengths, so that its share is known exactly. Each is
drawn from with a key of its own, as an audit draws, and the statement holds if the bound is not below that
share. The populations are those that strain it: honest traffic, a few messages that carry everything, leaks
that hide in the shortest messages, and shares just at the bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bounds.betting import (
    exact_share,
    message_shares,
    message_weights,
    mixed_codelength,
    upper_bound,
)
from ullage.audit.selection import draw_proportional

MESSAGES, DRAWS = 2_000, 3_000
VOCABULARY = 4096

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Population = Callable[[np.random.Generator], tuple[Floats, Integers]]
"""Codelengths (N,) in bits and lengths (N,) in tokens of a window's messages."""


def _lengths(random: np.random.Generator) -> Integers:
    return random.integers(8, 200, MESSAGES)


def honest(random: np.random.Generator) -> tuple[Floats, Integers]:
    """Floor and near-ties, as a bfloat16 server has them."""
    lengths = _lengths(random)
    return 1.44e-4 * lengths + random.gamma(0.02 * lengths, 2.0), lengths


def rare(random: np.random.Generator) -> tuple[Floats, Integers]:
    """One message in a thousand carries all it can, the others nothing but the floor."""
    lengths = _lengths(random)
    full = random.random(MESSAGES) < 1e-3
    return np.where(full, np.inf, 1.44e-4 * lengths), lengths


def short(random: np.random.Generator) -> tuple[Floats, Integers]:
    """Messages of one token that carry everything among long ones that carry nothing."""
    tiny = random.random(MESSAGES) < 0.02
    lengths = np.where(tiny, 1, 350)
    return np.where(tiny, np.inf, 1.44e-4 * lengths), lengths


def near_ties(random: np.random.Generator) -> tuple[Floats, Integers]:
    """A third of the messages flip near-ties at a tenth of a bit a token."""
    lengths = _lengths(random)
    base, _ = honest(random)
    return base + (random.random(MESSAGES) < 1 / 3) * random.gamma(0.1 * lengths, 1.0), lengths


POPULATIONS: tuple[Population, ...] = (honest, rare, short, near_ties)


@dataclass(frozen=True)
class Coverage:
    """In how many windows of one population the statement held."""

    population: str
    windows: int
    held: int
    confidence: float
    mean_bound_over_share: float

    def to_dict(self) -> dict[str, object]:
        return {
            "population": self.population,
            "windows": self.windows,
            "held": self.held,
            "coverage": self.held / self.windows,
            "confidence": self.confidence,
            "mean_bound_over_share": self.mean_bound_over_share,
        }


def coverage(
    population: Population, windows: int, *, confidence: float = 0.99, draws: int = DRAWS, seed: int = 0
) -> Coverage:
    """Simulate that many windows of a population, each with members and draws of its own."""
    held, ratio = 0, 0.0
    for window in range(windows):
        random = np.random.default_rng([seed, window])
        codelength, lengths = population(random)
        mixed = mixed_codelength(codelength, lengths, VOCABULARY)
        weights = message_weights(lengths, VOCABULARY)
        key, root = random.bytes(32), random.bytes(32)
        drawn = np.array(draw_proportional(key, root, weights.tolist(), draws))
        bound = upper_bound(message_shares(mixed, weights)[drawn], 1 - confidence)
        share = exact_share(mixed, weights)
        held += bound >= share
        ratio += bound / share
    return Coverage(population.__name__, windows, held, confidence, ratio / windows)
