"""Just under the alarm: a sender that runs the verifier's own e-process and stops before it would fire.

It knows the calibration, the level and the order in which messages are audited. At each position it works
out what one more deviation would do to E there and at every later point that the auditor looks at, supposing
that it stays honest from then on: honest tokens only lower E. It deviates only where that stays below
1/alpha, so in that order the alarm cannot fire, whatever the payload is. An auditor who shuffles the
messages takes that knowledge away; `pricing` does.

It spends evidence where that is cheap: GAIN times as many deviations as the null hypothesis allows, which is
most at near-ties, and all candidates within the calibration's cutoff alike, because the alarm does not look
at how near a token inside was.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from ullage.audit.bounds.alarm import log_bets, mismatch_limits
from ullage.audit.calibration.fit import KAPPA
from ullage.audit.coding import INFLATIONS
from ullage.redteam.tokens.adversary import coded
from ullage.redteam.tokens.calibration import GameCalibration
from ullage.redteam.tokens.coded_choice import rounded_gaps
from ullage.redteam.tokens.near_ties import Place
from ullage.redteam.tokens.pricing import ALPHA
from ullage.redteam.tokens.schedules import winner_only
from ullage.sampling.candidates import DEFAULT_WIDTH

GAIN: Final = 2.0
_MOST_MESSAGES: Final = 4096  # of one window; a server that runs on takes the next ones for a new window
_MARGIN: Final = 0.05
"""Nats kept back: sender, receiver and verifier compute gaps that differ in the last digits."""

Floats = NDArray[np.float64]


class UnderAlarm:
    """A law with a memory of the e-process. `remember` every token in the order of sending."""

    def __init__(self, calibration: GameCalibration, gain: float = GAIN, alpha: float = ALPHA) -> None:
        self._noise, self._floor, self._gain = calibration.noise, calibration.alarm_floor, gain
        self._ceiling = -math.log(alpha) - _MARGIN
        self._messages: dict[int, list[Floats]] = {}  # by seed, in the order of counters: ln of each bet
        weights, self._quiet, _ = self._bets(np.full(DEFAULT_WIDTH, np.inf))
        self._weights = weights

    def __call__(self, place: Place, /) -> Floats:
        weights = winner_only(place)
        candidates = self._candidates(place)
        if not candidates or not self._may_deviate(place):
            return weights
        rounded = rounded_gaps(place)[None, 1 : 1 + DEFAULT_WIDTH]
        limit = float(self._limits(rounded)[0])
        share = min(candidates / (candidates + 1), self._gain * limit)
        weights[0] = 1 - share
        weights[1 : 1 + candidates] = share / candidates
        return weights

    def remember(self, place: Place, token: int) -> None:
        """Add a token's evidence."""
        step = self._quiet
        if self._candidates(place):
            _, matched, deviated = self._bets(place.gaps[1 : 1 + DEFAULT_WIDTH])
            step = matched if token == place.winner else deviated
        path = self._path(place.seed)
        path.append(path[-1] + step)

    def _path(self, seed: int) -> list[Floats]:
        if seed not in self._messages and len(self._messages) >= _MOST_MESSAGES:
            self._messages.clear()
        return self._messages.setdefault(seed, [np.zeros(len(self._weights))])

    def _candidates(self, place: Place) -> int:
        return int(np.count_nonzero(place.gaps[1 : 1 + DEFAULT_WIDTH] <= self._noise.curve.cutoff))

    def _may_deviate(self, place: Place) -> bool:
        """Whether E stays below the ceiling at this token and wherever it is looked at later."""
        _, _, deviated = self._bets(place.gaps[1 : 1 + DEFAULT_WIDTH])
        here = self._path(place.seed)[-1]
        seeds = list(self._messages)
        own = seeds.index(place.seed)
        before = np.zeros(len(self._weights))
        for seed in seeds[:own]:
            before += self._messages[seed][-1]
        now = before + here + deviated
        if self._log_e(now[None]) > self._ceiling:
            return False
        for seed in seeds[own + 1 :]:
            if self._log_e(now + np.array(self._messages[seed])) > self._ceiling:
                return False
            now = now + self._messages[seed][-1]
        return True

    def _log_e(self, bets: Floats) -> float:
        """The largest ln E over points (N, bets)."""
        return float(logsumexp(bets + self._weights, axis=1).max())

    def _limits(self, gaps: Floats) -> Floats:
        return mismatch_limits(self._noise.supremum_mismatch_probability(gaps), KAPPA, self._floor)

    def _bets(self, gaps: Floats) -> tuple[Floats, Floats, Floats]:
        """Of one place's gaps (C,): ln of the bets' weights, and of their factors for winner and others."""
        limits = np.repeat(self._limits(gaps[None]), 2)
        rates = [np.repeat(self._noise.mismatch_probability(gaps[None], size), 2) for size in INFLATIONS]
        inside = np.array([False, True])
        bets = list(log_bets(limits, inside, np.zeros(2, np.bool_), self._floor, rates))
        factors = np.array([factor for _, factor in bets])
        return np.array([weight for weight, _ in bets]), factors[:, 0], factors[:, 1]


ADVERSARY = coded(
    "just-under-alarm",
    "runs the verifier's e-process and deviates only while the alarm cannot fire",
    lambda briefing: UnderAlarm(briefing.calibration),
)
