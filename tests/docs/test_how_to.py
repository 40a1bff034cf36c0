"""The how-to pages, run as printed but for ports, sizes of budgets and the engine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.docs.pages import blocks, commands, free_port, play, running
from tests.docs.printed import ROOT
from tests.log.samples import make_keys, make_log
from ullage.claims import Bound, Claim, Evidence, Trust, write_claims

WEIGHTS = ROOT / "src" / "ullage" / "model" / "weights"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights").symlink_to(WEIGHTS)
    return tmp_path


@pytest.mark.slow
def test_a_tap_before_an_engine(folder: Path) -> None:
    """`ullage serve` stands in for vLLM, its profile for vLLM's; `make conformance-vllm` has the real one."""
    port = free_port()
    with running(["ullage", "serve", "--listen", f"127.0.0.1:{port}"], folder):
        runs = play(
            "how-to/tap-before-vllm.md",
            folder,
            ports=("8080", "9100"),
            instead={"127.0.0.1:8000": f"127.0.0.1:{port}", "splitmix64-gumbel": "murmur3-gumbel/f64"},
            codes={"ullage audit": 3},
        )
    assert "murmur3-gumbel/f64" in runs[0].out
    assert "Cannot tell" in (folder / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_a_provider_is_audited(folder: Path) -> None:
    port = free_port()
    with running(["ullage", "serve", "--listen", f"127.0.0.1:{port}"], folder):
        runs = play("how-to/audit-a-provider.md", folder, instead={"127.0.0.1:8000": f"127.0.0.1:{port}"})
    assert "pass" in runs[1].out
    assert "probe.excluded_configurations" in (folder / "provider.html").read_text("utf-8")


def test_a_witness_cosigns_what_grows(folder: Path) -> None:
    make_log(folder / "log", make_keys(folder / "tap-keys"))
    shutil.copy(folder / "tap-keys" / "log.pub", folder / "log.pub")
    runs = play("how-to/run-a-witness.md", folder, ports=("8081",))
    said = {" ".join(run.line.split()[1:3]): run.out for run in runs}
    assert said["log cosign"].startswith("pass: ")
    assert said["log cosign"].rstrip().endswith("witness.example/one")
    assert "evidence" not in said["log verify"]


@pytest.mark.slow
def test_a_machine_is_wiped(folder: Path) -> None:
    play("how-to/wipe-a-machine.md", folder, ports=("8400",))
    names = {claim["name"]: claim for claim in json.loads((folder / "erased.json").read_text())["claims"]}
    assert 0.5 < names["memory.erased_fraction"]["value"] <= 0.75


@pytest.mark.slow
def test_how_slow_is_answered(folder: Path) -> None:
    cap = Claim(
        name="wire.egress_cap", value=1e5, unit="bytes/second", bound=Bound.UPPER, confidence=1.0,
        evidence=Evidence.MEASURED, trusts=(Trust.TAP,), subject="rack",
        method="wire-meter/1", sample="a day",
    )  # fmt: skip
    write_claims(folder / "claims.json", [cap])
    (scenario,) = blocks("how-to/how-slow.md", "yaml")
    (folder / "halls.yaml").write_text(scenario, "utf-8")
    runs = play("how-to/how-slow.md", folder)
    assert "UNCONSTRAINED" in runs[0].out
    assert (folder / "halls.html").stat().st_size > 10_000


def test_every_how_to_page_is_run_here() -> None:
    pages = {page.name for page in (ROOT / "docs" / "how-to").glob("*.md") if commands(f"how-to/{page.name}")}
    assert pages == {
        "tap-before-vllm.md", "audit-a-provider.md", "run-a-witness.md", "wipe-a-machine.md", "how-slow.md",
    }  # fmt: skip
