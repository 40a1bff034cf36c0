"""From what an audit found to its verdict and claims: with a tolerance, and exactly."""

from __future__ import annotations

import numpy as np

from ullage.audit import claims as own_claims
from ullage.audit.assessment import NO_ASSESSMENT, Assessment, AuditOptions, context_of
from ullage.audit.bounds.statistics import Rate, clopper_pearson, cluster_bootstrap
from ullage.audit.bounds.window import CovertFigures
from ullage.audit.bundle.envelope import Sample
from ullage.audit.exact.claims import exact_claims, exact_figures
from ullage.audit.exact.derive import Derivation
from ullage.audit.examination import Examination
from ullage.audit.result import (
    INTERVAL_CONFIDENCE,
    AuditResult,
    first_divergence,
    scores_of,
    sentences,
    wrongs,
)
from ullage.audit.verdict import decide, decide_exactly
from ullage.claims import Claim
from ullage.errors import UndecidedError
from ullage.log.claims import log_claims
from ullage.log.findings import LogFindings, Severity
from ullage.log.record import HeaderPart


def conclude(
    findings: LogFindings,
    examination: Examination,
    limit: float | None,
    assessment: Assessment = NO_ASSESSMENT,
) -> AuditResult:
    """Verdict and claims from what was found; `limit` is None if no token could be judged."""
    rate, clusters = _rate(examination)
    verdict = decide(
        rate.mismatches,
        rate.tokens,
        0.0 if limit is None else limit,
        [*wrongs(findings, examination.records), *assessment.wrong],
        doubts=[*sentences(findings, Severity.UNSURE), *unread(examination)],
        first=first_divergence(examination.records),
    )
    header, sample = findings.header, examination.sample
    context = context_of(findings, examination)
    rate_claim = own_claims.mismatch_rate(
        rate,
        clusters,
        context,
        sample=f"{rate.tokens} tokens of {sample.records - len(examination.unread)} records "
        f"out of {sample.population}",
        dtype=header.dtype if header else "",
        committed=_committed(sample),
    )
    assumptions = (*rate_claim.assumptions, *examination.notes)
    rate_claim = rate_claim.model_copy(update={"assumptions": assumptions})
    return AuditResult(
        verdict=verdict,
        claims=(
            rate_claim,
            _outside(examination, context),
            *assessment.claims,
            *log_claims(findings),
        ),
        rate=rate,
        clusters=clusters,
        limit=limit,
        sample=sample,
        records=examination.records,
        notes=(
            *sentences(findings, Severity.NOTE),
            *_enforced(header),
            *examination.notes,
            *examination.remarks,
            *assessment.notes,
        ),
        bundle=None,
        covert=assessment.covert,
        alarm=assessment.alarm,
    )


def conclude_exactly(
    options: AuditOptions,
    findings: LogFindings,
    examination: Examination,
    derivation: Derivation | None,
    vocabulary_size: int,
) -> AuditResult:
    """Verdict and claims of an exact audit; `derivation` is None if nothing was derived."""
    rate, clusters = _rate(examination)
    context = context_of(findings, examination)
    own: tuple[Claim, ...] = ()
    figures: CovertFigures | None = None
    notes: tuple[str, ...] = ()
    if derivation is not None:
        why = ""
        try:
            figures = exact_figures(
                examination, vocabulary_size, confidence=options.confidence, target=options.target
            )
            notes = (figures.statement(), *((figures.advice,) if figures.advice else ()))
        except UndecidedError as error:
            why = str(error)
            notes = (why,)
        own = exact_claims(
            examination,
            derivation,
            rate,
            context,
            figures=figures,
            why=why,
            committed=_committed(examination.sample),
            confidence=options.confidence,
        )
    return AuditResult(
        verdict=decide_exactly(
            len(examination.records),
            rate.tokens,
            wrongs(findings, examination.records),
            [*sentences(findings, Severity.UNSURE), *unread(examination)],
        ),
        claims=(*own, _outside(examination, context), *log_claims(findings)),
        rate=rate,
        clusters=clusters,
        limit=None if derivation is None else 0.0,
        sample=examination.sample,
        records=examination.records,
        notes=(*sentences(findings, Severity.NOTE), *notes),
        bundle=None,
        covert=figures,
        derivation=derivation,
    )


def unread(examination: Examination) -> list[str]:
    """What could not be judged because nobody can read it, or not this verifier."""
    if not examination.unread:
        return []
    return [
        f"{len(examination.unread)} of the {examination.sample.records} records to audit cannot be read "
        "(forgotten, or not opened to this verifier): what they say is not known."
    ]


def _rate(examination: Examination) -> tuple[Rate, tuple[float, float] | None]:
    """Mismatches a token, and the interval over resampled records."""
    scored = scores_of(examination.records)
    mismatches = np.array([scores.mismatch.sum() for scores in scored], dtype=np.int64)
    tokens = np.array([len(scores.token) for scores in scored], dtype=np.int64)
    return (
        clopper_pearson(int(mismatches.sum()), int(tokens.sum()), INTERVAL_CONFIDENCE),
        cluster_bootstrap(mismatches, tokens, INTERVAL_CONFIDENCE),
    )


def _enforced(header: HeaderPart | None) -> tuple[str, ...]:
    if header is None or header.reference_digest is None:
        return ()
    return (
        "This log's tokens are an enforced reference's own: --exact compares them bit for bit, where this "
        "audit tolerates what the server's declared precision may do.",
    )


def _committed(sample: Sample) -> bool:
    return sample.scheme == "all" or sample.selection_commitment is not None


def _outside(examination: Examination, context: own_claims.Context) -> Claim:
    return own_claims.outside_fraction(examination.prompt_tokens_outside, examination.prompt_tokens, context)
