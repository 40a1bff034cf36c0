"""Evidence that the committed states are farther from the reference's than honest ones: an e-process.

H0: given everything before, the squared distance V of a token's committed state from the verifier's follows
a law that lies (stochastically) below the tolerance's envelope. The directions are drawn by the verifier
after the states were fixed, so given V = v each coordinate of a token is sub-Gaussian with variance proxy v
+ 1/12 (in squared steps, `projection`), whatever the direction of the difference; for X = the sum of the K
squared coordinates

    E exp(s X) <= (1 - 2 s (v + 1/12))^(-K/2)    for 2 s (v + 1/12) < 1,

(sub-Gaussian chaos: write exp(s x^2) as a Gaussian mean of exponentials; Boucheron, Lugosi and Massart,
2013, section 2.5) and exp(s min(X, cap)) <= exp(s cap) always. Both grow with v, so their mean over the
envelope's levels bounds the mean under H0: e = exp(s min(X, cap)) / that mean is an e-variable, products
over tokens are test supermartingales, and their average over a grid of s reaches 1/alpha with probability
at most alpha, however long one goes on (Ville). Nothing is assumed about the noise beside the envelope: the
chance is the verifier's own coins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage.fingerprint.projection import ROUNDING_VARIANCE

Floats = NDArray[np.float64]

# Of the largest s for which the bound is finite at the envelope's end.
_SHARES: Final = (0.1, 0.25, 0.4, 0.6, 0.8, 0.95)
_CAP: Final = 40.0
"""Of s X: no token brings more evidence than about e^40."""


@dataclass
class Evidence:
    """ln E over all tokens so far. `envelope` (L,): squared distances in squared steps."""

    envelope: Floats
    coordinates: int
    alpha: float
    log_e: float = 0.0
    highest: float = 0.0
    tokens: int = 0
    crossed_at: int = 0
    """Tokens seen when E reached 1/alpha; 0 if it has not."""
    _capital: Floats = field(default_factory=lambda: np.zeros(len(_SHARES)))

    def add(self, differences: Floats) -> Floats:
        """Take in one answer's differences (T, K) in steps; ln E (T,) after each token."""
        steps = self.log_factors(differences)
        path = self._capital + np.cumsum(steps, axis=0)  # (T, S)
        total = np.logaddexp.reduce(path, axis=1) - math.log(len(_SHARES))
        above = np.flatnonzero(total >= -math.log(self.alpha))
        if above.size and not self.crossed_at:
            self.crossed_at = self.tokens + int(above[0]) + 1
        if len(total):
            self._capital = path[-1]
            self.log_e = float(total[-1])
            self.highest = max(self.highest, float(total.max()))
        self.tokens += len(total)
        return np.asarray(total)

    def log_factors(self, differences: Floats) -> Floats:
        """ln e (T, S) for each s of the grid."""
        squares = np.sum(differences**2, axis=1)
        found = np.empty((len(squares), len(_SHARES)))
        for column, (rate, normaliser) in enumerate(self._bets()):
            found[:, column] = np.minimum(rate * squares, _CAP) - normaliser
        return found

    def _bets(self) -> list[tuple[float, float]]:
        """s and the logarithm of the bound on E exp(min(s X, cap)) for each share."""
        proxy = self.envelope + ROUNDING_VARIANCE
        largest = 1 / (2 * float(proxy.max()))
        found = []
        for share in _SHARES:
            rate = share * largest
            logs = np.minimum(-0.5 * self.coordinates * np.log1p(-2 * rate * proxy), _CAP)
            found.append((rate, float(np.logaddexp.reduce(logs)) - math.log(len(logs))))
        return found


def detectable_factor(envelope: Floats, coordinates: int, tokens: int, alpha: float) -> float:
    """How many times the envelope's root mean square a server's distance may be at all tokens before 99 % of
    them would have been noticed within `tokens`: from simulated coins, up to a factor of 16; inf beyond.

    A figure about power, not a bound: what is simulated is a difference of that length at every token.
    """
    generator = np.random.default_rng(0)
    coins = generator.standard_normal((200, tokens, coordinates))
    rounding = generator.uniform(-0.5, 0.5, coins.shape)
    mean = math.sqrt(float(np.mean(envelope)))
    for factor in np.round(np.geomspace(1.1, 16.0, 25), 2):
        differences = factor * mean * coins + rounding
        found = sum(_crosses(envelope, coordinates, alpha, one) for one in differences)
        if found >= 0.99 * len(coins):
            return float(factor)
    return math.inf


def _crosses(envelope: Floats, coordinates: int, alpha: float, differences: Floats) -> bool:
    evidence = Evidence(envelope, coordinates, alpha)
    evidence.add(differences)
    return evidence.crossed_at > 0
