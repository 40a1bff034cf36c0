"""Calibrations made from real logs, what refuses them, and audits that rest on them."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.audit.conftest import TAP_KEYS, Setting, run_ullage
from ullage.audit.bounds.betting import upper_bound
from ullage.audit.calibration.file import Calibration, check_pair, load_calibration, save_calibration
from ullage.audit.calibration.fit import CalibrationRequest, _rounded_up, calibrate
from ullage.audit.run import AuditResult
from ullage.audit.verdict import Outcome
from ullage.claims import Bound, Evidence
from ullage.errors import IntegrityError, MalformedError, UndecidedError, UsageError
from ullage.log.keys import Role, create_keys, load_verifier, load_verifier_keys
from ullage.log.reader import LogReader

DAY = 86_400 * 10**9


def changed(setting: Setting, path: Path, **changes: Any) -> Path:
    """A calibration with other contents under a sound signature of the same key."""
    keys = load_verifier_keys(setting.keys)
    content = load_calibration(setting.calibration, keys.verdict.verifier).content
    save_calibration(path, Calibration.model_validate({**content.model_dump(), **changes}), keys.verdict)
    return path


def claims(result: AuditResult) -> dict[str, float | None]:
    return {claim.name: claim.value for claim in result.claims}


def test_calibration_holds_out_prompts(setting: Setting) -> None:
    found = load_calibration(setting.calibration, load_verifier(setting.keys / "verdict.pub")).content
    assert found.fitted.prompts + found.held_out.prompts == 40
    assert min(found.fitted.prompts, found.held_out.prompts) >= 4
    assert found.held_out.mismatches == found.fitted.mismatches == 0
    assert found.noise_model.tokens == found.fitted.tokens
    assert 1.4e-4 < float(found.held_out.codelength) < 0.05
    assert int(found.expires) - int(found.created) == 30 * DAY
    assert len(found.suprema) == found.held_out.prompts


def test_what_was_not_seen_is_bounded_and_rounding_errs_to_the_safe_side(setting: Setting) -> None:
    found = load_calibration(setting.calibration, load_verifier(setting.keys / "verdict.pub")).content
    # None of some 600 tokens lay outside: that shows no share below 3 / n at 95 %, and the alarm takes twice.
    assert float(found.alarm_floor) == pytest.approx(2 * (1 - 0.05 ** (1 / found.fitted.tokens)))
    for value in (0.0, 1e-9, 0.12345678, 3.14159265, 99.9999999, 1234.56789):
        text = _rounded_up(value)
        assert value <= float(text) <= value * (1 + 2e-6)


def test_a_whole_window_has_an_exact_sum(setting: Setting, tmp_path: Path) -> None:
    result = setting.audit(setting.window, out=tmp_path / "bundle", bound=0.01, capacity=True)
    assert result.covert is not None
    assert result.covert.confidence is None
    table = pq.read_table(tmp_path / "bundle" / "evidence" / "audit.parquet")
    bits = sum(table["codelength"].to_pylist())
    assert result.covert.window.bits == pytest.approx(bits + result.covert.ending_bits, rel=1e-4)
    assert min(table["admissible_count"].to_pylist()) >= 1
    figures = {claim.name: claim for claim in result.claims}
    capacity, share = figures["token.covert_capacity"], figures["token.covert_fraction"]
    assert capacity.bound is Bound.UPPER
    assert capacity.value is not None
    assert share.value is not None
    assert share.value == pytest.approx(capacity.value / math.log2(288))
    assert figures["token.covert_fraction_worst_class"].value is not None
    assert figures["token.covert_fraction_worst_class"].value >= share.value
    assert "token.path_capacity" in figures
    assert "not covered:" in " ".join(result.notes)
    assert result.alarm is not None
    assert not result.alarm.fired
    log_e = table["log_e"].to_numpy()
    assert len(log_e) == result.alarm.tokens
    assert max(0.0, log_e.max()) == pytest.approx(result.alarm.log_supremum)


def test_what_a_cheat_hides_costs_bits_and_sets_off_the_alarm(setting: Setting) -> None:
    honest, leaking = setting.audit(setting.window), setting.audit(setting.leaking)
    assert honest.covert is not None
    assert leaking.covert is not None
    # Forty tokens were replaced by ones of the server's choice: each carries up to log2 V bits.
    assert leaking.covert.window.bits - honest.covert.window.bits > 35 * math.log2(288)
    assert leaking.alarm is not None
    assert leaking.alarm.fired
    assert leaking.verdict.outcome is Outcome.FAIL
    assert "deviation alarm fired in record" in " ".join(leaking.verdict.reasons)


def test_where_an_answer_was_cut_off_is_paid_for(setting: Setting) -> None:
    cut, whole = setting.audit(setting.cut).covert, setting.audit(setting.window).covert
    assert cut is not None
    assert whole is not None
    assert cut.ending_bits - whole.ending_bits == pytest.approx(math.log2(25) + 10, abs=0.01)


def test_draws_bound_the_share_and_say_what_is_missing(setting: Setting) -> None:
    result = setting.audit(setting.window, draws=60, target=0.05)
    assert result.sample.scheme == "proportional-with-replacement"
    assert result.sample.draws == 60
    assert result.covert is not None
    exact = setting.audit(setting.window).covert
    assert exact is not None
    assert exact.window.bits < result.covert.window.bits
    assert result.covert.confidence == 0.99
    # Sixty clean draws cannot show more than some 8 %: with X = 0 the bound is that of zeros.
    assert result.covert.window.fraction > upper_bound(np.zeros(60), 0.01)
    assert result.covert.advice is not None
    assert "draws with these messages; the window has 20" in result.covert.advice
    assert "With 99 % confidence over the audit's randomness" in result.covert.statement()
    assert result.covert.worst.fraction > result.covert.window.fraction
    repeated = setting.audit(setting.window, draws=60, target=0.05)
    assert repeated.covert == result.covert


def test_a_uniform_sample_bounds_nothing(setting: Setting) -> None:
    result = setting.audit(setting.window, sample=5)
    assert claims(result)["token.covert_fraction"] is None
    kinds = {claim.name: claim.evidence for claim in result.claims}
    assert kinds["token.covert_capacity"] is Evidence.NOT_COVERED
    (said,) = [note for note in result.notes if "--draws N" in note]
    assert said.startswith("A uniform sample gives no bound on covert bits")
    enough = " ".join(setting.audit(setting.window, sample=5, target=0.05).notes)
    assert re.search(r"would take about [1-9][0-9,]* to [1-9][0-9,]* draws with these messages", enough)
    stricter = " ".join(setting.audit(setting.window, sample=5, target=1e-6).notes)
    assert "no draw shows less" in stricter


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("prover", {"model": "sha256:" + "1" * 64}, "another pair: its server's model"),
        ("prover", {"dtype": "float32"}, "another pair: its server's precision"),
        ("prover", {"profile": "sglang-murmur"}, "another pair: its server's profile"),
        ("reference", {"stack": "sha256:" + "2" * 64}, "another pair: its reference's stack"),
    ],
)
def test_a_calibration_of_another_pair_is_refused(
    setting: Setting, tmp_path: Path, part: str, change: dict[str, str], sentence: str
) -> None:
    content = load_calibration(setting.calibration, load_verifier(setting.keys / "verdict.pub")).content
    other = changed(setting, tmp_path / "c", **{part: {**getattr(content, part).model_dump(), **change}})
    with pytest.raises(UsageError, match=sentence):
        setting.audit(setting.window, calibration=other)


def test_an_expired_calibration_is_refused(setting: Setting, tmp_path: Path) -> None:
    old = changed(setting, tmp_path / "old", expires=str(time.time_ns() - DAY))
    with pytest.raises(UsageError, match="expired on"):
        setting.audit(setting.window, calibration=old)


def test_a_calibration_has_to_outlast_the_window(setting: Setting) -> None:
    content = load_calibration(setting.calibration, load_verifier(setting.keys / "verdict.pub")).content
    header, stack = LogReader.open(setting.window).header, content.reference.stack
    check_pair(content, header, stack, int(content.expires))
    with pytest.raises(UsageError, match="the window's end have to lie before that"):
        check_pair(content, header, stack, int(content.expires) + 1)


def test_a_profile_without_a_noise_bound_is_neither_calibrated_nor_bounded(
    setting: Setting, logs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no bound on the noise of sampler profile 'dice/v9'"):
        setting.audit(logs["unknown-profile"], limit_dtype="bfloat16")
    request = CalibrationRequest(
        (logs["unknown-profile"],), setting.model, "stack", record_keys=tuple(TAP_KEYS)
    )
    with pytest.raises(UsageError, match="neither calibrated nor bounded"):
        calibrate(request)


def test_a_signature_that_does_not_hold_is_refused(setting: Setting, tmp_path: Path) -> None:
    document = json.loads(setting.calibration.read_text())
    document["payload"] = ("A" if document["payload"][0] != "A" else "B") + document["payload"][1:]
    forged = tmp_path / "forged"
    forged.write_text(json.dumps(document))
    with pytest.raises(IntegrityError, match="signature does not hold"):
        setting.audit(setting.window, calibration=forged)
    stranger = tmp_path / "stranger"
    create_keys(stranger, Role.VERIFIER, "test.example/stranger")
    with pytest.raises(IntegrityError, match="signature does not hold"):
        setting.audit(setting.window, calibration_key=stranger / "verdict.pub")
    done = run_ullage(
        "audit", setting.window, "--model", setting.model, "--calibration", forged,
        "--keys", setting.keys, "--quiet", expect=1,
    )  # fmt: skip
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_is_no_calibration_is_refused(setting: Setting, tmp_path: Path) -> None:
    for number, data in enumerate((b"", b"{}", b"[]", b"\xff" * 100)):
        path = tmp_path / str(number)
        path.write_bytes(data)
        with pytest.raises(MalformedError, match="not a calibration"):
            setting.audit(setting.window, calibration=path)
    with pytest.raises(UsageError, match="There is no file"):
        setting.audit(setting.window, calibration=tmp_path / "none")
    bad = changed(setting, tmp_path / "bad", noise={"version": 1})
    with pytest.raises(MalformedError):
        setting.audit(setting.window, calibration=bad)


def test_options_that_do_not_go_together_are_refused(setting: Setting) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"calibration": None, "draws": 5}, "--draws needs a calibration"),
        ({"calibration": None, "bound": 0.1}, "--bound needs a calibration"),
        ({"capacity": True}, "--capacity counts"),
        ({"keys": None}, "--calibration-key"),
        ({"confidence": 1.5}, "--confidence"),
        ({"draws": 0}, "--draws takes"),
    )
    for fields, sentence in cases:
        with pytest.raises(UsageError, match=sentence):
            setting.audit(setting.window, **fields)


def test_too_few_prompts_calibrate_nothing(setting: Setting, logs: dict[str, Path], tmp_path: Path) -> None:
    done = run_ullage(
        "calibrate", logs["small"], "--model", setting.model, "--keys", setting.keys,
        "--out", tmp_path / "c", "--quiet", expect=int(UndecidedError.exit_code),
    )  # fmt: skip
    assert "different prompts" in done.stderr
    assert not (tmp_path / "c").exists()
