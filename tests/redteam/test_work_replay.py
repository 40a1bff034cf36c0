"""Replayed tenants: the arithmetic of windows, and an alarm that hears them over units that scatter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.redteam.work.replay import (
    Floats,
    Pattern,
    Setting,
    alarm_after,
    credited,
    delayed,
    drawn,
    fractions,
    some_bursts,
)

SETTING = Setting(slots=4, median=0.2)


def trace(scatter: float = 0.03) -> Floats:
    return np.random.default_rng(1).normal(0.2, 0.2 * scatter, 1000).clip(0.1, None)


def test_units_count_where_they_were_issued_and_answered() -> None:
    ends: Floats = np.arange(1, 101, dtype=np.float64)  # a unit a second
    setting = Setting(slots=1, median=1.0, window_seconds=10.0)
    # At the start nothing is outstanding; later the first answers of a window were issued before it.
    assert credited(ends, setting, 3).tolist() == [10, 9, 9]


@settings(max_examples=30)
@given(st.floats(0.05, 0.6), st.floats(0, 50))
def test_a_spread_tenant_takes_its_share(share: float, begin: float) -> None:
    ends = np.linspace(0.1, 100, 1000)
    late = delayed(ends, share, Pattern.SPREAD, begin, None)
    assert np.all(np.diff(late) > 0)
    assert np.allclose(late[ends <= begin], ends[ends <= begin])
    assert late[-1] - begin == pytest.approx((100 - begin) / (1 - share))


@settings(max_examples=30)
@given(st.floats(0.05, 0.6), st.integers(0, 1000))
def test_bursts_take_their_share_of_every_stretch(share: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    bursts = some_bursts(share, 4_000.0, generator)
    ends: Floats = np.arange(1, 5_000, dtype=np.float64) / 5
    late = delayed(ends, share, Pattern.BURSTS, 0.0, bursts)
    assert np.all(np.diff(late) > 0)
    assert 1 - ends[-1] / late[-1] == pytest.approx(share, abs=0.01)


def test_drawn_units_fill_the_time_and_come_from_the_trace() -> None:
    ends = drawn(trace(), 600.0, np.random.default_rng(0))
    assert ends[-1] > 600
    assert set(np.round(np.diff(ends), 9)) <= set(np.round(trace(), 9))


@pytest.mark.parametrize("pattern", list(Pattern))
@pytest.mark.parametrize(("share", "limit"), [(0.2, 120.0), (0.1, 600.0)])
def test_tenants_are_flagged_in_time(share: float, limit: float, pattern: Pattern) -> None:
    generator = np.random.default_rng(0)
    late = 0
    for _ in range(200):
        begin = (2 + generator.random()) * SETTING.window_seconds
        windows = 4 + int(limit / SETTING.window_seconds)
        found = fractions(trace(), SETTING, windows, generator, share=share, pattern=pattern, begin=begin)
        seconds = alarm_after(found, SETTING, begin)
        assert seconds is None or seconds > 0
        late += seconds is None or seconds > limit
    # A burst that ends at a window's edge may leave it 5 % short, and the alarm one window late.
    assert late <= (0 if pattern is Pattern.SPREAD else 4)


def test_honest_machines_are_not_accused() -> None:
    generator = np.random.default_rng(0)
    for _ in range(100):
        assert alarm_after(fractions(trace(), SETTING, 30, generator), SETTING, 0.0) is None
