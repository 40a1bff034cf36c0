"""The Python interface says what the command line says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.audit.conftest import opened, run_ullage
from ullage.api import audit, audit_result, bound
from ullage.claims import to_json

Logs = dict[str, Path]


def test_five_lines_of_python_are_the_command(logs: Logs, model: Path) -> None:
    _, record_keys = opened()
    claims = audit(logs["many-changed"], model=model, record_keys=record_keys)
    done = run_ullage("audit", logs["many-changed"], "--model", model, *opened(), "--json", "--quiet")
    assert to_json(claims) == json.loads(done.stdout)["claims"]
    result = audit_result(logs["many-changed"], model=model, record_keys=record_keys)
    assert result.verdict.outcome.exit_code == done.returncode == 1


@pytest.mark.slow
def test_the_room_can_be_called(logs: Logs, model: Path) -> None:
    code = (
        "import sys, ullage\n"
        "assert 'torch' not in sys.modules\n"
        "claims = ullage.audit(sys.argv[1], model=sys.argv[2], record_keys=sys.argv[3])\n"
        "for claim in claims:\n"
        "    print(claim.name)\n"
    )
    arguments = [str(logs["small"]), str(model), str(opened()[1])]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert "token.mismatch_rate" in done.stdout.splitlines(), done.stderr


@pytest.mark.slow
def test_the_example_for_researchers_runs(logs: Logs, model: Path, keys: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples" / "audit_and_bound.py"
    out = tmp_path / "bundle"
    command = [sys.executable, script, logs["honest"], model, keys, out, "288"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "token.mismatch_rate 0.0 share" in done.stdout
    printed = json.loads(
        run_ullage("bound", out / "evidence" / "audit.parquet", "--vocabulary", "288", "--json").stdout
    )
    claims = bound(out / "evidence" / "audit.parquet", vocabulary=288)
    assert to_json(claims) == printed["claims"]
    for claim in claims:
        assert f"{claim.name} {claim.bound.value} {claim.value}" in done.stdout
    again = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "Traceback" not in again.stderr


def test_there_is_nothing_else() -> None:
    import ullage

    with pytest.raises(AttributeError):
        _ = ullage.nothing
