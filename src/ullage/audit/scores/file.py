"""Anybody's scores: a Parquet file with one row a token (`docs/formats/scores.md`), read in batches.

The file is not trusted: its schema, sizes and values are checked, and everything that is wrong with it is a
MalformedError. What is kept are counts; tokens are not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ullage.audit.bounds.universal_code import CELL_GAPS, NEAR_RANKS, NEAREST, OTHER, OWN, gap_cells
from ullage.errors import MalformedError

MAX_FILE_BYTES: Final = 4 << 30
MAX_READ_BYTES: Final = 8 << 30
MAX_ROWS: Final = 1 << 28
MAX_MESSAGES: Final = 1 << 22
MAX_COLUMNS: Final = 256
MAX_CLASSES: Final = 256
MAX_TEXT: Final = 128
_BATCH_ROWS: Final = 1 << 16
_INTEGERS: Final = ("token", "reference", "rank", "admissible_count", "text_bytes", "draws")
_REALS: Final = ("codelength", "margin", "gap")
_MAY_BE_NULL: Final = ("margin", "gap")
_KNOWN: Final = ("record", "class", *_INTEGERS, *_REALS)

Column = NDArray[Any]
Batch = dict[str, Column]


@dataclass
class ClassCounts:
    """Tokens of one class of prompts, as far as codes look at them."""

    gaps: NDArray[np.int64] = field(default_factory=lambda: np.zeros((len(CELL_GAPS), 3), np.int64))
    """(cells, 3) by gap and outcome; without gaps nothing."""
    tokens: int = 0
    near: int = 0
    """Not the reference's own, of rank 1 … 8."""
    far: int = 0


@dataclass
class ScoresTable:
    """What a file says, message by message. Lists have one entry a message, in order of first appearance."""

    columns: frozenset[str]
    vocabulary_size: int | None
    """As the file's metadata has it."""
    tokens: NDArray[np.int64]
    mismatches: NDArray[np.int64]
    codelength: NDArray[np.float64]
    log2_admissible: NDArray[np.float64]
    text_bytes: NDArray[np.int64]
    draws: NDArray[np.int64]
    classes: tuple[str, ...]
    by_class: dict[str, ClassCounts]

    @property
    def has_gaps(self) -> bool:
        """Whether the gaps code can be formed: gaps, and which token is the nearest other."""
        return {"gap", "rank"} <= self.columns

    @property
    def has_matches(self) -> bool:
        """Whether the columns say which tokens are the reference's own."""
        return bool({"rank", "margin"} & self.columns or {"token", "reference"} <= self.columns)


def read_scores(path: Path) -> ScoresTable:
    """Read and check a file. Raises MalformedError, with the row where a value is wrong."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise MalformedError(f"{path} has {size} bytes; a file of scores has at most {MAX_FILE_BYTES}.")
        with pq.ParquetFile(path) as file:
            reader = _Reader(path, _filled(path, file, _columns(path, file)))
            for batch in file.iter_batches(_BATCH_ROWS, columns=sorted(reader.columns)):
                reader.take(batch)
            return reader.table(_vocabulary_size(path, file))
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError, NotImplementedError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(".")
        raise MalformedError(f"{path} is not a Parquet file of scores: {said}.") from error


def _columns(path: Path, file: pq.ParquetFile) -> frozenset[str]:
    """The known columns of a file whose schema and declared sizes are within bounds."""
    schema, metadata = file.schema_arrow, file.metadata
    if len(schema.names) > MAX_COLUMNS or metadata.num_columns > MAX_COLUMNS:
        raise MalformedError(f"{path} has more than {MAX_COLUMNS} columns.")
    if len(set(schema.names)) != len(schema.names):
        raise MalformedError(f"{path} has two columns of one name.")
    if metadata.num_rows > MAX_ROWS:
        raise MalformedError(f"{path} has {metadata.num_rows} rows; at most {MAX_ROWS} are read.")
    found = frozenset(name for name in schema.names if name in _KNOWN)
    if "record" not in found:
        raise MalformedError(f"{path} has no column 'record', which says what message a token belongs to.")
    for name in sorted(found):
        _check_type(path, name, schema.field(name).type)
    declared = sum(
        chunk.total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for chunk in (metadata.row_group(group).column(place) for place in range(metadata.num_columns))
        if chunk.path_in_schema in found
    )
    if declared > MAX_READ_BYTES:
        raise MalformedError(f"{path} unpacks to {declared} bytes; at most {MAX_READ_BYTES} are read.")
    return found


def _filled(path: Path, file: pq.ParquetFile, columns: frozenset[str]) -> frozenset[str]:
    """Those of `columns` that are not null throughout, after a look at which values are null."""
    rows, nulls = 0, dict.fromkeys(columns, 0)
    for batch in file.iter_batches(_BATCH_ROWS, columns=sorted(columns)):
        rows += len(batch)
        for name in columns:
            nulls[name] += batch.column(name).null_count
    for name in sorted(columns):
        if name not in _MAY_BE_NULL and nulls[name] > 0 and (name == "record" or nulls[name] < rows):
            raise MalformedError(
                f"{path}: column '{name}' is null in {nulls[name]} of {rows} rows; it has to have a value in "
                "all or in none."
            )
    return frozenset(name for name in columns if nulls[name] < rows or name == "record")


def _check_type(path: Path, name: str, kind: pa.DataType) -> None:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    text = pa.types.is_string(plain) or pa.types.is_large_string(plain)
    if name == "record":
        right, wanted = text or pa.types.is_integer(plain), "an integer or a string"
    elif name == "class":
        right, wanted = text, "a string"
    elif name in _INTEGERS:
        right, wanted = pa.types.is_integer(kind), "an integer"
    else:
        right, wanted = pa.types.is_float32(kind) or pa.types.is_float64(kind), "float32 or float64"
    if not right:
        raise MalformedError(f"{path}: column '{name}' is {str(kind)[:40]}, and has to be {wanted}.")


def _vocabulary_size(path: Path, file: pq.ParquetFile) -> int | None:
    said = (file.schema_arrow.metadata or {}).get(b"vocabulary_size")
    if said is None:
        return None
    if not said.isdigit() or not 2 <= int(said[:12]) < 1 << 31 or len(said) > 10:
        raise MalformedError(f"{path}: the metadata's vocabulary_size is not a number from 2 on.")
    return int(said)


class _Reader:
    """Adds batches up."""

    def __init__(self, path: Path, columns: frozenset[str]) -> None:
        self.columns = columns
        self._path = path
        self._rows = 0
        self._place: dict[int | str, int] = {}
        self._kinds: dict[str, int] = {}
        self._kind = np.zeros(0, np.int64)  # of each message
        self._draws = np.zeros(0, np.int64)
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._by_class: dict[str, ClassCounts] = {}

    def take(self, batch: pa.RecordBatch) -> None:
        """Check a batch and count it."""
        found = {name: self._numbers(name, batch.column(name)) for name in self.columns - {"record", "class"}}
        kind = self._enter_kinds(batch)
        message = self._messages(batch.column("record"), kind, found.get("draws"))
        self._count(message, kind, found)
        self._rows += len(batch)

    def _numbers(self, name: str, column: pa.Array) -> Column:
        """A column as int64, or as float64 with NaN for null."""
        if name in _INTEGERS:
            numbers = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
            wrong = numbers < (1 if name in {"admissible_count", "draws"} else 0)
        else:
            numbers = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            wrong = np.asarray(column.is_valid()) & ~(np.isfinite(numbers) & (numbers >= 0))
        if wrong.any():
            row = int(wrong.argmax())
            raise self._wrong(name, row, str(numbers[row]))
        return np.asarray(numbers)

    def _wrong(self, name: str, row: int, value: str) -> MalformedError:
        return MalformedError(
            f"{self._path}: row {self._rows + row} has '{name}' = {value[:40]}, which no token has "
            "(docs/formats/scores.md)."
        )

    def _enter_kinds(self, batch: pa.RecordBatch) -> Column:
        """The class of each row, as its number; new classes are entered."""
        if "class" not in self.columns:
            values, index = [""], np.zeros(len(batch), np.int64)
        else:
            values, index = _encoded(batch.column("class"))
        numbers = np.zeros(len(values), np.int64)
        for place, value in enumerate(values):
            self._check_text("class", value)
            numbers[place] = self._kinds.setdefault(value, len(self._kinds))
            self._by_class.setdefault(value, ClassCounts())
        if len(self._kinds) > MAX_CLASSES:
            raise MalformedError(f"{self._path} has more than {MAX_CLASSES} classes of prompts.")
        return np.asarray(numbers[index])

    def _messages(self, names: pa.Array, kind: Column, draws: Column | None) -> Column:
        """The message of each row (B,), as its number; new ones are entered."""
        times = np.ones(len(kind), np.int64) if draws is None else draws
        values, index = _encoded(names)
        numbers = np.zeros(len(values), np.int64)
        before = len(self._place)
        for place, value in enumerate(values):
            self._check_text("record", value)
            numbers[place] = self._place.setdefault(value, len(self._place))
        if len(self._place) > MAX_MESSAGES:
            raise MalformedError(f"{self._path} has more than {MAX_MESSAGES} messages.")
        message = numbers[index]
        new = np.zeros(len(self._place) - before, np.int64)
        self._kind, self._draws = np.append(self._kind, new), np.append(self._draws, new)
        rows = np.flatnonzero(message >= before)[::-1]  # the first row of a message is written last
        self._kind[message[rows]], self._draws[message[rows]] = kind[rows], times[rows]
        other = (self._kind[message] != kind) | (self._draws[message] != times)
        if other.any():
            raise MalformedError(
                f"{self._path}: row {self._rows + int(other.argmax())} has another class, or another number "
                "of draws, than the rows before it of the same record."
            )
        return np.asarray(message)

    def _check_text(self, name: str, value: object) -> None:
        if isinstance(value, str) and len(value.encode("utf-8", "replace")) > MAX_TEXT:
            raise MalformedError(f"{self._path}: a text in '{name}' has more than {MAX_TEXT} bytes.")

    def _count(self, message: Column, kind: Column, found: Batch) -> None:
        own = self._own(found)
        self._add("tokens", message, np.ones(len(message)))
        for name in {"codelength", "text_bytes"} & set(found):
            self._add(name, message, found[name].astype(np.float64))
        if "admissible_count" in found:
            self._add("log2_admissible", message, np.log2(found["admissible_count"]))
        if own is None:
            return
        self._add("mismatches", message, (~own).astype(np.float64))
        rank = found.get("rank")
        near = np.zeros(len(own), np.bool_)
        if rank is not None:
            near = ~own & (rank >= 1) & (rank <= NEAR_RANKS)
        for name, number in self._kinds.items():
            here, counts = kind == number, self._by_class[name]
            counts.tokens += int(here.sum())
            counts.near += int((near & here).sum())
            counts.far += int((~own & ~near & here).sum())
            if rank is not None and "gap" in found:
                gap = np.where(np.isnan(found["gap"]), np.inf, found["gap"])[here]
                outcome = np.where(own, OWN, np.where(rank == 1, NEAREST, OTHER))[here]
                np.add.at(counts.gaps, (gap_cells(gap), outcome), 1)

    def _own(self, found: Batch) -> NDArray[np.bool_] | None:
        """Whether each token is the reference's own; None if the file does not say."""
        if {"token", "reference"} <= set(found):
            return np.asarray(found["token"] == found["reference"])
        if "rank" in found:
            return np.asarray(found["rank"] == 0)
        return np.asarray(found["margin"] == 0) if "margin" in found else None

    def _add(self, name: str, message: Column, values: Column) -> None:
        more: NDArray[np.float64] = np.bincount(message, weights=values, minlength=len(self._place)).astype(
            np.float64
        )
        so_far = self._sums.get(name, np.zeros(0))
        more[: len(so_far)] += so_far
        self._sums[name] = more

    def table(self, vocabulary_size: int | None) -> ScoresTable:
        """All that was counted."""
        messages = len(self._place)
        names = list(self._kinds)

        def sums(name: str) -> NDArray[np.float64]:
            found = self._sums.get(name, np.zeros(0))
            return np.append(found, np.zeros(messages - len(found)))

        return ScoresTable(
            columns=self.columns,
            vocabulary_size=vocabulary_size,
            tokens=sums("tokens").astype(np.int64),
            mismatches=sums("mismatches").astype(np.int64),
            codelength=sums("codelength"),
            log2_admissible=sums("log2_admissible"),
            text_bytes=sums("text_bytes").astype(np.int64),
            draws=self._draws,
            classes=tuple(names[number] for number in self._kind),
            by_class=self._by_class,
        )


def _encoded(column: pa.Array) -> tuple[list[Any], Column]:
    """Different values of a column, and which of them each row has."""
    plain = column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
    if plain.null_count:
        raise ValueError("a dictionary holds null")
    encoded = plain.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)
