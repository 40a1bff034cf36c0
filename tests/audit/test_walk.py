"""Walks against an enumeration of every transcript inside the sets, and what an audit says of them."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audit.conftest import TAP_KEYS, Setting
from ullage.audit.admissible.profile_sets import profile_sets
from ullage.audit.admissible.walk import (
    WALKS_EACH,
    RecordWalks,
    WalkPlan,
    choose_records,
    is_walkable,
    walk,
    walk_all,
)
from ullage.audit.admissible.walk_figures import (
    RecordBits,
    count_bits,
    figures,
    log2_shares,
    path_bits,
    walk_bits,
)
from ullage.audit.bounds.capacity import bootstrap_ratio, clustered_ratio, knuth_count
from ullage.claims import Bound, Claim, Evidence
from ullage.errors import UndecidedError, UsageError
from ullage.log.reader import LogReader
from ullage.log.record import Record
from ullage.log.sealed.openers import load_opener
from ullage.model.reference import Reference
from ullage.sampling.address import NoiseAddress
from ullage.sampling.profiles import get_profile

PROFILE = get_profile("murmur3-gumbel/f64")


@pytest.fixture(scope="module")
def reference(model: Path) -> Reference:
    return Reference.load(model)


def shortened(log: Path, counter: int, tokens: int) -> Record:
    record = LogReader.open(log, opener=load_opener(TAP_KEYS[0])).record(counter)
    parameters = record.open.parameters.model_copy(update={"max_tokens": tokens})
    return Record(record.open.model_copy(update={"parameters": parameters}), close=record.close)


@pytest.mark.parametrize(("counter", "bound"), [(0, 0.6), (1, 0.6), (2, 0.6)])
def test_walks_agree_with_an_enumeration(
    logs: dict[str, Path], reference: Reference, counter: int, bound: float
) -> None:
    """Of temperature 1, of filters, and greedy: three tokens, every transcript that the sets allow."""
    record = shortened(logs["small"], counter, 3)
    parameters = reference_parameters(record)
    prompt = record.open.prompt_ids

    @cache
    def members(prefix: tuple[int, ...]) -> tuple[int, ...]:
        (logits,) = reference.logits([(*prompt, *prefix, 0)], [len(prompt) + len(prefix)])
        address = NoiseAddress.of_response(record.open.seed, len(prompt), 1, len(prefix))
        return tuple(profile_sets(PROFILE, logits, parameters, address, bound).row(0).tolist())

    def explore(prefix: tuple[int, ...], share: float) -> tuple[int, float]:
        """Transcripts below `prefix`, and the bits that a walk is expected to read there, times `share`."""
        if len(prefix) == 3 or (prefix and prefix[-1] in reference.tokenizer.eos_ids):
            return 1, 0.0
        allowed = members(prefix)
        count, bits = 0, share * math.log2(len(allowed))
        for token in allowed:
            below, more = explore((*prefix, token), share / len(allowed))
            count, bits = count + below, bits + more
        return count, bits

    leaves, entropy = explore((), 1.0)
    walks = 300
    found = walk(reference, PROFILE, record, bound, walks=walks, generator=np.random.default_rng(5))
    assert found.refused == 0
    assert found.bits.mean() == pytest.approx(entropy, abs=5 * found.bits.std() / math.sqrt(walks) + 1e-9)
    products = 2.0**found.log2_products
    assert products.mean() == pytest.approx(leaves, abs=5 * products.std() / math.sqrt(walks) + 1e-9)
    assert knuth_count(found.log2_products).log2_count == pytest.approx(math.log2(products.mean()))
    assert leaves > 1, "a walk with one way to go says nothing"
    assert entropy <= math.log2(leaves) + 1e-9


def reference_parameters(record: Record) -> Any:
    from ullage.audit.recompute import parameters_of

    return parameters_of(record)


def test_the_reference_alone_is_inside_at_no_noise(logs: dict[str, Path], reference: Reference) -> None:
    record = shortened(logs["small"], 0, 8)
    found = walk(reference, PROFILE, record, 0.0, walks=2, generator=np.random.default_rng(0))
    assert not found.bits.any()
    assert found.tokens.tolist() == [8, 8]
    assert found.refused == 0


def test_walks_are_the_same_in_every_run(logs: dict[str, Path], reference: Reference) -> None:
    records = [shortened(logs["honest"], counter, 4) for counter in range(6)]
    plan = WalkPlan(3, b"\x07" * 32, 0.1)
    chosen = choose_records(records, plan)
    assert len(chosen) == 3
    assert chosen != choose_records(records, WalkPlan(3, b"\x08" * 32, 0.1))
    assert choose_records(records, WalkPlan(99, b"", 0.1)) == records
    one, other = (walk_all(reference, PROFILE, records, plan) for _ in range(2))
    assert [walks.record for walks in one] == [record.counter for record in chosen]
    for first, second in zip(one, other, strict=True):
        assert first.log2_products.tolist() == second.log2_products.tolist()
        assert len(first.bits) == WALKS_EACH


def test_only_sets_that_are_known_exactly_are_walked() -> None:
    assert is_walkable(PROFILE)
    assert is_walkable(get_profile("greedy"))
    assert not is_walkable(get_profile("inverse-transform"))
    assert not is_walkable(get_profile("torch-exponential"))


def rows(bits: list[float], tokens: float = 10.0, classes: tuple[str, ...] | None = None) -> RecordBits:
    count = len(bits)
    return RecordBits(
        np.array(bits), np.full(count, tokens), np.full(count, 300.0), classes or ("one",) * count
    )


def test_figures_of_the_worst_class_share_the_error() -> None:
    found = figures(rows([1.0, 2.0, 5.0, 9.0, 100.0], classes=("calm", "calm", "wild", "wild", "lone")))
    assert found.all.per_token.value == pytest.approx(117 / 50)
    assert (found.worst_class, found.classes) == ("wild", 2), "one message gives no interval"
    assert found.worst is not None
    assert found.worst.per_token.value == pytest.approx(0.7)
    assert found.worst.per_token.confidence == pytest.approx(0.975)
    assert found.all.per_text_bit is not None
    assert found.all.per_text_bit.value == pytest.approx(117 / 1500)
    assert log2_shares(found.all.per_token, 4096).value == pytest.approx(117 / 600)
    with pytest.raises(UndecidedError):
        figures(rows([1.0]))
    silent = RecordBits(np.ones(2), np.ones(2), np.zeros(2), ("a", "a"))
    assert figures(silent).all.per_text_bit is None


def test_path_bits_add_what_the_rule_tolerates() -> None:
    added = path_bits(rows([0.0, 10.0]), 0.02, 4096)
    beside = 0.02 * 12 - 0.02 * math.log2(0.02) - 0.98 * math.log2(0.98)
    assert added.bits == pytest.approx([10 * beside, 10 + 10 * beside], rel=1e-3)


def test_counts_and_walks_of_several_records() -> None:
    heavy = RecordWalks(
        0, "one", np.array([0.0, 2.0]), np.array([10.0, 2.0]), np.array([4, 6]), np.array([5, 5])
    )
    even = RecordWalks(1, "one", np.full(2, 3.0), np.full(2, 3.0), np.array([5, 5]), np.array([5, 5]))
    assert (heavy.refused, even.refused) == (1, 0)
    assert walk_bits([heavy, even]).bits.tolist() == [1.0, 3.0]
    counted, trust = count_bits([heavy, even])
    assert counted.bits.tolist() == pytest.approx([math.log2((1024 + 4) / 2), 3.0])
    assert trust.largest_share == pytest.approx(1024 / 1028)
    assert 1 < trust.effective_walks < 1.01
    with pytest.raises(UndecidedError):
        count_bits([])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 50), st.floats(1, 50)), min_size=2, max_size=30))
def test_the_interval_is_the_wider_of_two(pairs: list[tuple[float, float]]) -> None:
    above, below = (np.array(values) for values in zip(*pairs, strict=True))
    clusters = np.arange(len(pairs))
    both, linear = (
        bootstrap_ratio(above, below, clusters, 0.95),
        clustered_ratio(above, below, clusters, 0.95),
    )
    assert both.value == linear.value
    assert both.low <= linear.low <= linear.high <= both.high


def test_the_interval_covers_skewed_ratios() -> None:
    """The lower end is what is claimed: it may lie above the truth in 2.5 % of the windows."""
    generator = np.random.default_rng(3)
    truth, missed, windows = 1.0, 0, 600
    for _ in range(windows):
        bits = generator.lognormal(-0.5, 1.0, size=16) * 10
        missed += bootstrap_ratio(bits, np.full(16, 10.0), np.arange(16), 0.95, resamples=400).low > truth
    assert missed / windows < 0.025


def test_an_audit_states_all_three(setting: Setting) -> None:
    result = setting.audit(setting.window, bound=0.05, capacity=True, walks=6)
    found: dict[str, Claim] = {claim.name: claim for claim in result.claims}
    for kind, direction in (("path", Bound.ESTIMATE), ("walk", Bound.LOWER), ("count", Bound.ESTIMATE)):
        for suffix in ("", "_worst_class"):
            capacity = found[f"token.{kind}_capacity{suffix}"]
            share = found[f"token.{kind}_fraction{suffix}"]
            text = found[f"token.{kind}_fraction_text{suffix}"]
            assert {capacity.bound, share.bound, text.bound} == {direction}
            assert {capacity.evidence, share.evidence, text.evidence} == {Evidence.MEASURED}
            assert capacity.value is not None
            assert share.value == pytest.approx(capacity.value / math.log2(288))
            assert capacity.interval is not None
    walked, counted = found["token.walk_capacity"], found["token.count_capacity"]
    assert walked.interval is not None
    assert walked.value == walked.interval.low
    assert "mean" in walked.sample
    # Per message the logarithm of a mean of products is at least the mean of the logarithms (Jensen).
    assert counted.interval is not None
    assert counted.value is not None
    assert counted.value >= float(walked.sample.split("mean ")[1].split()[0]) - 1e-9


def test_one_message_gives_no_interval(setting: Setting) -> None:
    with pytest.raises(UsageError, match="--walks takes"):
        setting.audit(setting.window, bound=0.05, capacity=True, walks=1)
