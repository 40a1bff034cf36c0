"""The signed verdict: an in-toto statement in a DSSE envelope.

The statement (in-toto Attestation Framework v1, "Statement") says which log and which model a verdict is
about; its predicate is the verdict. The envelope (Dead Simple Signing Envelope v1.0) signs the exact
payload bytes together with their type, so nothing is parsed before its signature holds.
`docs/formats/bundle.md` specifies both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import CryptoSigner, SSlibKey

from ullage.audit.verdict import Outcome
from ullage.errors import IntegrityError, MalformedError, UsageError
from ullage.log.notes.signed_note import NoteSigner, NoteVerifier
from ullage.plain_files import read_plain_file

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE: Literal["https://in-toto.io/Statement/v1"] = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Literal["https://ullage.dev/verdict/v1"] = "https://ullage.dev/verdict/v1"
_MAX_ENVELOPE_BYTES = 4 << 20

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Subject(_Part):
    """What the statement is about: the log (its root) or the declared model (its digest)."""

    name: str
    digest: Annotated[dict[Literal["sha256"], Hex], Field(min_length=1)]


class Sample(_Part):
    """What was audited, and all that is needed to repeat the draw."""

    scheme: Literal["all", "uniform-without-replacement", "proportional-with-replacement"]
    population: int
    records: int
    """Different ones: with replacement there may be more draws."""
    tokens: int
    tree_size: int
    draws: int | None = None
    """With replacement: how often was drawn."""
    window: str | None = None
    selection_key: Hex | None = None
    selection_commitment: Digest | None = None


class Rule(_Part):
    """The rule that was applied."""

    name: Literal["ullage/mismatch-limit/v1", "ullage/exact-transcript/v1"] = "ullage/mismatch-limit/v1"
    limit: float | None
    """Largest tolerated share of mismatches; null when the log failed before any token was looked at."""
    confidence: float | None
    """Null for exact transcripts: one that differs fails, whatever the share."""


class Declaration(_Part):
    """What the log declares about the server."""

    log_id: str
    model: Digest
    profile: str
    dtype: str


class Predicate(_Part):
    """The verdict and what stands behind it; type `PREDICATE_TYPE`."""

    verdict: Outcome
    reasons: tuple[str, ...]
    rule: Rule
    declaration: Declaration
    reference: dict[str, str]
    """Identity, precision and stack of the reference; empty if it was not run."""
    sample: Sample
    claims: Digest
    evidence: dict[str, Digest]
    """Digests of the bundle's other files by their path in it."""
    software: dict[str, str]
    created: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]
    """Nanoseconds since 1970."""


class Statement(_Part):
    """in-toto Statement v1 with our predicate."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, serialize_by_alias=True
    )

    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type", default=STATEMENT_TYPE)
    subject: tuple[Subject, ...]
    predicate_type: Literal["https://ullage.dev/verdict/v1"] = Field(
        default=PREDICATE_TYPE, alias="predicateType"
    )
    predicate: Predicate


def subject_of(name: str, digest: str) -> Subject:
    """A subject from `sha256:…`."""
    return Subject(name=name, digest={"sha256": digest.removeprefix("sha256:")})


def seal(statement: Statement, signer: NoteSigner) -> bytes:
    """The signed envelope as JSON text."""
    return seal_payload(rfc8785.dumps(statement.model_dump(mode="json")), PAYLOAD_TYPE, signer)


def seal_payload(payload: bytes, payload_type: str, signer: NoteSigner) -> bytes:
    """Any payload of ours in a signed envelope, as JSON text."""
    envelope = Envelope(payload=payload, payload_type=payload_type, signatures={})
    envelope.sign(CryptoSigner(Ed25519PrivateKey.from_private_bytes(signer.seed)))
    return (json.dumps(envelope.to_dict(), indent=1) + "\n").encode()


class _Signature(_Part):
    keyid: Annotated[str, StringConstraints(max_length=128)]
    sig: Annotated[str, StringConstraints(max_length=128)]


class _Envelope(_Part):
    payload: str
    payload_type: str = Field(alias="payloadType")
    signatures: Annotated[tuple[_Signature, ...], Field(min_length=1, max_length=8)]


def unseal(data: bytes, verifier: NoteVerifier) -> Statement:
    """The statement in an envelope that the holder of `verifier`'s key signed.

    Raises MalformedError when these bytes are not such an envelope, and IntegrityError when the signature
    does not hold or was made with another key.
    """
    payload = unseal_payload(data, PAYLOAD_TYPE, verifier, "verdict")
    try:
        return Statement.model_validate_json(payload)
    except ValidationError as error:
        raise MalformedError(f"The signed payload is not a verdict: {first_line(error)}.") from error


def unseal_payload(data: bytes, payload_type: str, verifier: NoteVerifier, what: str) -> bytes:
    """The payload, of this type, that the holder of `verifier`'s key signed; errors as `unseal`'s.

    `what` names the document in messages.
    """
    if len(data) > _MAX_ENVELOPE_BYTES:
        raise MalformedError(f"A {what} has at most {_MAX_ENVELOPE_BYTES} bytes; this one has {len(data)}.")
    try:
        fields = _Envelope.model_validate_json(data).model_dump(by_alias=True)
        if fields["payloadType"] != payload_type:
            raise ValueError(f"payloadType: it is not {payload_type}")  # noqa: TRY301 - one message for all
        envelope = Envelope.from_dict({**fields, "signatures": list(fields["signatures"])})
    except (ValueError, SigningError) as error:
        raise MalformedError(f"This is not a {what} in a DSSE envelope: {first_line(error)}.") from error
    key = Ed25519PublicKey.from_public_bytes(verifier.public)
    try:
        envelope.verify([SSlibKey.from_crypto(key)], threshold=1)
    except SigningError as error:
        raise IntegrityError(
            f"The {what}'s signature does not hold under this key: it was changed, or another key signed it."
        ) from error
    return bytes(envelope.payload)


def read_verdict(path: Path, verifier: NoteVerifier) -> Statement:
    """`unseal` for a file."""
    return unseal(read_envelope(path), verifier)


def read_envelope(path: Path) -> bytes:
    """The bytes of a file that is no longer than an envelope. Raises UsageError, MalformedError."""
    try:
        return read_plain_file(path, _MAX_ENVELOPE_BYTES)
    except FileNotFoundError as error:
        raise UsageError(f"There is no file {path}.") from error
    except OSError as error:
        raise MalformedError(f"{path} cannot be read: {error.strerror}.") from error


def first_line(error: Exception) -> str:
    """What is wrong, in one line without the value itself."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return f"{where}: {first['msg']}" if where else str(first["msg"])
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
