"""What inference usually takes, learnt from an honest twin under load, and what the alarm then shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.work.test_account import FULL
from tests.work.test_calibration import MADE
from ullage.errors import MalformedError, UndecidedError
from ullage.work.alarm import Alarm
from ullage.work.calibration import HonestWindows, InferenceTime, read_inference
from ullage.work.inference import Costs, Served, credit
from ullage.work.usual import LARGEST_USUAL, usual_factor
from ullage.work.window import Inference, Window

UNIT = MADE.worth.median
TIMES = InferenceTime(prefill=0.01, decode=((1, 0.2), (16, 0.1)), operations=1e6)


def loaded(
    share: float, factor: float, *, speed: float = 1.0, beside: bool = True, tenant: float = 0.0
) -> Window:
    """A window of which inference truly had `share`; at the smallest times the log shows 1/factor of that.

    `speed`: of the machine and of its companion, over the calibrated one.
    """
    capacity = FULL.capacity
    units = round(max(0.0, 1 - share - tenant) * speed * capacity / UNIT)
    shown = share * speed * capacity / factor
    return replace(
        FULL, credited=units, inference=Inference(0.0, shown, 0.0, 0.0), companion=speed if beside else None
    )


@given(
    st.lists(st.floats(0.2, 0.9), min_size=2, max_size=12),
    st.floats(1, 2.5),
    st.floats(0.5, 1.2),
    st.booleans(),
)
def test_the_factor_is_what_inference_took_over_what_is_shown(
    shares: list[float], factor: float, speed: float, beside: bool
) -> None:
    speed = speed if beside else 1.0
    windows = [loaded(share, factor, speed=speed, beside=beside) for share in shares]
    found = usual_factor(windows, 1.0)
    assert found.factor == pytest.approx(factor, rel=0.02)
    assert found.windows == len(shares)
    again = priced(windows, found.factor)
    for window in again:
        assert window.judged == pytest.approx(1.0, abs=0.02)
    # Shown with the factor already: the same is found, not its square.
    assert usual_factor(again, 1.0, found.factor).factor == pytest.approx(found.factor, rel=0.01)


def priced(windows: list[Window], factor: float) -> list[Window]:
    """The same windows, their inference shown with the factor."""
    return [
        replace(one, inference=replace(one.inference, shown=one.inference.shown * factor)) for one in windows
    ]


def test_an_honest_machine_under_load_is_not_accused_and_a_tenant_still_is() -> None:
    plain = [loaded(share, 1.35) for share in (0.2, 0.5, 0.7, 0.5) * 8]
    alarm = Alarm(0.98)
    alarm.add_all(plain)
    assert alarm.fired_at is not None  # what it is for: honest, and accused at the smallest times

    factor = usual_factor(plain[:8], 1.0).factor
    alarm = Alarm(0.98)
    alarm.add_all(priced(plain, factor))
    assert alarm.fired_at is None

    for share, limit in ((0.2, 2), (0.1, 10)):
        taken = [loaded(0.4, 1.35, tenant=share) for _ in range(limit)]
        alarm = Alarm(0.98)
        alarm.add_all(priced(taken, factor))
        assert alarm.fired_at is not None


def test_it_is_never_less_than_the_smallest_times() -> None:
    assert usual_factor([loaded(0.5, 0.7)], 1.0).factor == 1.0


def test_windows_that_say_nothing_teach_nothing() -> None:
    lost = replace(loaded(0.5, 1.0), companion=0.1)
    stolen = replace(loaded(0.5, 1.0, beside=False), steal=0.3)
    idle = loaded(0.0, 1.0)
    good = loaded(0.5, 1.5)
    assert usual_factor([good, lost, idle], 1.0).windows == 1
    for nothing in ([], [lost], [idle], [stolen], [loaded(0.02, 1.0)]):
        with pytest.raises(UndecidedError, match="nothing can be said"):
            usual_factor(nothing, 1.0)
    with pytest.raises(UndecidedError, match="another server's"):
        usual_factor([loaded(0.9, 2 * LARGEST_USUAL)], 1.0)


def test_it_prices_what_the_alarm_takes_and_nothing_that_is_claimed() -> None:
    served = [Served(n, n * 10**9, (n + 5) * 10**9, (n, 1, 2), (3, 4, 5), True) for n in range(5)]
    plain, dearer = (credit(served, costs, 4) for costs in (TIMES.costs(), replace(TIMES.costs(), usual=1.5)))
    for one, other in zip(plain, dearer, strict=True):
        assert other == replace(one, shown=other.shown)
        assert other.shown == pytest.approx(1.5 * one.shown)
        assert one.seconds <= one.shown
    assert replace(TIMES.costs(), usual=1.5).of_the_largest_batch().usual == 1.5


def test_it_is_in_the_calibration() -> None:
    assert TIMES.usual == Costs(1.0, ((1, 1.0),), 0.0).usual == 1.0
    read = read_inference(b'{"prefill":0.01,"decode":[[1,0.2]],"operations":0,"usual":1.35}')
    assert read.costs().usual == 1.35
    for bad in ("0.9", "3.1", "null", "NaN"):
        with pytest.raises(MalformedError):
            read_inference(b'{"prefill":0.01,"decode":[[1,0.2]],"operations":0,"usual":%s}' % bad.encode())
    with pytest.raises(ValidationError):
        InferenceTime(prefill=0.01, decode=((1, 0.2),), operations=0, usual=LARGEST_USUAL + 0.1)


def test_what_honest_machines_show_is_the_mean_of_which_the_alarm_expects_less() -> None:
    assert MADE.shows_honest(60.0, 2) == MADE.alarm(60.0, 2).expected
    for beside in (False, True):
        honest = HonestWindows(
            seconds=60.0, companion_slots=4 if beside else None, fractions=(0.97, 1.0, 1.03, 1.0)
        )
        made = MADE.model_copy(update={"honest": honest})
        assert made.shows_honest(60.0, 2, beside=beside) == pytest.approx(1.0)
        assert made.alarm(60.0, 2, beside=beside).expected < 0.99
        longer = 0.0 if beside else 2 * UNIT / 60 - 2 * UNIT / 120
        assert made.shows_honest(120.0, 2, beside=beside) == pytest.approx(1.0 + longer)
