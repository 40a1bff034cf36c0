"""What the times of latency-bound chains prove. Pure: no I/O and no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ullage.memory import bounds
from ullage.memory.calibration import Calibration
from ullage.memory.machine.gather import CHAIN_BLOCK_BYTES
from ullage.memory.protocol.chain import WIDTH

SLACK = 8.0
"""The deadline over the calibrated time: what limits patience, and not the claim."""
CALM = 1.25
"""A quorum within so many times the calibrated time ends a session: more could hardly show more."""
TIMES = 64
"""Times that a bound may be at: the deadline, and so many shorter ones, each 1/16 of an octave below."""


@dataclass(frozen=True)
class ChainRule:
    """`steps` a chain; `rounds` chains at most, `quorum` of them in time; `error` of the bound."""

    steps: int
    rounds: int
    quorum: int
    error: float


@dataclass(frozen=True)
class ChainBound:
    """`within`: seconds that a quorum kept to. In one of the chains that did, at most a share `gone` of the
    steps took a block from elsewhere, and so at some step at most a share `missing` of the blocks was not in
    memory."""

    rule: ChainRule
    within: float
    gone: float
    missing: float

    def missing_bytes(self, calibration: Calibration, size: int, seconds: float) -> float:
        """What of `size` bytes can have been missing `seconds` before the end of such a chain.

        In that time a prover may have read ahead, in bulk from the fastest other store, and it has what the
        steps asked for and got.
        """
        blocks = bounds.missing_at_first(
            self.missing,
            size // CHAIN_BLOCK_BYTES,
            self.gone * self.rule.steps,
            steps=self.rule.steps,
            width=WIDTH,
            error=self.rule.error / 2 / self.rule.rounds,
        )
        return min(size, blocks * CHAIN_BLOCK_BYTES + seconds * calibration.store_rate)


def chain_seconds(steps: int, calibration: Calibration) -> float:
    """What a chain takes on the verifier's twin."""
    return steps * calibration.step_seconds


def fixed_times(deadline: float) -> list[float]:
    """The times that the bound may be at, in seconds, shortest first."""
    return [deadline * 2 ** (-step / 16) for step in reversed(range(TIMES))]


def chain_bound(
    rule: ChainRule, calibration: Calibration, seconds: Sequence[float], deadline: float
) -> ChainBound | None:
    """The bound from chains that were answered right, in so many seconds each; None without a quorum.

    It is at a time that was fixed before the blocks were drawn: the shortest of `fixed_times` within which a
    quorum came, each at its part of the error (docs/memory.md, "What a chain proves"). One half of the error
    is for what the draws of blocks meet, one for what a prover learns when they ask for it.
    """
    in_time = sorted(one for one in seconds if one <= deadline)
    if len(in_time) < rule.quorum:
        return None
    within = next(time for time in fixed_times(deadline) if in_time[rule.quorum - 1] <= time)
    gone = bounds.missing_steps(within, rule.steps, calibration.alternative_seconds)
    # Blocks are drawn with replacement: a sample that is never the whole.
    met = bounds.missing_share(
        gone, rule.steps, rule.steps + 1, rule.rounds, rule.quorum, error=rule.error / 2 / TIMES
    )
    return ChainBound(rule, within, gone, bounds.missing_blocks(met, WIDTH))
