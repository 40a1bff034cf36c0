"""`ullage audit` and `ullage replay` as processes: exit codes, JSON, and never a traceback."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.audit.conftest import opened, run_ullage
from ullage.claims import Claim
from ullage.log.reader import LogReader
from ullage.log.tree.tiles import bundle_at

Logs = dict[str, Path]


def test_pass_writes_a_bundle_and_nothing_but_json(
    logs: Logs, model: Path, keys: Path, tmp_path: Path
) -> None:
    done = run_ullage(
        "audit", logs["honest"], "--model", model, *opened(), "--keys", keys, "--key", keys / "log.pub",
        "--out", tmp_path / "bundle", "--json", "--quiet", expect=0,
    )  # fmt: skip
    document = json.loads(done.stdout)
    assert document["verdict"] == "pass"
    assert {Claim.model_validate(claim).name for claim in document["claims"]} >= {
        "token.mismatch_rate", "log.integrity", "log.coverage",
    }  # fmt: skip
    assert (tmp_path / "bundle" / "verdict.dsse.json").is_file()
    assert not done.stderr


def test_fail_is_one_and_names_the_first_divergent_step(logs: Logs, model: Path) -> None:
    done = run_ullage("audit", logs["many-changed"], "--model", model, *opened(), expect=1)
    assert "fail: The first divergent step is record 0, output token 1" in done.stdout
    assert "log.integrity" in done.stdout
    assert "vouches for itself" in done.stderr


def test_cannot_tell_is_three(logs: Logs, model: Path) -> None:
    done = run_ullage("audit", logs["empty"], "--model", model, *opened(), "--quiet", expect=3)
    assert "cannot-tell: No token was audited" in done.stdout


def test_what_cannot_be_asked_is_two_and_one_sentence(logs: Logs, model: Path, tmp_path: Path) -> None:
    (tmp_path / "not-a-log").mkdir()
    for arguments in (
        [tmp_path / "nothing"],
        [tmp_path / "not-a-log"],
        [logs["other-model"]],
        [logs["unknown-profile"]],
        [logs["small"], "--sample", "some"],
        [logs["small"], "--out", tmp_path / "bundle"],
    ):
        done = run_ullage("audit", *arguments, "--model", model, *opened(), "--quiet", expect=2)
        assert not done.stdout
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_truncated_log_fails(logs: Logs, model: Path, tmp_path: Path) -> None:
    shutil.copytree(logs["small"], tmp_path / "log")
    size = LogReader.open(tmp_path / "log").checkpoint.size
    (tmp_path / "log" / bundle_at(0, size).path).unlink()
    done = run_ullage("audit", tmp_path / "log", "--model", model, *opened(), "--quiet", "--json", expect=1)
    document = json.loads(done.stdout)
    assert "withheld or lost" in " ".join(document["reasons"])
    integrity = next(claim for claim in document["claims"] if claim["name"] == "log.integrity")
    assert integrity["value"] == 0


def test_replay_reproduces_an_honest_answer(logs: Logs, model: Path) -> None:
    done = run_ullage(
        "replay", logs["changed"], "0", "--model", model, *opened(), "--json", "--quiet", expect=0
    )
    document = json.loads(done.stdout)
    assert document["identical"]
    assert document["delivered"]["ids"] == document["reference"]["ids"]


@pytest.mark.slow
def test_replay_says_where_an_answer_differs(logs: Logs, model: Path) -> None:
    done = run_ullage("replay", logs["changed"], "2", "--model", model, *opened(), "--quiet", expect=1)
    assert "different from output token 5 on: 77 was delivered" in done.stdout
    done = run_ullage("replay", logs["changed"], "99", "--model", model, *opened(), "--quiet", expect=2)
    assert len(done.stderr.strip().splitlines()) == 1
