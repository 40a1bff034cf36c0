"""How much covert data a window's tokens could carry: the codelength, summed or bounded from a sample.

Every record of the window counts with its tokens, its ending and its class; the codelength of its tokens is
known only if it was audited. Proofs and assumptions: `docs/proofs/covert-capacity.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ullage.audit.bounds.betting import (
    WEIGHT_UNITS_PER_BIT,
    covert_bits,
    draws_needed,
    message_shares,
    message_weights,
    mixed_codelength,
    upper_bound,
)
from ullage.audit.bounds.codelength import ending_codelength
from ullage.audit.bundle.evidence import AuditedRecord
from ullage.errors import UndecidedError
from ullage.log.record import Record
from ullage.model.tokenizer import ModelTokenizer

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

NOT_COVERED = (
    "answers that the prompt asks for, prompts written inside the perimeter, the time, order and number of "
    "messages, errors, retries and headers, channels that do not pass the tap, and payload that rides on a "
    "choice between servers, logs or calibrations"
)
CHANNELS = "the choice of token values and of where answers are cut off"
DEFAULT_TARGET = 1e-4


@dataclass(frozen=True)
class WindowShape:
    """All N records of a window, by counter. Arrays are (N,)."""

    lengths: Integers  # output tokens
    cut: NDArray[np.bool_]  # ended where no rule ends an answer
    limits: Integers  # most output tokens that it could have had
    text_bytes: Integers  # UTF-8 of the output as text
    classes: tuple[str, ...]  # endpoint and sampling parameters

    @classmethod
    def of(cls, records: Sequence[Record], tokenizer: ModelTokenizer) -> WindowShape:
        """Records in the order of their counters, all of them."""
        outcomes = [record.close.outcome if record.close else "open" for record in records]
        empty_refusals = [
            outcome == "refused" and not record.output_ids
            for outcome, record in zip(outcomes, records, strict=True)
        ]
        return cls(
            lengths=_integers(len(record.output_ids) for record in records),
            cut=np.array(
                [
                    outcome != "complete" and not refusal
                    for outcome, refusal in zip(outcomes, empty_refusals, strict=True)
                ],
                dtype=np.bool_,
            ),
            limits=_integers(
                max(
                    len(record.output_ids),
                    min(
                        record.open.parameters.max_tokens,
                        max(tokenizer.context_length - len(record.open.prompt_ids), 0),
                    ),
                )
                for record in records
            ),
            text_bytes=_integers(_text_bytes(record, tokenizer) for record in records),
            classes=tuple(class_of(record) for record in records),
        )


def class_of(record: Record) -> str:
    """The prompt class of a record: endpoint and sampling parameters."""
    given = record.open.parameters
    return (
        f"{record.open.endpoint}, temperature {given.temperature}, top-p {given.top_p}, top-k {given.top_k}"
    )


@dataclass(frozen=True)
class Covert:
    """An upper limit on the covert bits of some messages."""

    bits: float
    tokens: int
    capacity: float  # log2 V a token, summed: what the tokens could hold at all
    text_bits: float
    messages: int

    @classmethod
    def of(cls, window: WindowShape, members: NDArray[np.bool_], vocabulary_size: int, bits: float) -> Self:
        """`bits` beside what the window's `members` (N,) could hold."""
        tokens = int(window.lengths[members].sum())
        text_bits = 8.0 * float(window.text_bytes[members].sum())
        return cls(bits, tokens, tokens * math.log2(vocabulary_size), text_bits, int(members.sum()))

    @property
    def per_token(self) -> float:
        return self.bits / self.tokens if self.tokens else math.nan

    @property
    def fraction(self) -> float:
        return self.bits / self.capacity if self.capacity else math.nan

    @property
    def fraction_text(self) -> float:
        return self.bits / self.text_bits if self.text_bits else math.nan


@dataclass(frozen=True)
class CovertFigures:
    """The window's figure, the worst class's, and how they were had."""

    window: Covert
    worst: Covert
    worst_class: str
    classes: int
    confidence: float | None
    """None when every message was audited: the sum is then exact."""
    draws: int | None
    ending_bits: float
    advice: str | None
    """What it would take to show the target, if this audit does not."""
    channels: str = CHANNELS
    """What is bounded."""

    def statement(self) -> str:
        """The figure in words."""
        share = f"{self.window.fraction:.3g} of the output bits of this window"
        if self.confidence is None:
            start = f"Every message was audited: at most {share}"
        else:
            start = (
                f"With {100 * self.confidence:g} % confidence over the audit's randomness, at most {share}"
            )
        return (
            f"{start} could carry covert data through the channels listed: {self.channels}; not covered: "
            f"{NOT_COVERED}."
        )


def covert_figures(
    window: WindowShape,
    records: Sequence[AuditedRecord],
    drawn: Sequence[int] | None,
    vocabulary_size: int,
    *,
    confidence: float,
    target: float = DEFAULT_TARGET,
) -> CovertFigures:
    """From the audited records; `drawn` are the counters in the order of drawing, None if all were audited.

    A message that could not be recomputed, or that ends where it must not, counts as all covert. Raises
    UndecidedError for a window without output tokens.
    """
    length = codelengths(window, records)
    endings = ending_codelength(window.cut, window.limits)
    return bound_window(window, length, endings, drawn, vocabulary_size, confidence=confidence, target=target)


def bound_window(
    window: WindowShape,
    length: Floats,
    endings: Floats,
    drawn: Sequence[int] | None,
    vocabulary_size: int,
    *,
    confidence: float,
    target: float = DEFAULT_TARGET,
) -> CovertFigures:
    """From codelengths (N,), NaN where a message was not audited, inf where it counts as all covert.

    `endings` (N,) are the bits of how each message ended; they are known of all. Raises UndecidedError for
    a window without output tokens.
    """
    if not window.lengths.sum():
        raise UndecidedError("The window has no output tokens, so there is no share of them to state.")
    weights = message_weights(window.lengths, vocabulary_size)
    audited = ~np.isnan(length)
    mixed = np.full(len(length), np.nan)
    mixed[audited] = mixed_codelength(length[audited], window.lengths[audited], vocabulary_size)
    alpha, chosen = 1 - confidence, np.asarray(drawn if drawn is not None else [], dtype=np.int64)

    def figure(members: NDArray[np.bool_], level: float) -> Covert:
        if drawn is None:
            bits = float(mixed[members].sum())
        else:
            mine = chosen[members[chosen]]
            share = upper_bound(message_shares(mixed[mine], weights[mine]), level)
            bits = covert_bits(share, weights[members])
        return Covert.of(window, members, vocabulary_size, bits + float(endings[members].sum()))

    whole = figure(np.ones(len(length), np.bool_), alpha)
    # The classes share the error, so that the worst of them is covered whichever it is.
    members = members_by_class(window)
    classes = {name: figure(mine, alpha / len(members)) for name, mine in members.items()}
    worst = max(classes, key=lambda name: classes[name].fraction)
    advice = None
    if whole.fraction > target:
        shares = mixed[audited] * WEIGHT_UNITS_PER_BIT / weights[audited] if drawn is None else (
            message_shares(mixed[chosen], weights[chosen])
        )  # fmt: skip
        available = (target * whole.capacity - float(endings.sum())) / covert_bits(1.0, weights)
        advice = advice_on(
            whole,
            float(shares.mean()),
            available,
            sampled=drawn is not None,
            target=target,
            confidence=confidence,
        )
    return CovertFigures(
        window=whole,
        worst=classes[worst],
        worst_class=worst,
        classes=len(classes),
        confidence=None if drawn is None else confidence,
        draws=None if drawn is None else len(chosen),
        ending_bits=float(endings.sum()),
        advice=advice,
    )


def members_by_class(window: WindowShape) -> dict[str, NDArray[np.bool_]]:
    """The messages (N,) of each class that has output tokens."""
    classes = np.array(window.classes)
    found = {name: classes == name for name in sorted(set(window.classes))}
    return {name: members for name, members in found.items() if window.lengths[members].sum()}


def uniform_advice(
    window: WindowShape,
    length: Floats,
    endings: Floats,
    vocabulary_size: int,
    *,
    confidence: float,
    target: float = DEFAULT_TARGET,
) -> str:
    """Why a uniform sample shows nothing, and what would: arguments as `bound_window`'s."""
    why = (
        "A uniform sample gives no bound on covert bits: draw in proportion to size with --draws N, or take "
        "all records with --sample all."
    )
    audited = ~np.isnan(length)
    if not window.lengths.sum() or not audited.any():
        return why
    weights = message_weights(window.lengths, vocabulary_size)
    mixed = mixed_codelength(length[audited], window.lengths[audited], vocabulary_size)
    shares = message_shares(mixed, weights[audited])
    whole = Covert.of(window, np.ones(len(length), np.bool_), vocabulary_size, math.nan)
    available = (target * whole.capacity - float(endings.sum())) / covert_bits(1.0, weights)
    mean = float(np.average(shares, weights=weights[audited]))
    advice = advice_on(whole, mean, available, sampled=True, target=target, confidence=confidence)
    return f"{why} {advice}"


def advice_on(
    whole: Covert, mean: float, available: float, *, sampled: bool, target: float, confidence: float
) -> str:
    """Why the target was not shown, and how many messages would show it."""
    if not sampled:
        return (
            f"The window's own sum is above {target:.3g}: no larger audit of it shows less. A server with "
            "less noise against the reference, or enforcement, does."
        )
    if available <= 0:
        return (
            f"The ways in which answers were cut off alone make more than {target:.3g}; no draw shows less."
        )
    try:
        needed = draws_needed(available, 1 - confidence, mean)
    except UndecidedError:
        return (
            f"The mean over the audited messages is above {target:.3g}: no number of draws shows less. A "
            "server with less noise against the reference, or enforcement, does."
        )
    return (
        f"To show at most {target:.3g} at {100 * confidence:g} % would take about {needed.at_best:,} to "
        f"{needed.at_worst:,} draws with these messages; the window has {whole.messages:,}, and an audit of "
        "all of them needs no confidence."
    )


def codelengths(window: WindowShape, records: Sequence[AuditedRecord]) -> Floats:
    """Bits of each message of the window (N,): NaN where it was not audited, inf where it is wrong."""
    length = np.full(len(window.lengths), np.nan)
    for record in records:
        length[record.number] = _codelength(record)
    return length


def _codelength(record: AuditedRecord) -> float:
    if record.scores is None:
        return math.inf if record.output_tokens else 0.0
    if record.findings or record.scores.codes is None:
        return math.inf
    return float(record.scores.codes.codelength.sum())


def _text_bytes(record: Record, tokenizer: ModelTokenizer) -> int:
    if any(token >= tokenizer.vocabulary_size for token in record.output_ids):
        return 0  # no text; a smaller denominator only makes the share larger
    return len(tokenizer.decode(record.output_ids).encode("utf-8", "replace"))


def _integers(values: Iterable[int]) -> Integers:
    return np.array(list(values), dtype=np.int64)
