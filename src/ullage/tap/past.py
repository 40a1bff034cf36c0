"""What a log says of its day and of lateness so far: a tap that is started again goes on counting there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ullage.enforce.accounting import Ledger
from ullage.log.keys import TapKeys
from ullage.log.reader import LogReader
from ullage.log.record import ClosePart, Record
from ullage.log.sealed.openers import SealKey
from ullage.tap.clients.budgets import same_day
from ullage.tap.pacing.grid import Pace
from ullage.tap.pacing.ledger import Allowance
from ullage.tap.pacing.schedule import read_sentence
from ullage.tap.residual.capacity import Counts


@dataclass(frozen=True)
class Past:
    """`lateness` is that of all records; `released` the bytes that left on the day of `time_ns`, and `counts`
    what was answered on it. `allowance_left`: exceptions that the server has left; None: all of them."""

    lateness: Ledger = field(default_factory=Ledger)
    released: int = 0
    time_ns: int = 0
    counts: Counts = field(default_factory=Counts)
    allowance_left: float | None = None


def read_past(
    directory: Path,
    keys: TapKeys,
    time_ns: int,
    pace: Pace | None = None,
    allowance: Allowance | None = None,
) -> Past:
    """The past of a log as of now. Records that were forgotten since count no longer.

    `pace` is that of the tap's slots, if it has any, and `allowance` what is allowed in them.

    Raises UllageError when the log cannot be read.
    """
    log = LogReader.open(directory, opener=SealKey(keys.seal))
    return past_of(log.records(include_uncovered=True), time_ns, pace, allowance)


def past_of(
    records: Iterable[Record],
    time_ns: int,
    pace: Pace | None = None,
    allowance: Allowance | None = None,
) -> Past:
    """The past that these records add up to."""
    details: list[str] = []
    exceptions: list[tuple[int, float, int]] = []
    released = 0
    today: list[Record] = []
    for record in records:
        if record.close is not None:
            details.append(record.close.detail)
            exceptions.append(_exceptions(record, record.close, pace))
        if same_day(_time_of(record), time_ns):
            released += _released(record)
            today.append(record)
    left = None if allowance is None else allowance.left_after(exceptions, time_ns)
    return Past(Ledger.of(details), released, time_ns, Counts.of(today, pace), left)


def _exceptions(record: Record, close: ClosePart, pace: Pace | None) -> tuple[int, float, int]:
    """When a record was closed, its releases, and how often the server was late or failed."""
    if record.open.choice != 0:
        return close.time_closed, 0, 0
    groups = 1 if pace is None or not record.open.stream else pace.groups(len(close.output_ids))
    steps, _ = read_sentence(close.detail)
    return close.time_closed, groups, steps + (close.outcome == "upstream-failed")


def _time_of(record: Record) -> int:
    return record.open.time_received if record.close is None else record.close.time_closed


def _released(record: Record) -> int:
    """Bytes that may have left: where the close does not know them, those of all chunks."""
    known = None if record.close is None else record.close.bytes_to_client
    return sum(chunk.bytes for chunk in record.chunks) if known is None else known
