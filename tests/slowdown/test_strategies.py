"""Strategies: limits, monotonicity in every constraint, and the numbers that can be done by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.slowdown.conditions import (
    TIGHTER_WHEN_HIGHER,
    constraints,
    many_parameters,
    parameters,
    shares,
)
from ullage.slowdown.best_response import best_slowdown, binding_constraint, respond
from ullage.slowdown.constraints import TAP, Constraints, first_fault
from ullage.slowdown.parameters import Parameters, draw, nominal
from ullage.slowdown.registry import STRATEGIES, Strategy
from ullage.slowdown.scenarios import TAPPED, named
from ullage.slowdown.sensitivity import LEVERS, Lever
from ullage.slowdown.strategies.asymmetric_rl import Way
from ullage.slowdown.strategies.mixed import best_split

BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}
PERFECT = Constraints(
    egress=TAP, ingress=TAP, covert_fraction=0.0, enforced=True, accounted_time=1.0, accounted_operations=1.0,
    resident_memory=1.0, wipe_period=60.0, wipe_cycle=10.0, update_interval=math.inf, accomplice_share=0.0,
    response_days=0.0, diversion=0.0,
)  # fmt: skip


def share(name: str, given_constraints: Constraints, values: Parameters | None = None) -> float:
    result = BY_NAME[name].outcome(given_constraints, nominal() if values is None else values)
    return float(result.share[0])


@given(st.floats(0, 0.9))
def test_nothing_verified_slows_nothing(dark: float) -> None:
    assert best_slowdown(Constraints(dark_share=dark), nominal()) == pytest.approx(1)


@given(st.floats(1e-3, 1.0))
def test_perfect_verification_leaves_the_dark_share(dark: float) -> None:
    response = respond(replace(PERFECT, dark_share=dark), draw(50, 0))
    np.testing.assert_allclose(response.best_throughput, 1 / dark)


def test_perfect_verification_without_a_dark_share_never_ends() -> None:
    assert math.isinf(best_slowdown(replace(PERFECT, dark_share=0.0), nominal()))


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.name)
@settings(max_examples=25)
@given(constraints(), many_parameters())
def test_no_strategy_uses_more_than_is_declared(
    strategy: Strategy, given_constraints: Constraints, values: Parameters
) -> None:
    result = strategy.outcome(given_constraints, values)
    assert np.all(result.share >= 0)
    assert np.all(result.share <= given_constraints.declared + 1e-9)
    assert np.all(result.share <= result.raw + 1e-9)
    assert np.all(result.serial >= 1)


def assert_no_help(loose: Constraints, tight: Constraints, values: Parameters) -> None:
    """The best response and every strategy on its own are as slow or slower in every draw."""
    before, after = respond(loose, values), respond(tight, values)
    hair = 1 - 1e-9
    for name in ("best_throughput", "best_pretraining", "best_training"):
        assert np.all(getattr(after, name) >= getattr(before, name) * hair), name
    for strategy, faster, slower in zip(STRATEGIES, before.throughput, after.throughput, strict=True):
        assert np.all(slower >= faster * hair), strategy.name


@pytest.mark.parametrize("field", TIGHTER_WHEN_HIGHER)
@settings(max_examples=30)
@given(data=st.data(), values=many_parameters())
def test_a_tighter_constraint_never_helps_any_strategy(
    field: str, data: st.DataObject, values: Parameters
) -> None:
    """Two machines that differ in one constraint: the tornado and the targets rest on this."""
    here, there = data.draw(constraints()), data.draw(constraints())
    ends = sorted((getattr(here, field), getattr(there, field)), reverse=not TIGHTER_WHEN_HIGHER[field])
    loose, tight = (replace(here, **{field: end}) for end in ends)
    assume(not first_fault(loose) and not first_fault(tight))
    assert_no_help(loose, tight, values)


def test_every_constraint_that_verification_sets_is_in_that_test() -> None:
    sizes = {"racks", "gpus_a_rack", "memory_a_rack"}
    assert set(TIGHTER_WHEN_HIGHER) == set(vars(Constraints())) - sizes


@pytest.mark.parametrize("lever", LEVERS, ids=lambda lever: lever.name)
@settings(max_examples=10)
@given(constraints(), many_parameters(), shares, shares)
def test_a_tighter_lever_never_helps(
    lever: Lever, given_constraints: Constraints, values: Parameters, one: float, other: float
) -> None:
    """Bisection rests on this."""
    loose, tight = (lever.apply(given_constraints, lever.place(at)) for at in sorted((one, other)))
    assert_no_help(loose, tight, values)


@settings(max_examples=30)
@given(constraints(), constraints(), many_parameters())
def test_all_constraints_tightened_together_never_help(
    one: Constraints, other: Constraints, values: Parameters
) -> None:
    """Any machine against one that is as tight or tighter in everything."""
    best = {field: max if higher else min for field, higher in TIGHTER_WHEN_HIGHER.items()}
    tight = replace(
        one, **{field: pick(getattr(one, field), getattr(other, field)) for field, pick in best.items()}
    )
    assume(not first_fault(tight))
    assert_no_help(one, tight, values)


def test_dark_rl_with_a_learner_of_a_fifth_is_four_times_slower() -> None:
    closed = replace(PERFECT, accomplice_share=1.0, update_interval=0.0)
    assert 1 / (0.05 + share("declared-rollouts", closed)) == pytest.approx(4)


def test_updates_once_a_quarter_starve_declared_rollouts() -> None:
    slow = replace(TAPPED, update_interval=90 * 86_400.0)
    assert share("declared-rollouts", slow) == pytest.approx(0.95 * 4 / (90 * 24))


def test_scores_get_out_where_rollouts_do_not() -> None:
    """At 10 bytes/s the informative rollouts get out; at 1 only scores do (0.617 rollouts/s, 8 bits each),
    and the learner generates two in a hundred again."""
    given_constraints = named("recomputation, 0.01 % unexplained").constraints
    assert share("asymmetric-rl", given_constraints) == pytest.approx(0.2)
    tighter = replace(given_constraints, covert_fraction=1e-5)
    assert share("asymmetric-rl", tighter) == pytest.approx(0.05 * 0.8 / 0.216)
    assert share("asymmetric-rl", replace(given_constraints, covert_fraction=1e-7)) < 0.02


def test_diloco_fills_the_tap() -> None:
    """10 GB / 100 over 100 KB/s is 1,000 s: H = 500 steps of 2 s hide it at little loss."""
    used = share("diloco", TAPPED)
    efficiency = 1 - 0.17 * math.log(500 / 50) / math.log(20)
    assert used == pytest.approx(0.95 * efficiency, rel=0.03)


def test_synchronous_training_waits_for_the_tap() -> None:
    assert share("synchronous", TAPPED) == pytest.approx(0.95 * 2 / 1_000)


def test_an_update_that_does_not_fit_the_period_is_lost() -> None:
    wiped = replace(TAPPED, wipe_period=60.0, wipe_cycle=0.0)
    fits = draw(1, 0)
    small = replace(fits, expert_bytes=np.array([1e8]), compression=np.array([100.0]))
    assert share("small-experts", wiped, small) > 0  # 1 MB leaves in 10 s
    large = replace(fits, expert_bytes=np.array([6.01e8]), compression=np.array([100.0]))
    assert share("small-experts", wiped, large) == 0  # 6.01 MB do not in 60


def test_what_survives_a_wipe_makes_wipes_cheap() -> None:
    wiped = replace(TAPPED, wipe_period=60.0, wipe_cycle=6.0)
    leaky = replace(wiped, erased=1 - 1e8 / wiped.memory_a_rack * 1.01)  # room for 10 GB / 100
    assert share("diloco", wiped) == 0
    assert share("diloco", leaky) == pytest.approx(0.9 * share("diloco", TAPPED))


def test_busy_time_does_not_bound_idle_operations() -> None:
    busy = replace(TAPPED, accounted_time=1.0, accounted_operations=0.3)
    assert share("diloco", busy) == 0
    # 35 % of a rack takes 5.7 s a step, of which 175 hide the exchange of 1,000 s.
    efficiency = 1 - 0.17 * math.log(175 / 50) / math.log(20)
    assert share("slack", busy) == pytest.approx(0.95 * 0.7 * 0.5 * efficiency)


def test_who_has_half_of_a_machine_has_twice_the_time_for_each_exchange() -> None:
    """The tighter of two limits counts, not their product."""
    half = replace(TAPPED, accounted_time=0.5)
    assert share("synchronous", half) == share("synchronous", TAPPED)  # waits for the tap either way
    efficiency = 1 - 0.17 * math.log(250 / 50) / math.log(20)  # 250 steps of 4 s hide 1,000 s
    assert share("diloco", half) == pytest.approx(0.95 * 0.5 * efficiency)
    slow = replace(TAPPED, covert_fraction=1e-3)  # an expert of 30 MB leaves in 300,000 s, and takes 360,000
    free = share("branch-train-merge", slow)
    little = replace(slow, accounted_time=1 - free / 0.95 / nominal().merge_efficiency[0])
    assert share("branch-train-merge", little) == pytest.approx(free)
    scores = replace(TAPPED, covert_fraction=1e-5)
    assert share("asymmetric-rl", replace(scores, accounted_time=0.5, dark_share=0.5)) == pytest.approx(
        min(0.25, share("asymmetric-rl", replace(scores, dark_share=0.5)))
    )


def test_a_breakout_that_lasts_is_the_whole_run() -> None:
    never = replace(PERFECT, enforced=False, response_days=math.inf)
    soon = replace(PERFECT, enforced=False, response_days=1.0)
    assert share("breakout", never) == pytest.approx(share("diloco", TAPPED), rel=1e-6)
    one_day = 0.05 + share("diloco", TAPPED)  # 90 days' work: one at this pace, the rest in the dark
    length = 1 + (90 - one_day) / 0.05
    assert share("breakout", soon) == pytest.approx(90 / length - 0.05)


def test_growth_of_the_dark_share() -> None:
    growing = replace(PERFECT, dark_share=0.0, diversion=0.02)
    length = math.sqrt(2 * 0.02 * 90 / 365.25) / 0.02  # years
    assert share("growing-dark-share", growing) == pytest.approx(90 / 365.25 / length)


def test_growth_is_counted_once() -> None:
    """With everything else closed, the best response is strategy 14 itself."""
    growing = replace(PERFECT, dark_share=0.05, diversion=0.02)
    response = respond(growing, draw(50, 0))
    row = [strategy.name for strategy in STRATEGIES].index("growing-dark-share")
    np.testing.assert_allclose(response.best_throughput, response.throughput[row])


@given(parameters(), st.floats(0, 0.5), st.floats(1e-4, 5.0))
def test_growth_keeps_to_its_equation(values: Parameters, dark: float, growth: float) -> None:
    """Integrate the compute of a fleet whose dark share grows to 1: it must be the run's work."""
    used = share("growing-dark-share", replace(PERFECT, dark_share=dark, diversion=min(1.0, growth)), values)
    run = float(values.baseline_days[0]) / 365.25
    length = run / (dark + used)
    times = np.linspace(0, length, 20_001)
    rate = np.minimum(1.0, dark + min(1.0, growth) * times)
    assert np.trapezoid(rate, times) == pytest.approx(run, rel=1e-3)


def test_the_mix_is_at_least_as_good_as_its_parts() -> None:
    values = draw(200, 1)
    for scenario in (
        "work 95 %",
        "wipes every 5 minutes",
        "memory 95 %",
        "recomputation, 0.01 % unexplained",
    ):
        given_constraints = named(scenario).constraints
        mix = BY_NAME["mixed"].outcome(given_constraints, values).share
        for part in ("diloco", "synchronous", "slack", "declared-rollouts", "asymmetric-rl", "small-experts"):
            used = BY_NAME[part].outcome(given_constraints, values).share
            assert np.all(mix >= used - 1e-12), (scenario, part)


@pytest.mark.parametrize("scenario", ["work 95 %", "wipes every 5 minutes", "all bars together"])
def test_laundered_inference_serves_every_learner(scenario: str) -> None:
    values, given_constraints = draw(200, 1), named(scenario).constraints
    mix = BY_NAME["laundered-mix"].outcome(given_constraints, values).share
    parts = ("laundered", "diloco", "synchronous", "slack", "branch-train-merge", "parked-state")
    for part in parts:
        assert np.all(mix >= BY_NAME[part].outcome(given_constraints, values).share - 1e-12), part
    openly = BY_NAME["breakout-mixed"].outcome(given_constraints, values).share
    assert np.all(openly >= BY_NAME["breakout"].outcome(given_constraints, values).share - 1e-12)


@settings(max_examples=200)
@given(st.tuples(*[st.one_of(st.just(0.0), st.floats(1e-6, 3.0)) for _ in range(6)]), st.floats(0.1, 20))
def test_no_split_is_better_than_the_best(values: tuple[float, ...], used: float) -> None:
    """Against every split of a fine grid."""
    made, leaving, ordered, linked, beyond, dark = values
    way = Way(np.array([made]), np.array([leaving]), ordered, np.array([used]))
    free = linked + beyond
    found = float(best_split(way, np.array([linked]), np.array([free]), dark)[0])
    split = np.linspace(0, 1, 20_001)
    learnt = np.minimum(split * free, linked)
    rolled = np.minimum(made * (1 - split), leaving) + ordered
    every = learnt + np.minimum(rolled, used * (dark + learnt))
    assert found >= every.max() * (1 - 1e-9)
    assert found == pytest.approx(every.max(), rel=1e-3)


def test_what_binds_is_named() -> None:
    values = nominal()
    assert binding_constraint(BY_NAME["synchronous"], TAPPED, values) == "the links' speed"
    assert binding_constraint(BY_NAME["dark-only"], TAPPED, values) == "the dark share"
    proven = named("work 95 %").constraints
    assert binding_constraint(BY_NAME["diloco"], proven, values) == "accounted work"
    updates = replace(TAPPED, update_interval=90 * 86_400.0)
    assert binding_constraint(BY_NAME["declared-rollouts"], updates, values) == "the rate of declared updates"
