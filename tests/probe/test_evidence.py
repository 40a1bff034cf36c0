"""The evidence is an e-process: within honest noise's limits no factor has a mean above 1."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.audit.bounds.noise_model import FlipCurve, NoiseModel
from ullage.probe.evidence import (
    Evidence,
    Exclusions,
    alarm_bets,
    bets_of,
    configuration_weights,
    log_factors,
)
from ullage.probe.explanation import UNLISTED, Likelihoods
from ullage.probe.noise import ProbeNoise
from ullage.probe.questions import Prompt, Question
from ullage.probe.scoring import Scored
from ullage.probe.views import SHIFTS, SeededView, SoftmaxView, View, log_seed_evidence
from ullage.sampling.address import NoiseAddress
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile

VOCABULARY = 12
NOISE = ProbeNoise(
    NoiseModel(FlipCurve(0.05, 4.0, 0.6), FlipCurve(0.08, 4.0, 0.6), VOCABULARY, 1e-4, 0, 0, 0),
    1e-3,
    "a test",
)


def view(winner: int, near: list[tuple[int, float]]) -> SeededView:
    """One token's view with these candidates and gaps."""
    near = sorted(near, key=lambda one: one[1])
    gaps = np.full((1, 4), np.inf)
    ids = np.full((1, 4), -1)
    for column, (token, gap) in enumerate(near):
        gaps[0, column], ids[0, column] = gap, token
    return SeededView(np.array([winner]), gaps, ids, np.zeros(1), NOISE)


@st.composite
def views(draw: st.DrawFn) -> SeededView:
    tokens = draw(st.permutations(range(VOCABULARY)))
    gaps = draw(st.lists(st.floats(0.0, 1.0), max_size=4))
    return view(tokens[0], list(zip(tokens[1:], gaps, strict=False)))


@given(views(), views(), st.floats(0, 1), st.integers(0, VOCABULARY - 1))
def test_no_honest_law_gives_a_factor_a_mean_above_one(
    null: SeededView, other: SeededView, share: float, outside: int
) -> None:
    limits = null.limits()[0]
    if limits.sum() + NOISE.floor > 1:
        return
    law = np.zeros(VOCABULARY)
    for token, limit in zip(null.outcomes[0, 1:], limits, strict=True):
        if token >= 0:
            law[token] = share * limit
    known = set(null.outcomes[0].tolist())
    if outside not in known:
        law[outside] = share * NOISE.floor
    law[null.winner[0]] = 1 - law.sum()
    mean = sum(
        law[token] * math.exp(log_factors(null, other, np.array([token]))[0]) for token in range(VOCABULARY)
    )
    assert mean <= 1 + 1e-9


@given(views())
def test_the_softmax_bet_is_valid_too(null: SeededView) -> None:
    logits = np.linspace(0, 3, VOCABULARY, dtype=np.float32)[None]
    other = SoftmaxView(logits, 1.0, NOISE)
    winner = null.winner
    assert log_factors(null, other, winner)[0] <= 1e-12


@given(views(), st.integers(0, VOCABULARY - 1))
def test_weights_of_all_bets_sum_to_one(null: SeededView, token: int) -> None:
    bets = bets_of(null, {"a": null, "b": null}, np.array([token]), ("a", "b"))
    assert math.isclose(sum(math.exp(bet.log_weight) for bet in bets), 1, rel_tol=1e-9)


def test_a_bet_on_the_right_token_gains_more_than_the_alarm() -> None:
    null = view(0, [(1, 0.1)])
    swapped = view(1, [(0, 0.1)])
    claimed = np.array([1])
    best_alarm = max(bet[0] for _, bet in alarm_bets(null, claimed))
    assert log_factors(null, swapped, claimed)[0] > best_alarm > 0


def test_a_deviation_that_begins_late_is_found_soon_after() -> None:
    honest = view(0, [])
    evidence = Evidence(1e-3, ())
    for _ in range(400):
        evidence.add(honest, {}, np.array([0]))
    assert not evidence.crossed_at
    for _ in range(10):
        evidence.add(honest, {}, np.array([5]))
    assert 400 < evidence.crossed_at <= 406


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_honest_streams_do_not_alarm(seed: int) -> None:
    generator = np.random.default_rng(seed)
    evidence = Evidence(1e-3, ("int4",))
    for _ in range(30):
        count = 20
        gaps = np.full((count, 4), np.inf)
        ids = np.full((count, 4), -1)
        gaps[:, 0], ids[:, 0] = generator.uniform(0, 1, count), 1
        null = SeededView(np.zeros(count, np.int64), gaps, ids, np.zeros(count), NOISE)
        other = SeededView(
            np.where(generator.random(count) < 0.1, 1, 0), gaps, 1 - ids, np.zeros(count), NOISE
        )
        _, near = NOISE.model.probabilities(gaps)
        claimed = (generator.random(count) < near[:, 0]).astype(np.int64)
        evidence.add(null, {"int4": other}, claimed)
    assert not evidence.crossed_at


def test_an_honest_stream_excludes_what_it_is_not() -> None:
    declared, other = view(0, []), view(1, [])
    exclusions = Exclusions(1e-3)
    for _ in range(3):
        exclusions.add(declared, {"other": other, "same": declared}, np.array([0]))
    assert exclusions.excluded("other")
    assert not exclusions.excluded("same")


@given(views(), st.floats(0, 1), st.integers(0, VOCABULARY - 1))
def test_no_honest_law_gives_a_bet_without_a_configuration_a_mean_above_one(
    null: SeededView, share: float, outside: int
) -> None:
    limits = null.limits()[0]
    if limits.sum() + NOISE.floor > 1:
        return
    law = np.zeros(VOCABULARY)
    for token, limit in zip(null.outcomes[0, 1:], limits, strict=True):
        if token >= 0:
            law[token] = share * limit
    if outside not in set(null.outcomes[0].tolist()):
        law[outside] = share * NOISE.floor
    law[null.winner[0]] = 1 - law.sum()
    said = np.arange(VOCABULARY)
    each = [alarm_bets(null, said[token : token + 1]) for token in said]
    for bet in range(len(each[0])):
        mean = sum(law[token] * math.exp(each[token][bet][1][0]) for token in said)
        assert mean <= 1 + 1e-9


def test_one_token_that_was_no_near_tie_is_enough_for_an_unlisted_deviation() -> None:
    trusting = replace(NOISE, floor=1.2e-4, kappa=1.0)
    null = replace(view(0, []), noise=trusting)
    evidence = Evidence(1e-2, ("int4",))
    evidence.add(null, {}, np.array([5]))
    assert evidence.crossed_at == 1


def test_families_share_alike() -> None:
    weights = configuration_weights(
        ("int8", "int4", "greedy", "temperature-1", "unseeded-1", "system-prompt")
    )
    assert math.isclose(sum(weights.values()), 1)
    assert math.isclose(weights["int8"] + weights["int4"], weights["system-prompt"])
    assert math.isclose(weights["greedy"], weights["system-prompt"] / 3)


def test_the_seeds_evidence_is_an_e_value_and_grows_under_any_logits() -> None:
    generator = np.random.default_rng(0)
    noise = generator.gumbel(size=(400_000,))
    assert np.exp(log_seed_evidence(noise)).mean() < 1.02
    logits = generator.standard_normal((2000, 40))
    drawn = generator.gumbel(size=logits.shape)
    said = (logits + drawn).argmax(axis=1)
    assert log_seed_evidence(drawn[np.arange(2000), said]).sum() > 200
    assert log_seed_evidence(generator.gumbel(size=2000)).sum() < 0


def test_a_prompt_of_another_length_is_named_by_where_the_noise_stands() -> None:
    """Tokens drawn by the seed from logits that nobody knows, eleven positions further on."""
    generator, profile = np.random.default_rng(1), get_profile("murmur3-gumbel/f64")
    size, count, likelihoods = 64, 40, Likelihoods(("declared", "unseeded-1"))
    noise = ProbeNoise(
        NoiseModel(FlipCurve(0.05, 4.0, 0.6), FlipCurve(0.08, 4.0, 0.6), size, 1e-4, 0, 0, 0), 1e-3, "a test"
    )
    assert isinstance(profile, GumbelProfile)
    here = np.arange(count)
    for answer in range(6):
        theirs = generator.standard_normal((count, size)).astype(np.float32)
        address = NoiseAddress.of_response(answer, 20 + 11, count)
        said = profile.choose(theirs, SamplingParameters(), address)
        evidence = []
        for shift in SHIFTS:
            moved = NoiseAddress.of_response(answer, max(20 + shift, 1), count)
            evidence.append(log_seed_evidence(profile.noise(moved, size).at(here, said)).sum())
        none = SeededView(
            np.zeros(count, np.int64), np.full((count, 4), np.inf), np.full((count, 4), -1),
            np.zeros(count), noise,
        )  # fmt: skip
        soft = SoftmaxView(np.zeros((count, size), np.float32), 1.0, noise)
        question = Question(answer, Prompt("text", "x"), (1,) * 20, SamplingParameters(), answer, count)
        views: dict[str, View] = {"declared": none, "unseeded-1": soft}
        likelihoods.add(Scored(question, said, views, "", np.array(evidence)))
    found = likelihoods.explain()
    assert (found.best, found.follows_seed, found.shift) == (UNLISTED, True, 11)
