"""Verdicts in the log that they judge: noted once, listed, missed when they are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.log.processes import Ended, ullage
from tests.log.samples import NAME, make_log
from ullage.audit.bundle.envelope import Declaration, Predicate, Rule, Sample, Statement, seal, subject_of
from ullage.log.entries import VerdictEntry
from ullage.log.keys import Role, create_keys, load_tap_keys, load_verifier_keys
from ullage.log.store import LogReader, LogWriter
from ullage.log.verdicts import digest_of, note_verdicts

DIGEST = "sha256:" + "1" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """log/ with three records, keys/ of its tap, verifier/ with another's."""
    create_keys(tmp_path / "keys", Role.TAP, NAME)
    create_keys(tmp_path / "verifier", Role.VERIFIER, "verifier.example/one")
    make_log(tmp_path / "log", load_tap_keys(tmp_path / "keys"))
    return tmp_path


def verdict(folder: Path, name: str, outcome: str = "pass", **changes: object) -> Path:
    """A bundle's folder with nothing but a signed verdict on the log as it is."""
    reader = LogReader.open(folder / "log")
    declared, checkpoint = reader.header, reader.checkpoint
    predicate = Predicate(
        verdict=outcome,  # type: ignore[arg-type]
        reasons=(),
        rule=Rule(limit=0.02, confidence=0.99),
        declaration=Declaration(
            log_id=str(changes.get("log_id", declared.log_id)),
            model=declared.model_digest,
            profile=declared.profile,
            dtype=declared.dtype,
        ),
        reference={},
        sample=Sample(scheme="all", population=3, records=3, tokens=9, tree_size=checkpoint.size),
        claims=DIGEST,
        evidence={},
        software={},
        created="1700000000000000000",
    )
    root = str(changes.get("root", f"sha256:{checkpoint.root.hex()}"))
    subjects = (subject_of("log", root), subject_of("model", declared.model_digest))
    bundle = folder / name
    bundle.mkdir()
    signer = load_verifier_keys(folder / "verifier").verdict
    (bundle / "verdict.dsse.json").write_bytes(seal(Statement(subject=subjects, predicate=predicate), signer))
    return bundle


def note(folder: Path, *verdicts: Path, json_wanted: bool = False) -> Ended:
    keys = ("--keys", folder / "keys", "--verdict-key", folder / "verifier" / "verdict.pub")
    options = ("--json",) if json_wanted else ()
    return ullage("log", "note-verdict", folder / "log", *verdicts, *keys, *options)


def check(folder: Path, *options: str | Path) -> Ended:
    return ullage("log", "verify", folder / "log", "--key", folder / "keys" / "log.pub", *options)


def test_a_later_verdict_stands_beside_the_earlier_one(folder: Path) -> None:
    failed = verdict(folder, "first", "fail")
    assert note(folder, failed).returncode == 0
    passed = verdict(folder, "second")
    document = json.loads(note(folder, failed, passed / "verdict.dsse.json", json_wanted=True).stdout)
    digests = [digest_of((one / "verdict.dsse.json").read_bytes()) for one in (failed, passed)]
    assert document == [
        {"entry": 9, "digest": digests[0], "new": False, "verdict": "fail"},
        {"entry": 10, "digest": digests[1], "new": True, "verdict": "pass"},
    ]
    result = check(folder, "--verdict", failed, "--verdict", passed, "--json")
    assert result.returncode == 0
    listed = [{"entry": 9, "digest": digests[0]}, {"entry": 10, "digest": digests[1]}]
    assert json.loads(result.stdout)["verdicts"] == listed
    lines = check(folder).stdout.splitlines()
    assert [f"verdict noted in entry {one['entry']}: {one['digest']}" for one in listed] == lines[-3:-1]


def test_a_verdict_that_is_not_noted_is_missed(folder: Path) -> None:
    known = verdict(folder, "known", "fail")
    result = check(folder, "--verdict", known)
    assert result.returncode == 3
    assert digest_of((known / "verdict.dsse.json").read_bytes()) in result.stdout
    url_or_policy = check(folder, "--verdict", known, "--from", folder / "log" / "checkpoint")
    assert url_or_policy.returncode == 2


def test_a_noted_verdict_that_is_not_signed_yet_does_not_count(folder: Path) -> None:
    known = verdict(folder, "known")
    signed = (folder / "log" / "checkpoint").read_bytes()
    assert note(folder, known).returncode == 0
    (folder / "log" / "checkpoint").write_bytes(signed)
    assert "verdict-not-noted" in check(folder, "--verdict", known, "--json").stdout


def test_what_is_no_verdict_on_this_log_is_not_noted(folder: Path) -> None:
    other = note(folder, verdict(folder, "other", log_id="tap.example/another"))
    assert (other.returncode, other.stderr.count("\n")) == (2, 1)
    forged = verdict(folder, "forged")
    text = (forged / "verdict.dsse.json").read_text()
    (forged / "verdict.dsse.json").write_text(text.replace('"sig": "', '"sig": "00'))
    assert note(folder, forged).returncode in (1, 2)
    entries = LogReader.open(folder / "log").entries(include_uncovered=True)
    assert not [entry for entry in entries if isinstance(entry, VerdictEntry)]


def test_a_verdict_on_a_fork_is_noted_with_a_warning(folder: Path) -> None:
    result = note(folder, verdict(folder, "fork", "fail", root=DIGEST))
    assert result.returncode == 0
    assert "never had" in result.stderr
    assert result.stdout.startswith("fail: sha256:")


def test_a_running_tap_keeps_its_log(folder: Path) -> None:
    known = verdict(folder, "known")
    with LogWriter.open(folder / "log", load_tap_keys(folder / "keys")):
        assert note(folder, known).returncode == 2


def test_the_same_verdict_twice_in_one_call(folder: Path) -> None:
    noted = note_verdicts(folder / "log", load_tap_keys(folder / "keys"), [DIGEST, DIGEST])
    assert [(one.entry, one.new) for one in noted] == [(9, True), (9, False)]


def test_records_are_held_against_their_commitments(folder: Path) -> None:
    opened, keys = folder / "opened", folder / "keys"
    assert ullage("log", "open", folder / "log", "0", "2", "--keys", keys, "--out", opened).returncode == 0
    part = json.loads(check(folder, "--record-keys", opened, "--json").stdout)
    assert (part["verdict"], part["unread"]) == ("pass", 1)
    assert [one["code"] for one in part["findings"]] == ["record-unopened"]
    whole = json.loads(check(folder, "--record-keys", keys, "--json").stdout)
    assert (whole["verdict"], whole["unread"], whole["findings"]) == ("pass", 0, [])
    journal = next((folder / "log" / "sealed").glob("*.segment"))
    data = bytearray(journal.read_bytes())
    data[-40] ^= 1  # in the payload of the last close
    journal.write_bytes(data)
    assert check(folder).returncode == 0  # what strangers see is as it was
    broken = check(folder, "--record-keys", keys, "--json")
    assert broken.returncode == 1
    assert [one["code"] for one in json.loads(broken.stdout)["findings"]] == ["seal-broken"]


def test_records_are_opened_in_a_folder_and_under_a_key(folder: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.write_text("log " + (folder / "keys" / "log.pub").read_text())
    result = ullage("log", "verify", folder / "log", "--policy", policy, "--record-keys", folder / "keys")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
