"""Strategy 11, slack on every machine: train on the units that a busy serving rack leaves idle.

Decoding is bound by memory bandwidth, so a rack proven busy 95 % of the time may do a third of its peak
operations. What is bounded by proof of *operations* is

    u = (1-d) * (1 - accounted operations) * use of idle units * strategy 4's share of time

Without a claim on operations, accounted time bounds nothing here.
"""

from __future__ import annotations

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.strategies.diloco import time_share


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    idle = 1.0 - constraints.accounted_operations
    share = constraints.declared * idle * parameters.corun_efficiency * time_share(constraints, parameters)
    return Outcome.of(share, parameters.size)
