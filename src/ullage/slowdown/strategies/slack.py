"""Strategy 11, slack on every machine: train on the units that a busy serving rack leaves idle.

Decoding is bound by memory bandwidth, so a rack proven busy 95 % of the time may do a third of its peak
operations. What is bounded by proof of *operations* is

    u = (1-d) * what strategy 4 makes of (1 - accounted operations) * use of idle units of a rack

Without a claim on operations, accounted time bounds nothing here.
"""

from __future__ import annotations

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.outcome import Outcome
from ullage.slowdown.parameters import Parameters
from ullage.slowdown.strategies.diloco import rack_share


def outcome(constraints: Constraints, parameters: Parameters) -> Outcome:
    """u of this strategy by the formula above, one value a draw."""
    idle = (1.0 - constraints.accounted_operations) * parameters.corun_efficiency
    share = constraints.declared * rack_share(constraints, parameters, idle)
    return Outcome.of(share, parameters.size)
