"""Packing of messages: a browser unpacks what the table has; a small page keeps what says most."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.samples import write_bundle
from ullage.errors import MalformedError
from ullage.report import messages
from ullage.report.messages import Texts, pack
from ullage.report.token_table import (
    TokenTable,
    margin_columns,
    message_columns,
    read_outcomes,
    read_tokens,
    typical_message,
)

TEXTS = Texts(lambda token: f"w{token}", {}, {})
TOKENS = st.tuples(st.integers(0, 5), st.integers(0, 5), st.floats(0, 9), st.booleans(), st.integers(-1, 3))


def table(messages: list[list[tuple[int, int, float, bool, int]]]) -> TokenTable:
    rows = [(number, *row) for number, message in enumerate(messages) for row in message]
    columns = list(zip(*rows, strict=True))
    margin = [np.inf if outside else value for value, outside in zip(columns[3], columns[4], strict=True)]
    token, reference = np.array(columns[1]), np.array(columns[2])
    return TokenTable(np.array(columns[0]), token, reference, np.where(token == reference, 0.0, margin),
                      np.array(columns[1]), np.array(columns[5]), np.full(len(rows), np.nan))  # fmt: skip


def unpack(data: str) -> dict[str, Any]:
    return dict(json.loads(gzip.decompress(base64.b64decode(data))))


@given(st.lists(st.lists(TOKENS, min_size=1, max_size=8), min_size=1, max_size=6))
def test_what_is_unpacked_is_what_was_there(messages: list[list[tuple[int, int, float, bool, int]]]) -> None:
    made = table(messages)
    packed = pack(made, TEXTS, 1_000_000, None)
    assert packed.is_whole
    value = unpack(packed.data)
    words = value["words"]
    assert len(set(words)) == len(words)
    for number, message in enumerate(messages):
        record, _, _, tokens, mismatches, wide = value["messages"][number]
        assert record == number
        assert [words[token] for token in tokens] == [f"w{row[0]}" for row in message]
        expected = [(at, f"w{row[1]}", None if row[3] else round(row[2], 3)) for at, row in enumerate(message)
                    if row[0] != row[1]]  # fmt: skip
        assert [(at, words[word], margin) for at, word, margin, _, _ in mismatches] == expected
        assert wide == [[at, row[4]] for at, row in enumerate(message) if row[4] >= 0 and row[4] != 1]


@given(st.integers(1_000, 30_000))
def test_a_limit_holds_and_the_first_message_stays(
    tmp_path_factory: pytest.TempPathFactory, limit: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "limited"
    if not folder.exists():
        write_bundle(folder, 60, 80, rate=0.05)
    made = read_tokens(folder / "evidence" / "audit.parquet")
    packed = pack(made, TEXTS, limit, 17)
    assert len(packed.data) <= limit or packed.shown == 1
    records = [message[0] for message in unpack(packed.data)["messages"]]
    assert 17 in records
    assert records == sorted(records)
    kept = min((made.mismatches_a_message[record] for record in records if record != 17), default=99)
    left = [made.mismatches_a_message[record] for record in range(60) if record not in records]
    assert all(count <= kept for count in left)


def test_a_message_without_end_is_laid_out_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_MOST_CELLS", 5)
    made = table([[(1, 2, 0.5, False, 1)] * 3, [(1, 2, 0.5, False, 1), (3, 3, 0.0, False, 1)] * 4])
    short, long = (messages.message(made, number, TEXTS) for number in (0, 1))
    assert (short.tokens, short.mismatches, len(short.cells), short.left_out) == (3, 3, 3, 0)
    assert (long.tokens, long.mismatches, len(long.cells), long.left_out) == (8, 4, 5, 3)


def test_columns_count_every_mismatch_and_every_message(tmp_path: Path) -> None:
    write_bundle(tmp_path / "audit", 50, 60, rate=0.2)
    made = read_tokens(tmp_path / "audit" / "evidence" / "audit.parquet")
    assert sum(one.count for one in margin_columns(made)) == made.mismatch.sum()
    assert sum(one.count for one in message_columns(made.mismatches_a_message)) == 50
    number = typical_message(made)
    assert number is not None
    share = made.mismatches_a_message[number] / 60
    assert abs(share - made.mismatch.mean()) < 0.05


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.parquet"
    for content in (b"", b"PAR1" * 10):
        path.write_bytes(content)
        with pytest.raises(MalformedError):
            read_tokens(path)
    pq.write_table(pa.table({"record": [1]}), path)
    with pytest.raises(MalformedError, match="lacks columns"):
        read_tokens(path)
    with pytest.raises(MalformedError, match="audit's records"):
        read_outcomes(path)
    assert read_outcomes(tmp_path / "none.parquet") == {}


OUTCOMES: dict[str, dict[str, Any]] = {
    "an infinite record": {"record": [np.inf], "outcome": ["complete"]},
    "half a record": {"record": [0.5], "outcome": ["complete"]},
    "no record": {"record": pa.array([None], pa.int64()), "outcome": ["complete"]},
    "a record beyond all": {"record": pa.array([1 << 63], pa.uint64()), "outcome": ["complete"]},
    "a list of records": {"record": [[1]], "outcome": ["complete"]},
    "an outcome with parts": {"record": [1], "outcome": [{"a": 1}]},
    "an outcome that is no text": {"record": [1], "outcome": [b"\xff"]},
}


@pytest.mark.parametrize("kind", OUTCOMES)
def test_records_of_other_types_are_refused(tmp_path: Path, kind: str) -> None:
    pq.write_table(pa.table(OUTCOMES[kind]), tmp_path / "records.parquet")
    with pytest.raises(MalformedError, match="not the table of an audit's records"):
        read_outcomes(tmp_path / "records.parquet")


def test_records_are_read_whatever_their_width(tmp_path: Path) -> None:
    columns = {"record": pa.array([7], pa.uint64()), "outcome": pa.array(["é" * 200], pa.large_string())}
    pq.write_table(pa.table(columns), tmp_path / "records.parquet")
    assert read_outcomes(tmp_path / "records.parquet") == {7: "é" * 100}


@pytest.mark.parametrize("kind", ["twice", "negative", "beyond", "huge"])
def test_tokens_that_are_none_are_refused(tmp_path: Path, kind: str) -> None:
    write_bundle(tmp_path / "audit", 2, 3)
    path = tmp_path / "audit" / "evidence" / "audit.parquet"
    whole = pq.read_table(path)
    place = whole.column_names.index("token")
    values = {
        "twice": whole["token"],
        "negative": pa.array([-1] * 6),
        "beyond": pa.array([1 << 32] * 6),
        "huge": pa.array([10**30] * 6, pa.decimal128(38)),
    }[kind]
    if kind == "twice":
        whole = whole.append_column("token", values)
    else:
        whole = whole.set_column(place, "token", values)
    pq.write_table(whole, path)
    with pytest.raises(MalformedError, match=r"of other types|not the table"):
        read_tokens(path)
