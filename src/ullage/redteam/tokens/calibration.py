"""The verifier's calibration in the game: its own honest runs of the declared server make the noise model.

The same fit as `ullage calibrate` makes, on the game's loop instead of logs, and kept in memory, not signed.
Half of the prompts, by digest, make the fit; the other half says how well it does. A session is a prompt and
has several answers, under seeds of their own: the alarm's limits follow the noisiest session, and of a short
one chance alone says that it is noisy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from ullage.audit.bounds.capacity import ClusteredRatio, clustered_ratio
from ullage.audit.bounds.codelength import DEFAULT_FLOOR, sum_by_message
from ullage.audit.bounds.noise_model import FlipCurve, NoiseModel
from ullage.audit.calibration.fit import CONFIDENCE, fit_with_cutoff
from ullage.model.reference import Reference
from ullage.redteam.tokens.game import (
    Prompts,
    Size,
    Traffic,
    client_prompts,
    decode_rows,
    observe,
    requests,
)
from ullage.redteam.tokens.pricing import Priced
from ullage.sampling.candidates import Candidates
from ullage.sampling.parameters import SamplingParameters
from ullage.server.chooser import SeededChooser

FIRST_NUMBER = 1 << 32
"""Games from here on are calibrations: no adversary plays them."""
ROWS_AT_ONCE = 128
ANSWERS = 8
"""To each prompt of a calibration."""
USUAL_CUTOFF = 0.3


@dataclass(frozen=True)
class GameCalibration:
    """What the verifier prices with and watches by; published, so that adversaries know it."""

    noise: NoiseModel
    alarm_floor: float
    source: str
    held_out: ClusteredRatio | None = None
    """Codelength of honest tokens that the fit did not see, bits a token, interval over prompts."""

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        held = self.held_out
        return {
            "source": self.source,
            "noise": self.noise.to_dict(),
            "alarm_floor": self.alarm_floor,
            "held_out_codelength": None if held is None else held.value,
            "held_out_interval": None if held is None else [held.low, held.high],
            "held_out_confidence": None if held is None else held.confidence,
        }


def usual_noise(vocabulary_size: int) -> NoiseModel:
    """A noise model as bfloat16 servers have it, where nothing was calibrated: an adversary that is served
    alone mimics it."""
    return NoiseModel(
        curve=FlipCurve(0.01, 4.0, USUAL_CUTOFF),
        supremum=FlipCurve(0.012, 4.0, USUAL_CUTOFF),
        vocabulary_size=vocabulary_size,
        floor=DEFAULT_FLOOR,
        tokens=0,
        mismatches=0,
        sessions=0,
    )


def usual_calibration(vocabulary_size: int) -> GameCalibration:
    """`usual_noise` where a calibration is wanted."""
    return GameCalibration(usual_noise(vocabulary_size), DEFAULT_FLOOR, "fixed, not calibrated")


def calibrate_game(
    reference: Reference,
    size: Size,
    parameters: SamplingParameters | None = None,
    dtype: torch.dtype = torch.bfloat16,
    number: int = FIRST_NUMBER,
) -> GameCalibration:
    """Honest runs of the declared model in `dtype`, ANSWERS messages a prompt.

    Raises UndecidedError when there are no near-ties to fit.
    """
    priced, prompts = [], []
    for rows in honest_batches(reference, size, parameters, dtype, number):
        priced.append(Priced.of(rows))
        prompts += [row.prompt_ids for row in rows.messages]
    lengths = np.concatenate([one.lengths for one in priced])
    near = Candidates(
        np.concatenate([one.near.gaps for one in priced]),
        np.concatenate([one.near.ids for one in priced]),
        np.concatenate([one.near.within for one in priced]),
    )
    chosen = np.concatenate([one.chosen for one in priced])
    _, session_of = np.unique([repr(prompt) for prompt in prompts], return_inverse=True)
    fitted = np.array([hashlib.sha256(repr(prompt).encode()).digest()[-1] % 2 == 0 for prompt in prompts])
    session = np.repeat(session_of, lengths)
    rows_fitted = np.repeat(fitted, lengths)
    half = Candidates(near.gaps[rows_fitted], near.ids[rows_fitted], near.within[rows_fitted])
    noise, alarm_floor = fit_with_cutoff(
        half, chosen[rows_fitted], session[rows_fitted], reference.vocabulary_size
    )
    length = sum_by_message(Priced(near, chosen, {}, np.zeros(0), lengths).codes(noise).codelength, lengths)
    held_out = clustered_ratio(
        length[~fitted], lengths[~fitted].astype(np.float64), session_of[~fitted], CONFIDENCE
    )
    name = str(dtype).removeprefix("torch.")
    source = (
        f"honest {name} runs against float32: {session_of.max() + 1} prompts, half held out, "
        f"{len(chosen)} tokens"
    )
    return GameCalibration(noise, alarm_floor, source, held_out)


def _prompts(number: int) -> Prompts:
    def repeated(count: int) -> list[str]:
        different = client_prompts(-(-count // ANSWERS), number)
        return [text for text in different for _ in range(ANSWERS)][:count]

    return repeated


def honest_batches(
    reference: Reference,
    size: Size,
    parameters: SamplingParameters | None,
    dtype: torch.dtype,
    number: int,
) -> list[Traffic]:
    """Honest traffic of `size`, in games of at most ROWS_AT_ONCE messages numbered from `number` on."""
    from ullage.redteam.tokens.model_swaps import copy_of

    model = reference.model if dtype == torch.float32 else copy_of(reference.model, dtype)
    made = []
    for batch, first in enumerate(range(0, size.messages, ROWS_AT_ONCE)):
        part = Size(min(ROWS_AT_ONCE, size.messages - first), size.tokens)
        rows = requests(reference, part, number + batch, parameters, _prompts(number + batch))
        decode_rows(
            model, SeededChooser(), rows, size.tokens,
            context_length=reference.context_length, eos=reference.tokenizer.eos_ids,
        )  # fmt: skip
        made.append(observe(reference, rows, bounds=()))
    return made
