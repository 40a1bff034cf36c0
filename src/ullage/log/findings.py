"""What a check of a log found, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ullage.errors import ExitCode
from ullage.log.checkpoint import Checkpoint
from ullage.log.record import HeaderPart


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


@dataclass(frozen=True)
class LogFindings:
    """The result of `LogReader.verify`. Counts are of the `covered` entries, which the checkpoint signs."""

    findings: tuple[Finding, ...]
    header: HeaderPart | None
    checkpoint: Checkpoint | None
    entries: int  # whole entries in the file
    covered: int  # of these, how many the checkpoint covers and confirms; 0 if it does not
    opened: int
    closed: int  # `aborted` ones included
    aborted: int
    self_vouched: bool  # the key came from the log's own folder
    first_time: int | None  # earliest and latest time in the covered entries, nanoseconds since 1970
    last_time: int | None

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
