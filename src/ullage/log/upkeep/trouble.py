"""One thing that is wrong, or worth knowing, with a file of a log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """What can be done about a trouble."""

    DAMAGE = "damage"  # nothing here can mend it
    REPAIR = "repair"  # `ullage log fsck --repair` does
    NOTE = "note"  # worth knowing


@dataclass(frozen=True)
class Trouble:
    """`code` is stable and listed in `docs/formats/fsck.md`; `path` is under the log's folder."""

    code: str
    grade: Grade
    path: str
    sentence: str
