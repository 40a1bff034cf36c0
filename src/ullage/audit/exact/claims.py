"""What follows from an exact audit: nothing is left to choose in tokens that are the reference's own.

Given prompts, seeds and reference there is one window of transcripts. Its code is a point mass: L = 0 for
that window, infinite for every other (`docs/proofs/covert-capacity.md`, section 8).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ullage.audit.bounds.codelength import ending_codelength
from ullage.audit.bounds.statistics import Rate, undetected_upper_bound
from ullage.audit.bounds.window import (
    Covert,
    CovertFigures,
    WindowShape,
    bound_window,
    members_by_class,
    uniform_advice,
)
from ullage.audit.claims import TRUSTS, UNCOMMITTED, Context, rate_claim
from ullage.audit.covert_claims import not_covered, upper_claims
from ullage.audit.exact.derive import Derivation
from ullage.audit.examination import Examination
from ullage.claims import Bound, Claim, Evidence
from ullage.errors import UndecidedError

CHANNELS = "the choice of token values"
_DERIVED = "transcripts derived again bit for bit"
_METHOD = f"{_DERIVED}, v1"
_EXACT = (
    "Prompts and seeds are independent of the payload: prompts written inside the perimeter and what a "
    "prompt asks for are not covered.",
    "Equal reference digests compute equal bits: a row of the reference depends on position and prefix "
    "alone, not on later tokens, on what shares a pass, or on the number of threads.",
    "The declared model itself is honest.",
    "Token values only. Where answers were cut off has a claim of its own (token.ending_capacity); time, "
    "order, number and errors of messages are not covered.",
)
"""What `token.covert_*` of an exact audit rest on."""


def exact_figures(
    examination: Examination, vocabulary_size: int, *, confidence: float, target: float
) -> CovertFigures:
    """Covert bits of token values. Raises UndecidedError where the sample allows no bound.

    Audited whole and clean, it is 0. Audited whole and not clean, each record that differs counts as all
    covert, and which ones do is paid for (section 8). From draws: betting, as for codelengths.
    """
    window = examination.window
    if window is None or not window.lengths.sum():
        raise UndecidedError("The window has no output tokens, so there is no share of them to state.")
    length = np.full(len(window.lengths), np.nan)
    for record in examination.records:
        length[record.number] = np.inf if record.findings else 0.0
    if examination.sample.scheme == "uniform-without-replacement":
        raise UndecidedError(
            uniform_advice(
                window, length, np.zeros(len(length)), vocabulary_size, confidence=confidence, target=target
            )
        )
    if examination.drawn is None and not any(record.findings for record in examination.records):
        return _nothing(window, vocabulary_size)
    endings = np.zeros(len(length))
    if examination.drawn is None:  # one bit says which of two codes: the point mass, or one with differences
        for members in members_by_class(window).values():
            endings[members] = 1 / np.count_nonzero(members)
    figures = bound_window(
        window, length, endings, examination.drawn, vocabulary_size, confidence=confidence, target=target
    )
    return replace(figures, channels=CHANNELS, ending_bits=0.0)


def exact_claims(
    examination: Examination,
    derivation: Derivation,
    rate: Rate,
    context: Context,
    *,
    figures: CovertFigures | None,
    why: str,
    committed: bool,
    confidence: float,
) -> tuple[Claim, ...]:
    """All claims of an exact audit about tokens; `why` there are no `figures`, if there are none."""
    sample = examination.sample
    what = (
        f"{derivation.identical} of {derivation.records} transcripts identical, {rate.tokens} tokens, out of "
        f"{sample.population} records"
    )
    alike = "Audited tokens count as independent trials, which matters only if not all were audited."
    assumptions = (alike, *_EXACT[1:3], *(() if committed else (UNCOMMITTED,)))
    claims = [
        rate_claim(rate, context, sample=what, assumptions=assumptions, method=_METHOD),
        _undetected(examination, context, confidence),
    ]
    if figures is None:
        claims += not_covered(why, context, _METHOD)
    else:
        claims += upper_claims(figures, context, _EXACT, _DERIVED)
    if examination.window is not None:
        claims.append(_endings(examination.window, context))
    return tuple(claims)


def _nothing(window: WindowShape, vocabulary_size: int) -> CovertFigures:
    everything = np.ones(len(window.lengths), np.bool_)
    whole = Covert.of(window, everything, vocabulary_size, 0.0)
    return CovertFigures(
        window=whole,
        worst=whole,
        worst_class="all are alike",
        classes=len(set(window.classes)),
        confidence=None,
        draws=None,
        ending_bits=0.0,
        advice=None,
        channels=CHANNELS,
    )


def _undetected(examination: Examination, context: Context, confidence: float) -> Claim:
    """`token.undetected_share`: the share of messages that may differ from the reference's."""
    sample = examination.sample
    differ = sum(bool(record.findings) for record in examination.records)
    value: float | None = None
    level: float | None = None
    if sample.scheme == "all" and sample.population:
        value = differ / sample.population
    elif sample.scheme == "uniform-without-replacement":
        value = undetected_upper_bound(sample.population, sample.records, differ, confidence)
        level = confidence
    return Claim(
        name="token.undetected_share",
        value=value,
        unit="share of messages",
        bound=Bound.UPPER,
        confidence=level,
        evidence=Evidence.NOT_COVERED if value is None else Evidence.PROVEN,
        assumptions=("The sample was drawn after the records were committed.", *_EXACT[1:2])
        if value is not None
        else ("Draws with replacement bound a share of the bits, not of the messages.",),
        trusts=TRUSTS,
        subject=context.model_digest,
        window=context.window,
        method="hypergeometric bound on records that differ, v1",
        sample=f"{differ} of {len(examination.records)} derived records differ",
        inputs=dict(context.inputs),
    )


def _endings(window: WindowShape, context: Context) -> Claim:
    messages = len(window.lengths)
    bits = float(ending_codelength(window.cut, window.limits).sum())
    return Claim(
        name="token.ending_capacity",
        value=bits / messages if messages else None,
        unit="bits/message",
        bound=Bound.UPPER,
        evidence=Evidence.PROVEN if messages else Evidence.NOT_COVERED,
        assumptions=(
            "An answer that was cut off ended at one of as many places as it could have had tokens.",
            "The share of such answers in the code, 2^-10, was fixed beforehand.",
        ),
        trusts=TRUSTS,
        subject=context.model_digest,
        window=context.window,
        method="code for endings, v1",
        sample=f"{int(np.count_nonzero(window.cut))} of {messages} messages were cut off",
        inputs=dict(context.inputs),
    )
