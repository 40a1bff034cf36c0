"""A kernel faster than the one calibrated: units were priced at float32, and are made in int8.

If the prover answers as fast as it can, the account exceeds what the machine could do. If it idles in
between to hide that, the account is full and the rest of the machine is free: only a calibration with the
fastest kernel, or the data sheet, prevents it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ullage.redteam.work.adversary import Catch, WorkAdversary
from ullage.work.calibration import Calibration
from ullage.work.prover import Prover


@dataclass(frozen=True)
class FasterKernel(WorkAdversary):
    """The verifier's calibration knows float32 only."""

    def calibration(self, honest: Calibration) -> Calibration:
        slow = next(kernel for kernel in honest.kernels if kernel.name == "float32")
        kernel = slow.model_copy(update={"smallest": slow.alone, "median": slow.alone})
        seconds = slow.alone + honest.generate + honest.commit
        together = honest.together.model_copy(update={"smallest": seconds, "median": seconds})
        return honest.model_copy(update={"kernels": (kernel,), "together": together, "sheet": None})


FASTER_KERNEL = FasterKernel(
    "faster-kernel",
    "priced at float32, runs int8",
    Prover,
    Catch.IMPOSSIBLE,
    0.5,
    companion="float32-as-int8",
)
