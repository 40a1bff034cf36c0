"""The suite's arithmetic, and the command that prints it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.redteam.game import reference
from ullage.cli.redteam.tokens import tokens
from ullage.errors import UsageError
from ullage.redteam.outcome import Outcome, table
from ullage.redteam.registry import adversary_names, token_adversaries
from ullage.redteam.tokens.game import Reading, Size, requests
from ullage.redteam.tokens.near_ties import near_ties
from ullage.redteam.tokens.suite import Suite, run_suite
from ullage.sampling.address import NoiseAddress
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile


@pytest.mark.parametrize(
    "parameters", [SamplingParameters(), SamplingParameters(0.7, 0.9, 40), SamplingParameters(0)]
)
def test_near_ties_agree_with_the_profile(parameters: SamplingParameters) -> None:
    logits = (3 * np.random.default_rng(0).standard_normal((20, 300))).astype(np.float32)
    address = NoiseAddress.of_response(9, 4, 20)
    profile = get_profile("murmur3-gumbel/f64")
    found = near_ties(logits, parameters, address)
    assert (found.tokens[:, 0] == profile.choose(logits, parameters, address)).all()
    for column in (0, 1, 5):
        there = np.isfinite(found.gaps[:, column])
        scores = profile.score(logits, np.where(there, found.tokens[:, column], 0), parameters, address)
        assert scores.margin[there] == pytest.approx(found.gaps[there, column], abs=1e-9)
    assert (found.gaps == np.sort(found.gaps, axis=1)).all()


def test_bits_are_compared_and_not_believed() -> None:
    payload = bytes([0b10110000])
    assert Reading(0, [1, 0, 1]).correct(payload) == 3
    assert Reading(2, [1, 1, 0]).correct(payload) == 3
    assert Reading(0, [1, 0, 0, 1]).correct(payload) == 0
    assert Reading(0, [1, 0, 0, 1], stream=True).correct(payload) == 2


def test_a_leak_above_its_bound_shows() -> None:
    fine = Outcome(
        name="fine", tokens=100, attempted_bits=10, leaked_bits=10, bound_bits=20.0, detection_median=50.0
    )
    broken = Outcome(
        name="broken", mode="enforce", tokens=100, attempted_bits=21, leaked_bits=21, bound_bits=20.0
    )
    elsewhere = Outcome(
        name="elsewhere", tokens=100, attempted_bits=21, leaked_bits=21, bound_bits=30.0, bits_at={0.2: 10.5}
    )
    assert fine.is_bounded
    assert not broken.is_bounded
    assert fine.bits_before_alarm == pytest.approx(5)
    assert broken.bits_before_alarm is None
    assert not elsewhere.is_bounded
    shown = table([fine, broken, elsewhere])
    assert ["EXCEEDS" in line for line in shown] == [False, False, False, True, True]
    assert broken.to_dict()["mode"] == "enforce"


def test_seeds_are_issued_as_the_tap_issues_them_and_differ() -> None:
    seeds = [row.seed for number in (0, 1) for row in requests(reference(), Size(8, 1), number)]
    assert len(set(seeds)) == 16


def test_each_token_adversary_can_be_served() -> None:
    served = set(adversary_names())
    names = {adversary.name for adversary in token_adversaries()}
    assert names - served == {"honest-bf16", "repeat-after-me"}
    assert served < names


def test_an_unknown_adversary_is_named() -> None:
    with pytest.raises(UsageError, match="'nobody'"):
        run_suite(Suite(reference()), Size(1, 1), [0], ["nobody"])


def test_the_command_prints_the_issues_json() -> None:
    command = [sys.executable, "-m", "ullage", "redteam", "tokens", "--quick", "--mode", "audit", "--json"]
    command += ["--only", "near-tie-0.5", "--only", "unseeded"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    first, second = said["adversaries"]
    assert (first["name"], second["name"]) == ("near-tie-0.5", "unseeded")
    assert first["mode"] == "audit"
    assert 0 < first["leaked_bits_per_token"] <= first["bound_bits_per_token"]
    assert second["tokens_to_detection"]["median"] <= 8
    assert second["leaked_bits_per_token"] == 0
    assert first["bits_before_alarm"] > 0
    assert first["attacker_cost"] == 1
    assert said["soundness"]["holds"]
    assert said["soundness"]["best_at"][3]["adversary"] == "near-tie-0.5"
    assert said["soundness"]["best_at"][3]["share_of_bound"] >= 0.6
    assert said["calibrations"][0]["source"].startswith("honest bfloat16 runs")
    assert len(said["claims"]) == 4 + 5


def test_options_that_do_not_go_together_are_said_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match="--statement plays no adversary"):
        tokens(statement=True, quick=True)
    with pytest.raises(UsageError, match="--messages is the size"):
        tokens(messages=10)
