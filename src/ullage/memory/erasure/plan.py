"""How an erasure is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ullage.errors import UsageError
from ullage.memory import bounds
from ullage.memory.calibration import Calibration
from ullage.memory.noise.butterfly import (
    DEPTH,
    MAX_LAYERS,
    cost_of_passes,
    cost_of_spots,
    layers_for_passes,
    layers_for_spots,
)
from ullage.memory.noise.noise import SPOT_BYTES, STRATUM_BYTES
from ullage.memory.protocol.chain import WIDTH
from ullage.memory.protocol.questions import MAX_CHAIN_STEPS

Mode = Literal["stream", "rate-gap"]
By = Literal["pass", "spots", "chain"]
"""How it is asked for: by a pass over everything, against the rate of other stores; by one small block of
every stratum, against the reads that they do in a second; or by chains of small blocks, against their
latency."""
MODES: tuple[Mode, ...] = ("stream", "rate-gap")
WAYS: tuple[By, ...] = ("pass", "spots", "chain")

_REBUILT_OF_A_PASS, _REBUILT_OF_SPOTS = 0.03, 0.016
"""Layers are chosen so that at most this share can be rebuilt in time."""


@dataclass(frozen=True)
class Plan:
    """How an erasure is asked for; `by` None takes what proves more."""

    mode: Mode
    size: int = 0
    """Bytes to erase of the space; 0 for all that the agent reaches."""
    space: int = 0
    """0 is main memory, 1 … are devices, `keeper.EVERYTHING` is all of them at once."""
    rounds: int = 20
    quorum: int = 1
    slack: float = 1.2
    """Of a pass: its deadline over the calibrated time."""
    advantage: float = 1.25
    """How much faster than the calibration the prover's best kernel may be."""
    layers: int | None = None
    """Of noise that a seed gives; None for as many as the calibrated machine needs."""
    error: float = 1e-6
    allowance: float = 0.002
    """Seconds for a round trip; part of the deadline, hence of what the prover may use."""
    by: By | None = None
    steps: int = 2048
    """Of a chain."""

    def __post_init__(self) -> None:
        if not 1 <= self.quorum <= self.rounds <= 1000 or self.slack < 1 or self.advantage < 1:
            raise UsageError("A plan has 1 to R rounds in its quorum, and slack and advantage of at least 1.")
        if not 0 < self.error < 1 or self.allowance < 0:
            raise UsageError("An error probability lies in (0, 1), and times are not negative.")
        if self.by == "chain" and self.mode != "stream":
            raise UsageError(
                "Chains are for mode 'stream': a block that a seed gives is rebuilt sooner than a disk "
                "delivers one."
            )
        if not 1 <= self.steps <= MAX_CHAIN_STEPS:
            raise UsageError(f"A chain has 1 to {MAX_CHAIN_STEPS} steps.")

    def asks_by(self, calibration: Calibration) -> By:
        """`by`, or what leaves least to other stores on such a machine."""
        if self.by or self.space:  # a device is reached over a slow bus
            return self.by or "pass"
        if self.mode == "rate-gap":  # a pass takes several times the layers, so the fill as much longer
            return "spots"
        left: dict[By, float] = {
            "pass": min(1.0, calibration.store_rate / calibration.read_rate),
            "spots": min(1.0, store_spot_rate(calibration) / calibration.spot_rate),
        }
        steps = bounds.missing_steps(calibration.step_seconds, 1, calibration.alternative_seconds)
        left["chain"] = bounds.missing_blocks(steps, WIDTH)
        return min(left, key=lambda by: left[by])

    def layers_of(self, by: By, calibration: Calibration) -> int:
        """Layers of noise that a seed gives; 0 of a stream. Raises UsageError for too few to say anything."""
        if self.mode == "stream":
            return 0
        if self.layers:
            if by == "spots" and self.layers <= DEPTH:
                raise UsageError(f"Spots want noise of more than {DEPTH} layers.")
            return self.layers
        rebuild = calibration.rebuild_rate * self.advantage
        if by == "spots":
            cost = bounds.iterations_for(rebuild, calibration.spot_rate, 1.0, _REBUILT_OF_SPOTS)
            return min(MAX_LAYERS, layers_for_spots(cost))
        cost = bounds.iterations_for(rebuild, calibration.read_rate, 1.0, _REBUILT_OF_A_PASS)
        return min(MAX_LAYERS, layers_for_passes(cost))

    def rebuild_rate(self, by: By, layers: int, calibration: Calibration) -> float:
        """Bytes asked for that the whole machine makes of noise of so many layers in a second; 0 of a
        stream."""
        if not layers:
            return 0.0
        cost = cost_of_spots(layers) if by == "spots" else cost_of_passes(layers)
        return calibration.rebuild_rate * self.advantage / cost


def store_spot_rate(calibration: Calibration) -> float:
    """Bytes of spots a second that the fastest other store delivers: three for each of its reads, and one for
    each stratum that it reads in a row.

    Three, since what lies side by side there is the prover's choice: in a table of small blocks of three
    strata, written for all combinations of places, one read serves three spots. A table for four takes
    thousands of times the room of what is missing.
    """
    return (3 * calibration.store_reads + calibration.store_rate / STRATUM_BYTES) * SPOT_BYTES
