"""An audit's evidence as arrays, and what a page counts in it. `docs/formats/bundle.md` has the columns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ullage.errors import MalformedError
from ullage.plain_files import open_plain_file

_MAX_ROWS = 50_000_000
_MAX_OUTCOME = 100  # letters; the longest of ours has 15
_COLUMNS = (
    "record",
    "position",
    "token",
    "reference",
    "margin",
    "outside",
    "rank",
    "admissible_count",
    "codelength",
)
_EVIDENCE = "log_e"  # bundles of before this column lack it
MARGIN_EDGES = (0.0, 0.016, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Raw logits; the last class of mismatches is open, and tokens outside the filters have their own."""


@dataclass(frozen=True)
class TokenTable:
    """One row a token, in the order of records and positions. All arrays are (T,)."""

    record: NDArray[np.int64]
    token: NDArray[np.int64]
    reference: NDArray[np.int64]
    margin: NDArray[np.float64]
    """Raw logits; infinite outside the filters, NaN where only tokens were compared."""
    rank: NDArray[np.int64]
    """-1: not known."""
    admissible: NDArray[np.int64]
    """-1: not computed."""
    codelength: NDArray[np.float64]
    """Bits; NaN: not computed."""
    log_e: NDArray[np.float64] | None = None
    """ln E of the calibrated alarm after each token; None where the audit had no calibration."""

    @cached_property
    def mismatch(self) -> NDArray[np.bool_]:
        return np.not_equal(self.token, self.reference)

    @cached_property
    def messages(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Numbers, first rows and lengths of the M messages that have tokens, each (M,)."""
        numbers, starts, lengths = np.unique(self.record, return_index=True, return_counts=True)
        return numbers, starts.astype(np.int64), lengths.astype(np.int64)

    @cached_property
    def mismatches_a_message(self) -> NDArray[np.int64]:
        """(M,), in the order of `messages`."""
        _, starts, _ = self.messages
        if not len(starts):
            return np.zeros(0, dtype=np.int64)
        return np.add.reduceat(self.mismatch.astype(np.int64), starts)


def read_tokens(path: Path) -> TokenTable:
    """Read `evidence/audit.parquet`. Raises MalformedError when it is not one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_plain_file(path) as source, pq.ParquetFile(source) as file:
            if file.metadata.num_rows > _MAX_ROWS:
                raise MalformedError(f"{path} has more than {_MAX_ROWS:,} rows.")
            table = file.read(columns=[*_COLUMNS, _EVIDENCE])
    except (OSError, ValueError, OverflowError, MemoryError, pa.ArrowException) as error:
        raise MalformedError(f"{path} is not the table of an audit.") from error
    if set(_COLUMNS) - set(table.column_names):
        raise MalformedError(f"{path} lacks columns of an audit's table.")
    try:
        return _table({name: table[name] for name in table.column_names})
    except (pa.ArrowException, KeyError, OverflowError, TypeError, ValueError) as error:
        raise MalformedError(f"{path} has columns of other types than an audit's table.") from error


def read_outcomes(path: Path) -> dict[int, str]:
    """How each record of `evidence/records.parquet` ended; empty without the file. Raises MalformedError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_plain_file(path) as source, pq.ParquetFile(source) as file:
            if file.metadata.num_rows > _MAX_ROWS:
                raise MalformedError(f"{path} has more than {_MAX_ROWS:,} rows.")
            table = file.read(columns=["record", "outcome"])
        # A cast refuses what does not fit with an error of Arrow's: infinity, a list, a fraction.
        record, outcome = table["record"].cast(pa.int64()), table["outcome"].cast(pa.string())
        pairs = zip(record.to_pylist(), outcome.to_pylist(), strict=True)
        return {int(number): str(ended)[:_MAX_OUTCOME] for number, ended in pairs}
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, OverflowError, MemoryError, TypeError, ValueError, pa.ArrowException) as error:
        raise MalformedError(f"{path} is not the table of an audit's records.") from error


def _table(columns: dict[str, object]) -> TokenTable:
    def integers(name: str, missing: int = -1) -> NDArray[np.int64]:
        column = columns[name].fill_null(0)  # type: ignore[attr-defined]
        there = columns[name].is_valid().to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
        return np.where(there, column.to_numpy(zero_copy_only=False).astype(np.int64), missing)

    def floats(name: str) -> NDArray[np.float64]:
        values = columns[name].to_numpy(zero_copy_only=False)  # type: ignore[attr-defined]
        return np.asarray(values, dtype=np.float64)

    token, reference = integers("token"), integers("reference")
    if len(token) and (min(token.min(), reference.min()) < 0 or max(token.max(), reference.max()) >> 32):
        raise ValueError("a token has a number that no tokenizer takes")
    record, position = integers("record"), integers("position")
    order = np.lexsort((position, record))
    outside = columns["outside"].to_numpy(zero_copy_only=False).astype(np.bool_)  # type: ignore[attr-defined]
    margin = np.where(outside, np.inf, floats("margin"))
    evidence = floats(_EVIDENCE)[order] if _EVIDENCE in columns else np.full(len(order), np.nan)
    return TokenTable(
        record[order], token[order], reference[order], margin[order],
        integers("rank")[order], integers("admissible_count")[order], floats("codelength")[order],
        evidence if len(evidence) and np.isfinite(evidence).all() else None,
    )  # fmt: skip


@dataclass(frozen=True)
class Column:
    """One class of a histogram."""

    label: str
    count: int


def margin_columns(table: TokenTable) -> tuple[Column, ...]:
    """Mismatches by the logits by which they lost; the reference's own tokens are not among them."""
    margins = table.margin[table.mismatch]
    inside = margins[np.isfinite(margins)]
    counts = np.histogram(inside, bins=[*MARGIN_EDGES, np.inf])[0]
    labels = [f"{low:g}–{high:g}" for low, high in itertools.pairwise(MARGIN_EDGES)]
    labels.append(f"> {MARGIN_EDGES[-1]:g}")
    made = [Column(label, int(one)) for label, one in zip(labels, counts, strict=True)]
    return (*made, Column("outside filters", int(np.isinf(margins).sum())))


def message_columns(counts: Sequence[int] | NDArray[np.int64]) -> tuple[Column, ...]:
    """Messages by how many of their tokens are mismatches."""
    classes = ((0, 0), (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32))
    values = np.asarray(counts)
    made = [
        Column(str(low) if low == high else f"{low}–{high}", int(((values >= low) & (values <= high)).sum()))
        for low, high in classes
    ]
    return (*made, Column("> 32", int((values > 32).sum())))


def typical_message(table: TokenTable) -> int | None:
    """The number of a message of readable length whose mismatch share is nearest to the whole's."""
    numbers, _, lengths = table.messages
    if not len(numbers):
        return None
    shares = table.mismatches_a_message / lengths
    readable = np.flatnonzero((lengths >= 30) & (lengths < 140))
    candidates = readable if len(readable) else np.arange(len(numbers))
    some = candidates[shares[candidates] > 0]
    candidates = some if len(some) else candidates
    return int(numbers[candidates[np.argmin(np.abs(shares[candidates] - table.mismatch.mean()))]])
