"""A tiny model, keys, and logs that a process of its own writes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.sampled_log import Plan, write_plans
from tests.support.tiny_model import make_tiny_model
from ullage.audit.run import AuditRequest, AuditResult, audit_log
from ullage.log.keys import Role, create_keys

ROOT = Path(__file__).parents[2]
TAP_KEYS: list[Path] = []  # the folder that opens every log below, once there is one
FULL = 20  # an answer with as many tokens as `max_tokens`: every edit below finds its place in one

# What is wrong with each log; every one has sound signatures. Answer 0 has temperature 1, answer 1 filters,
# answer 2 is greedy.
LOGS: dict[str, dict[str, Any]] = {
    "honest": {"answers": 24, "max_tokens": 40, "commit": True},
    "small": {"answers": 3, "max_tokens": 10},
    "float32": {"dtype": "float32"},
    "empty": {"answers": 0},
    "changed": {"forced": {"2": {"5": 77}}, "dtype": "float32"},
    "many-changed": {"edits": {str(n): {"tokens": {"1": 70, "2": 71, "3": 72}} for n in range(12)}},
    "other-model": {"model_digest": "sha256:" + "0" * 64},
    "unknown-profile": {"profile": "dice/v9"},
    "outside-vocabulary": {"edits": {"1": {"tokens": {"3": 5000}}}},
    "too-long": {"edits": {"1": {"extra": [9] * 300}}},
    "no-prompt": {"edits": {"1": {"prompt_ids": []}}},
    "after-the-end": {"edits": {"1": {"tokens": {"4": 0}}}},
    "wrong-reason": {"edits": {"1": {"finish_reason": "stop"}}},
    "stops-early": {"edits": {"1": {"keep": 7}}},
    "silent": {"edits": {"1": {"keep": 0}}},
    "client-gone": {"edits": {"1": {"keep": 7, "outcome": "client-gone", "finish_reason": None}}},
    "failed": {"edits": {"1": {"keep": 0, "outcome": "upstream-failed", "finish_reason": None}}},
    "gone-and-changed": {
        "edits": {
            "1": {"keep": 7, "outcome": "client-gone", "finish_reason": None, "tokens": {"2": 66}},
        }
    },
    "inside": {"edits": {"0": {"source": "inside"}}},
    "stop-string": {"stop": ["a", "b", "c", "d"], "answers": 9},
}


def opened() -> list[str | Path]:
    """The options with which a command may read the records of `logs`."""
    return ["--record-keys", *TAP_KEYS]


def run_ullage(*arguments: str | Path, expect: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command line as a user has it; a traceback is never acceptable."""
    done = subprocess.run(
        [sys.executable, "-m", "ullage", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    if expect is not None:
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "all"
    create_keys(folder, Role.ALL, "test.example/tap")
    TAP_KEYS[:] = [folder]
    return folder


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory, model: Path, keys: Path) -> dict[str, Path]:
    """The folders of `LOGS`, by name."""
    folder = tmp_path_factory.mktemp("logs")
    plans = []
    for name, fields in LOGS.items():
        chosen = {"max_tokens": FULL, **fields}
        commit = str(keys) if chosen.pop("commit", False) else None
        places: dict[str, Any] = {"log": str(folder / name), "keys": str(keys), "model": str(model)}
        plans.append(Plan(**places, commit_with=commit, **chosen))
    arguments = [sys.executable, "-m", "tests.support.sampled_log", str(write_plans(plans, folder / "plans"))]
    subprocess.run(arguments, check=True, cwd=ROOT, timeout=240)
    return {name: folder / name for name in LOGS}


@dataclass(frozen=True)
class Setting:
    """One honest server's calibration, a window of it, and one of a server that hides something."""

    model: Path
    keys: Path
    calibration: Path
    runs: Path
    window: Path
    leaking: Path
    cut: Path

    def audit(self, log: Path, **fields: Any) -> AuditResult:
        given: dict[str, Any] = {"calibration": self.calibration, "keys": self.keys, **fields}
        return audit_log(AuditRequest(log=log, model=self.model, **given))


@pytest.fixture(scope="session")
def setting(tmp_path_factory: pytest.TempPathFactory, model: Path, keys: Path) -> Setting:
    folder = tmp_path_factory.mktemp("calibrated")
    places: dict[str, Any] = {"keys": str(keys), "model": str(model), "commit_with": str(keys)}
    leak = {str(n): {"tokens": {"1": 70, "3": 71, "5": 72, "7": 73}} for n in range(10)}
    plans = [
        Plan(log=str(folder / "runs"), answers=40, max_tokens=30, **places),
        Plan(log=str(folder / "window"), answers=20, max_tokens=24, **places),
        Plan(log=str(folder / "leaking"), answers=20, max_tokens=24, edits=leak, **places),
        Plan(
            log=str(folder / "cut"),
            answers=20,
            max_tokens=24,
            edits={"1": {"keep": 7, "outcome": "client-gone", "finish_reason": None}},
            **places,
        ),
    ]
    command = [sys.executable, "-m", "tests.support.sampled_log", str(write_plans(plans, folder / "plans"))]
    subprocess.run(command, check=True, cwd=ROOT, timeout=240)
    out = folder / "calibration.json"
    done = run_ullage(
        "calibrate", folder / "runs", "--model", model, "--keys", keys, "--out", out, "--json",
        "--stack", "the test's own sampler", expect=0,
    )  # fmt: skip
    names = {claim["name"] for claim in json.loads(done.stdout)["claims"]}
    assert names >= {"calibration.codelength", "calibration.mismatch_rate"}
    return Setting(model, keys, out, folder / "runs", folder / "window", folder / "leaking", folder / "cut")
