"""`ullage work credit`: verified inference of a sealed log, added to an account."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ullage.cli.work import Account, Json, finish, load_calibration
from ullage.errors import IntegrityError, UndecidedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ullage.log.entries import Entry
    from ullage.work.calibration import Calibration
    from ullage.work.inference import Credit
    from ullage.work.window import Window

_CLOCKS_APART = 60.0  # seconds by which the tap's clock may be ahead of ours


def credit(
    evidence_folder: Annotated[Path, typer.Argument(metavar="ACCOUNT", help="What `account --out` wrote.")],
    *,
    calibration: Annotated[Path, typer.Option(help="The calibration of the machine's twin.")],
    calibration_key: Annotated[Path, typer.Option(help="Public key (verdict.pub) of who signed it.")],
    log: Annotated[Path, typer.Option(help="The tap's log.")],
    log_key: Annotated[Path, typer.Option(help="The tap's public key.")],
    bundle: Annotated[Path, typer.Option(help="The audit's bundle about that log.")],
    bundle_key: Annotated[Path, typer.Option(help="Public key of who signed the bundle.")],
    record_keys: Annotated[
        Path | None,
        typer.Option(help="What opens the records: a file of `ullage log open`, or the tap's keys."),
    ] = None,
    inspected: Annotated[
        bool, typer.Option("--inspected", help="The number of slots was inspected, not declared.")
    ] = False,
    own_twin: Annotated[
        bool, typer.Option("--own-twin", help="The calibration was measured on hardware of the verifier.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="New folder for claims and evidence.")] = None,
    as_json: Json = False,
) -> None:
    """Add verified inference to an account, and judge it again.

    The bundle has to be about the log as it is now, and its verdict has to be pass: otherwise inference
    earns nothing. Records that stay sealed earn nothing.
    """
    from ullage.work import evidence
    from ullage.work.inference import outside
    from ullage.work.run import Costs, with_inference

    if out:
        evidence.check_place(out)
    found, digest = load_calibration(calibration, calibration_key)
    windows = evidence.read(evidence_folder)
    if any((one.slots, one.worth) != (found.slots, found.worth) for one in windows):
        raise UsageError(
            f"{evidence_folder} was accounted by another calibration, with another worth of a unit or other "
            "slots; give --calibration the one that `ullage work account` was given."
        )
    earned = _earned(_Sources(log, log_key, bundle, bundle_key, record_keys), found)
    total = sum(one.seconds for one in earned)
    lost = outside(earned, [(one.start_unix, one.end_unix) for one in windows])
    sys.stderr.write(
        f"inference: {len(earned)} records, {total:.4g} slot-seconds, {lost:.4g} of them outside the "
        "account's windows (the tap's clock places them)\n"
    )
    credited = tuple(with_inference(windows, earned))
    finish(
        Account(credited, found, digest, inspected, own_twin),
        out,
        Costs(),
        as_json=as_json,
        inference={
            "records": len(earned),
            "seconds": total,
            "seconds_outside_windows": lost,
            "usual": _usual(credited, earned, found),
        },
    )


def _usual(
    windows: Sequence[Window], earned: Sequence[Credit], calibration: Calibration
) -> tuple[float, float] | None:
    """The factors that would make these windows show what an honest machine does, had they been of the twin;
    None where they say nothing about it. With them the alarm's price of inference is the twin's own."""
    from ullage.work.usual import usual_factors
    from ullage.work.verifier import DEPTH

    if not windows or calibration.inference is None:
        return None
    beside = any(window.companion is not None for window in windows)
    seconds = min(window.seconds for window in windows)
    expected = calibration.shows_honest(seconds, DEPTH, beside=beside)
    try:
        return usual_factors(windows, earned, expected).factors
    except UndecidedError:
        return None


@dataclass(frozen=True)
class _Sources:
    log: Path
    log_key: Path
    bundle: Path
    bundle_key: Path
    record_keys: Path | None


def _earned(sources: _Sources, calibration: Calibration) -> list[Credit]:
    from ullage.audit.bundle.folder import RECORDS, verify_bundle
    from ullage.log.keys import load_verifier
    from ullage.log.reader import LogReader
    from ullage.log.record import Record
    from ullage.log.sealed.openers import load_opener
    from ullage.work.inference import credit, served_records

    if calibration.inference is None:
        raise UsageError("The calibration has no times of inference; calibrate with --inference.")
    statement = verify_bundle(sources.bundle, load_verifier(sources.bundle_key))
    opener = load_opener(None, sources.record_keys)
    reader = LogReader.open(sources.log, load_verifier(sources.log_key), opener)
    if not reader.verify().integrity:  # a root alone says nothing of the entries that lie beside it
        raise IntegrityError(f"{sources.log} does not hold; `ullage log verify` says where.")
    root = next((s.digest["sha256"] for s in statement.subject if s.name == "log"), None)
    if root != reader.checkpoint.root.hex():
        raise UsageError("The bundle is about another log, or about an earlier state of this one.")
    passed = statement.predicate.verdict.value == "pass"
    examined = _examined_records(sources.bundle / RECORDS) if passed else {}
    everything = statement.predicate.sample.scheme == "all"
    readable, sealed = [], 0
    for record in reader.all_records():
        if isinstance(record, Record):
            readable.append(record)
        else:
            sealed += 1
    served = served_records(readable, examined, everything=everything)
    _check_clock(max((one.end for one in served), default=0))
    costs = calibration.inference.costs()
    if sealed:  # their times are sealed too: only the order of the log says what ran beside what
        sys.stderr.write(
            f"{sealed} records stay sealed: they earn nothing, the others the largest batch's rate\n"
        )
        costs = costs.of_the_largest_batch(_most_in_flight(reader.entries()))
    return credit(served, costs, calibration.slots)


def _most_in_flight(entries: Iterable[Entry]) -> int:
    """The most records that were open at one place of the log: none of them ran in a larger batch."""
    from ullage.log.entries import CloseEntry, OpenEntry

    most = level = 0
    for entry in entries:
        level += isinstance(entry, OpenEntry)
        level -= isinstance(entry, CloseEntry)
        most = max(most, level)
    return most


def _check_clock(last: int) -> None:
    """Raise UsageError for records that end in the future: the tap's clock and ours place inference."""
    ahead = (last - time.time_ns()) / 1e9
    if ahead > _CLOCKS_APART:
        raise UsageError(
            f"The log's last record ends {ahead:.0f} s after this machine's clock: set the clocks of tap and "
            "verifier, or inference is credited to windows that it did not run in."
        )


def _examined_records(path: Path) -> dict[int, bool]:
    """Counters of the records that an audit looked at, and whether it found the reference's own answer."""
    import pyarrow.parquet as pq

    from ullage.work.inference import is_the_references

    table = pq.read_table(path, columns=["counter", "mismatches", "output_tokens"])
    return {
        row["counter"]: is_the_references(row["mismatches"], row["output_tokens"])
        for row in table.to_pylist()
    }
