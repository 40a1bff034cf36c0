"""What so many machines verify in a day, from a rate that was measured on one of them: arithmetic, no I/O.

    verified tokens a day = machines · rate · 86,400 s · efficiency

`rate` is of output tokens audited a second on one machine (prompts included in its time), `efficiency` the
share of it that is left when many work on one log. Both are measured (`docs/scale-out.md`); neither is known
here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ullage.errors import UsageError

DAY_SECONDS: Final = 86_400
MAX_MACHINES: Final = 10_000_000


@dataclass(frozen=True)
class Pace:
    """What one machine does: tokens a second, and the share of it that remains among many, in (0, 1]."""

    rate: float
    efficiency: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise UsageError(f"A rate is a positive number of tokens a second, not {self.rate}.")
        if not 0 < self.efficiency <= 1:
            raise UsageError(f"An efficiency is in (0, 1], not {self.efficiency}.")


@dataclass(frozen=True)
class ScaleRow:
    """What `machines` verify: tokens a day, and the share of what is served (None if that is not known)."""

    machines: int
    tokens_a_day: float
    share: float | None


def scale(pace: Pace, machines: Sequence[int], served_a_day: float | None = None) -> list[ScaleRow]:
    """A row for each number of machines. `served_a_day`: output tokens that the servers deliver in a day.

    Raises UsageError for numbers of machines or tokens that are not positive.
    """
    if served_a_day is not None and not (math.isfinite(served_a_day) and served_a_day > 0):
        raise UsageError(f"Served tokens are a positive number, not {served_a_day}.")
    rows = []
    for count in machines:
        if not 1 <= count <= MAX_MACHINES:
            raise UsageError(f"Machines are counted from 1 to {MAX_MACHINES}, not {count}.")
        tokens = count * pace.rate * DAY_SECONDS * (pace.efficiency if count > 1 else 1.0)
        share = None if served_a_day is None else min(1.0, tokens / served_a_day)
        rows.append(ScaleRow(count, tokens, share))
    return rows


def machines_needed(pace: Pace, served_a_day: float, share: float) -> int:
    """How many machines audit this share, in (0, 1], of what is served in a day. Raises UsageError."""
    if not 0 < share <= 1:
        raise UsageError(f"A share is in (0, 1], not {share}.")
    (one,) = scale(pace, [1], served_a_day)
    wanted = served_a_day * share
    if one.tokens_a_day >= wanted:
        return 1
    return max(2, math.ceil(wanted / (one.tokens_a_day * pace.efficiency)))
