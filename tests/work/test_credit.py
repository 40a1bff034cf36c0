"""`ullage work credit` on a sealed log, its audit and an account: the commands as a user has them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.sampled_log import Plan, write_plans
from tests.support.tiny_model import make_tiny_model
from tests.work.test_calibration import MADE
from ullage.audit.bundle.envelope import seal_payload
from ullage.cli.work_credit import _check_clock, _most_in_flight
from ullage.errors import UsageError
from ullage.log.entries import CloseEntry, OpenEntry
from ullage.log.keys import Role, create_keys, load_verifier_keys
from ullage.work import evidence
from ullage.work.calibration import PAYLOAD_TYPE, InferenceTime
from ullage.work.window import Window

ROOT = Path(__file__).parents[2]
ANSWERS = 12
COSTS = InferenceTime(prefill=0.01, decode=((1, 0.2), (16, 0.1)), operations=1e6)


def run(*arguments: object, expect: int) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ullage", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == expect, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def make_log(folder: Path, name: str, edits: dict[str, dict[str, Any]]) -> tuple[Path, Path]:
    """A log of the tap's, and the bundle of its audit."""
    keys, model, log = folder / "keys", folder / "model" / "tiny", folder / name
    if not model.exists():
        create_keys(keys, Role.ALL, "test.example/tap")
        make_tiny_model(model)
    plan = Plan(str(log), str(keys), str(model), ANSWERS, 20, commit_with=str(keys), edits=edits)
    plans = write_plans([plan], folder / f"{name}-plans")
    subprocess.run(
        [sys.executable, "-m", "tests.support.sampled_log", plans], check=True, cwd=ROOT, timeout=120
    )
    bundle = folder / f"{name}-bundle"
    run(
        "audit", log, "--model", model, "--keys", keys, "--record-keys", keys, "--out", bundle, "--quiet",
        expect=1 if edits else 0,
    )  # fmt: skip
    return log, bundle


def account(folder: Path) -> list[object]:
    """An account whose windows are half filler, and its signed calibration; arguments of `credit`."""
    keys = folder / "keys"
    calibration, place = folder / "calibration.json", folder / "account"
    if not place.exists():
        made = MADE.model_copy(update={"kernels": MADE.kernels[:1], "inference": COSTS})
        envelope = seal_payload(made.to_bytes(), PAYLOAD_TYPE, load_verifier_keys(keys).verdict)
        calibration.write_bytes(envelope)
        # The log's times lie in the first microseconds of 1970.
        evidence.write(place, (), [Window(0, 0, 60.0, 4, 600, 0, 360, 0, 0, made.worth)])
    key = keys / "verdict.pub"
    return [place, "--calibration", calibration, "--calibration-key", key]


def credited(folder: Path, log: Path, bundle: Path, *more: object, expect: int) -> Any:
    keys = folder / "keys"
    names = ["--log", log, "--log-key", keys / "log.pub", "--bundle", bundle, "--bundle-key"]
    done = run(
        "work", "credit", *account(folder), *names, keys / "verdict.pub", "--json", *more, expect=expect
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_sealed_records_earn_what_an_audit_verified(tmp_path: Path) -> None:
    log, bundle = make_log(tmp_path, "honest", {})
    sealed = ["--log", log, "--log-key", tmp_path / "keys" / "log.pub", "--bundle", bundle]
    sealed += ["--bundle-key", tmp_path / "keys" / "verdict.pub"]
    refused = run("work", "credit", *account(tmp_path), *sealed, expect=2)
    assert "--record-keys" in refused.stderr

    found = credited(tmp_path, log, bundle, "--record-keys", tmp_path / "keys", expect=1)
    assert found["inference"]["records"] == ANSWERS
    assert 10 < found["inference"]["seconds"] < 40
    assert found["inference"]["seconds_outside_windows"] == pytest.approx(0, abs=1e-6)
    before = 600 * MADE.worth.smallest / 240
    (window,) = found["windows"]
    assert window["inference_seconds"] == pytest.approx(found["inference"]["seconds"])
    shares = {claim["name"]: claim["value"] for claim in found["claims"]}
    assert before < shares["compute.accounted_fraction"] < before + 40 / 240

    # Keys of some records only: the others stay sealed and earn nothing.
    some = tmp_path / "some.json"
    run("log", "open", log, "0", "1", "2", "--keys", tmp_path / "keys", "--out", some, expect=0)
    part = credited(tmp_path, log, bundle, "--record-keys", some, expect=1)
    assert part["inference"]["records"] == 3


def test_an_account_is_judged_by_the_calibration_that_it_was_made_with(tmp_path: Path) -> None:
    """Windows have the worth of theirs; peak, alarm and trust would be another's."""
    create_keys(tmp_path / "keys", Role.ALL, "test.example/tap")
    arguments = account(tmp_path)
    place = tmp_path / "account"
    (window,) = evidence.read(place)
    nobody = [tmp_path / "keys" / "verdict.pub"] * 2
    dearer = replace(window.worth, smallest=0.4, median=0.4)
    for name, other in (("slots", replace(window, slots=8)), ("worth", replace(window, worth=dearer))):
        evidence.write(tmp_path / name, (), [other])
        arguments[0] = tmp_path / name
        done = run(
            "work", "credit", *arguments, "--log", tmp_path, "--log-key", nobody[0], "--bundle", tmp_path,
            "--bundle-key", nobody[1], expect=2,
        )  # fmt: skip
        assert "by another calibration" in done.stderr


@pytest.mark.slow
def test_answers_that_no_model_computed_earn_nothing(tmp_path: Path) -> None:
    invented = {str(n): {"tokens": {str(t): 60 + t for t in range(8)}} for n in range(ANSWERS)}
    log, bundle = make_log(tmp_path, "invented", invented)
    found = credited(tmp_path, log, bundle, "--record-keys", tmp_path / "keys", expect=1)
    assert found["inference"]["records"] == ANSWERS
    assert found["inference"]["seconds"] == 0.0


@pytest.mark.slow
def test_entries_that_the_audited_checkpoint_does_not_sign_earn_nothing(tmp_path: Path) -> None:
    """Another log of the same tap, shown under the checkpoint that the audit was about."""
    log, bundle = make_log(tmp_path, "audited", {})
    invented = {str(n): {"tokens": {str(t): 60 + t for t in range(8)}} for n in range(ANSWERS)}
    other, _ = make_log(tmp_path, "shown", invented)
    (other / "checkpoint").write_bytes((log / "checkpoint").read_bytes())
    keys = tmp_path / "keys"
    names = ["--log", other, "--log-key", keys / "log.pub", "--bundle", bundle, "--bundle-key"]
    done = run(
        "work", "credit", *account(tmp_path), *names, keys / "verdict.pub", "--record-keys", keys, expect=1
    )
    assert "does not hold" in done.stderr


def test_sealed_records_are_counted_where_the_order_of_the_log_puts_them() -> None:
    opened = [OpenEntry("", number, 1, False, 0) for number in range(4)]
    closed = [CloseEntry("", number, "complete", 1, 0) for number in range(4)]
    assert _most_in_flight([]) == 0
    assert _most_in_flight([opened[0], closed[0], opened[1], opened[2], closed[2], opened[3]]) == 2
    assert _most_in_flight([*opened, *closed]) == 4


def test_a_log_from_the_future_is_refused() -> None:
    _check_clock(time.time_ns())
    with pytest.raises(UsageError, match="set the clocks"):
        _check_clock(time.time_ns() + 3600 * 10**9)
