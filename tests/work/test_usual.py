"""What inference usually takes, learnt from an honest twin under load, and what the alarm then shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.work.test_account import FULL
from tests.work.test_calibration import MADE
from ullage.errors import MalformedError, UndecidedError
from ullage.work.alarm import Alarm
from ullage.work.calibration import HonestWindows, InferenceTime, read_inference
from ullage.work.inference import Costs, Credit, Served, credit
from ullage.work.run import with_inference
from ullage.work.usual import LARGEST_USUAL, Usual, usual_factors
from ullage.work.window import Window

UNIT = MADE.worth.median
TIMES = InferenceTime(prefill=0.01, decode=((1, 0.2), (16, 0.1)), operations=1e6)


@dataclass(frozen=True)
class Account:
    """Windows side by side, what was earned in each, and what they show at some factors."""

    windows: tuple[Window, ...]
    earned: tuple[Credit, ...]

    def priced(self, usual: tuple[float, float] = (1.0, 1.0)) -> list[Window]:
        return with_inference(self.windows, [replace(one, usual=usual) for one in self.earned])

    def learnt(self, usual: tuple[float, float] = (1.0, 1.0), expected: float = 1.0) -> Usual:
        """From windows that are shown with these factors already."""
        return usual_factors(self.priced(usual), self.earned, expected)


def account(
    shares: Sequence[tuple[float, float]],
    usual: tuple[float, float],
    *,
    speed: float = 1.0,
    beside: bool = True,
    tenant: float = 0.0,
) -> Account:
    """Windows of which inference truly had these shares, in steps of one row and in full ones; at the
    smallest times the log shows less by `usual`. `speed`: of machine and companion, over the calibrated."""
    windows, earned = [], []
    for number, share in enumerate(shares):
        units = round(max(0.0, 1 - sum(share) - tenant) * speed * FULL.capacity / UNIT)
        start = FULL.start_unix + number * int(FULL.seconds * 1e9)
        windows.append(
            replace(FULL, index=number, start_unix=start, credited=units, companion=speed if beside else None)
        )
        alone, full = (
            part * speed * FULL.capacity / factor for part, factor in zip(share, usual, strict=True)
        )
        end = windows[-1].end_unix
        earned.append(Credit(number, start, end, 1, 1, 0.0, alone, full, (1.0, 1.0), 1.0))
    return Account(tuple(windows), tuple(earned))


MIXED = ((0.2, 0.0), (0.35, 0.05), (0.1, 0.6), (0.3, 0.1))


@given(
    st.permutations(MIXED).flatmap(lambda shares: st.integers(1, 4).map(lambda times: shares * times)),
    st.tuples(st.floats(1, 2.5), st.floats(1, 2.5)),
    st.floats(0.5, 1.2),
    st.booleans(),
)
def test_the_factors_are_what_inference_took_over_what_is_shown(
    shares: list[tuple[float, float]], usual: tuple[float, float], speed: float, beside: bool
) -> None:
    made = account(shares, usual, speed=speed if beside else 1.0, beside=beside)
    found = made.learnt()
    # Whole units, and the tie between the two factors.
    assert found.factors == pytest.approx(usual, rel=0.12)
    assert found.windows == len(shares)
    assert [one.judged for one in made.priced(found.factors)] == pytest.approx([1.0] * len(shares), abs=0.03)
    # Shown with factors already: the same are found, not their squares.
    assert made.learnt(found.factors).factors == pytest.approx(found.factors, abs=1e-9)


@given(st.floats(1, 2.5), st.floats(0.2, 0.8), st.booleans())
def test_windows_that_cannot_tell_the_factors_apart_give_equal_ones(
    factor: float, share: float, is_full: bool
) -> None:
    one = (0.0, share) if is_full else (share, 0.0)
    found = account([one] * 5, (factor, factor)).learnt()
    assert found.alone == pytest.approx(found.full, abs=1e-6)
    assert found.full == pytest.approx(factor, rel=0.03)


def test_an_honest_machine_under_load_is_not_accused_and_a_tenant_still_is() -> None:
    usual = (1.5, 1.1)
    plain = account(MIXED * 8, usual)
    alarm = Alarm(0.98)
    alarm.add_all(plain.priced())
    assert alarm.fired_at is not None  # what it is for: honest, and accused at the smallest times

    factors = account(MIXED * 2, usual).learnt().factors
    alarm = Alarm(0.98)
    alarm.add_all(plain.priced(factors))
    assert alarm.fired_at is None

    for share, limit in ((0.2, 2), (0.1, 10)):
        for load in (*MIXED[:2], (0.05, 0.4)):
            alarm = Alarm(0.98)
            alarm.add_all(account([load] * limit, usual, tenant=share).priced(factors))
            assert alarm.fired_at is not None


def test_a_tenant_beside_full_steps_does_not_hide_in_the_price_of_lone_ones() -> None:
    """One factor for all, learnt over all loads, would hide him."""
    usual = (1.29, 1.02)
    factors = account(MIXED * 2, usual).learnt().factors
    alone = usual_factors_of_one(account(MIXED * 2, usual))
    taken = account([(0.05, 0.55)] * 10, usual, tenant=0.1)
    for prices, is_found in ((factors, True), ((alone, alone), False)):
        alarm = Alarm(0.98)
        alarm.add_all(taken.priced(prices))
        assert (alarm.fired_at is not None) == is_found


def usual_factors_of_one(made: Account) -> float:
    """The factor that makes all windows together show what an honest machine does."""
    windows = made.priced()
    missing = sum(one.capacity * (1 - one.accounted(median=True)) for one in windows)
    shown = sum(one.inference.shown for one in windows)
    return 1 + missing / shown


def test_they_are_never_less_than_the_smallest_times() -> None:
    assert account([(0.5, 0.2)] * 3, (0.7, 0.7)).learnt().factors == (1.0, 1.0)
    for usual in ((0.8, 1.5), (1.5, 0.8)):
        found = account(MIXED * 4, usual).learnt()
        assert min(found.factors) == 1.0
        assert max(found.factors) > 1.2


@given(st.lists(st.tuples(*[st.floats(0.08, 0.45)] * 2), min_size=2, max_size=6), st.integers(0, 99))
def test_no_other_factors_fit_better(shares: list[tuple[float, float]], seed: int) -> None:
    """Against a search: least squares with factors not below 1."""
    generator = np.random.default_rng(seed)
    made = account(shares, (generator.uniform(0.6, 1.9), generator.uniform(0.6, 1.9)))
    found = made.learnt()

    def distance(factors: tuple[float, float]) -> float:
        short = sum((1.0 - (one.judged or 0.0)) ** 2 for one in made.priced(factors))
        return short + (0.02 * (factors[0] - factors[1])) ** 2

    best = distance(found.factors)
    for change in generator.normal(0, 0.05, (40, 2)):
        other = np.maximum(1.0, np.array(found.factors) + change)
        assert distance((float(other[0]), float(other[1]))) >= best - 1e-9


def test_windows_that_say_nothing_teach_nothing() -> None:
    good = account([(0.3, 0.2)], (1.5, 1.5))
    mute = [replace(good.windows[0], companion=0.1), replace(good.windows[0], companion=None, steal=0.3)]
    idle = account([(0.0, 0.0)], (1.0, 1.0))
    few = account([(0.02, 0.01)], (1.0, 1.0))
    for nothing in (
        Account((), ()),
        idle,
        few,
        *(Account((one,), good.earned) for one in mute),
    ):
        with pytest.raises(UndecidedError, match="nothing can be said"):
            nothing.learnt()
    assert account([(0.3, 0.2), (0.0, 0.0)], (1.5, 1.5)).learnt().windows == 1
    with pytest.raises(UndecidedError, match="another server's"):
        account([(0.5, 0.4)], (2 * LARGEST_USUAL, 2 * LARGEST_USUAL)).learnt()


def test_they_price_what_the_alarm_takes_and_nothing_that_is_claimed() -> None:
    served = [Served(n, n * 10**9, (n + 5) * 10**9, (n, 1, 2), (3, 4, 5), True) for n in range(5)]
    costs = TIMES.costs()
    plain, dearer = (credit(served, one, 4) for one in (costs, replace(costs, usual=(1.5, 1.2))))
    for one, other in zip(plain, dearer, strict=True):
        assert other == replace(one, usual=(1.5, 1.2))
        assert one.seconds <= one.shown * (1 + 1e-12)
        assert one.shown == pytest.approx(one.alone + one.full)
        assert other.shown == pytest.approx(1.5 * one.alone + 1.2 * one.full)
        assert other.alone > 0 < other.full
    assert replace(costs, usual=(1.5, 1.2)).of_the_largest_batch().usual == (1.5, 1.2)


@pytest.mark.parametrize(("together", "part"), [(1, 0.0), (6, 5 / 15), (16, 1.0), (20, 1.0)])
def test_steps_count_as_full_as_their_rows(together: int, part: float) -> None:
    served = [Served(n, 10**9, 5 * 10**9, (n, 100), (3, 4, 5), True) for n in range(together)]
    for one in credit(served, TIMES.costs(), 4):
        assert one.full == pytest.approx(part * (one.alone + one.full))


def test_they_are_in_the_calibration() -> None:
    assert TIMES.usual == Costs(1.0, ((1, 1.0),), 0.0).usual == (1.0, 1.0)
    read = read_inference(b'{"prefill":0.01,"decode":[[1,0.2]],"operations":0,"usual":[1.35,1.1]}')
    assert read.costs().usual == (1.35, 1.1)
    for bad in ("[0.9,1]", "[1,3.1]", "null", "[1,NaN]", "1.35", "[1.2]", "[1,1,1]"):
        with pytest.raises(MalformedError):
            read_inference(b'{"prefill":0.01,"decode":[[1,0.2]],"operations":0,"usual":%s}' % bad.encode())
    with pytest.raises(ValidationError):
        InferenceTime(prefill=0.01, decode=((1, 0.2),), operations=0, usual=(1.0, LARGEST_USUAL + 0.1))


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
