"""P~ is a distribution, the fit finds what made the data, and heavy tails are found where they are."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import t as student_t

from ullage.audit.bounds.codelength import token_codelength
from ullage.audit.bounds.noise_model import (
    FlipCurve,
    HonestTokens,
    IsotonicCurve,
    NoiseModel,
    _Cells,
    fit_noise_model,
)
from ullage.errors import MalformedError, UndecidedError, UsageError

STEADY = settings(deadline=None)  # a loaded machine is no failure

CURVE = FlipCurve(0.01, 4.0, 1.0)
SESSIONS = 20
MODEL = NoiseModel(CURVE, CURVE.inflated(2.0), 4096, 1e-4, 1000, 3, 10)
gap_rows = arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(0, 8)),
    elements=st.one_of(st.just(0.0), st.just(math.inf), st.floats(0, 0.2)),
)


def simulate(
    tokens: int, scale: float, degrees: float, seed: int, noisy_session: float = 1.0
) -> HonestTokens:
    """Candidates at exponential gaps, and errors on the logits whose differences are Student's t.

    Only the nearest competes for the win, so that the truth is the curve itself.
    """
    generator = np.random.default_rng(seed)
    gaps = np.cumsum(generator.exponential(0.5, (tokens, 4)), axis=1)
    session = generator.integers(0, SESSIONS, tokens)
    own = np.where(session == 0, noisy_session, 1.0) * scale
    difference = generator.standard_t(degrees, tokens) * own
    chosen = np.where(difference > gaps[:, 0], 0, -1)
    return HonestTokens(np.where(gaps <= 1.0, gaps, math.inf), chosen, session)


@STEADY
@given(gap_rows)
def test_sums_to_one(gaps: NDArray[np.float64]) -> None:
    winner, candidates = MODEL.probabilities(gaps)
    assert winner + candidates.sum(axis=1) == pytest.approx(np.ones(len(gaps)), abs=1e-14)
    assert np.all(winner > 0)
    assert np.all(candidates <= winner[:, None] + 1e-15)
    assert candidates.sum(axis=1) == pytest.approx(MODEL.mismatch_probability(gaps), abs=1e-15)
    # The code over the whole vocabulary: the winner, the columns that hold a candidate, everybody else.
    bits = np.concatenate([winner[:, None], candidates, np.zeros((len(gaps), 1))], axis=1)
    coded = np.exp2(-token_codelength(bits, 4096, 1e-4))
    others = 4096 - 1 - gaps.shape[1]
    assert coded[:, :-1].sum(axis=1) + others * coded[:, -1] == pytest.approx(np.ones(len(gaps)), abs=1e-12)


@STEADY
@given(st.floats(0, 1))
def test_one_candidate_flips_as_the_curve_says(gap: float) -> None:
    """One-sided: half of P(|difference| > gap), so that an exact tie is even."""
    _, candidates = MODEL.probabilities(np.array([[gap, math.inf]]))
    two_sided = 2 * float(student_t(4.0, scale=0.01).sf(gap))
    assert candidates[0, 0] == pytest.approx(two_sided / 2, rel=1e-9)


@pytest.mark.parametrize("candidates", [1, 2, 7])
def test_exact_ties_share_alike(candidates: int) -> None:
    winner, others = MODEL.probabilities(np.zeros((1, candidates)))
    assert [winner[0], *others[0]] == pytest.approx([1 / (candidates + 1)] * (candidates + 1))


def test_probability_of_each_choice() -> None:
    gaps = np.array([[0.001, 0.02, math.inf]] * 5)
    winner, candidates = MODEL.probabilities(gaps)
    found = MODEL.probability_of(gaps, np.array([-1, 0, 1, 2, 3]))
    assert found == pytest.approx([winner[0], candidates[0, 0], candidates[0, 1], 0.0, 0.0])
    with pytest.raises(UsageError):
        MODEL.probability_of(gaps, np.array([-1, 0, 1, 2, 4]))


@STEADY
@given(gap_rows, st.floats(1, 100))
def test_more_noise_means_more_mismatches(gaps: NDArray[np.float64], factor: float) -> None:
    usual = MODEL.mismatch_probability(gaps)
    assert np.all(MODEL.mismatch_probability(gaps, factor) >= usual - 1e-15)
    assert np.all(MODEL.supremum_mismatch_probability(gaps) >= usual - 1e-15)
    assert MODEL.supremum_mismatch_probability(gaps) == pytest.approx(MODEL.mismatch_probability(gaps, 2.0))


@pytest.mark.parametrize(("scale", "degrees"), [(0.01, 5.0), (0.02, 2.0), (0.02, 100.0)])
def test_fit_recovers_the_curve(scale: float, degrees: float) -> None:
    data = simulate(40_000, scale, degrees, seed=1)
    model = fit_noise_model(data, 4096, cutoff=1.0)
    gaps = np.array([0.0, 0.5, 1.0, 2.0, 4.0]) * scale
    truth = student_t(degrees, scale=scale).sf(gaps)
    assert model.curve.probability(gaps) == pytest.approx(truth, rel=0.25, abs=0.004)
    predicted = float(model.mismatch_probability(data.gaps).sum())
    assert predicted == pytest.approx(data.mismatches, rel=0.1)
    assert (model.tokens, model.mismatches, model.sessions) == (40_000, data.mismatches, SESSIONS)


def test_heavy_tails_are_found_and_pay_on_held_out_sessions() -> None:
    heavy = fit_noise_model(simulate(40_000, 0.01, 1.5, seed=2), 4096, cutoff=1.0)
    light = fit_noise_model(simulate(40_000, 0.01, 100.0, seed=3), 4096, cutoff=1.0)
    assert heavy.curve.degrees_of_freedom < 3
    assert light.curve.degrees_of_freedom > 8
    held_out = simulate(50_000, 0.01, 1.5, seed=4)
    gaussian = NoiseModel(
        FlipCurve(heavy.curve.scale, 200.0, 1.0),
        FlipCurve(heavy.curve.scale, 200.0, 1.0),
        4096,
        1e-4,
        1,
        0,
        1,
    )
    bits = [
        token_codelength(model.probability_of(held_out.gaps, held_out.chosen), 4096).mean()
        for model in (heavy, gaussian)
    ]
    assert bits[0] < 0.8 * bits[1]


def test_fit_minimises_the_codelength_of_its_data() -> None:
    """The fast form of the likelihood agrees with the model's own, for every kind of choice."""
    generator = np.random.default_rng(8)
    gaps = np.sort(generator.exponential(0.02, (3000, 3)), axis=1)
    data = HonestTokens(gaps, generator.integers(-1, 4, 3000), np.zeros(3000, np.int64))
    model = NoiseModel(FlipCurve(0.01, 3.0, 0.05), FlipCurve(0.01, 3.0, 0.05), 64, 0.01, 1, 0, 1)
    bits = token_codelength(model.probability_of(gaps, data.chosen), 64, 0.01)
    near: NDArray[np.bool_] = np.any(gaps <= 0.05, axis=1)
    cells = _Cells.of(data.rows(near), 64, cutoff=0.05, floor=0.01)
    assert cells.cost(model.curve) == pytest.approx(math.log(2) * float(bits[near].sum()), rel=1e-3)


def test_noisiest_session_is_the_supremum() -> None:
    even = fit_noise_model(simulate(40_000, 0.01, 5.0, seed=5), 4096, cutoff=1.0)
    uneven = fit_noise_model(simulate(40_000, 0.01, 5.0, seed=5, noisy_session=4.0), 4096, cutoff=1.0)
    assert even.supremum.scale / even.curve.scale < 1.7
    assert 2.2 < uneven.supremum.scale / uneven.curve.scale < 5


def test_fit_without_mismatches_is_finite_and_small() -> None:
    data = simulate(20_000, 1e-9, 5.0, seed=6)
    assert data.mismatches == 0
    model = fit_noise_model(data, 4096, cutoff=1.0)
    assert 1e-7 < model.curve.scale < 1e-3
    assert float(model.mismatch_probability(data.gaps).sum()) < 2


def test_fit_without_candidates_is_undecided() -> None:
    data = HonestTokens(np.full((5, 2), math.inf), np.full(5, -1), np.zeros(5, np.int64))
    with pytest.raises(UndecidedError, match="5 calibration tokens"):
        fit_noise_model(data, 4096, cutoff=1.0)


def test_serialisation_round_trips_exactly() -> None:
    model = fit_noise_model(simulate(20_000, 0.01, 5.0, seed=7), 4096, cutoff=1.0)
    assert NoiseModel.from_dict(json.loads(json.dumps(model.to_dict()))) == model


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"family": "gauss"}, {"scale": 0.1}, {"scale": "nan"}, {"scale": "-1"},
        {"scale": "x"}, {"scale": "1" * 40}, {"degrees_of_freedom": "0.1"}, {"supremum_scale": "0.001"},
        {"floor": "0"}, {"tokens": True}, {"tokens": -1}, {"tokens": 1.5}, {"vocabulary_size": 1},
        {"version": True}, {"more": 1},
    ],
)  # fmt: skip
def test_malformed_models(change: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        NoiseModel.from_dict(MODEL.to_dict() | change)


@pytest.mark.parametrize("missing", sorted(MODEL.to_dict()))
def test_models_with_a_field_missing(missing: str) -> None:
    with pytest.raises(MalformedError):
        NoiseModel.from_dict({key: value for key, value in MODEL.to_dict().items() if key != missing})


JSON_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())
)


@STEADY
@given(st.dictionaries(st.sampled_from(sorted(MODEL.to_dict())), JSON_VALUES))
def test_from_dict_raises_only_our_error(change: dict[str, object]) -> None:
    try:
        model = NoiseModel.from_dict(MODEL.to_dict() | change)
    except MalformedError:
        return
    assert NoiseModel.from_dict(model.to_dict()) == model


def brute_force_isotonic(share: list[float], count: list[int]) -> list[float]:
    """The min-max formula of isotonic regression, falling."""

    def mean(i: int, j: int) -> float:
        return sum(s * c for s, c in zip(share[i:j], count[i:j], strict=True)) / sum(count[i:j])

    n = len(share)
    return [min(max(mean(i, j) for j in range(k + 1, n + 1)) for i in range(k + 1)) for k in range(n)]


@settings(STEADY, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=30))
def test_isotonic_curve(rows: list[tuple[int, bool]]) -> None:
    gap = np.array([row[0] / 8 for row in rows])
    flipped = np.array([row[1] for row in rows])
    curve = IsotonicCurve.fit(gap, flipped)
    edges = np.unique(gap)
    count = [int((gap == edge).sum()) for edge in edges]
    share = [float(flipped[gap == edge].mean()) for edge in edges]
    assert curve.probability(edges) == pytest.approx(brute_force_isotonic(share, count), abs=1e-12)
    assert curve.probability(edges + 0.01) == pytest.approx(curve.probability(edges))
    assert curve.probability(np.array([0.0]))[0] == pytest.approx(curve.probability(edges[:1])[0])


@STEADY
@given(st.lists(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), min_size=1, max_size=4))
def test_isotonic_supremum(sessions: list[list[tuple[float, bool]]]) -> None:
    curves = [
        IsotonicCurve.fit(np.array([row[0] for row in rows]), np.array([row[1] for row in rows]))
        for rows in sessions
    ]
    gaps = np.linspace(0, 1, 50)
    expected = np.max([curve.probability(gaps) for curve in curves], axis=0)
    found = IsotonicCurve.supremum(curves).probability(gaps)
    assert np.all(found >= expected - 1e-15)
    inner = gaps[gaps >= max(curve.edges[0] for curve in curves)]
    assert found[len(gaps) - len(inner) :] == pytest.approx(expected[len(gaps) - len(inner) :])


def test_bad_input() -> None:
    rows = np.zeros(1, np.int64)
    for gaps in (np.array([[-0.1]]), np.array([[math.nan]]), np.zeros(1)):
        with pytest.raises(UsageError):
            HonestTokens(gaps, rows, rows)
    with pytest.raises(UsageError):
        HonestTokens(np.zeros((1, 2)), np.array([3]), rows)
    with pytest.raises(UsageError):
        FlipCurve(0.0, 4.0, 1.0)
    with pytest.raises(UndecidedError):
        IsotonicCurve.fit(np.array([math.inf]), np.array([False]))
    with pytest.raises(UndecidedError):
        IsotonicCurve.supremum([])
