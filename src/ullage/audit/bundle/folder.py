"""The evidence bundle: a folder that holds an audit's claims, evidence and signed verdict.

A bundle appears whole or not at all: it is written beside its place and renamed into it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bundle.envelope import Statement, read_verdict, seal
from ullage.audit.bundle.evidence import AuditedRecord, write_records, write_tokens
from ullage.claims import Claim, digest_of, read_claims, write_claims
from ullage.errors import FaultError, IntegrityError, MalformedError, UsageError
from ullage.log.notes.signed_note import NoteSigner, NoteVerifier
from ullage.plain_files import open_plain_file

CLAIMS = "claims.json"
TOKENS = "evidence/audit.parquet"
RECORDS = "evidence/records.parquet"
VERDICT = "verdict.dsse.json"


def check_place(directory: Path) -> None:
    """Refuse a folder that already holds something, before any work is done. Raises UsageError."""
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if directory.exists() or directory.is_symlink():
        raise UsageError(f"{directory} is not empty; give --out a new folder, so that no evidence is lost.")
    if not directory.absolute().parent.is_dir():
        raise UsageError(f"{directory.absolute().parent} is not a folder; make it, or give another --out.")


def write_bundle(
    directory: Path,
    claims: Sequence[Claim],
    records: Sequence[AuditedRecord],
    state: Callable[[dict[str, str]], Statement],
    signer: NoteSigner,
    *,
    log_e: NDArray[np.float64] | None = None,
) -> None:
    """Write a bundle. `state` makes the statement from the digests of the evidence, by path; `log_e` is
    the alarm's evidence (`write_tokens`).

    Raises UsageError when the place is taken, FaultError when it cannot be written.
    """
    check_place(directory)
    place = directory.absolute()
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.partial-", dir=place.parent))
        try:
            (partial / "evidence").mkdir()
            write_claims(partial / CLAIMS, claims)
            write_tokens(partial / TOKENS, records, log_e)
            write_records(partial / RECORDS, records)
            statement = state({name: file_digest(partial / name) for name in (TOKENS, RECORDS)})
            (partial / VERDICT).write_bytes(seal(statement, signer))
            for name in (CLAIMS, TOKENS, RECORDS, VERDICT, "evidence", "."):
                _flush(partial / name)
            partial.chmod(0o755)
            partial.rename(place)  # replaces an empty folder, and nothing else
            _flush(place.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise FaultError(f"The bundle cannot be written to {directory}: {error.strerror}.") from error


def verify_bundle(directory: Path, verifier: NoteVerifier) -> Statement:
    """The statement of a bundle whose signature, claims and evidence belong together.

    Raises MalformedError or IntegrityError, naming the file that does not fit.
    """
    statement = read_verdict(directory / VERDICT, verifier)
    if digest_of(read_claims(directory / CLAIMS)) != statement.predicate.claims:
        raise IntegrityError(f"{directory / CLAIMS} does not hold the claims that the verdict signs.")
    if set(statement.predicate.evidence) != {TOKENS, RECORDS}:
        raise MalformedError("The verdict does not sign the evidence that a bundle has.")
    for name, digest in statement.predicate.evidence.items():
        if file_digest(directory / name) != digest:
            raise IntegrityError(f"{directory / name} is not the evidence that the verdict signs.")
    return statement


def file_digest(path: Path) -> str:
    """`sha256:` of a file's bytes. Raises MalformedError when it cannot be read, or is no plain file."""
    try:
        with open_plain_file(path) as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise MalformedError(f"{path} cannot be read: {error.strerror}.") from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
