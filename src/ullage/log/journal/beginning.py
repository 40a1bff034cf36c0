"""The files of a log that has no entry yet."""

from __future__ import annotations

import os
from pathlib import Path

from ullage.errors import UsageError
from ullage.log.files import replace, sync_directory
from ullage.log.journal.append import Journal, lock_journal
from ullage.log.journal.publisher import PUBLIC_KEY, Publisher
from ullage.log.journal.recovery import Recovered, holds_log
from ullage.log.journal.segments import SEALED_FOLDER, SegmentHead
from ullage.log.keys import TapKeys
from ullage.log.notes.checkpoint import signs_for
from ullage.log.record import HeaderPart
from ullage.log.sealed.sealing import seal_commitment, seed_commitment
from ullage.log.state import LogState
from ullage.log.tree.tile_tree import TreeEdge


def committed_header(directory: Path, keys: TapKeys, header: HeaderPart) -> HeaderPart:
    """The header that a new log in `directory` begins with: it commits to the seed key.

    Raises UsageError when the keys cannot sign for the log, or there is one already.
    """
    name = keys.log.name
    if not signs_for(name, header.log_id):
        raise UsageError(
            f"The log's id must be {name} or begin with {name}/, because the key {name} signs it."
        )
    if holds_log(directory):
        raise UsageError(f"{directory} already holds a log; open it or choose another folder.")
    return header.model_copy(update={"seed_commitment": seed_commitment(keys.seed)})


def begin_files(directory: Path, keys: TapKeys, header: HeaderPart) -> tuple[int, Recovered]:
    """Make the folders, the public key and an empty journal; returns the lock's descriptor and the state.

    Raises UsageError when another writer has the folder, OSError.
    """
    sealed = directory / SEALED_FOLDER
    sealed.mkdir(parents=True, exist_ok=True)
    sealed.chmod(0o700)
    sync_directory(directory.parent)
    lock = lock_journal(sealed)
    try:
        replace(directory / PUBLIC_KEY, f"{keys.log.named(header.log_id).verifier}\n".encode())
        journal = Journal.begin(sealed, SegmentHead.first(header, seal_commitment(keys.seal)))
    except BaseException:
        os.close(lock)
        raise
    return lock, Recovered(LogState(), {}, Publisher(TreeEdge(), 0, []), journal, None)
