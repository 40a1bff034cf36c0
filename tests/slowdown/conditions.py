"""Hypothesis strategies for constraints and parameters."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from ullage.slowdown.constraints import Constraints
from ullage.slowdown.parameters import RANGES, Parameters, names

shares = st.floats(0, 1)
log_shares = st.floats(-8, 0).map(lambda exponent: 10.0**exponent)


@st.composite
def constraints(draw: st.DrawFn) -> Constraints:
    period = draw(st.one_of(st.just(math.inf), st.floats(30, 1e6)))
    rate = draw(st.floats(0, 11.6).map(lambda exponent: 10.0**exponent))
    return Constraints(
        dark_share=draw(st.one_of(st.just(0.0), st.floats(1e-3, 0.5))),
        egress=rate,
        ingress=rate,
        covert_fraction=draw(st.one_of(st.just(0.0), log_shares)),
        residual=draw(st.floats(0, 100)),
        enforced=draw(st.booleans()),
        accounted_time=draw(shares),
        accounted_operations=draw(shares),
        resident_memory=draw(shares),
        wipe_period=period,
        wipe_cycle=draw(st.floats(0, 25)) if math.isfinite(period) else 0.0,
        erased=draw(st.one_of(st.just(1.0), st.floats(0.99, 1), shares)),
        update_interval=draw(st.one_of(st.just(0.0), st.floats(60, 1e8))),
        accomplice_share=draw(shares),
        response_days=draw(st.one_of(st.just(math.inf), st.floats(0, 1000))),
        diversion=draw(st.floats(0, 0.2)),
    )


@st.composite
def parameters(draw: st.DrawFn) -> Parameters:
    """One draw, each range at a probability of its own."""
    values = {}
    for name in names():
        probability = np.array([draw(shares)])
        values[name] = RANGES[name].quantile(probability)
    return Parameters(**values)


@st.composite
def many_parameters(draw: st.DrawFn, count: int = 24) -> Parameters:
    """`count` draws at once, each range at probabilities of its own; a tenth lie at either end."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return Parameters(
        **{
            name: RANGES[name].quantile(np.clip(generator.uniform(-0.125, 1.125, count), 0.0, 1.0))
            for name in names()
        }
    )


TIGHTER_WHEN_HIGHER = {
    "dark_share": False, "egress": False, "ingress": False, "covert_fraction": False, "residual": False,
    "enforced": True, "accounted_time": True, "accounted_operations": True, "resident_memory": True,
    "wipe_period": False, "wipe_cycle": True, "erased": True, "update_interval": True,
    "accomplice_share": False, "response_days": False, "diversion": False,
}  # fmt: skip
"""Every constraint that verification sets, and which way it tightens."""
