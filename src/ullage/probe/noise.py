"""The noise that a probe forgives: how often honest arithmetic flips a token, by the gap to the next one.

It comes from the auditor's own honest server (`ullage probe OWN_URL --fit-noise FILE`), or, without one, from
a generous guess for the declared precision, which the claims then name as an assumption. A noise file is the
auditor's own: it is not signed, and whoever may write it decides what passes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from ullage.audit.bounds.codelength import DEFAULT_FLOOR
from ullage.audit.bounds.noise_model import FlipCurve, NoiseModel
from ullage.audit.calibration.fit import DEFAULT_REACH, KAPPA, fit_with_cutoff
from ullage.errors import FaultError, MalformedError, UndecidedError, UsageError
from ullage.model.loading import Precision
from ullage.sampling.candidates import DEFAULT_WIDTH, Candidates

_MAX_BYTES: Final = 1 << 20
# Scale of the flip curve, that of the noisiest session, and cutoff, in raw logits.
_GUESSES: Final[dict[str, tuple[float, float, float]]] = {
    "bfloat16": (0.012, 0.024, 0.6),
    "float32": (5e-6, 2e-5, 5e-4),
}
_GUESSED_FLOOR: Final = 3e-4
LEAST_TOKENS: Final = 2_000
WIDTH: Final = DEFAULT_WIDTH
"""Near candidates a token."""


@dataclass(frozen=True)
class ProbeNoise:
    """The noise model and the limit on tokens outside of it, per token."""

    model: NoiseModel
    floor: float
    source: str
    kappa: float = KAPPA

    def trusted(self) -> ProbeNoise:
        """The fit itself instead of its noisiest session times kappa, and tokens outside as rare as was seen.

        Finds deviations several times sooner, and accuses a provider whose noise is larger than was fitted:
        what a score held against calibrated scores assumes, too.
        """
        model = replace(self.model, supremum=self.model.curve)
        floor = min(self.floor, max(DEFAULT_FLOOR, 0.5 / max(self.model.tokens, LEAST_TOKENS)))
        return ProbeNoise(model, floor, f"{self.source}, taken at its word", 1.0)

    def to_dict(self) -> dict[str, Any]:
        return {
            "version": 1,
            "noise": self.model.to_dict(),
            "floor": repr(self.floor),
            "kappa": repr(self.kappa),
            "source": self.source,
        }


def guessed_noise(dtype: Precision, vocabulary_size: int) -> ProbeNoise:
    """Where nothing was calibrated: about three times what two processors of one kind show."""
    scale, largest, cutoff = _GUESSES[dtype]
    model = NoiseModel(
        FlipCurve(scale, 4.0, cutoff),
        FlipCurve(largest, 4.0, cutoff),
        vocabulary_size,
        DEFAULT_FLOOR,
        0,
        0,
        0,
    )
    return ProbeNoise(model, _GUESSED_FLOOR, f"a guess for {dtype}, not calibrated")


def fit_noise(
    near: Sequence[Candidates], chosen: Sequence[np.ndarray[Any, np.dtype[np.int64]]],
    sessions: Sequence[int], vocabulary_size: int, source: str,
) -> ProbeNoise:  # fmt: skip
    """From honest answers: candidates up to DEFAULT_REACH, choices, and the prompt's number of each.

    Without a single near-tie (float32 against float32) the smallest noise that the guess knows is kept, with
    a floor from the number of clean tokens. Raises UndecidedError for fewer than LEAST_TOKENS tokens.
    """
    tokens = sum(len(one) for one in chosen)
    if tokens < LEAST_TOKENS:
        raise UndecidedError(
            f"{tokens} honest tokens are too few to fit noise to; {LEAST_TOKENS} are the least."
        )
    joined = Candidates(
        np.concatenate([one.gaps for one in near]),
        np.concatenate([one.ids for one in near]),
        np.concatenate([one.within for one in near]),
    )
    taken = np.concatenate(list(chosen))
    session = np.repeat(np.asarray(sessions), [len(one) for one in chosen])
    said = f"{source}: {len(set(sessions))} prompts, {tokens} tokens, {int((taken >= 0).sum())} mismatches"
    if not (taken >= 0).any():
        guess = guessed_noise("float32", vocabulary_size)
        return ProbeNoise(guess.model, max(DEFAULT_FLOOR, 9.2 / tokens), said)
    model, floor = fit_with_cutoff(joined, taken, session, vocabulary_size, DEFAULT_REACH)
    return ProbeNoise(model, floor, said)


def save_noise(path: Path, noise: ProbeNoise) -> None:
    """Never over an existing file. Raises UsageError, FaultError."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(noise.to_dict(), indent=1) + "\n")
    except FileExistsError:
        raise UsageError(f"{path} exists; name a new file.") from None
    except OSError as error:
        raise FaultError(f"The noise cannot be written to {path}: {error.strerror}.") from error


def load_noise(path: Path) -> ProbeNoise:
    """Raises MalformedError for anything but such a file."""
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise MalformedError(f"{path} cannot be read as a file of noise.") from error
    fields = {"version", "noise", "floor", "kappa", "source"}
    if not isinstance(data, dict) or set(data) != fields or data["version"] != 1:
        raise MalformedError(f"{path} is not a file of noise of this version.")
    try:
        floor, kappa = float(data["floor"]), float(data["kappa"])
    except (TypeError, ValueError) as error:
        raise MalformedError(f"{path} has a floor or a factor that is no number.") from error
    if not (0 < floor < 0.5 and 1 <= kappa < 1e3 and isinstance(data["noise"], dict)):
        raise MalformedError(f"{path} has a floor or a factor out of range.")
    return ProbeNoise(NoiseModel.from_dict(data["noise"]), floor, str(data["source"])[:1000], kappa)
