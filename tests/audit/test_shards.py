"""Splitting an audit: whole batches, each record once, and no shard that is tried for ever."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.audit.conftest import TAP_KEYS, run_ullage
from ullage.audit.cluster.dispatch import ATTEMPTS, Dispatch
from ullage.audit.cluster.ray_cluster import RayOptions, check_ray, ray_options
from ullage.audit.cluster.shards import Shard, plan_batches, plan_shards
from ullage.audit.recompute import recompute
from ullage.audit.run import AuditRequest, audit_log
from ullage.errors import FaultError, UsageError
from ullage.log.record import ClosePart, OpenPart, Parameters, Record
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader
from ullage.model.batching import BATCH_TOKENS, batches
from ullage.model.reference import Reference
from ullage.sampling.address import NoiseAddress
from ullage.sampling.logits import use_threads
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile

NOTHING = "sha256:" + "0" * 64


def record(number: int, prompt: int, output: int, temperature: str) -> Record:
    """One with so many tokens, all the same."""
    asked = OpenPart(
        bytes_from_client=0, choice=0, counter=number, endpoint="completions", group=number,
        parameters=Parameters(max_tokens=output, stop=(), temperature=temperature, top_k=0, top_p="1.0"),
        prompt_ids=(1,) * prompt, prompt_sources=((prompt, "client"),), request_digest=NOTHING,
        seed=number, stream=False, time_received=0,
    )  # fmt: skip
    close = ClosePart(
        bytes_from_upstream=0, bytes_to_client=0, bytes_to_upstream=0, counter=number, finish_reason="length",
        outcome="complete", output_ids=(2,) * output, released_digest=NOTHING, time_closed=0,
    )  # fmt: skip
    return Record(asked, close=close)


records = st.lists(
    st.tuples(st.integers(1, 700), st.integers(0, 700), st.sampled_from(["0.0", "0.7", "1.0"])), max_size=60
).map(lambda rows: [record(number, *row) for number, row in enumerate(rows)])


@given(st.lists(st.integers(1, 2 * BATCH_TOKENS), max_size=80))
def test_a_batch_that_is_taken_alone_is_that_batch(lengths: list[int]) -> None:
    found = list(batches(lengths))
    assert sorted(number for batch in found for number in batch) == list(range(len(lengths)))
    for batch in found:
        own = [lengths[number] for number in batch]
        assert max(own) * len(own) <= BATCH_TOKENS or len(own) == 1
        assert list(batches(own)) == [list(range(len(own)))]


@given(records, st.integers(1, 40))
def test_every_record_is_in_one_shard(found: list[Record], workers: int) -> None:
    planned = plan_shards(found, workers)
    assert [batch for shard in planned for batch in shard.batches] == plan_batches(found)
    assert sorted(place for shard in planned for batch in shard.batches for place in batch) == list(
        range(len(found))
    )
    assert sum(shard.tokens for shard in planned) == sum(len(one.output_ids) for one in found)
    assert [shard.number for shard in planned] == list(range(len(planned)))
    for batch in plan_batches(found):
        assert len({found[place].open.parameters.temperature for place in batch}) == 1


def test_batches_that_are_scored_alone_have_the_bits_of_all_together(
    logs: dict[str, Path], model: Path
) -> None:
    reader = LogReader.open(logs["many-changed"], None, load_opener(TAP_KEYS[0]))
    found = list(reader.records())
    reference, profile = Reference.load(model), get_profile("murmur3-gumbel/f64")
    together = recompute(reference, profile, found, entropy=True)
    for batch in reversed(plan_batches(found)):
        alone = recompute(reference, profile, [found[place] for place in batch], entropy=True)
        for place, scores in zip(batch, alone, strict=True):
            for name in ("token", "reference", "margin", "rank", "entropy"):
                assert getattr(scores, name).tobytes() == getattr(together[place], name).tobytes()


def test_a_worker_of_one_thread_scores_the_same_bits() -> None:
    logits = np.random.default_rng(3).standard_normal((300, 4096), dtype=np.float32) * 3
    profile, parameters = get_profile("murmur3-gumbel/f64"), SamplingParameters(0.9, 0.9)
    address = NoiseAddress.of_response(7, 3, len(logits))
    many = profile.score(logits, np.zeros(300, np.int64), parameters, address)
    use_threads(1)
    try:
        one = profile.score(logits, np.zeros(300, np.int64), parameters, address)
    finally:
        use_threads(8)
    assert one.reference.tobytes() == many.reference.tobytes()
    assert one.margin.tobytes() == many.margin.tobytes()


@given(st.integers(0, 30), st.integers(1, 5), st.floats(0, 0.1), st.randoms(use_true_random=False))
def test_shards_are_done_once_whatever_is_lost(
    count: int, workers: int, loss: float, chance: random.Random
) -> None:
    """Workers are lost at random, with their shard or before they had one."""
    dispatch = Dispatch([Shard(number, (), number, number) for number in range(count)], 2 * count)
    done: list[int] = []
    busy: list[Shard] = []
    losses: Counter[int] = Counter()
    while dispatch.unfinished:
        while len(busy) < workers and (shard := dispatch.next()) is not None:
            busy.append(shard)
        shard = busy.pop(chance.randrange(len(busy)))
        if losses[shard.number] < ATTEMPTS - 1 and chance.random() < loss:
            losses[shard.number] += 1
            dispatch.worker_lost(shard, "it was unlucky")
        else:
            dispatch.finished(shard)
            done.append(shard.number)
    assert sorted(done) == list(range(count))
    assert dispatch.done_tokens == sum(range(count))
    assert dispatch.lost == sum(losses.values())
    assert dispatch.next() is None


def test_a_shard_that_ends_its_workers_ends_the_audit() -> None:
    shards = [Shard(0, (), 7, 2), Shard(1, (), 7, 1)]
    dispatch = Dispatch(shards, 10)
    for _ in range(ATTEMPTS - 1):
        assert dispatch.next() == shards[0]
        dispatch.worker_lost(shards[0], "memory ran out")
    assert dispatch.next() == shards[0]
    with pytest.raises(FaultError, match="same 7 output tokens, the last one because memory ran out"):
        dispatch.worker_lost(shards[0], "memory ran out")


def test_workers_that_never_start_end_the_audit() -> None:
    dispatch = Dispatch([Shard(0, (), 1, 1)], 2)
    for _ in range(5):
        dispatch.worker_lost(None, "the machine is gone")
    with pytest.raises(FaultError, match="6 workers were lost in a row and none finished anything"):
        dispatch.worker_lost(None, "the machine is gone")


def test_options_that_do_not_go_together_are_refused(logs: dict[str, Path], model: Path) -> None:
    assert ray_options("local", None, None, None) is None
    assert ray_options("ray", "auto", 4, None) == RayOptions("auto", 4, 1)
    with pytest.raises(UsageError, match="local or ray"):
        ray_options("spark", None, None, None)
    with pytest.raises(UsageError, match="belong to --engine ray"):
        ray_options("local", None, 2, None)
    for address in ("ray://head:10001", "head", "head:port", "a" * 300 + ":1", "head:1; rm"):
        with pytest.raises(UsageError, match="not the address of a Ray cluster"):
            check_ray(RayOptions(address))
    for fields in ({"exact": True}, {"reference_url": "http://127.0.0.1:9"}):
        request = AuditRequest(log=logs["small"], model=model, ray=RayOptions(), **fields)
        with pytest.raises(UsageError, match="does not go with --engine ray"):
            audit_log(request)


def test_a_missing_ray_is_one_sentence(
    logs: dict[str, Path], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as the import system marks what cannot be imported
    request = AuditRequest(log=logs["small"], model=model, record_keys=TAP_KEYS[0], ray=RayOptions())
    with pytest.raises(UsageError, match=r"pip install 'ullage\[ray\]'"):
        audit_log(request)


def test_the_command_refuses_workers_without_ray(logs: dict[str, Path]) -> None:
    assert "--engine ray" in run_ullage("audit", logs["small"], "--workers", "2", expect=2).stderr
