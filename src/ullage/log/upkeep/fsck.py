"""What is wrong with a log's folder, for its operator, and what of it can be mended (`docs/formats/fsck.md`).

Verification asks whether a log is what was signed; this asks which files are to blame. The journal and the
published files hold the same entries, so each can stand in for the other; the signed root says who is right.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ullage.errors import ExitCode, IntegrityError, MalformedError, UsageError
from ullage.log.files import read_limited, storage_fault
from ullage.log.journal.append import lock_journal
from ullage.log.journal.publisher import CHECKPOINT, PUBLIC_KEY
from ullage.log.journal.segments import SEALED_FOLDER
from ullage.log.keys import read_verifier
from ullage.log.notes.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from ullage.log.notes.signed_note import MAX_NOTE_BYTES, NoteVerifier, parse_note
from ullage.log.upkeep.fsck_files import check_files, leftovers, mend_modes
from ullage.log.upkeep.fsck_journal import check_journal
from ullage.log.upkeep.rebuild import Rebuilding
from ullage.log.upkeep.trouble import Grade, Trouble


class State(StrEnum):
    """What a check of the files ends with."""

    SOUND = "sound"
    REPAIRABLE = "repairable"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Diagnosis:
    """What was found, in the order in which it was looked for."""

    troubles: tuple[Trouble, ...]
    entries: int = 0  # whole entries in the journal
    signed: int = 0  # entries that the checkpoint names

    @property
    def state(self) -> State:
        grades = {trouble.grade for trouble in self.troubles}
        if Grade.DAMAGE in grades:
            return State.DAMAGED
        return State.REPAIRABLE if Grade.REPAIR in grades else State.SOUND

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.PASS if self.state is State.SOUND else ExitCode.FAIL


@dataclass
class _Check:
    directory: Path
    key: NoteVerifier | None
    in_use: bool
    troubles: list[Trouble] = field(default_factory=list)

    def run(self) -> tuple[Diagnosis, Rebuilding | None]:
        self.troubles += check_files(self.directory, in_use=self.in_use)
        checkpoint = self._checkpoint()
        signed = checkpoint.size if checkpoint else 0
        sealed = self.directory / SEALED_FOLDER
        entries = 0
        if sealed.is_dir():
            found, entries = check_journal(sealed, signed, in_use=self.in_use)
            self.troubles += found
        else:
            sentence = "There is no journal: the log verifies without it, but no record can be opened."
            self._add("journal-missing", Grade.DAMAGE, SEALED_FOLDER, sentence)
        rebuilding = None
        if checkpoint is not None and checkpoint.size:
            rebuilding = Rebuilding.look(self.directory, checkpoint)
            self.troubles += rebuilding.troubles
        return Diagnosis(tuple(self.troubles), entries, signed), rebuilding

    def _checkpoint(self) -> Checkpoint | None:
        path = self.directory / CHECKPOINT
        if not path.exists():
            sentence = (
                "There is no checkpoint, so nothing is signed. If the log has more than its header, it was "
                "removed: put it back from a backup or from a witness."
            )
            self._add("no-checkpoint", Grade.DAMAGE, CHECKPOINT, sentence)
            return None
        try:
            note = read_limited(path, MAX_NOTE_BYTES)
            claimed = parse_checkpoint(parse_note(note)[0])
        except (MalformedError, UsageError) as error:
            self._add("bad-signature", Grade.DAMAGE, CHECKPOINT, f"The checkpoint cannot be read: {error}")
            return None
        try:
            open_checkpoint(note, self.key or read_verifier(self.directory / PUBLIC_KEY))
        except (IntegrityError, UsageError) as error:
            sentence = f"The checkpoint does not verify with the log's key: {error}"
            self._add("bad-signature", Grade.DAMAGE, CHECKPOINT, sentence)
        return claimed

    def _add(self, code: str, grade: Grade, path: str, sentence: str) -> None:
        self.troubles.append(Trouble(code, grade, path, sentence))


def check_log(directory: Path, key: NoteVerifier | None = None) -> Diagnosis:
    """Look at every file of a log; nothing is changed. A tap may be at work meanwhile.

    `key` signs the checkpoint; without one `log.pub` in the folder is taken. Raises UsageError, FaultError.
    """
    _must_be_log(directory)
    with _held(directory) as alone:
        try:
            return _Check(directory, key, not alone).run()[0]
        except OSError as error:
            raise storage_fault(directory, error) from error


def repair_log(directory: Path, key: NoteVerifier | None = None) -> tuple[Diagnosis, Diagnosis]:
    """Mend what can be mended; what was found before, and after.

    Tiles and bundles are made again out of the journal, or hash tiles out of the bundles, but only if the
    entries are those that were signed; modes are set; leftovers of a crash are removed. Journal, checkpoint
    and what is kept of torn tails are never touched. Raises UsageError while a tap writes, FaultError.
    """
    _must_be_log(directory)
    with _held(directory) as alone:
        if not alone:
            raise UsageError(f"A tap writes to {directory}; stop it before repairing.")
        before, rebuilding = _Check(directory, key, in_use=False).run()
        try:
            mend_modes(directory)
            for path in leftovers(directory):
                path.unlink()
            if rebuilding is not None and rebuilding.possible:
                rebuilding.write()
        except OSError as error:
            raise storage_fault(directory, error) from error
        return before, _Check(directory, key, in_use=False).run()[0]


def _must_be_log(directory: Path) -> None:
    if not directory.is_dir():
        raise UsageError(f"There is no folder {directory}.")
    if not any((directory / name).exists() for name in (CHECKPOINT, "tile", SEALED_FOLDER)):
        raise UsageError(f"{directory} is not a log: it has neither a checkpoint nor tiles nor a journal.")


@contextmanager
def _held(directory: Path) -> Iterator[bool]:
    """Whether nobody writes to the log until the block ends."""
    sealed = directory / SEALED_FOLDER
    if not (sealed / "lock").exists():
        yield True
        return
    try:
        lock = lock_journal(sealed)
    except UsageError:
        yield False
        return
    except OSError as error:
        raise storage_fault(directory, error) from error
    try:
        yield True
    finally:
        os.close(lock)
