"""What an operator may learn of its server past the tap: declared fields of few values, at fixed times.

A field is an enumeration (one of the declared words) or a counter (a multiple of its quantum, which advances
by at most `levels` - 1 quanta a sample; what is more comes with later samples). So a sample of a field
carries at most log2 of its number of values, whatever the server writes, and a day carries that times the
samples of a day (`Declaration.bits_per_day`), which must fit the declared budget. The format of the file is
specified in docs/formats/telemetry.md.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from ullage.errors import UsageError

SECONDS_A_DAY: Final = 86_400
_MAX_FILE_BYTES: Final = 1 << 20
_Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Enumeration(_Strict):
    """One of the declared words; anything else, and nothing, reads as the first of them."""

    kind: Literal["enumeration"]
    name: _Word
    values: Annotated[tuple[_Word, ...], Field(min_length=2, max_length=256)]

    @property
    def bits(self) -> float:
        """What one sample carries at most."""
        return math.log2(len(self.values))

    def next(self, before: int, value: object) -> int:
        """The index of the word to publish."""
        return self.values.index(value) if value in self.values else 0

    def shown(self, state: int) -> str | int:
        """The published value."""
        return self.values[state]


class QuantisedCounter(_Strict):
    """A count that never goes back, in multiples of `quantum`, at most `levels` - 1 of them a sample."""

    kind: Literal["counter"]
    name: _Word
    quantum: Annotated[int, Field(ge=1)]
    levels: Annotated[int, Field(ge=2, le=1 << 16)] = 2

    @property
    def bits(self) -> float:
        """What one sample carries at most."""
        return math.log2(self.levels)

    def next(self, before: int, value: object) -> int:
        """The published number of quanta after one that was `before`."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return before
        if isinstance(value, float) and not math.isfinite(value):  # an integer may be too large to ask
            return before
        return before + min(max(0, int(value // self.quantum) - before), self.levels - 1)

    def shown(self, state: int) -> str | int:
        """The published value."""
        return state * self.quantum


Quantity = Annotated[Enumeration | QuantisedCounter, Field(discriminator="kind")]


class Declaration(_Strict):
    """What may leave: fields, how often, and how many bits a day at most."""

    version: Literal[1]
    interval_seconds: Annotated[int, Field(ge=1, le=SECONDS_A_DAY)]
    bits_per_day_budget: Annotated[float, Field(gt=0)]
    path: Annotated[str, StringConstraints(pattern=r"^/[!-~]{0,255}$")] = "/telemetry"
    field: Annotated[tuple[Quantity, ...], Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [field.name for field in self.field]
        if len(set(names)) != len(names):
            raise ValueError("two fields have one name")
        if self.bits_per_day > self.bits_per_day_budget:
            least = math.ceil(self.bits_per_sample * SECONDS_A_DAY / self.bits_per_day_budget)
            raise ValueError(
                f"{self.bits_per_sample:.4g} bits every {self.interval_seconds} s are "
                f"{self.bits_per_day:.4g} a day, more than the budget of {self.bits_per_day_budget:.4g}; "
                f"an interval of {least} s fits"
            )
        return self

    @property
    def bits_per_sample(self) -> float:
        """Bits that one sample of all fields carries at most."""
        return sum(field.bits for field in self.field)

    @property
    def bits_per_day(self) -> float:
        """Bits a day at most."""
        return self.bits_per_sample * SECONDS_A_DAY / self.interval_seconds


class Sampler:
    """The published state of a declaration's fields."""

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self._states = [0] * len(declaration.field)

    def sample(self, values: Mapping[str, Any]) -> dict[str, str | int]:
        """What is published after the server said `values`; nothing that it says is an error."""
        for index, field in enumerate(self.declaration.field):
            self._states[index] = field.next(self._states[index], values.get(field.name))
        return {
            field.name: field.shown(state)
            for field, state in zip(self.declaration.field, self._states, strict=True)
        }


def read_declaration(path: Path) -> Declaration:
    """Read a declaration from TOML. Raises UsageError that says what is wrong with it."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UsageError(f"{path} has more than {_MAX_FILE_BYTES} bytes.")
        return Declaration.model_validate(tomllib.loads(path.read_text("utf-8")), strict=False)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise UsageError(f"{path}: {where}{': ' if where else ''}{first['msg']}.") from error
