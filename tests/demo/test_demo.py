"""The whole demo as a user runs it, and what it leaves behind."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ullage.audit.bundle.folder import verify_bundle
from ullage.claims import read_claims
from ullage.demo.run import PAYLOAD_BYTES, prepare
from ullage.demo.scenarios import SCENARIOS, load_prompts
from ullage.demo.story import Folder
from ullage.errors import ExitCode, UsageError
from ullage.log.keys import load_verifier
from ullage.log.reader import LogReader
from ullage.log.tree.tiles import bundle_at
from ullage.model.builtin import builtin_path

_SECONDS = 280


def ullage(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ullage", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished demo: its folder, and what `--json` printed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    result = ullage("demo", "--out", str(out), "--json", "--quiet", timeout=_SECONDS)
    assert result.returncode == ExitCode.PASS, result.stderr
    return out, json.loads(result.stdout)


def test_honest_servers_pass_and_cheating_ones_fail(demo: tuple[Path, dict[str, Any]]) -> None:
    _, printed = demo
    assert printed["verdicts"] == {
        "honest-float32": "pass", "honest-bfloat16": "pass",
        "int4": "fail", "unseeded": "fail", "payload": "fail",
    }  # fmt: skip


def test_claims_are_those_of_the_audits(demo: tuple[Path, dict[str, Any]]) -> None:
    out, printed = demo
    claims = read_claims(out / "claims.json")
    assert len(claims) == len(printed["claims"])
    names = [claim.name for claim in claims]
    assert names.count("token.mismatch_rate") == len(SCENARIOS)
    assert {"log.integrity", "log.coverage", "prompt.outside_fraction"} <= set(names)
    rates = [claim.value for claim in claims if claim.name == "token.mismatch_rate"]
    assert rates[0] == 0  # the honest float32 server, token for token


def test_every_verdict_is_signed(demo: tuple[Path, dict[str, Any]]) -> None:
    out, _ = demo
    key = load_verifier(out / "keys" / "verifier" / "verdict.pub")
    for scenario in SCENARIOS:
        statement = verify_bundle(out / "audits" / scenario.name, key)
        assert statement is not None


def test_the_payload_was_really_recovered(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = demo
    weights = next(builtin_path().glob("*.safetensors"))
    assert (out / "payload.bin").read_bytes() == weights.read_bytes()[:PAYLOAD_BYTES]
    page = (out / "report.html").read_text("utf-8")
    recovered = re.search(r'<p class="big">([\d,]+) bytes</p>', page)
    assert recovered is not None
    assert int(recovered.group(1).replace(",", "")) > PAYLOAD_BYTES // 2


def test_a_flipped_byte_in_a_log_is_found(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out, _ = demo
    log = tmp_path / "log"
    shutil.copytree(out / "logs" / "honest-bfloat16", log)
    key = str(out / "keys" / "honest-bfloat16" / "log.pub")
    assert ullage("log", "verify", str(log), "--key", key).returncode == ExitCode.PASS
    bundle = log / bundle_at(0, LogReader.open(log).checkpoint.size).path
    entries = bytearray(bundle.read_bytes())
    entries[len(entries) // 2] ^= 1
    bundle.write_bytes(entries)
    result = ullage("log", "verify", str(log), "--key", key)
    assert result.returncode == ExitCode.FAIL
    assert "Traceback" not in result.stderr


def test_there_are_a_hundred_prompts_and_more() -> None:
    prompts = load_prompts()
    assert len({prompt.text for prompt in prompts}) == len(prompts) >= 100
    assert all(scenario.prompts >= 100 for scenario in SCENARIOS)
    assert {prompt.kind for prompt in prompts} == {"chat", "text"}


def test_a_folder_with_foreign_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        prepare(Folder(tmp_path), builtin_path())
    assert (tmp_path / "thesis.txt").read_text() == "mine"
