"""The sampling parameters that a request carries and a record keeps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from ullage.errors import MalformedError, UsageError

# Outside this range float32 engines clamp, overflow or divide by a subnormal, each in its own way.
MIN_TEMPERATURE: Final = 1e-5
MAX_TEMPERATURE: Final = 1e3
MAX_TOP_K: Final = 2**31 - 1
_DECIMAL = re.compile(r"[0-9]{1,4}(\.[0-9]{1,24})?(e-[0-9]{1,3})?")


@dataclass(frozen=True)
class SamplingParameters:
    """What shapes the distribution before the noise.

    `temperature` divides the logits (0 means greedy); `top_p` in [0, 1] keeps the smallest set of likely
    tokens that holds this probability (1 = off); `top_k` keeps the k largest logits (0 = off).
    Raises UsageError for values outside these ranges.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "temperature", _real("temperature", self.temperature))
        object.__setattr__(self, "top_p", _real("top_p", self.top_p))
        if self.temperature != 0 and not MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE:
            raise UsageError(
                f"temperature must be 0 (greedy) or between {MIN_TEMPERATURE:g} and {MAX_TEMPERATURE:g}, "
                f"not {self.temperature!r}."
            )
        if not 0 <= self.top_p <= 1:
            raise UsageError(f"top_p must be between 0 and 1 (1 turns it off), not {self.top_p!r}.")
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, int):
            raise UsageError(f"top_k must be a whole number (0 turns it off), not {self.top_k!r}.")
        if not 0 <= self.top_k <= MAX_TOP_K:
            raise UsageError(f"top_k must be between 0 (off) and {MAX_TOP_K}, not {self.top_k}.")

    @property
    def greedy(self) -> bool:
        """True at temperature 0, where no profile draws noise and no filter matters."""
        return self.temperature == 0

    def limits_top_k(self, vocabulary_size: int) -> bool:
        """Whether top-k removes anything from this many tokens."""
        return 0 < self.top_k < vocabulary_size

    def filters(self, vocabulary_size: int) -> bool:
        """Whether top-k or top-p can remove a token from this many."""
        return self.limits_top_k(vocabulary_size) or self.top_p < 1

    def to_record(self) -> dict[str, str | int]:
        """The record's form: decimal strings that give back the same floats, e.g. `"temperature": "0.7"`."""
        return {"temperature": repr(self.temperature), "top_p": repr(self.top_p), "top_k": self.top_k}

    @classmethod
    def from_record(cls, data: Mapping[str, object]) -> Self:
        """Inverse of `to_record`; other keys are left to their owners. Raises MalformedError."""
        top_k = data.get("top_k")
        if isinstance(top_k, bool) or not isinstance(top_k, int):
            raise MalformedError("A record's parameters need an integer top_k.")
        try:
            return cls(_decimal(data, "temperature"), _decimal(data, "top_p"), top_k)
        except UsageError as error:
            raise MalformedError(f"A record's parameters are out of range: {error}") from error


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, not {value!r}.")
    return abs(float(value)) if value == 0 else float(value)  # no -0.0: it would print differently


def _decimal(data: Mapping[str, object], name: str) -> float:
    text = data.get(name)
    if isinstance(text, str) and _DECIMAL.fullmatch(text) and repr(float(text)) == text:
        return float(text)
    raise MalformedError(f'A record\'s parameters need {name} as a shortest decimal string such as "0.7".')
