"""All profiles: fast code equals the definition bit for bit in any batch, and every input is checked."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ullage.errors import FaultError, MalformedError, UsageError
from ullage.sampling import logits as shared
from ullage.sampling.address import NoiseAddress
from ullage.sampling.filters import keep_mask, scale
from ullage.sampling.gumbel import GumbelProfile
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import Profile, UnknownProfileError, get_profile, profile_names
from ullage.sampling.scores import Scores, entropy_bits

GUMBEL = tuple(name for name in profile_names() if isinstance(get_profile(name), GumbelProfile))
HASHED = tuple(name for name in GUMBEL if get_profile(name).position_addressed)
PARAMETERS = (
    SamplingParameters(),
    SamplingParameters(0.05),
    SamplingParameters(3.0),
    SamplingParameters(0.8, 0.95),
    SamplingParameters(0.8, 1.0, 7),
    SamplingParameters(1.2, 0.9, 50),
    SamplingParameters(0.0),
)


def dense(
    name: str, logits: np.ndarray, claimed: np.ndarray, chosen: SamplingParameters, address: NoiseAddress
) -> Scores:
    """Scores from the noise of every token and the filters' definition."""
    profile = get_profile(name)
    assert isinstance(profile, GumbelProfile)
    rows, width = logits.shape
    z = scale(logits, chosen.temperature)
    keep = keep_mask(z, chosen)
    noise = profile.noise(address, width).at(np.arange(rows)[:, None], np.arange(width)[None])
    noised = np.where(keep, z + noise, -np.inf)
    own = noised[np.arange(rows), claimed]
    with np.errstate(invalid="ignore"):
        margin = chosen.temperature * (noised.max(axis=1) - own)
    rank = np.where(np.isneginf(own), width, (noised > own[:, None]).sum(axis=1))
    return Scores(noised.argmax(axis=1), margin, rank, entropy_bits(np.where(keep, z, -np.inf)))


def assert_same(one: Scores, other: Scores) -> None:
    """Equal to the last bit."""
    np.testing.assert_array_equal(one.reference, other.reference)
    np.testing.assert_array_equal(one.margin, other.margin)
    np.testing.assert_array_equal(one.rank, other.rank)


def some_logits(generator: np.random.Generator, rows: int, width: int, kind: str) -> np.ndarray:
    logits = generator.standard_normal((rows, width)).astype(np.float32) * 4
    if kind == "coarse":  # like bfloat16: many ties
        logits = np.round(logits)
    if kind == "masked":
        logits[generator.random((rows, width)) < 0.7] = -np.inf
        logits[:, 0] = 0.0
    if kind == "far":
        logits += np.float32(generator.choice([-3e3, 3e4]))
    if kind == "wide":
        logits *= 300
    if kind == "huge":
        logits *= np.float32(1e36)
    return logits


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(GUMBEL),
    st.sampled_from(PARAMETERS[:-1]),
    st.integers(0, 2**32),
    st.sampled_from([1, 2, 33, 1000, 4096]),
    st.tuples(
        st.sampled_from(["fine", "coarse", "masked", "far", "wide", "huge"]),
        st.sampled_from(["honest", "random", "second"]),
    ),
)
def test_fast_scores_equal_the_definition(
    name: str, chosen: SamplingParameters, seed: int, width: int, kinds: tuple[str, str]
) -> None:
    kind, claims = kinds
    generator = np.random.default_rng(seed)
    logits = some_logits(generator, 5, width, kind)
    address = NoiseAddress.of_response(seed * 2**30, 3, 5, first_step=seed % 50)
    profile = get_profile(name)
    claimed = profile.choose(logits, chosen, address)
    np.testing.assert_array_equal(claimed, dense(name, logits, claimed, chosen, address).reference)
    if claims == "random":
        claimed = generator.integers(0, width, 5)
    if claims == "second":
        claimed = np.where(np.arange(width) == claimed[:, None], -np.inf, logits).argmax(axis=1)
    scores = profile.score(logits, claimed, chosen, address, entropy=True)
    expected = dense(name, logits, claimed, chosen, address)
    assert_same(scores, expected)
    np.testing.assert_allclose(scores.entropy, expected.entropy, rtol=1e-9, atol=1e-9)


def test_fast_scores_equal_the_definition_on_many_honest_rows() -> None:
    generator = np.random.default_rng(5)
    logits = some_logits(generator, 600, 4096, "fine")
    logits[::2, 17] += 20  # near-certain rows
    address = NoiseAddress.of_response(99, 12, 600)
    for name in HASHED:
        claimed = get_profile(name).choose(logits, SamplingParameters(), address)
        scores = get_profile(name).score(logits, claimed, SamplingParameters(), address)
        assert_same(scores, dense(name, logits, claimed, SamplingParameters(), address))
        assert not scores.margin.any()
        assert not scores.rank.any()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(profile_names()),
    st.sampled_from(PARAMETERS),
    st.integers(0, 2**32),
    st.lists(st.integers(0, 40), max_size=4),
    st.sampled_from(["C", "F", "strided", "half"]),
)
def test_batches_and_layouts_change_no_bit(
    name: str, chosen: SamplingParameters, seed: int, cuts: list[int], layout: str
) -> None:
    generator = np.random.default_rng(seed)
    rows, width = 40, 1500
    logits = some_logits(generator, rows, width, "fine").astype(np.float16)
    claimed = generator.integers(0, width, rows)
    address = NoiseAddress.concatenate(
        [NoiseAddress.of_response(seed, 4, 25, first_step=3), NoiseAddress.of_response(seed + 1, 4, 15)]
    )
    profile = get_profile(name)
    whole = profile.score(logits.astype(np.float32), claimed, chosen, address, entropy=True)
    wide = logits.astype(np.float32)
    layouts: dict[str, np.ndarray] = {
        "C": wide,
        "F": np.asfortranarray(wide),
        "strided": np.repeat(np.repeat(wide, 2, axis=0), 2, axis=1)[::2, ::2],
        "half": logits,
    }
    given_logits = layouts[layout]
    edges = [0, *sorted(cuts), rows]
    for start, stop in itertools.pairwise(edges):
        part = NoiseAddress(
            address.seeds[start:stop], address.positions[start:stop], address.steps[start:stop]
        )
        scores = profile.score(given_logits[start:stop], claimed[start:stop], chosen, part, entropy=True)
        np.testing.assert_array_equal(scores.reference, whole.reference[start:stop])
        np.testing.assert_array_equal(scores.margin, whole.margin[start:stop])
        np.testing.assert_array_equal(scores.rank, whole.rank[start:stop])
        np.testing.assert_array_equal(scores.entropy, whole.entropy[start:stop])
        np.testing.assert_array_equal(
            profile.choose(given_logits[start:stop], chosen, part), scores.reference
        )


@pytest.mark.parametrize("elements", [1, 3000, 1 << 22])
def test_block_size_and_threads_change_no_bit(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(8)
    logits = some_logits(generator, 70, 1500, "fine")
    claimed = generator.integers(0, 1500, 70)
    address = NoiseAddress.of_response(1, 1, 70)
    settings_here = [SamplingParameters(), SamplingParameters(1, 0.9), SamplingParameters(1, 1, 9)]
    profile = get_profile("murmur3-gumbel/f64")
    before = [profile.score(logits, claimed, chosen, address, entropy=True) for chosen in settings_here]
    for module in ("gumbel", "race"):
        monkeypatch.setattr(f"ullage.sampling.{module}.CACHED_ELEMENTS", elements)
    monkeypatch.setattr("ullage.sampling.gumbel.STREAMED_ELEMENTS", elements)
    monkeypatch.setattr("ullage.sampling.gumbel.STREAMED_ROWS", 1)
    monkeypatch.setattr(shared, "_usable_cores", lambda: 1)
    for chosen, expected in zip(settings_here, before, strict=True):
        scores = profile.score(logits, claimed, chosen, address, entropy=True)
        assert_same(scores, expected)
        np.testing.assert_array_equal(scores.entropy, expected.entropy)


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("chosen", PARAMETERS)
def test_reference_has_no_margin_and_outsiders_an_infinite_one(name: str, chosen: SamplingParameters) -> None:
    generator = np.random.default_rng(4)
    logits = some_logits(generator, 30, 300, "fine")
    logits[:, 250] = -np.inf
    address = NoiseAddress.of_response(2**62, 1, 30)
    profile = get_profile(name)
    claimed = profile.choose(logits, chosen, address)
    scores = profile.score(logits, claimed, chosen, address)
    np.testing.assert_array_equal(scores.reference, claimed)
    assert not scores.margin.any()
    assert not scores.rank.any()
    assert np.isnan(scores.entropy).all()
    outside = profile.score(logits, np.full(30, 250), chosen, address)
    assert np.isinf(outside.margin).all()
    assert (outside.rank == 300).all()
    other = profile.score(logits, (claimed + 1) % 250, chosen, address)
    assert (other.margin > 0).all()
    assert (other.rank > 0).all()
    if chosen.top_k and name != "greedy":
        assert np.isinf(other.margin).sum() > 15


@pytest.mark.parametrize("name", [name for name in profile_names() if name != "greedy"])
def test_tokens_follow_the_distribution(name: str) -> None:
    """Chi-square over 6,000 draws; 4 degrees of freedom; 25 is passed with probability 5e-5."""
    p = np.array([0.5, 0.25, 0.15, 0.07, 0.03])
    rows = 6000
    logits = np.broadcast_to(np.log(p).astype(np.float32), (rows, 5))
    address = NoiseAddress.of_response(31, 1, rows)
    counts = np.bincount(get_profile(name).choose(logits, SamplingParameters(), address), minlength=5)
    assert ((counts - rows * p) ** 2 / (rows * p)).sum() < 25


@pytest.mark.parametrize("name", profile_names())
def test_ties_go_to_the_lowest_id_at_temperature_zero(name: str) -> None:
    logits = np.array([[1.0, 3.0, 3.0, 2.0]], np.float32)
    address = NoiseAddress.of_response(1, 1, 1)
    zero = SamplingParameters(0.0, 0.1, 1)
    assert get_profile(name).choose(logits, zero, address).tolist() == [1]
    for token, margin, rank in [(1, 0, 0), (2, 0, 0), (3, 1, 2), (0, 2, 3)]:
        scores = get_profile(name).score(logits, np.array([token]), zero, address)
        assert (scores.margin[0], scores.rank[0], scores.reference[0]) == (margin, rank, 1)


def test_margin_is_in_raw_logit_units() -> None:
    """At any temperature, lifting the claimed logit by the margin makes it win, and by less does not."""
    generator = np.random.default_rng(6)
    logits = some_logits(generator, 50, 100, "fine")
    address = NoiseAddress.of_response(5, 1, 50)
    claimed = generator.integers(0, 100, 50)
    for name in ("murmur3-gumbel/f64", "splitmix64-gumbel", "torch-exponential", "sglang-murmur"):
        for temperature in (0.3, 1.0, 2.0):
            chosen = SamplingParameters(temperature)
            profile = get_profile(name)
            margin = profile.score(logits, claimed, chosen, address).margin
            for factor, wins in ((1.001, True), (0.999, False)):
                lifted = logits.copy()
                lifted[np.arange(50), claimed] += (margin * factor).astype(np.float32)
                changed = (profile.choose(lifted, chosen, address) == claimed) | (margin < 0.01)
                assert (changed == wins)[margin >= 0.01].all()


def test_entropy_of_known_distributions() -> None:
    logits = np.log(np.array([[0.5, 0.25, 0.25, 1e-30], [0.25, 0.25, 0.25, 0.25]])).astype(np.float32)
    address = NoiseAddress.of_response(5, 1, 2)
    for name in profile_names():
        scores = get_profile(name).score(
            logits, np.array([0, 0]), SamplingParameters(), address, entropy=True
        )
        np.testing.assert_allclose(scores.entropy, [0, 0] if name == "greedy" else [1.5, 2], atol=1e-6)
    scores = get_profile("murmur3-gumbel/f64").score(
        logits, np.array([0, 0]), SamplingParameters(1.0, 1.0, 1), address, entropy=True
    )
    np.testing.assert_allclose(scores.entropy, [0, 2], atol=1e-6)  # all four tie at the first place


@pytest.mark.parametrize("name", profile_names())
@pytest.mark.parametrize("chosen", PARAMETERS)
def test_bad_rows_are_named(name: str, chosen: SamplingParameters) -> None:
    profile: Profile = get_profile(name)
    address = NoiseAddress.of_response(5, 1, 200)
    for bad in (np.nan, np.inf, -np.inf):
        logits = np.zeros((200, 500), np.float32)
        logits[170] = bad
        with pytest.raises(FaultError, match="row 170 "):
            profile.choose(logits, chosen, address)
        with pytest.raises(FaultError, match="row 170 "):
            profile.score(logits, np.zeros(200, np.int64), chosen, address)


@pytest.mark.parametrize("name", profile_names())
def test_bad_arguments(name: str) -> None:
    profile = get_profile(name)
    address = NoiseAddress.of_response(5, 1, 2)
    logits = np.zeros((2, 10), np.float32)
    chosen = SamplingParameters()
    for token in (-1, 10, 2**40):
        with pytest.raises(MalformedError, match=f"Row 1 claims token id {token};"):
            profile.score(logits, np.array([0, token]), chosen, address)
    with pytest.raises(UsageError):
        profile.score(logits, np.array([0.0, 1.0]), chosen, address)
    with pytest.raises(UsageError):
        profile.score(logits, np.array([0]), chosen, address)
    wrongs: list[np.ndarray] = [logits.astype(np.float64), logits[0], logits[:1], logits[:, :0]]
    for wrong in wrongs:
        with pytest.raises(UsageError):
            profile.choose(wrong, chosen, address)
    empty = profile.score(logits[:0], np.empty(0, np.int64), chosen, NoiseAddress.concatenate([]))
    assert len(empty.margin) == 0


def test_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(UnknownProfileError, match="greedy"):
        get_profile("murmur3-gumbel")
    assert len(set(profile_names())) == 8


@pytest.mark.parametrize("name", ["splitmix64-gumbel", "torch-exponential", "inverse-transform"])
def test_sequential_profiles_replay_from_the_first_step(name: str) -> None:
    generator = np.random.default_rng(2)
    logits = some_logits(generator, 12, 50, "fine")
    profile = get_profile(name)
    whole = profile.choose(logits, SamplingParameters(), NoiseAddress.of_response(77, 9, 12))
    tail = profile.choose(logits[5:], SamplingParameters(), NoiseAddress.of_response(77, 9, 7, first_step=5))
    np.testing.assert_array_equal(tail, whole[5:])
    other = profile.choose(logits, SamplingParameters(), NoiseAddress.of_response(77, 1, 12))
    np.testing.assert_array_equal(other, whole)  # positions do not matter
    assert not profile.position_addressed
    with pytest.raises(UsageError, match="steps"):
        profile.choose(
            logits[:1], SamplingParameters(), NoiseAddress.of_response(77, 9, 1, first_step=1 << 30)
        )


@pytest.mark.parametrize("name", HASHED)
def test_hash_profiles_depend_on_positions_not_on_steps(name: str) -> None:
    logits = some_logits(np.random.default_rng(2), 12, 50, "fine")
    profile = get_profile(name)
    one = NoiseAddress.of_response(77, 9, 12)
    same = NoiseAddress(one.seeds, one.positions, one.steps + 5)
    moved = NoiseAddress(one.seeds, one.positions + 1, one.steps)
    whole = profile.choose(logits, SamplingParameters(), one)
    np.testing.assert_array_equal(profile.choose(logits, SamplingParameters(), same), whole)
    assert (profile.choose(logits, SamplingParameters(), moved) != whole).any()
    assert profile.position_addressed


def test_a_forked_child_can_score() -> None:
    program = (
        "import os, numpy as np\n"
        "from ullage.sampling.profiles import get_profile\n"
        "from ullage.sampling.parameters import SamplingParameters\n"
        "from ullage.sampling.address import NoiseAddress\n"
        "run = lambda: get_profile('murmur3-gumbel/f64').choose(\n"
        "    np.zeros((64, 4096), np.float32), SamplingParameters(), NoiseAddress.of_response(1, 1, 64))\n"
        "run()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    run()\n"
        "    os._exit(7)\n"
        "os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 7


def test_torch_is_not_imported_where_it_is_not_needed() -> None:
    program = (
        "import sys, numpy as np\n"
        "from ullage.sampling.profiles import get_profile\n"
        "from ullage.sampling.parameters import SamplingParameters\n"
        "from ullage.sampling.address import NoiseAddress\n"
        "for name in ('murmur3-gumbel/f64', 'inverse-transform', 'greedy', 'sglang-murmur'):\n"
        "    get_profile(name).choose(\n"
        "        np.zeros((2, 9), np.float32), SamplingParameters(), NoiseAddress.of_response(1, 1, 2))\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0
