"""What inference usually takes, over what the log shows at the smallest times. Pure arithmetic.

A unit is worth its median time to the alarm, and inference what the log shows of it at the *smallest* times
that the twin had. An honest machine that serves all day would therefore seem to lack what its tokens usually
take beyond the smallest: caches that serving and filler share, steps that wait for a request, an answer
written out. On the twin, where nobody else is, that can be had from an account under load: what honest
windows without inference would have shown, less the units, is what inference took.

One factor does not fit all loads. A server of few requests changes places with the filler at every turn; one
whose steps are full has the processor for itself. So there are two, for steps of one row and for full ones,
and a step between them is priced in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ullage.errors import UndecidedError
from ullage.work.inference import Credit, steps_within
from ullage.work.window import Window

LARGEST_USUAL = 3.0
"""A factor beyond it says that the times of inference are not those of this server."""
LEAST_SHARE = 0.05
"""Of the machine's time, that inference has to have had for its factors to say anything."""
_SCATTER, _APART = 0.02, 1.0
"""Of honest windows, and of the two factors: where windows cannot tell them apart they are taken as equal."""


@dataclass(frozen=True)
class Usual:
    """Two factors, and what they rest on."""

    alone: float
    full: float
    windows: int
    share: float
    """Of the machine's time in these windows that the log shows, at the smallest times."""

    @property
    def factors(self) -> tuple[float, float]:
        """As a calibration has them."""
        return self.alone, self.full


def usual_factors(windows: Sequence[Window], earned: Sequence[Credit], expected: float) -> Usual:
    """How many times what the log shows inference took in these windows of an honest twin under load.

    `windows` hold what `earned` is in them. `expected` is what honest windows without inference show: of the
    machine's time, or over the companion's where there is one. Windows without inference, and those of which
    neither says what could be done, are left out. With units U_w at median times, inference shown at the
    smallest times a_w in steps of one row and b_w in full ones, and capacity C_w, the factors f, g minimise

        sum (expected x companion_w x C_w - U_w - f a_w - g b_w)^2 + (0.02 C)^2 (f - g)^2,

    C the mean of C_w: least squares, and where the windows cannot tell the two apart, equal factors. Neither
    is below 1, since no step takes less than its smallest time. Raises UndecidedError if inference had less
    than `LEAST_SHARE` of the time, or if a factor is above `LARGEST_USUAL`.
    """
    used = [window for window in windows if window.inference.shown > 0 and window.judged is not None]
    capacity = sum(window.capacity for window in used)
    steps = np.array([steps_within(earned, one.start_unix, one.end_unix) for one in used]).reshape(-1, 2)
    if not used or steps.sum() < LEAST_SHARE * capacity:
        raise UndecidedError(
            f"Inference had less than {LEAST_SHARE:.0%} of the time of this account: nothing can be said of "
            "what it usually takes. Serve more while the twin is accounted for."
        )
    taken = np.array([_possible(window, expected) - _units(window) for window in used])
    alone, full = _fitted(steps, taken, _SCATTER * capacity / len(used) / _APART)
    if max(alone, full) > LARGEST_USUAL:
        raise UndecidedError(
            f"Inference seems to take {max(alone, full):.1f} times what its calibrated times say, and "
            f"{LARGEST_USUAL:g} is the most: something else ran on the twin, or the times are another "
            "server's. Time inference again on a quiet twin."
        )
    return Usual(alone, full, len(used), float(steps.sum() / capacity))


def _fitted(steps: NDArray[np.float64], taken: NDArray[np.float64], tie: float) -> tuple[float, float]:
    """Factors of `steps` (W, 2), at least 1, whose squared distance from `taken` (W,) and, times `tie`, from
    each other is least."""
    from scipy.optimize import lsq_linear

    rows, wanted = np.vstack([steps, [tie, -tie]]), np.append(taken, 0.0)
    alone, full = lsq_linear(rows, wanted, bounds=(1.0, np.inf), method="bvls").x
    return float(alone), float(full)


def _possible(window: Window, expected: float) -> float:
    """Slot-seconds that an honest machine would have shown, less those that the verifier's checks took."""
    beside = 1.0 if window.companion is None else window.companion
    return (expected * beside - window.held_up) * window.capacity


def _units(window: Window) -> float:
    """Slot-seconds of units, at median times."""
    return window.accounted(median=True) * window.capacity - window.inference.shown
