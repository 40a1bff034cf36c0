"""Make a calibration: honest runs of one server, held against one reference.

The runs are the verifier's own. What a prover logged in production calibrates nothing: it could choose its
noise to suit what it wants to hide (`docs/proofs/covert-capacity.md`, section 3).

Half of the *prompts* (by digest, so that nobody chooses) make the fit; the other half says how well it
does. A session is a server run and a prompt.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ullage import __version__
from ullage.audit.admissible.noise_error import noise_error
from ullage.audit.bounds.alarm import log_e_process, log_supremum, mismatch_limits
from ullage.audit.bounds.capacity import clustered_ratio
from ullage.audit.bounds.noise_model import HonestTokens, IsotonicCurve, NoiseModel, fit_noise_model
from ullage.audit.bounds.statistics import upper_bound
from ullage.audit.calibration.file import (
    Calibration,
    Fitted,
    HeldOut,
    ProverConfiguration,
    ReferenceConfiguration,
    RunCurve,
)
from ullage.audit.coding import TokenCoder
from ullage.audit.examination import Progress, check_model
from ullage.audit.finish import check_finish
from ullage.audit.recompute import check_tokens, score_blocks
from ullage.errors import IntegrityError, UndecidedError, UsageError
from ullage.log.keys import load_verifier
from ullage.log.reader import LogReader
from ullage.log.record import HeaderPart, Record
from ullage.log.sealed.openers import Opener, load_opener
from ullage.model.reference import Reference
from ullage.sampling.candidates import DEFAULT_WIDTH, Candidates, score_with_candidates
from ullage.sampling.profiles import get_profile

CONFIDENCE: Final = 0.95
DEFAULT_REACH: Final = 1.0
"""Raw logits up to which candidates are collected."""
KAPPA: Final = 2.0
"""How many times the noisiest session's flips the alarm's null hypothesis allows."""
_SCALES_IN_CUTOFF: Final = 30.0
_LEAST_PROMPTS: Final = 4
_MOST_SUPREMA: Final = 30_000
_MOST_STEPS: Final = 512


@dataclass(frozen=True)
class CalibrationRequest:
    """Logs of honest runs, the reference, and what the verifier says about the server."""

    logs: tuple[Path, ...]
    model: Path
    stack: str
    days: float = 30.0
    log_keys: tuple[Path, ...] = ()
    """One a log, or none: then each log vouches for itself, which does for runs of one's own."""
    record_keys: tuple[Path, ...] = ()
    """What opens the records: files of `ullage log open`, folders with `seal.key`; one a log, or for all."""
    reach: float = DEFAULT_REACH


@dataclass(frozen=True)
class _Run:
    header: HeaderPart
    root: str
    records: tuple[Record, ...]


@dataclass(frozen=True)
class _Collected:
    """All output tokens of all runs, one row a token; messages are consecutive."""

    near: Candidates
    chosen: NDArray[np.int64]
    session: NDArray[np.int64]  # (T,)
    run: NDArray[np.int64]  # (T,)
    message_session: NDArray[np.int64]  # (N,)
    message_prompt: tuple[str, ...]  # (N,)
    lengths: NDArray[np.int64]  # (N,)

    def rows(self, messages: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.repeat(messages, self.lengths)


def calibrate(request: CalibrationRequest, progress: Progress | None = None) -> Calibration:
    """Recompute honest runs, fit a noise model, measure it on held-out prompts.

    Raises UsageError when the logs do not fit together or the model is another, IntegrityError for a log
    that does not verify or a record that cannot be the declared model's, UndecidedError for too little data.
    """
    progress = progress or (lambda stage, done, total: None)
    if not 0 < request.days <= 3660:
        raise UsageError("A calibration is valid for more than 0 and at most 3660 days.")
    if request.log_keys and len(request.log_keys) != len(request.logs):
        raise UsageError(
            f"There are {len(request.logs)} logs and {len(request.log_keys)} keys: give one each."
        )
    if len(request.record_keys) not in (0, 1, len(request.logs)):
        raise UsageError(
            f"There are {len(request.logs)} logs and {len(request.record_keys)} places with keys of records: "
            "give one for all, or one each."
        )
    progress("verifying the logs", 0, 0)
    keys = request.log_keys or (None,) * len(request.logs)
    openers = [load_opener(None, place) for place in request.record_keys] or [None]
    if len(openers) == 1:
        openers *= len(request.logs)
    runs = [_open_run(log, key, opener) for log, key, opener in zip(request.logs, keys, openers, strict=True)]
    header = _common(runs)
    noise_error(header.profile, np.zeros(1))
    check_model(request.model, header.model_digest)
    progress("loading the reference", 0, 0)
    reference = Reference.load(request.model)
    data = _collect(reference, header, runs, request.reach, progress)
    fitting = np.array([_is_fitted(prompt) for prompt in data.message_prompt], dtype=np.bool_)
    _check_prompts(data, fitting)
    progress("fitting the noise model", 0, 0)
    noise, alarm_floor = _fit(data, fitting, reference.vocabulary_size, request.reach)
    now = time.time_ns()
    return Calibration(
        prover=ProverConfiguration(
            model=header.model_digest, dtype=header.dtype, profile=header.profile, stack=request.stack
        ),
        reference=ReferenceConfiguration(
            model=reference.identity.digest, dtype=reference.dtype, stack=reference.stack_digest
        ),
        noise={name: value for name, value in noise.to_dict().items() if isinstance(value, (str, int))},
        candidates=DEFAULT_WIDTH,
        alarm_floor=repr(alarm_floor),
        alarm_kappa=repr(KAPPA),
        runs=tuple(_run_curve(run, number, data) for number, run in enumerate(runs)),
        fitted=_counts(data, fitting),
        held_out=_held_out(data, ~fitting, noise, alarm_floor),
        created=str(now),
        expires=str(now + int(request.days * 86_400e9)),
        software={"ullage": __version__},
    )


def _open_run(log: Path, key: Path | None, opener: Opener | None) -> _Run:
    reader = LogReader.open(log, load_verifier(key) if key else None, opener)
    findings = reader.verify()
    if not findings.integrity or findings.header is None or findings.checkpoint is None:
        said = findings.findings[0].sentence if findings.findings else "it has no signed entries."
        raise IntegrityError(f"{log} does not verify, so it calibrates nothing: {said}")
    records = tuple(record for record in reader.records() if record.output_ids)
    return _Run(findings.header, f"sha256:{findings.checkpoint.root.hex()}", records)


def _common(runs: Sequence[_Run]) -> HeaderPart:
    header = runs[0].header
    if any(run.header.reference_digest is not None for run in runs):
        raise UsageError(
            "A log of `ullage tap --enforce` holds the reference's own tokens and none of the server's "
            "noise: calibrate with runs behind a tap that does not enforce."
        )
    for run in runs[1:]:
        for what in ("model_digest", "dtype", "profile"):
            if getattr(run.header, what) != getattr(header, what):
                raise UsageError(
                    f"The logs are of different servers: their {what} differs. A calibration is for one pair."
                )
    if len({run.header.log_id for run in runs}) != len(runs):
        raise UsageError("A log was given twice; each run counts once.")
    return header


def _collect(
    reference: Reference, header: HeaderPart, runs: Sequence[_Run], reach: float, progress: Progress
) -> _Collected:
    profile = get_profile(header.profile)
    records = [record for run in runs for record in run.records]
    for record in records:
        problems = check_tokens(record, reference.vocabulary_size, reference.context_length)
        problems = problems or check_finish(record, reference.tokenizer)
        if problems:
            raise IntegrityError(f"An honest run has no such record: {problems[0]}")
    lengths = np.array([len(record.output_ids) for record in records], dtype=np.int64)
    total = int(lengths.sum())
    starts = np.concatenate([[0], np.cumsum(lengths)])
    near = Candidates.empty(total, DEFAULT_WIDTH)
    chosen = np.full(total, -1)
    done = 0
    for block in score_blocks(reference, records):
        scores, found = score_with_candidates(
            profile, block.logits, block.claimed, block.parameters, block.address, reach=reach
        )
        picked = found.chosen(scores.reference, block.claimed)
        for place, there, here in block.runs:
            rows = slice(int(starts[place]) + there.start, int(starts[place]) + there.stop)
            near.gaps[rows], near.ids[rows], chosen[rows] = found.gaps[here], found.ids[here], picked[here]
        done += len(block.logits)
        progress("recomputing tokens", done, total)
    run_of = np.repeat(np.arange(len(runs)), [len(run.records) for run in runs])
    prompts = tuple(prompt_digest(record) for record in records)
    names = [f"{run} {prompt}" for run, prompt in zip(run_of, prompts, strict=True)]
    _, session = np.unique(names, return_inverse=True) if names else ([], np.zeros(0, np.int64))
    return _Collected(
        near=near,
        chosen=chosen,
        session=np.repeat(session, lengths),
        run=np.repeat(run_of, lengths),
        message_session=np.asarray(session, dtype=np.int64),
        message_prompt=prompts,
        lengths=lengths,
    )


def prompt_digest(record: Record) -> str:
    """Names a record's prompt; its tokens alone count."""
    return hashlib.sha256(b"ullage/prompt/v1" + repr(record.open.prompt_ids).encode()).hexdigest()


def _is_fitted(prompt: str) -> bool:
    return int(prompt[-1], 16) % 2 == 0


def _check_prompts(data: _Collected, fitting: NDArray[np.bool_]) -> None:
    for half, name in ((fitting, "to fit to"), (~fitting, "to hold out")):
        prompts = {prompt for prompt, used in zip(data.message_prompt, half, strict=True) if used}
        if len(prompts) < _LEAST_PROMPTS:
            raise UndecidedError(
                f"The runs leave {len(prompts)} different prompts {name}; at least {_LEAST_PROMPTS} are "
                "needed in either half, so record some twenty different prompts or more."
            )


def _fit(
    data: _Collected, fitting: NDArray[np.bool_], vocabulary_size: int, reach: float
) -> tuple[NoiseModel, float]:
    """The model from the fitted half, and the alarm's limit on tokens outside."""
    rows = data.rows(fitting)
    return fit_with_cutoff(
        _take(data.near, rows), data.chosen[rows], data.session[rows], vocabulary_size, reach
    )


def fit_with_cutoff(
    near: Candidates,
    chosen: NDArray[np.int64],
    session: NDArray[np.int64],
    vocabulary_size: int,
    reach: float = DEFAULT_REACH,
) -> tuple[NoiseModel, float]:
    """Fit honest tokens, one row a token, with a cutoff that suits the noise found; and the alarm's limit on
    tokens outside. `near` (T, C) up to `reach` raw logits, `chosen` (T,) as in `HonestTokens`."""
    honest = HonestTokens(near.gaps, chosen, session)
    noise = fit_noise_model(honest, vocabulary_size, reach)
    width = honest.gaps.shape[1]
    inside = honest.chosen[(honest.chosen >= 0) & (honest.chosen < width)]
    flipped = honest.gaps[(honest.chosen >= 0) & (honest.chosen < width), inside]
    cutoff = max(_SCALES_IN_CUTOFF * noise.supremum.scale, 2 * float(flipped.max(initial=0.0)))
    if cutoff < reach:
        noise = fit_noise_model(honest, vocabulary_size, cutoff)
    outside = int(TokenCoder(noise, width).codes(near, honest.chosen).outside.sum())
    # An upper bound also where none was seen: few tokens say little about a rare event. Doubled, because it
    # counts tokens, and what lies outside (at filters' edges, say) comes in clusters.
    limit = 2 * upper_bound(outside, len(honest.chosen), CONFIDENCE)
    return noise, min(max(noise.floor, limit), 0.25)


def _take(near: Candidates, rows: NDArray[np.bool_]) -> Candidates:
    return near.rows(rows)


def _counts(data: _Collected, half: NDArray[np.bool_]) -> Fitted:
    prompts = {prompt for prompt, used in zip(data.message_prompt, half, strict=True) if used}
    chosen = data.chosen[data.rows(half)]
    return Fitted(
        prompts=len(prompts),
        messages=int(half.sum()),
        tokens=len(chosen),
        mismatches=int(np.count_nonzero(chosen >= 0)),
    )


def _held_out(data: _Collected, half: NDArray[np.bool_], noise: NoiseModel, alarm_floor: float) -> HeldOut:
    rows = data.rows(half)
    codes = TokenCoder(noise, DEFAULT_WIDTH).codes(_take(data.near, rows), data.chosen[rows])
    mismatch = (data.chosen[rows] >= 0).astype(np.float64)
    session, ones = data.session[rows], np.ones(int(rows.sum()))
    length = clustered_ratio(codes.codelength, ones, session, CONFIDENCE)
    rate = clustered_ratio(mismatch, ones, session, CONFIDENCE)
    high = rate.high
    if not mismatch.any():  # no spread to see: then sessions count as trials
        high = upper_bound(0, len(np.unique(session)), CONFIDENCE)
    limits = mismatch_limits(codes.flip[0], KAPPA, alarm_floor)
    inside = (mismatch > 0) & ~codes.outside
    suprema = []
    for one in np.unique(session)[:_MOST_SUPREMA]:
        here = session == one
        log_e = log_e_process(
            limits[here], inside[here], codes.outside[here], alarm_floor,
            [rate_[here] for rate_ in codes.flip[1:]],
        )  # fmt: skip
        suprema.append(float(log_supremum(log_e)))
    return HeldOut(
        **_counts(data, half).model_dump(),
        outside=int(codes.outside.sum()),
        codelength=repr(length.value),
        codelength_low=repr(max(0.0, length.low)),
        codelength_high=repr(length.high),
        mismatch_low=repr(max(0.0, rate.low)),
        mismatch_high=repr(min(1.0, high)),
        confidence=repr(CONFIDENCE),
        suprema=tuple(_rounded_up(value) for value in sorted(suprema)),
    )


def _rounded_up(value: float) -> str:
    """A decimal of seven digits that is not below the value: limits must not shrink in the file."""
    text = f"{value:.7g}"
    return text if float(text) >= value else f"{value + 10.0 ** (math.floor(math.log10(value)) - 6):.7g}"


def _run_curve(run: _Run, number: int, data: _Collected) -> RunCurve:
    rows = data.run == number
    edges: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    if np.isfinite(data.near.gaps[rows, 0]).any():
        curve = IsotonicCurve.fit(data.near.gaps[rows, 0], data.chosen[rows] >= 0)
        edges = tuple(repr(float(edge)) for edge in curve.edges[:_MOST_STEPS])
        values = tuple(repr(float(value)) for value in curve.values[:_MOST_STEPS])
    return RunCurve(log_id=run.header.log_id, root=run.root, edges=edges, values=values)
