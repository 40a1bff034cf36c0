"""What a check of a log found, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from ullage.errors import ExitCode
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.notes.cosignature import Cosignature
from ullage.log.record import HeaderPart

MAX_FINDINGS = 50


class Severity(StrEnum):
    """What a finding does to the verdict on a log."""

    FAIL = "fail"  # the log contradicts itself or its signature
    UNSURE = "cannot-tell"  # part of the log cannot be judged yet
    NOTE = "note"  # worth knowing; changes nothing


@dataclass(frozen=True)
class Finding:
    """One finding. `code` is stable and listed in `docs/formats/log.md`; `sentence` is for people."""

    code: str
    severity: Severity
    sentence: str
    index: int | None = None  # entry of the log, where there is one


@dataclass
class FindingList:
    """Findings as they come: all on the whole log, and the first of those on parts of it."""

    whole: list[Finding] = field(default_factory=list)
    parts: list[Finding] = field(default_factory=list)
    left_out: int = 0
    left_out_fails: bool = False

    def add(
        self, code: str, sentence: str, severity: Severity = Severity.FAIL, index: int | None = None
    ) -> None:
        """A finding on an entry, a bundle or a tile; left out after the first `MAX_FINDINGS`."""
        if len(self.parts) < MAX_FINDINGS:
            self.parts.append(Finding(code, severity, sentence, index))
        else:
            self.left_out += 1
            self.left_out_fails |= severity is Severity.FAIL

    def conclude(
        self, code: str, sentence: str, severity: Severity = Severity.FAIL, index: int | None = None
    ) -> None:
        """A finding on the log as a whole; never left out."""
        self.whole.append(Finding(code, severity, sentence, index))

    def all(self) -> tuple[Finding, ...]:
        if not self.left_out:
            return (*self.whole, *self.parts)
        severity = Severity.FAIL if self.left_out_fails else Severity.UNSURE
        more = Finding("more", severity, f"{self.left_out} further findings are left out.")
        return (*self.whole, *self.parts, more)


@dataclass(frozen=True)
class LogFindings:
    """The result of checking a log. Counts are of the `covered` entries, which the checkpoint signs."""

    findings: tuple[Finding, ...]
    header: HeaderPart | None
    checkpoint: Checkpoint | None
    entries: int  # whole entries that were there
    covered: int  # of these, how many the checkpoint covers and confirms; 0 if it does not
    opened: int
    closed: int  # `aborted` ones included
    aborted: int
    self_vouched: bool  # the key came from the log's own folder
    first_time: int | None  # earliest and latest time in the covered entries, nanoseconds since 1970
    last_time: int | None
    witnessed: int = 0  # covered entries under a checkpoint that a quorum of witnesses cosigned
    cosignatures: tuple[Cosignature, ...] = ()  # of that checkpoint
    verdicts: tuple[tuple[int, str], ...] = ()  # entry and digest of those that are noted, the first 10,000
    unread: int = 0  # records that could not be opened; counted only by who can open records

    @property
    def integrity(self) -> int:
        """1 when the covered entries are whole, signed and consistent, else 0."""
        return int(bool(self.covered) and not any(one.severity is Severity.FAIL for one in self.findings))

    @property
    def exit_code(self) -> ExitCode:
        if not self.integrity:
            return ExitCode.FAIL
        unsure = any(one.severity is Severity.UNSURE for one in self.findings)
        return ExitCode.CANNOT_TELL if unsure else ExitCode.PASS

    @property
    def verdict(self) -> str:
        """`pass`, `fail` or `cannot-tell`."""
        return self.exit_code.name.lower().replace("_", "-")
