"""`ullage scan`: encoded payloads in text, in files, in a log."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from ullage.errors import ExitCode, FaultError, UsageError
from ullage.terminal import plain_line

if TYPE_CHECKING:
    from ullage.monitor.finding import Report
    from ullage.monitor.limits import Limits
    from ullage.monitor.opinion import Surprisal
    from ullage.monitor.scanner import Recogniser

_BLOCK = 256 << 10


@dataclass(frozen=True)
class _How:
    """The settings of one call."""

    limits: Limits
    recogniser: Recogniser | None
    surprisal: Surprisal | None


def scan(
    source: Annotated[
        list[str] | None, typer.Argument(help="Files, or logs' folders; '-' or nothing: standard input.")
    ] = None,
    *,
    text: Annotated[str | None, typer.Option(help="Scan this text instead.")] = None,
    record_keys: Annotated[
        Path | None,
        typer.Option(help="What opens a log's records: a file of `ullage log open`, or the tap's keys."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Folder of the declared model: knows its weights, reads a log.")
    ] = None,
    surprisal: Annotated[
        bool, typer.Option("--surprisal", help="Ask the model for a second opinion (torch; slow).")
    ] = False,
    depth: Annotated[int, typer.Option(min=1, max=64, help="Layers of encoding to open.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Find and decode payloads: base64 and its kin, escapes, hidden characters, turned prose.

    Ends with 0 when nothing was found, 1 when something was, 2 for a wrong request, 3 when nothing was found
    but some records of a log stayed sealed.
    """
    from ullage.monitor.limits import Limits

    if text is not None and source:
        raise UsageError("Give --text or files, not both.")
    if surprisal and text is None and "-" in (source or ["-"]):
        raise UsageError("--surprisal goes back to what it found: give a file, not standard input.")
    how = _How(Limits(depth=depth), _weights(model), _judge(model) if surprisal else None)
    reports: list[tuple[str, Report]] = []
    sealed = 0
    if text is not None:
        reports.append(("text", _of_bytes(text.encode("utf-8", "surrogatepass"), how)))
    for name in source or ([] if text is not None else ["-"]):
        if name != "-" and Path(name).is_dir():
            found, unread = _of_log(Path(name), record_keys, model, how)
            reports += found
            sealed += unread
        else:
            reports.append((name, _of_file(name, how)))
    typer.echo(document(reports, sealed) if as_json else lines(reports, sealed))
    is_found = any(report.findings for _, report in reports)
    raise typer.Exit(int(ExitCode.FAIL if is_found else ExitCode.CANNOT_TELL if sealed else ExitCode.PASS))


def _weights(model: Path | None) -> Recogniser | None:
    if model is None:
        return None
    from ullage.monitor.weights import WeightIndex

    index = WeightIndex.build(model)
    return lambda payload: "declared-weights" if index.holds(payload) else None


def _judge(model: Path | None) -> Surprisal:
    from ullage.model.builtin import builtin_path
    from ullage.model.reference import Reference
    from ullage.model.surprisal import surprisal_bits

    reference = Reference.load(model or builtin_path())
    return lambda context, stretch: surprisal_bits(reference, context, stretch)


def _of_bytes(data: bytes, how: _How) -> Report:
    from ullage.monitor.opinion import with_opinion
    from ullage.monitor.stream import scan_stream

    report = scan_stream([data], how.limits, recogniser=how.recogniser)
    if how.surprisal is None:
        return report
    return with_opinion(report, lambda start, end: data[start:end], how.surprisal)


def _of_file(name: str, how: _How) -> Report:
    from ullage.monitor.opinion import with_opinion
    from ullage.monitor.stream import scan_stream

    try:
        if name == "-":
            return scan_stream(_blocks(sys.stdin.buffer), how.limits, recogniser=how.recogniser)
        with Path(name).open("rb") as file:
            report = scan_stream(_blocks(file), how.limits, recogniser=how.recogniser)
            if how.surprisal is None:
                return report
            return with_opinion(report, lambda start, end: _read(file, start, end), how.surprisal)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {name}.") from error
    except OSError as error:
        raise FaultError(f"{name} cannot be read: {error.strerror}.") from error


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _of_log(
    folder: Path, record_keys: Path | None, model: Path | None, how: _How
) -> tuple[list[tuple[str, Report]], int]:
    """Reports of the outputs of all records, and how many could not be read."""
    from ullage.log.opened import SealedRecord
    from ullage.log.sealed.openers import load_opener
    from ullage.log.store import LogReader
    from ullage.model.builtin import builtin_path
    from ullage.model.tokenizer import ModelTokenizer

    reader = LogReader.open(folder, opener=load_opener(None, record_keys))
    if reader.opener is None:
        raise UsageError("The records of a log are sealed; give --record-keys.")
    tokenizer = ModelTokenizer.load(model or builtin_path())
    reports: list[tuple[str, Report]] = []
    sealed = 0
    for record in reader.all_records(include_uncovered=True):
        if isinstance(record, SealedRecord):
            sealed += 1
            continue
        output = tokenizer.decode(record.output_ids).encode("utf-8", "surrogatepass")
        reports.append((f"{folder}:{record.counter}", _of_bytes(output, how)))
    return reports, sealed


def document(reports: list[tuple[str, Report]], sealed: int) -> str:
    """What `--json` prints: one report as it is, several with the place of each finding."""
    total = sum(report.unexplained_bits for _, report in reports)
    if len(reports) == 1:
        found = reports[0][1].document()
    else:
        findings = [one.document() | {"source": name} for name, report in reports for one in report.findings]
        found = {"findings": findings, "unexplained_bits": total}
    unlisted = sum(report.unlisted for _, report in reports)
    rest = {"unlisted": unlisted} if unlisted else {}
    return json.dumps(found | rest | ({"sealed_records": sealed} if sealed else {}))


def lines(reports: list[tuple[str, Report]], sealed: int) -> str:
    """For a terminal. Nothing that was scanned is printed."""
    shown: list[str] = []
    for name, report in reports:
        for one in report.findings:
            indent = "  " * one.depth
            place = f"{name}:{one.start}-{one.end}"
            shown.append(f"{place}  {indent}{one.encoding}: {one.kind}, {one.payload_bits} bits")
        if report.unlisted:
            shown.append(f"{name}: {report.unlisted} more findings")
    total = sum(report.unexplained_bits for _, report in reports)
    size = sum(report.bytes_scanned for _, report in reports)
    shown.append(f"{size} bytes scanned, {total} unexplained bits")
    if sealed:
        shown.append(f"{sealed} records could not be read")
    return "\n".join(plain_line(line) for line in shown)
