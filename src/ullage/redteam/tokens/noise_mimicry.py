"""Noise mimicry: flips as rare as honest noise makes them, but chosen by the payload.

`mimic` follows the verifier's own noise model, Q = P~: by theorem 2 of docs/proofs/covert-capacity.md no
strategy carries more for the same codelength. Tempering, Q ∝ P~^beta with beta < 1, flips more often than
honest noise and carries more, at the price of being seen. `poisoned` is the mimic of a calibration that
the adversary supplied: noisier than the truth, so that more flips pass as honest.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bounds.noise_model import NoiseModel
from ullage.redteam.tokens.adversary import FILTERED, coded
from ullage.redteam.tokens.calibration import GameCalibration
from ullage.redteam.tokens.coded_choice import Law, rounded_gaps
from ullage.redteam.tokens.near_ties import Place

TEMPER = 0.5
POISON = 6.0


def tempered(noise: NoiseModel, beta: float) -> Law:
    """Weights P~(v)^beta; beta = 1 mimics the noise."""

    def law(place: Place) -> NDArray[np.float64]:
        weights = np.zeros(len(place.tokens))
        weights[0] = 1.0
        if place.gaps[1:].min() <= noise.curve.cutoff:
            winner, others = noise.probabilities(rounded_gaps(place)[None, 1:])
            weights[0] = winner[0] ** beta
            weights[1:] = np.where(others[0] > 0, others[0] ** beta, 0.0)
        return weights

    return law


def poisoned(noise: NoiseModel) -> NoiseModel:
    """Noise POISON times as large as it is."""
    return replace(noise, curve=noise.curve.inflated(POISON), supremum=noise.supremum.inflated(POISON))


def poisoned_calibration(honest: GameCalibration) -> GameCalibration:
    """The calibration that the adversary hands in."""
    return replace(honest, noise=poisoned(honest.noise), source=f"poisoned; before: {honest.source}")


MIMIC = coded(
    "mimic",
    "payload bits flip tokens exactly as often as the noise model says that honest noise does",
    lambda briefing: tempered(briefing.calibration.noise, 1.0),
)
MIMIC_FILTERED = coded(
    "mimic-filtered",
    f"mimic at temperature {FILTERED.temperature:g}, top-k {FILTERED.top_k}, top-p {FILTERED.top_p:g}",
    lambda briefing: tempered(briefing.calibration.noise, 1.0),
    parameters=FILTERED,
)
TEMPERED = coded(
    "tempered",
    f"payload bits follow the noise model to the power {TEMPER:g}: more flips, near-ties first",
    lambda briefing: tempered(briefing.calibration.noise, TEMPER),
)
POISONED = coded(
    "poisoned-calibration",
    f"mimics a calibration of its own making, with noise {POISON:g} times as large as it is",
    lambda briefing: tempered(briefing.calibration.noise, 1.0),
    calibration=poisoned_calibration,
)
