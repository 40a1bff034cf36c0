"""Audits of logs that another process wrote: honest ones, and ones with exactly one thing wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.audit.conftest import TAP_KEYS
from ullage.audit.bundle.evidence import RECORDS_SCHEMA, TOKENS_SCHEMA
from ullage.audit.bundle.folder import verify_bundle
from ullage.audit.run import AuditRequest, AuditResult, audit_log
from ullage.audit.selection import draw_uniform, key_commitment, matches_commitment
from ullage.audit.verdict import Outcome
from ullage.claims import Bound, Evidence, read_claims
from ullage.errors import IntegrityError, UllageError, UsageError
from ullage.log.keys import load_tap_keys, load_verifier
from ullage.log.reader import LogReader
from ullage.log.sealed.openers import RecordKeys, load_opener
from ullage.log.tree.tiles import bundle_at
from ullage.log.upkeep.forgetting import forget_records
from ullage.log.writer import LogWriter

Logs = dict[str, Path]


def audit(log: Path, model: Path, **fields: object) -> AuditResult:
    given = {"record_keys": TAP_KEYS[0], **fields}
    return audit_log(AuditRequest(log=log, model=model, **given))  # type: ignore[arg-type]


def bundle_of(log: Path) -> str:
    """The first bundle of a log's entries."""
    return bundle_at(0, LogReader.open(log).checkpoint.size).path


def reasons(result: AuditResult) -> str:
    return " ".join(result.verdict.reasons)


def test_honest_log_passes_and_its_bundle_can_be_checked(
    logs: Logs, model: Path, keys: Path, tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    seen: list[tuple[str, int, int]] = []
    request = AuditRequest(
        log=logs["honest"], model=model, keys=keys, log_key=keys / "log.pub", out=out, entropy=True
    )
    result = audit_log(request, lambda *step: seen.append(step))
    assert result.verdict.outcome is Outcome.PASS, reasons(result)
    assert result.rate.mismatches == 0
    assert result.rate.tokens > 500
    assert result.largest_margin == 0
    assert seen[-1] == ("recomputing tokens", result.rate.tokens, result.rate.tokens)

    statement = verify_bundle(out, load_verifier(keys / "verdict.pub"))
    root = LogReader.open(logs["honest"], load_verifier(keys / "log.pub")).checkpoint.root
    assert statement.subject[0].digest == {"sha256": root.hex()}
    assert statement.predicate.verdict is Outcome.PASS
    assert read_claims(out / "claims.json") == result.claims
    tokens = pq.read_table(out / "evidence" / "audit.parquet")
    records = pq.read_table(out / "evidence" / "records.parquet")
    assert tokens.schema.equals(TOKENS_SCHEMA)
    assert records.schema.equals(RECORDS_SCHEMA)
    assert len(tokens) == result.rate.tokens == sum(records["output_tokens"].to_pylist())
    assert tokens["token"].to_pylist() == tokens["reference"].to_pylist()
    assert tokens["admissible_count"].null_count == len(tokens)
    assert tokens["log_e"].null_count == len(tokens)
    entropy = np.array(tokens["entropy"].to_pylist())
    assert 0 < entropy.mean() <= np.log2(288)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle"}, "nothing half-written is left"


def test_claims_say_what_was_measured(logs: Logs, model: Path) -> None:
    claims = {claim.name: claim for claim in audit(logs["inside"], model).claims}
    assert set(claims) == {"token.mismatch_rate", "prompt.outside_fraction", "log.integrity", "log.coverage"}
    rate = claims["token.mismatch_rate"]
    assert rate.value == 0
    assert rate.interval is not None
    assert rate.interval.high is not None
    assert rate.interval.high > 0
    assert rate.inputs["log_root"].startswith("sha256:")
    outside = claims["prompt.outside_fraction"]
    assert outside.bound is Bound.LOWER
    reader = LogReader.open(logs["inside"], opener=load_opener(TAP_KEYS[0]))
    lengths = [len(record.open.prompt_ids) for record in reader.records()]
    assert outside.value == pytest.approx(1 - lengths[0] / sum(lengths))
    assert claims["log.integrity"].value == claims["log.coverage"].value == 1


def test_too_few_tokens_cannot_tell_and_say_how_many_are_missing(logs: Logs, model: Path) -> None:
    result = audit(logs["float32"], model)
    assert result.verdict.outcome is Outcome.CANNOT_TELL
    assert f"about {23_024 - result.rate.tokens} more tokens" in reasons(result)
    assert audit(logs["honest"], model, limit_dtype="float32").verdict.outcome is Outcome.CANNOT_TELL


def test_an_empty_log_is_never_a_pass(logs: Logs, model: Path) -> None:
    result = audit(logs["empty"], model)
    assert result.verdict.outcome is Outcome.CANNOT_TELL
    assert "empty log proves nothing" in reasons(result)
    rate = next(claim for claim in result.claims if claim.name == "token.mismatch_rate")
    assert rate.evidence is Evidence.NOT_COVERED


def test_one_changed_token_is_found_where_it_is(logs: Logs, model: Path) -> None:
    result = audit(logs["changed"], model)
    assert result.rate.mismatches == 1, "teacher forcing: later tokens are judged by what was delivered"
    assert "record 2, output token 5: 77 was delivered where the reference has" in reasons(result)
    record = next(one for one in result.records if one.number == 2)
    assert record.scores is not None
    assert record.scores.margin[5] > 0
    assert record.scores.rank[5] >= 1
    assert not record.scores.margin[:5].any()


def test_many_changed_tokens_fail(logs: Logs, model: Path) -> None:
    result = audit(logs["many-changed"], model)
    assert result.verdict.outcome is Outcome.FAIL
    assert result.clusters is not None
    assert result.clusters[0] <= result.rate.value <= result.clusters[1]
    assert result.outside > 0, "answers with filters have infinite margins"


@pytest.mark.parametrize(
    ("name", "sentence", "recomputed"),
    [
        ("outside-vocabulary", "Record 1 has token 5000 at output token 3, outside the model's", False),
        ("too-long", "more than the model's context of 256", False),
        ("no-prompt", "Record 1 has an output and no prompt", False),
        ("after-the-end", "Record 1 goes on after the end-of-text token at output token 4", True),
        ("wrong-reason", "Record 1 says that it finished for 'stop' where it was 'length'", True),
        ("stops-early", "Record 1 is complete although neither", True),
        ("silent", "Record 1 is complete although neither", True),
    ],
)
def test_one_wrong_record_fails(
    logs: Logs, model: Path, name: str, sentence: str, *, recomputed: bool
) -> None:
    result = audit(logs[name], model)
    assert result.verdict.outcome is Outcome.FAIL
    assert sentence in reasons(result)
    record = next(one for one in result.records if one.number == 1)
    assert (record.scores is not None) == recomputed
    assert len(result.records) == 12, "the other records are audited all the same"


def test_what_was_released_before_a_client_left_is_audited(logs: Logs, model: Path) -> None:
    assert not [one for record in audit(logs["client-gone"], model).records for one in record.findings]
    assert audit(logs["gone-and-changed"], model).rate.mismatches >= 1


def test_stop_strings_end_outputs(logs: Logs, model: Path) -> None:
    result = audit(logs["stop-string"], model)
    assert not [one for record in result.records for one in record.findings]
    closes = [
        record.close
        for record in LogReader.open(logs["stop-string"], opener=load_opener(TAP_KEYS[0])).records()
    ]
    assert "stop" in {close.finish_reason for close in closes if close}


def test_wrong_model_is_refused_before_anything_is_computed(logs: Logs, model: Path) -> None:
    with pytest.raises(UsageError, match="declares the model sha256:0000"):
        audit(logs["other-model"], model)


def test_unknown_profile_is_refused(logs: Logs, model: Path) -> None:
    with pytest.raises(UsageError, match=r"dice/v9.*murmur3-gumbel/f64"):
        audit(logs["unknown-profile"], model)


def test_unknown_limit_is_refused(logs: Logs, model: Path) -> None:
    with pytest.raises(UsageError, match="--dtype"):
        audit(logs["small"], model, limit_dtype="int4")


def test_a_flipped_bit_anywhere_fails(logs: Logs, model: Path, tmp_path: Path) -> None:
    """Every refusal is a sentence, and none of 25 flipped logs passes."""
    paths = ["checkpoint", bundle_of(logs["small"])]
    generator = np.random.default_rng(3)
    for trial in range(25):
        log = tmp_path / str(trial)
        shutil.copytree(logs["small"], log)
        path = log / paths[trial % 5 != 0]
        data = bytearray(path.read_bytes())
        data[generator.integers(len(data))] ^= 1 << int(generator.integers(8))
        path.write_bytes(data)
        try:
            result = audit(log, model)
        except UllageError:
            continue
        assert result.verdict.outcome is Outcome.FAIL, (trial, reasons(result))
        assert result.rate.tokens == 0, "what is not signed is not audited"


def test_an_altered_log_fails_with_a_signed_verdict(
    logs: Logs, model: Path, keys: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    shutil.copytree(logs["small"], log)
    entries = log / bundle_of(log)
    entries.write_bytes(entries.read_bytes().replace(b'"output_tokens":10,', b'"output_tokens":11,', 1))
    result = audit(log, model, keys=keys, out=tmp_path / "bundle")
    assert result.verdict.outcome is Outcome.FAIL
    statement = verify_bundle(tmp_path / "bundle", load_verifier(keys / "verdict.pub"))
    assert statement.predicate.verdict is Outcome.FAIL
    assert statement.predicate.rule.limit is None


def test_a_tail_that_is_not_signed_keeps_from_passing(
    logs: Logs, model: Path, keys: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    shutil.copytree(logs["honest"], log)
    note = (log / "checkpoint").read_bytes()
    with LogWriter.open(log, load_tap_keys(keys)) as writer:
        writer.append_verdict("sha256:" + "0" * 64)
    (log / "checkpoint").write_bytes(note)
    result = audit(log, model)
    assert result.verdict.outcome is Outcome.CANNOT_TELL
    assert result.rate.tokens > 500


def test_sample_can_be_drawn_again_from_the_bundle(logs: Logs, model: Path, keys: Path) -> None:
    result = audit(logs["honest"], model, keys=keys, sample=5)
    sample = result.sample
    header = LogReader.open(logs["honest"]).header
    assert sample.selection_key is not None
    key = bytes.fromhex(sample.selection_key)
    assert header.selection_commitment == key_commitment(key)
    root = LogReader.open(logs["honest"]).checkpoint.root
    assert [record.number for record in result.records] == draw_uniform(key, root, 24, 5)
    assert sample.records == 5
    assert sample.population == 24


def test_a_sample_needs_the_committed_key(logs: Logs, model: Path, tmp_path: Path) -> None:
    from ullage.log.keys import Role, create_keys

    create_keys(tmp_path / "other", Role.VERIFIER)
    with pytest.raises(UsageError, match="commits to another selection key"):
        audit(logs["honest"], model, keys=tmp_path / "other", sample=5)
    with pytest.raises(UsageError, match="--keys"):
        audit(logs["honest"], model, sample=5)
    everything = audit(logs["honest"], model, keys=tmp_path / "other")
    assert everything.sample.selection_key is None, "nothing was drawn, so nothing is revealed"


def test_a_draw_without_commitment_is_an_assumption(logs: Logs, model: Path, keys: Path) -> None:
    result = audit(logs["small"], model, keys=keys, sample=2)
    rate = next(claim for claim in result.claims if claim.name == "token.mismatch_rate")
    assert any("no commitment" in assumption for assumption in rate.assumptions)
    assert result.sample.selection_key is not None
    assert not matches_commitment(bytes.fromhex(result.sample.selection_key), "sha256:" + "0" * 64)


def test_existing_evidence_is_not_overwritten(logs: Logs, model: Path, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    audit(logs["small"], model, keys=keys, out=tmp_path / "bundle")
    with pytest.raises(UsageError, match="not empty"):
        audit(logs["small"], model, keys=keys, out=tmp_path / "bundle")
    with pytest.raises(UsageError, match="--keys"):
        audit(logs["small"], model, out=tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not a folder"):
        audit(logs["small"], model, keys=keys, out=tmp_path / "no" / "such")


@pytest.mark.parametrize("name", ["claims.json", "evidence/audit.parquet", "evidence/records.parquet"])
def test_changed_evidence_does_not_verify(
    logs: Logs, model: Path, keys: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "bundle"
    audit(logs["small"], model, keys=keys, out=out)
    path = out / name
    if name == "claims.json":
        path.write_text(path.read_text().replace('"value": 0.0', '"value": 0.001', 1))
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    with pytest.raises(IntegrityError, match=name):
        verify_bundle(out, load_verifier(keys / "verdict.pub"))


def test_a_record_that_cannot_be_read_keeps_from_passing(
    logs: Logs, model: Path, keys: Path, tmp_path: Path
) -> None:
    """All but one opened: what is read agrees, and what is not read is not counted as fine."""
    reader = LogReader.open(logs["honest"], opener=load_opener(keys))
    reader.record_keys([number for number in range(24) if number != 7]).write(tmp_path / "opened.json")
    result = audit(logs["honest"], model, record_keys=tmp_path / "opened.json")
    assert result.verdict.outcome is Outcome.CANNOT_TELL
    assert "1 of the 24 records to audit cannot be read" in reasons(result)
    assert result.rate.mismatches == 0
    assert 7 not in {record.number for record in result.records}

    log = tmp_path / "log"
    shutil.copytree(logs["honest"], log)
    forget_records(log, [3])
    result = audit(log, model)
    assert result.verdict.outcome is Outcome.CANNOT_TELL
    assert "1 records were forgotten." in result.notes


def test_without_keys_of_records_there_is_nothing_to_audit(logs: Logs, model: Path) -> None:
    with pytest.raises(UsageError, match="--record-keys"):
        audit(logs["small"], model, record_keys=None)


def test_a_drawn_sample_needs_the_keys_of_the_drawn_records_only(
    logs: Logs, model: Path, keys: Path, tmp_path: Path
) -> None:
    drawn = [record.number for record in audit(logs["honest"], model, keys=keys, sample=5).records]
    reader = LogReader.open(logs["honest"], opener=load_opener(keys))
    reader.record_keys(drawn).write(tmp_path / "opened.json")
    result = audit(logs["honest"], model, keys=keys, record_keys=tmp_path / "opened.json", sample=5)
    assert [record.number for record in result.records] == drawn
    assert not any("cannot be read" in reason for reason in result.verdict.reasons)


def test_seeds_that_no_tap_issued_fail_and_another_key_is_refused(
    logs: Logs, model: Path, keys: Path, tmp_path: Path
) -> None:
    from ullage.log.keys import Role, create_keys

    result = audit(logs["small"], model, seed_key=keys / "seed.key")
    assert result.verdict.outcome is Outcome.FAIL
    assert "Record 0 has the digest of another request than its own." in result.verdict.reasons
    create_keys(tmp_path / "other", Role.TAP)
    with pytest.raises(UsageError, match="another seed key"):
        audit(logs["small"], model, seed_key=tmp_path / "other" / "seed.key")


def test_keys_of_another_logs_records_are_a_mistake(
    logs: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    RecordKeys("test.example/other", {0: bytes(32)}).write(tmp_path / "keys.json")
    with pytest.raises(UsageError, match=r"are of the log test\.example/other"):
        audit_log(AuditRequest(logs["small"], model, record_keys=tmp_path / "keys.json"))
