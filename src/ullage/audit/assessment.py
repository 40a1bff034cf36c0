"""What an audit says with a calibration: covert capacity, and the alarm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ullage.audit.admissible.claims import Setting, capacity_claims
from ullage.audit.bounds.betting import message_weights
from ullage.audit.bounds.codelength import ending_codelength
from ullage.audit.bounds.window import (
    DEFAULT_TARGET,
    CovertFigures,
    WindowShape,
    codelengths,
    covert_figures,
    uniform_advice,
)
from ullage.audit.calibration.file import SignedCalibration, check_pair, load_calibration
from ullage.audit.claims import Context
from ullage.audit.covert_claims import alarm_claims, covert_claims, not_covered
from ullage.audit.examination import Examination
from ullage.audit.verdict import CONFIDENCE
from ullage.audit.watch import DEFAULT_ALPHA, Alarm, watch
from ullage.claims import Claim, Window
from ullage.errors import UndecidedError, UsageError
from ullage.log.findings import LogFindings
from ullage.log.keys import VerifierKeys, load_verifier
from ullage.log.record import HeaderPart


@dataclass(frozen=True, kw_only=True)
class AuditOptions:
    """The part of a request that is about what to show, and from what."""

    keys: Path | None = None
    """Folder with the verifier's keys: for a draw, and to sign a bundle."""
    calibration: Path | None = None
    """A signed calibration: then codelengths, bounds and the alarm are computed."""
    calibration_key: Path | None = None
    """Public key that signed it; None for the one in `keys`."""
    bound: float | None = None
    """Raw logits, for the sizes of admissible sets."""
    draws: int | None = None
    """Draws with replacement, in proportion to size, for a statement with a confidence."""
    confidence: float = CONFIDENCE
    """Of that statement."""
    target: float = DEFAULT_TARGET
    """The share of the output bits that the audit should show; only for advice on its size."""
    alpha: float = DEFAULT_ALPHA
    """False alarms of the deviation alarm, at most."""
    exact: bool = False
    """Whether transcripts are derived again bit for bit: for enforced logs, and instead of a calibration."""
    capacity: bool = False
    """Whether path figure, walk and count are wanted; takes `bound`."""
    walks: int = 16
    """How many records to walk from, several times each."""


@dataclass(frozen=True)
class Assessment:
    """Figures, claims, and what follows for the verdict."""

    covert: CovertFigures | None = None
    alarm: Alarm | None = None
    claims: tuple[Claim, ...] = ()
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


NO_ASSESSMENT = Assessment()


def check_options(options: AuditOptions) -> None:
    """Raise UsageError for options that do not go together."""
    if options.exact and (options.calibration is not None or options.bound is not None):
        raise UsageError(
            "--exact compares bits, so there is no noise to calibrate or bound: leave out --calibration and "
            "--bound."
        )
    if options.calibration is None:
        for value, name in ((options.bound, "--bound"), (options.draws, "--draws")):
            if value is not None and not options.exact:
                raise UsageError(
                    f"{name} needs a calibration: give --calibration (`ullage calibrate` makes one)"
                    + (", or --exact for an enforced log." if name == "--draws" else ".")
                )
    if options.capacity and options.bound is None:
        raise UsageError(
            "--capacity counts admissible sets: give the noise bound with --bound, in raw logits."
        )
    if options.walks < 2:
        raise UsageError("--walks takes a number of messages from 2 on: one gives no interval.")
    if options.bound is not None and not 0 <= options.bound < 1e6:
        raise UsageError("--bound is a number of raw logits from 0 on.")
    if options.draws is not None and options.draws < 1:
        raise UsageError("--draws takes a number of draws from 1 on.")
    for number, name in (
        (options.confidence, "--confidence"), (options.target, "--target"), (options.alpha, "--alpha"),
    ):  # fmt: skip
        if not 0 < number < 1:
            raise UsageError(f"{name} lies between 0 and 1.")


def load_for(options: AuditOptions, keys: VerifierKeys | None) -> SignedCalibration | None:
    """The calibration that a request names, its signature verified."""
    if options.calibration is None:
        return None
    if options.calibration_key is not None:
        verifier = load_verifier(options.calibration_key)
    elif keys is not None:
        verifier = keys.verdict.verifier
    else:
        raise UsageError(
            "A calibration is signed: give the key that signed it with --calibration-key (verdict.pub), or "
            "your own keys with --keys."
        )
    return load_calibration(options.calibration, verifier)


def check_usable(signed: SignedCalibration, header: HeaderPart, window_end: int | None) -> None:
    """Raise UsageError unless the calibration is for this log and this machine, and has not expired."""
    from ullage.model.stack import stack_digest

    check_pair(signed.content, header, stack_digest(signed.content.reference.dtype), window_end)


def context_of(findings: LogFindings, examination: Examination) -> Context:
    """What the claims of an audit share."""
    header, checkpoint, sample = findings.header, findings.checkpoint, examination.sample
    inputs: dict[str, str] = {}
    if checkpoint is not None:
        inputs |= {"log_root": f"sha256:{checkpoint.root.hex()}", "log_size": str(checkpoint.size)}
    if header is not None:
        inputs["model"] = header.model_digest
    if examination.reference is not None:
        inputs["reference_stack"] = examination.reference["stack"]
        if "digest" in examination.reference:
            inputs["reference_digest"] = examination.reference["digest"]
    if sample.selection_commitment is not None:
        inputs["selection_commitment"] = sample.selection_commitment
    window = None
    if findings.covered and findings.first_time is not None and findings.last_time is not None:
        window = Window(start=str(findings.first_time), end=str(findings.last_time))
    return Context(
        log_id=header.log_id if header else "",
        model_digest=header.model_digest if header else "",
        window=window,
        inputs=inputs,
    )


def assess(
    options: AuditOptions,
    signed: SignedCalibration | None,
    findings: LogFindings,
    examination: Examination,
    limit: float | None,
) -> Assessment:
    """All figures that rest on the calibration; nothing without one, or when no record was examined."""
    window = examination.window
    if signed is None or window is None:
        return NO_ASSESSMENT
    context = context_of(findings, examination)
    context = Context(
        context.log_id, context.model_digest, context.window, {**context.inputs, "calibration": signed.digest}
    )
    vocabulary_size = signed.content.noise_model.vocabulary_size
    covert, claims, notes = _covert(options, signed, findings, examination, context)
    tokens = int(window.lengths.sum())
    alarm = watch(
        examination.records,
        signed.content,
        alpha=options.alpha,
        audited_share=_audited_share(examination, window, vocabulary_size),
        bits_per_message=tokens * float(np.log2(vocabulary_size)) / max(len(window.lengths), 1),
    )
    claims += alarm_claims(alarm, context)
    if options.capacity and options.bound is not None and limit is not None:
        setting = Setting(options.bound, vocabulary_size, context)
        more, why = capacity_claims(examination, window, limit, setting)
        claims, notes = claims + more, notes + why
    return Assessment(covert, alarm, claims, (alarm.sentence(),) if alarm.fired else (), notes)


def _covert(
    options: AuditOptions,
    signed: SignedCalibration,
    findings: LogFindings,
    examination: Examination,
    context: Context,
) -> tuple[CovertFigures | None, tuple[Claim, ...], tuple[str, ...]]:
    window = examination.window
    if window is None:
        return None, (), ()
    vocabulary_size = signed.content.noise_model.vocabulary_size
    if examination.sample.scheme == "uniform-without-replacement":
        why = uniform_advice(
            window,
            codelengths(window, examination.records),
            ending_codelength(window.cut, window.limits),
            vocabulary_size,
            confidence=options.confidence,
            target=options.target,
        )
        return None, not_covered(why, context), (why,)
    late = None
    if findings.first_time is not None and int(signed.content.created) > findings.first_time:
        late = (
            "The calibration was signed after the window had begun: nobody chose it to suit what the window "
            "carries."
        )
    try:
        figures = covert_figures(
            window,
            examination.records,
            examination.drawn,
            vocabulary_size,
            confidence=options.confidence,
            target=options.target,
        )
    except UndecidedError as error:
        return None, not_covered(str(error), context), (str(error),)
    notes = (figures.statement(), *((figures.advice,) if figures.advice else ()))
    return figures, covert_claims(figures, context, late), notes


def _audited_share(examination: Examination, window: WindowShape, vocabulary_size: int) -> float:
    """The mean probability of a record to be audited."""
    sample = examination.sample
    if sample.draws is None or not len(window.lengths):
        return sample.records / sample.population if sample.population else 0.0
    weights = message_weights(window.lengths, vocabulary_size).astype(np.float64)
    return float(np.mean(-np.expm1(sample.draws * np.log1p(-np.minimum(weights / weights.sum(), 1 - 1e-12)))))
