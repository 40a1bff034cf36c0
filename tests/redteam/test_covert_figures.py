"""The statement, the alarm's figures and the coverage, small."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.redteam.game import reference
from ullage.audit.bounds.betting import exact_share, message_weights, mixed_codelength
from ullage.redteam.tokens.alarm_figures import HONEST, WATCHED, FalseAlarms, detection, streams
from ullage.redteam.tokens.calibration import usual_calibration
from ullage.redteam.tokens.coverage import POPULATIONS, Population, coverage
from ullage.redteam.tokens.game import Size
from ullage.redteam.tokens.soundness import soundness_of
from ullage.redteam.tokens.statement import StatementPlan, make_statement
from ullage.redteam.tokens.suite import Played


def test_the_statement_holds_for_the_window_and_for_draws_from_it() -> None:
    plan = StatementPlan(Size(96, 24), Size(128, 24), batch=64, target=1e-3)
    made = make_statement(reference(), plan)
    assert made.mismatches == 0
    assert made.holds
    assert made.whole.confidence is None
    assert made.sampled.confidence == 0.99
    # A sample cannot show less than there is.
    assert made.whole.window.fraction < made.sampled.window.fraction <= 1e-3
    assert made.whole.window.messages == 96
    assert 0 < made.distinct <= 96
    names = [claim.name for claim in made.claims()]
    assert names.count("token.covert_fraction") == 2
    assert any("With 99 % confidence" in line for line in made.lines())


def test_a_target_that_the_window_is_above_is_not_shown() -> None:
    plan = StatementPlan(Size(64, 16), Size(64, 24), target=1e-6)
    assert not make_statement(reference(), plan).holds


def test_a_wrong_seed_is_found_at_once_and_an_honest_server_is_not() -> None:
    known = reference()
    calibration = usual_calibration(known.vocabulary_size)
    found = detection(known, calibration, WATCHED[0], 12).to_dict()
    assert found["server"] == "wrong-seed"
    assert found["detected"] == 12
    assert found["within_bars"]
    honest = list(streams(known, HONEST, 3, 99))
    assert len(honest) == 3
    assert all(len(one.lengths) == HONEST.stream.messages for one in honest)


def test_false_alarms_are_counted_against_both_limits() -> None:
    limits = np.linspace(0, 3, 199)
    found = FalseAlarms(np.array([0.0, 1.0, -math.log(1e-2), 8.0]), limits).to_dict()
    processes = found["e_process"]
    assert isinstance(processes, list)
    assert [row["alarms"] for row in processes] == [2, 1, 0]
    free = found["distribution_free"]
    assert isinstance(free, list)
    assert [row["alpha"] for row in free] == [1e-2]
    assert free[0]["alarms"] == 2


@pytest.mark.parametrize("population", POPULATIONS, ids=lambda item: item.__name__)
def test_the_statement_covers_simulated_windows(population: Population) -> None:
    found = coverage(population, 12, draws=400)
    assert found.held >= 11
    assert found.mean_bound_over_share > 1
    codelength, lengths = population(np.random.default_rng(0))
    share = exact_share(mixed_codelength(codelength, lengths, 4096), message_weights(lengths, 4096))
    assert 0 < share < 1


def _game(leaked: int, codelength: float, at: float, added: int = 0) -> Played:
    bits_at = dict.fromkeys((0.016, 0.05, 0.2, 0.5), at)
    return Played(
        100, leaked, leaked, codelength, added, 0.0, 10, 0, bits_at, 0, np.full(5, np.inf), 100, 100
    )


def test_soundness_counts_games_and_finds_the_best_against_each_bound() -> None:
    found = soundness_of({"weak": [_game(5, 50, 100), _game(5, 50, 100)], "strong": [_game(90, 95, 100)] * 2})
    assert found.holds
    assert found.held == {"weak": 2, "strong": 2}
    assert {reach.name for reach in found.reach} == {"strong"}
    assert found.reach[0].share == pytest.approx(180 / 210)
    broken = soundness_of({"broken": [_game(120, 200, 100), _game(50, 60, 100)]})
    assert not broken.holds  # above one of the codes is above a bound
    assert broken.held == {"broken": 1}
    assert "short of that: broken 1" in broken.lines()[0]
    assert soundness_of({"seeds": [_game(70, 1, 1, added=63)]}).holds
