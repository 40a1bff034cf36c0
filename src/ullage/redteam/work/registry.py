"""The cheaters against the accounting of work, in the order of the suite."""

from __future__ import annotations

from ullage.errors import UsageError
from ullage.redteam.work.adversary import WorkAdversary
from ullage.redteam.work.banked import BANKED
from ullage.redteam.work.faster_kernel import FASTER_KERNEL
from ullage.redteam.work.float32 import FLOAT32
from ullage.redteam.work.inflated_calibration import INFLATED_CALIBRATION
from ullage.redteam.work.leaked_vector import LEAKED_VECTOR
from ullage.redteam.work.not_run import INVENTED, REPEATED
from ullage.redteam.work.outsourced import OUTSOURCED
from ullage.redteam.work.precomputed import PRECOMPUTED
from ullage.redteam.work.reused import REUSED
from ullage.redteam.work.shifted import SHIFTED
from ullage.redteam.work.skipped import SKIPPED, SKIPPED_ALL, WITHHELD
from ullage.redteam.work.smaller_inner import SMALLER_INNER
from ullage.redteam.work.tenant import TENANTS
from ullage.work.prover import Prover

WORK_ADVERSARIES: tuple[WorkAdversary, ...] = (
    SKIPPED,
    SKIPPED_ALL,
    WITHHELD,
    REUSED,
    SMALLER_INNER,
    PRECOMPUTED,
    LEAKED_VECTOR,
    SHIFTED,
    FLOAT32,
    FASTER_KERNEL,
    INFLATED_CALIBRATION,
    BANKED,
    *TENANTS,
    INVENTED,
    REPEATED,
    OUTSOURCED,
)
HONEST = "honest"


def find(names: list[str]) -> list[WorkAdversary]:
    """Those named, or all. Raises UsageError for an unknown name."""
    known = {adversary.name: adversary for adversary in WORK_ADVERSARIES}
    unknown = sorted(set(names) - known.keys())
    if unknown:
        raise UsageError(f"There is no work adversary '{unknown[0]}'; known are {', '.join(known)}.")
    return [adversary for adversary in WORK_ADVERSARIES if not names or adversary.name in names]


def prover_class(name: str) -> type[Prover]:
    """The class that each slot of this agent runs. Raises UsageError."""
    return Prover if name == HONEST else find([name])[0].prover
