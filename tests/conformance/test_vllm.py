"""The whole way with a real vLLM on the CPU: `make conformance-vllm`."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import engines
from tests.conformance.conftest import Report
from tests.conformance.processes import ullage
from tests.conformance.quantised import write_int4
from tests.conformance.way import Way, through_tap

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not engines.is_installed(engines.VLLM), reason="vLLM is not installed: run `make conformance-vllm`"
    ),
]

PROFILE = ("--profile", "splitmix64-gumbel")
NOISE_BOUND = 1e-3
"""Raw logits. Two float32 passes of one model differ by about 1e-5 (`docs/serving.md`)."""
TOKENS_TO_PASS = 24_000
"""Without a mismatch, 23,026 tokens put the rate below 0.02 % at 99 %."""


@pytest.fixture(scope="module")
def honest(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with engines.vllm(model, tmp_path_factory.mktemp("honest")) as url:
        yield url


@pytest.fixture(scope="module")
def int4(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("int4")
    with engines.vllm(write_int4(model, folder / "weights"), folder) as url:
        yield url


def test_every_seeded_token_is_explained_and_the_audit_passes(
    honest: str, tmp_path: Path, report: Report
) -> None:
    began = time.monotonic()
    way = through_tap(honest, tmp_path, TOKENS_TO_PASS, *PROFILE)
    seconds = time.monotonic() - began
    assert (way.seen.faults, way.failures()) == ([], [])
    assert len(way.seen.ways) == 8  # chat and completions, streamed and not, one choice and three
    records = way.records()
    assert {record.close.outcome for record in records if record.close} == {"complete"}
    assert {record.close.finish_reason for record in records if record.close} == {"stop", "length"}

    code, found = way.audit()
    margins = way.margins()
    seeded = sum(
        len(record.output_ids) for record in records if float(record.open.parameters.temperature) > 0
    )
    explained = sum(margin <= NOISE_BOUND for margin in margins)
    report(
        requests=way.seen.requests, records=len(records), tokens=len(margins), seeded_tokens=seeded,
        explained=explained, mismatches=found["mismatches"], largest_margin=max(margins),
        verdict=found["verdict"], reasons=found["reasons"], tokens_per_second=len(margins) / seconds,
        fingerprints=sorted({str(r.close.upstream_fingerprint) for r in records if r.close}),
    )  # fmt: skip
    assert seeded >= 5_000
    assert explained == len(margins) == way.seen.output_tokens
    assert (code, found["verdict"]) == (0, "pass")


def test_an_int4_model_behind_the_same_engine_fails(int4: str, tmp_path: Path, report: Report) -> None:
    way = through_tap(int4, tmp_path, 3_000, *PROFILE)
    code, found = way.audit()
    report(
        tokens=found["tokens"], mismatches=found["mismatches"], verdict=found["verdict"],
        reasons=found["reasons"],
    )  # fmt: skip
    assert (way.seen.faults, way.failures()) == ([], [])
    assert (code, found["verdict"]) == (1, "fail")


def test_another_profile_does_not_explain_the_engine(honest: str, tmp_path: Path, report: Report) -> None:
    way = through_tap(
        honest, tmp_path, 1_000, "--profile", "murmur3-gumbel/f32", settings=[{"temperature": 1.0}]
    )
    code, found = way.audit()
    report(tokens=found["tokens"], mismatches=found["mismatches"], verdict=found["verdict"])
    assert (code, found["verdict"]) == (1, "fail")
    assert found["mismatches"] > 0.2 * found["tokens"]


def test_the_engine_is_the_reference_of_an_audit_of_itself(
    honest: str, tmp_path: Path, report: Report
) -> None:
    """Through `prompt_logprobs` come the same margins as from the weights."""
    way = through_tap(honest, tmp_path, 1_000, *PROFILE, max_tokens=32)
    code, own = way.audit()
    margins = way.margins()
    began = time.monotonic()
    shutil.rmtree(tmp_path / "bundle")
    engine_code, found = way.audit("--reference-url", honest)
    seconds = time.monotonic() - began
    distance = max(abs(one - other) for one, other in zip(way.margins(), margins, strict=True))
    report(
        tokens=found["tokens"], mismatches=found["mismatches"], verdict=found["verdict"],
        largest_difference_of_margins=distance, notes=found["notes"], seconds=seconds,
    )  # fmt: skip
    assert (engine_code, found["mismatches"]) == (code, own["mismatches"])
    assert distance <= NOISE_BOUND


def test_an_engine_judges_other_weights_as_our_pass_does(
    honest: str, int4: str, tmp_path: Path, report: Report
) -> None:
    """The int4 server's log, held against an honest engine: the margins of every wrong token are those of
    our own pass. Held against itself it has none: which weights an engine runs is the verifier's word."""
    way = through_tap(int4, tmp_path, 400, *PROFILE, max_tokens=32)
    code, own = way.audit()
    margins = way.margins()
    shutil.rmtree(tmp_path / "bundle")
    engine_code, found = way.audit("--reference-url", honest)
    pairs = list(zip(way.margins(), margins, strict=True))
    finite = [(one, other) for one, other in pairs if other < math.inf]
    distance = max(abs(one - other) for one, other in finite)
    shutil.rmtree(tmp_path / "bundle")
    by_itself = way.audit("--reference-url", int4)[1]["mismatches"]
    report(
        tokens=found["tokens"], mismatches=found["mismatches"], mismatches_of_our_pass=own["mismatches"],
        largest_margin=max(one for one, _ in finite), largest_difference_of_margins=distance,
        outside_filters=found["outside_filters"], mismatches_by_itself=by_itself, verdict=found["verdict"],
    )  # fmt: skip
    assert (engine_code, found["verdict"]) == (code, own["verdict"]) == (1, "fail")
    assert (found["mismatches"], found["outside_filters"]) == (own["mismatches"], own["outside_filters"])
    assert distance <= NOISE_BOUND
    assert by_itself == 0


def _enforced(upstream: str, folder: Path, tokens: int) -> Way:
    socket = folder / "enforcer.sock"
    with ullage(("enforcer", "--socket", str(socket), *PROFILE), folder / "enforcer.log"):
        return through_tap(upstream, folder, tokens, *PROFILE, "--enforce", str(socket))


def test_enforcement_takes_the_honest_engines_drafts(honest: str, tmp_path: Path, report: Report) -> None:
    way = _enforced(honest, tmp_path, 3_000)
    code, found = way.audit("--exact")
    tallies = way.tallies()
    replaced = sum(tally.replaced for tally in tallies)
    alone = sum(tally.alone for tally in tallies)
    report(
        tokens=found["tokens"], records=len(tallies), drafted=sum(tally.drafted for tally in tallies),
        replaced=replaced, alone=alone, verdict=found["verdict"], exact=found["exact"],
    )  # fmt: skip
    assert (way.seen.faults, way.failures()) == ([], [])
    assert (code, found["verdict"]) == (0, "pass")
    assert found["exact"]["identical"] == found["exact"]["records"] == len(tallies)
    assert replaced <= 1 + len(tallies) // 100
    if not replaced:
        assert alone == 0


def test_enforcement_decodes_on_after_the_int4_engines_first_mismatch(
    int4: str, tmp_path: Path, report: Report
) -> None:
    way = _enforced(int4, tmp_path, 3_000)
    code, found = way.audit("--exact")
    tallies = way.tallies()
    report(
        tokens=found["tokens"], records=len(tallies), drafted=sum(tally.drafted for tally in tallies),
        replaced=sum(tally.replaced for tally in tallies), alone=sum(tally.alone for tally in tallies),
        verdict=found["verdict"], exact=found["exact"],
    )  # fmt: skip
    assert (way.seen.faults, way.failures()) == ([], [])
    assert max(tally.replaced for tally in tallies) == 1  # this profile's noise cannot be continued
    assert sum(tally.alone for tally in tallies) > 0
    assert (code, found["verdict"]) == (0, "pass")
    assert found["exact"]["identical"] == found["exact"]["records"] == len(tallies)
