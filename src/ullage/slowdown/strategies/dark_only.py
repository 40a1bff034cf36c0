"""Strategy 1, dark only: leave the declared machines alone and train on what nobody knows of.

u = 0, so the throughput slowdown is 1/d. The floor under every other strategy.
"""

from __future__ import annotations

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    return Outcome.of(0.0, parameters.size)
