"""The audit from end to end: verify the log, examine a sample, decide, claim, sign."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ullage import __version__
from ullage.audit.admissible.walk import WalkPlan, is_walkable
from ullage.audit.assessment import (
    AuditOptions,
    assess,
    check_options,
    check_usable,
    context_of,
    load_for,
)
from ullage.audit.bundle.envelope import Declaration, Predicate, Sample, Statement, subject_of
from ullage.audit.bundle.folder import check_place, write_bundle
from ullage.audit.calibration.file import SignedCalibration
from ullage.audit.cluster.ray_cluster import RayOptions, check_ray
from ullage.audit.conclusion import conclude, conclude_exactly
from ullage.audit.exact.derive import check_declared, examine_exactly
from ullage.audit.exact.lateness_claims import lateness_claims
from ullage.audit.examination import Examination, Progress, examine, select, select_proportional
from ullage.audit.result import AuditResult
from ullage.audit.seeds import SeedCheck
from ullage.audit.unfinished import Unfinished, place_of
from ullage.audit.verdict import limit_for
from ullage.claims import digest_of
from ullage.errors import UsageError
from ullage.log.findings import LogFindings
from ullage.log.keys import load_seed_key, load_verifier, load_verifier_keys
from ullage.log.notes.checkpoint import Checkpoint
from ullage.log.reader import LogReader
from ullage.log.record import HeaderPart
from ullage.log.sealed.openers import RecordKeys, load_opener
from ullage.model.tokenizer import ModelTokenizer
from ullage.sampling.profiles import get_profile

__all__ = ["AuditRequest", "AuditResult", "audit_log"]


@dataclass(frozen=True)
class AuditRequest(AuditOptions):
    """What to audit, and how."""

    log: Path
    model: Path
    sample: int | None = None
    """How many records to draw; None for all of them."""
    limit_dtype: str | None = None
    """Precision whose limit applies; None for the one that the log declares."""
    log_key: Path | None = None
    """The tap's public key; None for the one beside the log, which vouches for itself."""
    record_keys: Path | None = None
    """What opens the records: a file of `ullage log open`, or a folder with `seal.key`; None for `keys`."""
    seed_key: Path | None = None
    """The log's `seed.key`, once its tap has handed it over: then every seed is checked."""
    out: Path | None = None
    """Where the bundle goes; None for no bundle."""
    entropy: bool = False
    """Whether the evidence has the entropy of each distribution."""
    reference_url: str | None = None
    """An OpenAI-compatible engine of the verifier's own that gives the logits; None for our own pass."""
    ray: RayOptions | None = None
    """Workers of a Ray cluster that recompute; None for this process."""
    threads: int | None = None
    """CPU threads for an exact audit, as the enforcer had them; None leaves torch's."""
    agreed: tuple[int, bytes] | None = None
    """Size and root that the log has to have, where they were agreed on before; None for any."""


def audit_log(request: AuditRequest, progress: Progress | None = None) -> AuditResult:
    """Audit a log.

    Raises UsageError when request and log do not go together (not a log, another model, an unknown profile,
    a selection key that made no commitment), before anything is recomputed. What is wrong with the log or
    its records is not raised: it is in the verdict.
    """
    progress = progress or (lambda stage, done, total: None)
    if request.out is not None:
        check_place(request.out)
        if request.keys is None:
            raise UsageError(
                "A bundle is signed: give the verifier's keys with --keys (made by `ullage keys init DIR`)."
            )
    check_options(request)
    _check_engine(request)
    _check_ray(request)
    keys = load_verifier_keys(request.keys) if request.keys else None
    signed = load_for(request, keys)
    reader = LogReader.open(
        request.log,
        load_verifier(request.log_key) if request.log_key else None,
        load_opener(request.keys, request.record_keys),
    )
    findings = reader.verify(progress)
    for finding in findings.findings:
        if finding.code == "not-a-log":
            raise UsageError(finding.sentence)
    _check_agreed(request, findings)
    _check_opener(reader, findings)
    opened = _Opened(request, reader, findings, keys.selection if keys else None, progress)
    examination, result = opened.exactly() if request.exact else opened.within_tolerance(signed)
    if request.out is None or keys is None:
        return result
    header, checkpoint = findings.header, findings.checkpoint
    if header is None or checkpoint is None:
        note = "No bundle was written: without a header and a signed root there is no log to name in it."
        return replace(result, notes=(*result.notes, note))
    write_bundle(
        request.out,
        result.claims,
        result.records,
        lambda evidence: _statement(result, header, checkpoint, examination.reference or {}, evidence),
        keys.verdict,
        log_e=None if result.alarm is None else result.alarm.log_e,
    )
    Unfinished(place_of(request.out), keys.selection).clear()
    return replace(result, bundle=request.out)


def _check_engine(request: AuditRequest) -> None:
    """Raise UsageError for what an engine's log-probabilities cannot give."""
    asked = {
        "--exact": request.exact, "--entropy": request.entropy, "--capacity": request.capacity,
        "--calibration": request.calibration is not None,
    }  # fmt: skip
    names = [name for name, wanted in asked.items() if wanted]
    if request.reference_url is not None and names:
        raise UsageError(
            f"{', '.join(names)} needs the whole distributions of the reference that was calibrated: "
            "leave out --reference-url, and the weights are loaded here."
        )


def _check_agreed(request: AuditRequest, findings: LogFindings) -> None:
    """Raise UsageError for a log that is not, or no longer, the one that was agreed on."""
    if request.agreed is None:
        return
    signed = findings.checkpoint
    if signed is None or (signed.size, signed.root) != request.agreed:
        raise UsageError("The log has another root than was agreed on: it has grown since, or was replaced.")


def _check_opener(reader: LogReader, findings: LogFindings) -> None:
    """Raise UsageError for keys of another log's records: no record of this one could be read."""
    keys, header = reader.opener, findings.header
    if not findings.integrity or header is None:
        return  # a verdict on the log, whatever opens its records
    if isinstance(keys, RecordKeys) and keys.log_id != header.log_id:
        raise UsageError(
            f"The keys of records are of the log {keys.log_id}, and this is {header.log_id}: give those that "
            "`ullage log open` wrote for it."
        )


def _check_ray(request: AuditRequest) -> None:
    """Raise UsageError where a cluster cannot do what is asked, or there is no Ray."""
    if request.ray is None:
        return
    asked = {
        "--exact": request.exact, "--capacity": request.capacity,
        "--reference-url": request.reference_url is not None,
    }  # fmt: skip
    names = [name for name, wanted in asked.items() if wanted]
    if names:
        raise UsageError(f"{', '.join(names)} does not go with --engine ray: it runs in one process so far.")
    check_ray(request.ray)


@dataclass(frozen=True)
class _Opened:
    """A log that was verified, and what is asked of it."""

    request: AuditRequest
    reader: LogReader
    findings: LogFindings
    secret: bytes | None
    progress: Progress

    def exactly(self) -> tuple[Examination, AuditResult]:
        """Derive the transcripts again; see `exact.py`."""
        request, derivation, vocabulary_size = self.request, None, 2
        examination = self._nothing()
        if (declared := self._sound()) is not None:
            header, checkpoint = declared
            derivation = check_declared(header, request.model)
            vocabulary_size = ModelTokenizer.load(request.model).vocabulary_size
            draw = self._draw(header, checkpoint, vocabulary_size)
            examination, derivation = examine_exactly(
                self.reader, header, request.model, draw, derivation,
                progress=self.progress, threads=request.threads,
            )  # fmt: skip
        result = conclude_exactly(request, self.findings, examination, derivation, vocabulary_size)
        if derivation is None:
            return examination, result
        closes = (record.close for record in self.reader.records() if record.close is not None)
        times = lateness_claims(closes, context_of(self.findings, examination))
        return examination, replace(result, claims=(*result.claims, *times))

    def within_tolerance(self, signed: SignedCalibration | None) -> tuple[Examination, AuditResult]:
        """Recompute teacher-forced, and hold the rate of mismatches against a limit."""
        request, findings = self.request, self.findings
        limit: float | None = None
        examination = self._nothing()
        if (declared := self._sound()) is not None:
            header, checkpoint = declared
            limit = limit_for(request.limit_dtype or header.dtype)
            coder = None
            if signed is not None:
                check_usable(signed, header, findings.last_time)
                coder = signed.content.coder(request.bound)
            # Draws take a calibration, so that without one the vocabulary's size is not needed.
            draw = self._draw(header, checkpoint, coder.noise.vocabulary_size if coder else 2)
            walk = None
            if request.capacity and request.bound is not None and is_walkable(get_profile(header.profile)):
                walk = WalkPlan(request.walks, checkpoint.root, request.bound)
            examination = examine(
                self.reader, header, request.model, draw, self.progress,
                entropy=request.entropy, coder=coder, walk=walk, seeds=self._seeds(header),
                engine=request.reference_url, ray=request.ray, kept=self._kept(signed),
            )  # fmt: skip
        assessment = assess(request, signed, findings, examination, limit)
        return examination, conclude(findings, examination, limit, assessment)

    def _sound(self) -> tuple[HeaderPart, Checkpoint] | None:
        """Header and checkpoint of a log whose signed entries are whole; None: nothing to look at."""
        header, checkpoint = self.findings.header, self.findings.checkpoint
        if not self.findings.integrity or header is None or checkpoint is None:
            return None
        return header, checkpoint

    def _draw(
        self, header: HeaderPart, checkpoint: Checkpoint, vocabulary_size: int
    ) -> tuple[Sample, list[int]]:
        if self.request.draws is None:
            return select(header, checkpoint, self.findings.opened, self.request.sample, self.secret)
        return select_proportional(
            self.reader, header, checkpoint,
            draws=self.request.draws, secret=self.secret, vocabulary_size=vocabulary_size,
        )  # fmt: skip

    def _seeds(self, header: HeaderPart) -> SeedCheck | None:
        path = self.request.seed_key
        return None if path is None else SeedCheck.of(header, load_seed_key(path))

    def _kept(self, signed: SignedCalibration | None) -> Unfinished | None:
        """Where the scores are kept until the bundle is written; None without a bundle."""
        if self.request.out is None or self.secret is None:
            return None
        setting = ("" if signed is None else signed.digest, str(self.request.bound))
        return Unfinished(place_of(self.request.out), self.secret, setting)

    def _nothing(self) -> Examination:
        opened, covered = self.findings.opened, self.findings.covered
        return Examination(Sample(scheme="all", population=opened, records=0, tokens=0, tree_size=covered))


def _statement(
    result: AuditResult,
    header: HeaderPart,
    checkpoint: Checkpoint,
    reference: Mapping[str, str],
    evidence: Mapping[str, str],
) -> Statement:
    return Statement(
        subject=(
            subject_of("log", f"sha256:{checkpoint.root.hex()}"),
            subject_of("model", header.model_digest),
        ),
        predicate=Predicate(
            verdict=result.verdict.outcome,
            reasons=result.verdict.reasons,
            rule=result.rule,
            declaration=Declaration(
                log_id=header.log_id,
                model=header.model_digest,
                profile=header.profile,
                dtype=header.dtype,
            ),
            reference=dict(reference),
            sample=result.sample,
            claims=digest_of(result.claims),
            evidence=dict(evidence),
            software={"ullage": __version__},
            created=str(time.time_ns()),
        ),
    )
