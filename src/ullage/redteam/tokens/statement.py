"""`ullage redteam tokens --statement`: what an audit can say of an honest float32 server, with a confidence.

A window of short answers, decoded in large batches by the game's loop; a calibration of runs that are not in
it; the audit's own codelengths and betting bound. Every message is audited, so that the window's sum is
exact; and draws in proportion to n log2 V + 20 are made as an audit of a part would make them, until they
show the target or it is clear that they will not. The draw's key is made after the transcripts are hashed.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ullage.audit.bounds.betting import (
    WEIGHT_UNITS_PER_BIT,
    draws_needed,
    message_shares,
    message_weights,
    mixed_codelength,
)
from ullage.audit.bounds.codelength import ending_codelength
from ullage.audit.bounds.window import CovertFigures, WindowShape, bound_window
from ullage.audit.claims import Context
from ullage.audit.coding import TokenCoder
from ullage.audit.covert_claims import covert_claims
from ullage.audit.selection import KEY_BYTES, draw_proportional, window_key
from ullage.claims import Claim
from ullage.model.reference import Reference
from ullage.redteam.tokens.calibration import FIRST_NUMBER, GameCalibration, calibrate_game
from ullage.redteam.tokens.game import Size, decode_rows, requests
from ullage.sampling.address import NoiseAddress
from ullage.sampling.candidates import DEFAULT_WIDTH
from ullage.sampling.parameters import SamplingParameters
from ullage.sampling.profiles import get_profile
from ullage.server.chooser import DEFAULT_PROFILE, SeededChooser
from ullage.server.rows import Row

FIRST_GAME = 1 << 33
"""Numbers of the window's games: beyond all calibrations and adversaries."""
WINDOW, CALIBRATION = Size(52_000, 24), Size(1024, 24)
_ROUNDS = 6

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StatementPlan:
    """How much is said and audited: messages, and the most tokens of each."""

    window: Size = WINDOW
    calibration: Size = CALIBRATION
    batch: int = 256
    confidence: float = 0.99
    target: float = 1e-4


@dataclass(frozen=True)
class Audited:
    """The window as the audit sees it; arrays are (N,)."""

    lengths: NDArray[np.int64]
    text_bytes: NDArray[np.int64]
    codelength: Floats
    mismatches: int
    root: bytes
    """Digest of all transcripts, made before the draw."""


@dataclass(frozen=True)
class Statement:
    """Both figures: the sum over the window, and what a sample of it shows."""

    plan: StatementPlan
    whole: CovertFigures
    sampled: CovertFigures
    distinct: int
    """Different messages among those drawn."""
    mismatches: int
    calibration: GameCalibration
    seconds: dict[str, float]
    model_digest: str

    @property
    def holds(self) -> bool:
        """Whether both show the target."""
        return max(self.whole.window.fraction, self.sampled.window.fraction) <= self.plan.target

    def lines(self) -> list[str]:
        """To print."""
        covert, times = self.whole.window, self.seconds
        return [
            f"{covert.messages} messages, {covert.tokens} tokens of an honest float32 server; "
            f"{self.mismatches} mismatches; "
            + ", ".join(f"{what} {value:.0f} s" for what, value in times.items()),
            self.whole.statement(),
            f"From {self.sampled.draws} draws ({self.distinct} different messages): "
            + self.sampled.statement(),
            f"target {self.plan.target:g}: {'shown' if self.holds else 'not shown'}",
            *(advice for advice in (self.sampled.advice, self.whole.advice) if advice),
        ]

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "statement": {
                "target": self.plan.target,
                "confidence": self.plan.confidence,
                "holds": self.holds,
                "messages_audited": self.whole.window.messages,
                "tokens_audited": self.whole.window.tokens,
                "mismatches": self.mismatches,
                "fraction_whole_window": self.whole.window.fraction,
                "fraction_from_draws": self.sampled.window.fraction,
                "draws": self.sampled.draws,
                "messages_drawn": self.distinct,
                "seconds": self.seconds,
                "calibration": self.calibration.to_dict(),
                "text": [self.whole.statement(), self.sampled.statement()],
            }
        }

    def claims(self) -> list[Claim]:
        """`token.covert_fraction` and its kin, of the whole window and from the draws."""
        context = Context("", self.model_digest, None, {"calibration": self.calibration.source})
        return [claim for one in (self.whole, self.sampled) for claim in covert_claims(one, context, None)]


def make_statement(
    reference: Reference,
    plan: StatementPlan | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> Statement:
    """Calibrate, serve, audit, draw. Minutes for the usual plan."""
    plan = plan or StatementPlan()
    started = time.monotonic()
    progress("honest runs for a calibration …")
    calibration = calibrate_game(reference, plan.calibration, dtype=torch.float32, number=FIRST_NUMBER)
    calibrated = time.monotonic()
    window, times = _serve_and_audit(reference, calibration, plan, progress)
    shape = WindowShape(
        lengths=window.lengths,
        cut=np.zeros(len(window.lengths), np.bool_),
        limits=np.full(len(window.lengths), plan.window.tokens),
        text_bytes=window.text_bytes,
        classes=("completions, temperature 1.0, top-p 1.0, top-k 0",) * len(window.lengths),
    )
    drawn = _draw(window, shape, reference.vocabulary_size, plan)
    whole, sampled = (
        _figures(window, shape, chosen, reference.vocabulary_size, plan) for chosen in (None, drawn)
    )
    return Statement(
        plan,
        whole,
        sampled,
        len(set(drawn)),
        window.mismatches,
        calibration,
        {"calibrating": calibrated - started, **times},
        reference.identity.digest,
    )


def _serve_and_audit(
    reference: Reference, calibration: GameCalibration, plan: StatementPlan, progress: Callable[[str], None]
) -> tuple[Audited, dict[str, float]]:
    """Batch by batch: the server decodes, the audit recomputes; logits are never kept."""
    coder = TokenCoder(calibration.noise, DEFAULT_WIDTH)
    digest = hashlib.sha256()
    lengths, codelength, text_bytes = [], [], []
    mismatches = 0
    times = {"decoding": 0.0, "auditing": 0.0}
    for batch, first in enumerate(range(0, plan.window.messages, plan.batch)):
        size = Size(min(plan.batch, plan.window.messages - first), plan.window.tokens)
        begun = time.monotonic()
        rows = requests(reference, size, FIRST_GAME + batch)
        decode_rows(
            reference.model, SeededChooser(), rows, size.tokens,
            context_length=reference.context_length, eos=reference.tokenizer.eos_ids,
        )  # fmt: skip
        decoded = time.monotonic()
        for row in rows:
            digest.update(repr((row.seed, row.prompt_ids, row.output_ids)).encode())
            text_bytes.append(len(reference.tokenizer.decode(row.output_ids).encode("utf-8", "replace")))
        bits, wrong = audit_rows(reference, coder, rows)
        codelength.append(bits)
        lengths += [len(row.output_ids) for row in rows]
        mismatches += wrong
        times["decoding"] += decoded - begun
        times["auditing"] += time.monotonic() - decoded
        if batch % 20 == 0:
            progress(f"{first + size.messages} of {plan.window.messages} messages")
    window = Audited(
        np.array(lengths, np.int64), np.array(text_bytes, np.int64), np.concatenate(codelength),
        mismatches, digest.digest(),
    )  # fmt: skip
    return window, times


def audit_rows(reference: Reference, coder: TokenCoder, rows: Sequence[Row]) -> tuple[Floats, int]:
    """Codelength of each message's tokens (N,), and how many tokens are not the reference's own."""
    profile, found, mismatches = get_profile(DEFAULT_PROFILE), np.zeros(len(rows)), 0
    for block in reference.iter_logits(
        [[*row.prompt_ids, *row.output_ids] for row in rows], [len(row.prompt_ids) for row in rows]
    ):
        parts = [(rows[part.sequence], part) for part in block.rows]
        claimed = np.concatenate(
            [np.array(row.output_ids[part.first_step :][: part.count], np.int64) for row, part in parts]
        )
        address = NoiseAddress.concatenate(
            [
                NoiseAddress.of_response(row.seed, len(row.prompt_ids), part.count, part.first_step)
                for row, part in parts
            ]
        )
        scores, codes = coder.score(profile, block.logits, claimed, SamplingParameters(), address)
        owner = np.repeat([part.sequence for _, part in parts], [part.count for _, part in parts])
        found += np.bincount(owner, weights=codes.codelength, minlength=len(rows))
        mismatches += int(np.count_nonzero(scores.reference != claimed))
    return found, mismatches


def _draw(window: Audited, shape: WindowShape, vocabulary_size: int, plan: StatementPlan) -> list[int]:
    """Draws until the target is shown, which betting allows at any time, or _ROUNDS times as many as a
    first look says."""
    weights = message_weights(window.lengths, vocabulary_size)
    key = window_key(secrets.token_bytes(KEY_BYTES), 0)
    bits = float(window.lengths.sum()) * np.log2(vocabulary_size)
    ending = float(ending_codelength(shape.cut, shape.limits).sum())
    available = (plan.target * bits - ending) / (float(weights.sum()) / WEIGHT_UNITS_PER_BIT)
    mean = float(
        np.average(
            message_shares(mixed_codelength(window.codelength, window.lengths, vocabulary_size), weights),
            weights=weights,
        )
    )
    first = len(weights)
    if mean < available:  # else the window's own share is above the target
        first = draws_needed(available, 1 - plan.confidence, mean).at_best
    drawn: list[int] = []
    for number in range(1, _ROUNDS + 1):
        drawn = draw_proportional(key, window.root, weights.tolist(), int(first * (1 + 0.1 * number)))
        figures = _figures(window, shape, drawn, vocabulary_size, plan)
        if figures.window.fraction <= plan.target:
            break
    return drawn


def _figures(
    window: Audited,
    shape: WindowShape,
    drawn: Sequence[int] | None,
    vocabulary_size: int,
    plan: StatementPlan,
) -> CovertFigures:
    return bound_window(
        shape,
        window.codelength,
        ending_codelength(shape.cut, shape.limits),
        drawn,
        vocabulary_size,
        confidence=plan.confidence,
        target=plan.target,
    )
