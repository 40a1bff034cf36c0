"""What inference usually takes, over what the log shows at the smallest times. Pure arithmetic.

A unit is worth its median time to the alarm, and inference what the log shows of it at the *smallest* times
that the twin had. An honest machine that serves all day would therefore seem to lack what its tokens usually
take beyond the smallest: caches that serving and filler share, steps that wait for a request, an answer
written out. On the twin, where nobody else is, that can be had from an account under load: what honest
windows without inference would have shown, less the units, is what inference took.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ullage.errors import UndecidedError
from ullage.work.window import Window

LARGEST_USUAL = 3.0
"""A factor beyond it says that the times of inference are not those of this server."""
LEAST_SHARE = 0.05
"""Of the machine's time, that inference has to have had for its factor to say anything."""


@dataclass(frozen=True)
class Usual:
    """A factor, and what it rests on."""

    factor: float
    windows: int
    share: float
    """Of the machine's time in these windows that the log shows, at the smallest times."""


def usual_factor(windows: Sequence[Window], expected: float, priced: float = 1.0) -> Usual:
    """How many times what the log shows inference took in these windows of an honest twin under load.

    `expected` is what honest windows without inference show: of the machine's time, or over the companion's
    where there is one; `priced` the factor that these windows' inference has been shown with already. Windows
    without inference, and those of which neither says what could be done, are left out. With units
    U_w at median times and inference I_w shown at the smallest, over all of them,

        factor = sum(expected x companion_w x capacity_w - U_w) / sum(I_w),

    so that the windows show `expected` on average; never less than 1, since no step takes less than its
    smallest time. Raises UndecidedError if inference had less than `LEAST_SHARE` of the time, or if the
    factor is above `LARGEST_USUAL`.
    """
    used = [window for window in windows if window.inference.shown > 0 and window.judged is not None]
    capacity = sum(window.capacity for window in used)
    shown = sum(window.inference.shown for window in used) / priced
    if not used or shown < LEAST_SHARE * capacity:
        raise UndecidedError(
            f"Inference had less than {LEAST_SHARE:.0%} of the time of this account: nothing can be said of "
            "what it usually takes. Serve more while the twin is accounted for."
        )
    there = sum(_possible(window, expected) for window in used)
    factor = max(1.0, (there - sum(_units(window) for window in used)) / shown)
    if factor > LARGEST_USUAL:
        raise UndecidedError(
            f"Inference seems to take {factor:.1f} times what its calibrated times say, and "
            f"{LARGEST_USUAL:g} is the most: something else ran on the twin, or the times are another "
            "server's. Time inference again on a quiet twin."
        )
    return Usual(factor, len(used), shown / capacity)


def _possible(window: Window, expected: float) -> float:
    """Slot-seconds that an honest machine would have shown, less those that the verifier's checks took."""
    beside = 1.0 if window.companion is None else window.companion
    return (expected * beside - window.held_up) * window.capacity


def _units(window: Window) -> float:
    """Slot-seconds of units, at median times."""
    return window.accounted(median=True) * window.capacity - window.inference.shown
