"""How far an honest server's hidden states lie from the reference's: measured on the verifier's own runs.

A session is consecutive answers of at least SESSION_TOKENS tokens together. For each, the squared distances
|h - h'|^2 of its tokens are sorted, and the envelope is the largest value over sessions at each of LEVELS
quantiles, times kappa: a law that every calibrated session's distances lie below (stochastically), the
noisiest one's included.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ullage.errors import FaultError, MalformedError, UndecidedError, UsageError

LEVELS: Final = 16
LEAST_SESSIONS: Final = 10
SESSION_TOKENS: Final = 64
"""Shorter ones have quantiles that say more about chance than about noise."""
KAPPA: Final = 1.25
_STEPS_IN_NOISE: Final = 1.0
_MAX_BYTES: Final = 1 << 20
_SMALLEST: Final = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tolerance:
    """The honest law: `envelope` (LEVELS,) ascending squared distances; `step` of the fingerprints."""

    envelope: tuple[float, ...]
    step: float
    width: int
    dtype: str
    """The reference's precision."""
    model: str
    """The reference's digest."""
    sessions: int
    tokens: int
    median: float
    """Of all squared distances."""

    def in_steps(self) -> Floats:
        """The envelope in squared steps, with what rounding states to step/256 can add."""
        grown = np.sqrt(np.array(self.envelope)) / self.step + math.sqrt(self.width) / 256
        return np.asarray(grown**2)

    @property
    def rms(self) -> float:
        """Root mean square of the envelope, in the states' own units."""
        return float(np.sqrt(np.mean(self.envelope)))

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": 1,
            "envelope": [repr(value) for value in self.envelope],
            "step": repr(self.step),
            "width": self.width,
            "dtype": self.dtype,
            "model": self.model,
            "sessions": self.sessions,
            "tokens": self.tokens,
            "median": repr(self.median),
        }


def fit_tolerance(
    distances: Sequence[Floats], *, width: int, dtype: str, model: str, kappa: float = KAPPA
) -> Tolerance:
    """From squared distances (T,) of each answer. UndecidedError for fewer than LEAST_SESSIONS sessions."""
    found = _sessions(distances)
    if len(found) < LEAST_SESSIONS:
        raise UndecidedError(
            f"{sum(map(len, distances))} tokens are too few to calibrate on; ask for at least "
            f"{LEAST_SESSIONS * SESSION_TOKENS}."
        )
    shares = np.arange(1, LEVELS + 1) / LEVELS
    every = np.concatenate(found)
    quantiles = [np.quantile(one, shares, method="higher") for one in found]
    envelope = np.maximum(np.max(quantiles, axis=0) * kappa, _SMALLEST**2)
    median = max(float(np.median(every)), _SMALLEST**2)
    return Tolerance(
        tuple(float(value) for value in envelope), _STEPS_IN_NOISE * math.sqrt(median), width, dtype, model,
        len(found), len(every), median,
    )  # fmt: skip


def _sessions(distances: Sequence[Floats]) -> list[Floats]:
    """Answers joined in their order; what is left at the end goes to the last session."""
    found: list[list[Floats]] = []
    held: list[Floats] = []
    for one in distances:
        held.append(np.asarray(one, np.float64))
        if sum(map(len, held)) >= SESSION_TOKENS:
            found.append(held)
            held = []
    if found:
        found[-1] += held
    return [np.concatenate(session) for session in found]


def save_tolerance(path: Path, tolerance: Tolerance) -> None:
    """Never over an existing file. Raises UsageError, FaultError."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(tolerance.to_dict(), indent=1) + "\n")
    except FileExistsError:
        raise UsageError(f"{path} exists; name a new file.") from None
    except OSError as error:
        raise FaultError(f"The tolerance cannot be written to {path}: {error.strerror}.") from error


def load_tolerance(path: Path) -> Tolerance:
    """Raises UsageError for a file that cannot be read, MalformedError for anything but such a file."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        return _parse(json.loads(data))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise MalformedError(f"{path} is not a file of tolerance of this version.") from error


def _parse(data: dict[str, Any]) -> Tolerance:
    if data.pop("version") != 1:
        raise ValueError("version")
    numbers = ("step", "median")
    values = {name: float(data.pop(name)) for name in numbers}
    envelope = tuple(float(value) for value in data.pop("envelope"))
    counts = {name: data.pop(name) for name in ("width", "sessions", "tokens")}
    texts = {name: data.pop(name) for name in ("dtype", "model")}
    sound = (
        not data
        and len(envelope) == LEVELS
        and list(envelope) == sorted(envelope)
        and all(math.isfinite(value) and value > 0 for value in (*envelope, *values.values()))
        and all(type(value) is int and 0 < value < 1 << 32 for value in counts.values())
        and all(type(value) is str and len(value) <= 100 for value in texts.values())
    )
    if not sound:
        raise ValueError("fields")
    return Tolerance(
        envelope, values["step"], counts["width"], texts["dtype"], texts["model"],
        counts["sessions"], counts["tokens"], values["median"],
    )  # fmt: skip
