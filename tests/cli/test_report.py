"""`ullage report` as a process: exit codes, one sentence for an error, and what `--json` says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.samples import four_claims, wire_account, write_bundle, write_document


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ullage", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


def test_json_says_what_the_page_shows(tmp_path: Path) -> None:
    write_bundle(tmp_path / "audit", 3, 40)
    claims = write_document(tmp_path / "claims.json", four_claims())
    out = tmp_path / "report.html"
    done = run("--claims", tmp_path / "audit", "--claims", claims, "--out", out, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["verdict"] == "pass"
    assert len(document["claims"]) == 5
    assert document["bytes"] == out.stat().st_size
    inspector, operator = document["fractions"]["inspector"], document["fractions"]["operator"]
    assert inspector["compute"]["standing"] == "missing"
    assert operator["compute"]["at_most"] == pytest.approx(0.03)
    assert "not shown" in out.read_text("utf-8")


def test_half_a_character_in_a_document_does_not_end_the_report(tmp_path: Path) -> None:
    odd = wire_account() | {"unexplained_by_reason": {"\ud800": 6}}
    claims = write_document(tmp_path / "claims.json", four_claims(), **odd)
    done = run("--claims", claims, "--out", tmp_path / "report.html")
    assert (done.returncode, done.stderr) == (0, "")
    assert "unexplained" in (tmp_path / "report.html").read_text("utf-8")


def test_errors_are_sentences(tmp_path: Path) -> None:
    claims = write_document(tmp_path / "claims.json", four_claims())
    cases = {
        (): 2,
        ("--claims", claims, "--key", claims): 2,
        ("--claims", tmp_path / "none.json"): 2,
        ("--claims", claims, "--log", tmp_path): 2,  # no log: a mistake, not one that fails
        ("--claims", claims, "--out", tmp_path / "no" / "page.html"): 4,
    }
    for arguments, code in cases.items():
        done = run(*arguments)
        assert done.returncode == code, done.stderr
        assert done.stderr.startswith("ullage: ")
        assert done.stderr.count("\n") == 1
