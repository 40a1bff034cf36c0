"""Checking a log from its bytes alone: signature, tree, format, and the rules among its parts.

Streams the entries; memory grows with the records in flight, not with the log. Nothing is trusted that the
checkpoint's signature does not cover, and nothing that is missing counts as a pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ullage.errors import MalformedError
from ullage.log.checkpoint import Checkpoint
from ullage.log.files import End, FrameReader, open_entries
from ullage.log.findings import Finding, LogFindings, Severity
from ullage.log.merkle import Frontier, leaf_hash
from ullage.log.record import ClosePart, HeaderPart, OpenPart, Part, parse_part
from ullage.log.state import LogState

MAX_FINDINGS = 50


@dataclass
class _Report:
    """Findings so far; a broken log may have millions, of which the first tell the story."""

    findings: list[Finding] = field(default_factory=list)
    left_out: int = 0
    left_out_fails: bool = False

    def add(
        self, code: str, sentence: str, severity: Severity = Severity.FAIL, index: int | None = None
    ) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(code, severity, sentence, index))
        else:
            self.left_out += 1
            self.left_out_fails |= severity is Severity.FAIL

    def all(self) -> tuple[Finding, ...]:
        if not self.left_out:
            return tuple(self.findings)
        severity = Severity.FAIL if self.left_out_fails else Severity.UNSURE
        return (*self.findings, Finding("more", severity, f"{self.left_out} further findings are left out."))


@dataclass
class _Scan:
    """One pass over the entries, and what was so at the checkpoint's size."""

    report: _Report
    checkpoint: Checkpoint | None
    state: LogState = field(default_factory=LogState)
    frontier: Frontier = field(default_factory=Frontier)
    root: bytes | None = None
    opened: int = 0
    closed: int = 0
    aborted: int = 0
    in_flight: int = 0
    first_time: int | None = None
    last_time: int | None = None

    def take(self, entry: bytes) -> None:
        index = self.frontier.size
        self.frontier.append(leaf_hash(entry))
        try:
            part = parse_part(entry)
        except MalformedError as error:
            self.report.add("entry-malformed", f"Entry {index}: {error}", index=index)
            self.state.entries += 1
        else:
            for breach in self.state.check(part):
                self.report.add(breach.rule.value, f"Entry {index}: {breach.sentence}.", index=index)
            self.state.accept(part)
            if self.checkpoint is None or index < self.checkpoint.size:
                self._note_time(part)
        if self.checkpoint is not None and self.frontier.size == self.checkpoint.size:
            self.root = self.frontier.root()
            self.opened, self.closed = self.state.next_counter, self.state.closed
            self.aborted, self.in_flight = self.state.aborted, len(self.state.in_flight)

    def _note_time(self, part: Part) -> None:
        match part:
            case HeaderPart():
                time = part.created
            case OpenPart():
                time = part.time_received
            case ClosePart():
                time = part.time_closed
            case _:
                return
        self.first_time = time if self.first_time is None else min(self.first_time, time)
        self.last_time = time if self.last_time is None else max(self.last_time, time)


def verify_entries(
    path: Path, checkpoint: Checkpoint | None, problems: list[Finding], *, self_vouched: bool
) -> LogFindings:
    """Check the file of entries against a checkpoint whose signature holds.

    `problems` are findings about the checkpoint itself; with `checkpoint` None at least one of them fails.
    """
    report = _Report(list(problems))
    scan = _Scan(report, checkpoint)
    with open_entries(path) as file:
        frames = FrameReader(file)
        for entry in frames:
            scan.take(entry)
    size = scan.frontier.size
    if size == 0:
        report.add("empty", "The log has no entries; an empty log shows nothing.")
    elif scan.state.header is None:
        report.add("header-missing", "The log has no header, so nothing says what was declared.")
    if frames.end is End.BROKEN:
        report.add(
            "entry-malformed", f"After entry {size - 1} stands a length that no entry has.", index=size
        )
    elif frames.end is End.TORN:
        report.add(
            "torn-tail",
            f"The file ends within entry {size}: a crash cut it short, or a writer is at work.",
            Severity.UNSURE,
            size,
        )
    if checkpoint is not None:
        _compare(scan, checkpoint)
    confirmed = checkpoint is not None and scan.root == checkpoint.root
    return LogFindings(
        findings=report.all(),
        header=scan.state.header,
        checkpoint=checkpoint,
        entries=size,
        covered=checkpoint.size if checkpoint is not None and confirmed else 0,
        opened=scan.opened,
        closed=scan.closed,
        aborted=scan.aborted,
        self_vouched=self_vouched,
        first_time=scan.first_time,
        last_time=scan.last_time,
    )


def _compare(scan: _Scan, checkpoint: Checkpoint) -> None:
    size, report = scan.frontier.size, scan.report
    if checkpoint.size == 0:
        report.add("empty", "The checkpoint signs an empty log, which shows nothing.")
    elif size < checkpoint.size:
        report.add(
            "entries-missing", f"{checkpoint.size} entries were signed and {size} are there: the log was cut."
        )
    elif scan.root != checkpoint.root:
        report.add(
            "root-mismatch",
            f"The first {checkpoint.size} entries are not those that were signed: one was altered.",
        )
    elif size > checkpoint.size:
        report.add(
            "not-covered",
            f"{size - checkpoint.size} entries after the last checkpoint are not covered by a signature yet.",
            Severity.UNSURE,
            checkpoint.size,
        )
    header = scan.state.header
    if header is not None and header.log_id != checkpoint.origin:
        report.add("origin-mismatch", "The checkpoint was signed for another log than the header names.")
    if scan.in_flight:
        report.add(
            "still-open",
            f"{scan.in_flight} records have no close within the signed entries; they count as not recorded.",
            Severity.NOTE,
        )
