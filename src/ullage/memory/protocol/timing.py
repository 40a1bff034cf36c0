"""Rounds of questions as the verifier's clock saw them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

Verdict = Literal["pass", "fail", "cannot-tell"]
Progress = Callable[[str, int, int], None]
"""Called with a stage, what is done of it, and how much there is; 0: not known."""

PATIENCE: Final = 50
"""A late answer is waited for this many deadlines, so that the next round starts in order."""


@dataclass(frozen=True)
class Timing:
    """One round; `late` also stands for no answer at all."""

    seconds: float
    late: bool
    correct: bool | None


def verdict_of(timings: tuple[Timing, ...], quorum: int) -> tuple[Verdict, str]:
    """The verdict and the reason. A late right answer is no accusation, a wrong one is."""
    if any(timing.correct is False for timing in timings):
        return "fail", "an answer was wrong: the region did not hold the noise"
    in_time = sum(not timing.late for timing in timings if timing.correct)
    reason = f"{in_time} of {len(timings)} answers were right and in time, {quorum} needed"
    return ("pass" if in_time >= quorum else "cannot-tell"), reason
