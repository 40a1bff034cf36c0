"""Golden vectors: those taken from the engines' own code, and our own frozen ones.

golden/sampler-profiles.json says for each group which engine it was taken from. golden/own-vectors.json was
written by freeze.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.sampling import slow
from tests.sampling.freeze import PROFILES
from ullage.sampling import splitmix64
from ullage.sampling.address import NoiseAddress
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.murmur3 import Murmur3Gumbel32
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile, profile_names
from ullage.sampling.race import HashNoise

GOLDEN = Path(__file__).parent / "golden"
ENGINES: dict[str, Any] = json.loads((GOLDEN / "sampler-profiles.json").read_text())
OWN: list[dict[str, Any]] = json.loads((GOLDEN / "own-vectors.json").read_text())


def rows(profile: str) -> list[Any]:
    return list(ENGINES[profile]["rows"])


def at(seed: str, position: int) -> NoiseAddress:
    return NoiseAddress.of_response(int(seed), 1, 1, first_step=position)


def logits_of(row: dict[str, Any]) -> np.ndarray:
    return np.array([row["logits"]], np.float32)


def noise_of(profile: str, address: NoiseAddress, width: int) -> HashNoise:
    return cast(HashNoise, cast(GumbelProfile, get_profile(profile)).noise(address, width))


def test_all_fifty_are_here() -> None:
    assert {name: len(ENGINES[name]["rows"]) for name in ENGINES} == {
        "splitmix64-gumbel": 18,
        "murmur3-gumbel/f32": 24,
        "sglang-murmur": 8,
    }


@pytest.mark.parametrize("row", rows("murmur3-gumbel/f32"))
@pytest.mark.parametrize("profile", ["murmur3-gumbel/f32", "murmur3-gumbel/f64"])
def test_murmur3(row: dict[str, Any], profile: str) -> None:
    address, width = at(row["seed"], row["pos"]), len(row["logits"])
    hashes = noise_of(profile, address, width).hashes(np.zeros(1, np.int64), np.arange(4))
    assert ((hashes + 0.5) / 2**32).astype(np.float32).tolist() == row["uniform_first4"]
    token = get_profile(profile).choose(logits_of(row), SamplingParameters(row["temperature"]), address)
    assert token.tolist() == [row["token"]]


def test_float32_uniforms_are_rounded_once_and_reach_one() -> None:
    noise = Murmur3Gumbel32().noise(at("0", 0), 8)
    ids = np.arange(4)
    uniform = np.array(rows("murmur3-gumbel/f32")[0]["uniform_first4"])
    expected = -np.log(-np.log1p(-uniform))
    np.testing.assert_allclose(noise.at(np.zeros(1, np.int64), ids), expected, rtol=1e-13)


@pytest.mark.parametrize("row", rows("sglang-murmur"))
def test_sglang(row: dict[str, Any]) -> None:
    address, width = at(row["seed"], row["pos"]), len(row["logits"])
    hashes = noise_of("sglang-murmur", address, width).hashes(np.zeros(1, np.int64), np.arange(4))
    assert hashes.tolist() == row["hash_first4"]
    token = get_profile("sglang-murmur").choose(logits_of(row), SamplingParameters(), address)
    assert token.tolist() == [row["token"]]


@pytest.mark.parametrize("row", rows("splitmix64-gumbel"))
def test_splitmix64(row: dict[str, Any]) -> None:
    noise = splitmix64.StepNoise(np.array([row["step_seed"]], np.uint64))
    ids = np.arange(row["V"])
    noised = logits_of(row)[0].astype(np.float64) + noise.at(np.zeros(1, np.int64), ids)
    assert int(noised.argmax()) == row["token"]


@pytest.mark.parametrize("row", ENGINES["splitmix64-gumbel"]["step_seeds"]["rows"])
def test_splitmix64_step_seeds(row: dict[str, Any]) -> None:
    draws = splitmix64.draw_step_seeds(int(row["request_seed"]))
    assert [next(draws) for _ in row["step_seeds"]] == row["step_seeds"]


@pytest.mark.parametrize(
    ("profile", "definition"),
    [
        ("murmur3-gumbel/f64", slow.gumbel64),
        ("murmur3-gumbel-53/f64", slow.gumbel53),
        ("sglang-murmur", slow.sglang),
    ],
)
def test_noise_equals_its_definition(profile: str, definition: Any) -> None:
    ids = np.array([0, 1, 17, 4095, 151_935])
    for seed, position in [
        (0, 0),
        (2**63 - 1, 9),
        (4611686018427387915, 2**32 + 5),
        (123456789012345, 70_000),
    ]:
        noise = noise_of(profile, at(str(seed), position), 151_936).at(np.zeros(1, np.int64), ids)
        expected = [definition(seed, position, token) for token in ids.tolist()]
        np.testing.assert_allclose(noise, expected, rtol=1e-13)


def test_splitmix64_noise_equals_its_definition() -> None:
    ids = np.array([0, 1, 17, 151_935])
    seeds = np.array([852631582, 0, 2**31 - 1], np.uint64)
    noise = splitmix64.StepNoise(seeds).at(np.arange(3)[:, None], ids[None])
    expected = [[slow.splitmix64(seed, token) for token in ids.tolist()] for seed in seeds.tolist()]
    np.testing.assert_allclose(noise, expected, rtol=1e-13)


@pytest.mark.parametrize("row", OWN)
def test_own_vectors(row: dict[str, Any]) -> None:
    parameters = SamplingParameters.from_record(row["parameters"])
    address = NoiseAddress.of_response(int(row["seed"]), row["prompt_length"], 1, row["step"])
    profile = get_profile(row["profile"])
    assert profile.choose(logits_of(row), parameters, address).tolist() == [row["token"]]
    scores = profile.score(logits_of(row), np.array([row["claimed"]]), parameters, address, entropy=True)
    assert scores.reference.tolist() == [row["token"]]
    expected = np.inf if row["margin"] is None else row["margin"]
    np.testing.assert_allclose(scores.margin, [expected], rtol=1e-9, atol=1e-9)
    assert scores.rank.tolist() == [row["rank"]]
    np.testing.assert_allclose(scores.entropy, [row["entropy"]], rtol=1e-9, atol=1e-12)


def test_every_profile_has_vectors() -> None:
    assert {row["profile"] for row in OWN} == set(PROFILES)
    assert set(PROFILES) | set(ENGINES) == set(profile_names())
