"""What pays best: the interval between exchanges, and the block between two wipes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.slowdown.ranges import Array
from ullage.slowdown.transfers import (
    LONGEST_INTERVAL,
    _one_block,
    best_interval,
    diloco_efficiency,
    worth_of_steps,
)

rates = st.one_of(st.just(1.0), st.floats(0.3, 0.999))


@given(st.floats(1, 1e7), st.one_of(st.just(0.0), st.floats(0.1, 1e6)), st.floats(0.5, 60), rates)
def test_it_is_the_best_of_all_blocks_that_fit(room: float, lost: float, step: float, at_1000: float) -> None:
    given_values = [np.array([value]) for value in (room, lost, step, at_1000)]
    found = float(_one_block(*given_values)[0])
    blocks = np.geomspace(room * 1e-6, room, 4_000)
    shares = blocks / (blocks + lost) * diloco_efficiency(blocks / step, np.array([at_1000]))
    assert found == pytest.approx(float(shares.max()), rel=1e-3)
    assert found >= float(shares.max()) * (1 - 1e-9)


@given(st.floats(0, 1e9), rates)
def test_it_is_the_best_of_all_intervals(exchange_steps: float, at_1000: float) -> None:
    def worth(interval: Array) -> Array:
        with np.errstate(divide="ignore", over="ignore"):
            busy = np.minimum(1.0, interval / np.array([exchange_steps]))
        return np.asarray(diloco_efficiency(interval, np.array([at_1000])) * busy)

    found = best_interval(np.array([exchange_steps]), np.array([at_1000]))
    assert 1 <= found[0] <= LONGEST_INTERVAL
    every = worth(np.geomspace(1, LONGEST_INTERVAL, 4_000))
    assert worth(found)[0] >= every.max() * (1 - 1e-9)
    assert worth(found)[0] == pytest.approx(every.max(), rel=1e-2)


@given(st.floats(0.01, 1e6), rates)
def test_nobody_does_more_steps_than_pay(steps: float, at_1000: float) -> None:
    found = float(worth_of_steps(np.array([steps]), np.array([at_1000]))[0])
    some = np.geomspace(steps * 1e-6, steps, 4_000)
    worth = some / steps * diloco_efficiency(some, np.array([at_1000]))
    assert found >= worth.max() * (1 - 1e-9)
    assert found == pytest.approx(float(worth.max()), rel=1e-3)


def test_a_closed_link_leaves_nothing() -> None:
    values = [np.array([value]) for value in (1e6, np.inf, 10.0, 0.8)]
    assert _one_block(*values)[0] == 0
