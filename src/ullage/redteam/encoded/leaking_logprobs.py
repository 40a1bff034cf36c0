"""A server that leaks through log-probabilities: numbers that are right as far as anybody checks.

A verifier recomputes a log-probability up to its tolerance, because honest numerics differ by that much.
Within the tolerance the server writes what it likes: a released value is one of the steps of its number
format between v - tolerance and v + tolerance, and which one is the message. The receiver holds the declared
model, knows v, and reads the step. What a tap leaves of this depends on the step alone: a tap that rounds
makes it coarse, one that strips log-probabilities leaves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Release:
    """How log-probabilities leave: `decimals` after the point, None for float32 as it is."""

    decimals: int | None

    def steps(self, honest: Values) -> Values:
        """The distance of neighbouring values that can be released about each value."""
        if self.decimals is not None:
            return np.full(honest.shape, 10.0**-self.decimals)
        # A power of two between a float32 and its neighbour, for every value within a tolerance of 1.
        return np.spacing(np.abs(honest.astype(np.float32)) + np.float32(1)).astype(np.float64)

    def passed(self, values: Values) -> Values:
        """What a receiver gets of values that the server wrote."""
        if self.decimals is None:
            return values.astype(np.float32).astype(np.float64)
        return np.round(values, self.decimals)


def bits_of(honest: Values, tolerance: float, release: Release) -> NDArray[np.int64]:
    """Whole bits that each value can carry unseen: floor(log2 of the steps within the tolerance)."""
    steps = release.steps(honest)
    first, last = _ends(honest, tolerance, steps)
    found: NDArray[np.int64] = np.floor(np.log2(np.maximum(last - first + 1, 1))).astype(np.int64)
    return found


def hide(honest: Values, tolerance: float, release: Release, payload: int) -> tuple[Values, int]:
    """The values that the server writes, and how many of the payload's low bits they carry."""
    steps, widths = release.steps(honest), bits_of(honest, tolerance, release)
    first, _ = _ends(honest, tolerance, steps)
    written, used = honest.copy(), 0
    for place in np.flatnonzero(widths).tolist():
        width = int(widths[place])
        symbol = payload >> used & (1 << width) - 1
        written[place] = (first[place] + symbol) * steps[place]
        used += width
    return written, used


def read(honest: Values, tolerance: float, release: Release, received: Values) -> tuple[int, int]:
    """The payload's low bits as the receiver reads them, and how many."""
    steps, widths = release.steps(honest), bits_of(honest, tolerance, release)
    first, _ = _ends(honest, tolerance, steps)
    payload = used = 0
    for place in np.flatnonzero(widths).tolist():
        payload |= int(round(received[place] / steps[place]) - first[place]) << used
        used += int(widths[place])
    return payload, used


def _ends(honest: Values, tolerance: float, steps: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the last step, counted from 0, that is within the tolerance."""
    slack = 1e-9  # of a step: a value on the edge is inside
    first = np.ceil((honest - tolerance) / steps - slack).astype(np.int64)
    last = np.floor((honest + tolerance) / steps + slack).astype(np.int64)
    return first, last
