"""The least that decoding can have cost: never above what a server spent, however it scheduled."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from tests.work.simulated import (
    Life,
    Load,
    at_random,
    at_the_peaks,
    cheapest,
    everybody,
    price_at_the_peak,
    serve,
)
from ullage.work.inference import Costs
from ullage.work.least import Decoding, Floats, decoding_seconds, most_open

MOST = 40
LINE = [9.6e-3 + 1.3e-3 * rows for rows in range(1, MOST + 1)]
"""A server of the built-in model, about: so many core-seconds a step."""


def timed(steps: list[float], batches: list[int]) -> Costs:
    return Costs(1e-9, tuple((batch, steps[batch - 1] / batch) for batch in batches), 0.0)


def decoding(load: Load, costs: Costs, slots: int) -> Decoding:
    steps = costs.step_seconds(most_open(load.start, load.end))
    return decoding_seconds(load.start, load.end, load.tokens, steps, slots, costs.decode[-1][0])


def bound(load: Load, costs: Costs, slots: int) -> Floats:
    return decoding(load, costs, slots).least


@st.composite
def machines(draw: st.DrawFn) -> tuple[list[float], Costs]:
    """Times of steps, neither they nor a row's share going the wrong way, and some of them as measured."""
    steps = [0.01]
    for part in draw(st.lists(st.floats(0, 1), min_size=MOST - 1, max_size=MOST - 1)):
        steps.append(steps[-1] * (1 + part / len(steps)))
    batches = sorted(draw(st.sets(st.integers(1, MOST), min_size=1, max_size=5)))
    return steps, timed(steps, batches)


@st.composite
def loads(draw: st.DrawFn, steps: list[float], slots: int) -> Load:
    """What one or two servers on one machine did, in any order and with any pauses."""
    lives = st.builds(Life, st.floats(0, 0.6), st.integers(0, 9), st.just(0.0) | st.floats(0, 1))
    choices = st.sampled_from((everybody, at_the_peaks(3), at_the_peaks(7)))
    choices |= st.builds(lambda seed: at_random(random.Random(seed)), st.integers(0, 99))
    servers = draw(st.integers(1, 2))
    found = [
        serve(
            draw(st.lists(lives, min_size=1, max_size=MOST // 2)),
            steps,
            slots / servers * draw(st.floats(0.3, 1)),
            draw(choices),
        )
        for _ in range(servers)
    ]
    return found[0] if servers == 1 else found[0] + found[1]


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_never_above_what_was_spent_and_never_below_the_price_at_the_peak(data: st.DataObject) -> None:
    steps, costs = data.draw(machines())
    slots = data.draw(st.integers(1, 4))
    load = data.draw(loads(steps, slots))
    found = bound(load, costs, slots)
    assert found.sum() <= load.cost * (1 + 1e-9)
    assert np.all(found >= 0)
    assert found.sum() >= price_at_the_peak(load, costs).sum() * (1 - 1e-9)
    assert np.all(found[load.tokens == 0] == 0)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.floats(0.05, 1), st.floats(0, 1)), min_size=1, max_size=12),
    st.tuples(st.floats(1e-3, 1e-2), st.floats(0, 1e-2)),
    st.floats(0.1, 1),
    st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_near_the_best_schedule_of_all_and_never_above_it(
    lives: list[tuple[float, float, float]], line: tuple[float, float], full: float, slots: int
) -> None:
    begin, length, share = np.array(lives).T
    start, end = (begin * 1e9).astype(np.int64), ((begin + length) * 1e9).astype(np.int64)
    tokens = (full * share * length * slots / sum(line)).astype(np.int64)
    best = cheapest(start, end, tokens, line, slots)
    assume(best is not None)
    costs = Costs(1e-9, tuple((rows, line[0] / rows + line[1]) for rows in range(1, 13)), 0.0)
    found = bound(Load(start, end, tokens, 0.0), costs, slots).sum()
    assert best is not None
    event(f"{int(20 * found / best) * 5 if best else 100} % of the best")
    assert found <= best * (1 + 1e-6)  # a nanosecond belongs to both neighbours


def test_what_does_not_fit_into_a_peak_is_dear() -> None:
    """One record is open for ten seconds, eight more for one of them, which they fill."""
    start, end = (np.array([first, *[other] * 8]) * 10**9 for first, other in ((0, 4), (10, 5)))
    fit = int(1 / LINE[8])
    tokens = np.array([fit + 300, *[fit] * 8])
    cost = fit * LINE[8] + 300 * LINE[0]
    costs = timed(LINE, list(range(1, 10)))
    assert price_at_the_peak(Load(start, end, tokens, cost), costs).sum() < 0.4 * cost
    assert 0.98 * cost < bound(Load(start, end, tokens, cost), costs, 1).sum() <= cost


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(-5, 50), st.integers(0, 9)), max_size=12),
    st.sampled_from((1, 10**3, 10**7, 10**9)),
)
@settings(deadline=None)
def test_at_least_the_price_at_the_peak_for_any_times(
    lives: list[tuple[int, int, int]], unit: int
) -> None:  # also such as no machine can have had
    start, length, tokens = np.array(lives, np.int64).reshape(-1, 3).T
    load = Load(start * unit, np.maximum(start, start + length) * unit, tokens, 0.0)
    costs = Costs(1e-9, ((1, 8.0), (4, 4.0), (16, 2.0)), 0.0)
    found = bound(load, costs, 2)
    assert found.sum() >= price_at_the_peak(load, costs).sum() * (1 - 1e-9)
    assert np.all(found <= tokens * 8.0 * (1 + 1e-9))


@given(machines(), st.integers(1, MOST), st.integers(1, 30), st.floats(0.2, 1))
@settings(deadline=None)
def test_what_was_spent_where_the_same_records_are_open_throughout(
    machine: tuple[list[float], Costs], rows: int, tokens: int, cores: float
) -> None:
    steps, _ = machine
    costs = timed(steps, sorted({1, rows}))
    load = serve([Life(0.0, tokens) for _ in range(rows)], steps, cores, everybody)
    assert bound(load, costs, 1).sum() == pytest.approx(load.cost)


def test_a_batch_between_two_timed_ones_takes_no_less_than_the_smaller() -> None:
    costs = Costs(1.0, ((1, 8.0), (4, 4.0), (16, 2.0)), 0.0)
    assert (
        costs.step_seconds(18).tolist()
        == [8.0, 8.0, 12.0] + [16.0] * 5 + [2.0 * rows for rows in range(9, 17)] + [32.0] * 2
    )
    # Where a larger batch was measured to take less, so may the smaller one.
    odd = Costs(1.0, ((4, 4.0), (8, 1.0), (16, 1.0)), 0.0)
    assert odd.step_seconds(9).tolist() == [4.0, 8.0, 12.0, 16.0, 8.0, 8.0, 8.0, 8.0, 9.0]


def served(seconds: float, rate: float, cores: float, seed: int = 0) -> Load:
    """Answers of 48 tokens to requests that come at random."""
    chance, now, lives = random.Random(seed), 0.0, []
    while now < seconds:
        now += chance.expovariate(rate)
        lives.append(Life(now, 48))
    return serve(lives, [*LINE, *([LINE[-1]] * 100)], cores, everybody)


def test_a_served_load_earns_most_of_what_it_cost() -> None:
    """About three are open, five to six at a record's fullest instant; half of two cores are busy."""
    load = served(120, 3.9, 0.9)
    costs = timed(LINE, [1, 2, 3, 4, 5, 6, 8, 10, 12, 16])
    found, before = (x.sum() / load.cost for x in (bound(load, costs, 2), price_at_the_peak(load, costs)))
    assert before < 0.74
    assert 0.87 < found <= 1
    assert found < bound(load, costs, 1).sum() / load.cost <= 1  # what is not busy leaves a choice


@pytest.mark.parametrize(("rate", "cores"), [(1.0, 0.9), (3.9, 0.9), (8.0, 0.9)])
def test_what_is_shown_is_what_a_server_that_takes_everybody_along_spends(rate: float, cores: float) -> None:
    """The bound lies below that, and an honest machine would seem to lack the difference."""
    load = served(300, rate, cores)
    costs = timed(LINE, list(range(1, MOST + 1)))
    found = decoding(load, costs, 2)
    assert found.shown.sum() / load.cost == pytest.approx(1, abs=0.03)
    assert found.least.sum() < 0.97 * load.cost
    assert np.all(found.shown >= found.least * (1 - 1e-9))


def test_records_that_wait_for_a_row_are_shown_at_the_price_of_a_full_step() -> None:
    """A hundred records come at once to a server of eight rows, first come first served."""

    def eight(opened: list[Life], more: bool) -> list[Life]:
        return opened[:8]

    load = serve([Life(0.0, 48) for _ in range(100)], LINE, 1.0, eight)
    found = decoding(load, timed(LINE, [1, 2, 4, 8]), 1)
    assert found.shown.sum() / load.cost == pytest.approx(1, abs=0.05)
    assert found.least.sum() < 0.5 * load.cost


def test_records_that_needed_no_pass_make_no_batch_cheaper_than_it_is() -> None:
    """Repeated requests that stay open beside one that is computed."""
    lives = [Life(0.0, 20), *(Life(0.0, 0, 10.0) for _ in range(15))]
    load = serve(lives, LINE, 1.0, everybody)
    assert bound(load, timed(LINE, [1, 16]), 1).sum() == pytest.approx(load.cost)


def test_a_calibration_that_is_too_slow_earns_no_more_than_an_even_share() -> None:
    """Tokens that do not fit into their time must not become as dear as one likes."""
    load = serve([Life(0.0, 50) for _ in range(16)], LINE, 1.0, everybody)
    slow = timed([2 * step for step in LINE], [1, 4, 16])
    assert bound(load, slow, 1).sum() == pytest.approx(2 * load.cost)


def test_many_records_take_seconds() -> None:
    few = served(400, 3.9, 0.9)
    copies = [int(few.end.max() + 10**6) * copy for copy in range(66)]
    start, end = (np.concatenate([x + shift for shift in copies]) for x in (few.start, few.end))
    load = Load(start, end, np.tile(few.tokens, len(copies)), few.cost * len(copies))
    assert len(load.start) > 100_000
    before = time.process_time()
    found = bound(load, timed(LINE, [1, 2, 4, 8, 16]), 2)
    assert time.process_time() - before < 60  # 7 s on the machine it was written on
    assert 0.8 < found.sum() / load.cost <= 1


def test_a_very_full_log_is_priced_without_a_search(monkeypatch: pytest.MonkeyPatch) -> None:
    load = served(30, 3.9, 0.9)
    costs = timed(LINE, [1, 4, 16])
    searched = bound(load, costs, 2).sum()
    monkeypatch.setattr("ullage.work.least._LARGEST", 10)
    plain = bound(load, costs, 2).sum()
    assert price_at_the_peak(load, costs).sum() <= plain < searched


def test_no_records() -> None:
    nothing = np.zeros(0, np.int64)
    assert bound(Load(nothing, nothing, nothing, 0.0), timed(LINE, [1]), 1).tolist() == []
