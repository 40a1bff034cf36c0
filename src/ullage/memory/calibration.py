"""What the verifier measured, or read in a data sheet, about the prover's kind of machine.

Rates are of the *verifier's twin*, a machine of the same kind: nothing here comes from a prover's run, so a
prover that goes slow on purpose changes nothing. The document is signed by the command line.
"""

from __future__ import annotations

from typing import Annotated, Literal

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ullage.errors import MalformedError

PAYLOAD_TYPE = "application/vnd.ullage.memory-calibration+json"
Rate = Annotated[float, Field(gt=0, le=1e15)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
Nanoseconds = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,20}$")]


class Calibration(BaseModel):
    """Rates in bytes a second, times in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    version: Literal[5] = 5
    machine: Annotated[str, StringConstraints(max_length=400)]
    cores: Annotated[int, Field(ge=1, le=4096)]
    rebuild_rate: Rate
    """AES-256 of everything in the machine with the best kernel known: G."""
    rebuild_source: Literal["measured", "nameplate", "declared"]
    read_rate: Rate
    """GMAC over locked memory with all cores: what sets a pass's deadline."""
    spot_rate: Rate
    """Spots, 128 bytes of every 64 KiB, read and tagged with all cores: bytes of them a second."""
    store_rate: Annotated[float, Field(ge=0, le=1e15)]
    """Fastest other store that is not in the machine's memory total: disk, or 0 if there is none."""
    store_reads: Annotated[float, Field(ge=0, le=1e12)]
    """Scattered small reads that it does in a second, many at a time."""
    generator_rate: Rate
    """AES-CTR of one core."""
    first_touch_rate: Rate
    warm_write_rate: Rate
    step_seconds: Seconds
    """Fastest step of the agent's chain, 64 blocks of 128 bytes in memory: what sets deadlines."""
    alternative_seconds: Seconds
    """Fastest way to one block that is not in memory: from a store, or from a helper outside."""
    created: Nanoseconds
    expires: Nanoseconds

    def payload(self) -> bytes:
        """Canonical bytes, to be signed."""
        return rfc8785.dumps(self.model_dump(mode="json"))

    @classmethod
    def parse(cls, payload: bytes, now: int) -> Calibration:
        """Read a payload whose signature held. Raises MalformedError, also after `expires` (nanoseconds)."""
        try:
            found = cls.model_validate_json(payload)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise MalformedError(f"This is not a memory calibration: {where}: {first['msg']}.") from error
        if now > int(found.expires):
            raise MalformedError("The memory calibration has expired; run `ullage memory calibrate` again.")
        return found
