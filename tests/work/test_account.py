"""The arithmetic of windows: credit, bounds, alarm, steal, and replayed traces of tenants."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.work.test_calibration import MADE
from ullage.errors import MalformedError, UsageError
from ullage.work import steal
from ullage.work.alarm import Alarm, alarm_from, expected_fraction
from ullage.work.claims import make_claims
from ullage.work.openings import largest_bad_share
from ullage.work.run import Accounting, Plan
from ullage.work.shape import Shape
from ullage.work.verifier import Terms
from ullage.work.window import Inference, Outcome, Unit, Window, Worth, add_up

WORTH = Worth(0.19, 0.2, 1000)
FULL = Window(0, 0, 60.0, 4, 1200, 0, 360, 0, 0, WORTH)


def test_a_unit_counts_only_within_one_window() -> None:
    assert Unit(0, 0, b"", 10, 20).within(10, 20)
    assert not Unit(0, 0, b"", 9, 20).within(10, 20)  # begun before: it could have been banked
    assert not Unit(0, 0, b"", 10, 21).within(10, 20)
    assert not Unit(0, 0, b"", 10).within(10, 20)


def test_fractions() -> None:
    assert math.isclose(FULL.accounted(median=True), 1.0)
    assert math.isclose(FULL.accounted(), 0.95)
    half = replace(FULL, credited=600, inference=Inference(60.0, 60.0, 60.0, 5.0))
    assert math.isclose(half.accounted(median=True), 0.75)
    assert math.isclose(replace(FULL, missing=36).accounted(median=True), 0.9)


def test_outcomes() -> None:
    assert FULL.outcome is Outcome.PASS
    assert replace(FULL, bad=1).outcome is Outcome.FAIL
    assert replace(FULL, steal=0.021).outcome is Outcome.CANNOT_TELL
    assert replace(FULL, steal=0.019).outcome is Outcome.PASS
    assert replace(FULL, bad=1, steal=0.5).outcome is Outcome.FAIL
    assert replace(FULL, missing=1).outcome is Outcome.CANNOT_TELL
    assert replace(FULL, missing=1, bad=1).outcome is Outcome.FAIL
    assert replace(FULL, credited=1400).outcome is Outcome.FAIL  # more than the machine can do


def test_inference_is_claimed_at_the_least_and_judged_by_what_the_log_shows() -> None:
    """No server has the schedule of the least: a machine that serves all day would seem to give 15 % away."""
    serving = replace(FULL, credited=0, inference=Inference(204.0, 240.0, 200.0, 1.0))
    assert serving.accounted() == pytest.approx(0.85)
    assert serving.judged == pytest.approx(1.0)
    assert add_up([serving], 0.99).fraction == pytest.approx(0.85)
    alarm = Alarm(0.97)
    alarm.add_all([serving] * 30)
    assert alarm.fired_at is None
    alarm.add_all(
        [replace(serving, inference=Inference(163.0, 192.0, 160.0, 1.0))] * 2
    )  # a fifth is a tenant's
    assert alarm.fired_at == 31


def test_only_what_was_surely_spent_in_a_window_makes_it_impossible() -> None:
    """A record's inference is spread over its life, so one that spans two may be put into the wrong."""
    spanning = replace(FULL, credited=1150, inference=Inference(48.0, 48.0, 0.0, 1.0))
    assert spanning.accounted() > 1.1
    assert spanning.outcome is Outcome.PASS
    assert replace(spanning, inference=Inference(48.0, 48.0, 48.0, 1.0)).outcome is Outcome.FAIL


def test_time_that_the_verifiers_own_checks_took_is_excused_and_no_more() -> None:
    held_up = replace(FULL, credited=840, held_up=0.3)
    assert held_up.outcome is Outcome.CANNOT_TELL
    assert held_up.judged == pytest.approx(1.0)
    assert held_up.accounted(median=True) == pytest.approx(0.7)  # what is claimed is a lower bound anyway
    assert replace(held_up, bad=1).outcome is Outcome.FAIL
    assert replace(held_up, held_up=0.01).outcome is Outcome.PASS
    alarm = Alarm(0.97)
    alarm.add_all([held_up] * 30)
    assert alarm.fired_at is None
    alarm.add_all([replace(held_up, credited=480, held_up=0.1)] * 2)  # answers in bursts, and idles between
    assert alarm.fired_at == 31


def test_windows_with_more_units_than_a_prover_keeps_are_refused() -> None:
    terms = Terms("127.0.0.1", 9, 4, Shape(512, 512, 512))
    with pytest.raises(UsageError, match="take windows of 41 s or less"):
        Accounting(Plan(terms, Worth(0.005, 0.005, 1), window_seconds=60.0))
    Accounting(Plan(terms, Worth(0.005, 0.005, 1), window_seconds=40.0))


def test_holding_rows_back_neither_passes_nor_takes_a_window_out_of_the_account() -> None:
    """A tenant of half the machine that lets one path a window go missing."""
    hiding = [replace(FULL, credited=600, openings=180, missing=1)] * 3
    assert {window.outcome for window in hiding} == {Outcome.CANNOT_TELL}
    assert all(window.is_told for window in hiding)
    alarm = Alarm(0.97)
    alarm.add_all(hiding)
    assert (alarm.seen, alarm.fired_at) == (3, 1)
    claims = make_claims(hiding, MADE, subject="", inventory_declared=False, twin=True, inputs={})
    fraction = next(claim for claim in claims if claim.name == "compute.accounted_fraction")
    assert fraction.value is not None
    assert 0.4 < fraction.value < 0.5
    assert fraction.sample.startswith("3 of 3 windows")


def test_only_what_the_hypervisor_took_is_left_out() -> None:
    assert not replace(FULL, steal=0.021).is_told
    assert replace(FULL, steal=0.5, bad=1).is_told  # what was forged stays forged
    assert not replace(FULL, steal=0.5, missing=1).is_told


def test_the_total_is_discounted_by_what_openings_leave_possible() -> None:
    total = add_up([FULL] * 30, 0.99)
    assert math.isclose(total.bad_share, largest_bad_share(30 * 360, 0, 0.99))
    assert 0.949 < total.fraction < 0.95
    assert total.fraction_median == pytest.approx(total.fraction / 0.95)


@pytest.mark.parametrize(("bad", "missing"), [(0, 3), (3, 0), (2, 1)])
def test_rows_that_never_came_discount_as_wrong_ones_do(bad: int, missing: int) -> None:
    windows = [FULL, replace(FULL, bad=bad, missing=missing)]
    total = add_up(windows, 0.99)
    assert total.failed == 3
    assert math.isclose(total.bad_share, largest_bad_share(720, 3, 0.99))
    assert math.isclose(total.operations, 2400 * 1000 * (1 - total.bad_share))
    assert math.isclose(total.fraction, 2400 * 0.19 * (1 - total.bad_share) / 480)


@given(st.lists(st.tuples(st.integers(1, 2000), st.integers(1, 400)), min_size=1, max_size=6))
def test_skipping_where_rows_are_drawn_least_gains_nothing(windows: list[tuple[int, int]]) -> None:
    # Whatever one window leaves out that passes with probability > 1 % is within the total's bound.
    made = [replace(FULL, credited=units, openings=openings) for units, openings in windows]
    total = add_up(made, 0.99)
    for units, openings in windows:
        undetected = largest_bad_share(openings, 0, 0.99) * units / sum(u for u, _ in windows)
        assert undetected <= total.bad_share + 1e-9 or total.bad_share == 1.0


def trace(tenant: float, windows: int, seed: int) -> list[float]:
    """Fractions of a machine whose windows scatter by 1 % (standard deviation), with a tenant."""
    return list((1 - tenant) * 0.97 + np.random.default_rng(seed).normal(0, 0.01, windows))


@pytest.mark.parametrize(("tenant", "limit"), [(0.2, 2), (0.1, 10), (0.5, 1)])
def test_tenants_are_flagged_in_time_in_replayed_traces(tenant: float, limit: int) -> None:
    for seed in range(200):
        alarm = Alarm(0.97)
        for fraction in trace(tenant, limit, seed):
            alarm.add(fraction)
        assert alarm.fired_at is not None


def test_honest_traces_raise_no_alarm() -> None:
    for seed in range(50):
        alarm = Alarm(0.97)
        for fraction in trace(0.0, 200, seed):
            alarm.add(fraction)
        assert alarm.fired_at is None


def test_windows_that_say_nothing_do_not_move_the_alarm() -> None:
    alarm = Alarm(0.97)
    alarm.add_all([replace(FULL, credited=0, steal=0.3)] * 5)
    assert (alarm.seen, alarm.fired_at) == (0, None)


def test_the_expected_fraction_counts_the_edges() -> None:
    assert math.isclose(expected_fraction(2, 0.3, 60.0, 0.0), 0.99)


def test_steal_is_read_from_the_kernels_first_line() -> None:
    before = steal.parse("cpu  100 0 50 800 10 0 0 40 7 0\ncpu0 1 2 3\n")
    after = steal.parse("cpu  150 0 50 1200 10 0 0 90 7 0\n")
    assert math.isclose(after.share_since(before), 0.1)
    assert before.share_since(before) == 0.0


@pytest.mark.parametrize("text", ["", "cpu", "cpu 1 2 3", "cpu a b c d e f g h", "mem 1 2 3 4 5 6 7 8"])
def test_another_first_line_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        steal.parse(text)


def test_a_machine_is_held_to_what_it_has_shown() -> None:
    # Calibrated in a slow minute: the machine does 6 % more, and could hide a tenant of 10 % in that.
    slow, before, tenant = 0.97, [1.03] * 4, [1.03 * 0.9] * 10
    alarm = Alarm(slow)
    for fraction in before + tenant:
        alarm.add(fraction)
    assert alarm.raised_at == 3
    assert alarm.expected == 1.03
    assert alarm.fired_at is not None
    unraised = Alarm(slow)
    for fraction in tenant:  # there from the first window on: only a better calibration would tell
        unraised.add(fraction)
    assert (unraised.raised_at, unraised.fired_at) == (None, None)


def test_one_window_is_no_reason_to_expect_more() -> None:
    alarm = Alarm(0.9)
    for fraction in [1.2, 0.9, 1.2, 1.2, 0.5]:
        alarm.add(fraction)
    assert (alarm.raised_at, alarm.expected) == (None, 0.9)


@given(st.lists(st.floats(0.93, 0.99), max_size=400))
def test_a_machine_within_its_allowance_raises_nothing(found: list[float]) -> None:
    alarm = Alarm(0.97)
    for fraction in found:
        alarm.add(fraction)
    assert (alarm.raised_at, alarm.fired_at, alarm.expected) == (None, None, 0.97)


def test_the_twins_windows_set_the_alarm() -> None:
    quiet = alarm_from([0.970, 0.972, 0.968, 0.971, 0.969], 0.01, 0.01)
    assert quiet.limit == 0.1
    assert 0.966 < quiet.expected < 0.970
    assert alarm_from([0.970, 0.972, 0.968, 0.971, 0.969], 0.03, 0.01).expected == pytest.approx(
        quiet.expected - 0.02
    )
    noisy = alarm_from([0.90, 1.02, 0.97, 0.93, 1.01], 0.0, 0.0)
    assert noisy.limit > 0.1
    with pytest.raises(ValueError, match="two honest windows"):
        alarm_from([0.97], 0.0, 0.0)


@pytest.mark.parametrize("deviation", [0.01, 0.04])
def test_an_alarm_set_by_the_twin_is_false_as_seldom_as_claimed(deviation: float) -> None:
    generator = np.random.default_rng(round(deviation * 1000))
    false = 0
    for _ in range(20):
        alarm = alarm_from(list(generator.normal(0.97, deviation, 30)), 0.0, 0.0)
        for fraction in generator.normal(0.97, deviation, 1000):
            alarm.add(fraction)
        false += alarm.fired_at is not None
    assert false <= 1  # the chance is below 0.01 each
