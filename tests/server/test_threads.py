"""The number of threads follows what is faster, at a small price."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ullage.server.threads import ThreadTuner


def simulate(tuner: ThreadTuner, cost: Callable[[int], float], steps: int, rows: int = 32) -> list[int]:
    """The thread counts of so many steps on a machine where a step costs `cost(threads)`."""
    used = []
    for _ in range(steps):
        threads = tuner.threads(rows)
        used.append(threads)
        tuner.record(rows, cost(threads))
    return used


def test_takes_the_faster_and_follows_a_change() -> None:
    tuner = ThreadTuner(2)
    idle: Callable[[int], float] = {1: 2.0, 2: 1.1}.__getitem__
    busy: Callable[[int], float] = {1: 3.0, 2: 30.0}.__getitem__
    assert simulate(tuner, idle, 100)[-1] == 2
    assert simulate(tuner, busy, 2000)[-1] == 1
    assert simulate(tuner, idle, 4000)[-1] == 2


def test_trials_on_a_busy_machine_cost_little() -> None:
    used = simulate(ThreadTuner(2), {1: 1.0, 2: 20.0}.__getitem__, 5000)
    assert used.count(2) <= 10


def test_equal_costs_change_nothing() -> None:
    used = simulate(ThreadTuner(2), lambda _: 1.0, 5000)
    assert used[-1] == 1
    assert used.count(2) <= 30


def test_sizes_are_learned_apart() -> None:
    tuner = ThreadTuner(2)
    simulate(tuner, {1: 2.0, 2: 1.0}.__getitem__, 100, rows=32)
    simulate(tuner, {1: 1.0, 2: 2.0}.__getitem__, 100, rows=1)
    assert (tuner.threads(32), tuner.threads(1)) == (2, 1)


@pytest.mark.parametrize("rows", [1, 7])
def test_one_core_stays_at_one_thread(rows: int) -> None:
    assert set(simulate(ThreadTuner(1), lambda _: 1.0, 200, rows)) == {1}
