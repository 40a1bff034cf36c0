"""The JSON bodies between verifier and prover, read strictly: `docs/formats/fingerprints.md`."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ullage.errors import MalformedError
from ullage.fingerprint.commitment import Commitment, StateType
from ullage.fingerprint.projection import MAX_COORDINATES

VERSION: Final = 1
MAX_REQUEST_BYTES: Final = 4096
MAX_RESPONSE_BYTES: Final = 32 << 20
MAX_TOKENS: Final = 1 << 20
MAX_WIDTH: Final = 1 << 17
MAX_LISTED: Final = 1000
MAX_OPENED: Final = 64

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Hex = Annotated[
    str, StringConstraints(pattern=r"^([0-9a-f]{2})*$", max_length=2 * MAX_TOKENS * MAX_COORDINATES)
]

_Message = TypeVar("_Message", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Committed(_Strict):
    """One commitment and its number in the prover's order."""

    dtype: StateType
    number: Annotated[int, Field(ge=0, lt=1 << 53)]
    root: Digest
    tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    transcript: Digest
    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)]

    def commitment(self) -> Commitment:
        return Commitment(
            bytes.fromhex(self.transcript), bytes.fromhex(self.root), self.tokens, self.width, self.dtype
        )

    @classmethod
    def of(cls, number: int, one: Commitment) -> Committed:
        return cls(
            dtype=one.dtype, number=number, root=one.root.hex(), tokens=one.tokens,
            transcript=one.transcript.hex(), width=one.width,
        )  # fmt: skip


class Commitments(_Strict):
    """Answer to GET /v1/fingerprints."""

    commitments: Annotated[list[Committed], Field(max_length=MAX_LISTED)]
    version: Annotated[int, Field(ge=VERSION, le=VERSION)] = VERSION


class Challenge(_Strict):
    """POST /v1/fingerprints/answer: the projection, which the verifier draws after the commitment."""

    coordinates: Annotated[int, Field(ge=1, le=MAX_COORDINATES)]
    seed: Digest
    step: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}(\.[0-9]{1,40})?(e-?[0-9]{1,3})?$")]
    transcript: Digest


class Answer(_Strict):
    """K bytes a token, in hexadecimal."""

    fingerprint: _Hex


class Open(_Strict):
    """POST /v1/fingerprints/open."""

    tokens: Annotated[
        list[Annotated[int, Field(ge=0, lt=MAX_TOKENS)]], Field(min_length=1, max_length=MAX_OPENED)
    ]
    transcript: Digest


class Opening(_Strict):
    """The state's bytes and its audit path, from the leaf's sibling up."""

    path: Annotated[list[Digest], Field(max_length=32)]
    state: Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})+$", max_length=8 * MAX_WIDTH)]


class Openings(_Strict):
    """Answer to an `Open`, in the order of its tokens."""

    openings: Annotated[list[Opening], Field(max_length=MAX_OPENED)]


def parse(schema: type[_Message], data: bytes) -> _Message:
    """Raises MalformedError naming the field at fault, never its value."""
    try:
        return schema.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the message"
        raise MalformedError(f"A fingerprint message is malformed: {where}: {first['msg']}.") from error
