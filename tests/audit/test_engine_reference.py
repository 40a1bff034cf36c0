"""Recomputation through an engine: what it says is what the whole rows say."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audit.conftest import opened, run_ullage
from tests.support.logprob_engine import LogprobEngine, serving
from ullage.audit.engine.client import EngineClient
from ullage.audit.engine.recompute import recompute_by_engine
from ullage.audit.engine.rows import PartialRows, kept_by_top_p, partial_rows
from ullage.audit.recompute import recompute
from ullage.audit.run import AuditRequest, audit_log
from ullage.errors import MalformedError, UsageError
from ullage.log.keys import load_verifier
from ullage.log.record import Record
from ullage.log.sealed.openers import load_opener
from ullage.log.store import LogReader
from ullage.model.reference import Reference
from ullage.sampling.filters import keep_mask, scale
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile, profile_names

WIDTH = 12
SETTINGS: tuple[dict[str, Any], ...] = (
    {"temperature": "1.0", "top_p": "1.0", "top_k": 0},
    {"temperature": "0.7", "top_p": "1.0", "top_k": 0},
    {"temperature": "1.0", "top_p": "0.9", "top_k": 0},
    {"temperature": "0.5", "top_p": "0.8", "top_k": 0},
    {"temperature": "1.5", "top_p": "0.7", "top_k": 0},
    {"temperature": "0.8", "top_p": "0.9", "top_k": 20},
    {"temperature": "0.0", "top_p": "1.0", "top_k": 0},
)


@pytest.fixture(scope="module")
def reference(model: Path) -> Reference:
    return Reference.load(model)


@pytest.fixture(scope="module")
def records(logs: dict[str, Path], keys: Path) -> list[Record]:
    """Honest answers and some with wrong tokens, under every setting."""
    found = []
    for name in ("honest", "many-changed"):
        reader = LogReader.open(logs[name], load_verifier(keys / "log.pub"), load_opener(keys))
        found += sorted(reader.records(), key=lambda record: record.counter)[:7]
    return [_with(record, SETTINGS[number % len(SETTINGS)]) for number, record in enumerate(found)]


def _with(record: Record, setting: dict[str, Any]) -> Record:
    parameters = record.open.parameters.model_copy(update=setting)
    return replace(record, open=record.open.model_copy(update={"parameters": parameters}))


@pytest.mark.parametrize("name", profile_names())
def test_an_engine_gives_the_scores_of_the_weights(
    name: str, reference: Reference, records: list[Record]
) -> None:
    profile = get_profile(name)
    engine = LogprobEngine(reference)
    right = recompute(reference, profile, records)
    found = recompute_by_engine(engine, profile, records, width=WIDTH)
    for own, other in zip(right, found, strict=True):
        assert own.token.tolist() == other.token.tolist()
        assert own.reference.tolist() == other.reference.tolist()
        np.testing.assert_allclose(other.margin, own.margin, atol=2e-5)
        assert np.all(other.rank >= np.minimum(own.rank, WIDTH))
    if name not in ("greedy", "inverse-transform"):
        assert sum(width == 1 for _, width in engine.asked) > 0  # winners that were not among the largest


@settings(max_examples=100)
@given(
    st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(1, 20), st.floats(0.3, 2.5), st.floats(0.05, 1)
)
def test_top_p_on_partial_rows_is_top_p_on_whole_ones_or_undecided(
    seed: int, vocabulary: int, width: int, temperature: float, top_p: float
) -> None:
    generator = np.random.default_rng(seed)
    raw = generator.standard_normal((3, vocabulary)) * generator.uniform(0.1, 6)
    logits = (raw - np.logaddexp.reduce(raw, axis=1, keepdims=True)).astype(np.float32)
    parameters = SamplingParameters(temperature, top_p)
    width = min(width, vocabulary)
    known = np.zeros_like(logits, dtype=np.bool_)
    for row in range(3):
        known[row, np.argsort(-logits[row], kind="stable")[:width]] = True
    limit = np.where(known, logits, np.inf).min(axis=1, keepdims=True).astype(np.float32)
    kept = kept_by_top_p(PartialRows(np.where(known, logits, limit), known), parameters)
    if kept is None:
        assert width < vocabulary
    else:
        np.testing.assert_array_equal(kept, keep_mask(scale(logits, temperature), parameters))


@pytest.mark.parametrize(
    "entry",
    [None, [], {"5": 1}, {"x": {"logprob": -1}}, {"5": {"logprob": "far"}}, {"5": {"logprob": 0.5}},
     {"5": {"logprob": float("nan")}}, {"99": {"logprob": -1}}, {"4": {"logprob": -1}, "3": {"logprob": -2}},
     {"5": {"logprob": -1}}],
)  # fmt: skip
def test_rows_that_are_none_are_refused(entry: Any) -> None:
    with pytest.raises(MalformedError):
        partial_rows([entry], [5], 10, 2)


def test_the_command_audits_through_an_engine(
    logs: dict[str, Path], model: Path, keys: Path, reference: Reference
) -> None:
    with serving(LogprobEngine(reference)) as url:
        for name, expected in (("honest", 0), ("many-changed", 1)):
            options = ("--key", keys / "log.pub", "--json", "--reference-url", url)
            done = run_ullage("audit", logs[name], "--model", model, *opened(), *options, expect=expected)
            through = json.loads(done.stdout)
            own = audit_log(AuditRequest(logs[name], model, record_keys=keys, log_key=keys / "log.pub"))
            assert through["verdict"] == own.verdict.outcome.value
            assert through["reasons"] == list(own.verdict.reasons)
            assert (through["mismatches"], through["tokens"]) == (own.rate.mismatches, own.rate.tokens)
            assert any("stand-in-1" in note and url in note for note in through["notes"])
            rate = next(claim for claim in through["claims"] if claim["name"] == "token.mismatch_rate")
            assert any(url in assumption for assumption in rate["assumptions"])


def _no_logprobs(answer: dict[str, Any]) -> dict[str, Any]:
    answer["choices"][0].pop("prompt_logprobs")
    return answer


def _fails(answer: dict[str, Any]) -> dict[str, Any]:
    return {"status": 500, "error": "out of memory"}


@pytest.mark.parametrize(("spoil", "said"), [(_no_logprobs, "prompt_logprobs"), (_fails, "status 500")])
def test_an_engine_that_cannot_be_the_reference_is_refused(
    logs: dict[str, Path], model: Path, reference: Reference, spoil: Any, said: str
) -> None:
    with serving(LogprobEngine(reference, spoil)) as url:
        done = run_ullage(
            "audit", logs["small"], "--model", model, *opened(), "--reference-url", url, expect=2
        )
    assert said in done.stderr


class _Breaks:
    """Ends so many connections without an answer: idle ones do end just as they are used again."""

    def __init__(self, times: int) -> None:
        self.times = times

    def __call__(self, answer: dict[str, Any]) -> dict[str, Any]:
        if self.times:
            self.times -= 1
            raise ConnectionResetError
        return answer


def test_a_broken_connection_is_not_an_answer(reference: Reference) -> None:
    size = reference.vocabulary_size
    with serving(LogprobEngine(reference, _Breaks(2))) as url, EngineClient(url, size) as client:
        assert len(client.prompt_logprobs([1, 2, 3], 4)) == 3
    engine = LogprobEngine(reference, _Breaks(3))
    with serving(engine) as url, pytest.raises(UsageError, match="did not answer"):
        EngineClient(url, size).__enter__()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--reference-url", "http://127.0.0.1:9"), "No OpenAI-compatible engine answers"),
        (("--reference-url", "not an address"), "is not an address"),
        (("--reference-url", "http://127.0.0.1:9", "--exact"), "--exact needs the whole distributions"),
        (("--reference-url", "http://127.0.0.1:9", "--entropy"), "--entropy needs the whole distributions"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(
    logs: dict[str, Path], model: Path, options: tuple[str, ...], said: str
) -> None:
    done = run_ullage("audit", logs["small"], "--model", model, *opened(), *options, expect=2)
    assert said in done.stderr
