"""The fleet simulator against the formulas, and the formulas against counting and against scipy."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import UsageError
from ullage.slowdown.fleet import Plan, cost_table, served_share, simulate
from ullage.slowdown.sampled_audit import Audit, cheapest_audit


@given(st.integers(1, 5_000), st.floats(0, 1), st.floats(0, 1), st.integers(1, 5))
def test_the_alarm_against_scipy(messages: int, bad: float, part: float, alarm_at: int) -> None:
    deviating, drawn = round(bad * messages), round(part * min(messages, 300))
    audit = Audit(messages, drawn, power=1.0, honest_flags=0.0, alarm_at=alarm_at)
    expected = scipy.stats.hypergeom.sf(alarm_at - 1, messages, deviating, drawn)
    assert audit.alarm(deviating) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_honest_flags_and_power_by_simulation() -> None:
    audit = Audit(messages=200, drawn=40, power=0.6, honest_flags=0.02, alarm_at=2)
    random = np.random.default_rng(5)
    bad = random.hypergeometric(10, 190, 40, size=400_000)
    flags = random.binomial(bad, 0.6) + random.binomial(40 - bad, 0.02)
    assert audit.alarm(10) == pytest.approx(np.mean(flags >= 2), abs=0.003)
    honest = random.binomial(40, 0.02, size=400_000)
    assert audit.false_alarm() == pytest.approx(np.mean(honest >= 2), abs=0.003)


@given(st.integers(0, 400), st.integers(0, 100))
def test_an_audit_sees_more_of_a_greater_cheat(deviating: int, more: int) -> None:
    audit = Audit(messages=500, drawn=60, honest_flags=0.001, alarm_at=2)
    assert audit.alarm(min(500, deviating + more)) >= audit.alarm(deviating) - 1e-12


def test_the_simulation_matches_the_formula() -> None:
    """One day, no inspectors: the share of cheating racks that alarm is the formula's, within 4 sigma."""
    audit = Audit(messages=10_000, drawn=50, honest_flags=1e-3, alarm_at=2)
    plan = Plan(
        racks=40_000, days=1, cheating_share=0.5, deviating_share=0.03, audit=audit, inspections_a_day=0
    )
    outcome = simulate(plan)
    expected = audit.alarm(plan.deviating_messages)
    sigma = math.sqrt(expected * (1 - expected) / plan.cheats)
    assert outcome.noticed_share == pytest.approx(expected, abs=4 * sigma)
    honest = plan.racks - plan.cheats
    chance = audit.false_alarm()
    assert outcome.false_alarms == pytest.approx(honest * chance, abs=4 * math.sqrt(honest * chance))


def test_days_to_notice_follow_the_daily_chance() -> None:
    plan = Plan(racks=20_000, days=30, cheating_share=1.0, deviating_share=0.01, inspections_a_day=0)
    outcome, daily = simulate(plan), plan.audit.alarm(plan.deviating_messages)
    for share in (0.5, 0.9, 0.99):
        expected = math.log(1 - share) / math.log(1 - daily)
        assert abs(outcome.noticed_by(share) - expected) <= 1.5


def test_inspectors_end_it_and_queues_form() -> None:
    audit = Audit(drawn=2_000, alarm_at=2)
    fast = simulate(
        Plan(racks=1_000, cheating_share=0.2, audit=audit, inspections_a_day=1_000, inspection_days=0)
    )
    assert fast.confirmed_by(1.0) == fast.noticed_by(1.0) == 1
    slow = simulate(
        Plan(racks=1_000, cheating_share=0.2, audit=audit, inspections_a_day=10, inspection_days=2)
    )
    assert slow.noticed_by(1.0) == 1
    assert slow.longest_queue >= 190
    assert slow.confirmed_by(0.9) >= 20
    none = simulate(Plan(racks=1_000, cheating_share=0.2, audit=audit, inspections_a_day=0))
    assert none.confirmed_by(0.01) == math.inf
    assert none.waiting >= 200


def test_wipes_catch_and_cost() -> None:
    plan = Plan(racks=5_000, cheating_share=0.1, deviating_share=0.0, wipes_a_day=288, wipe_detection=0.01)
    outcome = simulate(plan)
    assert outcome.noticed_by(0.9) <= 2  # 1 - 0.99^288 = 94 % a day
    assert served_share(plan) == pytest.approx(1 - 288 * 20 / 86_400)


def test_a_fleet_without_cheats_only_has_false_alarms() -> None:
    outcome = simulate(Plan(racks=2_000, cheating_share=0.0, audit=Audit(drawn=200, alarm_at=1)))
    assert outcome.noticed_by(0.5) == math.inf
    expected = 2_000 * 30 * (1 - (1 - 1e-4) ** 200)
    assert outcome.false_alarms_a_month == pytest.approx(expected, rel=0.15)


def test_the_cost_table_keeps_its_promise() -> None:
    plan = Plan()
    for row in cost_table(plan):
        assert row.drawn is not None
        found = Audit(plan.audit.messages, row.drawn, 1.0, plan.audit.honest_flags, row.alarm_at)
        deviating = round(row.deviating_share * plan.audit.messages)
        assert 1 - (1 - found.alarm(deviating)) ** 7 >= 0.99 - 1e-9
        assert row.false_alarms_a_month <= 1
        fewer = Audit(plan.audit.messages, row.drawn - 1, 1.0, plan.audit.honest_flags, row.alarm_at)
        assert 1 - (1 - fewer.alarm(deviating)) ** 7 < 0.99


def test_no_audit_tells_what_honest_noise_hides() -> None:
    noisy = Audit(messages=10_000, drawn=10, power=0.01, honest_flags=0.2)
    assert cheapest_audit(noisy, 0.001, 7, 0.99, 1e-9) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"racks": 0}, {"days": 0}, {"racks": 10**6, "days": 10**4}, {"cheating_share": 1.5},
        {"wipes_a_day": 5_000.0}, {"inspections_a_day": -1}, {"recompute_cost": -1.0},
    ],
)  # fmt: skip
def test_impossible_plans_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Plan(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"drawn": -1}, {"messages": 10, "drawn": 11}, {"power": 2.0}, {"honest_flags": 1.0}, {"alarm_at": 0}],
)
def test_impossible_audits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Audit(**wrong)  # type: ignore[arg-type]


def test_a_month_of_thirty_thousand_racks_takes_seconds() -> None:
    times = []
    for _ in range(3):
        began = time.process_time()
        simulate(Plan())
        times.append(time.process_time() - began)
    assert min(times) <= 2
