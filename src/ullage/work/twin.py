"""An honest account of this machine, which is the verifier's twin: what the alarm takes for honest."""

from __future__ import annotations

import contextlib
from functools import partial
from itertools import islice

from ullage.errors import FaultError, UndecidedError
from ullage.work.agent import listen, slot_workers
from ullage.work.alarm import LARGEST_LIMIT, alarm_from
from ullage.work.calibration import LARGEST_FRACTION, Calibration, HonestWindows
from ullage.work.prover import Prover
from ullage.work.run import Accounting, Plan
from ullage.work.verifier import Terms
from ullage.work.window import Window

_OPENINGS = 20
"""A few rows a window: the twin is the verifier's own, they only keep the protocol as it is."""


def measure_honest(
    calibration: Calibration,
    windows: int,
    seconds: float,
    device: str = "cpu",
    companion: Terms | None = None,
) -> HonestWindows:
    """Account for this machine as for any other, with its own honest agent, beside a companion if given.

    Without one, windows that the hypervisor took time from say nothing, here as in any account, and are left
    out: this takes `windows` x `seconds`, and up to twice that if there are such.

    Raises FaultError if a window fails: then the calibration does not hold here. Raises UndecidedError if too
    few windows say something.
    """
    listener = listen("127.0.0.1", 0)
    host, port = listener.getsockname()[:2]
    with slot_workers(listener, calibration.slots, partial(Prover, device), idle_class=False):
        terms = Terms(host, port, calibration.slots, calibration.unit_shape, connect_seconds=120.0)
        plan = Plan(terms, calibration.worth, seconds, 2 * windows, _OPENINGS, companion=companion)
        with contextlib.closing(Accounting(plan).windows()) as account:
            found = list(islice((f for f in map(_fraction, account) if f is not None), windows))
    if len(found) < windows:
        lost = 2 * windows - len(found)
        if companion:
            raise UndecidedError(
                f"The companion did too little in {lost} of {2 * windows} windows of the honest account to "
                "show what could be done. See that its agent runs, with the right number of slots."
            )
        raise UndecidedError(
            f"The hypervisor took time from {lost} of {2 * windows} windows of the honest account: nothing "
            "can be measured here now. Run on a machine that nobody shares."
        )
    return HonestWindows(
        seconds=seconds, fractions=tuple(found), companion_slots=companion.slots if companion else None
    )


def _fraction(window: Window) -> float | None:
    """What the alarm would take of an honest window, if anything. Raises FaultError for one that failed."""
    fraction = window.judged
    if window.bad or window.missing or fraction == 0.0:
        raise FaultError("The twin's own honest account failed: " + "; ".join(window.findings[:4]))
    if window.is_impossible or (fraction is not None and fraction >= LARGEST_FRACTION):
        raise FaultError(
            f"The twin did {window.accounted():.2f} of what its units, just timed, have for possible: it was "
            "slower then. Calibrate again on a quiet machine, or longer (--seconds)."
        )
    return fraction


def check_quiet(honest: HonestWindows) -> HonestWindows:
    """The same windows. Raises UndecidedError if they scatter so much that their alarm would find nobody."""
    limit = alarm_from(honest.fractions, 0.0, 0.0).limit
    if limit > LARGEST_LIMIT:
        least, most = min(honest.fractions), max(honest.fractions)
        raise UndecidedError(
            f"{len(honest.fractions)} honest windows, which account for {least:.3f} to {most:.3f}, scatter "
            f"so much that the alarm would sound above {limit:.2f} only, and {LARGEST_LIMIT:g} is the most. "
            "Something else uses this machine, or the windows are too few or too short: run on a quiet twin, "
            "with 20 windows of 60 s."
        )
    return honest
