"""What an audit says with a calibration: covert capacity, and the alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ullage.audit.betting import message_weights
from ullage.audit.bounds import DEFAULT_TARGET, CovertFigures, WindowShape, covert_figures
from ullage.audit.calibration import SignedCalibration, check_pair, load_calibration
from ullage.audit.capacity import admissible_path_capacity, clustered_ratio
from ullage.audit.claims import Context
from ullage.audit.covert_claims import alarm_claims, covert_claims, not_covered, path_claim
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
    """The part of a request that is about calibrations."""

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
    capacity: bool = False
    """Whether the path figure C(b, K) is wanted, an estimate; takes `bound`."""


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
    if options.calibration is None:
        for value, name in ((options.bound, "--bound"), (options.draws, "--draws")):
            if value is not None:
                raise UsageError(
                    f"{name} needs a calibration: give --calibration (`ullage calibrate` makes one)."
                )
    if options.capacity and options.bound is None:
        raise UsageError(
            "--capacity counts admissible sets: give the noise bound with --bound, in raw logits."
        )
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
        try:
            claims += (_path(examination, options.bound, limit, vocabulary_size, context),)
        except UndecidedError as error:
            notes += (str(error),)
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
    if examination.sample.scheme == "uniform-without-replacement":
        why = (
            "A uniform sample gives no bound on covert bits: draw in proportion to size with --draws N, or "
            "audit all records with --sample all."
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
            signed.content.noise_model.vocabulary_size,
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


def _path(
    examination: Examination, bound: float, limit: float, vocabulary_size: int, context: Context
) -> Claim:
    counts = _counts(examination)
    sums = np.array([float(np.log2(one).sum()) for one in counts])
    tokens = np.array([float(len(one)) for one in counts])
    ratio = clustered_ratio(sums, tokens, np.arange(len(counts)), 0.95)
    # The verdict's rule looks at no ranks (q = 1), and it tolerates `limit` mismatches.
    figure = admissible_path_capacity(ratio.value, limit, 1.0, 1, vocabulary_size)
    return path_claim(ratio, figure, bound, context)


def _counts(examination: Examination) -> Sequence[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    return [
        record.scores.codes.admissible_count
        for record in examination.records
        if record.scores is not None and record.scores.codes is not None and len(record.scores.token)
    ]
