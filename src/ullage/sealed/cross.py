"""Two parties audited the same log on machines that each of them trusts: do they agree?

What comes out is agree, disagree or cannot-tell, with the numbers of the records concerned, and nothing else
of either bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ullage.audit.bundle.envelope import Statement
from ullage.audit.bundle.folder import TOKENS, verify_bundle
from ullage.errors import ExitCode, MalformedError, UsageError
from ullage.log.notes.signed_note import NoteVerifier

_INTEGER: Final = (pa.types.is_integer, "an integer")
_COLUMNS: Final[Mapping[str, tuple[Callable[[pa.DataType], bool], str]]] = {
    "record": _INTEGER,
    "position": _INTEGER,
    "token": _INTEGER,
    "margin": (lambda kind: pa.types.is_float32(kind) or pa.types.is_float64(kind), "float32 or float64"),
    "outside": (pa.types.is_boolean, "a boolean"),
}
_NEVER_NULL: Final = ("record", "token", "outside")
_MAX_ROWS: Final = 1 << 28
_MAX_RECORDS: Final = 1 << 24
DEFAULT_BOUND: Final = 0.1
"""Raw logits: margins above are a deviation, in bfloat16 and float32 alike."""


class Agreement(StrEnum):
    """What two audits say of each other."""

    AGREE = "agree"
    DISAGREE = "disagree"
    CANNOT_TELL = "cannot-tell"

    @property
    def exit_code(self) -> ExitCode:
        return {
            Agreement.AGREE: ExitCode.PASS,
            Agreement.DISAGREE: ExitCode.FAIL,
            Agreement.CANNOT_TELL: ExitCode.CANNOT_TELL,
        }[self]


@dataclass(frozen=True)
class Cross:
    """The comparison: record numbers, ascending."""

    agreement: Agreement
    compared: int
    disagreeing: tuple[int, ...]
    one_sided: tuple[int, ...]
    """Records that only one of the two audited."""


def compare(
    first: Path, first_key: NoteVerifier, second: Path, second_key: NoteVerifier, bound: float = DEFAULT_BOUND
) -> Cross:
    """Compare two bundles, each under its party's key.

    A record agrees if both saw the same tokens in it, and both find it within `bound` raw logits of their
    reference, or both beyond. Raises UsageError for bundles about different logs or models, and as
    `verify_bundle`.
    """
    if not 0 <= bound < float("inf"):
        raise UsageError("The bound is a number of logits, not negative.")
    statements = verify_bundle(first, first_key), verify_bundle(second, second_key)
    if _subjects(statements[0]) != _subjects(statements[1]):
        raise UsageError("The two bundles are about different logs or models: there is nothing to compare.")
    return compare_records(_read(first / TOKENS, bound), _read(second / TOKENS, bound))


def compare_records(one: Mapping[int, tuple[bytes, bool]], other: Mapping[int, tuple[bytes, bool]]) -> Cross:
    """What two parties' readings of records say of each other: tokens, and whether a margin is beyond."""
    both = sorted(one.keys() & other.keys())
    disagreeing = tuple(number for number in both if one[number] != other[number])
    one_sided = tuple(sorted(one.keys() ^ other.keys()))
    if disagreeing:
        agreement = Agreement.DISAGREE
    elif both:
        agreement = Agreement.AGREE
    else:
        agreement = Agreement.CANNOT_TELL
    return Cross(agreement, len(both), disagreeing, one_sided)


def _subjects(statement: Statement) -> frozenset[tuple[str, str]]:
    return frozenset((one.name, one.digest["sha256"]) for one in statement.subject)


def _read(path: Path, bound: float) -> dict[int, tuple[bytes, bool]]:
    """By record: its tokens, and whether a margin lies beyond the bound. Raises MalformedError.

    The other party signed the file, which makes it no better: its types, sizes and nulls are looked at.
    """
    try:
        with pq.ParquetFile(path) as file:
            _check(path, file)
            table = file.read(columns=sorted(_COLUMNS))
        for name in _NEVER_NULL:
            if table[name].null_count:
                raise MalformedError(f"{path}: column '{name}' has no value in some rows.")
        record, token = (table[name].cast(pa.int64()).to_numpy() for name in ("record", "token"))
        margin, outside = table["margin"].to_numpy(), table["outside"].to_numpy()
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, NotImplementedError) as error:
        raise MalformedError(f"{path} is not the evidence of an audit.") from error
    return _by_record(path, record, token, outside | (np.nan_to_num(margin, nan=0.0) > bound))


def _check(path: Path, file: pq.ParquetFile) -> None:
    """Look at what a file says of itself before it is read. Raises MalformedError."""
    if file.metadata.num_rows > _MAX_ROWS:
        raise MalformedError(f"{path} has more than {_MAX_ROWS} rows.")
    schema = file.schema_arrow
    for name, (is_right, wanted) in _COLUMNS.items():
        if schema.names.count(name) != 1:
            raise MalformedError(f"{path} needs one column '{name}', and has {schema.names.count(name)}.")
        kind = schema.field(name).type
        if not is_right(kind):
            raise MalformedError(f"{path}: column '{name}' is {str(kind)[:40]}, and has to be {wanted}.")


def _by_record(
    path: Path, record: NDArray[np.int64], token: NDArray[np.int64], beyond: NDArray[np.bool_]
) -> dict[int, tuple[bytes, bool]]:
    """Rows (T,) of each record together, in one pass. Raises MalformedError."""
    if not len(record):
        return {}
    starts = np.flatnonzero(np.append(True, record[1:] != record[:-1]))
    if len(starts) > _MAX_RECORDS:
        raise MalformedError(f"{path} has more than {_MAX_RECORDS} records.")
    numbers = record[starts].tolist()
    if len(set(numbers)) != len(numbers):
        raise MalformedError(f"{path} has a record's tokens in several places.")
    stops = [*starts[1:].tolist(), len(record)]
    said = np.logical_or.reduceat(beyond, starts).tolist()
    return {
        number: (token[start:stop].tobytes(), far)
        for number, start, stop, far in zip(numbers, starts.tolist(), stops, said, strict=True)
    }
