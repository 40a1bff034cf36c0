"""What an audit ends with, and what every kind of audit makes of findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ullage.audit.bounds.statistics import Rate
from ullage.audit.bounds.window import CovertFigures
from ullage.audit.bundle.envelope import Rule, Sample
from ullage.audit.bundle.evidence import AuditedRecord, TokenScores
from ullage.audit.exact.derive import Derivation
from ullage.audit.verdict import CONFIDENCE, Divergence, Verdict
from ullage.audit.watch import Alarm
from ullage.claims import Claim
from ullage.log.findings import LogFindings, Severity

INTERVAL_CONFIDENCE = 0.95
_FINDINGS_SHOWN = 20


@dataclass(frozen=True)
class AuditResult:
    """What an audit found."""

    verdict: Verdict
    claims: tuple[Claim, ...]
    rate: Rate
    clusters: tuple[float, float] | None
    """Interval of the rate over resampled records, at `INTERVAL_CONFIDENCE`."""
    limit: float | None
    sample: Sample
    records: tuple[AuditedRecord, ...]
    notes: tuple[str, ...]
    """Sentences that a reader should see and that change nothing."""
    bundle: Path | None
    covert: CovertFigures | None = None
    """None without a calibration, or where the scheme of the sample allows no bound."""
    alarm: Alarm | None = None
    derivation: Derivation | None = None
    """How transcripts were derived; None for an audit with a tolerance."""

    @property
    def rule(self) -> Rule:
        """The rule that gave the verdict."""
        if self.derivation is None:
            return Rule(limit=self.limit, confidence=CONFIDENCE)
        return Rule(name="ullage/exact-transcript/v1", limit=self.limit, confidence=None)

    @property
    def largest_margin(self) -> float | None:
        """Raw logits, over all audited tokens; infinite when one is outside the filters; None: no margin."""
        if self.derivation is not None:
            return None
        margins = [scores.margin.max() for scores in scores_of(self.records) if len(scores.margin)]
        return float(max(margins)) if margins else None

    @property
    def outside(self) -> int:
        """How many audited tokens lie outside the set that the reference's filters leave."""
        return sum(int(np.isinf(scores.margin).sum()) for scores in scores_of(self.records))


def first_divergence(records: Sequence[AuditedRecord]) -> Divergence | None:
    """The first delivered token, in the order of records, that is not the reference's."""
    for record in records:
        scores = record.scores
        if scores is not None and scores.mismatch.any():
            place = int(scores.mismatch.argmax())
            return Divergence(
                record=record.number,
                position=place,
                delivered=int(scores.token[place]),
                reference=int(scores.reference[place]),
                margin=float(scores.margin[place]),
            )
    return None


def scores_of(records: Sequence[AuditedRecord]) -> list[TokenScores]:
    """Scores of the records that were recomputed, in their order."""
    return [record.scores for record in records if record.scores is not None]


def wrongs(findings: LogFindings, records: Sequence[AuditedRecord]) -> list[str]:
    """All that fails apart from mismatches: of the log, then of its records."""
    log = sentences(findings, Severity.FAIL)
    if not findings.integrity and not log:
        log = ["The log has no signed entries, so nothing in it was checked."]
    in_records = [sentence for record in records for sentence in record.findings]
    shown = in_records[:_FINDINGS_SHOWN]
    if len(in_records) > len(shown):
        shown.append(f"{len(in_records) - len(shown)} more findings about records are left out here.")
    return [*log, *shown]


def sentences(findings: LogFindings, severity: Severity) -> list[str]:
    """What the log's check found of that severity, in words."""
    return [one.sentence for one in findings.findings if one.severity is severity]
