"""What a cheater against the accounting of work is: a prover of its own, and the share it means to hide."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ullage.work.calibration import Calibration
from ullage.work.protocol import Mode
from ullage.work.prover import Prover


class Catch(StrEnum):
    """What is meant to catch it."""

    OPENINGS = "openings"
    FULL_CHECK = "full check"
    ACCOUNT = "account"  # the fraction falls, and the alarm sounds
    IMPOSSIBLE = "impossible"  # more than the machine can do
    DATA_SHEET = "data sheet"
    AUDIT = "audit"
    WIRE = "wire"  # not by the accounting: an assumption that the network meter has to bear


@dataclass(frozen=True)
class WorkAdversary:
    """One cheater. `prover` is the class that each slot runs."""

    name: str
    summary: str
    prover: type[Prover]
    catch: Catch
    hides: float
    """Share of the machine that it is free to use for something else, as it hopes."""
    mode: Mode = Mode.OPENINGS
    slow: bool = False
    """Left out by --quick."""
    companion: str = "honest"
    """The agent that is the verifier's companion: it runs the fastest kernel that the verifier knows."""

    def calibration(self, honest: Calibration) -> Calibration:
        """The calibration that the verifier is led to use: the twin's own, unless the cheat is in it."""
        return honest
