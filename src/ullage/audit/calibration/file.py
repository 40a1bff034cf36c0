"""The calibration file: a noise model for one pair of configurations, signed by the verifier, with an expiry.

`docs/formats/calibration.md` specifies it. `calibrate.py` makes one; `load_calibration` and `check_pair` are
what stands between such a file and a bound that is made with it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import rfc8785
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ullage.audit.admissible.noise_error import noise_error
from ullage.audit.bounds.noise_model import NoiseModel
from ullage.audit.bundle.envelope import Digest, first_line, read_envelope, seal_payload, unseal_payload
from ullage.audit.coding import TokenCoder
from ullage.errors import MalformedError, UsageError
from ullage.log.notes.signed_note import NoteSigner, NoteVerifier
from ullage.log.record import HeaderPart

PAYLOAD_TYPE: Final = "application/vnd.ullage.calibration+json"

Real = Annotated[str, StringConstraints(pattern=r"^-?[0-9.e+-]{1,32}$")]
Nanoseconds = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProverConfiguration(_Part):
    """The server that was run: as its log declares it, and in words."""

    model: Digest
    dtype: str
    profile: str
    stack: Annotated[str, StringConstraints(max_length=4096)]
    """What the verifier says about hardware and software."""


class ReferenceConfiguration(_Part):
    """What it was compared with."""

    model: Digest
    dtype: str
    stack: Digest


class RunCurve(_Part):
    """One server run: its log, and the falling step function of its mismatches by gap."""

    log_id: str
    root: Digest
    edges: tuple[Real, ...]
    values: tuple[Real, ...]


class Fitted(_Part):
    """The half of the prompts that the noise model was fitted to."""

    prompts: Count
    messages: Count
    tokens: Count
    mismatches: Count


class HeldOut(Fitted):
    """The other half, which the fit did not see; intervals count prompts, not tokens."""

    outside: Count
    """Tokens beyond the cutoff, beyond the candidates, or outside the filters."""
    codelength: Real
    """Bits a token."""
    codelength_low: Real
    codelength_high: Real
    mismatch_low: Real
    mismatch_high: Real
    confidence: Real
    suprema: tuple[Real, ...]
    """ln sup E of the alarm on each held-out stream (server run x prompt), ascending."""


class Calibration(_Part):
    """The payload. Real numbers are decimal strings that give the same float64."""

    version: Literal[1] = 1
    prover: ProverConfiguration
    reference: ReferenceConfiguration
    noise: dict[str, str | int]
    candidates: Annotated[int, Field(ge=1, le=256)]
    """Columns of the noise model's gaps."""
    alarm_floor: Real
    """The alarm's limit on tokens outside, per token."""
    alarm_kappa: Real
    runs: tuple[RunCurve, ...]
    fitted: Fitted
    held_out: HeldOut
    created: Nanoseconds
    expires: Nanoseconds
    software: dict[str, str]

    @cached_property
    def noise_model(self) -> NoiseModel:
        """Raises MalformedError when there is none in the file."""
        return NoiseModel.from_dict(self.noise)

    def coder(self, bound: float | None = None) -> TokenCoder:
        """The code of P~, which prices tokens; with `bound` (raw logits) it also counts admissible ones."""
        return TokenCoder(self.noise_model, self.candidates, bound)

    @property
    def suprema(self) -> NDArray[np.float64]:
        """The largest ln E of each held-out honest session, `(sessions,)`."""
        return np.array([float(value) for value in self.held_out.suprema], dtype=np.float64)

    def to_bytes(self) -> bytes:
        """Canonical JSON (RFC 8785)."""
        return rfc8785.dumps(self.model_dump(mode="json"))


@dataclass(frozen=True)
class SignedCalibration:
    """A calibration whose signature holds, and the digest of its payload."""

    content: Calibration
    digest: str


def save_calibration(path: Path, calibration: Calibration, signer: NoteSigner) -> None:
    """Sign and write; never over an existing file (UsageError)."""
    data = seal_payload(calibration.to_bytes(), PAYLOAD_TYPE, signer)
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise UsageError(f"{path} exists; give --out a new file, so that no calibration is lost.") from None
    except OSError as error:
        raise UsageError(f"The calibration cannot be written to {path}: {error.strerror}.") from error


def load_calibration(path: Path, verifier: NoteVerifier) -> SignedCalibration:
    """Read, verify, parse, in this order.

    Raises IntegrityError for a signature that does not hold, MalformedError for anything that is not a
    calibration of this version.
    """
    payload = unseal_payload(read_envelope(path), PAYLOAD_TYPE, verifier, "calibration")
    try:
        content = Calibration.model_validate_json(payload)
        reals = [content.alarm_floor, content.alarm_kappa, *content.held_out.suprema]
        if not all(np.isfinite(float(value)) for value in reals):
            raise ValueError("a number is not finite")  # noqa: TRY301 - one message for all
        _ = content.noise_model
    except (ValidationError, ValueError) as error:
        raise MalformedError(f"{path} is not a calibration: {first_line(error)}.") from error
    from hashlib import sha256

    return SignedCalibration(content, "sha256:" + sha256(payload).hexdigest())


def check_pair(
    calibration: Calibration, header: HeaderPart, reference_stack: str, window_end: int | None
) -> None:
    """Raise UsageError unless this calibration is for this log, this reference, and still valid.

    A profile without a bound on its noise is refused, too: no distance to the reference means anything then.
    """
    noise_error(header.profile, np.zeros(1))
    declared = {"model": header.model_digest, "precision": header.dtype, "profile": header.profile}
    prover = calibration.prover
    made_for = {"model": prover.model, "precision": prover.dtype, "profile": prover.profile}
    for what, value in declared.items():
        if made_for[what] != value:
            raise UsageError(
                f"The calibration is for another pair: its server's {what} is {made_for[what]}, and the log "
                f"declares {value}; run `ullage calibrate` on honest runs of that server."
            )
    if calibration.reference.stack != reference_stack:
        raise UsageError(
            f"The calibration is for another pair: its reference's stack is {calibration.reference.stack}, "
            f"and this machine's is {reference_stack}; run `ullage calibrate` here."
        )
    last = max(time.time_ns(), window_end or 0)
    if last > int(calibration.expires):
        raise UsageError(
            f"The calibration expired on {_date(int(calibration.expires))}; the audit's day and the window's "
            "end have to lie before that. Run `ullage calibrate` on fresh honest runs."
        )


def _date(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
