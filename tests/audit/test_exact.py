"""The exact audit of the log of a real tap, enforcer and bfloat16 server, and of copies with one lie each."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from tests.audit.conftest import TAP_KEYS, run_ullage
from tests.enforce.enforcer_process import EnforcerProcess
from tests.enforce.tap_process import start_tap
from tests.server.conftest import serving
from tests.support.edited_log import edit_log
from ullage.audit.bounds.statistics import undetected_upper_bound
from ullage.audit.bundle.folder import verify_bundle
from ullage.audit.calibration.fit import CalibrationRequest, calibrate
from ullage.audit.run import AuditRequest, audit_log
from ullage.audit.selection import key_commitment, window_key
from ullage.cli.audit import document
from ullage.errors import UsageError
from ullage.log.keys import load_verifier, load_verifier_keys
from ullage.log.reader import LogReader
from ullage.log.sealed.openers import load_opener

ANSWERS = 14
LENGTH = 30
CHUNK = 16


@pytest.fixture(scope="module")
def enforced(model: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log of a tap that enforced the float32 reference on a bfloat16 server."""
    folder = tmp_path_factory.mktemp("enforced")
    commitment = key_commitment(window_key(load_verifier_keys(keys).selection, 7))
    with (
        serving("--model", str(model), "--dtype", "bfloat16") as (server, _),
        EnforcerProcess(folder / "socket", model, chunk=CHUNK) as enforcer,
    ):
        tap = start_tap(
            upstream=server, log=str(folder / "log"), keys=str(keys), model=str(model),
            enforce=str(enforcer.path), dtype="bfloat16", selection_commitment=commitment,
        )  # fmt: skip
        try:
            assert tap.stdout is not None
            url = tap.stdout.readline().split()[-1]
            for number in range(ANSWERS):
                answer = httpx.post(f"{url}/v1/completions", json=request(number), timeout=120)
                assert answer.status_code == 200, answer.text
        finally:
            tap.send_signal(signal.SIGTERM)
            errors = tap.communicate(timeout=60)[1]
        assert not errors
    return folder / "log"


def request(number: int) -> dict[str, Any]:
    """Several kinds of answers; numbers 1, 5, 9 and 13 are streams."""
    kinds: tuple[dict[str, Any], ...] = (
        {"temperature": 1.0},
        {"temperature": 0.8, "top_p": 0.9, "stream": True},
        {"temperature": 0.0},
        {"temperature": 1.0, "stop": ["a", "e"], "top_k": 40},
    )
    prompt = list(range(40, 53 + number))
    return {"prompt": prompt, "max_tokens": LENGTH, **kinds[number % len(kinds)]}


def audit(log: Path, model: Path, **fields: Any) -> dict[str, Any]:
    """What the command prints as JSON, without the seconds that a process takes to load torch."""
    given = {"record_keys": TAP_KEYS[0], **fields}
    return document(audit_log(AuditRequest(log=log, model=model, exact=True, threads=1, **given)))


def claims_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {claim["name"]: claim for claim in document["claims"]}


def readable(log: Path) -> LogReader:
    return LogReader.open(log, opener=load_opener(TAP_KEYS[0]))


def output_ids(log: Path, counter: int) -> list[int]:
    return list(readable(log).record(counter).output_ids)


def test_every_transcript_is_the_references(enforced: Path, model: Path, keys: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    done = run_ullage(
        "audit", enforced, "--exact", "--model", model, "--keys", keys, "--key", keys / "log.pub",
        "--out", out, "--json", "--quiet", expect=0,
    )  # fmt: skip
    found = json.loads(done.stdout)
    header = LogReader.open(enforced).header
    assert found["exact"] == {
        "reference_digest": header.reference_digest, "dtype": "float32", "chunk": CHUNK,
        "records": ANSWERS, "identical": ANSWERS,
    }  # fmt: skip
    claims = claims_of(found)
    for name in ("token.covert_capacity", "token.covert_fraction", "token.covert_fraction_text"):
        for suffix in ("", "_worst_class"):
            claim = claims[name + suffix]
            assert (claim["value"], claim["bound"]) == (0, "upper")
            assert claim["evidence"] == "proven-under-assumption"
            assert any("Token values only" in sentence for sentence in claim["assumptions"])
            assert claim["inputs"]["reference_digest"] == header.reference_digest
    rate = claims["token.mismatch_rate"]
    tokens = found["tokens"]
    assert tokens == sum(len(record.output_ids) for record in readable(enforced).records())
    assert (rate["value"], rate["evidence"]) == (0, "measured")
    assert rate["interval"]["high"] == pytest.approx(1 - 0.025 ** (1 / tokens))
    assert claims["token.undetected_share"]["value"] == 0
    assert 0 < claims["token.ending_capacity"]["value"] < 0.002  # none was cut off

    statement = verify_bundle(out, load_verifier(keys / "verdict.pub"))
    rule = statement.predicate.rule
    assert (rule.name, rule.limit, rule.confidence) == ("ullage/exact-transcript/v1", 0, None)
    assert statement.predicate.reference["digest"] == header.reference_digest
    table = pq.read_table(out / "evidence" / "audit.parquet")
    assert table["token"].to_pylist() == table["reference"].to_pylist()
    for column in ("margin", "rank", "codelength", "admissible_count", "entropy"):
        assert table[column].null_count == len(table), column
    assert not any(table["outside"].to_pylist())


def test_the_server_was_corrected_somewhere(enforced: Path) -> None:
    """Else the log above shows no more than that a good server is good."""
    details = [record.close.detail for record in readable(enforced).records() if record.close]
    assert len(details) == ANSWERS
    assert any(" 0 replaced" not in detail for detail in details), details


def test_one_lie_fails(enforced: Path, model: Path, keys: Path, tmp_path: Path) -> None:
    ids = output_ids(enforced, 2)
    assert len(ids) == LENGTH, "the greedy answer of this model is long"
    changed = [*ids[:3], (ids[3] + 1) % 256, *ids[4:]]
    transcript = "and the reference's transcript has 30"
    lies: dict[str, dict[str, Any]] = {
        "differs from the reference's transcript at output token 3: ": {"output_ids": changed},
        "says that it finished for 'stop' where it was 'length'": {"finish_reason": "stop"},
        f"is complete after 26 output tokens, {transcript}": {"output_ids": ids[:-4]},
        "goes on after the reference's transcript, which ends with output token 29": {
            "output_ids": [*ids, 5]
        },
        f"is complete after 0 output tokens, {transcript}": {"output_ids": []},
        "has token 4000 at output token 0, outside the model's": {"output_ids": [4000, *ids[1:]]},
    }
    for number, (sentence, lie) in enumerate(lies.items()):
        log = edit_log(enforced, tmp_path / str(number), keys, {"closes": {"2": lie}})
        found = audit(log, model)
        assert found["verdict"] == "fail"
        assert f"Record 2 {sentence}" in found["reasons"][0]
        assert found["exact"]["identical"] == ANSWERS - 1
        claims = claims_of(found)
        assert claims["token.undetected_share"]["value"] == pytest.approx(1 / ANSWERS)
        # The record that differs counts as all covert: at least what its tokens could hold.
        window = sum(len(record.output_ids) for record in readable(log).records())
        assert claims["token.covert_capacity"]["value"] * window > 8 * len(lie.get("output_ids", ids))


def test_what_was_cut_off_is_compared_as_far_as_it_went(
    enforced: Path, model: Path, keys: Path, tmp_path: Path
) -> None:
    gone = {"output_ids": output_ids(enforced, 2)[:7], "outcome": "client-gone", "finish_reason": None}
    log = edit_log(enforced, tmp_path / "log", keys, {"closes": {"2": gone}})
    found = audit(log, model)
    assert found["verdict"] == "pass"
    claims = claims_of(found)
    assert claims["token.covert_capacity"]["value"] == 0
    # Token values say nothing, and where it ended is one of LENGTH + 1 places, at a share of 2^-10.
    assert claims["token.ending_capacity"]["value"] * ANSWERS > 14
    wrong = {**gone, "output_ids": [*gone["output_ids"][:6], 200]}  # type: ignore[index]
    log = edit_log(enforced, tmp_path / "wrong", keys, {"closes": {"2": wrong}})
    found = audit(log, model)
    assert found["verdict"] == "fail"
    assert "at output token 6: 200 was released" in found["reasons"][0]


def test_a_sample_says_what_it_leaves_open(enforced: Path, model: Path, keys: Path) -> None:
    found = audit(enforced, model, keys=keys, sample=10)
    claims = claims_of(found)
    assert claims["token.covert_capacity"]["evidence"] == "not-covered"
    assert "A uniform sample gives no bound on covert bits" in found["notes"][-1]
    assert re.search(r"would take about [45][0-9],[0-9]{3} to .* draws", found["notes"][-1])
    share = claims["token.undetected_share"]
    assert share["value"] == pytest.approx(undetected_upper_bound(ANSWERS, 10, 0, 0.99))
    assert share["confidence"] == 0.99

    found = audit(enforced, model, keys=keys, draws=40)
    claims = claims_of(found)
    assert 0 < claims["token.covert_fraction"]["value"] < 0.5
    assert claims["token.covert_fraction"]["confidence"] == 0.99
    assert "draws with these messages" in found["covert"]["advice"]  # how many it would take
    assert "covert data through the channels listed: the choice of token values;" in found["notes"][-2]


def test_what_cannot_be_derived_is_refused(
    enforced: Path, model: Path, keys: Path, logs: dict[str, Path], tmp_path: Path
) -> None:
    other = "sha256:" + "5" * 64
    elsewhere = edit_log(enforced, tmp_path / "log", keys, {"header": {"reference_digest": other}})
    for log, sentence in (
        (elsewhere, "No chunk size and no precision gives this machine that digest"),
        (logs["unknown-profile"], "dice/v9"),
        (logs["other-model"], "give the declared model's folder"),
    ):
        with pytest.raises(UsageError, match=sentence):
            audit(log, model)
    with pytest.raises(UsageError, match="--exact compares bits"):
        audit(enforced, model, bound=0.1)
    done = run_ullage("audit", logs["small"], "--exact", "--model", model, "--quiet", expect=2)
    assert "The log names no reference, so its tokens are the server's own" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


def test_an_enforced_log_has_no_noise_to_calibrate(enforced: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="none of the server's noise"):
        calibrate(CalibrationRequest((enforced,), model, "stack", record_keys=tuple(TAP_KEYS)))


def test_a_tolerant_audit_says_that_there_is_an_exact_one(enforced: Path, model: Path) -> None:
    result = audit_log(AuditRequest(log=enforced, model=model, record_keys=TAP_KEYS[0]))
    assert "--exact compares them bit for bit" in " ".join(result.notes)


def test_undetected_upper_bound() -> None:
    assert undetected_upper_bound(100, 0, 0, 0.99) == 1
    assert undetected_upper_bound(100, 100, 0, 0.99) == 0
    assert undetected_upper_bound(100, 100, 3, 0.99) == 0.03
    # One of two: k = 1 is missed half of the time, k = 2 never.
    assert undetected_upper_bound(2, 1, 0, 0.99) == 0.5
    # By hand: C(100-k, 50)/C(100, 50) is 0.0139 at k = 6 and 0.0066 at k = 7.
    assert undetected_upper_bound(100, 50, 0, 0.99) == 0.06
    with pytest.raises(UsageError):
        undetected_upper_bound(10, 11, 0, 0.99)
