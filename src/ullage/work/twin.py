"""An honest account of this machine, which is the verifier's twin: what the alarm takes for honest."""

from __future__ import annotations

from functools import partial
from multiprocessing import get_context

from ullage.errors import FaultError, UndecidedError
from ullage.work.agent import listen, serve_slot
from ullage.work.alarm import LARGEST_LIMIT, alarm_from
from ullage.work.calibration import Calibration, HonestWindows
from ullage.work.prover import Prover
from ullage.work.run import Accounting, Plan
from ullage.work.verifier import Terms

_OPENINGS = 20
"""A few rows a window: the twin is the verifier's own, they only keep the protocol as it is."""


def measure_honest(
    calibration: Calibration, windows: int, seconds: float, device: str = "cpu"
) -> HonestWindows:
    """Account for this machine as for any other, with its own honest agent.

    Takes `windows` x `seconds`. Raises FaultError if a window fails: then the calibration does not hold here.
    """
    listener = listen("127.0.0.1", 0)
    context = get_context("spawn")
    workers = [
        context.Process(
            target=serve_slot,
            args=(listener, partial(Prover, device)),
            kwargs={"idle_class": False},
            daemon=True,
        )
        for _ in range(calibration.slots)
    ]
    try:
        for worker in workers:
            worker.start()
        host, port = listener.getsockname()[:2]
        terms = Terms(host, port, calibration.slots, calibration.unit_shape, connect_seconds=120.0)
        plan = Plan(terms, calibration.worth, seconds, windows, _OPENINGS)
        found = list(Accounting(plan).windows())
    finally:
        for worker in workers:
            worker.terminate()
        listener.close()
    if any(window.bad or window.missing or not window.credited for window in found):
        raise FaultError(
            "The twin's own honest account failed: " + "; ".join(f for w in found for f in w.findings[:2])
        )
    return HonestWindows(seconds=seconds, fractions=tuple(window.accounted(median=True) for window in found))


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
