"""Admissible sets against brute force, the real filters, and each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.audit.box_search import Case, Floats, outcome, perturbations, reach, winners
from ullage.audit.admissible import sets
from ullage.audit.admissible.filter_edges import FilterRule, Integers, Row
from ullage.audit.admissible.noise_error import noise_error, noise_interval, rounded_uniform_interval
from ullage.errors import FaultError, UsageError
from ullage.sampling.address import NoiseAddress
from ullage.sampling.filters import keep_mask
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile

SLACK = 2.0**-39  # p is widened by 2^-40 at least: what is reached, is reached within this


def often(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def found(case: Case, tolerance: float = 0.0, temperature: float = 1.0) -> set[int]:
    result = sets.admissible(
        case.z[None] * temperature,
        case.noise[None],
        temperature=temperature,
        beta=case.beta,
        top_k=case.top_k,
        top_p=case.top_p,
        probability_tolerance=tolerance,
    )
    return set(result.row(0).tolist())


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Small positions with ties, peaks, probabilities that add up to p exactly, filters at edges."""
    size = draw(st.integers(2, 8))
    grid = draw(st.sampled_from((0.0, 0.125, 0.5)))
    spread = draw(st.sampled_from((0.5, 2.0, 6.0)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z = rng.normal(0, spread, size)
    noise = rng.gumbel(size=size) * draw(st.sampled_from((0.0, 1.0, 3.0)))
    if grid:
        z, noise = np.round(z / grid) * grid, np.round(noise / grid) * grid
    if draw(st.booleans()) and size >= 3:
        z[:3] = np.log([0.5, 0.3, 0.2])
    weights = np.sort(np.exp(z - z.max()))[::-1]
    at_edge = float(np.clip(weights[: draw(st.integers(1, size))].sum() / weights.sum(), 0.01, 1.0))
    top_p = draw(st.sampled_from((1.0, 0.05, 0.5, 0.7, 0.9, 0.99, at_edge)))
    beta = draw(st.sampled_from((0.0, 1e-6, 0.0625, 0.125, 0.25, 0.5, 1.0)))
    return Case(z, noise, draw(st.integers(0, size)), top_p, beta)


@often(250)
@given(cases(), st.integers(0, 2**32 - 1), st.sampled_from((0.0, 1e-3)))
def test_no_perturbation_reaches_a_token_outside(case: Case, seed: int, tolerance: float) -> None:
    inside = found(case, tolerance)
    for x in perturbations(case, np.random.default_rng(seed), 60):
        assert winners(case, x, tolerance) <= inside


@often(400)
@given(cases(), st.sampled_from((0.0, 1e-3)))
def test_every_member_is_reached(case: Case, tolerance: float) -> None:
    wider = replace(case, beta=case.beta * (1 + 1e-9) + 1e-12)
    for y in found(case, tolerance):
        x = reach(wider, y, tolerance + SLACK)
        assert x is not None
        assert np.abs(x - case.z).max() <= wider.beta + 1e-12
        assert outcome(wider, x, y, tolerance + SLACK) == (True, False)


@often(150)
@given(cases(), st.integers(0, 2**32 - 1))
def test_the_samplers_own_filters_stay_inside(case: Case, seed: int) -> None:
    inside = found(case)
    parameters = SamplingParameters(1.0, case.top_p, case.top_k)
    points = np.array(list(perturbations(case, np.random.default_rng(seed), 20)))
    kept = keep_mask(points, parameters)
    chosen = np.where(kept, points + case.noise, -np.inf).argmax(axis=1)
    assert set(chosen.tolist()) <= inside
    for x, y in zip(points, chosen, strict=True):
        assert int(y) in winners(case, x, SLACK)


@often(150)
@given(cases(), st.floats(0, 0.3), st.integers(0, 2**32 - 1))
def test_noise_known_up_to_an_error(case: Case, error: float, seed: int) -> None:
    """Separate bounds on the noise are sound, and no wider than adding the error to beta."""
    bounds = sets.NoiseInterval((case.noise - error)[None], (case.noise + error)[None])
    rule: dict[str, Any] = {
        "temperature": 1.0, "top_k": case.top_k, "top_p": case.top_p, "probability_tolerance": 0.0,
    }  # fmt: skip
    inside = set(sets.admissible(case.z[None], bounds, beta=case.beta, **rule).row(0).tolist())
    assert inside <= found(replace(case, beta=case.beta + error + 1e-12), SLACK)
    rng = np.random.default_rng(seed)
    for x in perturbations(case, rng, 20):
        shift = error * rng.choice((-1.0, 0.3, 1.0), len(x))
        assert winners(replace(case, noise=case.noise + shift), x) <= inside


@often(200)
@given(cases())
def test_a_larger_bound_only_adds(case: Case) -> None:
    assert found(case) <= found(replace(case, beta=case.beta * 1.5 + 1e-3))


@pytest.mark.parametrize("temperature", [0.05, 0.7, 1.0, 3.0])
def test_without_filters_the_margin_decides(temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits, noise = rng.normal(0, 2, (50, 64)), rng.gumbel(size=(50, 64))
    score = logits / temperature + noise
    b = 0.3
    expected = score.max(axis=1, keepdims=True) - score <= 2 * b / temperature
    result = sets.admissible(logits, noise, temperature=temperature, beta=b / temperature)
    assert np.array_equal(result.counts, expected.sum(axis=1))
    margin = temperature * (score.max(axis=1, keepdims=True) - score)
    assert np.array_equal(sets.is_within_margin(margin, b), expected)


def test_perturbed_order_counts_not_the_references() -> None:
    """A cumulative sum in the reference's order loses a token that a perturbation lifts past another."""
    z, p, beta = np.log([0.6, 0.21, 0.19]), 0.7, 0.1
    case = Case(z, np.array([-9.0, 0.0, 9.0]), 0, p, beta)
    above, rest = np.exp(z[:2] - beta).sum(), np.exp(z[2] + beta)
    assert above / (above + rest) >= p  # the reference's order: token 2 can never be kept
    assert winners(case, z + beta * np.array([-1, -1, 1])) == {2}
    assert 2 in found(case)


def test_a_token_that_must_be_dropped_may_hold_mass_on_the_way() -> None:
    """Survival may use the mass of tokens beyond what lets them lose, as they are dropped in the end.

    Capping that mass by what the claimed token beats (min(z + beta, y' + g_y - g_v)) loses a reachable token.
    """
    beta, p = 0.5, 0.9
    z = np.log([0.89, 0.06, 0.05]) + np.array([beta, -beta, -0.45])
    noise = np.array([-10.0, 0.0, np.log(0.06 / 0.05) + 0.9])
    case = Case(z, noise, 0, p, beta)
    highest = z[1] + beta
    cap = min(z[2] + beta, highest - noise[2])
    assert cap > z[2] - beta  # token 2 is not bound to beat token 1
    above = np.exp(z[0] - beta)
    assert above / (above + np.exp(highest) + np.exp(cap)) >= p  # with the cap: token 1 never survives
    x = np.log([0.89, 0.06, 0.05])
    assert np.abs(x - z).max() <= beta + 1e-12
    assert winners(case, x) == {1}
    assert 1 in found(case)


def test_ties_at_the_kth_value_hold_mass_beyond_k_tokens() -> None:
    """Engines keep all ties, so more than k tokens may count: here two share place 2 of 2."""
    beta, p = 0.1, 0.75
    z = np.log([0.7, 0.15, 0.16]) + np.array([beta, -beta, -beta])
    case = Case(z, np.array([-10.0, 0.0, 9.0]), 2, p, beta)
    assert p <= 0.7 / (0.7 + 0.16)  # k = 2 tokens: token 2 is dropped at its very best
    x = np.log([0.7, 0.15, 0.15])
    assert np.abs(x - z).max() <= beta + 1e-12
    kept = keep_mask(x[None], SamplingParameters(1.0, p, 2))
    assert np.where(kept[0], x + case.noise, -np.inf).argmax() == 2
    assert winners(case, x) == {1, 2}  # each of the two in one order of the sort
    assert {1, 2} <= found(case)


FILTERS = [(0, 1.0), (0, 0.95), (0, 0.3), (50, 1.0), (20, 0.8), (5, 0.5), (1, 0.9)]


@pytest.mark.parametrize(("top_k", "top_p"), FILTERS)
def test_blocks_of_rows_equal_single_rows_without_thresholds(top_k: int, top_p: float) -> None:
    rng = np.random.default_rng(top_k)
    logits = rng.normal(0, 2.5, (60, 200)).astype(np.float32)
    logits[::3] = np.round(logits[::3] * 4) / 4
    noise, beta = rng.gumbel(size=logits.shape), rng.choice([0.0, 0.02, 0.2, 0.8], len(logits))
    arguments: dict[str, Any] = {
        "temperature": 0.8, "top_k": top_k, "top_p": top_p, "probability_tolerance": 1e-6,
    }  # fmt: skip
    result = sets.admissible(logits, noise, beta=beta, **arguments)
    rule = FilterRule.of(top_k, top_p, 200, 1e-6)
    for t in range(len(logits)):
        z = (logits[t].astype(np.float64) - logits[t].max()) / 0.8
        wide = float(beta[t] + 2.0**-45 * (1 + beta[t]))
        row = Row.of(z, noise[t], noise[t], beta=wide, relevant=-np.inf, rule=rule)
        expected = sorted(int(row.tokens[i]) for i in range(200) if row.admits(i))
        assert result.row(t).tolist() == expected
        one = sets.admissible(logits[t : t + 1], noise[t : t + 1], beta=beta[t], **arguments)
        assert one.row(0).tolist() == expected
    asked: list[int] = []

    def on_demand(rows: Integers, tokens: Integers) -> Floats:
        asked.append(len(tokens))
        return np.asarray(noise[rows, tokens])

    lazily = sets.admissible(logits, on_demand, beta=beta, **arguments)
    assert np.array_equal(lazily.offsets, result.offsets)
    assert np.array_equal(lazily.tokens, result.tokens)
    assert sum(asked) < logits.size or (top_k, top_p) == (0, 1.0)
    for offset in range(0, 200, 7):
        claimed = (np.arange(len(logits)) * 31 + offset) % 200
        members = [int(claimed[t]) in result.row(t) for t in range(len(logits))]
        assert sets.is_admissible(logits, noise, claimed, beta=beta, **arguments).tolist() == members
    own = np.array([result.row(t)[-1] for t in range(len(logits))])
    assert sets.is_admissible(logits, noise, own, beta=beta, **arguments).all()


@pytest.mark.parametrize(
    "name", ["murmur3-gumbel/f64", "murmur3-gumbel/f32", "splitmix64-gumbel", "sglang-murmur"]
)
@pytest.mark.parametrize(("top_k", "top_p"), FILTERS)
def test_the_reference_is_a_member_and_margins_agree(name: str, top_k: int, top_p: float) -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 3, (40, 300)).astype(np.float32)
    profile, parameters = get_profile(name), SamplingParameters(0.9, top_p, top_k)
    address = NoiseAddress.of_response(77, 5, len(logits))
    reference = profile.choose(logits, parameters, address)
    noise = profile.noise(address, 300).at(np.arange(40)[:, None], np.arange(300)[None])  # type: ignore[attr-defined]
    for given_noise in (noise, noise_interval(name, noise)):
        result = sets.admissible(
            logits,
            given_noise,
            temperature=0.9,
            beta=0.0,
            top_k=top_k,
            top_p=top_p,
            probability_tolerance=0.0,
        )
        assert [result.row(t).tolist() for t in range(40)] == [[y] for y in reference.tolist()]
    wide = sets.admissible(logits, noise, temperature=0.9, beta=0.1, top_k=top_k, top_p=top_p)
    for t in range(40):
        tokens = wide.row(t)
        rows = np.full(len(tokens), t)
        margin = profile.score(logits[rows], tokens, parameters, _rows(address, rows)).margin
        inside = margin[np.isfinite(margin)]
        if not top_k and top_p == 1:
            assert (inside <= 2 * 0.09 + 1e-9).all()


def _rows(address: NoiseAddress, rows: Integers) -> NoiseAddress:
    return NoiseAddress(address.seeds[rows], address.positions[rows], address.steps[rows])


def test_greedy() -> None:
    logits = np.array([[1.0, 0.8, 0.2], [0.0, 0.0, -1.0]])
    result = sets.admissible(logits, np.zeros((2, 3)), temperature=0, beta=0.11)
    assert [result.row(t).tolist() for t in range(2)] == [[0, 1], [0, 1]]
    assert sets.is_greedy_admissible(logits, np.array([2, 1]), np.array([0.4, 0.0])).tolist() == [True, True]
    assert sets.is_greedy_admissible(logits, np.array([2, 2]), 0.39).tolist() == [False, False]


@pytest.mark.parametrize("b", [0.0, 0.05, 0.4])
def test_inverse_transform_without_filters_is_the_margin(b: float) -> None:
    from ullage.sampling.inverse_transform import uniforms

    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, (60, 40)).astype(np.float32)
    profile, parameters = get_profile("inverse-transform"), SamplingParameters(0.7)
    address = NoiseAddress.of_response(5, 3, len(logits))
    result = sets.inverse_transform_admissible(
        logits, uniforms(address), temperature=0.7, beta=b / 0.7, probability_tolerance=0.0
    )
    for y in range(40):
        margin = profile.score(logits, np.full(60, y), parameters, address).margin
        assert (margin <= 2 * b).tolist() == [y in result.row(t) for t in range(60)]


@often(150)
@given(cases(), st.floats(0.001, 0.999), st.integers(0, 2**32 - 1))
def test_inverse_transform_with_filters_is_sound(case: Case, uniform: float, seed: int) -> None:
    result = sets.inverse_transform_admissible(
        case.z[None], np.array([uniform]), temperature=1.0, beta=case.beta, top_k=case.top_k,
        top_p=case.top_p, probability_tolerance=1e-12,
    )  # fmt: skip
    points = np.array(list(perturbations(case, np.random.default_rng(seed), 40)))
    kept = keep_mask(points, SamplingParameters(1.0, case.top_p, case.top_k))
    cumulative = np.cumsum(np.where(kept, np.exp(points), 0.0), axis=1)
    chosen = (cumulative > uniform * cumulative[:, -1:]).argmax(axis=1)
    assert set(chosen.tolist()) <= set(result.row(0).tolist())


def test_hard_inputs() -> None:
    noise = np.random.default_rng(4).gumbel(size=(2, 6))
    noise[0, 0] = -np.inf
    logits = np.array([[0.0, -np.inf, -np.inf, -2.0, -np.inf, 1.0], [1e4, 0, 0, 0, 0, 0]])
    for top_k, top_p in ((0, 1.0), (3, 1.0), (0, 0.9), (3, 0.9), (4, 0.0)):
        for temperature in (1e-3, 1.0):
            for beta in (0.0, 1.0, 1e4):
                result = sets.admissible(
                    logits, noise, temperature=temperature, beta=beta, top_k=top_k, top_p=top_p
                )
                assert (result.counts >= 1).all()
                assert not {1, 2, 4} & set(result.row(0).tolist())
    with pytest.raises(FaultError):
        sets.admissible(np.array([[0.0, np.nan]]), np.zeros((1, 2)), temperature=1.0, beta=0.1)
    with pytest.raises(UsageError):
        sets.admissible(logits, noise, temperature=1.0, beta=-0.1)
    with pytest.raises(UsageError):
        sets.admissible(logits, noise, temperature=1.0, beta=0.1, top_p=1.5)
    with pytest.raises(UsageError):
        sets.is_admissible(logits, noise, np.array([0, 6]), temperature=1.0, beta=0.1)
    empty = sets.admissible(logits[:0], noise[:0], temperature=1.0, beta=0.1)
    assert len(empty) == 0


def test_float32_noise_stays_within_its_bounds() -> None:
    """The engine's arithmetic in float32, by numpy, against the float64 replay."""
    hashes = np.concatenate((
        np.random.default_rng(6).integers(0, 2**32, 200_000, dtype=np.uint64),
        np.arange(2000, dtype=np.uint64), 2**32 - 1 - np.arange(2000, dtype=np.uint64),
    ))  # fmt: skip
    exact = (hashes.astype(np.float64) + 0.5) * 2.0**-32
    rounded = exact.astype(np.float32)
    with np.errstate(divide="ignore"):
        engine = -np.log(-np.log1p(-rounded))
        replay = -np.log(-np.log1p(-rounded.astype(np.float64)))
        crude = -np.log(-np.log1p(-((hashes.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-32))))
    finite = np.isfinite(replay)
    error = noise_error("murmur3-gumbel/f32", replay, 0.0)
    assert (np.abs(engine[finite] - replay[finite]) <= error[finite]).all()
    assert error.max() < 2e-5
    bounds = rounded_uniform_interval(-np.log(-np.log1p(-exact)), 0.0)
    assert (bounds.lower <= crude).all()
    assert (crude <= bounds.upper).all()
    width = bounds.upper - bounds.lower
    assert width[exact < 0.5].max() < 1e-4
    assert np.isinf(width[exact > 1 - 2.0**-25]).all()
    with pytest.raises(UsageError):
        noise_error("unheard-of", replay)
    assert noise_error("murmur3-gumbel/f64", np.array([-3.0, 23.0])).max() < 1e-12
