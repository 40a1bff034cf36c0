"""Two parties audited the same log on machines that each of them trusts: do they agree?

What comes out is agree, disagree or cannot-tell, with the numbers of the records concerned, and nothing else
of either bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ullage.audit.bundle import TOKENS, verify_bundle
from ullage.audit.envelope import Statement
from ullage.errors import ExitCode, MalformedError, UsageError
from ullage.log.signed_note import NoteVerifier

_COLUMNS: Final = ["record", "position", "token", "margin", "outside"]
_MAX_ROWS: Final = 1 << 28
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
    """By record: its tokens, and whether a margin lies beyond the bound. Raises MalformedError."""
    try:
        file = pq.ParquetFile(path)
        if file.metadata.num_rows > _MAX_ROWS:
            raise MalformedError(f"{path} has more than {_MAX_ROWS} rows.")
        table = file.read(columns=_COLUMNS)
        record, token = (_integers(table, name) for name in ("record", "token"))
        margin = table["margin"].to_numpy()
        outside = table["outside"].to_numpy()
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are among them
        raise MalformedError(f"{path} is not the evidence of an audit.") from error
    beyond = outside | (np.nan_to_num(margin, nan=0.0) > bound)
    numbers, starts = np.unique(record, return_index=True)
    if np.any(np.diff(record) < 0) and len(numbers) != np.count_nonzero(np.diff(record)) + 1:
        raise MalformedError(f"{path} has a record's tokens in several places.")
    found = {}
    for number, start in zip(numbers.tolist(), starts.tolist(), strict=True):
        stop = start + int(np.argmax(record[start:] != number)) if np.any(record[start:] != number) else None
        found[number] = (token[start:stop].tobytes(), bool(beyond[start:stop].any()))
    return found


def _integers(table: object, name: str) -> NDArray[np.int64]:
    column: NDArray[np.int64] = table[name].to_numpy().astype(np.int64)  # type: ignore[index]
    return column
