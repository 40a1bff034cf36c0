"""The evidence of an audit as two tables, one row a token and one row a record.

`docs/formats/bundle.md` describes the columns. Reports, bounds and other tools read these files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

TOKENS_SCHEMA = pa.schema(
    [
        pa.field("record", pa.uint64(), nullable=False),
        pa.field("position", pa.uint32(), nullable=False),
        pa.field("token", pa.uint32(), nullable=False),
        pa.field("reference", pa.uint32(), nullable=False),
        pa.field("margin", pa.float64()),
        pa.field("outside", pa.bool_(), nullable=False),
        pa.field("rank", pa.uint32()),
        pa.field("admissible_count", pa.uint32()),
        pa.field("codelength", pa.float64()),
        pa.field("entropy", pa.float32()),
        pa.field("log_e", pa.float64()),
    ]
)
RECORDS_SCHEMA = pa.schema(
    [
        pa.field("record", pa.uint64(), nullable=False),
        pa.field("counter", pa.uint64(), nullable=False),
        pa.field("endpoint", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.uint32(), nullable=False),
        pa.field("output_tokens", pa.uint32(), nullable=False),
        pa.field("mismatches", pa.uint32()),
        pa.field("largest_margin", pa.float64()),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
    ]
)
_TOKENS_A_ROW_GROUP = 1 << 17


@dataclass(frozen=True)
class TokenCodes:
    """What a calibration adds to one record's T tokens."""

    codelength: NDArray[np.float64]
    """(T,) bits."""
    admissible_count: NDArray[np.int64]
    """(T,) tokens within the noise bound; -1 when no bound was given."""
    flip: NDArray[np.float64]
    """(1 + alternatives, T): P(mismatch) under the noisiest session's curve, then under larger noise."""
    outside: NDArray[np.bool_]
    """(T,) whether the delivered token is beyond the calibration's cutoff (or outside the filters)."""

    def put(self, there: slice, source: TokenCodes, here: slice) -> None:
        """Copy `source`'s rows `here` to the rows `there`."""
        self.codelength[there] = source.codelength[here]
        self.admissible_count[there] = source.admissible_count[here]
        self.flip[:, there] = source.flip[:, here]
        self.outside[there] = source.outside[here]


@dataclass(frozen=True)
class TokenScores:
    """The recomputation of one record's T output tokens. All arrays are (T,)."""

    token: NDArray[np.int64]
    reference: NDArray[np.int64]
    margin: NDArray[np.float64]
    """Raw logit units; infinite outside the reference's filtered set; NaN where only tokens were compared."""
    rank: NDArray[np.int64]
    """-1 where only tokens were compared."""
    entropy: NDArray[np.float64]
    """Bits; NaN when it was not asked for."""
    codes: TokenCodes | None = None
    """None without a calibration."""

    @property
    def mismatch(self) -> NDArray[np.bool_]:
        return np.not_equal(self.token, self.reference)


@dataclass(frozen=True)
class AuditedRecord:
    """One audited record. `scores` is None when its tokens could not be recomputed."""

    number: int
    counter: int
    endpoint: str
    outcome: str
    prompt_tokens: int
    output_tokens: int
    text: str
    scores: TokenScores | None = None
    findings: tuple[str, ...] = field(default=())
    """Sentences on what is wrong with this record apart from mismatches."""


def write_tokens(
    path: Path, records: Sequence[AuditedRecord], log_e: NDArray[np.float64] | None = None
) -> None:
    """Write `audit.parquet`, in row groups of whole records.

    `log_e`, `(T,)`: ln E of the deviation alarm after each token of the records that have codes, in their
    order; None without a calibration.
    """
    evidence = np.zeros(0) if log_e is None else log_e
    used = 0
    with pq.ParquetWriter(path, TOKENS_SCHEMA, compression="zstd") as writer:
        group: list[pa.RecordBatch] = []
        rows = 0
        for record in records:
            if record.scores is None:
                continue
            many = len(record.scores.token) if record.scores.codes is not None else 0
            group.append(_token_rows(record.number, record.scores, evidence[used : used + many]))
            used += many
            rows += record.output_tokens
            if rows >= _TOKENS_A_ROW_GROUP:
                writer.write_table(pa.Table.from_batches(group, TOKENS_SCHEMA).combine_chunks())
                group, rows = [], 0
        writer.write_table(pa.Table.from_batches(group, TOKENS_SCHEMA).combine_chunks())


def write_records(path: Path, records: Sequence[AuditedRecord]) -> None:
    """Write `records.parquet`."""
    pq.write_table(
        pa.Table.from_pylist([_record_row(record) for record in records], RECORDS_SCHEMA),
        path,
        compression="zstd",
    )


def _token_rows(number: int, scores: TokenScores, log_e: NDArray[np.float64]) -> pa.RecordBatch:
    count = len(scores.token)
    evidence = log_e if len(log_e) == count else np.full(count, np.nan)
    outside = np.isinf(scores.margin)
    codes = scores.codes
    counts = np.full(count, -1) if codes is None else codes.admissible_count
    codelength = np.full(count, np.nan) if codes is None else codes.codelength
    return pa.record_batch(
        [
            pa.array(np.full(count, number, dtype=np.uint64)),
            pa.array(np.arange(count, dtype=np.uint32)),
            pa.array(scores.token.astype(np.uint32)),
            pa.array(scores.reference.astype(np.uint32)),
            pa.array(scores.margin, pa.float64(), mask=outside | np.isnan(scores.margin)),
            pa.array(outside),
            pa.array(np.maximum(scores.rank, 0).astype(np.uint32), mask=scores.rank < 0),
            pa.array(np.maximum(counts, 0).astype(np.uint32), mask=counts < 0),
            pa.array(codelength, mask=np.isnan(codelength)),
            pa.array(scores.entropy.astype(np.float32), mask=np.isnan(scores.entropy)),
            pa.array(evidence, mask=np.isnan(evidence)),
        ],
        schema=TOKENS_SCHEMA,
    )


def _record_row(record: AuditedRecord) -> dict[str, object]:
    mismatches: int | None = None
    largest: float | None = None
    if record.scores is not None:
        mismatches = int(record.scores.mismatch.sum())
        finite = record.scores.margin[np.isfinite(record.scores.margin)]
        # One infinite margin makes the largest one infinite, which a table without infinities leaves out.
        if len(finite) == len(record.scores.margin) > 0:
            largest = float(finite.max())
    return {
        "record": record.number,
        "counter": record.counter,
        "endpoint": record.endpoint,
        "prompt_tokens": record.prompt_tokens,
        "output_tokens": record.output_tokens,
        "mismatches": mismatches,
        "largest_margin": largest,
        "outcome": record.outcome,
        "text": record.text,
    }
