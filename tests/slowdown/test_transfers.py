"""One block between two wipes: as long as pays best, and never longer than fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.slowdown.transfers import _one_block, diloco_efficiency


@given(st.floats(1, 1e7), st.floats(0.1, 1e6), st.floats(0.5, 60), st.floats(0.3, 0.99))
def test_it_is_the_best_of_all_blocks_that_fit(room: float, lost: float, step: float, at_1000: float) -> None:
    given_values = [np.array([value]) for value in (room, lost, step, at_1000)]
    found = float(_one_block(*given_values)[0])
    blocks = np.geomspace(room * 1e-6, room, 4_000)
    shares = blocks / (blocks + lost) * diloco_efficiency(blocks / step, np.array([at_1000]))
    assert found == pytest.approx(float(shares.max()), rel=1e-3)
    assert found >= float(shares.max()) * (1 - 1e-9)


def test_a_closed_link_leaves_nothing() -> None:
    values = [np.array([value]) for value in (1e6, np.inf, 10.0, 0.8)]
    assert _one_block(*values)[0] == 0
