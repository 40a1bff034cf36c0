"""What can be verified of servers that honour no seed: `make conformance-text`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance import engines
from tests.conformance.conftest import Report
from tests.conformance.processes import ullage
from tests.conformance.way import through_tap

GREEDY = [{"temperature": 0.0}]
PROFILE = ("--profile", "greedy")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def llama(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not engines.is_installed(engines.LLAMA):
        pytest.skip("llama.cpp is not installed: run `make conformance-text`")
    with engines.llama_cpp(model, tmp_path_factory.mktemp("llama")) as url:
        yield url


@pytest.fixture(scope="module")
def transformers(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if not engines.is_installed(engines.TRANSFORMERS):
        pytest.skip("transformers' server is not installed: run `make conformance-text`")
    with engines.transformers(model, tmp_path_factory.mktemp("transformers")) as url:
        yield url


def test_llama_cpp_is_audited_at_temperature_0(llama: str, tmp_path: Path, report: Report) -> None:
    """Token ids come beside log-probabilities. Stop strings are left out: see the next test."""
    way = through_tap(
        llama, tmp_path, 2_000, *PROFILE, "--upstream-ids", "logprobs",
        settings=GREEDY, stops=(None,), max_tokens=48, concurrency=4,
    )  # fmt: skip
    code, found = way.audit()
    report(
        tokens=found["tokens"], mismatches=found["mismatches"], largest_margin=found["largest_margin"],
        verdict=found["verdict"], code=code,
        fingerprints=sorted({str(r.close.upstream_fingerprint) for r in way.records() if r.close}),
    )  # fmt: skip
    assert (way.seen.faults, way.failures()) == ([], [])
    assert found["mismatches"] == 0
    assert code == 3  # sound, and too few tokens to put the rate below the limit


def _enforced(
    upstream: str, folder: Path, tokens: int, *options: str, concurrency: int = 4
) -> dict[str, object]:
    socket = folder / "enforcer.sock"
    with ullage(("enforcer", "--socket", str(socket), *PROFILE), folder / "enforcer.log"):
        way = through_tap(
            upstream, folder, tokens, *PROFILE, "--enforce", str(socket), *options,
            settings=GREEDY, max_tokens=48, concurrency=concurrency,
        )  # fmt: skip
    code, found = way.audit("--exact")
    tallies = way.tallies()
    assert (way.seen.faults, way.failures()) == ([], [])
    assert (code, found["verdict"]) == (0, "pass")
    assert found["exact"]["identical"] == len(tallies)
    return {
        "tokens": found["tokens"], "records": len(tallies), "verdict": found["verdict"],
        "drafted": sum(tally.drafted for tally in tallies), "replaced": sum(t.replaced for t in tallies),
        "alone": sum(tally.alone for tally in tallies),
        "failures": sorted({tally.failure for tally in tallies if tally.failure}),
    }  # fmt: skip


def test_llama_cpp_drafts_under_enforcement(llama: str, tmp_path: Path, report: Report) -> None:
    """With stop strings, too: what the server holds back of them the reference decodes."""
    figures = _enforced(llama, tmp_path, 1_000, "--upstream-ids", "logprobs")
    report(**figures)
    assert figures["drafted"] != 0


def test_transformers_server_drafts_text_under_enforcement(
    transformers: str, model: Path, tmp_path: Path, report: Report
) -> None:
    name = str(model)
    figures = _enforced(
        transformers, tmp_path, 600, "--drafts", "text", "--upstream-model", name, concurrency=1
    )
    report(**figures)
    assert figures["drafted"] != 0


def test_transformers_server_is_refused_without_enforcement(
    transformers: str, model: Path, tmp_path: Path, report: Report
) -> None:
    """It takes no token ids and names none: every answer is an error, and the record says why."""
    way = through_tap(
        transformers, tmp_path, 1, *PROFILE, "--upstream-model", str(model),
        settings=GREEDY, stops=(None,), concurrency=1, requests=2,
    )  # fmt: skip
    details = sorted({record.close.detail for record in way.records() if record.close})
    report(statuses=way.seen.faults, details=details)
    assert len(way.seen.faults) == way.seen.requests == 2
    assert all(fault.startswith("502") for fault in way.seen.faults)
    assert any("the upstream must take a prompt of token ids" in detail for detail in details)


@pytest.mark.parametrize("engine", ["llama", "transformers"])
def test_random_choices_are_refused(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path, report: Report
) -> None:
    """Neither engine's noise is a profile: under `greedy` a temperature is refused before any record."""
    way = through_tap(
        request.getfixturevalue(engine), tmp_path, 1, *PROFILE,
        settings=[{"temperature": 1.0}], concurrency=1, requests=2,
    )  # fmt: skip
    report(statuses=way.seen.faults)
    assert len(way.seen.faults) == 2
    assert all(fault.startswith("400") and "cannot be recomputed" in fault for fault in way.seen.faults)
    assert way.records() == []
