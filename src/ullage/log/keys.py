"""Key directories: which keys the tap and the verifier hold, and how their files look.

The files are specified in `docs/formats/keys.md`. Secret files belong to their user alone (mode 0600);
anything else is refused, and no secret is ever part of a message or of a `repr`.
"""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ullage.errors import FaultError, MalformedError, UsageError
from ullage.log.files import read_limited, sync_directory, write_new
from ullage.log.notes.cosignature import WitnessSigner, WitnessVerifier
from ullage.log.notes.signed_note import NoteSigner, NoteVerifier, decode_base64, encode_base64

SECRET_BYTES = 32
_MAX_KEY_FILE = 1024


class Role(StrEnum):
    """Whose keys a directory holds."""

    TAP = "tap"
    VERIFIER = "verifier"
    ALL = "all"  # the tap's and the verifier's, for trying things out
    WITNESS = "witness"  # somebody else's by its nature


@dataclass(frozen=True)
class TapKeys:
    """What the tap holds: it signs checkpoints, issues seeds, and wraps the keys of sealed payloads."""

    log: NoteSigner
    seed: bytes = field(repr=False)
    seal: bytes = field(repr=False)

    def new_log_id(self) -> str:
        """A fresh name for a log of this tap: `<key name>/<16 hex digits>`."""
        return f"{self.log.name}/{secrets.token_hex(8)}"


@dataclass(frozen=True)
class VerifierKeys:
    """What the verifier holds: it signs verdicts, and draws the records that are audited."""

    verdict: NoteSigner
    selection: bytes = field(repr=False)


def create_keys(directory: Path, role: Role = Role.ALL, name: str | None = None) -> tuple[Path, ...]:
    """Make the keys of `role` in `directory` (mode 0700) and return the files.

    `name` names the signing keys in notes, a URL without its scheme by custom; a random one otherwise.
    Never overwrites: raises UsageError when one of the files is there already.
    """
    chosen = f"ullage.invalid/{secrets.token_hex(8)}" if name is None else name
    contents: dict[str, str] = {}
    if role in (Role.TAP, Role.ALL):
        contents |= _signing_files("log", chosen)
        contents |= {f"{kind}.key": _secret_text(kind) for kind in ("seed", "seal")}
    if role in (Role.VERIFIER, Role.ALL):
        contents |= _signing_files("verdict", f"{chosen}/verdict" if role is Role.ALL else chosen)
        contents |= {"selection.key": _secret_text("selection")}
    if role is Role.WITNESS:
        witness = WitnessSigner(chosen, secrets.token_bytes(SECRET_BYTES))
        contents |= {"witness.key": f"{witness.private_text()}\n", "witness.pub": f"{witness.verifier}\n"}
    present = [file for file in contents if (directory / file).exists()]
    if present:
        raise UsageError(
            f"{directory} already holds {', '.join(present)}; keys are never overwritten: choose another "
            "folder."
        )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, text in contents.items():
            write_new(directory / file, text.encode(), 0o644 if file.endswith(".pub") else 0o600)
        sync_directory(directory)
    except OSError as error:
        raise FaultError(f"The keys cannot be written to {directory}: {error.strerror}.") from error
    return tuple(directory / file for file in contents)


def load_tap_keys(directory: Path, *, between_keys: bool = False) -> TapKeys:
    """Read `log.key`, `seed.key`, `seal.key`. Raises UsageError, MalformedError.

    A folder with a key that is to replace another is refused unless `between_keys`: its logs may know either.
    """
    for kind, command in (("log", "rotate-key"), ("seal", "rotate-seal")):
        if not between_keys and (directory / f"{kind}.key.new").exists():
            raise UsageError(
                f"{directory} is between two keys ({kind}.key.new is there); "
                f"run `ullage log {command}` again."
            )
    return TapKeys(
        _load_signer(directory / "log.key"),
        _load_secret(directory / "seed.key", "seed"),
        _load_secret(directory / "seal.key", "seal"),
    )


def load_next_signer(directory: Path) -> NoteSigner:
    """Read `log.key.new`, which is to replace `log.key`. Raises UsageError, MalformedError."""
    return _load_signer(directory / "log.key.new")


def load_next_seal_key(directory: Path) -> bytes:
    """Read `seal.key.new`, which is to replace `seal.key`. Raises UsageError, MalformedError."""
    return _load_secret(directory / "seal.key.new", "seal")


def seal_key_text() -> str:
    """The content of a new `seal.key`."""
    return _secret_text("seal")


def load_seed_key(path: Path) -> bytes:
    """Read a `seed.key` that its tap has handed over. Raises UsageError, MalformedError."""
    return _load_secret(path, "seed")


def load_seal_key(directory: Path) -> bytes:
    """Read `seal.key` alone: it opens records and does nothing else. Raises UsageError, MalformedError."""
    return _load_secret(directory / "seal.key", "seal")


def load_verifier_keys(directory: Path) -> VerifierKeys:
    """Read `verdict.key` and `selection.key`. Raises UsageError, MalformedError."""
    return VerifierKeys(
        _load_signer(directory / "verdict.key"), _load_secret(directory / "selection.key", "selection")
    )


def load_witness_signer(directory: Path) -> WitnessSigner:
    """Read `witness.key`. Raises UsageError, MalformedError."""
    return WitnessSigner.parse(_read_secret_line(directory / "witness.key"))


def load_witness_verifier(path: Path) -> WitnessVerifier:
    """Read a witness's public key, `witness.pub`. Raises UsageError."""
    data = read_limited(path, _MAX_KEY_FILE)
    try:
        return WitnessVerifier.parse(_read_line(path, data))
    except MalformedError as error:
        raise UsageError(f"{path} is not a witness's public key: give its witness.pub.") from error


def load_verifier(path: Path) -> NoteVerifier:
    """Read a public key that the caller names, `log.pub` or `verdict.pub`. Raises UsageError."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: give the public key in it, a .pub file.")
    try:
        return read_verifier(path)
    except MalformedError as error:
        raise UsageError(f"{path} is not a public key: give a .pub file, such as log.pub.") from error


def read_verifier(path: Path) -> NoteVerifier:
    """Read a public key that lies beside what it signs. Raises UsageError, MalformedError."""
    return NoteVerifier.parse(_read_line(path, read_limited(path, _MAX_KEY_FILE)))


def _signing_files(kind: str, name: str) -> dict[str, str]:
    signer = NoteSigner(name, secrets.token_bytes(SECRET_BYTES))
    return {f"{kind}.key": f"{signer.private_text()}\n", f"{kind}.pub": f"{signer.verifier}\n"}


def _secret_text(kind: str) -> str:
    return f"ullage-{kind}-key-v1 {encode_base64(secrets.token_bytes(SECRET_BYTES))}\n"


def _load_signer(path: Path) -> NoteSigner:
    return NoteSigner.parse(_read_secret_line(path))


def _load_secret(path: Path, kind: str) -> bytes:
    label, _, encoded = _read_secret_line(path).partition(" ")
    value = decode_base64(encoded)
    if label != f"ullage-{kind}-key-v1" or value is None or len(value) != SECRET_BYTES:
        raise MalformedError(f"{path} does not hold a key of the kind '{kind}'.")
    return value


def _read_secret_line(path: Path) -> str:
    """One line of a file that only its owner may touch."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(
            f"The key {path} cannot be read ({error.strerror}): give the folder of keys of the "
            "right role; `ullage keys init` makes one."
        ) from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise UsageError(f"The key {path} is not a file of the user who runs this; it is not used.")
        if status.st_mode & 0o077:
            raise UsageError(
                f"The key {path} can be read by others; `chmod 600 {path}` and think of replacing it."
            )
        return _read_line(path, file.read(_MAX_KEY_FILE + 1))


def _read_line(path: Path, data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    if len(data) > _MAX_KEY_FILE or not text.endswith("\n") or text.count("\n") != 1:
        raise MalformedError(f"{path} does not hold one line with a key.")
    return text[:-1]
