"""Changing the keys of a tap: the one that signs its logs, the one that wraps the keys of its records.

Both commands can be interrupted anywhere and run again. The next key lies beside the old one as `*.new` until
every log knows it; until then `load_tap_keys` refuses the folder.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

from ullage.errors import IntegrityError, UsageError
from ullage.log.entries import KeyEntry, OpenEntry, parse_entry
from ullage.log.files import replace, storage_fault, sync_directory, write_new
from ullage.log.journal.append import lock_journal
from ullage.log.journal.segments import (
    SEALED_FOLDER,
    SegmentReader,
    list_segments,
    open_segment,
    read_frames,
    replace_head,
    segment_path,
)
from ullage.log.keys import TapKeys, load_next_seal_key, load_next_signer, load_tap_keys, seal_key_text
from ullage.log.notes.signed_note import NoteSigner
from ullage.log.sealed.sealing import KeyWrap, seal_commitment
from ullage.log.writer import LogWriter


def rotate_log_key(logs: Sequence[Path], folder: Path) -> NoteSigner:
    """Hand all logs that a tap's key signs over to a new key, and put that in its place.

    No tap may be running. Raises UsageError, IntegrityError, FaultError.
    """
    keys = load_tap_keys(folder, between_keys=True)
    fresh = folder / "log.key.new"
    try:
        if not fresh.exists():
            made = NoteSigner(keys.log.name, secrets.token_bytes(32))
            write_new(fresh, f"{made.private_text()}\n".encode(), 0o600)
            sync_directory(folder)
        new = load_next_signer(folder)
        for log in logs:
            handed = _is_handed_over(log, new)
            with LogWriter.open(log, dataclasses.replace(keys, log=new) if handed else keys) as writer:
                if not handed:
                    writer.rotate_key(new)
        replace(folder / "log.pub", f"{new.verifier}\n".encode())
        fresh.replace(folder / "log.key")
        sync_directory(folder)
    except OSError as error:
        raise storage_fault(folder, error) from error
    return new


def rotate_seal_key(logs: Sequence[Path], folder: Path) -> int:
    """Wrap the record keys of all logs of a tap under a new seal key, and destroy the old one.

    Returns how many keys were wrapped. No tap may be running. Raises UsageError, IntegrityError, FaultError.
    """
    fresh, old = folder / "seal.key.new", folder / "seal.key.old"
    try:
        if not fresh.exists() and not old.exists():
            write_new(fresh, seal_key_text().encode(), 0o600)
            sync_directory(folder)
        count = 0
        if fresh.exists():
            if old.exists() and not (folder / "seal.key").exists():
                old.replace(folder / "seal.key")
            keys, new = load_tap_keys(folder, between_keys=True), load_next_seal_key(folder)
            count = sum(_wrap_again(log, keys, new) for log in logs)
            (folder / "seal.key").replace(old)
            fresh.replace(folder / "seal.key")
            sync_directory(folder)
        _destroy(old)
    except OSError as error:
        raise storage_fault(folder, error) from error
    return count


def _is_handed_over(log: Path, new: NoteSigner) -> bool:
    entries = (parse_entry(frame.entry) for frame in read_frames(log / SEALED_FOLDER) if not frame.payload)
    return any(isinstance(one, KeyEntry) and one.new_key == str(new.verifier) for one in entries)


def _wrap_again(log: Path, keys: TapKeys, new: bytes) -> int:
    sealed = log / SEALED_FOLDER
    firsts = list_segments(sealed)
    if not firsts:
        raise UsageError(f"{log} holds no log with sealed records.")
    with open_segment(sealed, firsts[-1]) as file:
        finished = SegmentReader(file).head.seal_commitment == seal_commitment(new)
    if not finished:
        LogWriter.open(log, keys).close()  # after a crash: nothing torn, nothing in flight
        firsts = list_segments(sealed)
    lock = lock_journal(sealed)
    try:
        return sum(_wrap_segment(sealed, first, keys.seal, new) for first in firsts)
    finally:
        os.close(lock)


def _wrap_segment(sealed: Path, first: int, old: bytes, new: bytes) -> int:
    """Replace a segment by one whose record keys are wrapped under `new`; nothing moves within it."""
    path = segment_path(sealed, first)
    data = bytearray(path.read_bytes())
    with open_segment(sealed, first) as file:
        reader = SegmentReader(file)
        head = reader.head
        if head.seal_commitment == seal_commitment(new):
            return 0
        if head.seal_commitment != seal_commitment(old):
            raise IntegrityError(f"{path} is sealed with neither the old nor the new key.")
        unwrap, wrap = KeyWrap(head.header.log_id, old), KeyWrap(head.header.log_id, new)
        count = 0
        for frame in reader:
            if not frame.wrapped_key or frame.forgotten:
                continue
            entry = parse_entry(frame.entry)
            if isinstance(entry, OpenEntry):
                wrapped = wrap.wrap(entry.counter, unwrap.unwrap(entry.counter, frame.wrapped_key))
                data[frame.key_offset : frame.key_offset + len(wrapped)] = wrapped
                check = crc32(frame.payload, crc32(wrapped)).to_bytes(4, "big")
                data[frame.offset + 8 : frame.offset + 12] = check
                count += 1
    replace_head(data, head.model_copy(update={"seal_commitment": seal_commitment(new)}))
    replace(path, bytes(data), 0o600)
    return count


def _destroy(path: Path) -> None:
    """Overwrite a secret and remove it. Raises OSError."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    sync_directory(path.parent)
