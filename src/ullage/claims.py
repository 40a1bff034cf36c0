"""The claim: one figure with its direction, confidence, evidence and assumptions.

Every mechanism of Ullage ends in claims, and reports are made of nothing else. The format is
specified in `docs/formats/claims.md`; `Claim.model_json_schema()` is its JSON schema.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ullage.errors import MalformedError
from ullage.plain_files import read_plain_file
from ullage.terminal import plain_line

TRUTH = "1 or 0"
"""The unit of a claim that holds or does not: printed as yes or no."""
_MAX_CLAIMS_BYTES = 16 << 20
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing it: a file from elsewhere could write its own verdict."""


class Bound(StrEnum):
    """Which way a value errs."""

    UPPER = "upper"
    LOWER = "lower"
    ESTIMATE = "estimate"


class Evidence(StrEnum):
    """What stands behind a value. Nothing is printed without it."""

    MEASURED = "measured"
    PROVEN = "proven-under-assumption"
    SIMULATED = "simulated"
    NOT_COVERED = "not-covered"


class Trust(StrEnum):
    """Who must be honest for the claim to hold."""

    TAP = "tap"
    VERIFIER = "verifier"
    PERIMETER = "perimeter"
    CLIENT = "client"
    PROVER_KERNEL = "prover-kernel"
    PROVER_INVENTORY = "prover-inventory"
    PROVER_CALIBRATION = "prover-calibration"


class Reading(StrEnum):
    """For whom a report is read: a lab about its own machines, or an inspector of another's."""

    OPERATOR = "operator"
    INSPECTOR = "inspector"

    def allows(self, trust: Trust) -> bool:
        """Whether this reader may rest on a claim that trusts that party."""
        return self is Reading.OPERATOR or not trust.value.startswith("prover-")


class Window(BaseModel):
    """The time a claim speaks of, nanoseconds since 1970 as decimal strings, ends included."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]
    end: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]


class Interval(BaseModel):
    """A confidence interval; `None` for an end without bound."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    low: float | None
    high: float | None
    confidence: Annotated[float, Field(gt=0, lt=1)]


class Claim(BaseModel):
    """One figure. `value` is `None` when nothing is known (then `evidence` is `not-covered`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Annotated[str, StringConstraints(pattern=r"^[a-z]+(\.[a-z0-9_]+)+$")]
    value: float | None
    unbounded: bool = False
    interval: Interval | None = None
    unit: str
    bound: Bound
    confidence: Annotated[float, Field(gt=0, le=1)] | None = None
    evidence: Evidence
    assumptions: tuple[str, ...] = ()
    trusts: tuple[Trust, ...] = ()
    subject: str = ""
    window: Window | None = None
    method: str
    sample: str = ""
    inputs: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.value is None and not self.unbounded and self.evidence is not Evidence.NOT_COVERED:
            raise ValueError("a claim without a value must say not-covered, or be unbounded")
        if self.value is not None and self.evidence is Evidence.NOT_COVERED:
            raise ValueError("a claim that says not-covered has no value")
        if self.unbounded and self.value is not None:
            raise ValueError("an unbounded claim has no value")
        if self.bound is Bound.ESTIMATE and self.evidence is Evidence.MEASURED and self.interval is None:
            raise ValueError("an estimate needs an interval")
        if self.interval and self.value is not None:
            low = -math.inf if self.interval.low is None else self.interval.low
            high = math.inf if self.interval.high is None else self.interval.high
            if not low <= self.value <= high:
                raise ValueError("the interval does not contain the value")
        return self

    def read_as(self, reading: Reading) -> Claim:
        """This claim for that reader: one that rests on too much trust reads `not-covered`."""
        if all(reading.allows(trust) for trust in self.trusts):
            return self
        return self.model_copy(
            update={
                "value": None,
                "unbounded": False,
                "interval": None,
                "evidence": Evidence.NOT_COVERED,
            }
        )

    def render(self) -> str:
        """One line for a terminal."""
        if self.unbounded:
            figure = "unbounded"
            if self.interval and self.interval.low is not None:
                figure += f", from {self.interval.low:.4g} on at {self.interval.confidence:.4g}"
        elif self.value is None:
            figure = "not covered"
        else:
            sign = {Bound.UPPER: "<= ", Bound.LOWER: ">= ", Bound.ESTIMATE: ""}[self.bound]
            figure = f"{sign}{self.value:.6g} {self.unit}".rstrip()
            if self.unit == TRUTH:
                figure = "yes" if self.value >= 1 else "no"
            if self.interval:
                low = "-inf" if self.interval.low is None else f"{self.interval.low:.4g}"
                high = "inf" if self.interval.high is None else f"{self.interval.high:.4g}"
                figure += f" [{low}, {high}] at {self.interval.confidence:.4g}"
            elif self.confidence is not None:
                figure += f" at {self.confidence:.6g}"
        return plain_line(f"{self.name}: {figure} ({self.evidence.value}; {self.method})")


def digest_of(claims: Iterable[Claim]) -> str:
    """`sha256:` of the claims' canonical JSON, which is what a verdict signs."""
    data = rfc8785.dumps([claim.model_dump(mode="json") for claim in claims])
    return "sha256:" + hashlib.sha256(data).hexdigest()


def to_json(claims: Iterable[Claim]) -> list[dict[str, object]]:
    """Claims as JSON objects, every field present (`docs/formats/claims.md`)."""
    return [claim.model_dump(mode="json") for claim in claims]


def write_claims(path: Path, claims: Iterable[Claim]) -> None:
    """Write a `claims.json`, version 1. Raises OSError."""
    path.write_text(json.dumps({"version": 1, "claims": to_json(claims)}, indent=1) + "\n", "utf-8")


class _ClaimsFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    version: Literal[1]
    claims: tuple[Claim, ...]


def is_plain(claim: Claim) -> bool:
    """Whether no text of the claim has characters that a terminal obeys."""
    texts = (claim.unit, claim.subject, claim.method, claim.sample, *claim.assumptions)
    return not any(_OBEYED.search(text) for text in (*texts, *claim.inputs, *claim.inputs.values()))


def read_claims(path: Path) -> tuple[Claim, ...]:
    """Read `claims.json`. Raises MalformedError when it is not one."""
    try:
        claims = _ClaimsFile.model_validate_json(read_plain_file(path, _MAX_CLAIMS_BYTES)).claims
    except OSError as error:
        raise MalformedError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise MalformedError(f"{path} is not a claims file: {where}: {first['msg']}.") from error
    for number, claim in enumerate(claims):
        if not is_plain(claim):
            raise MalformedError(f"{path} is not a claims file: claims.{number} has control characters.")
    return claims


def merge(groups: Iterable[Iterable[Claim]]) -> tuple[Claim, ...]:
    """All claims of all groups, exact repetitions once, in order of first appearance."""
    seen: dict[str, Claim] = {}
    for group in groups:
        for claim in group:
            seen.setdefault(digest_of([claim]), claim)
    return tuple(seen.values())
