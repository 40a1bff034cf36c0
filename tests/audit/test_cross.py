"""What two parties' bundles say of each other, record by record, and bundles of which nothing can be said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.audit.test_envelope import SIGNER, statement
from ullage.audit.bundle.envelope import seal
from ullage.audit.bundle.folder import CLAIMS, RECORDS, TOKENS, VERDICT, file_digest
from ullage.claims import digest_of, write_claims
from ullage.errors import MalformedError
from ullage.sealed import cross
from ullage.sealed.cross import Agreement, Cross, compare, compare_records

HONEST = {3: (b"tokens of 3", False), 5: (b"tokens of 5", True)}
EVIDENCE: dict[str, Any] = {
    "record": [3, 3, 5],
    "position": [0, 1, 0],
    "token": [7, 8, 9],
    "margin": [0.0, None, 0.2],
    "outside": [False, False, False],
}


def bundle(folder: Path, table: pa.Table) -> Path:
    """A bundle with this evidence, well signed."""
    (folder / "evidence").mkdir(parents=True)
    write_claims(folder / CLAIMS, [])
    pq.write_table(table, folder / TOKENS)
    (folder / RECORDS).write_bytes(b"not looked at")
    evidence = {name: file_digest(folder / name) for name in (TOKENS, RECORDS)}
    made = statement(claims=digest_of([]), evidence=evidence)
    (folder / VERDICT).write_bytes(seal(made, SIGNER))
    return folder


def crossed(folder: Path, other: pa.Table) -> Cross:
    ours = bundle(folder / "ours", pa.table(EVIDENCE))
    return compare(ours, SIGNER.verifier, bundle(folder / "theirs", other), SIGNER.verifier)


def test_the_same_readings_agree() -> None:
    found = compare_records(HONEST, dict(HONEST))
    assert (found.agreement, found.disagreeing, found.one_sided) == (Agreement.AGREE, (), ())


def test_other_tokens_or_another_side_of_the_bound_disagree() -> None:
    for place, reading in ((3, (b"others", False)), (5, (b"tokens of 5", False))):
        found = compare_records(HONEST, {**HONEST, place: reading})
        assert (found.agreement, found.disagreeing) == (Agreement.DISAGREE, (place,))


def test_records_of_one_party_alone_are_named_and_prove_nothing() -> None:
    found = compare_records({3: HONEST[3]}, {5: HONEST[5]})
    assert (found.agreement, found.one_sided) == (Agreement.CANNOT_TELL, (3, 5))


OTHER: dict[str, tuple[dict[str, Any], Cross]] = {
    "the same": ({}, Cross(Agreement.AGREE, 2, (), ())),
    "other margins on the same side": (
        {"margin": pa.array([0.05, 0.0, 7.0], pa.float32())}, Cross(Agreement.AGREE, 2, (), ()),
    ),
    "another token": ({"token": [7, 1, 9]}, Cross(Agreement.DISAGREE, 2, (3,), ())),
    "a margin beyond": ({"margin": [0.0, 0.3, 0.2]}, Cross(Agreement.DISAGREE, 2, (3,), ())),
    "a token outside": ({"outside": [True, False, False]}, Cross(Agreement.DISAGREE, 2, (3,), ())),
    "no margin beyond": ({"margin": [0.0, 0.0, 0.1]}, Cross(Agreement.DISAGREE, 2, (5,), ())),
    "another record": ({"record": [3, 3, 6]}, Cross(Agreement.AGREE, 1, (), (5, 6))),
    "records in another order": (
        {"record": [5, 3, 3], "token": [9, 7, 8], "margin": [0.2, 0.0, 0.0]},
        Cross(Agreement.AGREE, 2, (), ()),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER)
def test_bundles_are_compared_record_by_record(tmp_path: Path, kind: str) -> None:
    columns, expected = OTHER[kind]
    assert crossed(tmp_path, pa.table(EVIDENCE | columns)) == expected


def test_a_bundle_without_tokens_has_nothing_to_compare(tmp_path: Path) -> None:
    found = crossed(tmp_path, pa.table(EVIDENCE).slice(0, 0))
    assert (found.agreement, found.one_sided) == (Agreement.CANNOT_TELL, (3, 5))


STRANGE: dict[str, tuple[dict[str, Any], str]] = {
    "a margin in words": ({"margin": ["0", "0", "0"]}, "'margin' is string, and has to be float32"),
    "a fraction outside": ({"outside": [0.5, 0.0, 0.0]}, "'outside' is double, and has to be a boolean"),
    "an infinite record": ({"record": [3.0, 3.0, np.inf]}, "'record' is double, and has to be an integer"),
    "nested records": ({"record": [[3], [3], [5]]}, "'record' is list"),
    "tokens with parts": ({"token": [{"id": 7}, {"id": 8}, {"id": 9}]}, "'token' is struct"),
    "a margin by dictionary": (
        {"margin": pa.array(["0", "0", "0"]).dictionary_encode()}, "'margin' is dictionary",
    ),
    "no record": ({"record": [3, 3, None]}, "'record' has no value in some rows"),
    "nothing outside": ({"outside": [None, False, False]}, "'outside' has no value"),
    "a record beyond all": (
        {"record": pa.array([3, 3, 1 << 63], pa.uint64())}, "is not the evidence of an audit",
    ),
    "a record in two places": ({"record": [3, 5, 3]}, "tokens in several places"),
}  # fmt: skip


@pytest.mark.parametrize("kind", STRANGE)
def test_signed_evidence_of_another_kind_is_refused(tmp_path: Path, kind: str) -> None:
    columns, sentence = STRANGE[kind]
    with pytest.raises(MalformedError, match=sentence):
        crossed(tmp_path, pa.table(EVIDENCE | columns))


def test_a_column_that_is_missing_or_there_twice_is_refused(tmp_path: Path) -> None:
    table = pa.table(EVIDENCE)
    with pytest.raises(MalformedError, match="one column 'token', and has 0"):
        crossed(tmp_path / "missing", table.drop_columns(["token"]))
    with pytest.raises(MalformedError, match="one column 'token', and has 2"):
        crossed(tmp_path / "twice", table.append_column("token", table["token"]))


@pytest.mark.timeout(60)
def test_many_records_take_no_longer_than_their_rows(tmp_path: Path) -> None:
    rows = 400_000
    columns = {
        "record": np.arange(rows),
        "position": np.zeros(rows, np.int64),
        "token": np.arange(rows),
        "margin": np.zeros(rows),
        "outside": np.zeros(rows, np.bool_),
    }
    found = crossed(tmp_path, pa.table(columns))
    assert (found.compared, len(found.one_sided)) == (2, rows - 2)


def test_more_records_than_memory_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross, "_MAX_RECORDS", 1)
    with pytest.raises(MalformedError, match="more than 1 records"):
        crossed(tmp_path, pa.table(EVIDENCE))
