"""Claims from path figure, walk and count: separate ones, each with the direction that it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ullage.audit.admissible.walk import WALKS_EACH
from ullage.audit.admissible.walk_figures import (
    Figure,
    Figures,
    RecordBits,
    Trust,
    count_bits,
    figures,
    log2_shares,
    path_bits,
    walk_bits,
)
from ullage.audit.bounds.capacity import ClusteredRatio
from ullage.audit.bounds.window import WindowShape
from ullage.audit.claims import TRUSTS, Context
from ullage.audit.examination import Examination
from ullage.claims import Bound, Claim, Evidence, Interval
from ullage.errors import UndecidedError


@dataclass(frozen=True)
class Setting:
    """What all three figures of an audit share: the noise bound in raw logits, V, and the claims' context."""

    bound: float | None
    """None: sets that somebody else made, for a bound of their own and with nothing tolerated outside."""
    vocabulary_size: int
    context: Context

    @property
    def sets(self) -> str:
        """The sets, for a sentence."""
        return "the sets" if self.bound is None else f"A_t({self.bound:g})"


@dataclass(frozen=True)
class _Kind:
    """One of the figures."""

    name: str
    direction: Bound
    method: str
    assumptions: tuple[str, ...]
    note: str = ""
    """Ends the sample's description; takes the mean and its unit."""


def capacity_claims(
    examination: Examination, window: WindowShape, limit: float, setting: Setting
) -> tuple[tuple[Claim, ...], tuple[str, ...]]:
    """All three figures of an audit with sizes of admissible sets, and notes on what is missing.

    `limit` is the share of mismatches that the verdict tolerates.
    """
    try:
        honest = figures(path_bits(_sizes(examination, window), limit, setting.vocabulary_size))
    except UndecidedError as error:
        return (), (f"There is no path figure, walk or count: {error}",)
    claims = path_claims(honest, setting)
    if not examination.walks:
        return claims, (
            "There is no walk and no count: the sets of this sampler profile are not known exactly.",
        )
    try:
        claims += walk_claims(figures(walk_bits(examination.walks)), setting)
        counted, trust = count_bits(examination.walks)
        claims += count_claims(figures(counted), trust, setting)
    except UndecidedError as error:
        return claims, (f"There is no walk and no count: {error}",)
    refused = sum(walk.refused for walk in examination.walks)
    if not refused:
        return claims, ()
    return claims, (
        f"{refused} of {WALKS_EACH * len(examination.walks)} walks were outside somewhere when they were "
        "read as the audit reads messages; they count as 0 bits.",
    )


def _sizes(examination: Examination, window: WindowShape) -> RecordBits:
    """The sum of log2 |A_t| of each audited record, on the path that it took."""
    used = [
        (record, record.scores.codes.admissible_count)
        for record in examination.records
        if record.scores is not None and record.scores.codes is not None and record.output_tokens
    ]
    return RecordBits(
        bits=np.array([float(np.log2(counts).sum()) for _, counts in used]),
        tokens=np.array([float(len(counts)) for _, counts in used]),
        text_bits=np.array([8.0 * window.text_bytes[record.number] for record, _ in used]),
        classes=tuple(window.classes[record.number] for record, _ in used),
    )


def path_claims(found: Figures, setting: Setting) -> tuple[Claim, ...]:
    """`token.path_*`: C(b, K) on honest paths, an estimate."""
    kind = _Kind(
        name="path",
        direction=Bound.ESTIMATE,
        method="C(b, K) with q = 1, interval over messages, v1",
        assumptions=(
            "Contexts are as ambiguous as honest ones; the logits of both sides agree within "
            + ("the bound that the sets are for." if setting.bound is None else f"{setting.bound:g}."),
            "The rule tolerates no token outside the sets."
            if setting.bound is None
            else "The rule tolerates the audit's limit on mismatches outside the sets, at any rank.",
            "An attacker steers towards ambiguous contexts: this is no upper bound.",
        ),
    )
    return _claims(kind, found, setting)


def walk_claims(found: Figures, setting: Setting) -> tuple[Claim, ...]:
    """`token.walk_*`: what a uniform walk inside the sets carries; `value` is the interval's low end."""
    kind = _Kind(
        name="walk",
        direction=Bound.LOWER,
        method=f"uniform walks through the admissible sets, {WALKS_EACH} a message, v1",
        assumptions=(
            f"The rule is that every token lies in {setting.sets}; limits on the rate of mismatches, "
            "and the alarm, see a walk at once.",
            "Walks start from the prompts and seeds of records that a hash of the log's root drew.",
            "Up to 2 bits a message are the coder's own cost and not taken off.",
        ),
        note="; value: the interval's low end, mean {:.4g} {}",
    )
    return _claims(kind, found, setting)


def count_claims(found: Figures, trust: Trust, setting: Setting) -> tuple[Claim, ...]:
    """`token.count_*`: Knuth's count of the transcripts inside the sets, an estimate."""
    kind = _Kind(
        name="count",
        direction=Bound.ESTIMATE,
        method=f"Knuth's count, {WALKS_EACH} walks a message, interval over messages, v1",
        assumptions=(
            f"Transcripts whose tokens all lie in {setting.sets} are counted, from the prompts and "
            "seeds of records.",
            "The count is unbiased and its tail heavy: its logarithm falls short on average, and this is no "
            f"upper bound. For some message the sum was that of {trust.effective_walks:.2g} walks of "
            f"{WALKS_EACH}, one of which made {trust.largest_share:.0%} of it.",
        ),
    )
    return _claims(kind, found, setting)


def _claims(kind: _Kind, figures: Figures, setting: Setting) -> tuple[Claim, ...]:
    context = setting.context
    found: list[Claim] = []
    worst = f"worst of {figures.classes} classes: {figures.worst_class}; classes share the error"
    for figure, suffix, which in ((figures.all, "", "all messages"), (figures.worst, "_worst_class", worst)):
        if figure is None:
            continue
        for name, unit, ratio in _three(kind.name, figure, setting.vocabulary_size):
            value = ratio.low if kind.direction is Bound.LOWER else ratio.value
            found.append(
                Claim(
                    name=f"token.{name}{suffix}",
                    value=max(value, 0.0),
                    interval=Interval(low=max(ratio.low, 0.0), high=ratio.high, confidence=ratio.confidence),
                    unit=unit,
                    bound=kind.direction,
                    confidence=ratio.confidence,
                    evidence=Evidence.MEASURED,
                    assumptions=kind.assumptions,
                    trusts=TRUSTS,
                    subject=context.model_digest,
                    window=context.window,
                    method=kind.method,
                    sample=f"{which}: {ratio.clusters} messages{kind.note.format(ratio.value, unit)}",
                    inputs=dict(context.inputs),
                )
            )
    return tuple(found)


def _three(name: str, figure: Figure, vocabulary_size: int) -> list[tuple[str, str, ClusteredRatio]]:
    found = [
        (f"{name}_capacity", "bits/token", figure.per_token),
        (f"{name}_fraction", "share of log2 V bits a token", log2_shares(figure.per_token, vocabulary_size)),
    ]
    if figure.per_text_bit is not None:
        found.append((f"{name}_fraction_text", "share of the text's UTF-8 bits", figure.per_text_bit))
    return found
